"""Plain response distillation, and the supervised losses of the teachers.

Baselines of TIE-KD (arXiv 2402.14340): `mse_loss.py`, `si_loss.py`, `ssim_loss.py`, `ssim_si_loss.py`,
`ssim_mse_loss.py`. Teachers: AdaBins `loss.py` (SILog and bin chamfer), BTS `bts.py` (silog). Averages run over all
valid pixels of the batch together, also of a batch that is spread over processes: `all_reduce` adds sums and counts
(see `reduction`). Everything in float32 outside autocast, SSIM in float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from adubench.distillation.reduction import AllReduce, mean_over_processes, one_process
from adubench.distillation.silog import silog_loss
from adubench.distillation.ssim import depth_loss
from adubench.errors import unknown_name

LOG_EPSILON = 0.001
# Name -> weight of the configurations, which goes on the SSIM part of the sums alone; MSE ignores its weight.
RESPONSE_WEIGHTS: dict[str, float] = {"mse": 1.0, "si": 1.0, "ssim": 1.5, "ssim+si": 1.5, "ssim+mse": 1.5}
WARM_UP_STEPS = 100


def _root(inside: Tensor) -> Tensor:
    """Square root with slope 0 at 0, where the true one is infinite: pixels that all agree give no NaN."""
    positive = ~(inside <= 0)
    return torch.where(positive, torch.sqrt(torch.where(positive, inside, 1.0)), inside * 0)


def mse_loss(
    pred: Tensor, teacher: Tensor, mask: Tensor | None = None, *, all_reduce: AllReduce = one_process
) -> Tensor:
    """Mean squared difference in square metres over the pixels of `mask` (bool; None for all).

    Args:
        pred: (B, 1, H, W) metres.
        teacher: (B, 1, H, W) metres.
        mask: (B, 1, H, W) bool, pixels that count; None for all.
        all_reduce: adds a small tensor over processes, differentiably.
    """
    with torch.autocast(device_type=pred.device.type, enabled=False):
        difference = pred.float() - teacher.detach().float()
        counts = torch.ones_like(difference) if mask is None else mask.float()
        difference = difference if mask is None else torch.where(mask, difference, torch.zeros_like(difference))
        return mean_over_processes((difference**2).sum(), counts.sum(), all_reduce)


def _moments(error: Tensor, all_reduce: AllReduce) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and sum of squared deviations from it, of the values of all processes; two passes, for accuracy."""
    stats = all_reduce(torch.stack((error.sum(), error.new_tensor(float(error.numel())))))
    count = stats[1].detach()
    mean = stats[0] / count.clamp(min=1)
    return count, mean, all_reduce(((error - mean) ** 2).sum())


def si_loss(
    pred: Tensor,
    target: Tensor,
    *,
    weight: float = 1.0,
    max_depth: float | None = None,
    step: int | None = None,
    warm_up: int = 0,
    all_reduce: AllReduce = one_process,
) -> Tensor:
    """Scale-invariant log loss with unbiased variance: weight * sqrt(var(e) + 0.15 mean(e)^2).

    Args:
        pred: (B, 1, H, W) metres.
        target: (B, 1, H, W) metres; pixels with 0 (and beyond `max_depth`) do not count.
        weight: in front.
        max_depth: metres, None for no limit.
        step: index of the training step from 0; needed with `warm_up`, so that a resumed run continues where it was.
        warm_up: for so many steps the variance is left out.
        all_reduce: adds a small tensor over processes, differentiably.

    Returns:
        A scalar; 0 with a graph when no pixel counts.
    """
    if warm_up and step is None:
        raise ValueError("si_loss with warm_up needs the step index")
    with torch.autocast(device_type=pred.device.type, enabled=False):
        pred, target = pred.float(), target.detach().float()
        valid = target > 0
        if max_depth is not None:
            valid = valid & (target <= max_depth)
        error = torch.log(pred[valid] + LOG_EPSILON) - torch.log(target[valid] + LOG_EPSILON)
        count, mean, squares = _moments(error, all_reduce)
        if (step is not None and step < warm_up) or count == 1:
            return weight * math.sqrt(0.15) * mean.abs()
        return weight * _root(squares / (count - 1).clamp(min=1) + 0.15 * mean**2)


def response_kd_loss(
    kind: str,
    pred: Tensor,
    teacher: Tensor,
    *,
    weight: float | None = None,
    max_depth: float | None = None,
    step: int | None = None,
    warm_up: int = 0,
    mask: Tensor | None = None,
    all_reduce: AllReduce = one_process,
) -> Tensor:
    """One of TIE-KD's baselines against the teacher's map, over the whole crop.

    Args:
        kind: a name of `RESPONSE_WEIGHTS`.
        pred: (B, 1, H, W) metres.
        teacher: (B, 1, H, W) metres.
        weight: None for the configurations' own.
        max_depth: see `si_loss`.
        step: see `si_loss`.
        warm_up: see `si_loss`.
        mask: (B, 1, H, W) bool, pixels that count; None for all.
        all_reduce: adds a small tensor over processes, differentiably.

    Raises:
        UsageError: unknown kind.
    """
    if kind not in RESPONSE_WEIGHTS:
        raise unknown_name("response loss", kind, RESPONSE_WEIGHTS)
    scale = RESPONSE_WEIGHTS[kind] if weight is None else weight
    total = pred.new_zeros((), dtype=torch.float32)
    if "ssim" in kind:
        total = total + scale * depth_loss(pred, teacher, mask, all_reduce=all_reduce).float()
    if kind.endswith("mse"):
        total = total + mse_loss(pred, teacher, mask, all_reduce=all_reduce)
    if kind.endswith("si"):
        target = teacher if mask is None else teacher * mask
        si_weight = scale if kind == "si" else 1.0
        total = total + si_loss(
            pred, target, weight=si_weight, max_depth=max_depth, step=step, warm_up=warm_up, all_reduce=all_reduce
        )
    return total


def adabins_silog(pred: Tensor, gt: Tensor, *, min_depth: float = 0.001, all_reduce: AllReduce = one_process) -> Tensor:
    """SILog of AdaBins: 10 sqrt(unbiased var(e) + 0.15 mean(e)^2), no epsilon in the logarithms.

    Args:
        pred: (B, 1, h, w) metres > 0, resized to the ground truth (bilinear, corners aligned).
        gt: (B, 1, H, W) metres; counts where above `min_depth`.
        min_depth: metres.
        all_reduce: adds a small tensor over processes, differentiably.

    Returns:
        A scalar; 0 with a graph when fewer than two pixels count.
    """
    with torch.autocast(device_type=pred.device.type, enabled=False):
        pred, gt = pred.float(), gt.detach().float()
        if pred.shape[-2:] != gt.shape[-2:]:
            pred = torch.nn.functional.interpolate(pred, gt.shape[-2:], mode="bilinear", align_corners=True)
        valid = gt > min_depth
        error = torch.log(pred[valid]) - torch.log(gt[valid])
        count, mean, squares = _moments(error, all_reduce)
        if count < 2:
            return (squares + mean) * 0
        return 10 * _root(squares / (count - 1) + 0.15 * mean**2)


def bts_silog(
    pred: Tensor,
    gt: Tensor,
    *,
    min_gt: float = 1.0,
    variance_focus: float = 0.85,
    all_reduce: AllReduce = one_process,
) -> Tensor:
    """Silog of BTS: 10 sqrt(mean(e^2) - 0.85 mean(e)^2), means biased.

    Args:
        pred: (B, 1, H, W) metres > 0.
        gt: (B, 1, H, W) metres; counts where above `min_gt`.
        min_gt: metres, 1.0 on KITTI, 0.1 on NYU.
        variance_focus: of the mean.
        all_reduce: adds a small tensor over processes, differentiably.

    Returns:
        A scalar; 0 with a graph when no pixel counts.
    """
    loss, _ = silog_loss(
        pred.float(), gt.detach().float(), variance_focus=variance_focus, min_gt=min_gt, all_reduce=all_reduce
    )
    return loss


def bin_chamfer(
    edges: Tensor,
    gt: Tensor,
    *,
    min_depth: float = 0.001,
    chunk: int = 1 << 16,
    all_reduce: AllReduce = one_process,
) -> Tensor:
    """Chamfer distance between bin centres and ground truth, in square metres, mean over images.

    Args:
        edges: (B, N + 1) metres.
        gt: (B, 1, H, W) metres; counts from `min_depth` on.
        min_depth: metres.
        chunk: ground-truth values compared at once, to bound memory.
        all_reduce: adds a small tensor over processes, differentiably.

    Returns:
        A scalar. Images without ground truth are left out (the reference divides by zero there); 0 with a graph when
        none has any.
    """
    with torch.autocast(device_type=edges.device.type, enabled=False):
        edges, gt = edges.float(), gt.detach().float()
        centres = 0.5 * (edges[:, 1:] + edges[:, :-1])
        total, images = edges.sum() * 0, 0
        for centre, depth in zip(centres, gt, strict=True):
            values = depth[depth >= min_depth]
            if values.numel() == 0:
                continue
            nearest, to_bins = _nearest_both(centre, values, chunk)
            total = total + ((centre - values[nearest]) ** 2).mean() + ((values - centre[to_bins]) ** 2).mean()
            images += 1
        return mean_over_processes(total, total.new_tensor(float(images)), all_reduce)


def _nearest_both(centres: Tensor, values: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """Index of the nearest value per centre, and of the nearest centre per value."""
    with torch.no_grad():
        best = torch.full_like(centres, float("inf"))
        nearest = torch.zeros_like(centres, dtype=torch.long)
        to_bins = []
        for start in range(0, values.numel(), chunk):
            gap = (centres[:, None] - values[None, start : start + chunk]).abs()
            to_bins.append(gap.argmin(dim=0))
            low, where = gap.min(dim=1)
            better = low < best
            nearest = torch.where(better, where + start, nearest)
            best = torch.where(better, low, best)
        return nearest, torch.cat(to_bins)
