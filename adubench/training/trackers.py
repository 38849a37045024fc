"""TensorBoard and wandb through Accelerate's trackers: scalars, and pictures of what the network does."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from adubench.errors import UsageError
from adubench.models.interface import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from accelerate import Accelerator
    from numpy.typing import NDArray
    from torch import Tensor

# (position, red, green, blue) of a colour map that is dark far away and bright near by.
_COLOURS = np.array(
    [(0.0, 20, 10, 60), (0.25, 120, 28, 109), (0.5, 213, 72, 66), (0.75, 251, 155, 6), (1.0, 252, 255, 164)], np.float32
)


_WITHOUT_TRUTH = (("prediction", "depth"), ("teacher", "teacher"))


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers whose package is not installed.

    Raises:
        UsageError: naming the package.
    """
    for name in names:
        found = find_spec(name) is not None or (name == "tensorboard" and find_spec("tensorboardX") is not None)
        if not found:
            raise UsageError(
                f"log.trackers: {name} is not installed. Install it (pip install {name}), or leave it out "
                "(--set log.trackers=[]); the JSON log is written in any case."
            )


def pictures(batch: Mapping[str, Any], maps: Mapping[str, Tensor], *, count: int) -> dict[str, NDArray[np.uint8]]:
    """Draw the first samples of a batch: input, ground truth, prediction, teacher, error, uncertainty.

    Args:
        batch: of the training loader.
        maps: `depth` and perhaps `teacher` and `uncertainty`, (B, 1, H, W).
        count: samples at most.

    Returns:
        name -> uint8 [n, H, W, 3]. Depths share one logarithmic scale, near is bright.
    """
    depth = maps["depth"][:count].float().cpu()
    if "colour/0/0" in batch:  # triplets: 8-bit images, and no ground truth
        drawn = {"input": batch["colour/0/0"][:count].cpu().numpy()}
        low, high = 1.0, max(float(depth.max()), 2.0)
        return drawn | {
            name: _depth(maps[key][:count].float().cpu(), low, high) for name, key in _WITHOUT_TRUTH if key in maps
        }
    drawn = {"input": _image(batch["image"][:count])}
    gt = batch["gt"][:count].float().cpu()
    low, high = 1.0, max(float(gt.max()), 2.0)
    drawn["ground_truth"] = _depth(gt, low, high) * (gt > 0).permute(0, 2, 3, 1).numpy().astype(np.uint8)
    drawn["prediction"] = _depth(depth, low, high)
    if "teacher" in maps:
        drawn["teacher"] = _depth(maps["teacher"][:count].float().cpu(), low, high)
    if gt.shape == depth.shape:
        relative = torch.where(gt > 0, (depth - gt).abs() / gt.clamp_min(1e-3), 0.0)
        drawn["error"] = _coloured((relative / 0.2).clamp(0, 1))
    if "uncertainty" in maps:
        s = maps["uncertainty"][:count].float().cpu()
        spread = (s - s.amin()) / (s.amax() - s.amin()).clamp_min(1e-6)
        drawn["uncertainty"] = _coloured(spread)
    return drawn


def log_pictures(accelerator: Accelerator, drawn: Mapping[str, NDArray[np.uint8]], step: int) -> None:
    """Hand pictures to the trackers that take them."""
    for tracker in accelerator.trackers:
        if tracker.name == "tensorboard":
            tracker.log_images(dict(drawn), step=step, dataformats="NHWC")
        elif tracker.name == "wandb":
            tracker.log_images({name: list(images) for name, images in drawn.items()}, step=step)


def _image(normalised: Tensor) -> NDArray[np.uint8]:
    x = normalised.float().cpu()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    levels = ((x * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
    return np.asarray(levels.permute(0, 2, 3, 1).numpy())


def _depth(depth: Tensor, low: float, high: float) -> NDArray[np.uint8]:
    position = (depth.clamp(low, high) / low).log() / np.log(high / low)
    return _coloured(1 - position)


def _coloured(position: Tensor) -> NDArray[np.uint8]:
    """(B, 1, H, W) in [0, 1] -> uint8 [B, H, W, 3]."""
    p = position[:, 0].numpy()
    channels = [np.interp(p, _COLOURS[:, 0], _COLOURS[:, c]) for c in (1, 2, 3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)
