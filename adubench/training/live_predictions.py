"""Predictions made while they are scored: no file in between, one process or many.

Under `accelerate launch` or `torchrun` every process takes whole batches of the one global order of frames, so that a
frame is always predicted in the same company. On the CPU the last bits of a convolution depend on the number of threads
that share it, and launchers change that number; here a batch is computed by one thread, several batches at a time. So
the result is that of a single process, bit for bit.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adubench.errors import AdubenchError, DataError, UsageError
from adubench.training.prediction_inputs import ImageJob, frame_jobs, image_places, load, with_neighbours
from adubench.training.prediction_run import predict_loaded

if TYPE_CHECKING:
    from adubench.io.maps import DepthMap
    from adubench.training.predictor import Prediction, Predictor

Save = Callable[[str, "Prediction"], None]
_MOST_WORKERS = 4  # every worker holds a batch in memory


def process_count() -> tuple[int, int]:
    """Return rank and number of the processes of this launch, as `torchrun` and `accelerate launch` announce them."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


class LivePredictor:
    """A predictor as the source of an evaluation (`evaluators.run.LiveSource`)."""

    def __init__(
        self,
        predictor: Predictor,
        path: str | Path,
        *,
        images: Path | None = None,
        right: Path | None = None,
        save: Save | None = None,
        record: dict[str, Any] | None = None,
        distributed: bool = True,
    ) -> None:
        """Take a predictor.

        Args:
            predictor: what predicts.
            path: what the user named.
            images: folder of the images by frame name; None for the data set's own.
            right: likewise of the right images, for stereo predictors.
            save: called with the name and prediction of every frame.
            record: further provenance.
            distributed: the processes of this launch share the work, and all of them evaluate; False where one alone
                evaluates.
        """
        self.predictor, self.path = predictor, path
        self._images, self._right, self._save, self._record = images, right, save, record or {}
        self._processes = process_count() if distributed else (0, 1)
        self._notes: tuple[str, ...] = ()

    def open_for(self, split: Any, readers: Sequence[Any], data_root: Path | None, gt: Path | None) -> LiveMaps:
        """Find the image of every frame that has ground truth.

        Raises:
            DataError: images are missing.
            UsageError: nobody says where the images are.
        """
        frames = list(dict.fromkeys(frame for reader in readers for frame in reader.frames))
        places = self._places(split, tuple(frames), data_root or gt)
        jobs = with_neighbours(frame_jobs(frames, places, stereo=self.predictor.stereo), self.predictor)
        self._notes = leakage_notes(self.predictor, split, data_root)
        return LiveMaps(self.predictor, jobs, Path(self.path), save=self._save, processes=self._processes)

    def facts(self) -> dict[str, Any]:
        """Say what predicts and how."""
        return {**self.predictor.describe(), **self._record}

    def notes(self) -> tuple[str, ...]:
        """Say whether the predictor was trained on what it is scored on."""
        return self._notes

    def _places(self, split: Any, frames: tuple[Any, ...], root: Path | None) -> Any:
        if self._images is not None:
            return _Named(self._images, self._right, frames, self.predictor.stereo)
        if split is None or split.dataset == "folder":
            raise UsageError("a network needs images: give their folder with --images, named like the ground truth.")
        if root is None:
            raise UsageError(
                f"split {split.name}: give --data-root DIR, where its images lie, or their folder with --images."
            )
        return image_places(split, root)


class LiveMaps:
    """A collection of maps that are predicted when they are read (`evaluators.run.LivePredictions`)."""

    stacked = False
    single = False

    def __init__(
        self,
        predictor: Predictor,
        jobs: Sequence[ImageJob],
        root: Path,
        *,
        save: Save | None = None,
        processes: tuple[int, int] = (0, 1),
    ) -> None:
        self.root = root
        self.names = tuple(sorted(job.name for job in jobs))
        self._predictor, self._save = predictor, save
        size = predictor.batch_size
        self._batches = [tuple(jobs[i : i + size]) for i in range(0, len(jobs), size)]
        self._batch_of = {job.name: i for i, batch in enumerate(self._batches) for job in batch}
        self._images = {job.name: job.image for job in jobs}
        self._rank, self._world = processes
        self._workers = _Workers(predictor)
        self._held: dict[int, Future[dict[str, Prediction]]] = {}

    def read(self, name: str) -> DepthMap:
        """Return the map of a frame in the predictor's kind; its whole batch is predicted at once."""
        from adubench.io.maps import DepthMap

        return DepthMap(self.prediction(name).values)

    def prediction(self, name: str) -> Prediction:
        """Return everything that was predicted for a frame; the next batches are worked on meanwhile."""
        batch = self._batch_of[name]
        ahead = [batch + n * self._world for n in range(self._workers.count + 1)]
        self._held = {
            b: self._held.get(b) or self._workers.submit(self._predict, self._batches[b])
            for b in ahead
            if b < len(self._batches)
        }
        return self._held[batch].result()[name]

    def where(self, name: str) -> str:
        """Return the image."""
        return str(self._images[name])

    def uncertainty(self) -> _UncertaintyMaps:
        """Return the uncertainty maps of the same predictions."""
        return _UncertaintyMaps(self)

    def mirrored(self) -> _MirroredMaps:
        """Return the predictions for the mirrored images.

        Raises:
            UsageError: a stereo network, whose views would change places.
        """
        if self._predictor.stereo:
            raise UsageError("--flip-disagreement: a stereo network's views change places in a mirrored pair.")
        return _MirroredMaps(self, self._predictor)

    def job(self, name: str) -> ImageJob:
        """Return the image of a frame."""
        return next(job for job in self._batches[self._batch_of[name]] if job.name == name)

    def share(self, names: Sequence[str]) -> Sequence[int]:
        """Return the positions of this process's batches."""
        return [i for i, name in enumerate(names) if self._batch_of[name] % self._world == self._rank]

    def exchange(self, rows: dict[int, Any], error: AdubenchError | None) -> dict[int, Any]:
        """Bring the rows of all processes together; nothing is predicted after that.

        Raises:
            AdubenchError: what a process met, the first by rank.
        """
        self._workers.close()
        parts: list[Any] = [(rows, error)] if self._world == 1 else gather((rows, error))
        for _, met in parts:
            if met is not None:
                raise met
        return {position: row for part, _ in parts for position, row in part.items()}

    def _predict(self, jobs: Sequence[ImageJob]) -> dict[str, Prediction]:
        """Read and predict one batch; runs in a worker."""
        loaded = [load(job) for job in jobs]
        for image in loaded:
            if image.error:
                raise DataError(image.error)
        try:
            predictions = predict_loaded(self._predictor, loaded)
        except UsageError:
            raise
        except AdubenchError as error:
            raise type(error)(f"frame {jobs[0].name}: {error}") from None
        found = {job.name: prediction for job, prediction in zip(jobs, predictions, strict=True)}
        if self._save is not None:
            for name, prediction in found.items():
                self._save(name, prediction)
        return found


class _Workers:
    """Threads that predict: one on a GPU and for programs of others, several with one core each on the CPU."""

    def __init__(self, predictor: Predictor) -> None:
        device = getattr(predictor, "device", None)
        self._one_core_each = _is_network(predictor) and getattr(device, "type", "") == "cpu"
        share = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self.count = max(1, min(_MOST_WORKERS, _cores() // share)) if self._one_core_each else 1
        self._pool: ThreadPoolExecutor | None = None
        self._threads = 0

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Start a call in a worker."""
        if self._pool is None:
            if self._one_core_each:
                import torch

                self._threads = torch.get_num_threads()
            self._pool = ThreadPoolExecutor(self.count, initializer=_use_one_core if self._one_core_each else None)
        return self._pool.submit(call, *arguments)

    def close(self) -> None:
        """Stop the workers and give torch its threads back."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
        if self._threads:
            import torch

            torch.set_num_threads(self._threads)


class _UncertaintyMaps:
    """The uncertainty maps of live predictions as a collection."""

    stacked = False
    single = False

    def __init__(self, maps: LiveMaps) -> None:
        self.root, self.names, self._maps = maps.root, maps.names, maps

    def read(self, name: str) -> DepthMap:
        """Return the map that was predicted with the depth of a frame."""
        from adubench.io.maps import DepthMap

        values = self._maps.prediction(name).uncertainty
        if values is None:
            raise DataError(f"frame {name}: the network returned no uncertainty.")
        return DepthMap(values)

    def where(self, name: str) -> str:
        """Return the image."""
        return self._maps.where(name)


class _MirroredMaps:
    """What is predicted for mirrored images, one at a time, without flip averaging."""

    stacked = False
    single = False

    def __init__(self, maps: LiveMaps, predictor: Predictor) -> None:
        self.root, self.names, self._maps = maps.root, maps.names, maps
        self._predictor = copy.copy(predictor)
        if getattr(self._predictor, "flip", None) is not None:
            self._predictor.flip = None  # type: ignore[attr-defined]

    def read(self, name: str) -> DepthMap:
        """Predict the mirrored image of a frame."""
        from adubench.io.maps import DepthMap

        loaded = load(self._maps.job(name))
        if loaded.error or loaded.image is None:
            raise DataError(loaded.error or f"frame {name}: no image.")
        turned = replace(loaded, image=np.ascontiguousarray(loaded.image[:, ::-1]))
        (found,) = predict_loaded(self._predictor, [turned])
        return DepthMap(found.values)

    def where(self, name: str) -> str:
        """Return the image."""
        return self._maps.where(name)


class _Named:
    """Images in folders that the user named, by frame name."""

    def __init__(self, images: Path, right: Path | None, frames: tuple[Any, ...], stereo: bool) -> None:
        from adubench.datasets.frame_inputs import FileTable

        if stereo and right is None:
            raise UsageError("a stereo network needs right images too: give their folder with --right.")
        self._left = FileTable.open(images, "image")
        self._left.check(frames)
        self._right = FileTable.open(right, "right image") if right is not None else None
        if self._right is not None:
            # By names alone: a right folder repeats the left one's names, whatever camera they mention.
            self._right.check(tuple(frames))

    def image(self, frame: Any) -> Path | None:
        """Find the image of a frame."""
        return self._left.find(frame)

    def right(self, frame: Any) -> Path | None:
        """Find the right image of a frame: named like the left one, or as the other camera's."""
        if self._right is None:
            return None
        found = self._right.find(frame)
        return found or (self._right.find(replace(frame, camera=5 - frame.camera)) if frame.camera else None)


def _is_network(predictor: Predictor) -> bool:
    """Whether a predictor is a network of ours, whose batches may be predicted side by side."""
    return hasattr(predictor, "network")


def _use_one_core() -> None:
    import torch

    torch.set_num_threads(1)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def leakage_notes(predictor: Predictor, split: Any, root: Path | None) -> tuple[str, ...]:
    """Say what the training split of a predictor shares with the split it is scored on."""
    if split is None or predictor.trained_on is None:
        return ()
    from adubench.datasets.leakage import overlap, training_set

    try:
        found = overlap(training_set(predictor.trained_on, root), split)
    except AdubenchError as error:
        return (f"trained on '{predictor.trained_on}'; whether that holds test images is unknown: {error}",)
    return tuple(f"not a test of generalisation: {message}." for message in found.messages())


def gather(value: Any) -> list[Any]:
    """Exchange picklable values between the processes of this launch, in the order of their ranks.

    The default process group is used where there is one; else one is opened over gloo and closed again.
    """
    import torch.distributed as dist

    own = not dist.is_initialized()
    if own:
        dist.init_process_group("gloo")
    group: Any = None if own or dist.get_backend() == "gloo" else dist.new_group(backend="gloo")
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, value, group=group)
    if own:
        dist.destroy_process_group()
    return parts
