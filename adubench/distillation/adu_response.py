"""Response distillation of ADU-Depth: student depth against teacher depth (eq. 6), weighted by uncertainty (eq. 8)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn import functional

from adubench.distillation.reduction import AllReduce, at_least_float32, count_of, mean_over_processes, one_process

if TYPE_CHECKING:
    from torch import Tensor

LaplaceForm = Literal["printed", "log_variance"]
Space = Literal["depth", "log", "inverse"]
Reduction = Literal["mean", "sum"]

MIN_DEPTH = 1e-3
"""Metres; depths are clamped to it before a logarithm or a reciprocal is taken."""

PADDED_CELLS = 8
"""Networks of stride 32 pad by fewer 1/4 cells than this."""


def in_space(depth: Tensor, space: Space) -> Tensor:
    """Depth in metres, its natural logarithm, or its reciprocal in 1/m; at least float32."""
    depth = at_least_float32(depth)
    if space == "log":
        return torch.log(depth.clamp(min=MIN_DEPTH))
    if space == "inverse":
        return 1 / depth.clamp(min=MIN_DEPTH)
    return depth


def laplace_term(residual: Tensor, s: Tensor, form: LaplaceForm = "printed") -> Tensor:
    """Eq. 8 per pixel: sqrt(2) exp(-s) |e| + s, the Laplace likelihood if s is the log of sigma.

    `log_variance` reads s as the log of sigma squared, as the text of the paper and eq. 7 do:
    sqrt(2) exp(-s/2) |e| + s/2.
    """
    log_sigma = s / 2 if form == "log_variance" else s
    return math.sqrt(2) * torch.exp(-log_sigma) * residual + log_sigma


def response_loss(
    ds: Tensor,
    dt: Tensor,
    s: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    form: LaplaceForm = "printed",
    reduction: Reduction = "mean",
    space: Space = "depth",
    all_reduce: AllReduce = one_process,
) -> Tensor:
    """Distance of student and teacher depth: eq. 6 without `s`, eq. 8 with it.

    Args:
        ds: (B, 1, H, W) student depth in metres.
        dt: same shape, teacher depth; receives no gradient.
        s: same shape, predicted log uncertainty, or None.
        mask: same shape, True where pixels count; None: all of them.
        form: what s means, see `laplace_term`.
        reduction: `mean` over pixels, or their `sum` (eq. 6 is printed without 1/N).
        space: where the residual is taken.
        all_reduce: adds a small tensor over processes, differentiably.

    Returns:
        The loss; negative values are possible with `s`. 0 with a graph if the mask is empty.
    """
    terms = (in_space(ds, space) - in_space(dt.detach(), space)).abs()
    if s is not None:
        terms = laplace_term(terms, at_least_float32(s), form)
    count = count_of(terms)
    if mask is not None:
        terms = torch.where(mask, terms, 0.0)
        count = mask.sum().to(terms)
    total = terms.sum()
    return all_reduce(total) if reduction == "sum" else mean_over_processes(total, count, all_reduce)


def at_quarter(values: Tensor, size: tuple[int, int]) -> Tensor:
    """A full-resolution map (B, 1, H, W) averaged over the cells of a (h, w) map, at least float32.

    Networks pad their input at the right and at the bottom, so that (h, w) may be larger than a quarter of (H, W):
    cells of 4 x 4 pixels are averaged over what they cover, and those of the padding are left out. A map that was
    resized to another size after the network is averaged in cells of that ratio.
    """
    values = at_least_float32(values)
    rows, columns = -(-values.shape[-2] // 4), -(-values.shape[-1] // 4)
    if 0 <= size[0] - rows < PADDED_CELLS and 0 <= size[1] - columns < PADDED_CELLS:
        return functional.avg_pool2d(values, 4, 4, ceil_mode=True, count_include_pad=False)
    return functional.adaptive_avg_pool2d(values, size)
