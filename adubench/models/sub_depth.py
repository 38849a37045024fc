"""SUB-Depth: a self-supervised network with an uncertainty beside each disparity, and the photometric uncertainty.

Source: SUB-Depth (BMVC 2022, arXiv 2111.09692); brandleyzhou/SUB-Depth, networks/depth_decoderv2.py and
networks/uncert_decoder.py. The repository has Monodepth2 only; for HR-Depth and DIFFNet the same change is made: two
channels in each disparity convolution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from adubench.errors import unknown_name
from adubench.models.disparity import DisparityNetwork
from adubench.models.monodepth2 import DepthDecoder
from adubench.models.pose import temporal_pair
from adubench.models.resnet_encoder import ResnetEncoder

#: Networks that SUB-Depth has been applied to, and where they are built.
BASES = {
    "monodepth2": "adubench.models.monodepth2",
    "hr-depth": "adubench.models.hr_depth",
    "hr-depth-lite": "adubench.models.hr_depth",
    "diffnet": "adubench.models.diffnet",
}


def build(config: Mapping[str, Any]) -> DisparityNetwork:
    """Build a student.

    Keys: `base` (monodepth2, hr-depth, hr-depth-lite, diffnet) and that family's own, without `uncertainty`.

    Raises:
        UsageError: unknown base or keys.
    """
    base = str(config.get("base", "monodepth2"))
    if base not in BASES:
        raise unknown_name("base of sub-depth", base, BASES)
    inner = {key: value for key, value in config.items() if key != "base"}
    network: DisparityNetwork = import_module(BASES[base]).build({**inner, "family": base, "uncertainty": True})
    rest = {key: value for key, value in network.config.items() if key not in ("family", "uncertainty")}
    network.config = {"family": "sub-depth", "base": base, **rest}
    network.family = "sub-depth"
    return network


def teacher_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration of the teacher of a student: the same network with one channel per head."""
    plain = {key: value for key, value in config.items() if key not in ("base", "uncertainty")}
    return {**plain, "family": str(config.get("base", "monodepth2"))}


class PhotometricUncertainty(nn.Module):
    """sigma_pho: how far the reconstruction of each pixel can be trusted, from the target and one source.

    The decoder is Monodepth2's with a single head at full resolution. The pair is ordered in time as for the pose
    network in mode `pairs`, whatever the pose network of the run is.

    Args:
        layers: depth of the ResNet.
        pretrained: ImageNet weights, as for the other encoders.
    """

    def __init__(self, layers: int = 18, pretrained: bool | str = False) -> None:
        super().__init__()
        self.ph_uncert_enc = ResnetEncoder(layers, 2, pretrained)
        self.ph_uncert_dec = DepthDecoder(self.ph_uncert_enc.channels, outputs=1, scales=(0,))

    def forward(self, pair: Sequence[Tensor]) -> Tensor:
        """Return logits (B, 1, H, W) for two images (B, 3, H, W) in [0, 1]; sigma_pho of the pair is their sigmoid."""
        logits: Tensor = self.ph_uncert_dec(self.ph_uncert_enc(torch.cat(list(pair), 1)))[0]
        return logits.float()

    def of_sources(self, frames: Mapping[int, Tensor], stereo: Tensor | None = None) -> list[Tensor]:
        """Return the logits of every temporal source; of the stereo pair where there is no temporal source."""
        pairs = [temporal_pair(frames, source) for source in frames if source != 0]
        if not pairs and stereo is not None:
            pairs = [[frames[0], stereo]]
        return [self(pair) for pair in pairs]
