"""BTS: an ImageNet encoder, a decoder with dense atrous pyramid, and local planar guidance at three scales.

BTS (arXiv 1907.10326), `pytorch/bts.py`; `layout="toolbox"` is the form of the Monocular-Depth-Estimation-Toolbox that
TIE-KD used as a teacher: a bias in the last layer and no focal scaling. Parameter names are the official ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from adubench.errors import DataError
from adubench.models.bts_parts import DenseAtrous, PlaneHead, UpConv, elu_conv, local_planar_guidance, wide_norm
from adubench.models.config import read_config
from adubench.models.interface import DepthNetwork, Inference, InputRule
from adubench.models.limits import depth_limits, whole_number
from adubench.models.timm_encoders import create_encoder, resize_to

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

FAMILY = "bts"
FOCAL = 715.0873
DEFAULTS: dict[str, Any] = {
    "family": FAMILY,
    "layout": "official",
    "encoder": "resnet50",
    "width": 512,
    "min_depth": 0.001,
    "max_depth": 80.0,
    "dataset": "kitti",
    "resize": False,
    "pretrained": False,
}
_RESNET = (64, 256, 512, 1024, 2048)
ENCODERS = {
    "resnet50": ("resnet50", _RESNET),
    "resnet101": ("resnet101", _RESNET),
    "resnext50": ("resnext50_32x4d", _RESNET),
    "resnext101": ("resnext101_32x8d", _RESNET),
    "densenet121": ("densenet121", (64, 64, 128, 256, 1024)),
    "densenet161": ("densenet161", (96, 96, 192, 384, 2208)),
}
STRIDE = 32


@dataclass(frozen=True, slots=True)
class BTSOutput:
    """What BTS computes; everything (B, 1, H, W) float32.

    Attributes:
        scaled8: depth of the planes at stride 8, divided by the largest depth.
        scaled4: the same at stride 4.
        scaled2: the same at stride 2.
        reduced: sigmoid of the full-resolution reduction.
        depth: metres, not clamped; with focal scaling it can exceed the largest depth.
    """

    scaled8: Tensor
    scaled4: Tensor
    scaled2: Tensor
    reduced: Tensor
    depth: Tensor


class BTSEncoder(nn.Module):
    """A torchvision-style ResNet or DenseNet with five taps at strides 2 to 32; `base_model` is the official name."""

    def __init__(self, name: str, *, pretrained: bool = False) -> None:
        super().__init__()
        timm_name, self.channels = ENCODERS[name]
        model: Any = create_encoder(timm_name, pretrained=pretrained, num_classes=0)
        self.dense = name.startswith("densenet")
        # DenseNet: the official keys are those of `features` itself.
        self.base_model: Any = model.features if self.dense else model

    def _dense_taps(self, x: Tensor) -> list[Tensor]:
        # timm's own taps lie before the transitions, with other channels.
        taps = []
        for name, child in self.base_model.named_children():
            x = child(x)
            if name in ("norm0", "pool0", "transition1", "transition2", "norm5"):
                taps.append(x)
        return taps

    def forward(self, x: Tensor) -> list[Tensor]:
        """Five features, fine to coarse."""
        if self.dense:
            return self._dense_taps(x)
        model = self.base_model
        taps = [model.act1(model.bn1(model.conv1(x)))]
        x = model.maxpool(taps[0])
        for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
            x = layer(x)
            taps.append(x)
        return taps


class BTSDecoder(nn.Module):
    """Decoder with planar guidance.

    Args:
        channels: of the five features, fine to coarse.
        width: of the coarsest decoder map.
        max_depth: metres.
        bias: the last layer has a bias (toolbox).
    """

    def __init__(
        self, channels: Sequence[int], *, width: int = 512, max_depth: float = 80.0, bias: bool = False
    ) -> None:
        super().__init__()
        n, self.max_depth = width, max_depth
        c0, c1, c2, c3, c4 = channels
        self.upconv5, self.bn5 = UpConv(c4, n), wide_norm(n)
        self.conv5 = elu_conv(n + c3, n)
        self.upconv4, self.bn4 = UpConv(n, n // 2), wide_norm(n // 2)
        self.conv4, self.bn4_2 = elu_conv(n // 2 + c2, n // 2), wide_norm(n // 2)
        inputs = n // 2 + c2
        self.daspp_3 = DenseAtrous(n // 2, n // 4, 3, first_norm=False)
        self.daspp_6 = DenseAtrous(inputs + n // 4, n // 4, 6)
        self.daspp_12 = DenseAtrous(inputs + n // 2, n // 4, 12)
        self.daspp_18 = DenseAtrous(inputs + 3 * n // 4, n // 4, 18)
        self.daspp_24 = DenseAtrous(inputs + n, n // 4, 24)
        self.daspp_conv = elu_conv(n // 2 + 5 * (n // 4), n // 4)
        self.reduc8x8 = PlaneHead(n // 4, n // 4, max_depth)
        self.upconv3, self.bn3 = UpConv(n // 4, n // 4), wide_norm(n // 4)
        self.conv3 = elu_conv(n // 4 + c1 + 1, n // 4)
        self.reduc4x4 = PlaneHead(n // 4, n // 8, max_depth)
        self.upconv2, self.bn2 = UpConv(n // 4, n // 8), wide_norm(n // 8)
        self.conv2 = elu_conv(n // 8 + c0 + 1, n // 8)
        self.reduc2x2 = PlaneHead(n // 8, n // 16, max_depth)
        self.upconv1 = UpConv(n // 8, n // 16)
        self.reduc1x1 = PlaneHead(n // 16, n // 32, max_depth, final=True)
        self.conv1 = elu_conv(n // 16 + 4, n // 16)
        self.get_depth = nn.Sequential(nn.Conv2d(n // 16, 1, 3, padding=1, bias=bias))

    def _pyramid(self, skip: Tensor, x: Tensor) -> Tensor:
        joined = torch.cat((self.bn4(self.upconv4(x)), skip), dim=1)
        start = self.bn4_2(self.conv4(joined))
        outputs = [start, self.daspp_3(start)]
        # The wider blocks start from the map before conv4, not from `start`.
        stack = torch.cat((joined, outputs[1]), dim=1)
        for block in (self.daspp_6, self.daspp_12, self.daspp_18, self.daspp_24):
            outputs.append(block(stack))
            stack = torch.cat((stack, outputs[-1]), dim=1)
        out: Tensor = self.daspp_conv(torch.cat(outputs, dim=1))
        return out

    def _planes(self, head: PlaneHead, x: Tensor, factor: int) -> Tensor:
        return local_planar_guidance(head(x), factor) / self.max_depth

    def forward(self, features: Sequence[Tensor]) -> BTSOutput:
        """Five features, fine to coarse, to all outputs; the depth is not scaled by a focal length."""
        skip0, skip1, skip2, skip3, coarse = features
        x = self.bn5(self.upconv5(torch.relu(coarse)))
        x = self._pyramid(skip2, self.conv5(torch.cat((x, skip3), dim=1)))
        scaled8 = self._planes(self.reduc8x8, x, 8)
        x = self.bn3(self.upconv3(x))
        x = self.conv3(torch.cat((x, skip1, scaled8[..., ::4, ::4]), dim=1))
        scaled4 = self._planes(self.reduc4x4, x, 4)
        x = self.bn2(self.upconv2(x))
        x = self.conv2(torch.cat((x, skip0, scaled4[..., ::2, ::2]), dim=1))
        scaled2 = self._planes(self.reduc2x2, x, 2)
        x = self.upconv1(x)
        reduced = self.reduc1x1(x)
        x = self.conv1(torch.cat((x, reduced, scaled2, scaled4, scaled8), dim=1))
        depth = torch.sigmoid(self.get_depth(x).float()) * self.max_depth
        return BTSOutput(scaled8, scaled4, scaled2, reduced.float(), depth)


class BTS(DepthNetwork):
    """BTS.

    Args:
        config: complete configuration (`build` fills defaults).
    """

    family = FAMILY

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        toolbox = config["layout"] == "toolbox"
        self.focal_scaling = not toolbox and config["dataset"] == "kitti"
        self.input_rule = InputRule(needs_focal=self.focal_scaling)
        self.flip = "mean" if toolbox else "none"
        self.depth_range = (config["min_depth"], config["max_depth"]) if toolbox else None
        self.encoder = BTSEncoder(config["encoder"], pretrained=config["pretrained"] is True)
        self.decoder = BTSDecoder(
            self.encoder.channels, width=config["width"], max_depth=config["max_depth"], bias=toolbox
        )
        self.config = {**config, "pretrained": False}
        for module in self.decoder.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, images: Tensor, focal: Tensor | None = None) -> BTSOutput:
        """Compute all outputs at the input's size.

        Args:
            images: (B, 3, H, W) normalised, H and W multiples of 32.
            focal: (B,) focal length in pixels; None for 715.0873, which leaves the depth unscaled.

        Raises:
            DataError: sizes that are no multiples of 32.
        """
        h, w = images.shape[-2:]
        if h % STRIDE or w % STRIDE:
            raise DataError(
                f"image of {h}x{w} pixels: BTS takes multiples of {STRIDE} only. Crop the image (KITTI: --kb-crop), or "
                "have it resized for the network: --network-size HxW, or the model key resize=true of a recipe."
            )
        output: BTSOutput = self.decoder(self.encoder(images))
        if not self.focal_scaling or focal is None:
            return output
        scale = (focal.to(device=images.device, dtype=torch.float32) / FOCAL).reshape(-1, 1, 1, 1)
        return BTSOutput(output.scaled8, output.scaled4, output.scaled2, output.reduced, output.depth * scale)

    def infer(self, images: Tensor, *, focal: Tensor | None = None) -> Inference:
        """Predict metric depth at the input's size.

        Official: no clamp, scaled by the focal length where the weights were trained so. Toolbox: clamped to the depth
        range. With the key `resize` images go through the nearest multiples of 32.
        """
        size = tuple(images.shape[-2:])
        if self.config["resize"]:
            h, w = (max(STRIDE, STRIDE * math.floor(v / STRIDE + 0.5)) for v in size)
            images = resize_to(images, (h, w))
        depth = self(images, focal).depth
        if self.depth_range is not None:
            depth = depth.clamp(*self.depth_range)
        return Inference(depth=resize_to(depth, (size[0], size[1])))

    def freeze_as_published(self) -> None:
        """Stop the gradient of the encoder's first convolution and of all its norms; running statistics still move."""
        modules = list(self.encoder.base_model.modules())
        first = next(module for module in modules if isinstance(module, nn.Conv2d))
        norms = [module for module in modules if isinstance(module, nn.BatchNorm2d)]
        for module in (first, *norms):
            module.requires_grad_(requires_grad=False)


def build(config: Mapping[str, Any]) -> BTS:
    """Build BTS from its configuration.

    Keys: `layout` (official, toolbox), `encoder` (resnet50, resnet101, resnext50, resnext101, densenet121,
    densenet161), `width` (a multiple of 128), `min_depth` (toolbox clamp), `max_depth` (metres), `dataset` (kitti:
    depth is scaled by the focal length; nyu), `resize` (false, or true: images go through the nearest multiples of
    32), `pretrained`.

    Raises:
        UsageError: an unknown key or value.
    """
    where = "bts configuration"
    choices = {
        "family": (FAMILY,),
        "layout": ("official", "toolbox"),
        "encoder": tuple(ENCODERS),
        "dataset": ("kitti", "nyu"),
        "resize": (False, True),
        "pretrained": (False, True),
    }
    options = read_config(config, DEFAULTS, choices=choices, where=where)
    options.update(depth_limits(options, where))
    whole_number(options, "width", least=128, multiple=128, where=where)
    return BTS(options)
