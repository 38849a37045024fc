"""Linear centred kernel alignment (CKA) and direct distances between paired features.

Row i of both matrices is the same place of the same image. CKA lies in 0..1, is blind to rotation and isotropic scale,
and tells whether the same content is there, not whether the values agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import DataError
from adubench.evaluators.feature_gap import Matrix, as_tokens

_LEAST = 4  # rows: the unbiased form divides by n - 3


@dataclass(frozen=True, slots=True)
class DirectGap:
    """Distances of paired rows.

    Attributes:
        mse: mean squared difference over rows and channels (the training loss).
        cosine: mean cosine similarity of rows; rows of zeros are left out.
        explained: 1 - |T - A|^2 / |T - mean T|^2; 0 for the best constant, NaN when T is constant.
        explained_quantiles: the same per channel: 10, 50 and 90 % quantile over channels that vary in T.
    """

    mse: float
    cosine: float
    explained: float
    explained_quantiles: tuple[float, float, float]


def cka_linear(first: NDArray[Any], second: NDArray[Any], *, unbiased: bool = False) -> float:
    """Linear CKA in the feature form, without an n x n matrix.

    Args:
        first: [n, p].
        second: [n, q]; p and q may differ.
        unbiased: use the estimator HSIC1; the biased form is far above 0 for small n (0.64 at n = 24 for independent
            data of 32 channels).

    Returns:
        0..1 (unbiased: may be slightly negative). NaN with fewer than 4 rows, or when a matrix does not vary (its self
        term is not positive).

    Raises:
        DataError: different numbers of rows, or values that are not finite.
    """
    x, y = _paired(first, second)
    if len(x) < _LEAST:
        return float("nan")
    hsic = _hsic_unbiased if unbiased else _hsic_biased
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    return _ratio(hsic(x, y), hsic(x, x), hsic(y, y))


def cka_minibatch(
    first: NDArray[Any], second: NDArray[Any], *, size: int = 32, batches: Sequence[NDArray[Any]] | None = None
) -> float:
    """Linear CKA from HSIC1 averaged over batches before the ratio. The batch size belongs to the number.

    Args:
        first: [n, p].
        second: [n, q].
        size: rows per batch, consecutive, the remainder dropped.
        batches: row numbers of each batch instead, e.g. one position of each image.

    Returns:
        As `cka_linear`; NaN without a batch of at least 4 rows.
    """
    x, y = _paired(first, second)
    chosen = [np.arange(s, s + size) for s in range(0, len(x) - size + 1, size)] if batches is None else batches
    terms = np.zeros(3)
    number = 0
    for rows in chosen:
        if len(rows) < _LEAST:
            continue
        a, b = x[rows] - x[rows].mean(axis=0), y[rows] - y[rows].mean(axis=0)
        terms += _hsic_unbiased(a, b), _hsic_unbiased(a, a), _hsic_unbiased(b, b)
        number += 1
    return _ratio(*(terms / number)) if number else float("nan")


def direct_gap(teacher: NDArray[Any], other: NDArray[Any]) -> DirectGap:
    """Distances between paired rows of the same channels.

    Args:
        teacher: [n, d].
        other: [n, d].

    Raises:
        DataError: different shapes or values that are not finite.
    """
    t, a = _paired(teacher, other)
    if t.shape[1] != a.shape[1]:
        raise DataError(f"features with {t.shape[1]} and {a.shape[1]} channels: only CKA compares them.")
    error, spread = np.sum((t - a) ** 2, axis=0), np.sum((t - t.mean(axis=0)) ** 2, axis=0)
    size = np.linalg.norm(t, axis=1) * np.linalg.norm(a, axis=1)
    some = size > 0
    cosine = float(np.mean(np.sum(t[some] * a[some], axis=1) / size[some])) if some.any() else float("nan")
    vary = spread > 0
    if not vary.any():
        return DirectGap(float(error.sum() / t.size), cosine, float("nan"), (float("nan"),) * 3)
    low, middle, high = np.quantile(1.0 - error[vary] / spread[vary], (0.1, 0.5, 0.9))
    explained = float(1.0 - error.sum() / spread.sum())
    return DirectGap(float(error.sum() / t.size), cosine, explained, (float(low), float(middle), float(high)))


def _paired(first: NDArray[Any], second: NDArray[Any]) -> tuple[Matrix, Matrix]:
    x, y = as_tokens(first, "first features"), as_tokens(second, "second features")
    if len(x) != len(y):
        raise DataError(
            f"features with {len(x)} and {len(y)} tokens: rows must be the same places. Sample them together."
        )
    return x, y


def _hsic_biased(x: Matrix, y: Matrix) -> float:
    """|Y^T X|^2 of centred rows; the divisor cancels in the ratio."""
    return float(np.sum((y.T @ x) ** 2))


def _hsic_unbiased(x: Matrix, y: Matrix) -> float:
    """HSIC1 times n (n - 3), of centred rows (so that K 1 = 0 and only the diagonals need correcting)."""
    n = len(x)
    rx, ry = np.sum(x * x, axis=1), np.sum(y * y, axis=1)
    return float(np.sum((y.T @ x) ** 2) - n / (n - 2) * (rx @ ry) + rx.sum() * ry.sum() / ((n - 1) * (n - 2)))


def _ratio(cross: float, first: float, second: float) -> float:
    return float(cross / np.sqrt(first * second)) if first > 0 and second > 0 else float("nan")
