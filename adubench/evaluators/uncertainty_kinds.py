"""From a network's uncertainty output to a standard deviation in the space of its residuals.

What an output means is declared by the model, never guessed: the same number read as ln sigma or as ln sigma^2 gives
standard deviations that differ by a square root. Logarithms are kept where the network predicts them, so that nothing
overflows on the way to a likelihood.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import DataError, ProtocolError, unknown_name

FloatArray = NDArray[np.float64]

KINDS: tuple[str, ...] = ("sigma", "variance", "b", "log_b", "log_sigma", "log_variance", "score")
"""Meanings of an output. `score` only ranks."""
ALIASES = {"std": "sigma", "var": "variance", "log_std": "log_sigma", "log_var": "log_variance"}
SPACES: tuple[str, ...] = ("depth", "log", "inv")
"""Where the residual lives: metres, ln metres, 1/metres."""
FAMILIES: tuple[str, ...] = ("gaussian", "laplace")
DEFAULT_FLOOR = 1e-3

_FAMILY = {"b": "laplace", "log_b": "laplace", "log_sigma": "laplace", "log_variance": "gaussian"}
_LARGEST_LOG = 300.0  # exp(300) and its square are finite in float64
_HALF_LN2 = 0.5 * math.log(2)


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """The uncertainty at the n valid pixels of one image.

    Attributes:
        score: [n] larger where the model trusts itself less; only its order counts. Never floored.
        sigma: [n] standard deviation > 0 in the residual space, at least the floor; None for kind `score`.
        log_sigma: [n] ln sigma, taken from the network's logarithm where it gives one; None for kind `score`.
        floored: number of pixels at the floor (values <= 0 included).
    """

    score: FloatArray
    sigma: FloatArray | None = None
    log_sigma: FloatArray | None = None
    floored: int = 0

    def times(self, factor: FloatArray | float) -> Uncertainty:
        """The same with sigma multiplied by a factor > 0 (scalar or [n]), as recalibration does; the score stays."""
        if self.sigma is None or self.log_sigma is None:
            raise ProtocolError("a score has no scale: recalibration needs an uncertainty with a declared meaning.")
        return Uncertainty(self.score, self.sigma * factor, self.log_sigma + np.log(factor), self.floored)


def canonical_kind(name: str) -> str:
    """Return the kind's name in `KINDS`, resolving `log_var`, `log_std`, `std` and `var`; UsageError if unknown."""
    kind = ALIASES.get(name, name)
    if kind not in KINDS:
        raise unknown_name("uncertainty kind", name, (*KINDS, *ALIASES))
    return kind


def family_of(kind: str) -> str | None:
    """The density whose likelihood trains an output of this kind; None where the kind does not say."""
    return _FAMILY.get(canonical_kind(kind))


def check_space(name: str) -> str:
    """Return the space's name; UsageError if unknown."""
    if name not in SPACES:
        raise unknown_name("uncertainty space", name, SPACES)
    return name


def check_values(values: NDArray[Any], kind: str, where: str = "") -> None:
    """Refuse values that no uncertainty of this kind can have.

    Raises:
        DataError: NaN or infinite values, or a negative variance; names `where` (file or frame).
    """
    at = f" in {where}" if where else ""
    bad = int(np.size(values) - np.count_nonzero(np.isfinite(values)))
    if bad:
        raise DataError(f"the uncertainty{at} is NaN or infinite at {bad} pixels; give finite values at every pixel.")
    if canonical_kind(kind) == "variance" and np.any(np.asarray(values) < 0):
        raise DataError(f"the uncertainty{at} has negative variances; if the file holds ln sigma^2 say log_variance.")


def convert(
    values: NDArray[Any],
    kind: str,
    *,
    space: str = "depth",
    scale: float = 1.0,
    floor: float = DEFAULT_FLOOR,
    where: str = "",
) -> Uncertainty:
    """Turn outputs at the valid pixels into sigma.

    | kind | sigma |
    |---|---|
    | sigma, variance | s, sqrt(s) |
    | b, log_b | sqrt(2) s, sqrt(2) exp(s) (scale of a Laplace density) |
    | log_sigma, log_variance | exp(s), exp(s / 2) |

    Args:
        values: [n] outputs, already at the resolution of the ground truth.
        kind: one of `KINDS` or an alias.
        space: space of the residual, which is that of the training loss.
        scale: factor by which the prediction was aligned. Sigma follows it in `depth`, goes the other way in `inv` and
            stays in `log`. Clamping a prediction leaves sigma unchanged.
        floor: smallest sigma, in the residual space.
        where: file or frame for error messages.

    Raises:
        DataError: see `check_values`.
        ProtocolError: the alignment factor or the floor is not a positive number.
        UsageError: unknown kind or space.
    """
    kind = canonical_kind(kind)
    check_space(space)
    if not (math.isfinite(scale) and scale > 0 and math.isfinite(floor) and floor > 0):
        raise ProtocolError(f"sigma cannot be scaled by {scale:g} with the floor {floor:g}; both must be > 0.")
    check_values(values, kind, where)
    s = np.asarray(values, np.float64)
    if kind == "score":
        return Uncertainty(s)
    log_factor = {"depth": 1.0, "inv": -1.0, "log": 0.0}[space] * math.log(scale)
    if kind in ("log_b", "log_sigma", "log_variance"):
        log_sigma = 0.5 * s if kind == "log_variance" else s
        log_sigma = log_sigma + (log_factor + (_HALF_LN2 if kind == "log_b" else 0.0))
        low = log_sigma <= math.log(floor)
        log_sigma = np.where(low, math.log(floor), log_sigma)
        sigma = np.exp(np.minimum(log_sigma, _LARGEST_LOG))
    else:
        sigma = np.sqrt(s) if kind == "variance" else s * math.sqrt(2) if kind == "b" else s
        sigma = sigma * math.exp(log_factor)
        low = sigma <= floor
        sigma = np.minimum(np.where(low, floor, sigma), math.exp(_LARGEST_LOG))
        log_sigma = np.log(sigma)
    return Uncertainty(s, sigma, log_sigma, int(np.count_nonzero(low)))


def to_resizable(values: NDArray[Any], kind: str, where: str = "") -> tuple[NDArray[Any], str]:
    """Prepare a map for bilinear resizing, which must act on sigma and not on its logarithm or square.

    Returns:
        a map of sigma and the kind "sigma"; scores come back unchanged with the kind "score".
    """
    kind = canonical_kind(kind)
    check_values(values, kind, where)
    s = np.asarray(values, np.float64)
    if kind in ("score", "sigma"):
        return s, kind
    if kind == "variance":
        return np.sqrt(s), "sigma"
    if kind == "b":
        return s * math.sqrt(2), "sigma"
    log_sigma = 0.5 * s if kind == "log_variance" else s + (_HALF_LN2 if kind == "log_b" else 0.0)
    return np.exp(np.minimum(log_sigma, _LARGEST_LOG)), "sigma"


def residuals(gt: NDArray[Any], pred: NDArray[Any], space: str = "depth", where: str = "") -> FloatArray:
    """Prediction minus truth [n] in the residual space.

    Raises:
        ProtocolError: values that are not finite and positive.
        UsageError: unknown space.
    """
    g, p = np.asarray(gt, np.float64), np.asarray(pred, np.float64)
    for name, v in (("ground truth", g), ("prediction", p)):
        if v.size and not (v.min() > 0 and v.max() < np.inf):
            at = f" of {where}" if where else ""
            raise ProtocolError(f"the {name}{at} is not finite and positive at valid pixels: its error has no meaning.")
    if check_space(space) == "depth":
        return p - g
    if space == "log":
        return np.log(p) - np.log(g)
    return (g - p) / (g * p)


def flip_disagreement(depth: NDArray[Any], mirrored: NDArray[Any]) -> FloatArray:
    """A free score: how far the prediction for the mirrored image, mirrored back, is (mono-uncertainty, Post)."""
    return np.abs(np.asarray(depth, np.float64) - np.asarray(mirrored, np.float64))
