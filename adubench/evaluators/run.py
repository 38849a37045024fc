"""The loop over frames: read a prediction once, score it under every protocol, keep one row of sums.

Memory stays flat: a frame's maps are gone before the next is read, and only rows of sums come back from workers. Rows
are merged in frame order, so the result does not depend on the number of workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from adubench.errors import AdubenchError
from adubench.evaluators import moments
from adubench.evaluators.plausibility import NO_SAMPLE, FrameSample, sample_frame
from adubench.evaluators.predicted_values import Prediction
from adubench.evaluators.scoring import FrameScore, score_frame
from adubench.evaluators.valid_pixels import valid_pixels

if TYPE_CHECKING:
    from adubench.evaluators.analysis import FrameAnalysis, FrameDetails
    from adubench.evaluators.protocols import Protocol as ProtocolRecord
    from adubench.io.collection import MapCollection
    from adubench.io.maps import SparseDepth

_CHUNK = 8
_SAMPLED_FRAMES = 32
_RANK_FRAMES = 16  # rank correlations cost sorting; a few images tell depth from disparity


class GroundTruthReader(Protocol):
    """Reads the ground truth of one frame. Picklable, opens its files lazily."""

    def read(self, frame: Any) -> SparseDepth:
        """Return the given pixels of a frame."""
        ...


class PackReader(Protocol):
    """A reader of packs that can read the pixels of one selection alone, and knows signatures without reading."""

    def first(self) -> str:
        """Key of the selection whose pixels are stored first; empty for none."""
        ...

    def read_first(self, frame: Any, *, positions: bool = True) -> SparseDepth:
        """Return the pixels of that selection; without `positions` their values alone."""
        ...

    def signature(self, frame: Any) -> tuple[int, int, int]:
        """Return the signature of the whole map."""
        ...


@runtime_checkable
class LiveSource(Protocol):
    """What makes predictions while they are scored.

    Attributes:
        path: what the user named, for the record.
    """

    path: str | Path

    def open_for(self, split: Any, readers: Sequence[Any], data_root: Path | None, gt: Path | None) -> MapCollection:
        """Get to know the frames, and return a collection that has a map of every one of them."""
        ...

    def facts(self) -> dict[str, Any]:
        """Return what is to be recorded: what predicts, `flip`, `kb_crop`."""
        ...

    def notes(self) -> tuple[str, ...]:
        """Return sentences for the reader of the result, known after `open_for`."""
        ...


@runtime_checkable
class LivePredictions(Protocol):
    """A collection (`io.collection.MapCollection`) whose maps are made when they are read."""

    def uncertainty(self) -> MapCollection:
        """Return the uncertainty maps of the same predictions."""
        ...

    def mirrored(self) -> MapCollection:
        """Return what is predicted for the mirrored images, as it comes: not mirrored back, never flip-averaged."""
        ...

    def share(self, names: Sequence[str]) -> Sequence[int]:
        """Return the positions that this process is to score; all of them where there is one process."""
        ...

    def exchange(self, rows: dict[int, Any], error: AdubenchError | None) -> dict[int, Any]:
        """Give the own rows, get those of all processes; raises what any of them met."""
        ...


@dataclass(frozen=True, slots=True)
class Track:
    """Protocols that share ground truth.

    Attributes:
        reader: where the ground truth comes from.
        protocols: the records to score under.
        analysis: what to measure besides; None for nothing.
    """

    reader: GroundTruthReader
    protocols: tuple[ProtocolRecord, ...]
    analysis: FrameAnalysis | None = None

    def selects_first(self) -> bool:
        """Whether the pixels that a pack stores first are all that the protocols need."""
        first = getattr(self.reader, "first", None)
        key = first() if first is not None else ""
        return bool(key) and all(p.selection == key and p.missing != "fill" for p in self.protocols)

    def read(self, frame: Any, only_first: bool, *, positions: bool = True) -> tuple[SparseDepth, tuple[int, int, int]]:
        """Return the pixels to score and the signature of the whole map."""
        if only_first:
            reader: Any = self.reader
            return reader.read_first(frame, positions=positions), reader.signature(frame)
        gt = self.reader.read(frame)
        return gt, gt.signature()


@dataclass(frozen=True, slots=True)
class Item:
    """One frame to score.

    Attributes:
        name: the `frame` column.
        prediction: the name of its prediction in the collection.
        frames: one entry per track: the key to read its ground truth with, or None when the track leaves it out.
        focal_baseline: focal length in pixels times baseline in metres, for pixel disparity.
    """

    name: str
    prediction: str
    frames: tuple[Any, ...]
    focal_baseline: float | None = None


@dataclass(frozen=True, slots=True)
class TrackScores:
    """Scores of one frame in one track.

    Attributes:
        signature: exact integers that identify the ground truth.
        scores: one per protocol of the track.
        sample: what the frame tells about the prediction's scale.
        details: regions and the like, one per protocol; empty without an analysis.
    """

    signature: tuple[int, int, int]
    scores: tuple[FrameScore, ...]
    sample: FrameSample
    details: tuple[FrameDetails, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """Everything a worker needs to score items."""

    items: tuple[Item, ...]
    tracks: tuple[Track, ...]
    predictions: MapCollection
    kind: str = "depth"
    compat: bool = False
    compiled: bool = False

    def score(self, position: int) -> tuple[TrackScores | None, ...]:
        """Score one item in every track that has it."""
        item = self.items[position]
        only_first = all(track.selects_first() for track in self.tracks if track.protocols)
        analysed = any(track.analysis is not None for track in self.tracks)
        positions = analysed or not getattr(self.predictions, "pixel_values", False)
        depth = self._read_prediction(item.prediction, only_first)
        prediction = Prediction(depth, kind=self.kind, focal_baseline=item.focal_baseline)
        out: list[TrackScores | None] = []
        for track, frame in zip(self.tracks, item.frames, strict=True):
            if frame is None or not track.protocols:
                out.append(None)
                continue
            gt, signature = track.read(frame, only_first, positions=positions)
            pixels = tuple(valid_pixels(p, gt, frame=item.name) for p in track.protocols)
            scores = tuple(
                score_frame(p, gt, prediction, frame=item.name, compat=self.compat, pixels=valid)
                for p, valid in zip(track.protocols, pixels, strict=True)
            )
            sample = NO_SAMPLE
            if position % self._sample_step() == 0:
                sample = sample_frame(*scores[0].sample, ranks=position < _RANK_FRAMES * self._sample_step())
            light = tuple(s.without_sample() for s in scores)
            details: tuple[FrameDetails, ...] = ()
            if track.analysis is not None:
                measure = track.analysis.measure
                details = measure(track.protocols, gt, prediction, light, name=item.name, key=frame, pixels=pixels)
            out.append(TrackScores(signature, light, sample, details))
        return tuple(out)

    def _sample_step(self) -> int:
        """Every how many frames the scale is looked at: the median over some dozens says enough."""
        return -(-len(self.items) // _SAMPLED_FRAMES)

    def _read_prediction(self, name: str, only_first: bool) -> Any:
        """Read a prediction; values at ground-truth pixels come in the same selection as the ground truth."""
        if only_first and getattr(self.predictions, "pixel_values", False):
            predictions: Any = self.predictions
            return predictions.read_first(name)
        return self.predictions.read(name)


def run(
    job: Job, *, workers: int = 1, progress: Callable[[int, int], None] | None = None
) -> list[tuple[TrackScores | None, ...]]:
    """Score all items of a job, in order.

    Args:
        job: items, tracks and predictions.
        workers: processes; 0 takes every core.
        progress: called with (done, total).

    Raises:
        AdubenchError: a file is broken, a prediction does not fit, or a worker process died.
    """
    total = len(job.items)
    if isinstance(job.predictions, LivePredictions):
        moments.use_compiled(job.compiled)
        return _shared(job, job.predictions, progress)
    workers = min(workers or os.cpu_count() or 1, -(-total // _CHUNK))
    moments.use_compiled(job.compiled)
    rows: list[tuple[TrackScores | None, ...]] = []
    for chunk in _serial(job) if workers <= 1 else _parallel(job, workers):
        rows.extend(chunk)
        if progress is not None:
            progress(len(rows), total)
    return rows


def _shared(
    job: Job, live: LivePredictions, progress: Callable[[int, int], None] | None
) -> list[tuple[TrackScores | None, ...]]:
    """Score the own share of the frames and exchange rows with the other processes, if there are any."""
    own = live.share([item.prediction for item in job.items])
    rows: dict[int, tuple[TrackScores | None, ...]] = {}
    met: AdubenchError | None = None
    try:
        for position in own:
            rows[position] = job.score(position)
            if progress is not None:
                progress(len(rows), len(own))
    except AdubenchError as error:  # the others wait for this process: they have to hear of it
        met = error
    found = live.exchange(rows, met)
    return [found[position] for position in range(len(job.items))]


def _serial(job: Job) -> Iterator[list[tuple[TrackScores | None, ...]]]:
    for position in range(len(job.items)):
        yield [job.score(position)]


_worker_job: Job | None = None


def _start_worker(job: Job) -> None:
    global _worker_job
    # Ctrl-C is the parent's to handle; a worker that prints its own traceback helps nobody.
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    np.seterr(all="ignore")
    moments.use_compiled(job.compiled)
    _worker_job = job


def _score_chunk(start: int) -> list[tuple[TrackScores | None, ...]]:
    assert _worker_job is not None
    return [_worker_job.score(i) for i in range(start, min(start + _CHUNK, len(_worker_job.items)))]


def _parallel(job: Job, workers: int) -> Iterator[list[tuple[TrackScores | None, ...]]]:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    method = "fork" if "fork" in multiprocessing.get_all_start_methods() and os.name == "posix" else "spawn"
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context(method), initializer=_start_worker, initargs=(job,)
    )
    try:
        yield from pool.map(_score_chunk, range(0, len(job.items), _CHUNK))
        pool.shutdown()
    except BrokenProcessPool:
        raise AdubenchError(
            "a worker process was killed (out of memory?) and nothing was written. Use fewer --workers."
        ) from None
    finally:
        _stop(pool)


def _stop(pool: Any) -> None:
    """End the workers at once; queued chunks are dropped."""
    processes: Sequence[Any] = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
