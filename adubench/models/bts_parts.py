"""Building blocks of BTS' decoder: up-convolutions, dense atrous blocks, plane heads and local planar guidance.

BTS (arXiv 1907.10326), `pytorch/bts.py`; parameter names are the official ones. No convolution here has a bias.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn


def wide_norm(channels: int) -> nn.BatchNorm2d:
    """The decoder's batch norm: eps 1.1e-5, momentum 0.01."""
    return nn.BatchNorm2d(channels, eps=1.1e-5, momentum=0.01)


def elu_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """3x3 convolution and ELU."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False), nn.ELU())


class UpConv(nn.Module):
    """Nearest up-sampling by two, 3x3 convolution, ELU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, h, w) to (B, out, 2h, 2w)."""
        return nn.functional.elu(self.conv(nn.functional.interpolate(x, scale_factor=2, mode="nearest")))


class DenseAtrous(nn.Module):
    """One block of the dense atrous pyramid.

    Args:
        in_channels: of the input.
        out_channels: of the output; twice as many inside.
        dilation: of the 3x3 convolution.
        first_norm: start with a batch norm (all blocks but the first).
    """

    def __init__(self, in_channels: int, out_channels: int, dilation: int, *, first_norm: bool = True) -> None:
        super().__init__()
        inner = 2 * out_channels
        steps: list[tuple[str, nn.Module]] = [("first_bn", wide_norm(in_channels))] if first_norm else []
        sequence = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(in_channels, inner, 1, bias=False),
            nn.BatchNorm2d(inner, momentum=0.01),
            nn.ReLU(),
            nn.Conv2d(inner, out_channels, 3, padding=dilation, dilation=dilation, bias=False),
        )
        self.atrous_conv = nn.Sequential(OrderedDict([*steps, ("aconv_sequence", sequence)]))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, h, w) to (B, out, h, w)."""
        out: Tensor = self.atrous_conv(x)
        return out


class PlaneHead(nn.Module):
    """1x1 convolutions that halve the width down to 8, then plane parameters or one channel.

    Args:
        in_channels: of the input.
        out_channels: of the first convolution.
        max_depth: metres, the largest distance of a plane.
        final: end in one sigmoid channel instead of planes.
    """

    def __init__(self, in_channels: int, out_channels: int, max_depth: float, *, final: bool = False) -> None:
        super().__init__()
        self.final, self.max_depth = final, max_depth
        steps: list[tuple[str, nn.Module]] = []
        while out_channels >= 8:
            conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
            steps.append((f"inter_{in_channels}_{out_channels}", nn.Sequential(conv, nn.ELU())))
            in_channels, out_channels = out_channels, out_channels // 2
        if final:
            last = nn.Conv2d(in_channels, 1, 1, bias=False)
            steps.append(("final", nn.Sequential(last, nn.Sigmoid())))
        else:
            steps.append(("plane_params", nn.Conv2d(in_channels, 3, 1, bias=False)))
        self.reduc = nn.Sequential(OrderedDict(steps))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, h, w) to (B, 1, h, w) in (0, 1), or to planes (B, 4, h, w): normal, then distance in metres."""
        raw: Tensor = self.reduc(x)
        if self.final:
            return raw
        with torch.autocast(device_type=raw.device.type, enabled=False):
            theta, phi, distance = torch.sigmoid(raw.float()).unbind(dim=1)
            theta, phi = theta * (math.pi / 3), phi * (2 * math.pi)
            normal = (theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos())
            return torch.stack((*normal, distance * self.max_depth), dim=1)


def local_planar_guidance(planes: Tensor, factor: int) -> Tensor:
    """Depth of the planes at every pixel of their patches.

    Args:
        planes: (B, 4, h, w), a normal (made unit length here) and a distance.
        factor: side k of a patch.

    Returns:
        (B, 1, k h, k w) float32. Nothing is clamped: for k = 8 the denominator reaches -0.036, so values can be
        negative or huge before training has settled.
    """
    with torch.autocast(device_type=planes.device.type, enabled=False):
        planes = planes.float()
        normal = nn.functional.normalize(planes[:, :3], dim=1, eps=1e-12)
        n1, n2, n3 = (n.repeat_interleave(factor, 1).repeat_interleave(factor, 2) for n in normal.unbind(1))
        distance = planes[:, 3].repeat_interleave(factor, 1).repeat_interleave(factor, 2)
        offset = (torch.arange(factor, dtype=torch.float32, device=planes.device) - (factor - 1) * 0.5) / factor
        u, v = offset.repeat(planes.shape[3]), offset.repeat(planes.shape[2])[:, None]
        return (distance / (n1 * u + n2 * v + n3))[:, None]
