"""HRNet-W18 with all stage outputs, on timm (DIFFNet, networks/test_hr_encoder.py)."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from adubench.models.resnet_encoder import timm_features

IMAGENET_TAG = "ms_in1k"


class HRNetEncoder(nn.Module):
    """Features of all stages of HRNet-W18.

    timm builds the network and its keys; its fusions are changed to bilinear upsampling with aligned corners, and the
    outputs of the stages are taken where DIFFNet takes them. Input is raw RGB in [0, 1].
    """

    def __init__(self, pretrained: bool | str = False) -> None:
        super().__init__()
        self.encoder = timm_features("hrnet_w18", pretrained, tag=IMAGENET_TAG, feature_location="")
        for stage in ("stage2", "stage3", "stage4"):
            for module in getattr(self.encoder, stage):
                upsample_bilinearly_(module)

    def forward(self, x: Tensor) -> list[Any]:
        """Return [f0, L1, L2, L3, f4] at strides 2 to 32.

        f0 (64 channels) and f4 (144) are maps; L1 = [64, 18, 18, 18], L2 = [36, 36, 36], L3 = [72, 72] are lists of
        maps of one resolution, from the stem or the earliest stage on.
        """
        net = cast("Any", self.encoder)
        f0 = net.act1(net.bn1(net.conv1(x)))
        a0 = net.act2(net.bn2(net.conv2(f0)))
        branches = [step(y) for y in [net.layer1(a0)] for step in net.transition1]
        two = _stage(net.stage2, branches)
        three = _stage(net.stage3, _extend(net.transition2, two))
        four = _stage(net.stage4, _extend(net.transition3, three))
        stages = (two, three, four)
        lists = [[outputs[level] for outputs in stages if len(outputs) > level] for level in range(3)]
        # the last stage reaches all levels, the first two of each list may be missing at coarse ones
        return [f0, [a0, *lists[0]], lists[1], lists[2], four[3]]


def upsample_bilinearly_(module: nn.Module) -> int:
    """Replace the nearest upsampling in the fusions of a timm HRNet module; return how many there were."""
    replaced = 0
    for row in cast("Any", module).fuse_layers:
        for path in row:
            for name, layer in path.named_children():
                if isinstance(layer, nn.Upsample):
                    path._modules[name] = nn.Upsample(
                        scale_factor=layer.scale_factor, mode="bilinear", align_corners=True
                    )
                    replaced += 1
    return replaced


def _stage(stage: Any, branches: list[Tensor]) -> list[Tensor]:
    for module in stage:
        branches = module(branches)
    return branches


def _extend(transition: Any, branches: list[Tensor]) -> list[Tensor]:
    """Carry the branches over and derive the new one from the last."""
    return [*branches, transition[-1](branches[-1])]
