"""What every network of the zoo has in common: how images go in, what comes out, how a prediction is made of it.

A predictor (evaluation, prediction, export) needs nothing else of a network than what stands here; training objectives
call the family's own `forward`.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Output = Literal["depth", "disparity"]
Flip = Literal["none", "blend", "mean", "disparity-blend"]


@dataclass(frozen=True, slots=True)
class InputRule:
    """How an 8-bit RGB image becomes the input of a network.

    Attributes:
        channels: 3, or 6 for a stereo teacher (left RGB, then right RGB).
        mean: subtracted per channel after division by 255.
        std: divided by, per channel.
        size: (height, width) the image is resized to, None for its own size.
        resample: filter of that resize: Pillow's (`lanczos`, `bilinear`), or `point-bilinear`, bilinear without
            antialiasing as in training on resized images.
        needs_focal: `infer` takes the focal length in pixels (BTS on KITTI).
    """

    channels: int = 3
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    size: tuple[int, int] | None = None
    resample: Literal["lanczos", "bilinear", "point-bilinear"] = "bilinear"
    needs_focal: bool = False


@dataclass(frozen=True, slots=True)
class Inference:
    """What a network says about a batch, at the size of its input.

    Attributes:
        depth: (B, 1, H, W) float32 metres, None for networks that predict disparity.
        disparity: (B, 1, H, W) float32 sigmoid disparity in (0, 1), None for networks that predict depth.
        uncertainty: (B, 1, H, W) float32 in the network's `uncertainty_kind`, or None.
    """

    depth: Tensor | None = None
    disparity: Tensor | None = None
    uncertainty: Tensor | None = None


class DepthNetwork(nn.Module):
    """A depth network of the zoo.

    Attributes:
        family: name in the zoo.
        config: plain JSON values from which the zoo builds the same network again, `family` included.
        input_rule: how images go in.
        output: what `infer` returns.
        flip: flip averaging of the reference ("none": the reference does not flip).
        uncertainty_kind: `sigma`, `b`, `log_b`, `log_sigma`, `log_variance`, or None.
        depth_range: (min, max) metres that the network's own inference clamps to, None for none; for disparity networks
            the range that maps sigmoid disparity to scaled disparity.
        neighbours: offsets in frames of the further images that `infer` takes, stacked behind the target's channels.
    """

    family: str
    config: dict[str, Any]
    input_rule: InputRule = InputRule()
    output: Output = "depth"
    flip: Flip = "none"
    uncertainty_kind: str | None = None
    depth_range: tuple[float, float] | None = None
    neighbours: tuple[int, ...] = ()

    @abstractmethod
    def infer(self, images: Tensor, *, focal: Tensor | None = None) -> Inference:
        """Predict for normalised images.

        Args:
            images: (B, C, H, W) float32, normalised by `input_rule`, C = `input_rule.channels`, any H and W unless
                `input_rule.size` is set.
            focal: (B,) focal lengths in pixels, for networks that need them.
        """
