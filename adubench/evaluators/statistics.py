"""Statistics for paired results whose sampling unit is the drive (cluster), as functions of cluster sums.

Frames of one drive show the same street a second apart, so images are not independent samples; drives are. Every
metric in both aggregations is a function f of the sum over clusters of w_c C_c with cluster sums C_c, hence one matrix
product of resampling weights and cluster sums serves all models, regions and metrics, and everything stays paired.

All results depend on data, options and seed only. scipy is imported where it is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IndexArray = NDArray[np.intp]
    Statistic = Callable[[FloatArray], FloatArray]

EXACT_CLUSTERS = 16
"""Up to this many clusters the swap test visits all 2^G label exchanges."""
RANDOM_SWAPS = 100_000
"""Number of random label exchanges above `EXACT_CLUSTERS`."""
_SWAP_ROWS = 10_000
_SWAP_BLOCK = 2_500  # exchanges whose sums stay in the second-level cache
_KEPT_CELLS = 4_000_000  # 32 MB of exchanges are kept from region to region
_CHUNK_CELLS = 1 << 17  # resampled cells per chunk: indices and counts stay in the second-level cache


@dataclass(frozen=True, slots=True)
class SwapTest:
    """P-values of the swap test, each [M].

    Attributes:
        two_sided: min(1, 2 min(less, greater)).
        less: share of exchanges with a statistic at most the observed one.
        greater: share of exchanges with a statistic at least the observed one.
        exact: all 2^G exchanges were visited.
    """

    two_sided: FloatArray
    less: FloatArray
    greater: FloatArray
    exact: bool


@dataclass(frozen=True, slots=True)
class Clustering:
    """How strongly the differences are clustered (one-way analysis of variance).

    Attributes:
        icc: intraclass correlation, the share of the variance that is between clusters.
        n0: the effective cluster size.
        design_effect: 1 + (n0 - 1) max(icc, 0); n images are worth n / design_effect independent ones.
    """

    icc: float
    n0: float
    design_effect: float


def label_clusters(names: Sequence[str]) -> tuple[IndexArray, tuple[str, ...]]:
    """Number the clusters in the order of their names.

    Returns:
        labels [N] in 0..G-1, and the G names, sorted, so that the order of images does not matter.
    """
    unique, labels = np.unique(np.asarray(names, dtype=np.str_), return_inverse=True)
    return labels.reshape(-1).astype(np.intp), tuple(str(name) for name in unique)


def sum_by_cluster(rows: FloatArray, labels: IndexArray, clusters: int) -> FloatArray:
    """Sum rows [N, ...] within each cluster to [G, ...]."""
    flat = np.ascontiguousarray(rows, dtype=np.float64).reshape(len(rows), -1)
    order = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels, minlength=clusters)
    out = np.zeros((clusters, flat.shape[1]))
    filled = sizes > 0
    if filled.any():
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])[filled]
        out[filled] = np.add.reduceat(flat[order], starts, axis=0)
    return out.reshape(clusters, *rows.shape[1:])


def _generator(seed: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, stream])))


def draw_weights(groups: int, resamples: int, seed: int = 0, *, bayes: bool = False) -> Iterator[FloatArray]:
    """Yield resampling weights [b, G] in chunks, `resamples` rows in all.

    Each row holds how often each of G units was drawn in G draws with replacement (multinomial counts made with one
    bincount per chunk), or with `bayes` G times a flat Dirichlet vector, which leaves no unit out.
    """
    rng = _generator(seed, 0)
    chunk = max(1, _CHUNK_CELLS // max(groups, 1))
    kind = np.int32 if groups > np.iinfo(np.uint16).max else np.uint16
    offsets = (np.arange(min(chunk, resamples), dtype=np.intp) * groups)[:, None]
    cells = np.empty((len(offsets), groups), dtype=np.intp)
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        if bayes:
            yield rng.dirichlet(np.ones(groups), size=rows) * groups
            continue
        part = cells[:rows]
        np.add(rng.integers(0, groups, size=(rows, groups), dtype=kind), offsets[:rows], out=part)
        yield np.bincount(part.reshape(-1), minlength=rows * groups).reshape(rows, groups).astype(np.float64)


def _weights(groups: int, resamples: int, seed: int, *, bayes: bool) -> Iterable[FloatArray]:
    if groups * resamples <= _KEPT_CELLS:
        return _kept_weights(groups, resamples, seed, bayes=bayes)
    return draw_weights(groups, resamples, seed, bayes=bayes)


@lru_cache(maxsize=2)
def _kept_weights(groups: int, resamples: int, seed: int, *, bayes: bool) -> tuple[FloatArray, ...]:
    """Keep the weights between regions, which share them."""
    chunks = tuple(draw_weights(groups, resamples, seed, bayes=bayes))
    for chunk in chunks:
        chunk.flags.writeable = False
    return chunks


def bootstrap_sums(sums: FloatArray, resamples: int = 10_000, seed: int = 0, *, bayes: bool = False) -> FloatArray:
    """Resample units with replacement and sum their rows.

    The weights depend on the number of units, `resamples` and `seed` only: calls with other columns stay paired.

    Args:
        sums: [G, ...] rows of the sampling units (cluster sums, or per-image rows).
        resamples: number of resamples B.
        seed: of PCG64.
        bayes: Dirichlet weights instead of counts.

    Returns:
        [B, ...] resampled sums; divide by G for means of rows.
    """
    flat = np.ascontiguousarray(sums, dtype=np.float64).reshape(len(sums), -1)
    out = np.empty((resamples, flat.shape[1]))
    start = 0
    for weights in _weights(len(flat), resamples, seed, bayes=bayes):
        np.matmul(weights, flat, out=out[start : start + len(weights)])
        start += len(weights)
    return out.reshape(resamples, *sums.shape[1:])


def drop_undefined(draws: FloatArray) -> tuple[FloatArray, float]:
    """Drop NaN from draws [B] of one statistic; also return the dropped share."""
    good = np.isfinite(draws)
    return draws[good], 1.0 - float(good.mean()) if len(draws) else 0.0


def percentile_interval(draws: FloatArray, confidence: float = 0.95) -> tuple[float, float]:
    """Quantiles (1-c)/2 and (1+c)/2 of the draws [B], linear interpolation."""
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def basic_interval(estimate: float, draws: FloatArray, confidence: float = 0.95) -> tuple[float, float]:
    """Twice the estimate minus the swapped quantiles."""
    low, high = percentile_interval(draws, confidence)
    return 2 * estimate - high, 2 * estimate - low


def bca_interval(
    estimate: float, draws: FloatArray, jackknife: FloatArray, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Bias-corrected and accelerated interval (Efron 1987).

    Args:
        estimate: the statistic T of the sample.
        draws: [B] bootstrap distribution.
        jackknife: [G] the statistic with one unit deleted.
        confidence: in (0, 1).

    Returns:
        The interval, or None where it is undefined (all draws equal, or all on one side of the estimate).
    """
    from scipy.special import ndtr, ndtri

    position = (np.mean(draws < estimate) + np.mean(draws <= estimate)) / 2
    spread = float(np.ptp(draws)) if len(draws) else 0.0
    if spread == 0 or position in (0.0, 1.0):
        return None
    bias = ndtri(position)
    left_out = jackknife[np.isfinite(jackknife)]  # deleting the only unit of a region leaves nothing
    pull = left_out.mean() - left_out if len(left_out) else np.zeros(1)
    power = (pull**2).sum()
    acceleration = (pull**3).sum() / (6 * power**1.5) if power > 0 else 0.0
    z = bias + ndtri((1 + confidence) / 2) * np.array([-1.0, 1.0])
    levels = ndtr(bias + z / (1 - acceleration * z))
    if not np.isfinite(levels).all():
        return None
    low, high = np.quantile(draws, levels)
    return float(low), float(high)


def jackknife(sums: FloatArray, statistic: Statistic) -> FloatArray:
    """Evaluate the statistic with one unit deleted: [G, F] sums to [G, M] values."""
    return statistic(sums.sum(axis=0) - sums)


def swap_vectors(groups: int, seed: int = 0, swaps: int = RANDOM_SWAPS) -> tuple[Iterator[FloatArray], int, bool]:
    """Return exchanges h in {0, 1}^G as chunks [b, G], their number, and whether these are all there are."""
    exact = groups <= EXACT_CLUSTERS
    total = 2**groups if exact else swaps
    if total * groups <= _KEPT_CELLS:
        return iter(_kept_swaps(groups, seed, total, exact=exact)), total, exact
    return _swap_chunks(groups, seed, total, exact=exact), total, exact


def _swap_chunks(groups: int, seed: int, total: int, *, exact: bool) -> Iterator[FloatArray]:
    rng = _generator(seed, 1)
    for start in range(0, total, _SWAP_ROWS):
        rows = min(_SWAP_ROWS, total - start)
        if exact:
            codes = np.arange(start, start + rows, dtype=np.int64)[:, None]
            yield ((codes >> np.arange(groups, dtype=np.int64)) & 1).astype(np.float64)
        else:
            yield rng.integers(0, 2, size=(rows, groups), dtype=np.int8).astype(np.float64)


@lru_cache(maxsize=2)
def _kept_swaps(groups: int, seed: int, total: int, *, exact: bool) -> tuple[FloatArray, ...]:
    """Keep the exchanges between regions: they depend on the number of clusters and the seed only."""
    chunks = tuple(_swap_chunks(groups, seed, total, exact=exact))
    for chunk in chunks:
        chunk.flags.writeable = False
    return chunks


def swap_test(a: FloatArray, b: FloatArray, statistic: Statistic, seed: int = 0, swaps: int = RANDOM_SWAPS) -> SwapTest:
    """Test whether the labels a and b are exchangeable within every cluster.

    Args:
        a: [G, F] cluster sums of the first model.
        b: [G, F] cluster sums of the second model.
        statistic: maps sums [..., F] to values [..., M]; T = statistic(a) - statistic(b).
        seed: for the random exchanges above 16 clusters.
        swaps: number of random exchanges.
    """
    total_a, total_b, change = a.sum(axis=0), b.sum(axis=0), b - a
    observed = statistic(total_a) - statistic(total_b)
    slack = 1e-12 * np.abs(observed)
    below = np.zeros(observed.shape, dtype=np.int64)
    above = np.zeros(observed.shape, dtype=np.int64)
    chunks, total, exact = swap_vectors(len(a), seed, swaps)
    for chunk in chunks:
        for start in range(0, len(chunk), _SWAP_BLOCK):
            # Every sum as one run of memory: the statistic reads them one by one.
            moved = (change.T @ chunk[start : start + _SWAP_BLOCK].T).T
            t = statistic(total_a + moved) - statistic(total_b - moved)
            below += (t <= observed + slack).sum(axis=0)
            above += (t >= observed - slack).sum(axis=0)
    extra = 0 if exact else 1  # the observed labelling itself joins the random ones
    less, greater = (below + extra) / (total + extra), (above + extra) / (total + extra)
    undefined = ~np.isfinite(observed)
    two_sided = np.minimum(1.0, 2 * np.minimum(less, greater))
    for p in (less, greater, two_sided):
        p[undefined] = np.nan
    return SwapTest(two_sided, less, greater, exact)


def smallest_p(groups: int) -> float:
    """The smallest two-sided p-value that the swap test can give with G clusters."""
    return min(1.0, 2.0 / 2.0**groups)


def inversion_interval(
    differences: FloatArray, sizes: FloatArray, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """All mean differences that the two-sided swap test does not reject.

    With shift delta, the cluster sums D_c - delta n_c are sign-flipped. Exchange h gives a value not above the observed
    one exactly when delta is at most the mean difference over the exchanged clusters, so the ends of the interval are
    order statistics of these subset means; no search is needed.

    Args:
        differences: [G] sums D_c of the differences in each cluster.
        sizes: [G] number of images (pixels) n_c.
        confidence: 1 - level of the test.
        seed: for the random exchanges above 16 clusters.

    Returns:
        The interval; infinite where G clusters cannot reject anything at this level.
    """
    chunks, total, exact = swap_vectors(len(sizes), seed)
    means, none_moved = [], 0
    for h in chunks:
        weight = h @ sizes
        moved = weight > 0
        none_moved += int((~moved).sum())
        means.append((h @ differences)[moved] / weight[moved])
    # p = (count + extra) / (total + extra) > alpha / 2  <=>  count > limit; exchanges that move nothing always count
    extra = 0 if exact else 1
    limit = (1 - confidence) / 2 * (total + extra) - extra
    rank = int(np.floor(limit + 1e-9)) + 1 - none_moved
    pool = np.concatenate(means)
    if rank <= 0 or rank > len(pool):
        return -np.inf, np.inf
    return float(np.partition(pool, rank - 1)[rank - 1]), float(np.partition(pool, len(pool) - rank)[len(pool) - rank])


def clustering(differences: FloatArray, labels: IndexArray) -> Clustering:
    """Estimate intraclass correlation and design effect of differences [N] in clusters [N]; NaN if undefined."""
    n, sizes = len(differences), np.bincount(labels)
    sizes = sizes[sizes > 0]
    groups = len(sizes)
    if groups < 2 or n <= groups:
        return Clustering(np.nan, np.nan, np.nan)
    _, labels = np.unique(labels, return_inverse=True)
    means = np.bincount(labels, weights=differences) / sizes
    between = (sizes * (means - differences.mean()) ** 2).sum() / (groups - 1)
    within = ((differences - means[labels]) ** 2).sum() / (n - groups)
    n0 = (n - (sizes**2).sum() / n) / (groups - 1)
    scale = between + (n0 - 1) * within
    icc = (between - within) / scale if scale > 0 else 0.0
    return Clustering(float(icc), float(n0), float(1 + (n0 - 1) * max(icc, 0.0)))


def holm(p_values: FloatArray) -> FloatArray:
    """Adjust p-values [m] after Holm (1979); NaN stay NaN and do not count."""
    return _adjust(p_values, lambda p: np.maximum.accumulate(np.arange(len(p), 0, -1) * p))


def benjamini_hochberg(p_values: FloatArray) -> FloatArray:
    """Adjust p-values [m] for the false discovery rate (Benjamini and Hochberg 1995)."""
    return _adjust(p_values, lambda p: np.minimum.accumulate((len(p) / np.arange(1, len(p) + 1) * p)[::-1])[::-1])


def _adjust(p_values: FloatArray, rule: Callable[[FloatArray], FloatArray]) -> FloatArray:
    p = np.asarray(p_values, dtype=np.float64)
    out = np.full(p.shape, np.nan)
    valid = np.flatnonzero(np.isfinite(p))
    order = valid[np.argsort(p[valid], kind="stable")]
    out[order] = np.minimum(1.0, rule(p[order]))
    return out


def win_rate(a: FloatArray, b: FloatArray, *, higher_is_better: bool = False) -> float:
    """Share of entries where a is better than b; ties count half; NaN pairs are left out."""
    gain = (a - b) if higher_is_better else (b - a)
    gain = gain[np.isfinite(gain)]
    return float(((gain > 0) + 0.5 * (gain == 0)).mean()) if len(gain) else float("nan")


def standardised(differences: FloatArray) -> float:
    """d_z: mean over standard deviation (divisor n - 1) of differences; NaN if they do not vary."""
    if len(differences) < 2:
        return float("nan")
    spread = float(differences.std(ddof=1))
    return float(differences.mean()) / spread if spread > 0 else float("nan")


def signed_rank(differences: FloatArray) -> tuple[float, float]:
    """Wilcoxon signed rank on cluster means [G]: statistic and p (exact up to 50 clusters without ties)."""
    from scipy.stats import wilcoxon

    plain = (
        len(differences) <= 50 and np.all(differences != 0) and len(np.unique(np.abs(differences))) == len(differences)
    )
    result: Any = wilcoxon(differences, zero_method="pratt", method="exact" if plain else "approx")
    return float(result.statistic), float(result.pvalue)


def t_test(differences: FloatArray) -> tuple[float, float]:
    """One-sample t on cluster means [G]: statistic and two-sided p."""
    from scipy.special import stdtr

    n = len(differences)
    t = standardised(differences) * np.sqrt(n)
    return float(t), float(2 * stdtr(n - 1, -abs(t)))


@dataclass(frozen=True, slots=True)
class Ranking:
    """How stable an order of K models is under resampling (rank 1 = best).

    Attributes:
        p_rank: [K, K] probability that model k has rank r + 1.
        mean_rank: [K].
        rank_interval: [K, 2] percentile interval of the rank.
        p_better: [K, K] probability that model k is strictly better than model l.
        kendall_tau: mean tau between each draw's order and the observed order.
    """

    p_rank: FloatArray
    mean_rank: FloatArray
    rank_interval: FloatArray
    p_better: FloatArray
    kendall_tau: float


def ranking(
    draws: FloatArray, observed: FloatArray, *, higher_is_better: bool = False, confidence: float = 0.95
) -> Ranking:
    """Summarise the ranks of K models over common resamples.

    Args:
        draws: [B, K] values under the same weights.
        observed: [K] values of the sample.
        higher_is_better: direction of the metric.
        confidence: of the rank interval.
    """
    sign = -1.0 if higher_is_better else 1.0
    values, centre = sign * draws, sign * observed
    models = values.shape[1]
    order = np.argsort(values, axis=1, kind="stable")  # equal values: the lower index comes first
    ranks = np.argsort(order, axis=1, kind="stable") + 1
    p_rank = np.stack([(ranks == r + 1).mean(axis=0) for r in range(models)], axis=1)
    p_better = (values[:, :, None] < values[:, None, :]).mean(axis=0)
    tail = (1 - confidence) / 2
    interval = np.quantile(ranks, [tail, 1 - tail], axis=0).T
    return Ranking(p_rank, ranks.mean(axis=0), interval, p_better, _mean_tau(values, centre))


def _mean_tau(values: FloatArray, centre: FloatArray) -> float:
    """Mean Kendall tau-b of each row of values [B, K] with centre [K]."""
    upper = np.triu_indices(values.shape[1], 1)
    if not len(upper[0]):
        return 1.0
    here = np.sign(values[:, upper[0]] - values[:, upper[1]])
    there = np.sign(centre[upper[0]] - centre[upper[1]])
    scale = np.sqrt((here != 0).sum(axis=1) * float((there != 0).sum()))
    with np.errstate(invalid="ignore", divide="ignore"):
        tau = (here @ there) / scale
    return float(np.nanmean(tau)) if np.isfinite(tau).any() else float("nan")
