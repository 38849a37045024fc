"""HR-Depth and its Lite variant: a nested grid of fusions between encoder and heads.

Source: shawLyu/HR-Depth, networks/HR_Depth_Decoder.py; layers.py, fSEModule. Node X_ij has the resolution of level i;
its high input is X_(i+1)(j-1), its low inputs are X_i0 .. X_i(j-1). Sub-modules carry the official names, in which the
second convolution of a node is named after the node's *high* input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adubench.errors import UsageError
from adubench.models.disparity import (
    COMMON,
    Conv3x3,
    ConvBlock,
    DisparityNetwork,
    channel_gate,
    complete_config,
    gated,
    join,
    take_pretrained,
    up,
)
from adubench.models.mobilenet_lite import CHANNELS as LITE_CHANNELS
from adubench.models.mobilenet_lite import MobileNetEncoder
from adubench.models.monodepth2 import WIDTHS
from adubench.models.resnet_encoder import ResnetEncoder

LITE_WIDTHS = (4, 12, 20, 40, 80)
#: Evaluation order of the nodes; those of `ATTENTION` fuse with squeeze-and-excitation.
NODES = ("01", "11", "21", "31", "02", "12", "22", "03", "13", "04")
ATTENTION = ("31", "22", "13", "04")
#: Official order of the modules, which numbers the aliases `decoder.<n>` in `depth.pth`.
ORDER = (
    *("X_00_Conv_0", "X_10_Conv_0", "X_20_Conv_0", "X_30_Conv_0", "X_40_Conv_0", "X_01_Conv_0", "X_11_Conv_0"),
    *("X_21_Conv_0", "X_31_Conv_0", "X_02_Conv_0", "X_12_Conv_0", "X_22_Conv_0", "X_03_Conv_0", "X_13_Conv_0"),
    *("X_04_Conv_0", "X_04_Conv_1", "X_31_attention", "X_22_attention", "X_13_attention", "X_04_attention"),
    *("X_10_Conv_1", "X_20_Conv_1", "X_30_Conv_1", "X_02_downsample", "X_11_Conv_1", "X_12_downsample"),
    *("X_21_Conv_1", "X_03_downsample", "X_12_Conv_1"),
    *("dispConvScale0", "dispConvScale1", "dispConvScale2", "dispConvScale3"),
)
DEFAULTS: dict[str, Any] = {"num_layers": 18, **COMMON}
LITE_DEFAULTS: dict[str, Any] = dict(COMMON)


class FeatureSqueeze(nn.Module):
    """fSE fusion: gate the channels, 1x1 convolution, ReLU (no ELU and no normalisation)."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.fc = channel_gate(channels)
        self.conv_se = nn.Conv2d(channels, outputs, 1)

    def forward(self, high: Tensor, lows: Sequence[Tensor]) -> Tensor:
        """Fuse `high` (half resolution) with the maps of this level."""
        return torch.relu(self.conv_se(gated(join(high, lows), self.fc)))


class Reduce(nn.Module):
    """1x1 convolution without bias and without activation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Keep height and width."""
        out: Tensor = self.conv(x)
        return out


class HRDepthDecoder(nn.Module):
    """The grid and its four heads.

    Args:
        encoder: widths of the five features.
        outputs: channels per head.
        widths: widths of the decoder, finest level first.
        lite: one convolution per plain node and no reductions.
    """

    def __init__(
        self, encoder: Sequence[int], outputs: int = 1, widths: Sequence[int] = WIDTHS, *, lite: bool = False
    ) -> None:
        super().__init__()
        self.lite = lite
        #: Stored by the original program, and used by none of its outputs.
        self.unused = tuple(f"convs.X_0{column}_Conv_0" for column in range(4))
        modules, self.node_channels = _plan(tuple(encoder), tuple(widths), lite)
        heads = (widths[0], *(self.node_channels[node] for node in ("04", "13", "22")))
        for scale, channels in enumerate(heads):
            modules[f"dispConvScale{scale}"] = Conv3x3(channels, outputs)
        self.convs = nn.ModuleDict({name: modules[name] for name in ORDER if name in modules})

    def fuse(self, node: str, high: Tensor, lows: Sequence[Tensor]) -> Tensor:
        """Compute a node from its high input (before its first convolution) and its low inputs."""
        level, column = int(node[0]), int(node[1])
        source = f"X_{level + 1}{column - 1}"
        high = self.convs[f"{source}_Conv_0"](high)
        if node in ATTENTION:
            fused: Tensor = self.convs[f"X_{node}_attention"](high, lows)
            return fused
        z = join(high, lows)
        if f"X_{node}_downsample" in self.convs:
            z = self.convs[f"X_{node}_downsample"](z)
        out: Tensor = self.convs[f"{source}_Conv_1"](z)
        return out

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return the logits of scales 0..3."""
        grid = {f"{level}0": feature for level, feature in enumerate(features)}
        for node in NODES:
            level, column = int(node[0]), int(node[1])
            lows = [grid[f"{level}{k}"] for k in range(column)]
            grid[node] = self.fuse(node, grid[f"{level + 1}{column - 1}"], lows)
        y = self.convs["X_04_Conv_1"](up(self.convs["X_04_Conv_0"](grid["04"])))
        maps = (y, grid["04"], grid["13"], grid["22"])
        return [self.convs[f"dispConvScale{scale}"](x) for scale, x in enumerate(maps)]


def _plan(encoder: tuple[int, ...], widths: tuple[int, ...], lite: bool) -> tuple[dict[str, nn.Module], dict[str, int]]:
    """Lay out all modules of the grid but the heads, and the channels of each node."""
    channels = {f"{level}0": width for level, width in enumerate(encoder)}
    for node in NODES:
        level = int(node[0])
        if lite:
            channels[node] = 2 * widths[level]
        else:
            channels[node] = encoder[level + 1] // 2 if node in ATTENTION else widths[level + 1]
    modules: dict[str, nn.Module] = {}
    for node in (*(f"{level}0" for level in range(5)), *NODES[:-1]):
        modules[f"X_{node}_Conv_0"] = ConvBlock(channels[node], _half(node, channels, encoder))
    modules["X_04_Conv_0"] = ConvBlock(channels["04"], widths[0])
    modules["X_04_Conv_1"] = ConvBlock(widths[0], widths[0])
    for node in NODES:
        level, column = int(node[0]), int(node[1])
        source = f"{level + 1}{column - 1}"
        joined = _half(source, channels, encoder) + sum(channels[f"{level}{k}"] for k in range(column))
        if node in ATTENTION:
            modules[f"X_{node}_attention"] = FeatureSqueeze(joined, channels[node])
            continue
        if column >= 2 and not lite:
            modules[f"X_{node}_downsample"] = Reduce(joined, 2 * widths[level + 1])
            joined = 2 * widths[level + 1]
        modules[f"X_{source}_Conv_1"] = ConvBlock(joined, channels[node])
    return modules, channels


def _half(node: str, channels: Mapping[str, int], encoder: Sequence[int]) -> int:
    """Width after a node's first convolution: half of its level's in the encoder, of its own at level 0."""
    return channels[node] // 2 if node[0] == "0" else encoder[int(node[0])] // 2


def build(config: Mapping[str, Any]) -> DisparityNetwork:
    """Build HR-Depth (`hr-depth`) or HR-Depth-Lite (`hr-depth-lite`).

    Keys: `num_layers` (18, 34, 50, ...; not Lite), and those of every self-supervised family.
    """
    lite = config["family"] == "hr-depth-lite"
    full = complete_config(config, LITE_DEFAULTS if lite else DEFAULTS)
    outputs = 2 if full["uncertainty"] else 1
    pretrained = take_pretrained(full)
    if lite:
        if pretrained is True:
            raise UsageError(
                "hr-depth-lite has no ImageNet weights: its encoder excites before it activates, timm's MobileNetV3 "
                "after. Leave out pretrained, or name a file."
            )
        mobile = MobileNetEncoder(pretrained or None)
        return DisparityNetwork(full, mobile, HRDepthDecoder(LITE_CHANNELS, outputs, LITE_WIDTHS, lite=True))
    encoder = ResnetEncoder(int(full["num_layers"]), 1, pretrained)
    return DisparityNetwork(full, encoder, HRDepthDecoder(encoder.channels, outputs))
