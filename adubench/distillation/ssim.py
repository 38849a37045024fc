"""SSIM of depth maps in metres, as TIE-KD's L_depth and the response baselines use it.

TIE-KD (arXiv 2402.14340), `ssim.py`. The stabilising constants assume values in 0..1 although depths reach 80: in
float32 the differences of second moments cancel to errors as large as the constants, so everything is float64 here,
whatever the autocast state.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from adubench.distillation.reduction import AllReduce, mean_over_processes, one_process

C1, C2 = 0.01**2, 0.03**2
TAPS, SIGMA = 11, 1.5


def _window(device: torch.device) -> Tensor:
    # Normalised and multiplied in float32, as the reference does, and only then widened.
    exact = [math.exp(-((i - TAPS // 2) ** 2) / (2 * SIGMA**2)) for i in range(TAPS)]
    taps = torch.tensor(exact, dtype=torch.float32, device=device)
    taps = taps / taps.sum()
    return torch.outer(taps, taps).double()


def _filter(x: Tensor, window: Tensor) -> Tensor:
    b, c, h, w = x.shape
    kernel = window[None, None]
    out = torch.nn.functional.conv2d(x.reshape(b * c, 1, h, w), kernel, padding=TAPS // 2)
    return out.reshape(b, c, h, w)


def ssim_map(x: Tensor, y: Tensor) -> Tensor:
    """SSIM at every pixel.

    Zero padding at the border (the window is not re-normalised there); absolute values on variances and on the
    covariance, so anti-correlated structure counts as similar, as in the reference.

    Args:
        x: (B, C, H, W), any floating type; channels are filtered each on its own.
        y: same shape.

    Returns:
        (B, C, H, W) float64.
    """
    with torch.autocast(device_type=x.device.type, enabled=False):
        x, y = x.double(), y.double()
        window = _window(x.device)
        mean_x, mean_y = _filter(x, window), _filter(y, window)
        var_x = (_filter(x * x, window) - mean_x**2).abs()
        var_y = (_filter(y * y, window) - mean_y**2).abs()
        covariance = (_filter(x * y, window) - mean_x * mean_y).abs()
        top = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
        return top / ((mean_x**2 + mean_y**2 + C1) * (var_x + var_y + C2))


def ssim(x: Tensor, y: Tensor, *, per_image: bool = False) -> Tensor:
    """Mean SSIM, a float64 scalar, or (B,) with `per_image`."""
    values = ssim_map(x, y)
    return values.mean(dim=(1, 2, 3)) if per_image else values.mean()


def depth_loss(
    student: Tensor, teacher: Tensor, mask: Tensor | None = None, *, all_reduce: AllReduce = one_process
) -> Tensor:
    """L_depth = 1 - SSIM of two depth maps in metres, float64.

    Args:
        student: (B, 1, H, W).
        teacher: (B, 1, H, W), a constant.
        mask: (B, 1, H, W) bool, pixels that count, None for all; the loss is 0 when none does. Masked pixels still lie
            in their neighbours' windows: there the student takes the teacher's value, which adds no difference.
        all_reduce: adds a small tensor over processes, differentiably.
    """
    teacher = teacher.detach()
    if mask is None:
        difference = 1 - ssim_map(student, teacher)
        counts = torch.ones_like(difference)
    else:
        difference = (1 - ssim_map(torch.where(mask, student, teacher.to(student.dtype)), teacher)) * mask
        counts = mask.to(difference)
    return mean_over_processes(difference.sum(), counts.sum(), all_reduce)
