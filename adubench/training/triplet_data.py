"""Triplets as tensors: data set and collation for self-supervised training, and the views of a batch.

Images travel as 8-bit numbers and become RGB in [0, 1] on the device. Keys of a batch are flat strings, so that
whatever moves tensors between devices can move it: `colour/<source>/<scale>`, `augmented/<source>`, `K/<scale>`,
`inverse_k/<scale>`, `stereo`, `frames`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from adubench.datasets.frames import FrameKey
from adubench.datasets.triplets import Source, Triplet, TripletPlaces, TripletRule, load_triplet
from adubench.errors import AdubenchError
from adubench.models.pose import Pose
from adubench.training.data import Unreadable
from adubench.training.photometric import Views
from adubench.training.view_synthesis import Cameras

Batch = dict[str, Any]
_IMAGES = ("colour", "augmented")


class TripletSet(Dataset[Triplet | Unreadable]):
    """Samples by (epoch, index): a pure function of (seed, epoch, frame), whatever the workers.

    Args:
        places: where the images are.
        frames: targets, see `with_sources`.
        rule: how samples are made.
        seed: of the run.
    """

    def __init__(self, places: TripletPlaces, frames: Sequence[FrameKey], rule: TripletRule, seed: int = 0) -> None:
        self.places, self.frames, self.rule, self.seed = places, tuple(frames), rule, seed

    def __len__(self) -> int:
        return len(self.frames)

    def sample(self, epoch: int, index: int) -> Triplet:
        """Make a sample.

        Raises:
            DataError: an image is missing or damaged.
        """
        return load_triplet(self.places, self.frames[index], self.rule, seed=self.seed, epoch=epoch)

    def collate(self, form: str) -> Callable[[Sequence[Triplet | Unreadable]], Batch | Unreadable]:
        """Return what joins samples to a batch; images are 8-bit in every form."""
        return collate_triplets

    def __getitem__(self, position: tuple[int, int]) -> Triplet | Unreadable:
        try:
            return self.sample(*position)
        except AdubenchError as error:
            return Unreadable(str(error))


def collate_triplets(samples: Sequence[Triplet | Unreadable]) -> Batch | Unreadable:
    """Join samples to a batch; an unreadable one takes the place of its batch."""
    for sample in samples:
        if isinstance(sample, Unreadable):
            return sample
    found = cast("Sequence[Triplet]", samples)
    first = found[0]
    batch: Batch = {}
    for source, scale in first.colour:
        batch[f"colour/{source}/{scale}"] = _stack([s.colour[source, scale] for s in found])
    for source in first.augmented:
        batch[f"augmented/{source}"] = _stack([s.augmented[source] for s in found])
    for scale in first.K:
        batch[f"K/{scale}"] = _stack([s.K[scale] for s in found])
        batch[f"inverse_k/{scale}"] = _stack([s.inverse_k[scale] for s in found])
    if first.stereo is not None:
        batch["stereo"] = _stack([cast("np.ndarray[Any, Any]", s.stereo) for s in found])
    return batch | {"frames": [s.frame for s in found]}


@dataclass(frozen=True, slots=True)
class TripletBatch:
    """A batch as networks and losses take it.

    Attributes:
        colour: source -> scale -> clean images (B, 3, h, w) in [0, 1]; source 0 is the target.
        augmented: source -> what networks see, (B, 3, H, W) in [0, 1].
        cameras: scale -> intrinsics.
        stereo: (B, 4, 4) to the other camera, or None.
    """

    colour: Mapping[Source, Mapping[int, Tensor]]
    augmented: Mapping[Source, Tensor]
    cameras: Mapping[int, Cameras]
    stereo: Tensor | None

    @property
    def temporal(self) -> dict[int, Tensor]:
        """Augmented images by frame offset, the target first: the input of pose networks."""
        return {source: image for source, image in self.augmented.items() if isinstance(source, int)}

    def views(self, poses: Mapping[int, Pose]) -> Views:
        """Put images, intrinsics and predicted motion together for the photometric objective."""
        motion: dict[Source, Pose | Tensor] = {}
        motion.update((source, pose) for source, pose in poses.items())
        if self.stereo is not None:
            motion["s"] = self.stereo
        sources = {source: pyramid for source, pyramid in self.colour.items() if source != 0}
        return Views(self.colour[0], sources, self.cameras, motion)


def unpack(batch: Mapping[str, Any]) -> TripletBatch:
    """Read a batch of `collate_triplets`, on whatever device it lies."""
    colour: dict[Source, dict[int, Tensor]] = {}
    augmented: dict[Source, Tensor] = {}
    for key, value in batch.items():
        kind, _, rest = key.partition("/")
        if kind not in _IMAGES:
            continue
        name, _, scale = rest.partition("/")
        source: Source = name if name == "s" else int(name)
        image = value.permute(0, 3, 1, 2).to(torch.float32) / 255
        if kind == "colour":
            colour.setdefault(source, {})[int(scale)] = image
        else:
            augmented[source] = image
    scales = [int(key.removeprefix("K/")) for key in batch if key.startswith("K/")]
    cameras = {scale: Cameras(batch[f"K/{scale}"], batch[f"inverse_k/{scale}"]) for scale in scales}
    return TripletBatch(colour, augmented, cameras, batch.get("stereo"))


def _stack(arrays: Sequence[np.ndarray[Any, Any]]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))
