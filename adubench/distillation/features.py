"""Feature distillation of ADU-Depth: squared distances per level (eqs. 2 and 3), weighted by uncertainty (eq. 7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn import functional

from adubench.distillation.reduction import AllReduce, at_least_float32, mean_over_processes, one_process
from adubench.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

Reduction = Literal["mean", "sum"]
Resize = Literal["area", "bilinear", "nearest"]


def uncertainty_at(s_quarter: Tensor, size: tuple[int, int], resize: Resize = "area") -> Tensor:
    """The uncertainty map (B, 1, h, w) at the size of a feature map, float32 or wider.

    `area` averages s over the cells of the map: the geometric mean of the variances, which cannot overflow.
    """
    s = at_least_float32(s_quarter)
    if tuple(s.shape[-2:]) == tuple(size):
        return s
    if resize == "area":
        return functional.adaptive_avg_pool2d(s, size)
    if resize == "bilinear":
        return functional.interpolate(s, size=size, mode="bilinear", align_corners=False)
    return functional.interpolate(s, size=size, mode="nearest")


def gaussian_term(residual: Tensor, s: Tensor) -> Tensor:
    """Eq. 7 per position: exp(-s) r / 2 + s / 2 with r the squared residual, s the log of the variance."""
    return 0.5 * torch.exp(-s) * residual + 0.5 * s


def feature_loss(
    student_maps: Sequence[Tensor],
    teacher_maps: Sequence[Tensor],
    s_maps: Sequence[Tensor] | None = None,
    *,
    channel_reduction: Reduction = "mean",
    level_reduction: Reduction = "mean",
    all_reduce: AllReduce = one_process,
) -> Tensor:
    """Distance of student and teacher feature maps: eq. 2 or 3 without `s_maps`, eq. 7 with them.

    Args:
        student_maps: adapted student features per level, (B, C, h, w) each.
        teacher_maps: teacher features of the same shapes; receive no gradient.
        s_maps: log variance per level, (B, 1, h, w) each, or None.
        channel_reduction: squared residuals are averaged over channels, or summed (`sum`: the printed norm).
        level_reduction: levels are averaged or summed.
        all_reduce: adds a small tensor over processes, differentiably.

    Returns:
        The loss; negative values are possible with `s_maps`. Per level it is a mean over images and positions.

    Raises:
        UsageError: no level, or shapes differ.
    """
    if not student_maps:
        raise UsageError("feature distillation needs at least one level: name one in distill.features, or set it off.")
    totals, counts = [], []
    for level, (student, teacher) in enumerate(zip(student_maps, teacher_maps, strict=True)):
        if student.shape != teacher.shape:
            raise UsageError(
                f"feature level {level}: the adapted student map is {tuple(student.shape)}, the teacher's is "
                f"{tuple(teacher.shape)}; both networks must see the same image size, and the adapters must be built "
                "for their channels."
            )
        # Cast before subtracting: in half precision the difference of two features has few digits left.
        squared = (at_least_float32(teacher.detach()) - at_least_float32(student)).square()
        residual = squared.mean(dim=1) if channel_reduction == "mean" else squared.sum(dim=1)
        terms = residual if s_maps is None else gaussian_term(residual, at_least_float32(s_maps[level])[:, 0])
        totals.append(terms.sum())
        counts.append(terms.new_tensor(float(terms.numel())))
    per_level = mean_over_processes(torch.stack(totals), torch.stack(counts), all_reduce)
    return per_level.mean() if level_reduction == "mean" else per_level.sum()
