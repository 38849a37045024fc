"""Depth probability maps: a teacher's depth as a distribution over the student's bins, and the divergence from it.

TIE-KD (arXiv 2402.14340), `l_dpm_loss.py`. The target is a softmax over Gaussian *densities*: close to a box over the
bins within a window around the teacher's depth, exactly zero outside, uniform where no bin lies inside.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

DENSITY_FLOOR = 1e-16
EPSILON = 1e-7
_OUTSIDE = -1000.0

Form = Literal["windowed", "dense"]


def window_radius(sigma: float) -> float:
    """Metres around the teacher's depth within which a bin's density reaches the floor; 0 when none can."""
    peak = 1 / (DENSITY_FLOOR * sigma * math.sqrt(2 * math.pi))
    return sigma * math.sqrt(2 * math.log(peak)) if peak > 1 else 0.0


def _densities(centres: Tensor, depth: Tensor, sigma: float) -> Tensor:
    variance = sigma**2
    density = torch.exp(-((centres - depth) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
    return torch.where(density < DENSITY_FLOOR, torch.full_like(density, _OUTSIDE), density)


def dpm_target(depth: Tensor, centres: Tensor, sigma: float) -> Tensor:
    """Distribution of a teacher's depth over the bins.

    Args:
        depth: (B, 1, H, W) metres; nothing is masked, 0 and values beyond the bins are used as they are.
        centres: (C,) metres.
        sigma: metres.

    Returns:
        (B, C, H, W) float32, a constant; sums to 1 over C.
    """
    with torch.no_grad(), torch.autocast(device_type=depth.device.type, enabled=False):
        return torch.softmax(_densities(centres.float()[None, :, None, None], depth.float(), sigma), dim=1)


def _terms(probs: Tensor, target: Tensor) -> Tensor:
    """Summands of the divergence; a probability that underflowed to exactly 0 adds nothing, whatever its target."""
    ratio = target / (probs + EPSILON)
    return torch.where(probs != 0, target * torch.log(ratio + EPSILON), torch.zeros_like(probs))


def _dense_map(probs: Tensor, depth: Tensor, centres: Tensor, sigma: float) -> Tensor:
    return _terms(probs, dpm_target(depth, centres, sigma)).sum(dim=1, keepdim=True)


def _windowed_map(probs: Tensor, depth: Tensor, centres: Tensor, sigma: float) -> Tensor:
    """The same map from the bins inside the window alone; assumes uniform bins."""
    bins = centres.numel()
    width = float((centres[-1] - centres[0]).item()) / max(1, bins - 1)
    count = min(bins, math.ceil(2 * window_radius(sigma) / width) + 3)
    if count >= bins:
        return _dense_map(probs, depth, centres, sigma)
    with torch.no_grad():
        first = torch.floor((depth - centres[0]) / width) - (count - 1) // 2
        # Not finite: an index is needed, the density below is what decides.
        first = first.nan_to_num(nan=0, posinf=bins - count, neginf=0).clamp(0, bins - count).long()
        index = first + torch.arange(count, device=depth.device)[None, :, None, None]
        density = _densities(centres[index], depth, sigma)
        target = torch.softmax(density, dim=1)
        empty = (density == _OUTSIDE).all(dim=1, keepdim=True)
    near = _terms(torch.gather(probs, 1, index), target).sum(dim=1, keepdim=True)
    if not bool(empty.any()):
        return near
    rows = empty[:, 0]
    uniform = _terms(probs.movedim(1, -1)[rows], torch.full((1,), 1 / bins, device=probs.device)).sum(dim=-1)
    return near.masked_fill(empty, 0).masked_scatter(empty, uniform)


def dpm_divergence_map(
    probs: Tensor,
    teacher_depth: Tensor,
    centres: Tensor,
    sigma: float,
    *,
    form: Form = "windowed",
    rows_at_once: int | None = None,
) -> Tensor:
    """KL divergence of the student's distribution from the teacher's at every pixel, in float32.

    Args:
        probs: (B, C, H, W) student probabilities.
        teacher_depth: (B, 1, H, W) metres.
        centres: (C,) metres, uniform for the windowed form.
        sigma: metres.
        form: "windowed" computes only the bins whose target is not zero, "dense" all of them; equal results.
        rows_at_once: rows per step, to bound the memory of intermediate results; None for all at once.

    Returns:
        (B, 1, H, W) float32.
    """
    if sigma <= 0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    compute = _windowed_map if form == "windowed" else _dense_map
    with torch.autocast(device_type=probs.device.type, enabled=False):
        probs, depth, centres = probs.float(), teacher_depth.detach().float(), centres.to(probs.device).float()
        step = probs.shape[2] if rows_at_once is None else max(1, rows_at_once)
        parts = [
            compute(probs[:, :, row : row + step], depth[:, :, row : row + step], centres, sigma)
            for row in range(0, probs.shape[2], step)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
