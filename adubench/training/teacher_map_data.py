"""Training samples with a teacher's stored depth map, as tensors: what TIE-KD and its response baselines read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch.utils.data import Dataset

from adubench.datasets.teacher_map_checks import require_depth
from adubench.datasets.tie_kd_transforms import TieKDAugmentation, TieKDSample, draw_tie_kd, tie_kd_sample
from adubench.errors import AdubenchError
from adubench.training.data import TrainingLoader, Unreadable, make_loader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from adubench.datasets.stereo_pairs import FrameFiles
    from adubench.datasets.teacher_maps import TeacherMaps
    from adubench.training.sampler import EpochSampler, Position

Named = tuple[str, TieKDSample]


class TeacherMapSet(Dataset[Named | Unreadable]):
    """Samples by (epoch, index): a pure function of (seed, epoch, frame), whatever the workers.

    Args:
        frames: images and ground truth, `training_frames(...).frames`.
        maps: the teacher's; None for a baseline that learns from ground truth alone.
        stems: frame name -> stem of its map, from `TeacherMaps.check_complete`, which names missing ones.
        settings: how samples are made.
        seed: of the run.
    """

    def __init__(
        self,
        frames: Sequence[FrameFiles],
        maps: TeacherMaps | None,
        stems: Mapping[str, str],
        settings: TieKDAugmentation,
        seed: int = 0,
    ) -> None:
        self.frames, self.maps, self.stems = frames, maps, stems
        self.settings, self.seed = settings, seed

    def __len__(self) -> int:
        return len(self.frames)

    def sample(self, epoch: int, index: int) -> TieKDSample:
        """Make a sample.

        Raises:
            DataError: a file is missing or damaged, sizes differ, or the image is smaller than the crop.
        """
        files = self.frames[index]
        draw = draw_tie_kd(self.seed, epoch, files.name, self.settings)
        gt = files.codes().astype(np.float32) / np.float32(files.scale)
        teacher = gt
        if self.maps is not None:
            stem = self.stems[files.name]
            teacher = self.maps.read(stem)
            require_depth(teacher, self.maps, stem)
        return tie_kd_sample(files.image(), teacher, gt, draw, self.settings, name=files.name)

    def collate(self, form: str) -> Callable[[Sequence[Named | Unreadable]], Any]:
        """Return what joins samples to a batch; there is one form only."""
        return collate if self.maps is not None else collate_plain

    def __getitem__(self, position: Position) -> Named | Unreadable:
        try:
            return self.frames[position[1]].name, self.sample(*position)
        except AdubenchError as error:
            return Unreadable(str(error))


def collate(samples: Sequence[Named | Unreadable]) -> dict[str, Any] | Unreadable:
    """Join samples to a batch; an unreadable sample takes the place of its batch.

    Returns:
        `image` float32 [B, 3, H, W] normalised, `gt` and `teacher` float32 [B, 1, H, W] metres, `teacher_mask` bool
        [B, 1, H, W], `frames` names.
    """
    for sample in samples:
        if isinstance(sample, Unreadable):
            return sample
    found = cast("Sequence[Named]", samples)
    made = [sample for _, sample in found]
    if len({sample.image.shape for sample in made}) > 1:
        return Unreadable(f"{found[0][0]}: images of different sizes in one batch; set a crop that all of them hold.")

    def stack(arrays: list[np.ndarray[Any, Any]]) -> torch.Tensor:
        return torch.from_numpy(np.stack(arrays))

    return {
        "image": stack([s.image for s in made]),
        "gt": stack([cast("np.ndarray[Any, Any]", s.gt) for s in made])[:, None],
        "teacher": stack([s.teacher for s in made])[:, None],
        "teacher_mask": stack([s.teacher_mask for s in made])[:, None],
        "frames": [name for name, _ in found],
    }


def collate_plain(samples: Sequence[Named | Unreadable]) -> dict[str, Any] | Unreadable:
    """Join samples that have no teacher map."""
    batch = collate(samples)
    if isinstance(batch, Unreadable):
        return batch
    return {key: batch[key] for key in ("image", "gt", "frames")}


def make_teacher_map_loader(data: TeacherMapSet, sampler: EpochSampler, *, workers: int = 0) -> TrainingLoader:
    """Make the loader of a run.

    Args:
        data: the samples.
        sampler: their order; it decides batch size, epoch and process.
        workers: loader processes; 0 reads in this one.
    """
    return make_loader(data, sampler, workers=workers)
