"""Sums over regions: the rows of the moment table, from one weighted histogram per moment."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adubench.evaluators.moments import N_MOMENTS, compiled_in_use, frame_moments

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from adubench.evaluators.region_layout import Layout, RegionCodes

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Words = NDArray[np.uint64]
_LN10 = math.log(10.0)
_BLOCK = 128
# Quotients of float32 values lie on these bounds only when the true quotients do, see `moments`.
_WITHIN = {1: (0.8, 1.25), 2: (0.64, 1.5625), 3: (0.512, 1.953125)}


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
    return moments_by_code(masks.at(index), masks.table, layout, gt, pred, names, total=total)


def moments_by_code(
    codes: NDArray[Any],
    table: Words,
    layout: Layout,
    gt: NDArray[np.float32],
    pred: NDArray[np.float32],
    names: Sequence[str],
    *,
    total: FloatArray | None = None,
) -> FloatArray:
    """Sum the moments over each region, the codes of the evaluated pixels being looked up already.

    Args:
        codes: [n] from `RegionCodes.take` or `RegionCodes.at`.
        table: their words, `RegionCodes.table`.
        layout: of the parameters they were made with.
        gt: float32 [n] metres.
        pred: float32 [n] metres.
        names: regions.
        total: the image's row, when it is known already.

    Returns:
        float64 [len(names), 15].
    """
    cells = coded_moments(codes, table.size, gt, pred)
    rows = _product(layout.membership(names, table), cells)
    if "all" in names:
        rows[list(names).index("all")] = frame_moments(gt, pred) if total is None else total
    return rows


def _product(member: FloatArray, cells: FloatArray) -> FloatArray:
    """Matrix product in blocks too small for a threaded BLAS: the sums depend on no number of threads."""
    rows = np.zeros((member.shape[0], cells.shape[1]))
    if not np.isfinite(cells).all():  # 0 times inf would spoil regions that the value is not in
        for row, inside in zip(rows, member, strict=True):
            row[:] = cells[inside > 0].sum(axis=0)
        return rows
    for start in range(0, cells.shape[0], _BLOCK):
        rows += member[:, start : start + _BLOCK] @ cells[start : start + _BLOCK]
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
    sums = np.zeros((N_MOMENTS, count))
    if gt.size == 0:
        return sums.T
    if compiled_in_use() and pred.min() > 0 and pred.max() < np.inf and gt.max() < np.inf:
        from adubench.evaluators._region_kernels import coded_sums

        compiled: FloatArray = coded_sums(codes, count, gt, pred)
        return compiled
    at = codes.astype(np.intp)
    for column, summand in _summands(gt.astype(np.float64), pred.astype(np.float64)):
        sums[column] = np.bincount(at, summand, count)
    return sums.T


def _summands(g: FloatArray, p: FloatArray) -> Iterator[tuple[int, FloatArray | BoolArray | None]]:
    """Yield (column, values [n]) of every moment; formulas as in `moments.plain_moments`."""
    with np.errstate(all="ignore"):
        yield 0, None
        e = p - g
        yield 14, e
        size = np.abs(e)
        yield 1, size
        relative = size / g
        yield 3, relative
        yield 2, e * e
        yield 4, relative * size
        yield 5, relative * relative
        inverse = np.abs(relative / p)  # |1/p - 1/g| without its cancellation
        yield 9, inverse
        yield 10, inverse * inverse
        quotient = p / g
        for k in (1, 2, 3):
            yield 10 + k, (quotient < _WITHIN[k][1]) & (quotient > _WITHIN[k][0])
        log = np.log(quotient)
        yield 6, log
        yield 7, log * log
        yield 8, np.abs(log) / _LN10


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
