"""DIFFNet: HRNet-W18 whose intermediate stages all reach the decoder through channel attention.

Source: brandleyzhou/DIFFNet, networks/test_hr_encoder.py, networks/HR_Depth_Decoder.py, hr_layers.py. The encoder takes
raw RGB in [0, 1] (no mean, no deviation), and its fusions upsample bilinearly with aligned corners where timm's HRNet
takes the nearest neighbour; with the official weights that alone changes features of size 8 by up to 2.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

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
from adubench.models.hrnet import HRNetEncoder

#: Modules of the decoder in the official order, which numbers the aliases `decoder.<n>`.
ORDER = (
    *("up_x9_0", "up_x9_1", "72", "36", "18", "9"),
    *("dispConvScale0", "dispConvScale1", "dispConvScale2", "dispConvScale3"),
)
#: Fusions from coarse to fine: name, channels of the joined maps, output channels.
FUSIONS = (("72", 288, 256), ("36", 364, 128), ("18", 246, 64), ("9", 128, 32))
HEADS = (16, 32, 64, 128)
DEFAULTS: dict[str, Any] = dict(COMMON)


class Attention(nn.Module):
    """Gate the channels of the joined maps, 3x3 convolution with *zero* padding, ReLU."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.ca = nn.ModuleDict({"fc": channel_gate(channels)})
        self.conv_se = nn.Conv2d(channels, outputs, 3, padding=1)

    def gated(self, high: Tensor, lows: Sequence[Tensor]) -> Tensor:
        """Join `high` (half resolution) with the maps of this level and weigh the channels."""
        return gated(join(high, lows), self.ca["fc"])

    def forward(self, high: Tensor, lows: Sequence[Tensor]) -> Tensor:
        """Fuse to the resolution of `lows`."""
        return torch.relu(self.conv_se(self.gated(high, lows)))


class DIFFNetDecoder(nn.Module):
    """Four attention fusions, two convolutions to full resolution, four heads."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        modules: dict[str, nn.Module] = {name: Attention(inputs, width) for name, inputs, width in FUSIONS}
        modules |= {"up_x9_0": ConvBlock(32, 16), "up_x9_1": ConvBlock(16, 16)}
        modules |= {f"dispConvScale{scale}": Conv3x3(width, outputs) for scale, width in enumerate(HEADS)}
        self.convs = nn.ModuleDict({name: modules[name] for name in ORDER})

    def forward(self, features: Sequence[Any]) -> list[Tensor]:
        """Return the logits of scales 0..3 from `HRNetEncoder`'s five entries."""
        finest, level1, level2, level3, coarsest = features
        x72 = self.convs["72"](coarsest, level3)
        x36 = self.convs["36"](x72, level2)
        x18 = self.convs["18"](x36, level1)
        x9 = self.convs["9"](x18, [finest])
        x6 = self.convs["up_x9_1"](up(self.convs["up_x9_0"](x9)))
        return [self.convs[f"dispConvScale{scale}"](x) for scale, x in enumerate((x6, x9, x18, x36))]


def build(config: Mapping[str, Any]) -> DisparityNetwork:
    """Build DIFFNet; its keys are those of every self-supervised family."""
    full = complete_config(config, DEFAULTS)
    encoder = HRNetEncoder(take_pretrained(full))
    return DisparityNetwork(full, encoder, DIFFNetDecoder(2 if full["uncertainty"] else 1))
