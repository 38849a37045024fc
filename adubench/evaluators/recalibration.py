"""Recalibrate a predicted sigma on a validation split and apply it to another one.

Closed forms, each the minimum of its negative log-likelihood. Images weigh equally (mean over images of the per-image
mean), so that a dense image does not decide. A temperature T is a result: T = 3 says that the predicted sigma is three
times too small. Rankings do not change under a common T.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import ProtocolError, UsageError
from adubench.evaluators import calibration

FloatArray = NDArray[np.float64]

DISTANCE_EDGES: tuple[float, ...] = (0.0, 20.0, 40.0, 60.0, math.inf)
"""Predicted distance in metres of the bins with a temperature of their own, half open [low, high)."""
N_BINS = len(DISTANCE_EDGES) - 1
BIN_PIXELS = 5000
"""A bin with fewer pixels takes the global temperature."""


@dataclass(frozen=True, slots=True)
class Temperature:
    """Factors for sigma.

    Attributes:
        family: density whose likelihood they maximise.
        value: the global factor T.
        by_distance: [4] factors by predicted distance, or None for the global one alone.
        pixels: [4] pixels that each bin was fitted on.
    """

    family: str
    value: float
    by_distance: FloatArray | None = None
    pixels: NDArray[np.int64] | None = None

    def factor(self, pred: NDArray[Any]) -> FloatArray | float:
        """The factor for pixels [n] with these predicted distances."""
        return self.value if self.by_distance is None else self.by_distance[distance_bin(pred)]


@dataclass(frozen=True, slots=True)
class Isotonic:
    """A monotone map from observed shares to the levels that produced them (Kuleshov et al. 2018).

    Attributes:
        observed: knots, ascending.
        expected: level at each knot, not descending.
    """

    observed: FloatArray
    expected: FloatArray

    def levels(self, wanted: NDArray[Any]) -> FloatArray:
        """Which levels to ask the model for so that the wanted shares are observed; piecewise linear."""
        out: FloatArray = np.interp(wanted, self.observed, self.expected)
        return out


def distance_bin(pred: NDArray[Any]) -> NDArray[np.intp]:
    """Bin 0..3 of predicted distances [n]; a pixel at 20 m belongs to the second bin."""
    return np.searchsorted(np.asarray(DISTANCE_EDGES[1:-1]), pred, side="right")


def temperature_sums(residual: FloatArray, sigma: FloatArray, pred: NDArray[Any]) -> FloatArray:
    """What one image contributes to the fits: [5, 3] pixels, sum z^2, sum |z|, over all pixels and in each bin."""
    z = np.abs(residual / sigma)
    where = distance_bin(pred)
    columns = [np.bincount(where, weights=w, minlength=N_BINS) for w in (np.ones(z.size), z * z, z)]
    bins = np.stack(columns, axis=1)
    return np.concatenate([bins.sum(axis=0, keepdims=True), bins])


def fit_temperature(sums: NDArray[Any], family: str, *, by_distance: bool = False) -> Temperature:
    """Fit T from the sums of N images.

    Args:
        sums: [N, 5, 3] of `temperature_sums`.
        family: "gaussian": T = sqrt(mean z^2); "laplace": T = sqrt(2) mean |z|.
        by_distance: one factor per bin of predicted distance with at least 5000 pixels.

    Raises:
        ProtocolError: no pixels, or no error at all (T = 0).
    """
    values = np.asarray(sums, np.float64).reshape(-1, N_BINS + 1, 3)
    pixels = values[:, :, 0].sum(axis=0)
    if not pixels[0] > 0:
        raise ProtocolError("the calibration split has no valid pixels: there is nothing to fit a temperature to.")
    factors = np.array([_fit(values[:, k], family) for k in range(N_BINS + 1)])
    if not factors[0] > 0:
        raise ProtocolError("the predictions of the calibration split have no error: a temperature of 0 has no use.")
    if not by_distance:
        return Temperature(family, float(factors[0]))
    enough = (pixels[1:] >= BIN_PIXELS) & (factors[1:] > 0)
    chosen = np.where(enough, factors[1:], factors[0])
    return Temperature(family, float(factors[0]), chosen, pixels[1:].astype(np.int64))


def _fit(rows: FloatArray, family: str) -> float:
    rows = rows[rows[:, 0] > 0]
    if len(rows) == 0:
        return float("nan")
    if family == "laplace":
        return math.sqrt(2) * float((rows[:, 2] / rows[:, 0]).mean())
    return math.sqrt(float((rows[:, 1] / rows[:, 0]).mean()))


def temperature(residual: FloatArray, sigma: FloatArray, family: str) -> float:
    """T of a single set of pixels [n]."""
    sums = temperature_sums(residual, sigma, np.ones(sigma.size))
    return fit_temperature(sums[None], family).value


def conformal_factor(residual: FloatArray, sigma: FloatArray, level: float, family: str) -> float:
    """Factor T_a that makes the central interval at one level cover as promised (split conformal).

    The quantile of |z| with rank ceil((n + 1) a), divided by c(a); infinite where n is too small for the level.

    Raises:
        ProtocolError: the level is not in (0, 1), or there are no pixels.
    """
    n = residual.size
    if not 0 < level < 1 or n == 0:
        raise ProtocolError(f"a conformal factor needs a level in (0, 1) and pixels, got {level:g} and {n}.")
    rank = math.ceil((n + 1) * level - 1e-9)
    if rank > n:
        return math.inf
    size = np.abs(residual / sigma)
    return float(np.partition(size, rank - 1)[rank - 1] / calibration.critical_values(np.array([level]), family)[0])


def fit_isotonic(observed: NDArray[Any], expected: NDArray[Any] = calibration.LEVELS) -> Isotonic:
    """Fit the monotone map from a quantile curve: observed shares [L] at levels [L].

    Equal observed shares share the mean of their levels; the rest is pooled until the levels do not descend.
    """
    knots, which = np.unique(np.asarray(observed, np.float64), return_inverse=True)
    weights = np.bincount(which).astype(np.float64)
    means = np.bincount(which, weights=np.asarray(expected, np.float64)) / weights
    return Isotonic(knots, _pool_adjacent(means, weights))


def _pool_adjacent(values: FloatArray, weights: FloatArray) -> FloatArray:
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        mean, mass, length = value, weight, 1
        while blocks and blocks[-1][0] > mean:
            before, other, count = blocks.pop()
            mean = (before * other + mean * mass) / (other + mass)
            mass, length = other + mass, count + length
        blocks.append((mean, mass, length))
    return np.repeat([b[0] for b in blocks], [b[2] for b in blocks])


def check_calibration_split(
    calibration_split: str, split: str, calibration_drives: Collection[str], drives: Collection[str]
) -> None:
    """Refuse to fit on what is evaluated.

    Raises:
        UsageError: the same split, or a drive in both.
    """
    if calibration_split == split:
        raise UsageError(f"'{split}' is the evaluated split: recalibrate on another one, such as a validation split.")
    shared = sorted(set(calibration_drives) & set(drives))
    if shared:
        more = f" and {len(shared) - 1} more" if len(shared) > 1 else ""
        raise UsageError(
            f"the calibration split '{calibration_split}' shares drive {shared[0]}{more} with '{split}': "
            "choose drives that are not evaluated."
        )
