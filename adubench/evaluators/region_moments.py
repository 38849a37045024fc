"""Sums over regions: the rows of the moment table, from the sums over pixels that share all their regions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adubench.evaluators.moments import N_MOMENTS, compiled_in_use, frame_moments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adubench.evaluators.region_layout import Layout, RegionCodes

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Words = NDArray[np.uint64]
_LN10 = math.log(10.0)
_BLOCK = 128
_CHUNK = 1 << 12  # pixels whose summands stay in the second-level cache
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
    if gt.size == 0:
        return np.zeros((count, N_MOMENTS))
    if compiled_in_use() and pred.min() > 0 and pred.max() < np.inf and gt.max() < np.inf:
        from adubench.evaluators._region_kernels import coded_sums

        compiled: FloatArray = coded_sums(codes, count, gt, pred)
        return compiled
    return _sorted_moments(codes if count > 1 << 16 else codes.astype(np.uint16, copy=False), count, gt, pred)


def _sorted_moments(codes: NDArray[Any], count: int, gt: NDArray[np.float32], pred: NDArray[np.float32]) -> FloatArray:
    """Bring the pixels into the order of their codes, so that each code's summands are one run of memory."""
    order = np.argsort(codes, kind="stable")  # 16-bit numbers are sorted digit by digit
    codes, gt, pred = codes.take(order), gt.take(order), pred.take(order)
    starts = np.concatenate([[0], np.flatnonzero(codes[1:] != codes[:-1]) + 1])
    sums, numbers = np.zeros((count, N_MOMENTS)), codes.take(starts)
    scratch = np.empty((N_MOMENTS + 2, min(codes.size, _CHUNK)))
    for start in range(0, codes.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        first, last = np.searchsorted(starts, [start, start + _CHUNK])
        if first == starts.size or starts[first] > start:
            first -= 1  # a run that began in the chunk before
        g, p, *rows = scratch[:, : gt[part].size]
        g[:], p[:] = gt[part], pred[part]
        _summands(g, p, rows)
        runs = np.maximum(starts[first:last] - start, 0)
        sums[numbers[first:last]] += np.add.reduceat(scratch[2:, : g.size], runs, axis=1).T
    return sums


def _summands(g: FloatArray, p: FloatArray, rows: Sequence[FloatArray]) -> None:
    """Write the summands of every moment into its row [n]; formulas as in `moments.plain_moments`."""
    rows[0][:] = 1.0
    with np.errstate(all="ignore"):
        e, size, relative, inverse, log = rows[14], rows[1], rows[3], rows[9], rows[6]
        np.subtract(p, g, out=e)
        np.abs(e, out=size)
        np.divide(size, g, out=relative)
        np.multiply(e, e, out=rows[2])
        np.multiply(relative, size, out=rows[4])
        np.multiply(relative, relative, out=rows[5])
        np.divide(relative, p, out=inverse)
        np.abs(inverse, out=inverse)  # |1/p - 1/g| without its cancellation
        np.multiply(inverse, inverse, out=rows[10])
        np.divide(p, g, out=log)
        for k in (1, 2, 3):
            rows[10 + k][:] = (log < _WITHIN[k][1]) & (log > _WITHIN[k][0])
        np.log(log, out=log)
        np.multiply(log, log, out=rows[7])
        np.abs(log, out=rows[8])
        np.divide(rows[8], _LN10, out=rows[8])


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
