"""The pyramid pooling head that makes the first, coarsest prediction (NeWCRFs, uper_crf_head.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

BINS = (1, 2, 3, 6)


def _he_conv(in_width: int, width: int, kernel: int) -> nn.Conv2d:
    """Make a convolution without bias, Kaiming normal over the fan-out."""
    conv = nn.Conv2d(in_width, width, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


class GroupNormConv(nn.Module):
    """Convolution 1x1, GroupNorm, ReLU. At bin 1 a group of two channels holds two numbers: almost their signs."""

    def __init__(self, in_width: int, width: int, groups: int) -> None:
        super().__init__()
        self.conv = _he_conv(in_width, width, 1)
        self.gn = nn.GroupNorm(groups, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, D, h, w) to (B, C, h, w)."""
        return functional.relu(self.gn(self.conv(x)))


class BatchNormConv(nn.Module):
    """Convolution 3x3, BatchNorm, ReLU."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.conv = _he_conv(in_width, width, 3)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, D, H, W) to (B, C, H, W)."""
        return functional.relu(self.bn(self.conv(x)))


class PSP(nn.Module):
    """Pool to 1, 2, 3 and 6 cells, transform, upsample, concatenate, fuse.

    All four branches use GroupNorm: the reference meant it for bin 1 alone, but its checkpoints have it everywhere.

    Args:
        in_width: channels of the coarsest encoder map.
        width: channels of every branch and of the result.
        groups: groups of the GroupNorm, half the width in the published networks.
    """

    def __init__(self, in_width: int, width: int, groups: int) -> None:
        super().__init__()
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(bins), GroupNormConv(in_width, width, groups)) for bins in BINS
        )
        self.bottleneck = BatchNormConv(in_width + len(BINS) * width, width)

    def branches(self, x: Tensor) -> list[Tensor]:
        """Return the four upsampled branches, (B, C, H, W) each."""
        size = x.shape[-2:]
        return [
            functional.interpolate(branch(x), size=size, mode="bilinear", align_corners=False)
            for branch in self.psp_modules
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, D, H, W) to (B, C, H, W)."""
        out: Tensor = self.bottleneck(torch.cat([x, *self.branches(x)], dim=1))
        return out
