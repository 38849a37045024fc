"""Maximum mean discrepancy between two sets of tokens (kernel two-sample distance; Gretton et al., JMLR 2012).

Matrices are tokens by channels, float64 inside. The kernel's bandwidth is a ruler: compute it once, from teacher and
student before adaptation, and reuse it afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from adubench.errors import DataError
from adubench.evaluators.feature_gap import Matrix, same_channels

Estimator = Literal["unbiased", "paired", "biased"]

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Bandwidths of the mixed kernel, in units of the median squared distance."""

_BLOCK = 1000  # rows of a kernel matrix computed at a time


@dataclass(frozen=True, slots=True)
class MmdTest:
    """Result of a permutation test.

    Attributes:
        mmd2: unbiased estimate.
        p: of "both sets come from one distribution", one-sided.
        relabellings: how many were drawn.
    """

    mmd2: float
    p: float
    relabellings: int


def median_sq_distance(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Median squared distance over all distinct pairs of the pooled rows: the kernel's unit, computed once per ruler.

    Args:
        first: [n, d].
        second: [m, d].

    Returns:
        Mean of the two middle values for an even number of pairs; NaN for a single row.
    """
    a, b = same_channels(first, second, 0)
    pooled = np.concatenate([a, b])
    parts = []
    for start in range(0, len(pooled), _BLOCK):
        rows = pooled[start : start + _BLOCK]
        squared = _sq_distances(rows, pooled[start:])
        parts += [squared[:, : len(rows)][np.triu_indices(len(rows), 1)], squared[:, len(rows) :].reshape(-1)]
    pairs = np.concatenate(parts)
    return float(np.median(pairs)) if pairs.size else float("nan")


def mmd_rbf(
    first: NDArray[Any],
    second: NDArray[Any],
    *,
    scale: float,
    factors: Sequence[float] = FACTORS,
    estimator: Estimator = "unbiased",
) -> float:
    """Squared maximum mean discrepancy with the mean of Gaussian kernels exp(-|x - y|^2 / (f s)).

    Args:
        first: [n, d], n >= 2.
        second: [m, d].
        scale: s, `median_sq_distance` of the pair before adaptation, reused after it.
        factors: f.
        estimator: `unbiased` for different places; `paired` when row i of both is the same place (n = m; the cross
            term leaves matched rows out); `biased` with diagonals, never negative.

    Returns:
        The estimate; may be negative except for `biased`.

    Raises:
        DataError: different d, too few rows, paired with n != m, a scale that is not positive.
    """
    return _mmd(first, second, _rbf(scale, factors), estimator)


def mmd_poly3(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Kernel inception distance form: kernel (x.y / d + 1)^3, within terms unbiased, cross term with its diagonal.

    Args:
        first: [n, d], n >= 2.
        second: [n, d].

    Returns:
        The estimate (torchmetrics, `poly_mmd`); may be negative.

    Raises:
        DataError: different shapes or too few rows.
    """
    a, b = same_channels(first, second, 2)
    _same_rows(a, b)
    return _mmd(a, b, lambda x, y: np.asarray((x @ y.T / x.shape[1] + 1.0) ** 3), "unbiased")


def mmd_permutation(
    first: NDArray[Any],
    second: NDArray[Any],
    images_first: NDArray[Any],
    images_second: NDArray[Any],
    *,
    scale: float,
    generator: np.random.Generator,
    relabellings: int = 1000,
    factors: Sequence[float] = FACTORS,
) -> MmdTest:
    """Permutation test of the unbiased MMD that relabels images, all their tokens together.

    Args:
        first: [n, d] tokens.
        second: [m, d] tokens of other images.
        images_first: [n] which image each row comes from.
        images_second: [m].
        scale: as for `mmd_rbf`.
        generator: draws the relabellings.
        relabellings: how many; the number of images per side stays.
        factors: as for `mmd_rbf`.

    Returns:
        The statistic and p = (1 + relabellings at least as large) / (1 + relabellings).

    Raises:
        DataError: an image on both sides (tokens of one image are alike: use disjoint halves), or as `mmd_rbf`.
    """
    a, b = same_channels(first, second, 2)
    names = [np.unique(images, return_inverse=True) for images in (images_first, images_second)]
    n_first, n_images = len(names[0][0]), len(names[0][0]) + len(names[1][0])
    if np.isin(names[0][0], names[1][0]).any():
        raise DataError("MMD test: an image has tokens on both sides, expected disjoint images. Sample by halves.")
    image = np.concatenate([names[0][1].reshape(-1), names[1][1].reshape(-1) + n_first])
    blocks = _image_sums(np.concatenate([a, b]), image, n_images, _rbf(scale, factors))
    sizes = np.bincount(image, minlength=n_images).astype(np.float64)
    observed = _labelled_mmd(blocks, sizes, np.arange(n_images) < n_first)
    order = (generator.permutation(n_images) for _ in range(relabellings))
    larger = sum(_labelled_mmd(blocks, sizes, permutation < n_first) >= observed for permutation in order)
    return MmdTest(observed, (1 + int(larger)) / (1 + relabellings), relabellings)


def _image_sums(
    tokens: Matrix, image: NDArray[np.int64], number: int, kernel: Callable[[Matrix, Matrix], Matrix]
) -> Matrix:
    """Sum of the kernel over all distinct pairs of tokens, per pair of images: [number, number]."""
    columns = np.zeros((len(tokens), number))
    columns[np.arange(len(tokens)), image] = 1.0
    sums = np.zeros((number, number))
    for start in range(0, len(tokens), _BLOCK):
        values = kernel(tokens[start : start + _BLOCK], tokens)
        rows = np.arange(len(values))
        values[rows, rows + start] = 0.0
        np.add.at(sums, image[start : start + _BLOCK], values @ columns)
    return sums


def _labelled_mmd(blocks: Matrix, sizes: Matrix, chosen: NDArray[np.bool_]) -> float:
    side = chosen.astype(np.float64)
    within = side @ blocks @ side
    cross = side @ blocks @ (1.0 - side)
    rest = blocks.sum() - within - 2.0 * cross
    n, m = sizes[chosen].sum(), sizes[~chosen].sum()
    if min(n, m) < 2:
        return float("nan")
    return float(within / (n * (n - 1)) + rest / (m * (m - 1)) - 2.0 * cross / (n * m))


def _rbf(scale: float, factors: Sequence[float]) -> Callable[[Matrix, Matrix], Matrix]:
    """Mean over f of exp(-|x - y|^2 / (f scale)), as a function of two token matrices."""
    if not scale > 0:
        raise DataError(f"kernel bandwidth {scale}: expected a positive number. All tokens may be equal.")

    def kernel(x: Matrix, y: Matrix) -> Matrix:
        squared = _sq_distances(x, y)
        return np.asarray(sum(np.exp(squared / (-f * scale)) for f in factors) / len(factors))

    return kernel


def _mmd(
    first: NDArray[Any], second: NDArray[Any], kernel: Callable[[Matrix, Matrix], Matrix], estimator: Estimator
) -> float:
    a, b = same_channels(first, second, 1 if estimator == "biased" else 2)
    within = 0.0
    for tokens in (a, b):
        total, diagonal = _kernel_sums(tokens, tokens, kernel)
        n = len(tokens)
        within += total / n**2 if estimator == "biased" else (total - diagonal) / (n * (n - 1))
    if estimator == "paired":
        _same_rows(a, b)
    total, diagonal = _kernel_sums(a, b, kernel)
    if estimator == "paired":
        return float(within - 2.0 * (total - diagonal) / (len(a) * (len(a) - 1)))
    return float(within - 2.0 * total / (len(a) * len(b)))


def _kernel_sums(a: Matrix, b: Matrix, kernel: Callable[[Matrix, Matrix], Matrix]) -> tuple[float, float]:
    """Sum of a kernel matrix and of its main diagonal, block by block."""
    total = diagonal = 0.0
    for start in range(0, len(a), _BLOCK):
        values = kernel(a[start : start + _BLOCK], b)
        total += float(values.sum())
        diagonal += float(np.trace(values, offset=start))
    return total, diagonal


def _sq_distances(a: Matrix, b: Matrix) -> Matrix:
    """Squared distances [n, m], >= 0; from centred rows, which loses least to cancellation."""
    centre = b.mean(axis=0)
    x, y = a - centre, b - centre
    squared = np.sum(x * x, axis=1)[:, None] + np.sum(y * y, axis=1)[None, :] - 2.0 * (x @ y.T)
    return np.asarray(np.maximum(squared, 0.0))


def _same_rows(a: Matrix, b: Matrix) -> None:
    if len(a) != len(b):
        raise DataError(
            f"features with {len(a)} and {len(b)} tokens: rows must be the same places. Sample them together."
        )
