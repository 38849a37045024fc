"""MobileNetV3-Large features of HR-Depth-Lite (HR-Depth, networks/mobilenetV3_encoder.py).

Expanded blocks apply squeeze-and-excitation *before* the activation that follows the depthwise convolution; timm's and
torchvision's MobileNetV3 do it after. Weights of the one are wrong in the other by about one percent of a feature.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, cast

from torch import Tensor, nn

from adubench.errors import CheckpointError
from adubench.models.weights.safe_load import load_foreign

CHANNELS = (16, 24, 40, 80, 160)
#: Blocks after which a feature is taken: right after the one that strides, not at the end of its stage.
TAPS = (0, 2, 4, 7, 15)


class BlockSpec(NamedTuple):
    """One inverted residual block: kernel, hidden and output width, width inside the excitation, h-swish, stride."""

    kernel: int
    hidden: int
    outputs: int
    squeeze: int
    swish: bool
    stride: int


BLOCKS = (
    BlockSpec(3, 16, 16, 0, False, 1),
    BlockSpec(3, 64, 24, 0, False, 2),
    BlockSpec(3, 72, 24, 0, False, 1),
    BlockSpec(5, 72, 40, 24, False, 2),
    BlockSpec(5, 120, 40, 32, False, 1),
    BlockSpec(5, 120, 40, 32, False, 1),
    BlockSpec(3, 240, 80, 0, True, 2),
    BlockSpec(3, 200, 80, 0, True, 1),
    BlockSpec(3, 184, 80, 0, True, 1),
    BlockSpec(3, 184, 80, 0, True, 1),
    BlockSpec(3, 480, 112, 120, True, 1),
    BlockSpec(3, 672, 112, 168, True, 1),
    BlockSpec(5, 672, 160, 168, True, 2),
    BlockSpec(5, 960, 160, 240, True, 1),
    BlockSpec(5, 960, 160, 240, True, 1),
)


class SqueezeExcite(nn.Module):
    """Channel weights by two linear layers with bias and a hard sigmoid."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels), nn.Hardsigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels of (B, C, H, W)."""
        weights: Tensor = self.fc(x.mean((2, 3)))
        return x * weights[:, :, None, None]


class InvertedResidual(nn.Module):
    """One block; positions in `conv` are those of the official keys."""

    def __init__(self, inputs: int, spec: BlockSpec) -> None:
        super().__init__()
        depthwise = nn.Conv2d(
            spec.hidden, spec.hidden, spec.kernel, spec.stride, spec.kernel // 2, groups=spec.hidden, bias=False
        )
        excite: nn.Module = SqueezeExcite(spec.hidden, spec.squeeze) if spec.squeeze else nn.Identity()
        project = nn.Conv2d(spec.hidden, spec.outputs, 1, bias=False)
        tail = (project, nn.BatchNorm2d(spec.outputs))
        if inputs == spec.hidden:
            self.conv = nn.Sequential(depthwise, nn.BatchNorm2d(spec.hidden), _act(spec), excite, *tail)
        else:
            expand = nn.Conv2d(inputs, spec.hidden, 1, bias=False)
            head = (expand, nn.BatchNorm2d(spec.hidden), _act(spec), depthwise, nn.BatchNorm2d(spec.hidden))
            self.conv = nn.Sequential(*head, excite, _act(spec), *tail)
        self.residual = spec.stride == 1 and inputs == spec.outputs

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        out: Tensor = self.conv(x)
        return x + out if self.residual else out


class MobileNetEncoder(nn.Module):
    """Five features of strides 2 to 32 for RGB in [0, 1], normalised inside as Monodepth2 does.

    Args:
        weights: a file with this encoder's own keys, or None.
    """

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish(inplace=True))
        inputs = (16, *(spec.outputs for spec in BLOCKS[:-1]))
        blocks = [InvertedResidual(width, spec) for width, spec in zip(inputs, BLOCKS, strict=True)]
        self.encoder = nn.ModuleDict({"features": nn.ModuleList([stem, *blocks])})
        self.channels = CHANNELS
        self.apply(_initialise)
        if weights is not None:
            _load(self, weights)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of (B, 3, H, W), finest first."""
        x = (x - 0.45) / 0.225
        features = []
        for index, layer in enumerate(cast("nn.ModuleList", self.encoder["features"])):
            x = layer(x)
            if index in TAPS:
                features.append(x)
        return features


def _act(spec: BlockSpec) -> nn.Module:
    return nn.Hardswish(inplace=True) if spec.swish else nn.ReLU(inplace=True)


def _initialise(module: nn.Module) -> None:
    """He initialisation of convolutions, small normal weights of linear layers."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.01)
        nn.init.zeros_(module.bias)


def _load(module: nn.Module, path: str) -> None:
    state = load_foreign(Path(path))
    try:
        module.load_state_dict(state)  # type: ignore[arg-type]
    except (RuntimeError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not weights of the HR-Depth-Lite encoder ({str(error)[:200]}).") from None
