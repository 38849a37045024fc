"""Pose networks: the camera's motion between neighbouring frames.

Source: nianticlabs/monodepth2, networks/pose_decoder.py, networks/pose_cnn.py; trainer.py, predict_poses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from adubench.errors import UsageError, unknown_name
from adubench.models.resnet_encoder import CHANNELS, ResnetEncoder

PoseKind = Literal["separate_resnet", "shared", "posecnn"]
KINDS = ("separate_resnet", "shared", "posecnn")
INPUTS = ("pairs", "all")
#: Poses are small at the start of training.
POSE_SCALE = 0.01
DEFAULTS: dict[str, Any] = {
    "kind": "separate_resnet",
    "num_layers": 18,
    "input": "pairs",
    "frames": 3,
    "pretrained": False,
}


@dataclass(frozen=True, slots=True)
class Pose:
    """Motion from the target camera to a source camera, before it becomes a matrix.

    Attributes:
        axisangle: (B, 3) rotation vector in radians.
        translation: (B, 3), in the unit of the predicted depth.
        invert: the network saw the source first (an older frame), so the matrix has to be inverted.
    """

    axisangle: Tensor
    translation: Tensor
    invert: bool


class PoseDecoder(nn.Module):
    """From the last features of one or more images to poses.

    Args:
        channels: width of the last feature.
        lists: number of feature maps that are concatenated.
        poses: number of poses.
    """

    def __init__(self, channels: int, lists: int = 1, poses: int = 2) -> None:
        super().__init__()
        self.poses = poses
        self.net = nn.ModuleList(
            [
                nn.Conv2d(channels, 256, 1),
                nn.Conv2d(256 * lists, 256, 3, padding=1),
                nn.Conv2d(256, 256, 3, padding=1),
                nn.Conv2d(256, 6 * poses, 1),
            ]
        )

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return rotation vectors and translations, each (B, poses, 1, 3)."""
        x = torch.cat([torch.relu(self.net[0](feature)) for feature in features], 1)
        x = torch.relu(self.net[1](x))
        x = torch.relu(self.net[2](x))
        return _split(self.net[3](x), self.poses)


class PoseCNN(nn.Module):
    """Seven convolutions on stacked RGB in [0, 1]; unlike the ResNets it does not normalise its input.

    Args:
        images: number of stacked images; it predicts one pose less.
    """

    def __init__(self, images: int = 2) -> None:
        super().__init__()
        self.poses = images - 1
        self.pose_conv = nn.Conv2d(256, 6 * self.poses, 1)
        widths = (3 * images, 16, 32, 64, 128, 256, 256, 256)
        kernels = (7, 5, 3, 3, 3, 3, 3)
        self.net = nn.ModuleList(
            nn.Conv2d(widths[k], widths[k + 1], size, 2, size // 2) for k, size in enumerate(kernels)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return rotation vectors and translations, each (B, poses, 1, 3)."""
        for layer in self.net:
            x = torch.relu(layer(x))
        return _split(self.pose_conv(x), self.poses)


def _split(x: Tensor, poses: int) -> tuple[Tensor, Tensor]:
    """Average over the image, scale, and separate rotations from translations."""
    x = POSE_SCALE * x.float().mean(3).mean(2).view(-1, poses, 1, 6)
    return x[..., :3], x[..., 3:]


class PoseNetwork(nn.Module):
    """The pose network of a training run in one of its three kinds.

    Attributes:
        config: plain values from which `build_pose` makes it again.
        kind: `separate_resnet` has its own encoder, `shared` takes the depth encoder's features, `posecnn` neither.
        pose_encoder: the official `pose_encoder.pth`, only of `separate_resnet`.
        pose: the official `pose.pth`.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = {**config, "pretrained": False}
        self.kind = str(config["kind"])
        self.mode = str(config["input"])
        layers = int(config["num_layers"])
        images = 2 if self.mode == "pairs" else int(config["frames"])
        if self.kind == "posecnn":
            self.pose: PoseDecoder | PoseCNN = PoseCNN(images)
        elif self.kind == "shared":
            self.pose = PoseDecoder(CHANNELS[layers][-1], images, images - 1)
        else:
            self.pose_encoder = ResnetEncoder(layers, images, config["pretrained"])
            self.pose = PoseDecoder(CHANNELS[layers][-1], 1, max(2, images - 1))

    def raw(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Run the head on images in the order given (`shared`: on their last depth features).

        Returns:
            rotation vectors and translations, each (B, poses, 1, 3).
        """
        if isinstance(self.pose, PoseCNN):
            out: tuple[Tensor, Tensor] = self.pose(torch.cat(list(inputs), 1))
        elif self.kind == "shared":
            out = self.pose(list(inputs))
        else:
            out = self.pose([self.pose_encoder(torch.cat(list(inputs), 1))[-1]])
        return out

    def forward(self, frames: Mapping[int, Tensor]) -> dict[int, Pose]:
        """Predict the pose of every temporal source.

        Args:
            frames: frame id -> colour-augmented image (B, 3, H, W) in [0, 1], or for `shared` the last depth feature;
                0 is the target. The order matters for `all`: it is the order of the stack.
        """
        sources = [frame for frame in frames if frame != 0]
        if self.mode == "pairs":
            return {source: self._pair(frames, source) for source in sources}
        rotations, translations = self.raw([frames[frame] for frame in frames])
        return {
            source: Pose(rotations[:, k, 0], translations[:, k, 0], invert=False) for k, source in enumerate(sources)
        }

    def _pair(self, frames: Mapping[int, Tensor], source: int) -> Pose:
        rotations, translations = self.raw(temporal_pair(frames, source))
        return Pose(rotations[:, 0, 0], translations[:, 0, 0], invert=source < 0)


def temporal_pair(frames: Mapping[int, Tensor], source: int) -> list[Tensor]:
    """Order a source and the target in time: the older frame comes first."""
    return [frames[source], frames[0]] if source < 0 else [frames[0], frames[source]]


def build_pose(config: Mapping[str, Any]) -> PoseNetwork:
    """Build a pose network.

    Keys: `kind` (separate_resnet, shared, posecnn), `num_layers`, `input` (pairs, all), `frames` (temporal frames with
    the target, for `all`), `pretrained` (False, True, or a file with timm weights).

    Raises:
        UsageError: unknown keys or values.
    """
    for key in config:
        if key not in DEFAULTS:
            raise unknown_name("option of the pose network", key, DEFAULTS)
    full = {**DEFAULTS, **config}
    if full["kind"] not in KINDS:
        raise unknown_name("kind of pose network", str(full["kind"]), KINDS)
    if full["input"] not in INPUTS:
        raise unknown_name("input of the pose network", str(full["input"]), INPUTS)
    if int(full["num_layers"]) not in CHANNELS:
        raise UsageError(f"pose network: num_layers is one of {', '.join(map(str, CHANNELS))}.")
    if int(full["frames"]) < 2:
        raise UsageError("pose network: it needs at least 2 temporal frames, the target and one source.")
    return PoseNetwork(full)
