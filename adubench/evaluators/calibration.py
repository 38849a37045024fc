"""Are the values of a predicted sigma right? Likelihoods, coverage curves, calibration errors.

Residuals are prediction minus truth, sigma is a standard deviation in the same space, z = residual / sigma. Counts per
level and sums per image are additive, so pooled values and their intervals over drives need no pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import ProtocolError

FloatArray = NDArray[np.float64]
CountArray = NDArray[np.int64]

N_LEVELS = 100
LEVELS: FloatArray = np.linspace(0.0, 1.0, N_LEVELS)
"""Levels of the coverage curve, both ends included (uncertainty-toolbox, num_bins = 100)."""
LEVELS_19: FloatArray = np.arange(1, 20) / 20
"""0.05, 0.10, ..., 0.95: the levels of `ece19`."""
NAMED_LEVELS: tuple[float, ...] = (0.5, 0.683, 0.9, 0.95)
"""Levels whose coverage is reported as a number of its own."""
ALL_LEVELS: FloatArray = np.concatenate([LEVELS, LEVELS_19, NAMED_LEVELS])
FORMS: tuple[str, ...] = ("gaussian", "laplace", "quantile")
"""Curves: central intervals of either density, and Gaussian quantiles of (p - g) / sigma."""
ENCE_BINS = 10
_ENCE_PER_BIN = 50
_SQRT2 = math.sqrt(2)


@dataclass(frozen=True, slots=True)
class Ence:
    """Expected normalised calibration error with its reliability diagram.

    Attributes:
        value: mean over bins of |RMV - RMSE| / RMV.
        rmv: [B] root mean variance of each bin.
        rmse: [B] root mean squared residual of each bin.
        counts: [B] pixels of each bin.
    """

    value: float
    rmv: FloatArray
    rmse: FloatArray
    counts: CountArray


def nll_gaussian(residual: FloatArray, log_sigma: FloatArray) -> FloatArray:
    """Negative log-likelihood [n] of a normal density, from ln sigma."""
    z = residual * np.exp(-log_sigma)
    return 0.5 * z * z + log_sigma + 0.5 * math.log(2 * math.pi)


def nll_laplace(residual: FloatArray, log_sigma: FloatArray) -> FloatArray:
    """Negative log-likelihood [n] of a Laplace density with standard deviation sigma, from ln sigma."""
    return _SQRT2 * np.abs(residual) * np.exp(-log_sigma) + log_sigma + 0.5 * math.log(2)


def crps_gaussian(residual: FloatArray, sigma: FloatArray) -> FloatArray:
    """Continuous ranked probability score [n] of a normal density, in the unit of the residual."""
    from scipy.special import ndtr

    z = residual / sigma
    density = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    score: FloatArray = sigma * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / math.sqrt(math.pi))
    return score


def crps_laplace(residual: FloatArray, sigma: FloatArray) -> FloatArray:
    """Continuous ranked probability score [n] of a Laplace density with standard deviation sigma."""
    b, r = sigma / _SQRT2, np.abs(residual)
    return r + b * np.exp(-r / b) - 0.75 * b


def critical_values(levels: FloatArray, form: str) -> FloatArray:
    """Bounds c(a): a level counts the pixels with |z| <= c, or z <= c for `quantile`. Infinite at a = 1."""
    from scipy.special import ndtri

    a = np.asarray(levels, np.float64)
    if form == "laplace":
        with np.errstate(divide="ignore"):
            return -np.log1p(-a) / _SQRT2
    bounds: FloatArray = ndtri(a if form == "quantile" else 0.5 + 0.5 * a)
    return bounds


@lru_cache(maxsize=1)
def _all_bounds() -> dict[str, FloatArray]:
    return {form: critical_values(ALL_LEVELS, form) for form in FORMS}


def coverage_counts(residual: FloatArray, sigma: FloatArray) -> CountArray:
    """Count the pixels inside every level of `ALL_LEVELS` for the three `FORMS`: [3, 123]."""
    z = residual / sigma
    z.sort()
    size = np.abs(z)
    size.sort()
    bounds = _all_bounds()
    return np.stack([np.searchsorted(z if form == "quantile" else size, bounds[form], "right") for form in FORMS])


def coverage(residual: FloatArray, sigma: FloatArray, levels: FloatArray, form: str) -> FloatArray:
    """Observed shares [L] of n pixels at any levels [L]."""
    z = residual / sigma
    z = np.sort(z if form == "quantile" else np.abs(z))
    observed: FloatArray = np.searchsorted(z, critical_values(levels, form), "right") / z.size
    return observed


def level_index(residual: FloatArray, sigma: FloatArray, form: str) -> NDArray[np.intp]:
    """For each pixel the first of the `LEVELS` whose interval holds it; 0..99, so bincounts add up to coverage."""
    z = residual / sigma
    return np.searchsorted(_all_bounds()[form][:N_LEVELS], z if form == "quantile" else np.abs(z), "left")


def calibration_errors(observed: FloatArray, expected: FloatArray = LEVELS) -> dict[str, FloatArray]:
    """Distances of coverage curves [..., L] from the diagonal.

    Returns:
        `ece` mean |d|; `rmsce` root of the mean square; `miscalibration_area`, exact where a segment crosses the
        diagonal; `kuleshov` sum of squares with weights 1 (it grows with the number of levels). Each [...].
    """
    d = observed - expected
    size = np.abs(d)
    return {
        "ece": size.mean(axis=-1),
        "rmsce": np.sqrt((d * d).mean(axis=-1)),
        "miscalibration_area": miscalibration_area(observed, expected),
        "kuleshov": (d * d).sum(axis=-1),
    }


def miscalibration_area(observed: FloatArray, expected: FloatArray = LEVELS) -> FloatArray:
    """Area between curves [..., L] and the diagonal, both taken as straight between levels."""
    d = observed - expected
    left, right, width = d[..., :-1], d[..., 1:], np.diff(expected)
    total = np.abs(left) + np.abs(right)
    crossing = left * right < 0
    squares = np.divide(left * left + right * right, total, out=np.zeros_like(total), where=total > 0)
    area: FloatArray = (0.5 * width * np.where(crossing, squares, total)).sum(axis=-1)
    return area


def ence(sigma: FloatArray, residual: FloatArray, bins: int = ENCE_BINS) -> Ence:
    """ENCE with bins of equal count (Levi et al. 2022): stable sort by sigma, the first bins one pixel larger.

    Raises:
        ProtocolError: fewer than 50 pixels per bin.
    """
    n = sigma.size
    if bins < 1 or n < _ENCE_PER_BIN * bins:
        raise ProtocolError(f"ENCE with {bins} bins needs at least {_ENCE_PER_BIN * max(bins, 1)} pixels, got {n}.")
    order = np.argsort(sigma, kind="stable")
    counts = np.full(bins, n // bins, np.int64)
    counts[: n % bins] += 1
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    variance = np.add.reduceat(np.square(sigma[order]), starts)
    squares = np.add.reduceat(np.square(residual[order]), starts)
    return _finish_ence(variance, squares, counts)


def ence_equal_width(sigma: FloatArray, residual: FloatArray, bins: int = ENCE_BINS) -> Ence:
    """ENCE with bins of equal width between the extreme sigmas, empty ones left out (netcal's form).

    A handful of pixels in the last bins decides it; `ence` is the robust form.
    """
    low, high = float(sigma.min()), float(sigma.max())
    inner = np.linspace(low, high, bins + 1)[1:-1]
    which = np.searchsorted(inner, sigma, side="right")
    counts = np.bincount(which, minlength=bins)
    filled = counts > 0
    variance = np.bincount(which, weights=np.square(sigma), minlength=bins)[filled]
    squares = np.bincount(which, weights=np.square(residual), minlength=bins)[filled]
    return _finish_ence(variance, squares, counts[filled])


def _finish_ence(variance: NDArray[Any], squares: NDArray[Any], counts: NDArray[Any]) -> Ence:
    rmv, rmse = np.sqrt(variance / counts), np.sqrt(squares / counts)
    return Ence(float(np.mean(np.abs(rmv - rmse) / rmv)), rmv, rmse, counts.astype(np.int64))


def variation(sigma: FloatArray) -> float:
    """Cv = standard deviation (divisor n) over mean of sigma. Near 0 the head predicts a constant."""
    top = float(sigma.max())
    scaled = sigma / top
    return float(scaled.std() / scaled.mean())
