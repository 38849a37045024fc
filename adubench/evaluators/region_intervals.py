"""Intervals of region rows by resampling drives: one set of weights for all regions and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adubench.evaluators import statistics
from adubench.evaluators.metrics import metrics_from_moments

if TYPE_CHECKING:
    from collections.abc import Sequence

FloatArray = NDArray[np.float64]
#: Metrics that tables show; each gets an interval.
SHOWN = ("abs_rel", "rmse", "silog", "log_bias", "d1", "bias")
RESAMPLES = 5_000  # their ends are then good to 0.04 standard errors
_UNDEFINED = 0.05  # a region that is empty in more draws has no interval


def region_intervals(
    values: NDArray[Any],
    names: Sequence[str],
    drives: Sequence[str],
    least_per_image: int,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Percentile intervals (95 %) of the shown metrics of every region, in both aggregations.

    Args:
        values: float64 [N, R, 15].
        names: the R names.
        drives: N names of sampling units.
        least_per_image: pixels an image needs to enter a region's mean over images; one for `all`.
        resamples: of the drives.
        seed: of the resampling.

    Returns:
        region -> `intervals` (pooled) and `image_mean_intervals`, each metric -> [low, high]; NaN with a single drive,
        or where more than one draw in twenty has no pixel of the region.
    """
    labels, clusters = statistics.label_clusters(list(drives))
    out: dict[str, dict[str, dict[str, list[float]]]] = {}
    for k, name in enumerate(names):
        rows = values[:, k]
        pooled = statistics.sum_by_cluster(rows, labels, len(clusters))
        least = 1 if name == "all" else max(1, least_per_image)
        means = statistics.sum_by_cluster(_image_rows(rows, least), labels, len(clusters))
        out[name] = {
            "intervals": _percentiles(pooled, _of_sums, resamples, seed),
            "image_mean_intervals": _percentiles(means, _of_means, resamples, seed),
        }
    return out


def _image_rows(rows: NDArray[Any], least: int) -> FloatArray:
    """[N, 15] -> [N, metrics + 1]: each image's metrics and 1, or zeros for images that do not enter the mean."""
    enough = rows[:, 0] >= least
    found = np.zeros((len(rows), len(SHOWN) + 1))
    metrics = metrics_from_moments(rows[enough], list(SHOWN))
    found[enough, :-1] = np.stack([metrics[key] for key in SHOWN], axis=-1)
    found[enough, -1] = 1.0
    return found


def _of_sums(sums: FloatArray) -> FloatArray:
    with np.errstate(all="ignore"):
        metrics = metrics_from_moments(sums, list(SHOWN))
    return np.stack([metrics[key] for key in SHOWN])


def _of_means(sums: FloatArray) -> FloatArray:
    with np.errstate(all="ignore"):
        return np.ascontiguousarray((sums[:, :-1] / np.where(sums[:, -1:] > 0, sums[:, -1:], np.nan)).T)


def _percentiles(
    sums: FloatArray, statistic: statistics.Statistic, resamples: int, seed: int
) -> dict[str, list[float]]:
    nothing = [float("nan")] * 2
    if len(sums) < 2 or not np.isfinite(sums).all():
        return {key: list(nothing) for key in SHOWN}
    # Each sum's draws as one run of memory: the statistic reads them one by one.
    draws = statistic(np.asfortranarray(statistics.bootstrap_sums(sums, resamples, seed)))
    good = np.isfinite(draws).all(axis=0)
    if not good.any() or 1 - good.mean() > _UNDEFINED:
        return {key: list(nothing) for key in SHOWN}
    ends = np.percentile(draws if good.all() else draws[:, good], [2.5, 97.5], axis=1)
    return {key: [float(ends[0, k]), float(ends[1, k])] for k, key in enumerate(SHOWN)}
