"""The moment row of an image: 15 float64 sums over its valid pixels. Every core metric is a function of it.

Two forms with the same numbers: numpy (always there) and a compiled kernel (when numba is installed).
"""

from __future__ import annotations

import math
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable

MOMENTS: tuple[str, ...] = (
    "n",
    "abs",
    "sq",
    "absrel",
    "sqrel",
    "sqrel2",
    "logd",
    "logd2",
    "abslog10",
    "absinv",
    "sqinv",
    "d1",
    "d2",
    "d3",
    "signed",
)
N_MOMENTS = len(MOMENTS)
_LN10 = math.log(10.0)
# Six float64 buffers of this length stay in a second-level cache, and few calls are spent per image.
_CHUNK = 8192
# numba's import and the kernel's load cost 0.6 s, the kernel saves 0.4 ms per image.
_COMPILED_PAYS_FROM = 1500

Row = NDArray[np.float64]
FloatArray = NDArray[np.float32]


class _Scratch(threading.local):
    """Work buffers of one thread."""

    def __init__(self) -> None:
        self.rows = np.empty((6, _CHUNK), np.float64)
        self.flags = np.empty((2, _CHUNK), np.bool_)


_scratch = _Scratch()
_ones = np.ones(_CHUNK)
_kernel: Callable[..., Row] | None = None
_METRES = 1.0
_NO_CLAMP = (0.0, math.inf)


def prefer_compiled(n_frames: int) -> bool:
    """Whether a job of `n_frames` images should use the compiled kernel: installed, not forbidden, worth its import.

    `ADUBENCH_FAST=0` forbids it, `ADUBENCH_FAST=1` asks for it whatever the size of the job.
    """
    wish = os.environ.get("ADUBENCH_FAST", "")
    if wish == "0" or not _installed():
        return False
    return wish == "1" or n_frames >= _COMPILED_PAYS_FROM


def _installed() -> bool:
    from importlib.util import find_spec

    return find_spec("numba") is not None


def use_compiled(wanted: bool) -> bool:
    """Switch this process to the compiled kernel or back to numpy; returns which one is in use now."""
    global _kernel
    if not wanted or os.environ.get("ADUBENCH_FAST") == "0":
        _kernel = None
        return False
    if _kernel is None:
        try:
            from adubench.evaluators._kernels import moment_sums
        except ImportError:
            return False
        _kernel = moment_sums
    return True


def compiled_in_use() -> bool:
    """Whether `frame_moments` runs the compiled kernel."""
    return _kernel is not None


def frame_moments(gt: FloatArray, pred: FloatArray) -> Row:
    """Sum the 15 moments of one image.

    Args:
        gt: float32 [n], ground truth in metres, > 0.
        pred: float32 [n], prediction in metres after alignment and clamp. Values that are not finite or not positive
            make the sums inf or NaN as the formulas say; they never count as accurate.

    Returns:
        float64 [15] in the order of `MOMENTS`; zeros for n = 0.
    """
    gt, pred = np.ascontiguousarray(gt, np.float32), np.ascontiguousarray(pred, np.float32)
    if gt.size == 0:
        return np.zeros(N_MOMENTS)
    # NaN makes the comparisons false, so only clean vectors take the paths that share reciprocals.
    if pred.min() > 0 and pred.max() < np.inf and gt.max() < np.inf:
        return _clean_moments(gt, pred, _METRES, _METRES, _NO_CLAMP)
    return plain_moments(gt, pred)


def code_moments(
    gt: NDArray[np.uint16], pred: NDArray[np.uint16], scales: tuple[float, float], clamp: tuple[float, float]
) -> Row:
    """Sum the moments of one image straight from 16-bit codes; the same numbers as through float32 metres.

    Args:
        gt: uint16 [n], > 0.
        pred: uint16 [n].
        scales: metres = code / scale, of both; powers of two, so that every product is exact.
        clamp: least and largest prediction in metres (rounded to float32), the least > 0 unless every code is.

    Returns:
        float64 [15]; zeros for n = 0.
    """
    if gt.size == 0:
        return np.zeros(N_MOMENTS)
    bounds = (float(np.float32(clamp[0])), float(np.float32(clamp[1])))
    gt, pred = np.ascontiguousarray(gt), np.ascontiguousarray(pred)
    return _clean_moments(gt, pred, 1.0 / scales[0], 1.0 / scales[1], bounds)


def _clean_moments(
    gt: NDArray[Any], pred: NDArray[Any], gt_unit: float, pred_unit: float, clamp: tuple[float, float]
) -> Row:
    """Sums in chunks with two divisions and one logarithm per pixel; needs finite positive values."""
    if _kernel is not None:
        return _kernel(gt, pred, gt_unit, pred_unit, *clamp)
    total = np.zeros(N_MOMENTS)
    for start in range(0, gt.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        g, p = _scratch.rows[:2, : gt[part].size]
        np.multiply(gt[part], gt_unit, out=g)
        np.multiply(pred[part], pred_unit, out=p)
        if clamp != _NO_CLAMP:
            np.maximum(p, clamp[0], out=p)
            np.minimum(p, clamp[1], out=p)
        _add_chunk(g.size, total)
    total[8] /= _LN10
    return total


def _add_chunk(n: int, total: Row) -> None:
    """Add the sums of the n pixels whose ground truth and prediction lie in the first two scratch rows."""
    g, p, e, r, q, t = _scratch.rows[:, :n]
    ones = _ones[:n]  # a dot product with ones adds faster than a sum
    np.divide(p, g, out=q)
    np.multiply(g, p, out=r)
    np.reciprocal(r, out=r)
    np.subtract(p, g, out=e)
    total[0] += n
    total[14] += e.dot(ones)
    np.abs(e, out=e)
    total[1] += e.dot(ones)
    total[2] += e.dot(e)
    np.multiply(p, r, out=t)  # 1 / g
    np.multiply(t, e, out=t)
    total[3] += t.dot(ones)
    total[4] += t.dot(e)
    total[5] += t.dot(t)
    np.multiply(e, r, out=t)  # |1/p - 1/g| without its cancellation
    total[9] += t.dot(ones)
    total[10] += t.dot(t)
    _count_accurate(q, total)
    np.log(q, out=q)
    total[6] += q.dot(ones)
    total[7] += q.dot(q)
    np.abs(q, out=q)
    total[8] += q.dot(ones)


def _count_accurate(q: Row, total: Row) -> None:
    """Add the counts of the quotients p / g within each power of 5/4.

    q is the rounded quotient of two float32 values. Unless it is exactly a power of 5/4 (or 4/5) the true quotient
    differs from that power by more than 2^-35 of it, so comparing q with the rounded bounds decides as exact arithmetic
    would.
    """
    above, below = _scratch.flags[:, : q.size]
    for place, (low, high) in enumerate(((0.8, 1.25), (0.64, 1.5625), (0.512, 1.953125)), start=11):
        np.greater(q, low, out=above)
        np.less(q, high, out=below)
        np.logical_and(above, below, out=above)
        total[place] += np.count_nonzero(above)


def plain_moments(gt: NDArray[Any], pred: NDArray[Any], *, signed_ratio: bool = False) -> Row:
    """The definition, one expression per sum; used for vectors with values that are not finite or not positive.

    Args:
        gt: [n] in metres.
        pred: [n] in metres.
        signed_ratio: count accuracies on max(p/g, g/p) even where p is negative, as the reference implementations do.
            Otherwise a prediction that is not positive never counts.
    """
    g, p = np.asarray(gt, np.float64), np.asarray(pred, np.float64)
    with np.errstate(all="ignore"):
        e, v = p - g, 1 / p - 1 / g
        log = np.log(p) - np.log(g)
        ratio = np.maximum(p / g, g / p)
        close = [ratio < 1.25**k for k in (1, 2, 3)]
        if not signed_ratio:
            close = [c & (p > 0) for c in close]
        sums = [np.abs(e), e * e, np.abs(e) / g, e * e / g, (e / g) ** 2, log, log * log, np.abs(log) / _LN10]
        sums += [np.abs(v), v * v, *close, e]
        return np.array([g.size, *(np.sum(s, dtype=np.float64) for s in sums)])
