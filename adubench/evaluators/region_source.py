"""The regions of a data set: computed from each frame's inputs, or read from the cache of an earlier evaluation.

Masks do not depend on the model, so a second model costs sums only. The cache is keyed by every parameter and by what
the masks were computed from.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from adubench.errors import AdubenchError, DataError
from adubench.evaluators import image_regions
from adubench.evaluators.depth_edges import density
from adubench.evaluators.region_layout import Layout, RegionCodes
from adubench.evaluators.region_summary import light_bounds, light_histogram
from adubench.evaluators.regions import RegionMasks, region_masks
from adubench.io.region_cache import RegionCache, open_region_cache, write_region_cache

if TYPE_CHECKING:
    from pathlib import Path

    from adubench.evaluators.region_params import RegionParameters
    from adubench.io.maps import SparseDepth

Progress = Callable[[int, int], None]
_CHUNK = 4


@dataclass(frozen=True, slots=True)
class RegionInputs:
    """What the masks of one image are computed from; all on the ground truth's grid.

    Attributes:
        gt: ground truth of the whole frame.
        image: uint8 [H, W, 3], or None.
        labels: [H, W] Cityscapes train ids, or None.
        K: [3, 3] intrinsics, or None.
        external_edges: bool [H, W], or None.
    """

    gt: SparseDepth
    image: NDArray[np.uint8] | None = None
    labels: NDArray[Any] | None = None
    K: NDArray[np.float64] | None = None
    external_edges: NDArray[np.bool_] | None = None


class InputReader(Protocol):
    """Reads the inputs of a frame. Picklable, opens its files lazily."""

    def truth(self, frame: Any) -> SparseDepth:
        """Return the ground truth of the whole frame."""
        ...

    def inputs(self, frame: Any) -> RegionInputs:
        """Return everything there is."""
        ...


@dataclass(frozen=True, slots=True)
class RegionSource:
    """Gives the regions of every frame; picklable.

    Attributes:
        parameters: resolved parameters.
        reader: where inputs come from.
        cache: the masks of an earlier run, None to compute them.
    """

    parameters: RegionParameters
    reader: InputReader
    cache: RegionCache | None = None

    @property
    def layout(self) -> Layout:
        """Where the regions' bits lie."""
        return Layout.of(self.parameters)

    def masks(self, name: str, frame: Any, *, only_valid: bool = False) -> RegionMasks:
        """Compute the masks of a frame, of all pixels (for overlays) or of those with ground truth."""
        i = self.reader.inputs(frame)
        return region_masks(
            i.gt, i.image, i.labels, i.K, i.external_edges, self.parameters, only_valid=only_valid, name=name
        )

    def codes(self, name: str, frame: Any) -> RegionCodes:
        """Return the regions at the frame's valid pixels, from the cache where there is one."""
        if self.cache is not None:
            return RegionCodes.from_bytes(self.cache.read(name))
        return self.masks(name, frame, only_valid=True).codes()


def open_regions(
    asked: RegionParameters,
    reader: InputReader,
    frames: Sequence[tuple[str, Any]],
    path: str | Path | None = None,
    stamp: str = "",
    *,
    pixels: Callable[[SparseDepth], NDArray[Any]] | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> tuple[RegionSource, dict[str, Any]]:
    """Settle the parameters on a data set and give its regions, from the cache where it fits.

    Args:
        asked: parameters, resolved or not.
        reader: where inputs come from.
        frames: (name, key) of all frames.
        path: the cache file; None to compute masks when they are asked for.
        stamp: identifies ground truth, images, labels and calibration (sizes and times of the files), and the protocol
            where quantiles of lightness depend on it.
        pixels: flat positions of a frame's evaluated pixels, for the quantiles; default all valid ones.
        workers: processes that fill the cache.
        progress: called with (done, total) while masks are computed.

    Returns:
        The source, and facts for the header (`density`, when the preset was to be found).

    Raises:
        AdubenchError: an input is broken, a worker died, or the cache cannot be written.
    """
    names = [name for name, _ in frames]
    key = asked.digest() if asked.resolved else _key_of_set(asked, names)
    cache = open_region_cache(path, key, stamp) if path is not None else None
    if cache is not None and all(name in cache for name in names):
        return RegionSource(_settled(asked, cache.facts), reader, cache), _header(cache.facts)
    facts = settle(asked, reader, [frame for _, frame in frames], pixels)
    source = RegionSource(_settled(asked, facts), reader)
    if path is None:
        return source, _header(facts)
    write_region_cache(path, _entries(source, frames, workers, progress), key, stamp, facts)
    cache = open_region_cache(path, key, stamp)
    if cache is None:
        raise DataError(f"region cache {path} could not be read after writing. Choose another --cache-regions.")
    return RegionSource(source.parameters, reader, cache), _header(facts)


def settle(
    asked: RegionParameters,
    reader: InputReader,
    frames: Sequence[Any],
    pixels: Callable[[SparseDepth], NDArray[Any]] | None = None,
) -> dict[str, Any]:
    """Find what depends on the data set: `density` for the edge preset, `light_bounds` for quantiles of lightness.

    Raises:
        DataError: quantiles without any image.
    """
    facts: dict[str, Any] = {}
    if asked.edge_preset == "auto" and asked.edge_gap is None:
        facts["density"] = float(np.mean([density(reader.truth(frame)) for frame in frames])) if frames else 0.0
    if asked.light_quantiles is not None:
        histogram = light_histogram(np.empty(0))
        for frame in frames:
            i = reader.inputs(frame)
            if i.image is not None:
                index = pixels(i.gt) if pixels is not None else i.gt.index
                histogram += light_histogram(image_regions.lightness(i.image).reshape(-1).take(index))
        facts["light_bounds"] = list(light_bounds(histogram, asked.light_quantiles))
    return facts


def _settled(asked: RegionParameters, facts: dict[str, Any]) -> RegionParameters:
    found = asked.with_density(facts["density"]) if "density" in facts else asked
    return found.with_light_bounds(facts["light_bounds"]) if "light_bounds" in facts else found


def _header(facts: dict[str, Any]) -> dict[str, Any]:
    return {"density": facts["density"]} if "density" in facts else {}


def _key_of_set(asked: RegionParameters, names: Sequence[str]) -> str:
    """Key of parameters that are settled by a set of frames: another set may settle them otherwise."""
    return hashlib.sha256("\n".join([asked.digest(), *names]).encode()).hexdigest()


def count_absent(absent: Sequence[dict[str, str]]) -> list[str]:
    """Say for how many images each family is missing, e.g. "ground: no ground plane found in 3 of 652 images"."""
    counts = Counter((family, reason) for image in absent for family, reason in image.items())
    return [f"{family}: {reason} in {n} of {len(absent)} images" for (family, reason), n in sorted(counts.items())]


def _entries(
    source: RegionSource, frames: Sequence[tuple[str, Any]], workers: int, progress: Progress | None
) -> Iterator[tuple[str, bytes]]:
    """Yield (name, bytes) in the order of the frames."""
    workers = min(workers or os.cpu_count() or 1, -(-len(frames) // _CHUNK))
    stream = _parallel(source, frames, workers) if workers > 1 else (_entry(source, item) for item in frames)
    for done, entry in enumerate(stream, start=1):
        yield entry
        if progress is not None:
            progress(done, len(frames))


def _entry(source: RegionSource, item: tuple[str, Any]) -> tuple[str, bytes]:
    name, frame = item
    return name, source.masks(name, frame, only_valid=True).codes().to_bytes()


_worker_source: RegionSource | None = None


def _start_worker(source: RegionSource) -> None:
    global _worker_source
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _worker_source = source


def _work(item: tuple[str, Any]) -> tuple[str, bytes]:
    assert _worker_source is not None
    return _entry(_worker_source, item)


def _parallel(source: RegionSource, frames: Sequence[tuple[str, Any]], workers: int) -> Iterator[tuple[str, bytes]]:
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() and os.name == "posix" else "spawn"
    context = multiprocessing.get_context(method)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(source,))
    try:
        yield from pool.map(_work, frames, chunksize=_CHUNK)
    except BrokenProcessPool:
        raise AdubenchError(
            "a worker process was killed (out of memory?) and nothing was written. Use fewer --workers."
        ) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
