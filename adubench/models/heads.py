"""The two heads on the finest decoder map: depth, and ADU-Depth's uncertainty (UEM). Both compute in float32."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.nn import functional

from adubench.errors import UsageError
from adubench.models.config import number, read_config

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

UPSAMPLING = 4
GAIN_BOUND = 8.0


def full_precision(x: Tensor) -> Tensor:
    """Return a map in at least float32: in bfloat16 depth would move in steps of half a metre above 64 m."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def convolve_in_full_precision(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Convolve 3x3 outside autocast and in at least float32, whatever the type of the map and of the weights."""
    is_real = x.device.type != "meta"  # a network on the meta device (cost estimates) has no autocast
    with torch.autocast(device_type=x.device.type, enabled=False) if is_real else nullcontext():
        weight = full_precision(conv.weight)
        bias = None if conv.bias is None else full_precision(conv.bias)
        return functional.conv2d(full_precision(x), weight, bias, padding=1)


def upsample(x: Tensor, factor: int = UPSAMPLING) -> Tensor:
    """Bilinear upsampling with half-pixel centres."""
    return functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False) if factor > 1 else x


class DispHead(nn.Module):
    """Convolution 3x3, sigmoid, then bilinear upsampling: in this order (NeWCRFs, NewCRFDepth.py, DispHead)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: Tensor, factor: int = UPSAMPLING) -> Tensor:
        """Map (B, C, h, w) to the share of the maximal depth, (B, 1, factor * h, factor * w), float32."""
        return upsample(torch.sigmoid(convolve_in_full_precision(self.conv1, x)), factor)


@dataclass(frozen=True, slots=True)
class UncertaintyConfig:
    """Settings of the uncertainty head.

    Attributes:
        scaling: "affine" maps the sigmoid to [s_min, s_max]; "gain" multiplies it by a learned factor, start 1.
        s_min: lower end of the affine range.
        s_max: upper end of the affine range.
        laplace_form: what s means for depth: "printed" (eq. 8 as printed: ln sigma) or "log_variance".
    """

    scaling: Literal["affine", "gain"] = "affine"
    s_min: float = -4.0
    s_max: float = 4.0
    laplace_form: Literal["printed", "log_variance"] = "printed"

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> UncertaintyConfig:
        """Read the section `uncertainty` of a model configuration.

        Raises:
            UsageError: unknown key or value, or an empty range.
        """
        where = "uncertainty head"
        defaults = {"scaling": "affine", "s_min": -4.0, "s_max": 4.0, "laplace_form": "printed"}
        choices = {"scaling": ("affine", "gain"), "laplace_form": ("printed", "log_variance")}
        filled = read_config(values, defaults, choices=choices, where=where)
        s_min = number(filled, "s_min", where=where)
        s_max = number(filled, "s_max", above=s_min, where=where)
        if max(abs(s_min), abs(s_max)) > 2 * GAIN_BOUND:
            raise UsageError(f"the uncertainty range [{s_min:g}, {s_max:g}] leaves [-16, 16]: exp(-s) would overflow.")
        return cls(filled["scaling"], s_min, s_max, filled["laplace_form"])

    @property
    def kind(self) -> str:
        """Name of s as an uncertainty of depth, in the evaluator's words."""
        return "log_sigma" if self.laplace_form == "printed" else "log_variance"

    def to_config(self) -> dict[str, Any]:
        """Return the settings as plain JSON values."""
        return {
            "scaling": self.scaling,
            "s_min": self.s_min,
            "s_max": self.s_max,
            "laplace_form": self.laplace_form,
        }


class UncertaintyHead(nn.Module):
    """The uncertainty estimation module of ADU-Depth: convolution, sigmoid, scaling.

    The convolution starts at zero, so that every pixel starts at the middle of the range: s = 0 for a symmetric one,
    where the weighted losses equal the plain ones up to a constant.
    """

    def __init__(self, width: int, config: UncertaintyConfig) -> None:
        super().__init__()
        self.config = config
        self.conv = nn.Conv2d(width, 1, 3, padding=1)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]
        if config.scaling == "gain":
            self.gain = nn.Parameter(torch.ones(()))

    def scale(self, z: Tensor) -> Tensor:
        """Map the convolution's output to s."""
        if self.config.scaling == "gain":
            return (self.gain * torch.sigmoid(z)).clamp(-GAIN_BOUND, GAIN_BOUND)
        return self.config.s_min + (self.config.s_max - self.config.s_min) * torch.sigmoid(z)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to s at the same size, (B, 1, h, w) float32."""
        return self.scale(convolve_in_full_precision(self.conv, x))


def pool_uncertainty(s_quarter: Tensor, size: tuple[int, int], mode: str = "area") -> Tensor:
    """Bring s to the size of a feature map.

    Args:
        s_quarter: (B, 1, h, w) at stride 4.
        size: (rows, columns) of the map.
        mode: "area" (adaptive average), "bilinear" or "nearest".
    """
    if tuple(s_quarter.shape[-2:]) == tuple(size):
        return s_quarter
    if mode == "area":
        return functional.adaptive_avg_pool2d(s_quarter, size)
    if mode == "nearest":
        return functional.interpolate(s_quarter, size=size, mode="nearest")
    return functional.interpolate(s_quarter, size=size, mode="bilinear", align_corners=False)
