"""Rank statistics of one image: average ranks, correlations, the area under the ROC curve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

CORRELATIONS: tuple[str, ...] = (
    "spearman",
    "pearson",
    "spearman_rel",
    "spearman_unc_depth",
    "spearman_partial",
)
"""Score against |error|, the same without ranks, against |error| / g, against p, and against |error| given p."""


_NOTHING_LEFT = 1e-12  # share of variance; less is rounding of a vector that c explains completely


@dataclass(frozen=True, slots=True)
class Centred:
    """A vector minus its mean, with its length; constant vectors have the length 0."""

    values: FloatArray
    norm: float


@dataclass(frozen=True, slots=True)
class Ranked:
    """A vector with its order, so that it is sorted once.

    Attributes:
        values: [n].
        order: [n] positions that sort it.
        ranks: [n] average ranks from 1.
    """

    values: NDArray[Any]
    order: NDArray[np.intp]
    ranks: FloatArray


def rank(values: NDArray[Any]) -> Ranked:
    """Rank a vector [n]; ties share their mean rank."""
    order = np.argsort(values)
    ranks = np.empty(order.size)
    ranks[order] = _mean_positions(_firsts(values[order]))
    return Ranked(values, order, ranks)


def average_ranks(values: NDArray[Any]) -> FloatArray:
    """Ranks [n] from 1, ties share their mean rank."""
    return rank(values).ranks


def ranks_within(ranked: Ranked, strata: NDArray[Any]) -> FloatArray:
    """Average ranks [n] from 1 among the pixels of the same stratum, strata [n] in 0..255."""
    labels = np.asarray(strata, np.uint8)
    order = ranked.order[np.argsort(labels[ranked.order], kind="stable")]
    groups = labels[order]
    firsts = _firsts(groups)
    starts = np.flatnonzero(firsts)
    sizes = np.diff(np.append(starts, order.size))
    ranks = np.empty(order.size)
    ranks[order] = _mean_positions(firsts | _firsts(ranked.values[order])) - np.repeat(starts, sizes)
    return ranks


def _firsts(ordered: NDArray[Any]) -> NDArray[np.bool_]:
    """Where runs of equal values begin."""
    out = np.ones(ordered.size, np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=out[1:])
    return out


def _mean_positions(firsts: NDArray[np.bool_]) -> FloatArray:
    """Mean position, from 1, of the run that each entry belongs to."""
    if firsts.all():
        return np.arange(1.0, firsts.size + 1)
    starts = np.flatnonzero(firsts)
    ends = np.append(starts[1:], firsts.size)
    return np.repeat(0.5 * (starts + ends + 1), ends - starts)


def centred(values: NDArray[Any]) -> Centred:
    """Subtract the mean. Vectors whose values are all equal get the length 0, without a rounding error."""
    v = np.asarray(values, np.float64)
    if v.size < 2 or v.min() == v.max():
        return Centred(np.zeros(v.size), 0.0)
    # a common factor drops out of every correlation and keeps squares of huge values finite
    v = v / np.abs(v).max()
    v = v - v.mean()
    return Centred(v, float(np.sqrt(v @ v)))


def correlation(a: Centred, b: Centred) -> float:
    """Pearson's coefficient, NaN where one of the two is constant."""
    if a.norm == 0 or b.norm == 0:
        return float("nan")
    return float(np.clip(a.values @ b.values / (a.norm * b.norm), -1.0, 1.0))


def pearson(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Linear correlation of two vectors [n]; NaN where one is constant."""
    return correlation(centred(a), centred(b))


def spearman(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Rank correlation with average ranks (scipy.stats.spearmanr); NaN where one is constant."""
    return correlation(centred(average_ranks(a)), centred(average_ranks(b)))


def kendall(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Kendall's tau-b; slower than the others, computed on request."""
    from scipy.stats import kendalltau

    result: Any = kendalltau(a, b)
    return float(result.statistic)


def partial(ab: float, ac: float, bc: float) -> float:
    """Correlation of a and b given c from the three correlations; NaN where it is undefined."""
    of_a, of_b = 1 - ac * ac, 1 - bc * bc
    if not (of_a > _NOTHING_LEFT and of_b > _NOTHING_LEFT):
        return float("nan")
    rest = of_a * of_b
    return float(np.clip((ab - ac * bc) / np.sqrt(rest), -1.0, 1.0))


def correlations(
    score: Ranked, error: Ranked, pred: Ranked, gt: NDArray[Any], sigma: NDArray[Any] | None = None
) -> FloatArray:
    """Correlate an uncertainty with the errors of one image.

    Args:
        score: [n] uncertainty, for the ranks.
        error: [n] absolute residuals in the residual space.
        pred: [n] metres.
        gt: [n] metres.
        sigma: [n] values for the linear correlation; the score where None.

    Returns:
        [5] in the order of `CORRELATIONS`, NaN where undefined (constant input).
    """
    relative = np.abs(np.asarray(pred.values, np.float64) - gt) / gt
    of_score, of_error, of_depth = (centred(v.ranks) for v in (score, error, pred))
    with_error, with_depth = correlation(of_score, of_error), correlation(of_score, of_depth)
    return np.array(
        [
            with_error,
            pearson(score.values if sigma is None else sigma, error.values),
            correlation(of_score, centred(average_ranks(relative))),
            with_depth,
            partial(with_error, with_depth, correlation(of_error, of_depth)),
        ]
    )


def auroc_from_ranks(rank_sum: NDArray[Any] | float, inside: NDArray[Any] | int, n: int) -> FloatArray:
    """P(value inside > value outside) + P(equal) / 2 from the rank sum of the inside; NaN where one side is empty."""
    inside = np.asarray(inside, np.float64)
    pairs = inside * (n - inside)
    out = np.full(inside.shape, np.nan)
    np.divide(rank_sum - inside * (inside + 1) / 2, pairs, out=out, where=pairs > 0)
    return out
