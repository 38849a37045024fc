"""Networks that predict sigmoid disparity on four scales: what Monodepth2, HR-Depth and DIFFNet have in common.

Sigmoid disparity is a number in (0, 1); *scaled disparity* is its affine image in [1/max_depth, 1/min_depth], and depth
the inverse of that (Monodepth2, layers.py, disp_to_depth).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adubench.errors import UsageError, unknown_name
from adubench.models.interface import DepthNetwork, Inference, InputRule

#: Metres per predicted unit of networks trained with stereo: KITTI's 0.54 m baseline stood for 0.1 in training.
STEREO_SCALE = 5.4

#: Coarsest features, and the smallest input whose coarsest features can be reflection-padded, in pixels.
STRIDE, SMALLEST, LARGEST = 32, 64, 16384

#: Frames that a network of several images takes after the target, in the order of the published `frame_ids` 0 -1 1.
NEIGHBOURS = (-1, 1, -2, 2)

#: Keys that every self-supervised family understands, with their defaults.
COMMON: dict[str, Any] = {
    "height": 192,
    "width": 640,
    "min_depth": 0.1,
    "max_depth": 100.0,
    "uncertainty": False,
    "use_stereo": False,
    "pretrained": False,
}


@dataclass(frozen=True, slots=True)
class DisparityOutput:
    """What a self-supervised depth network computes.

    Attributes:
        disparities: sigmoid disparities, scale 0 first, each (B, 1, H / 2^s, W / 2^s); scales 0..3 unless configured.
        uncertainty_logits: the second channel of the same heads before the sigmoid (SUB-Depth), or None.
        features: the encoder's maps, finest first (DIFFNet: lists of maps in the middle).
    """

    disparities: list[Tensor]
    uncertainty_logits: list[Tensor] | None
    features: list[Any]


class DisparityNetwork(DepthNetwork):
    """Encoder and decoder of a self-supervised family.

    `forward` takes RGB in [0, 1]; whatever normalisation a family has happens inside, so that training, pose networks
    and inference share one image. The sub-modules are called as the official files are: `encoder`, `depth`.

    Attributes:
        depth_scale: metres per predicted unit where that is known (5.4 after training with stereo), else 1.
        has_uncertainty: every head has a second channel (SUB-Depth).
    """

    def __init__(self, config: Mapping[str, Any], encoder: nn.Module, depth: nn.Module, images: int = 1) -> None:
        super().__init__()
        self.config = dict(config)
        self.family = str(config["family"])
        self.encoder = encoder
        self.depth = depth
        size = (int(config["height"]), int(config["width"]))
        check_size(*size)
        self.depth_range = (float(config["min_depth"]), float(config["max_depth"]))
        check_range(*self.depth_range)
        self.neighbours = NEIGHBOURS[: images - 1]
        self.input_rule = InputRule(3 * images, (0.0,) * 3, (1.0,) * 3, size, "lanczos")
        self.output = "disparity"
        self.flip = "none"
        self.has_uncertainty = bool(config["uncertainty"])
        self.uncertainty_kind = "b" if self.has_uncertainty else None
        self.depth_scale = STEREO_SCALE if config["use_stereo"] else 1.0

    def forward(self, images: Tensor) -> DisparityOutput:
        """Predict for RGB in [0, 1], (B, 3n, H, W) with H and W multiples of 32 and at least 64.

        Raises:
            UsageError: a size the decoder's padding cannot take.
        """
        check_size(images.shape[-2], images.shape[-1])
        return self.decode(self.encoder(images))

    def decode(self, features: list[Any]) -> DisparityOutput:
        """Predict from the encoder's features, where these were computed for several images at once."""
        logits: list[Tensor] = [head.float() for head in self.depth(features)]
        disparities = [torch.sigmoid(z[:, :1]) for z in logits]
        uncertain = [z[:, 1:2] for z in logits] if self.has_uncertainty else None
        return DisparityOutput(disparities, uncertain, features)

    def infer(self, images: Tensor, *, focal: Tensor | None = None) -> Inference:
        """Return sigmoid disparity of scale 0 and, for SUB-Depth, sigma_reg in the same units."""
        out = self(images)
        sigma = None if out.uncertainty_logits is None else torch.sigmoid(out.uncertainty_logits[0])
        return Inference(disparity=out.disparities[0], uncertainty=sigma)


def check_size(height: int, width: int) -> None:
    """Refuse sizes that the reflection padding at stride 32 cannot take.

    Raises:
        UsageError: not multiples of 32, below 64, or larger than any image that such a network sees.
    """
    if max(height, width) > LARGEST:
        raise UsageError(
            f"network input {height}x{width}: height and width must be at most {LARGEST}. Use e.g. 192x640."
        )
    if height % STRIDE or width % STRIDE or height < SMALLEST or width < SMALLEST:
        raise UsageError(
            f"network input {height}x{width}: height and width must be multiples of {STRIDE} and at least {SMALLEST}, "
            f"because features of stride {STRIDE} are reflection-padded. Use e.g. 192x640."
        )


def check_range(min_depth: float, max_depth: float) -> None:
    """Refuse depth ranges without an interior.

    Raises:
        UsageError: not 0 < min < max.
    """
    if not 0 < min_depth < max_depth:
        raise UsageError(f"depth range {min_depth} to {max_depth}: expected 0 < min_depth < max_depth.")


def complete_config(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Fill a network's configuration with the defaults of its family.

    Raises:
        UsageError: a key that the family does not have.
    """
    for key in config:
        if key != "family" and key not in defaults:
            raise unknown_name(f"option of {config.get('family', 'the network')}", key, defaults)
    return {"family": config["family"], **defaults, **config}


def take_pretrained(config: dict[str, Any]) -> bool | str:
    """Remove the switch for ImageNet weights from a configuration; a stored network never asks for them again."""
    value: bool | str = config["pretrained"]
    config["pretrained"] = False
    return value


def scaled_disparity(disparity: Tensor, min_depth: float = 0.1, max_depth: float = 100.0) -> Tensor:
    """Map sigmoid disparity to [1/max_depth, 1/min_depth]; the constants are formed in double precision."""
    low, high = 1.0 / max_depth, 1.0 / min_depth
    return low + (high - low) * disparity


def disparity_to_depth(disparity: Tensor, min_depth: float = 0.1, max_depth: float = 100.0) -> Tensor:
    """Map sigmoid disparity to depth (Monodepth2, layers.py, disp_to_depth)."""
    return 1.0 / scaled_disparity(disparity, min_depth, max_depth)


def depth_to_disparity(depth: Tensor, min_depth: float = 0.1, max_depth: float = 100.0) -> Tensor:
    """Invert `disparity_to_depth` (HR-Depth, layers.py, depth_to_disp)."""
    low, high = 1.0 / max_depth, 1.0 / min_depth
    return (1.0 / depth - low) / (high - low)


def up(x: Tensor) -> Tensor:
    """Double height and width, nearest neighbour."""
    return nn.functional.interpolate(x, scale_factor=2, mode="nearest")


def join(high: Tensor, lows: Sequence[Tensor]) -> Tensor:
    """Concatenate an upsampled map with maps of the finer level; the upsampled channels come first."""
    return torch.cat([up(high), *lows], 1)


class Conv3x3(nn.Module):
    """3x3 convolution with bias after reflection padding."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.pad = nn.ReflectionPad2d(1)
        self.conv = nn.Conv2d(inputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Keep height and width."""
        out: Tensor = self.conv(self.pad(x))
        return out


class ConvBlock(nn.Module):
    """`Conv3x3` and ELU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = Conv3x3(inputs, outputs)
        self.act = nn.ELU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Keep height and width."""
        out: Tensor = self.act(self.conv(x))
        return out


def channel_gate(channels: int) -> nn.Sequential:
    """Return the weights of a squeeze-and-excitation: no biases, hidden width a sixteenth."""
    hidden = max(channels // 16, 1)
    return nn.Sequential(
        nn.Linear(channels, hidden, bias=False),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, channels, bias=False),
        nn.Sigmoid(),
    )


def gated(x: Tensor, gate: nn.Module) -> Tensor:
    """Weigh the channels of (B, C, H, W) by what a `channel_gate` makes of their means."""
    weights: Tensor = gate(x.mean((2, 3)))
    return x * weights[:, :, None, None]
