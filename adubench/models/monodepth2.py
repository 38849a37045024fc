"""Monodepth2's depth network: ResNet encoder, U-Net decoder with four disparity heads.

Source: nianticlabs/monodepth2, networks/depth_decoder.py. SUB-Depth's student has two channels per head
(brandleyzhou/SUB-Depth, networks/depth_decoderv2.py), its photometric uncertainty one head at full resolution
(networks/uncert_decoder.py): both are this decoder with other arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adubench.errors import UsageError
from adubench.models.disparity import (
    COMMON,
    NEIGHBOURS,
    Conv3x3,
    ConvBlock,
    DisparityNetwork,
    complete_config,
    take_pretrained,
    up,
)
from adubench.models.resnet_encoder import ResnetEncoder

WIDTHS = (16, 32, 64, 128, 256)
DEFAULTS: dict[str, Any] = {"num_layers": 18, "input_images": 1, "scales": [0, 1, 2, 3], **COMMON}


class DepthDecoder(nn.Module):
    """From five features to logits of the requested scales.

    Args:
        encoder: widths of the five features.
        outputs: channels per head.
        scales: which scales have a head; heads are stored in this order.
        widths: widths of the decoder, finest level first.
    """

    def __init__(
        self,
        encoder: Sequence[int],
        outputs: int = 1,
        scales: Sequence[int] = (0, 1, 2, 3),
        widths: Sequence[int] = WIDTHS,
    ) -> None:
        super().__init__()
        self.scales = tuple(scales)
        blocks: list[nn.Module] = []
        for level in range(4, -1, -1):
            below = encoder[4] if level == 4 else widths[level + 1]
            skip = encoder[level - 1] if level else 0
            blocks += [ConvBlock(below, widths[level]), ConvBlock(widths[level] + skip, widths[level])]
        heads: list[nn.Module] = [Conv3x3(widths[scale], outputs) for scale in self.scales]
        self.decoder = nn.ModuleList(blocks + heads)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return logits in the order of `scales`, (B, outputs, H / 2^s, W / 2^s)."""
        x = features[4]
        found: dict[int, Tensor] = {}
        for level in range(4, -1, -1):
            x = up(self.decoder[2 * (4 - level)](x))
            if level:
                x = torch.cat([x, features[level - 1]], 1)
            x = self.decoder[2 * (4 - level) + 1](x)
            if level in self.scales:
                found[level] = self.decoder[10 + self.scales.index(level)](x)
        return [found[scale] for scale in self.scales]


class PredictiveMask(nn.Module):
    """Weights in (0, 1) of each source's error at each pixel, learned in place of automasking (`predictive_mask`).

    A second decoder on the depth encoder's features, with one channel per source (trainer.py, `predictive_mask`). Its
    sub-module is called as the official file is.

    Args:
        encoder: widths of the five features.
        sources: number of sources, the stereo image included.
        scales: the scales of the objective.
    """

    def __init__(self, encoder: Sequence[int], sources: int, scales: Sequence[int] = (0, 1, 2, 3)) -> None:
        super().__init__()
        self.predictive_mask = DepthDecoder(encoder, sources, scales)

    def forward(self, features: Sequence[Tensor]) -> dict[int, Tensor]:
        """Return scale -> (B, sources, H / 2^s, W / 2^s)."""
        logits: list[Tensor] = self.predictive_mask(features)
        return {s: torch.sigmoid(z.float()) for s, z in zip(self.predictive_mask.scales, logits, strict=True)}


def build(config: Mapping[str, Any]) -> DisparityNetwork:
    """Build the network.

    Keys: `num_layers` (18, 34, 50, 101, 152), `input_images` (1 to 5: the target, then `NEIGHBOURS`), `scales` (those
    with a head, 0 first), `height`, `width`, `min_depth`, `max_depth`, `uncertainty` (second channel per head),
    `use_stereo` (trained with stereo: metric up to 5.4), `pretrained`.

    Raises:
        UsageError: an unknown key or a value the network does not take.
    """
    full = complete_config(config, DEFAULTS)
    scales = [int(scale) for scale in full["scales"]]
    if sorted(set(scales)) != scales or scales[:1] != [0] or scales[-1] > 3:
        raise UsageError(f"scales {full['scales']}: expected scales among 0 1 2 3, ascending, with 0.")
    if not 1 <= int(full["input_images"]) <= len(NEIGHBOURS) + 1:
        raise UsageError(f"{full['input_images']} input images: expected 1 to {len(NEIGHBOURS) + 1}.")
    encoder = ResnetEncoder(int(full["num_layers"]), int(full["input_images"]), take_pretrained(full))
    depth = DepthDecoder(encoder.channels, outputs=2 if full["uncertainty"] else 1, scales=scales)
    return DisparityNetwork(full, encoder, depth, encoder.images)
