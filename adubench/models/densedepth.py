"""Students of TIE-KD: a light encoder, the DenseDepth decoder, and a head over fixed depth bins or a regression head.

TIE-KD (arXiv 2402.14340), repository TIE-KD: `densedepth_head_dpm*.py`, `densedepth_head_base_custom_kd*.py`. Parameter
names are those of the release (`decode_head.*`) and of timm (`encoder.*`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from adubench.errors import DataError
from adubench.models.config import read_config
from adubench.models.interface import DepthNetwork, Inference
from adubench.models.limits import depth_limits, whole_number
from adubench.models.timm_encoders import create_encoder, resize_to

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

FAMILY = "densedepth"
DEFAULTS: dict[str, Any] = {
    "family": FAMILY,
    "encoder": "mobilenetv2",
    "head": "dpm",
    "n_bins": 257,
    "min_depth": 0.001,
    "max_depth": 80.0,
    "pretrained": False,
}
_HEAD_WIDTH = 128


@dataclass(frozen=True, slots=True)
class Student:
    """Encoder and decoder widths of one student.

    Attributes:
        timm_name: the encoder in timm.
        out_indices: timm's feature indices, fine to coarse.
        channels: of the features, fine to coarse.
        widths: of the decoder at each feature, fine to coarse.
        blocks: full-resolution blocks, each doubling the size.
        strides: of the features, fine to coarse.
    """

    timm_name: str
    out_indices: tuple[int, ...]
    channels: tuple[int, ...]
    widths: tuple[int, ...]
    blocks: int
    strides: tuple[int, ...]


STUDENTS = {
    "mobilenetv2": Student(
        "mobilenetv2_100", (1, 2, 3, 4), (24, 32, 96, 320), (128, 256, 512, 2048), 2, strides=(4, 8, 8, 8)
    ),
    "resnet18": Student(
        "resnet18", (0, 1, 2, 3, 4), (64, 64, 128, 256, 512), (128, 128, 256, 256, 512), 1, strides=(2, 4, 8, 16, 32)
    ),
    "resnet50": Student(
        "resnet50",
        (0, 1, 2, 3, 4),
        (64, 256, 512, 1024, 2048),
        (128, 256, 512, 1024, 2048),
        1,
        strides=(2, 4, 8, 16, 32),
    ),
}


@dataclass(frozen=True, slots=True)
class DenseDepthOutput:
    """What a student computes.

    Attributes:
        depth: (B, 1, H, W) float32 metres, not clamped.
        edges: (C + 1,) float32 metres, None for the regression head.
        probs: (B, C, H, W) float32, sums to 1 over C, None for the regression head.
    """

    depth: Tensor
    edges: Tensor | None = None
    probs: Tensor | None = None


def bin_edges(n_bins: int, min_depth: float, max_depth: float, device: torch.device | str = "cpu") -> Tensor:
    """Edges of `n_bins` uniform bins, (n_bins + 1,) float32 metres, both ends included."""
    return torch.linspace(min_depth, max_depth, n_bins + 1, dtype=torch.float32, device=device)


def bin_centres(edges: Tensor) -> Tensor:
    """Centres (C,) of the bins between C + 1 edges."""
    return 0.5 * (edges[:-1] + edges[1:])


class _Conv(nn.Module):
    """A convolution with bias that keeps the size, with or without ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, relu: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return torch.relu(x) if self.relu else x


class _Pair(nn.Module):
    """Two 3x3 convolutions with ReLU; named as in the release."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convA = _Conv(in_channels, out_channels, 3, relu=True)
        self.convB = _Conv(out_channels, out_channels, 3, relu=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.convB(self.convA(x))
        return out


class DenseDepthHead(nn.Module):
    """Decoder and output layer over features of any strides.

    Args:
        channels: of the features, fine to coarse.
        widths: of the decoder, fine to coarse; the first is 128.
        blocks: 0, 1 or 2 full-resolution blocks, each doubling the size exactly.
        head: "dpm" (softmax over fixed bins, depth is the expectation), "regression" (sigmoid times `max_depth`) or
            "relu" (ReLU plus `min_depth`).
        n_bins: bins of the dpm head.
        min_depth: metres.
        max_depth: metres.
    """

    def __init__(
        self,
        channels: Sequence[int],
        widths: Sequence[int],
        *,
        blocks: int,
        head: Literal["dpm", "regression", "relu"],
        n_bins: int,
        min_depth: float,
        max_depth: float,
    ) -> None:
        super().__init__()
        if widths[0] != _HEAD_WIDTH:
            raise ValueError(f"the finest width must be {_HEAD_WIDTH}, got {widths[0]}")
        self.head, self.min_depth, self.max_depth = head, min_depth, max_depth
        layers: list[nn.Module] = [_Conv(channels[-1], widths[-1], 1, relu=False)]
        layers += [_Pair(widths[i + 1] + channels[i], widths[i]) for i in reversed(range(len(channels) - 1))]
        self.conv_list = nn.ModuleList(layers)
        self.upsample_custom = _Pair(_HEAD_WIDTH, _HEAD_WIDTH) if blocks > 0 else None
        self.upsample_custom2 = _Pair(_HEAD_WIDTH, _HEAD_WIDTH) if blocks > 1 else None
        if head == "dpm":
            self.conv_out = nn.Sequential(nn.Conv2d(_HEAD_WIDTH, n_bins, 1))
            self.register_buffer("edges", bin_edges(n_bins, min_depth, max_depth), persistent=False)
        else:
            self.conv_depth = nn.Conv2d(_HEAD_WIDTH, 1, 3, padding=1)

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        """Merge the features, fine to coarse; returns (B, 128, h, w) at the size of the finest times 2 per block."""
        x = self.conv_list[0](features[-1])
        for layer, skip in zip(list(self.conv_list)[1:], reversed(features[:-1]), strict=True):
            x = layer(torch.cat((resize_to(x, skip.shape[-2:]), skip), dim=1))
        for block in (self.upsample_custom, self.upsample_custom2):
            if block is not None:
                x = block(resize_to(x, (2 * x.shape[-2], 2 * x.shape[-1])))
        out: Tensor = x
        return out

    def forward(self, features: Sequence[Tensor]) -> DenseDepthOutput:
        """Features, fine to coarse, to depth; everything after the last convolution in float32."""
        x = self.decode(features)
        logits = self.conv_out(x) if self.head == "dpm" else self.conv_depth(x)
        with torch.autocast(device_type=logits.device.type, enabled=False):
            if self.head == "dpm":
                edges: Tensor = self.get_buffer("edges")
                probs = torch.softmax(logits.float(), dim=1)
                depth = (probs * bin_centres(edges)[None, :, None, None]).sum(dim=1, keepdim=True)
                return DenseDepthOutput(depth, edges, probs)
            if self.head == "regression":
                return DenseDepthOutput(torch.sigmoid(logits.float()) * self.max_depth)
            return DenseDepthOutput(torch.relu(logits.float()) + self.min_depth)


# Depthwise stride and dilation of the first block of each MobileNetV2 stage. timm's `output_stride=8` keeps the
# previous dilation in the first block and dilates the rest of the stage: other features.
_MOBILENET_STRIDES = (1, 2, 2, 1, 1, 1, 1)
_MOBILENET_DILATIONS = (1, 1, 1, 2, 2, 4, 4)


def _dilate_mobilenet(encoder: nn.Module) -> None:
    stages: Any = encoder.blocks
    for stage, stride, dilation in zip(stages, _MOBILENET_STRIDES, _MOBILENET_DILATIONS, strict=False):
        conv = stage[0].conv_dw
        conv.stride, conv.dilation, conv.padding = (stride, stride), (dilation, dilation), (dilation, dilation)


def student_encoder(name: str, *, pretrained: bool = False) -> nn.Module:
    """The encoder of a student: a module that returns its features, fine to coarse."""
    student = STUDENTS[name]
    encoder = create_encoder(
        student.timm_name, pretrained=pretrained, features_only=True, out_indices=student.out_indices
    )
    if name == "mobilenetv2":
        _dilate_mobilenet(encoder)
    return encoder


class DenseDepth(DepthNetwork):
    """A student of TIE-KD.

    Args:
        config: complete configuration (`build` fills defaults).
    """

    family = FAMILY
    flip = "mean"

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config
        student = STUDENTS[config["encoder"]]
        self.depth_range = (config["min_depth"], config["max_depth"])
        self.encoder = student_encoder(config["encoder"], pretrained=config["pretrained"] is True)
        self.decode_head = DenseDepthHead(
            student.channels,
            student.widths,
            blocks=student.blocks,
            head=config["head"],
            n_bins=config["n_bins"],
            min_depth=config["min_depth"],
            max_depth=config["max_depth"],
        )
        # A checkpoint of this network never asks for a download again.
        self.config = {**config, "pretrained": False}

    def forward(self, images: Tensor) -> DenseDepthOutput:
        """Compute depth and, for the dpm head, probabilities.

        Args:
            images: (B, 3, H, W) normalised.

        Raises:
            DataError: in training, when the output would not have the input's size.
        """
        if self.training:
            stride = 4 if self.config["encoder"] == "mobilenetv2" else 2
            h, w = images.shape[-2:]
            if h % stride or w % stride:
                raise DataError(
                    f"training crop {h}x{w}: the {self.config['encoder']} student needs multiples of {stride}, because "
                    "its losses compare maps of one size. Choose another crop."
                )
        output: DenseDepthOutput = self.decode_head(self.encoder(images))
        return output

    def infer(self, images: Tensor, *, focal: Tensor | None = None) -> Inference:
        """Predict metric depth: clamp to the depth range, then resize to the input where the decoder overshot."""
        low, high = self.config["min_depth"], self.config["max_depth"]
        return Inference(depth=resize_to(self(images).depth.clamp(low, high), images.shape[-2:]))


def build(config: Mapping[str, Any]) -> DenseDepth:
    """Build a student from its configuration.

    Keys: `encoder` (mobilenetv2, resnet18, resnet50), `head` (dpm, regression), `n_bins` (257 on KITTI, 49 on NYU),
    `min_depth`, `max_depth` (metres), `pretrained` (True: timm's ImageNet weights; the release used mmcls' ones).

    Raises:
        UsageError: an unknown key or value.
    """
    where = "densedepth configuration"
    choices = {
        "family": (FAMILY,),
        "encoder": tuple(STUDENTS),
        "head": ("dpm", "regression"),
        "pretrained": (False, True),
    }
    options = read_config(config, DEFAULTS, choices=choices, where=where)
    options.update(depth_limits(options, where))
    whole_number(options, "n_bins", least=2, where=where)
    return DenseDepth(options)
