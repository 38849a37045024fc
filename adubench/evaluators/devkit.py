"""KITTI's depth devkit (evaluate_depth.cpp, io_depth.h): filling of missing pixels and float32 running sums.

The devkit adds float32 numbers column by column; its printed digits depend on that order, so it is kept here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.io.maps import DepthMap

FloatArray = NDArray[np.float32]

DEVKIT_METRICS: tuple[str, ...] = (
    "mae",
    "rmse",
    "inverse mae",
    "inverse rmse",
    "log mae",
    "log rmse",
    "scale invariant log",
    "abs relative",
    "squared relative",
)
# devkit name -> (our key, factor to our unit)
OUR_UNITS: dict[str, tuple[str, float]] = {
    "mae": ("mae", 1.0),
    "rmse": ("rmse", 1.0),
    "inverse mae": ("imae", 1000.0),
    "inverse rmse": ("irmse", 1000.0),
    "log mae": ("log_mae", 1.0),
    "log rmse": ("rmse_log", 1.0),
    "scale invariant log": ("silog", 100.0),
    "abs relative": ("abs_rel", 1.0),
    "squared relative": ("sq_rel_gt2", 1.0),
}
# Leaderboard columns: name -> (devkit name, factor). The table is sorted by the first.
LEADERBOARD: dict[str, tuple[str, float]] = {
    "SILog": ("scale invariant log", 100.0),
    "sqErrorRel": ("squared relative", 100.0),
    "absErrorRel": ("abs relative", 100.0),
    "iRMSE": ("inverse rmse", 1000.0),
}
MISSING = np.float32(-1)
_BLOCK = 8192


def given_pixels(depth: DepthMap) -> NDArray[np.bool_]:
    """Pixels with a prediction, bool [H, W]; code 0, NaN, infinity and values <= 0 are missing."""
    values = depth.values
    if values.dtype.kind == "u":
        return np.asarray(values > 0)
    with np.errstate(invalid="ignore"):
        return np.asarray((values > 0) & (values < np.inf))


def count_unwritable(depth: DepthMap) -> int:
    """Number of values that a 16-bit PNG cannot hold: NaN, infinite, negative."""
    values = depth.values
    if values.dtype.kind == "u":
        return 0
    with np.errstate(invalid="ignore"):
        return int(values.size - np.count_nonzero((values >= 0) & (values < np.inf)))


def filled_at(depth: DepthMap, index: NDArray[Any]) -> tuple[FloatArray, int]:
    """Fill the missing pixels of a prediction and gather it.

    Args:
        depth: the prediction.
        index: [n] flat positions.

    Returns:
        float32 [n] in metres, -1 where nothing could be filled; and the number of missing pixels in the whole map.
    """
    given = given_pixels(depth)
    n_missing = int(given.size - np.count_nonzero(given))
    if n_missing == 0:
        return depth.take(index), 0
    return interpolate_background(depth.quantity(), given).reshape(-1).take(index), n_missing


def interpolate_background(depth: FloatArray, given: NDArray[np.bool_]) -> FloatArray:
    """Fill as the devkit's interpolateBackground.

    Per row, a run of missing pixels between two given ones takes the smaller of the two, a run at a border its one
    neighbour. Then the first complete row is copied upward and the last one downward. Empty rows between complete ones
    stay missing.

    Args:
        depth: float32 [H, W] in metres.
        given: bool [H, W].

    Returns:
        float32 [H, W]; -1 where still missing.
    """
    height, width = given.shape
    complete = given.any(axis=1)
    out = np.full((height, width), MISSING, np.float32)
    if not complete.any():
        return out
    rows = np.flatnonzero(complete)
    part = given[rows]
    column = np.arange(width, dtype=np.int32)
    before = np.maximum.accumulate(np.where(part, column, np.int32(-1)), axis=1)
    after = np.minimum.accumulate(np.where(part, column, np.int32(width))[:, ::-1], axis=1)[:, ::-1]
    source = depth[rows]
    left = np.take_along_axis(source, np.maximum(before, 0), axis=1)
    right = np.take_along_axis(source, np.minimum(after, width - 1), axis=1)
    left = np.where(before < 0, np.float32(np.inf), left)
    right = np.where(after >= width, np.float32(np.inf), right)
    out[rows] = np.minimum(left, right)
    out[: rows[0]] = out[rows[0]]
    out[rows[-1] + 1 :] = out[rows[-1]]
    return out


def column_major(index: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.intp]:
    """Order that sorts ascending row-major positions by column, then row."""
    column = (index % index.dtype.type(shape[1])).astype(np.uint16 if shape[1] < 1 << 16 else np.intp)
    return np.argsort(column, kind="stable")


def float32_errors(gt: FloatArray, pred: FloatArray) -> FloatArray:
    """The nine errors of one image, every sum a float32 running sum.

    Args:
        gt: float32 [n] metres, in column-major order, n > 0.
        pred: float32 [n] metres, -1 where missing (the log errors then are NaN).

    Returns:
        float32 [9] in the order of `DEVKIT_METRICS`, in the devkit's raw units.
    """
    g, p = np.asarray(gt, np.float32), np.asarray(pred, np.float32)
    if g.size == 0:
        return np.full(9, np.nan, np.float32)
    with np.errstate(all="ignore"):
        total = np.zeros(9, np.float32)
        for start in range(0, g.size, _BLOCK):
            total = running_sums(_terms(g[start : start + _BLOCK], p[start : start + _BLOCK]), total)
        n = np.float32(g.size)
        mean = [t / n for t in total]
        spread = np.sqrt(total[5] / n - (total[8] * total[8]) / (n * n))
        root = [np.sqrt(m) for m in mean]
    out = [mean[0], root[1], mean[2], root[3], mean[4], root[5], spread, mean[6], mean[7]]
    return np.array(out, np.float32)


def _terms(g: FloatArray, p: FloatArray) -> tuple[FloatArray, ...]:
    """The nine summands of every pixel, each rounded to float32 as the devkit's expressions round it."""
    d = np.abs(g - p)
    square = d * d
    w = np.abs(1.0 / g.astype(np.float64) - 1.0 / p.astype(np.float64)).astype(np.float32)
    log = np.log(g) - np.log(p)
    size = np.abs(log)
    return d, square, w, w * w, size, size * size, d / g, square / (g * g), log


def running_sums(terms: Sequence[FloatArray], total: FloatArray) -> FloatArray:
    """Go on with left-to-right float32 sums, every addition rounded; numpy's own sum adds pairwise.

    Args:
        terms: k vectors [n].
        total: float32 [k], the sums so far.
    """
    # Reducing the outer axis adds row after row in memory order: the running sums of all vectors at once. Blocks keep
    # the rows in the cache.
    rows = np.empty((terms[0].size + 1, len(terms)), np.float32)
    rows[0] = total
    for i, term in enumerate(terms):
        rows[1:, i] = term
    out: FloatArray = np.add.reduce(rows, axis=0)
    return out


def in_our_units(errors: FloatArray) -> dict[str, float]:
    """Turn the nine raw errors into our keys and units (silog x 100, inverse depth in 1/km)."""
    return {key: float(value) * factor for value, (key, factor) in zip(errors, OUR_UNITS.values(), strict=True)}


def mean_over_images(errors: NDArray[np.float32]) -> FloatArray:
    """The devkit's mean: float32 running sum over images in sorted file order, divided by the float32 count.

    Args:
        errors: float32 [images, 9].
    """
    table = np.asarray(errors, np.float32)
    if len(table) == 0:
        return np.full(9, np.nan, np.float32)
    out: FloatArray = np.cumsum(table, axis=0, dtype=np.float32)[-1] / np.float32(len(table))
    return out


def extremes(errors: NDArray[np.float32]) -> tuple[FloatArray, FloatArray]:
    """The devkit's printed minimum (never above 1) and maximum (never below 0); NaN enters neither."""
    table = np.asarray(errors, np.float32)
    low = np.fmin.reduce(table, axis=0, initial=np.float32(1.0))
    high = np.fmax.reduce(table, axis=0, initial=np.float32(0.0))
    return low.astype(np.float32), high.astype(np.float32)


def leaderboard(mean: FloatArray) -> dict[str, float]:
    """The four columns that KITTI's table shows, from the mean of the nine raw errors."""
    place = {name: i for i, name in enumerate(DEVKIT_METRICS)}
    return {column: float(mean[place[name]]) * factor for column, (name, factor) in LEADERBOARD.items()}


def printed(value: float) -> str:
    """A number as the devkit's text files hold it (`%f`)."""
    return "nan" if math.isnan(value) else f"{value:f}"
