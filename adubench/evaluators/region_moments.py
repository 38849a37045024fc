"""Sums over regions: the rows of the moment table, from one weighted histogram per moment."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adubench.evaluators.moments import N_MOMENTS, frame_moments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adubench.evaluators.region_layout import Layout, RegionCodes

FloatArray = NDArray[np.float64]
_LN10 = math.log(10.0)


def region_moments(
    masks: RegionCodes,
    layout: Layout,
    index: NDArray[Any],
    gt: NDArray[np.float32],
    pred: NDArray[np.float32],
    names: Sequence[str],
    *,
    total: FloatArray | None = None,
) -> FloatArray:
    """Sum the 15 moments over each region.

    Args:
        masks: the image's regions.
        layout: of the parameters they were made with.
        index: [n] flat positions of the evaluated pixels.
        gt: float32 [n] metres.
        pred: float32 [n] metres, after alignment and clamp.
        names: regions, usually `region_names(parameters)`.
        total: the image's row, when it is known already.

    Returns:
        float64 [len(names), 15]; the row `all` is that of `frame_moments` to the last bit.
    """
    cells = coded_moments(masks.at(index), masks.table.size, gt, pred)
    member = layout.membership(names, masks.table)
    with np.errstate(invalid="ignore"):
        if np.isfinite(cells).all():
            rows = member @ cells
        else:  # 0 times inf would spoil regions that the value is not in
            rows = np.array([cells[inside > 0].sum(axis=0) for inside in member]).reshape(len(names), N_MOMENTS)
    if "all" in names:
        rows[list(names).index("all")] = frame_moments(gt, pred) if total is None else total
    return rows


def coded_moments(codes: NDArray[Any], count: int, gt: NDArray[np.float32], pred: NDArray[np.float32]) -> FloatArray:
    """Sum the 15 moments over the pixels of each code.

    Args:
        codes: whole numbers [n] below `count`.
        count: number of codes.
        gt: float32 [n] metres, > 0.
        pred: float32 [n] metres.

    Returns:
        float64 [count, 15].
    """
    out = np.zeros((count, N_MOMENTS))
    if gt.size == 0:
        return out
    at = codes.astype(np.intp)
    for column, summand in _summands(gt.astype(np.float64), pred.astype(np.float64)):
        out[:, column] = np.bincount(at, summand, count)
    return out


def _summands(g: FloatArray, p: FloatArray) -> Any:
    """Yield (column, values [n]) of every moment; formulas as in `moments.plain_moments`."""
    with np.errstate(all="ignore"):
        e = p - g
        size = np.abs(e)
        relative = size / g
        yield 0, None
        yield 14, e
        yield 1, size
        yield 2, e * e
        yield 3, relative
        yield 4, relative * size
        yield 5, relative * relative
        inverse = relative / p
        yield 9, np.abs(inverse)
        yield 10, inverse * inverse
        quotient = p / g
        positive = p > 0
        for k in (1, 2, 3):
            bound = 1.25**k
            yield 10 + k, (np.maximum(quotient, 1 / quotient) < bound) & positive
        log = np.log(quotient)
        yield 6, log
        yield 7, log * log
        yield 8, np.abs(log) / _LN10
    del e, size


def prediction_bins(pred: NDArray[np.float32], bounds: Sequence[float]) -> NDArray[np.intp]:
    """Number the bin of each predicted depth, intp [n]; `len(bounds) - 1` for pixels in none.

    Bins of predictions select other pixels for every model: two models' numbers must never share a column.
    """
    label = np.searchsorted(np.asarray(bounds, np.float64), pred.astype(np.float64), side="right") - 1
    last = len(bounds) - 1
    out: NDArray[np.intp] = np.where((label < 0) | ~(pred < bounds[-1]), last, label)
    return out


def prediction_bin_names(bounds: Sequence[float]) -> tuple[str, ...]:
    """Names of the rows of `prediction_bin_moments`."""
    return (*(f"pred_depth{k}" for k in range(len(bounds) - 1)), "pred_depth_outside")


def prediction_bin_moments(gt: NDArray[np.float32], pred: NDArray[np.float32], bounds: Sequence[float]) -> FloatArray:
    """Sum the moments over bins of the predicted depth (`--bin-by pred`), float64 [len(bounds), 15]."""
    return coded_moments(prediction_bins(pred, bounds), len(bounds), gt, pred)
