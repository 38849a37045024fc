"""Scale-invariant logarithmic loss, the base loss of NeWCRFs and of ADU-Depth (NeWCRFs, `utils.py, silog_loss`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from adubench.distillation.reduction import AllReduce, at_least_float32, one_process

if TYPE_CHECKING:
    from torch import Tensor


def silog_loss(
    pred: Tensor,
    gt: Tensor,
    *,
    variance_focus: float = 0.85,
    min_gt: float = 1.0,
    scale: float = 10.0,
    all_reduce: AllReduce = one_process,
) -> tuple[Tensor, Tensor]:
    """Scale-invariant logarithmic loss over all valid pixels of the batch together.

    With d = ln(pred) - ln(gt): scale * sqrt(mean(d^2) - variance_focus * mean(d)^2). The mean runs over the pixels of
    the whole batch, not per image, so it is not the mean of the losses of its parts; `all_reduce` adds the three sums
    over processes.

    Args:
        pred: (B, 1, H, W) metres, positive.
        gt: same shape, metres; pixels with gt > min_gt count (NeWCRFs: 1 m on KITTI, 0.1 m on NYU).
        variance_focus: share of the squared mean that is subtracted, in [0, 1].
        min_gt: exclusive lower bound of valid ground truth in metres.
        scale: factor on the root.
        all_reduce: adds a small tensor over processes, differentiably.

    Returns:
        The loss and the number of valid pixels. Without any valid pixel the loss is 0 and keeps its graph.
    """
    pred, gt = at_least_float32(pred), at_least_float32(gt)
    valid = gt > min_gt
    # Ones outside the mask: their logarithm is 0 and its slope finite, so no NaN can come out of a masked pixel.
    difference = torch.log(torch.where(valid, pred, 1.0)) - torch.log(torch.where(valid, gt, 1.0))
    stats = all_reduce(torch.stack((difference.sum(), difference.square().sum(), valid.sum().to(difference))))
    n = stats[2]
    mean, mean_square = stats[0] / n.clamp(min=1), stats[1] / n.clamp(min=1)
    inside = mean_square - variance_focus * mean.square()
    # The root has an infinite slope at 0: pixels that all agree give a zero with zero gradient instead of NaN.
    positive = ~(inside <= 0)
    root = torch.sqrt(torch.where(positive, inside, 1.0))
    return scale * torch.where(positive, root, inside * 0), n.detach()
