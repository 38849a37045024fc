"""Gap between teacher and student features: tokens, Frechet distance, noise floor. See also `mmd` and `cka`.

Rows are tokens (image positions), columns are channels. The distances ask whether two sets of tokens have the same
distribution, CKA whether row i of both tells the same; none replaces another. Everything is float64; a number of a
sample means little without the floor: the same number between two halves of the teacher's tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import DataError

Matrix = NDArray[np.float64]

_FLOOR = 1e-6  # least standard deviation used for standardising


@dataclass(frozen=True, slots=True)
class Frechet:
    """Frechet distance of two Gaussians fitted to the samples.

    Attributes:
        distance: sum of the two terms, >= 0.
        mean_term: squared distance of the means.
        covariance_term: what differing covariances add, >= 0.
    """

    distance: float
    mean_term: float
    covariance_term: float


@dataclass(frozen=True, slots=True)
class Standardiser:
    """Mean and standard deviation per channel, taken from the teacher's sample and applied to all.

    Attributes:
        mean: [d].
        deviation: [d], at least 1e-6.
        n_constant: channels whose deviation was raised to that.
    """

    mean: Matrix
    deviation: Matrix
    n_constant: int

    def __call__(self, tokens: NDArray[Any]) -> Matrix:
        """Standardise [n, d]."""
        return np.asarray((np.asarray(tokens, np.float64) - self.mean) / self.deviation)


def standardiser(teacher: NDArray[Any]) -> Standardiser:
    """Fit a standardiser to the teacher's tokens [n, d]."""
    tokens = as_tokens(teacher)
    deviation = tokens.std(axis=0)
    low = deviation < _FLOOR
    return Standardiser(tokens.mean(axis=0), np.where(low, _FLOOR, deviation), int(np.count_nonzero(low)))


def as_tokens(values: NDArray[Any], name: str = "features") -> Matrix:
    """Check a token matrix and return it as float64 [n, d].

    Args:
        values: [n, d].
        name: its role in messages: the level and whose features they are.

    Raises:
        DataError: another number of dimensions, no rows or columns, or values that are not finite.
    """
    tokens = np.asarray(values)
    if tokens.ndim != 2 or 0 in tokens.shape:
        raise DataError(f"{name}: expected a matrix of tokens by channels, got shape {tokens.shape}.")
    tokens = tokens.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(tokens).all(axis=1))
    if bad.size:
        raise DataError(
            f"{name}: {bad.size} of {len(tokens)} tokens hold NaN or infinity (first: row {bad[0]}). "
            "Check the checkpoint and its input at that image."
        )
    return tokens


def frechet(first: NDArray[Any], second: NDArray[Any]) -> Frechet:
    """Frechet distance |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), covariances with divisor n - 1.

    Positive for two samples of one distribution, of the order of tr(C) d / n: use n >= 10 d tokens or project first
    (`principal_axes`), and print `frechet_floor` beside it.

    Args:
        first: [n1, d], n1 >= 2.
        second: [n2, d].

    Returns:
        The distance and its two terms.

    Raises:
        DataError: different d, fewer than two rows, or values that are not finite.
    """
    a, b = same_channels(first, second, 2)
    mean_term = float(np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2))
    a, b = ((t - t.mean(axis=0)) / np.sqrt(len(t) - 1) for t in (a, b))
    trace = float(np.sum(a * a) + np.sum(b * b)) - 2.0 * _cross_trace(a, b)
    covariance_term = max(0.0, trace)
    return Frechet(mean_term + covariance_term, mean_term, covariance_term)


@dataclass(frozen=True, slots=True)
class TokenMoments:
    """Sums over tokens that can be added: over batches for memory, over drives for resampling.

    Attributes:
        count: tokens.
        total: [d], sum of tokens minus `centre`.
        outer: [d, d], sum of their outer products.
        centre: [d], subtracted first so that little is lost to cancellation; the same for sums that are added.
    """

    count: int
    total: Matrix
    outer: Matrix
    centre: Matrix

    def __add__(self, other: TokenMoments) -> TokenMoments:
        """Add the tokens of another batch or drive; raises ValueError for another centre."""
        if not np.array_equal(self.centre, other.centre):
            raise ValueError("moments around different centres cannot be added")
        return TokenMoments(self.count + other.count, self.total + other.total, self.outer + other.outer, self.centre)

    @property
    def mean(self) -> Matrix:
        """Mean token [d]."""
        return np.asarray(self.centre + self.total / self.count)

    @property
    def covariance(self) -> Matrix:
        """Covariance [d, d], divisor n - 1."""
        return np.asarray((self.outer - np.outer(self.total, self.total) / self.count) / (self.count - 1))


def token_moments(tokens: NDArray[Any], centre: NDArray[Any] | None = None, name: str = "features") -> TokenMoments:
    """Sums of one batch [n, d] around `centre` [d]; default: its own mean, to be used for the following batches."""
    values = as_tokens(tokens, name)
    middle = values.mean(axis=0) if centre is None else np.asarray(centre, np.float64)
    shifted = values - middle
    return TokenMoments(len(values), shifted.sum(axis=0), shifted.T @ shifted, middle)


def frechet_from_moments(moments1: TokenMoments, moments2: TokenMoments) -> Frechet:
    """Frechet distance of sums that were accumulated or resampled; each of at least two tokens."""
    first, second = moments1.covariance, moments2.covariance
    mean_term = float(np.sum((moments1.mean - moments2.mean) ** 2))
    trace = float(np.trace(first) + np.trace(second)) - 2.0 * _root_trace(first, second)
    return Frechet(mean_term + max(0.0, trace), mean_term, max(0.0, trace))


def frechet_extrapolated(first: NDArray[Any], second: NDArray[Any], *, generator: np.random.Generator) -> float:
    """Frechet distance for infinitely many tokens: intercept of a line in 1/n through n, n/2 and n/4 random rows.

    Args:
        first: [n1, d], n1 >= 8.
        second: [n2, d], n2 >= 8.
        generator: picks the rows.

    Returns:
        The intercept; may be slightly negative.
    """
    a, b = same_channels(first, second, 8)
    a, b = a[generator.permutation(len(a))], b[generator.permutation(len(b))]
    distances = [frechet(a[: len(a) // k], b[: len(b) // k]).distance for k in (1, 2, 4)]
    return float(np.polyfit([1.0, 2.0, 4.0], distances, 1)[1])


def principal_axes(teacher: NDArray[Any], number: int = 64) -> Matrix:
    """First principal axes [d, min(number, d)] of the teacher's tokens; multiply all tokens by them."""
    tokens = as_tokens(teacher)
    centred = tokens - tokens.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    return np.asarray(axes[:, ::-1][:, :number])


def halves_floor(teacher: NDArray[Any], gap: Callable[[Matrix, Matrix], float]) -> float:
    """A gap between the first half of the teacher's rows and the next: the least that can be told from nothing.

    Args:
        teacher: [n, d], rows ordered so that the halves hold different images.
        gap: of two token matrices, e.g. `lambda x, y: frechet(x, y).distance`.

    Returns:
        gap(first n // 2 rows, next n // 2 rows).
    """
    tokens = as_tokens(teacher)
    half = len(tokens) // 2
    return gap(tokens[:half], tokens[half : 2 * half])


def frechet_floor(teacher: NDArray[Any]) -> float:
    """Frechet distance between two halves of the teacher's tokens [n, d]."""
    return halves_floor(teacher, lambda x, y: frechet(x, y).distance)


def closed_fraction(before: float, after: float, floor: float = 0.0) -> float:
    """Share of the gap above the floor that adaptation closed: (before - after) / (before - floor).

    Returns:
        1: down to the floor; 0: nothing; negative: wider. NaN when the gap was not above the floor.
    """
    return (before - after) / (before - floor) if before > floor else float("nan")


def _cross_trace(a: Matrix, b: Matrix) -> float:
    """Trace of (C1 C2)^(1/2) for C = t^T t: singular values of a b^T, or eigenvalues when there are many rows."""
    if min(len(a), len(b)) < a.shape[1]:
        return float(np.linalg.svd(a @ b.T, compute_uv=False).sum())
    return _root_trace(a.T @ a, b.T @ b)


def _root_trace(cov1: Matrix, cov2: Matrix) -> float:
    values, vectors = np.linalg.eigh(cov1)
    half = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    return float(np.sqrt(np.maximum(np.linalg.eigvalsh(half @ cov2 @ half), 0.0)).sum())


def same_channels(first: NDArray[Any], second: NDArray[Any], least: int) -> tuple[Matrix, Matrix]:
    """Check two token matrices [n, d] and [m, d] with at least `least` rows each; raises DataError."""
    a, b = as_tokens(first, "first features"), as_tokens(second, "second features")
    if a.shape[1] != b.shape[1]:
        raise DataError(
            f"features with {a.shape[1]} and {b.shape[1]} channels: distances need the same number, CKA does not."
        )
    if min(len(a), len(b)) < least:
        raise DataError(f"features with {len(a)} and {len(b)} tokens: at least {least} are needed. Take more images.")
    return a, b
