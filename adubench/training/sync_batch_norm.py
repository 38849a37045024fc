"""Batch normalisation over the batch of all processes, on any device and backend.

torch's own SyncBatchNorm refuses the CPU; this one needs nothing but a sum over processes. Parameters and buffers keep
their names, so that checkpoints do not know of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from adubench.training.distributed import all_sum

if TYPE_CHECKING:
    from torch import Tensor


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose training statistics are those of all processes' samples together."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W); every process must take part, with any B >= 1."""
        if not self.training:
            return super().forward(x)
        values = x.float()
        count = values.new_full((1,), float(x.shape[0] * x.shape[2] * x.shape[3]))
        summed = all_sum(torch.cat([count, values.sum((0, 2, 3))]))
        n, mean = summed[0], summed[1:] / summed[0]
        centred = values - mean[:, None, None]
        # Deviations from the common mean: the difference of two large sums would cancel.
        variance = all_sum((centred * centred).sum((0, 2, 3))) / n
        self._update(mean.detach(), variance.detach(), n.detach())
        y = centred * torch.rsqrt(variance + self.eps)[:, None, None]
        if self.affine:
            y = y * self.weight.float()[:, None, None] + self.bias.float()[:, None, None]
        return y.to(x.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor, n: Tensor) -> None:
        """Move the running statistics as torch does: with the unbiased variance."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        unbiased = variance * (n / (n - 1).clamp_min(1.0))
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)


class GlobalBatchNormAct2d(GlobalBatchNorm2d):
    """The same for timm's `BatchNormAct2d` (MobileNetV2, EfficientNet), which drops out and activates as well."""

    def __init__(self, source: nn.BatchNorm2d) -> None:
        super().__init__(
            source.num_features,
            eps=source.eps,
            momentum=source.momentum,
            affine=source.affine,
            track_running_stats=source.track_running_stats,
        )
        self.drop, self.act = cast("nn.Module", source.drop), cast("nn.Module", source.act)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, drop out, activate."""
        out: Tensor = self.act(self.drop(super().forward(x)))
        return out


def convert_batch_norm(module: nn.Module) -> nn.Module:
    """Replace every `nn.BatchNorm2d`, and timm's with an activation, in place; weights and buffers are shared.

    Returns:
        The module; another one only if it is a batch normalisation itself.
    """
    if type(module) is nn.BatchNorm2d:
        twin = GlobalBatchNorm2d(
            module.num_features,
            eps=module.eps,
            momentum=module.momentum,
            affine=module.affine,
            track_running_stats=module.track_running_stats,
        )
        twin._parameters, twin._buffers, twin.training = module._parameters, module._buffers, module.training
        return twin
    if isinstance(module, nn.BatchNorm2d) and hasattr(module, "act") and not isinstance(module, GlobalBatchNormAct2d):
        twin = GlobalBatchNormAct2d(module)
        twin._parameters, twin._buffers, twin.training = module._parameters, module._buffers, module.training
        return twin
    for name, child in module.named_children():
        converted = convert_batch_norm(child)
        if converted is not child:
            setattr(module, name, converted)
    return module
