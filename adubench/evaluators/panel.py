"""Line up results: the same images in the same order, as cluster sums of which every metric is a function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from adubench.errors import ResultError, counted, unknown_name
from adubench.evaluators import statistics as stats
from adubench.evaluators.metrics import METRICS, get_metric, metrics_from_moments

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from adubench.evaluators.result import EvaluationResult
    from adubench.evaluators.statistics import FloatArray, IndexArray

    BoolArray = NDArray[np.bool_]

# Metrics that are a mean over pixels: their difference is a sum over clusters divided by the number of pixels.
_PIXEL_MEANS = frozenset(
    {"mae", "abs_rel", "sq_rel", "sq_rel_gt2", "log_bias", "log10", "log_mae", "imae", "d1", "d2", "d3", "bias"}
)


@dataclass(frozen=True, slots=True)
class RegionSums:
    """One region of K models with M metrics over G clusters and N images.

    Attributes:
        region: its name.
        metrics: M metric keys.
        higher_is_better: M directions.
        sums: [G, K, F] cluster sums.
        evaluate: maps sums [..., F] to metrics [..., M].
        values: [K, M] metrics of all images.
        per_image: [K, N, M] metrics of single images, NaN where undefined.
        valid: [N, M] images whose value is defined in every model.
        labels: [N] cluster numbers.
        pooled: metrics are functions of pixel sums (else means over images).
    """

    region: str
    metrics: tuple[str, ...]
    higher_is_better: tuple[bool, ...]
    sums: FloatArray
    evaluate: Callable[[FloatArray], FloatArray]
    values: FloatArray
    per_image: FloatArray
    valid: BoolArray
    labels: IndexArray
    pooled: bool

    @property
    def images(self) -> IndexArray:
        """[M] number of images with a value in every model."""
        counts: IndexArray = self.valid.sum(axis=0)
        return counts

    @property
    def filled(self) -> BoolArray:
        """[G] clusters with at least one image in the region."""
        return np.bincount(self.labels[self.valid.any(axis=1)], minlength=len(self.sums)) > 0

    def mean_type(self, a: int, b: int, m: int) -> tuple[FloatArray, FloatArray] | None:
        """Differences D_c and sizes n_c of metric m if its difference is sum D_c / sum n_c, else None."""
        if self.pooled:
            if self.metrics[m] not in _PIXEL_MEANS:
                return None
            rows = self.sums[self.filled]
            size = rows[:, a, 0]
            values = self.evaluate(rows)
            return (values[:, a, m] - values[:, b, m]) * size, size
        count = len(self.metrics)
        rows = self.sums[self.sums[:, a, count + m] > 0]
        return rows[:, a, m] - rows[:, b, m], rows[:, a, count + m]


@dataclass(frozen=True, slots=True)
class Panel:
    """All regions of a comparison.

    Attributes:
        metrics: metric keys of the region `all`, in table order.
        regions: the regions, `all` first.
        clusters: number of clusters G.
        largest_share: share of the images that the largest cluster holds.
        notes: sentences about images left out.
        pixels: K numbers of valid pixels.
    """

    metrics: tuple[str, ...]
    regions: tuple[RegionSums, ...]
    clusters: int
    largest_share: float
    notes: tuple[str, ...]
    pixels: tuple[int, ...]


def build_panel(
    results: Sequence[EvaluationResult],
    frames: Sequence[str],
    clusters: Sequence[str],
    metrics: Sequence[str] | None,
    regions: Sequence[str] | None,
) -> Panel:
    """Line up K results on N frames.

    Args:
        results: K results that all have the frames.
        frames: N frame names.
        clusters: N cluster names.
        metrics: metric keys, None for those in every summary.
        regions: region names, None for all that are shared.

    Raises:
        UsageError: an unknown metric or region.
        ResultError: a result lacks it.
    """
    labels, names = stats.label_clusters(clusters)
    keys = _metrics(results, metrics)
    wanted = _regions(results, regions)
    rows = [_positions(result, frames) for result in results]
    built, notes = [], []
    for region in wanted:
        pooled = region != "all" or results[0].protocol.get("aggregate", "image-mean") == "pooled"
        if pooled:
            sums = _pooled(results, rows, region, keys, labels, len(names))
        else:
            sums, left_out = _image_mean(results, rows, keys, labels, len(names))
            notes += left_out
        if sums is not None:
            built.append(sums)
    largest = float(np.bincount(labels).max() / len(labels))
    pixels = tuple(_pixels(result, at) for result, at in zip(results, rows, strict=True))
    return Panel(keys, tuple(built), len(names), largest, tuple(notes), pixels)


def _pixels(result: EvaluationResult, at: IndexArray) -> int:
    column = result.per_image.get("n_pixels")
    return int(np.asarray(column)[at].sum()) if column else 0


def _metrics(results: Sequence[EvaluationResult], metrics: Sequence[str] | None) -> tuple[str, ...]:
    shared = [k for k in results[0].per_image if all(k in r.per_image for r in results)]
    known = [k for k in METRICS if k in shared]
    if metrics is None:
        listed = [k for k in known if all(k in r.summary for r in results) and METRICS[k].higher_is_better is not None]
        declared = [k for k in results[0].protocol.get("metrics", ()) if k in listed]
        if not (declared or listed):
            raise ResultError("these results share no metric. Evaluate them under one protocol.")
        return tuple(declared or listed)
    wanted = tuple(dict.fromkeys(get_metric(name).key for name in metrics))
    for key in wanted:
        if key not in known:
            lacking = [r.label for r in results if key not in r.per_image]
            raise ResultError(f"metric '{key}': not in {', '.join(lacking)}. They share {', '.join(known)}.")
    return wanted


def _regions(results: Sequence[EvaluationResult], regions: Sequence[str] | None) -> tuple[str, ...]:
    tables = [r.moments.regions if r.moments is not None else ("all",) for r in results]
    shared = ["all"] + [name for name in tables[0] if name != "all" and all(name in t for t in tables)]
    for name in regions or ():
        if name not in shared:
            if any(r.moments is None for r in results):
                lacking = [r.label for r in results if r.moments is None]
                raise ResultError(f"region '{name}': the moment table of {', '.join(lacking)} is not beside its JSON.")
            raise unknown_name("region", name, shared)
    return tuple(dict.fromkeys(regions)) if regions else tuple(shared)


def _positions(result: EvaluationResult, frames: Sequence[str]) -> IndexArray:
    table = {str(frame): i for i, frame in enumerate(result.per_image["frame"])}
    return np.array([table[frame] for frame in frames], dtype=np.intp)


def _image_mean(
    results: Sequence[EvaluationResult],
    rows: Sequence[IndexArray],
    metrics: tuple[str, ...],
    labels: IndexArray,
    clusters: int,
) -> tuple[RegionSums, list[str]]:
    """Build the sums of means over images from the per-image columns."""
    count = len(metrics)
    values = np.stack(
        [
            np.stack([np.asarray(r.per_image[key], dtype=np.float64)[at] for key in metrics], axis=1)
            for r, at in zip(results, rows, strict=True)
        ]
    )  # [K, N, M]
    valid: BoolArray = np.asarray(np.isfinite(values).all(axis=0))
    notes = []
    for m in np.flatnonzero(~valid.all(axis=0)):
        missing = int((~valid[:, m]).sum())
        notes.append(
            f"{metrics[m]}: {counted(missing, 'image')} without a finite value in some result, left out of all."
        )
    kept = np.where(valid, values, 0.0).transpose(1, 0, 2)  # [N, K, M]
    counts = np.broadcast_to(valid[:, None, :].astype(np.float64), kept.shape)
    sums = stats.sum_by_cluster(np.concatenate([kept, counts], axis=2), labels, clusters)

    def evaluate(total: FloatArray) -> FloatArray:
        with np.errstate(invalid="ignore", divide="ignore"):
            means: FloatArray = total[..., :count] / total[..., count:]
        return means

    region = _region("all", metrics, sums, evaluate, values, valid, labels, pooled=False)
    return region, notes


def _pooled(
    results: Sequence[EvaluationResult],
    rows: Sequence[IndexArray],
    region: str,
    metrics: tuple[str, ...],
    labels: IndexArray,
    clusters: int,
) -> RegionSums | None:
    """Build the sums of a region from the moment tables; None when it is empty."""
    moments = []
    for result, at in zip(results, rows, strict=True):
        if result.moments is None:
            raise ResultError(f"{result.label}: its moment table is not beside its JSON, region '{region}' needs it.")
        table = {frame: i for i, frame in enumerate(result.moments.frames)}
        order = [table[str(result.per_image["frame"][i])] for i in at]
        moments.append(result.moments.region(region)[order])
    values = np.stack(moments)  # [K, N, 15]
    keys = tuple(k for k in metrics if k in metrics_from_moments(values[0, :1]))
    if not values[..., 0].any() or not keys:
        return None

    def evaluate(total: FloatArray) -> FloatArray:
        with np.errstate(invalid="ignore", divide="ignore"):
            found = metrics_from_moments(total, keys)
            # Stacked along the first axis: each metric's values lie together, which everything after reads.
            return np.moveaxis(np.stack([np.asarray(found[key], dtype=np.float64) for key in keys]), 0, -1)

    sums = stats.sum_by_cluster(values.transpose(1, 0, 2), labels, clusters)
    per_image = evaluate(values)
    filled: BoolArray = np.asarray((values[..., 0] > 0).all(axis=0))
    valid = np.broadcast_to(filled[:, None], per_image.shape[1:])
    return _region(region, keys, sums, evaluate, per_image, valid, labels, pooled=True)


def _region(
    name: str,
    metrics: tuple[str, ...],
    sums: FloatArray,
    evaluate: Callable[[FloatArray], FloatArray],
    per_image: FloatArray,
    valid: BoolArray,
    labels: IndexArray,
    *,
    pooled: bool,
) -> RegionSums:
    up = tuple(bool(METRICS[key].higher_is_better) for key in metrics)
    values = evaluate(sums.sum(axis=0))
    return RegionSums(name, metrics, up, sums, evaluate, values, per_image, valid, labels, pooled)
