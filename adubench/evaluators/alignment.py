"""Alignment of a prediction to the ground truth before scoring. The protocol's name says when it was done.

All functions work on the valid pixels of one image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import UsageError, unknown_name

FloatArray = NDArray[np.float32]
Info = dict[str, float]  # `scale`, `shift`, `ratio`
_MAX_ANCHORS = 4096  # MoGe solves on at most 64 x 64 pixels
_HISTOGRAM_PAYS_FROM = 4096
_INFINITY_BITS = 0x7F800000

# What the command line calls differently.
_SYNONYMS = {"lstsq": "lsqr", "": "none"}


def canonical(name: str) -> str:
    """Normalise the name of an alignment: `lstsq` is `lsqr`, `fixed:5.40` is `fixed:5.4`.

    Raises:
        UsageError: no alignment is called so, or the factor of `fixed:` is not a positive number.
    """
    name = _SYNONYMS.get(name, name)
    if name.startswith("fixed:"):
        try:
            factor = float(name.removeprefix("fixed:"))
        except ValueError:
            factor = float("nan")
        if not 0 < factor < float("inf"):
            raise UsageError(f"alignment '{name}': the factor must be a positive number, e.g. fixed:5.4.")
        return f"fixed:{factor:g}"
    if name != "none" and name not in _SOLVERS:
        raise unknown_name("alignment", name, (*ALIGNMENTS, "lstsq"))
    return name


def align(
    name: str, gt: NDArray[Any], pred: NDArray[Any], *, usable: NDArray[np.bool_] | None = None
) -> tuple[FloatArray, Info]:
    """Align a prediction.

    Args:
        name: one of `ALIGNMENTS`, or `fixed:X`.
        gt: float32 [n] in metres, > 0.
        pred: float32 [n], depth up to what the alignment solves for.
        usable: [n], pixels to solve on; default all. The solution is applied to all.

    Returns:
        float32 [n] aligned depth, and the solution: `scale`, `shift`, and `ratio` where one factor is all there is.
        n = 0 returns NaN for the solution.

    Raises:
        UsageError: unknown alignment.
    """
    name = canonical(name)
    gt, pred = np.asarray(gt, np.float32), np.asarray(pred, np.float32)
    if name == "none":
        return pred, {}
    if name.startswith("fixed:"):
        factor = float(name.removeprefix("fixed:"))
        return _scaled(pred, np.float32(factor)), {"scale": factor}
    solver = _SOLVERS[name]
    if usable is None or usable.all():
        return solver(gt, pred, pred)
    return solver(gt[usable], pred[usable], pred)


def _scaled(pred: FloatArray, factor: np.float32) -> FloatArray:
    with np.errstate(over="ignore", invalid="ignore"):
        out: FloatArray = pred * factor
    return out


def _ratio(ratio: float) -> Info:
    return {"ratio": ratio, "scale": ratio, "shift": 0.0}


def _median(gt: FloatArray, pred: FloatArray, whole: FloatArray) -> tuple[FloatArray, Info]:
    """Ratio of the medians in float32; the mean of the two middle elements where n is even (numpy)."""
    if gt.size == 0:
        return whole, _ratio(float("nan"))
    with np.errstate(all="ignore"):
        factor = np.float32(median(gt) / median(pred))
    return _scaled(whole, factor), _ratio(float(factor))


def median(values: FloatArray) -> np.float32:
    """`np.median` of float32 [n], the same bits, several times faster on an image's worth of positive values.

    Positive floats sort like their bit patterns: the upper 16 bits make a histogram, and only the bin that holds the
    middle is partitioned.
    """
    values = np.ascontiguousarray(values, np.float32)
    bits = values.view(np.int32)
    if values.size < _HISTOGRAM_PAYS_FROM or bits.min() < 0 or bits.max() > _INFINITY_BITS:
        return np.float32(np.median(values))
    upper = bits >> 16
    running = np.cumsum(np.bincount(upper))
    middle = values.size // 2
    chosen = int(np.searchsorted(running, middle, side="right"))
    rank = middle - (int(running[chosen - 1]) if chosen else 0)
    if rank == 0 and values.size % 2 == 0:
        return np.float32(np.median(values))  # the two middle elements lie in different bins
    part = np.partition(values[upper == chosen], rank)
    if values.size % 2:
        return np.float32(part[rank])
    return np.float32(np.mean(np.array([part[:rank].max(), part[rank]], np.float32)))


def _median_low(gt: FloatArray, pred: FloatArray, whole: FloatArray) -> tuple[FloatArray, Info]:
    """As the median with the lower of two middle elements (PyTorch; UniDepth `si`)."""
    if gt.size == 0:
        return whole, _ratio(float("nan"))
    with np.errstate(all="ignore"):
        factor = np.float32(lower_median(gt) / lower_median(pred))
    return _scaled(whole, factor), _ratio(float(factor))


def lower_median(values: NDArray[Any]) -> Any:
    """The middle element, the lower of the two where n is even."""
    middle = (values.size - 1) // 2
    return np.partition(values, middle)[middle]


def _line(x: NDArray[Any], y: NDArray[Any]) -> tuple[float, float]:
    """Least squares a, b of a x + b = y; 0, 0 where the normal matrix is singular.

    Products are formed in the type of x and y, sums in float64.
    """
    sx, sy = float(x.sum(dtype=np.float64)), float(y.sum(dtype=np.float64))
    sxx, sxy = float((x * x).sum(dtype=np.float64)), float((x * y).sum(dtype=np.float64))
    determinant = sxx * x.size - sx * sx
    if not determinant > 0:
        return 0.0, 0.0
    return (x.size * sxy - sx * sy) / determinant, (sxx * sy - sx * sxy) / determinant


def _disparity_line(
    gt: FloatArray, pred: FloatArray, whole: FloatArray, dtype: type[np.floating[Any]]
) -> tuple[NDArray[np.float64], Info]:
    """Fit a / p + b = 1 / g with products in `dtype` and return the aligned disparity of every pixel."""
    good = (pred > 0) & np.isfinite(pred)
    x, y = pred[good].astype(dtype), gt[good].astype(dtype)
    with np.errstate(all="ignore"):
        scale, shift = _line(dtype(1) / x, dtype(1) / y)
        inverse = np.where(whole > 0, 1.0 / whole.astype(np.float64), 0.0)
    return scale * inverse + shift, {"scale": scale, "shift": shift}


def _lsqr(gt: FloatArray, pred: FloatArray, whole: FloatArray) -> tuple[FloatArray, Info]:
    """Scale and shift of disparity (MiDaS style); 0 where the aligned disparity is not positive (slowtv_monodepth).

    The products are float32 as in the reference. That decides what one pixel gives: its determinant is the rounding
    error of x^2 alone, and where it is positive the line passes through the pixel.
    """
    disparity, info = _disparity_line(gt, pred, whole, np.float32)
    with np.errstate(divide="ignore"):
        depth = np.where(disparity > 0, 1.0 / disparity, 0.0)
    return depth.astype(np.float32), info


def _disparity_lsqr(gt: FloatArray, pred: FloatArray, whole: FloatArray) -> tuple[FloatArray, Info]:
    """As `lsqr`, aligned disparity clamped from below at the farthest ground truth (MoGe)."""
    disparity, info = _disparity_line(gt, pred, whole, np.float64)
    if gt.size == 0:
        return whole, info
    depth = 1.0 / np.maximum(disparity, 1.0 / np.float64(gt.max()))
    return depth.astype(np.float32), info


def _affine_lsqr(gt: FloatArray, pred: FloatArray, whole: FloatArray) -> tuple[FloatArray, Info]:
    """Least squares a p + b = g with 1e-9 on the diagonal of the normal matrix (UniDepth `ssi`)."""
    x, y = pred.astype(np.float64), gt.astype(np.float64)
    matrix = np.array([[x @ x, x.sum()], [x.sum(), x.size]]) + 1e-9 * np.eye(2)
    scale, shift = np.linalg.solve(matrix, np.array([x @ y, y.sum()]))
    depth = (scale * whole.astype(np.float64) + shift).astype(np.float32)
    return depth, {"scale": float(scale), "shift": float(shift)}


def weighted_scale(target: NDArray[np.float64], source: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    """The a that minimises sum(weight * |a * source - target|): a weighted median of target / source.

    It is the first sorted ratio at which twice the running weight reaches the total. NaN without any weight.
    """
    mass = weight * np.abs(source)
    good = mass > 0
    if not good.any():
        return float("nan")
    ratio, mass = target[good] / source[good], mass[good]
    order = np.argsort(ratio, kind="stable")
    running = np.cumsum(mass[order])
    place = min(int(np.searchsorted(2.0 * running, running[-1], side="left")), ratio.size - 1)
    return float(ratio[order[place]])


def _scale_l1(gt: FloatArray, pred: FloatArray, whole: FloatArray) -> tuple[FloatArray, Info]:
    """Scale with the least weighted absolute error, weights 1 / g (MoGe)."""
    y, x = gt.astype(np.float64), pred.astype(np.float64)
    scale = weighted_scale(y, x, 1.0 / y)
    return (scale * whole.astype(np.float64)).astype(np.float32), _ratio(scale)


def _affine_l1(gt: FloatArray, pred: FloatArray, whole: FloatArray) -> tuple[FloatArray, Info]:
    """Scale and shift with the least weighted absolute error, weights 1 / g (MoGe).

    The minimum passes through two points, so every pixel is tried as one of them.
    """
    if gt.size > _MAX_ANCHORS:
        chosen = np.linspace(0, gt.size - 1, _MAX_ANCHORS).astype(np.intp)
        gt, pred = gt[chosen], pred[chosen]
    scale, shift = anchored_scale(gt[:, None].astype(np.float64), pred[:, None].astype(np.float64), 1.0 / gt)
    depth = (scale * whole.astype(np.float64) + shift[0]).astype(np.float32)
    return depth, {"scale": scale, "shift": float(shift[0])}


def anchored_scale(
    target: NDArray[np.float64], source: NDArray[np.float64], weight: NDArray[Any]
) -> tuple[float, NDArray[np.float64]]:
    """Scale and shift minimising sum(weight * |a * source + b - target|_1) with the line through one of the points.

    Args:
        target: [n, d].
        source: [n, d].
        weight: [n].

    Returns:
        The scale and the shift [d]; NaN without points.
    """
    best = (np.inf, float("nan"), np.full(target.shape[1], np.nan))
    weights = np.repeat(np.asarray(weight, np.float64), target.shape[1])
    for anchor in range(len(target)):
        y, x = (target - target[anchor]).ravel(), (source - source[anchor]).ravel()
        scale = weighted_scale(y, x, weights)
        loss = float(np.sum(weights * np.abs(scale * x - y)))
        if loss < best[0]:
            best = (loss, scale, target[anchor] - scale * source[anchor])
    return best[1], best[2]


_Solver = Callable[[FloatArray, FloatArray, FloatArray], tuple[FloatArray, Info]]
_SOLVERS: dict[str, _Solver] = {
    "median": _median,
    "median_low": _median_low,
    "lsqr": _lsqr,
    "scale_l1": _scale_l1,
    "affine_l1": _affine_l1,
    "disparity_lsqr": _disparity_lsqr,
    "affine_lsqr": _affine_lsqr,
}
ALIGNMENTS: tuple[str, ...] = ("none", "fixed:X", *_SOLVERS)
# After these the unit of the prediction no longer matters.
SCALE_FREE: frozenset[str] = frozenset(_SOLVERS)
