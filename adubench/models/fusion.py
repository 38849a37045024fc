"""Teachers with two encoders of shared weights: how the features of the right view join those of the left.

Every fusion keeps the widths of the encoder, so that the decoder and the distillation see a plain encoder. All of them
start as the mono network on the left view: the columns for the right view are zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from torch.nn import functional

from adubench.models.variants import HEAD_DIM, STRIDES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

FusionName = Literal["concat6", "siamese_concat", "siamese_corr", "epipolar_attention"]
FUSIONS: tuple[FusionName, ...] = ("concat6", "siamese_concat", "siamese_corr", "epipolar_attention")
MAX_DISPARITY = 192  # pixels of the full image
CORRELATED_LEVELS = 3  # strides 4, 8, 16


def keep_left(in_width: int, width: int) -> nn.Conv2d:
    """Make a 1x1 convolution that passes its first `width` channels through and ignores the rest."""
    conv = nn.Conv2d(in_width, width, 1)
    nn.init.dirac_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


class ConcatFusion(nn.Module):
    """Concatenate the views' features, 1x1 convolution, started at [identity, 0]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = keep_left(2 * width, width)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Fuse (B, D, H, W) features of both views."""
        out: Tensor = self.conv(torch.cat([left, right], dim=1))
        return out


def correlation(left: Tensor, right: Tensor, shifts: int) -> Tensor:
    """Compare each left feature with right features up to `shifts` - 1 columns further left.

    A point at column x of the left image lies at x - disparity in the right one.

    Args:
        left: (B, D, H, W).
        right: (B, D, H, W).
        shifts: disparities 0 .. shifts - 1, in columns of the map.

    Returns:
        (B, shifts, H, W) cosines; 0 where x - disparity leaves the map.
    """
    width = left.shape[-1]
    q = functional.normalize(left, dim=1).permute(0, 2, 3, 1)
    k = functional.normalize(right, dim=1).permute(0, 2, 1, 3)
    products = q @ k.to(q.dtype)  # (B, H, W left, W right), one row at a time
    columns = torch.arange(width, device=left.device)
    source = columns[:, None] - torch.arange(shifts, device=left.device)[None, :]
    picked = products.gather(3, source.clamp(min=0).expand(*products.shape[:2], width, shifts))
    return (picked * (source >= 0)).permute(0, 3, 1, 2)


class CorrelationFusion(nn.Module):
    """Concatenate the left features with their correlations along the row, 1x1 convolution, started at [identity, 0].

    Args:
        width: channels D.
        shifts: disparities compared, 192 / stride.
    """

    def __init__(self, width: int, shifts: int) -> None:
        super().__init__()
        self.shifts = shifts
        self.conv = keep_left(width + shifts, width)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Fuse (B, D, H, W) features of both views."""
        out: Tensor = self.conv(torch.cat([left, correlation(left, right, self.shifts).to(left.dtype)], dim=1))
        return out


class LeftOnly(nn.Module):
    """Pass the left features: at stride 32 a shift of one column is already 32 pixels."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the left features."""
        return left


class EpipolarFusion(nn.Module):
    """Each row of the left view attends to the same row of the right view; residual, started at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // HEAD_DIM)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Fuse (B, D, H, W) features of both views."""
        batch, dim, height, width = left.shape
        q = self.query(left.permute(0, 2, 3, 1)).reshape(batch * height, width, self.heads, -1).transpose(1, 2)
        key_value = self.key_value(right.permute(0, 2, 3, 1)).reshape(batch * height, width, 2, self.heads, -1)
        k, v = key_value.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v)
        rows = attended.transpose(1, 2).reshape(batch, height, width, dim)
        out: Tensor = left + self.out(rows).permute(0, 3, 1, 2)
        return out


class ViewFusion(nn.Module):
    """One fusion per encoder level.

    Args:
        name: `siamese_concat`, `siamese_corr` or `epipolar_attention`.
        widths: channels of the four levels.
    """

    def __init__(self, name: FusionName, widths: Sequence[int]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(_level(name, level, width) for level, width in enumerate(widths))

    def forward(self, left: Sequence[Tensor], right: Sequence[Tensor]) -> list[Tensor]:
        """Fuse the maps of both views level by level."""
        return [fuse(a, b) for fuse, a, b in zip(self.levels, left, right, strict=True)]


def _level(name: FusionName, level: int, width: int) -> nn.Module:
    """Make the fusion of one level."""
    if name == "siamese_concat":
        return ConcatFusion(width)
    if name == "siamese_corr":
        return CorrelationFusion(width, MAX_DISPARITY // STRIDES[level]) if level < CORRELATED_LEVELS else LeftOnly()
    return EpipolarFusion(width)
