"""Metrics of other benchmarks on the valid vectors of one image, reported only under those benchmarks' names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.evaluators.alignment import lower_median
from adubench.evaluators.crops import KB_WINDOW, fits_window, kb_window
from adubench.evaluators.metrics import metrics_from_moments
from adubench.evaluators.moments import plain_moments

Vector = NDArray[Any]

_TEACHER_TOP_ROWS = 110
_AUC_STEPS = 100
_AUC_END = 5.0


def ratios(gt: Vector, pred: Vector) -> NDArray[np.float64]:
    """max(p / g, g / p) in float64, [n]."""
    g, p = np.asarray(gt, np.float64), np.asarray(pred, np.float64)
    with np.errstate(all="ignore"):
        return np.maximum(p / g, g / p)


def accuracy(gt: Vector, pred: Vector, threshold: float) -> float:
    """Share of pixels with max(p/g, g/p) < threshold, strict; NaN without pixels.

    1.05 and 1.10 are slowtv_monodepth's extra thresholds (there in percent), 1.03 is UniDepth's `tau`.
    """
    return _share(ratios(gt, pred) < threshold)


def delta_auc(gt: Vector, pred: Vector) -> float:
    """UniDepth `d_auc`: trapezoid over 100 exponents x from 0.01 to 5 of share(r < 1.25^x), divided by 5."""
    exponents = np.linspace(0.01, _AUC_END, _AUC_STEPS)
    ordered = np.sort(ratios(gt, pred))
    if ordered.size == 0:
        return float("nan")
    shares = np.searchsorted(ordered, 1.25**exponents, side="left") / ordered.size
    return float(np.sum((shares[1:] + shares[:-1]) / 2 * np.diff(exponents)) / _AUC_END)


def silog_n1(gt: Vector, pred: Vector) -> float:
    """UniDepth's silog: 100 times the standard deviation of ln p - ln g with divisor n - 1."""
    log = log_error(gt, pred)
    return float(100.0 * np.std(log, ddof=1)) if log.size > 1 else float("nan")


def median_log(gt: Vector, pred: Vector) -> float:
    """UniDepth `medianlog`: 100 |lower median of ln p - ln g|."""
    log = log_error(gt, pred)
    return float(100.0 * abs(lower_median(log))) if log.size else float("nan")


def log_error(gt: Vector, pred: Vector) -> NDArray[np.float64]:
    """Difference of the logarithms, ln p - ln g, in float64 [n]."""
    with np.errstate(all="ignore"):
        return np.log(np.asarray(pred, np.float64)) - np.log(np.asarray(gt, np.float64))


def moge_rel(gt: Vector, pred: Vector) -> float:
    """MoGe `rel`: mean(|p - g| / (g + 1e-6))."""
    g, p = np.asarray(gt, np.float64), np.asarray(pred, np.float64)
    return float(np.mean(np.abs(p - g) / (g + 1e-6))) if g.size else float("nan")


def moge_delta1(gt: Vector, pred: Vector) -> float:
    """MoGe `delta1` of depth: share(max(p/g, g/p) < 1.25)."""
    return accuracy(gt, pred, 1.25)


def extended_metrics(gt: Vector, pred: Vector) -> dict[str, float]:
    """Every metric of this module that needs no more than the two vectors.

    Args:
        gt: [n] metres, > 0.
        pred: [n] metres.

    Returns:
        Key of `metrics.METRICS` -> value; shares as fractions.
    """
    return {
        "d_1.05": accuracy(gt, pred, 1.05),
        "d_1.10": accuracy(gt, pred, 1.10),
        "tau": accuracy(gt, pred, 1.03),
        "d_auc": delta_auc(gt, pred),
        "silog_n1": silog_n1(gt, pred),
        "medianlog": median_log(gt, pred),
        "moge_rel": moge_rel(gt, pred),
    }


def ard_curve(
    gt: Vector, pred: Vector, *, centres: Sequence[float] = tuple(range(0, 80, 8)), half_width: float = 4.0
) -> dict[str, float]:
    """Distance-aware relative difference: the mean of |p - g| / g over pixels with |g - k| <= half_width, per centre k.

    DrivingStereo's site shows such a curve without defining its constants. Centres 0, 8, ..., 72 m and 4 m are those of
    a public re-implementation, here on depth; the original cannot be checked, so the columns bear another name.

    Args:
        gt: [n] metres, > 0.
        pred: [n] metres.
        centres: metres.
        half_width: metres.

    Returns:
        `ard_0`, `ard_8`, ... (NaN for bins without pixels), `ard_mean` over the bins with pixels, `ard_bins` their
        number.
    """
    g, p = np.asarray(gt, np.float64), np.asarray(pred, np.float64)
    error = np.abs(p - g) / g
    curve = {}
    for centre in centres:
        inside = np.abs(g - centre) <= half_width
        curve[f"ard_{centre:g}"] = float(error[inside].mean()) if inside.any() else float("nan")
    filled = [value for value in curve.values() if not np.isnan(value)]
    mean = float(np.mean(filled)) if filled else float("nan")
    return curve | {"ard_mean": mean, "ard_bins": float(len(filled))}


def decode_teacher(codes: NDArray[np.uint16], max_depth: float = 80.0) -> NDArray[np.float32]:
    """Teacher depth in TIE-KD's coding: code / 65535 * max_depth, in float32 and in this order."""
    out: NDArray[np.float32] = codes.astype(np.float32) / np.float32(65535) * np.float32(max_depth)
    return out


def teacher_agreement(
    teacher: NDArray[np.float32], student: NDArray[np.float32], *, top_rows: int = _TEACHER_TOP_ROWS
) -> dict[str, float]:
    """Core errors between student and teacher on every pixel below the top rows of the KB window (TIE-KD).

    Args:
        teacher: float32 [H, W] metres, the reference; the full image or the window.
        student: float32 [H, W] metres, likewise.
        top_rows: rows left out; TIE-KD: 110 for KITTI, where no LiDAR point falls, 0 for NYU.

    Returns:
        `abs_rel_T`, `sq_rel_T`, `rmse_T`, `rmse_log_T`, `a1_T`, `a2_T`, `a3_T`. No pixel is masked, so a teacher of 0 m
        makes inf or NaN, as in the reference.
    """
    reference, compared = _window(teacher)[top_rows:], _window(student)[top_rows:]
    row = plain_moments(reference.ravel(), compared.ravel(), signed_ratio=True)
    values = metrics_from_moments(row)
    names = {"abs_rel": "abs_rel", "sq_rel": "sq_rel", "rmse": "rmse", "rmse_log": "rmse_log"}
    names |= {"d1": "a1", "d2": "a2", "d3": "a3"}
    return {f"{shown}_T": float(values[key]) for key, shown in names.items()}


def _window(values: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = values.shape
    if (height, width) == KB_WINDOW or not fits_window((height, width)):
        return values
    top, left = kb_window(height, width)
    return values[top : top + KB_WINDOW[0], left : left + KB_WINDOW[1]]


def _share(flags: NDArray[np.bool_]) -> float:
    return float(np.mean(flags)) if flags.size else float("nan")
