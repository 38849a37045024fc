"""Focal-depth loss: more weight for images on which the student is far from its teacher (ADU-Depth eqs. 4 and 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from adubench.distillation.reduction import AllReduce, at_least_float32, count_of, mean_over_processes, one_process

if TYPE_CHECKING:
    from torch import Tensor

Granularity = Literal["image", "batch", "pixel"]
Score = Literal["linear", "exp"]

MIN_TEACHER_DEPTH = 1e-3
"""Metres; the least denominator of eq. 4."""
MIN_MISMATCH = 1e-6
"""Least mismatch: with gamma < 1 the slope of eq. 5 is infinite at 0."""


def mismatch(ds: Tensor, dt: Tensor) -> Tensor:
    """|d_s - d_t| / max(d_t, 1 mm) per pixel, the summand of eq. 4; at least float32, no gradient for the teacher."""
    ds, dt = at_least_float32(ds), at_least_float32(dt.detach())
    return (ds - dt).abs() / dt.clamp(min=MIN_TEACHER_DEPTH)


def focal_term(
    m: Tensor, *, alpha: float = 1.0, gamma: float = 2.0, eps: float = 0.01, score: Score = "linear"
) -> Tensor:
    """Eq. 5 as a function of the mismatch m = 1 - p_d, elementwise.

    `linear` (p_d = 1 - m): -alpha m^gamma log1p(-m) with m clamped to [1e-6, 1 - eps]; a clamped mismatch has no
    gradient. `exp` (p_d = exp(-m)): alpha (1 - p_d)^gamma m, which never saturates.
    """
    if score == "exp":
        m = m.clamp(min=MIN_MISMATCH)
        return alpha * (-torch.expm1(-m)) ** gamma * m
    m = m.clamp(min=MIN_MISMATCH, max=1 - eps)
    return -alpha * m**gamma * torch.log1p(-m)


def focal_depth_loss(
    ds: Tensor,
    dt: Tensor,
    mask: Tensor | None = None,
    *,
    alpha: float = 1.0,
    gamma: float = 2.0,
    eps: float = 0.01,
    granularity: Granularity = "image",
    score: Score = "linear",
    all_reduce: AllReduce = one_process,
) -> tuple[Tensor, Tensor]:
    """Focal-depth loss of a batch.

    Args:
        ds: (B, 1, H, W) student depth in metres.
        dt: same shape, teacher depth; receives no gradient.
        mask: same shape, True where pixels count; None: all of them.
        alpha: factor on the loss.
        gamma: focusing exponent, >= 0; 0 weights all images alike.
        eps: least score p_d; 1/eps bounds the slope of the logarithm.
        granularity: what one score describes: an image (mean over images), the batch, or a pixel (mean over pixels).
        score: `linear` is eq. 4, `exp` is exp(-m).
        all_reduce: adds a small tensor over processes, differentiably.

    Returns:
        The loss, and the score p_d per image (B,) before clamping, without gradient (eq. 4 is negative once predictions
        are on average more than double). Images without a pixel in the mask have score 1 and do not count.
    """
    values = mismatch(ds, dt)
    count = count_of(values[0]).expand(len(values))
    if mask is not None:
        values = torch.where(mask, values, 0.0)
        count = mask.flatten(1).sum(dim=1).to(values)
    per_image = values.flatten(1).sum(dim=1)
    m = per_image / count.clamp(min=1)
    p_d = (torch.exp(-m) if score == "exp" else 1 - m).detach()
    if granularity == "batch":
        whole = mean_over_processes(per_image.sum(), count.sum(), all_reduce)
        return focal_term(whole, alpha=alpha, gamma=gamma, eps=eps, score=score), p_d
    if granularity == "pixel":
        terms = focal_term(values, alpha=alpha, gamma=gamma, eps=eps, score=score)
        total = (terms if mask is None else torch.where(mask, terms, 0.0)).sum()
        return mean_over_processes(total, count.sum(), all_reduce), p_d
    counted = count > 0
    terms = torch.where(counted, focal_term(m, alpha=alpha, gamma=gamma, eps=eps, score=score), 0.0)
    return mean_over_processes(terms.sum(), counted.sum().to(terms), all_reduce), p_d
