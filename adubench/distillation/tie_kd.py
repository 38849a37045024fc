"""The loss of TIE-KD: a student with depth bins learns from nothing but a teacher's depth map.

TIE-KD (arXiv 2402.14340), `tie_kd_loss.py`: L = 10 (alpha mean KL + (1 - alpha) (1 - SSIM)). No ground truth enters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from adubench.distillation.depth_probability import Form, dpm_divergence_map
from adubench.distillation.reduction import AllReduce, mean_over_processes, one_process
from adubench.distillation.ssim import depth_loss
from adubench.errors import DataError, UsageError, unknown_name

KITTI_IGNORED_ROWS = 110


@dataclass(frozen=True, slots=True)
class TieKDConfig:
    """Settings of the loss.

    Attributes:
        alpha: weight of the divergence, 1 - alpha that of the SSIM term, in [0, 1]. The release's one value of 1.5
            would minimise similarity; it is refused.
        sigma: metres, width of the teacher's distribution. The released code declares 0.8 (KITTI) and 0.15 (NYU) but
            always uses 0.5 in the combined loss; the preset `as-released` does the same.
        factor: in front of everything.
        ignore_top_rows: rows of the KB-cropped frame without LiDAR supervision, where the teacher is not trusted: 110
            for KITTI, 0 for NYU. Sliced away, never inferred from the width.
        form: of the divergence, see `dpm_divergence_map`.
        rows_at_once: see `dpm_divergence_map`.
        rotate_teacher: turn the teacher's map with the image (pixels turned in are masked). The released code turns
            image and ground truth only.
    """

    alpha: float = 0.1
    sigma: float = 0.8
    factor: float = 10.0
    ignore_top_rows: int = KITTI_IGNORED_ROWS
    form: Form = "windowed"
    rows_at_once: int | None = None
    rotate_teacher: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise UsageError(f"TIE-KD alpha is {self.alpha:g}: it takes 0 to 1 (outside, one term is maximised).")
        if not 0 < self.sigma < float("inf"):
            raise UsageError(f"TIE-KD sigma is {self.sigma:g}: it takes metres above 0.")
        if not self.factor > 0:
            raise UsageError(f"TIE-KD factor is {self.factor:g}: it takes a number above 0.")
        if self.ignore_top_rows < 0:
            raise UsageError(f"TIE-KD ignore_top_rows is {self.ignore_top_rows}: it takes 0 or more.")


PRESETS: dict[str, TieKDConfig] = {
    "as-intended": TieKDConfig(),
    "as-released": TieKDConfig(sigma=0.5, rotate_teacher=False),
}

Dataset = Literal["kitti", "nyu"]


def preset(name: str, *, dataset: Dataset = "kitti", **changes: Any) -> TieKDConfig:
    """A named configuration for a data set, with changes.

    Args:
        name: "as-intended" or "as-released".
        dataset: NYU ignores no rows, and its declared sigma is 0.15.
        **changes: fields to set.

    Raises:
        UsageError: unknown name, or a value out of range.
    """
    if name not in PRESETS:
        raise unknown_name("TIE-KD preset", name, PRESETS)
    config = PRESETS[name]
    if dataset == "nyu":
        config = replace(config, ignore_top_rows=0, sigma=0.15 if name == "as-intended" else config.sigma)
    return replace(config, **changes)


@dataclass(frozen=True, slots=True)
class TieKDLoss:
    """The loss and its parts, float32 scalars.

    Attributes:
        total: factor (alpha l_dpm + (1 - alpha) l_depth).
        l_dpm: mean divergence.
        l_depth: 1 - SSIM.
    """

    total: Tensor
    l_dpm: Tensor
    l_depth: Tensor


def tie_kd_loss(
    depth: Tensor,
    probs: Tensor,
    centres: Tensor,
    teacher: Tensor,
    config: TieKDConfig,
    *,
    mask: Tensor | None = None,
    all_reduce: AllReduce = one_process,
) -> TieKDLoss:
    """Compute the loss.

    Args:
        depth: (B, 1, H, W) student depth in metres.
        probs: (B, C, H, W) student probabilities.
        centres: (C,) bin centres in metres.
        teacher: (B, 1, H, W) teacher depth in metres, used as it is: 0 is a depth.
        config: settings.
        mask: (B, 1, H, W) bool, pixels whose teacher depth means something; None for all (as released).
        all_reduce: adds a small tensor over processes, differentiably.

    Raises:
        DataError: maps of different sizes, or no row left.
    """
    if not depth.shape == teacher.shape == (*probs.shape[:1], 1, *probs.shape[2:]):
        raise DataError(
            f"TIE-KD loss: student depth {tuple(depth.shape)}, probabilities {tuple(probs.shape)} and teacher map "
            f"{tuple(teacher.shape)} must share batch, height and width. Use a crop that fits the student's stride."
        )
    top = config.ignore_top_rows
    if top >= depth.shape[2]:
        raise DataError(
            f"TIE-KD loss: ignore_top_rows={top} leaves nothing of maps with {depth.shape[2]} rows. Set it to 0 for "
            "frames that are not the KITTI window."
        )
    depth, probs, teacher = depth[:, :, top:], probs[:, :, top:], teacher[:, :, top:]
    mask = None if mask is None else mask[:, :, top:]
    divergence = dpm_divergence_map(
        probs, teacher, centres, config.sigma, form=config.form, rows_at_once=config.rows_at_once
    )
    counts = torch.ones_like(divergence) if mask is None else mask.to(divergence)
    divergence = divergence if mask is None else torch.where(mask, divergence, torch.zeros_like(divergence))
    l_dpm = mean_over_processes(divergence.sum(), counts.sum(), all_reduce)
    l_depth = depth_loss(depth, teacher, mask, all_reduce=all_reduce).float()
    total = config.factor * (config.alpha * l_dpm + (1 - config.alpha) * l_depth)
    return TieKDLoss(total, l_dpm, l_depth)
