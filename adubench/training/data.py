"""Training samples as tensors: data set, collation, loader, and the colours applied on the device."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from adubench.datasets.stereo_pairs import FrameFiles, RawSample, make_sample
from adubench.datasets.transforms import Augmentation
from adubench.errors import AdubenchError, DataError
from adubench.training.sampler import EpochSampler, Position

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

Batch = dict[str, Any]
OutputForm = Literal["float", "uint8+table"]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A sample that could not be made; travels to the main process instead of an exception with its traceback."""

    message: str


class TrainingSet(Dataset[RawSample | Unreadable]):
    """Samples by (epoch, index): a pure function of (seed, epoch, frame), whatever the workers.

    Args:
        frames: `training_frames(...).frames`, or the frames of a training pack.
        settings: how samples are made.
        seed: of the run.
        focal: frame name -> focal length in pixels, for networks that need it; None: batches have none.
    """

    def __init__(
        self,
        frames: Sequence[FrameFiles],
        settings: Augmentation,
        seed: int = 0,
        *,
        focal: Mapping[str, float] | None = None,
    ) -> None:
        self.frames, self.settings, self.seed, self.focal = frames, settings, seed, focal

    def collate(self, form: OutputForm) -> Collate:
        """Return what joins samples to a batch."""
        return Collate(form, self.focal)

    def __len__(self) -> int:
        return len(self.frames)

    def sample(self, epoch: int, index: int) -> RawSample:
        """Make a sample.

        Raises:
            DataError: a file is missing or damaged, or the image is smaller than the crop.
        """
        return make_sample(self.frames[index], self.settings, seed=self.seed, epoch=epoch)

    def __getitem__(self, position: Position) -> RawSample | Unreadable:
        try:
            return self.sample(*position)
        except AdubenchError as error:
            return Unreadable(str(error))


class Collate:
    """Join samples to a batch; picklable.

    Args:
        form: "float" makes `image`, `right` (pairs) float32 [B, 3, H, W] normalised, and `gt` float32 [B, 1, H, W] in
            metres, 0 = none; "uint8+table" leaves 8-bit images, codes and tables for `apply_tables`. Both have
            `frames`, the names.
        focal: frame name -> pixels; batches then have `focal` float32 [B].
    """

    def __init__(self, form: OutputForm = "float", focal: Mapping[str, float] | None = None) -> None:
        self.form, self.focal = form, focal

    def __call__(self, samples: Sequence[RawSample | Unreadable]) -> Batch | Unreadable:
        """Join; an unreadable sample takes the place of its batch."""
        for sample in samples:
            if isinstance(sample, Unreadable):
                return sample
        found = cast("Sequence[RawSample]", samples)
        sizes = {s.codes.shape for s in found}
        if len(sizes) > 1 or len({s.image.shape for s in found}) > 1:
            return Unreadable(
                f"{found[0].name}: ground truth of different sizes in one batch ({sorted(sizes)}); set "
                "input.mode=crop, or train on images of one size."
            )
        batch = _float_batch(found) if self.form == "float" else _table_batch(found)
        if self.focal is not None:
            batch["focal"] = torch.tensor([self.focal[s.name] for s in found], dtype=torch.float32)
        return batch


def _float_batch(samples: Sequence[RawSample]) -> Batch:
    batch: Batch = {"image": _stack([s.normalised() for s in samples])}
    if samples[0].right is not None:
        batch["right"] = _stack([cast("np.ndarray[Any, Any]", s.normalised_right()) for s in samples])
    return batch | {"gt": _stack([s.metres() for s in samples]), "frames": [s.name for s in samples]}


def _table_batch(samples: Sequence[RawSample]) -> Batch:
    """8-bit images [B, h, w, 3], codes as int16 bit patterns [B, h, w] (old versions of torch lack uint16)."""
    batch: Batch = {"image_u8": _stack([s.image for s in samples])}
    if samples[0].right is not None:
        batch["right_u8"] = _stack([cast("np.ndarray[Any, Any]", s.right) for s in samples])
    return batch | {
        "table": _stack([s.table for s in samples]),
        "codes": _stack([s.codes.view(np.int16) for s in samples]),
        "scale": torch.tensor([s.scale for s in samples], dtype=torch.float32),
        "frames": [s.name for s in samples],
    }


def _stack(arrays: list[np.ndarray[Any, Any]]) -> Tensor:
    """Stack arrays into a tensor; in a worker straight into shared memory, so that nothing is copied twice."""
    writable = (array if array.flags.writeable else array.copy() for array in arrays)
    stacked: Tensor = default_collate([torch.from_numpy(array) for array in writable])
    return stacked


def apply_tables(batch: Batch) -> Batch:
    """Turn a "uint8+table" batch into the "float" one, on the device that it lies on; other batches pass through.

    The numbers are those of the "float" form, bit for bit.
    """
    if "table" not in batch:
        return batch
    table = batch["table"]
    out: Batch = {"image": _look_up(batch["image_u8"], table)}
    if "right_u8" in batch:
        out["right"] = _look_up(batch["right_u8"], table)
    codes = (batch["codes"].to(torch.int32) & 0xFFFF).to(torch.float32)
    out |= {"gt": (codes / batch["scale"][:, None, None])[:, None], "frames": batch["frames"]}
    return out | ({"focal": batch["focal"]} if "focal" in batch else {})


def _look_up(image: Tensor, table: Tensor) -> Tensor:
    """[B, h, w, 3] uint8 and [B, 3, 256] float32 -> [B, 3, h, w] float32."""
    count, h, w, _ = image.shape
    # One table per sample and channel, end to end: positions are level + 256 * row of the table.
    rows = torch.arange(count * 3, device=image.device, dtype=torch.int32).view(count, 3, 1, 1) * 256
    index = image.permute(0, 3, 1, 2).to(torch.int32) + rows
    return table.reshape(-1).index_select(0, index.reshape(-1)).view(count, 3, h, w)


def to_device(batch: Batch, device: torch.device | str) -> Batch:
    """Move the tensors of a batch and apply its tables there."""
    moved = {k: v.to(device, non_blocking=True) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    return apply_tables(moved)


class TrainingLoader:
    """Batches of an epoch; a sample that cannot be read is one sentence in the main process.

    Iterating goes through the sampler's current epoch; `sampler.set_epoch` chooses the next.
    """

    def __init__(self, loader: DataLoader[Any], sampler: EpochSampler) -> None:
        self.loader, self.sampler = loader, sampler

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches.

        Raises:
            DataError: an image or map is damaged, missing or too small; or a worker process died.
        """
        batches = iter(self.loader)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                raise DataError(
                    "a loader process died (killed, out of memory, or too little shared memory): start again with "
                    "--resume and fewer workers (--set train.workers=N)."
                ) from None
            if isinstance(batch, Unreadable):
                raise DataError(batch.message)
            yield batch


class Samples(Protocol):
    """What a loader reads: samples by (epoch, index), and how they are joined."""

    def __len__(self) -> int:
        """Count the samples."""
        ...

    def __getitem__(self, position: Position) -> Any:
        """Make a sample, or an `Unreadable`."""
        ...

    def collate(self, form: OutputForm) -> Callable[[Sequence[Any]], Any]:
        """Return what joins samples to a batch; an unreadable one takes the place of its batch."""
        ...


def make_loader(
    data: Samples,
    sampler: EpochSampler,
    *,
    workers: int = 0,
    form: OutputForm = "float",
    pin_memory: bool | None = None,
    prefetch: int = 2,
) -> TrainingLoader:
    """Make the loader of a run.

    Args:
        data: the samples; they say how they are joined.
        sampler: their order; it decides batch size, epoch and process.
        workers: loader processes; 0 reads in this one. They live as long as the loader.
        form: see `Collate`.
        pin_memory: page-locked host memory; None is only where CUDA is.
        prefetch: batches that a worker prepares ahead.
    """
    loader: DataLoader[Any] = DataLoader(
        cast("Dataset[Any]", data),
        batch_sampler=cast("Any", sampler),
        num_workers=workers,
        collate_fn=data.collate(form),
        pin_memory=torch.cuda.is_available() if pin_memory is None else pin_memory,
        persistent_workers=workers > 0,
        prefetch_factor=prefetch if workers else None,
        worker_init_fn=_start_worker if workers else None,
    )
    return TrainingLoader(loader, sampler)


def _start_worker(_worker: int) -> None:
    """Keep a worker to one core, as their number says how many are used, and leave Ctrl-C to the main process.

    A terminal sends the interrupt to all of them; workers that die of it would take the last checkpoint's step along.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
