"""Is sigma higher where it is claimed to be: in the far background, at silhouettes (ADU-Depth, Fig. 3)?

Per image and region the values inside are ranked against those outside. Distance alone makes most uncertainties look
informative, so the comparison is repeated within bins of predicted distance. Over images the sampling unit is the
drive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adubench.errors import ProtocolError
from adubench.evaluators import statistics
from adubench.evaluators.rank_correlation import Ranked, auroc_from_ranks, average_ranks, ranks_within
from adubench.evaluators.recalibration import N_BINS, distance_bin

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

MIN_SIDE = 50
"""An image counts for a region only with this many pixels inside and outside."""
SIGNIFICANT = 0.05

COLUMNS: tuple[str, ...] = (
    "n_in",
    "n_out",
    "auroc",
    "auroc_stratified",
    "log_ratio",
    "error_auroc",
    "error_auroc_stratified",
    "depth_auroc",
    "depth_auroc_stratified",
    "sigma2_in",
    "sigma2_out",
    "error2_in",
    "error2_out",
)
"""Columns of `region_rows`. `depth_*` is a trivial sigma that grows with predicted distance; `*2_*` are sums of
squares."""
STATISTICS: tuple[str, ...] = ("auroc", "auroc_stratified")


def claim_of(region: str) -> str:
    """The statistic that decides about a region: plain for distance bins (`depth...`), else at equal distance.

    Distance cannot be held fixed where it defines the region; elsewhere it would explain the result away.
    """
    return "auroc" if region.startswith("depth") else "auroc_stratified"


@dataclass(frozen=True, slots=True)
class RegionTest:
    """One region against its complement, over the images of a data set.

    Attributes:
        region: name.
        statistic: "auroc", or "auroc_stratified" (equal predicted distance).
        mean: mean over images of A; 0.5 says that sigma is no higher inside.
        ci: drive bootstrap of the mean, percentile interval.
        p: two-sided sign-flip test of mean A = 0.5 over drives; NaN where so few drives cannot reject anything.
        p_holm: p adjusted over the statistics that decide, see `claim_of`; NaN for the others.
        error_mean: the same statistic of the absolute error.
        images: images with at least 50 pixels on both sides.
        drives: drives with such images.
        verdict: "higher, justified" (errors are higher too), "higher, excess", "lower", "n.s.", or "too few drives",
            "n/a"; empty for a statistic that does not decide.
    """

    region: str
    statistic: str
    mean: float
    ci: tuple[float, float]
    p: float
    p_holm: float
    error_mean: float
    images: int
    drives: int
    verdict: str


def region_rows(
    masks: BoolArray,
    score: Ranked,
    error: Ranked,
    pred: Ranked,
    *,
    sigma: FloatArray | None = None,
    log_sigma: FloatArray | None = None,
) -> FloatArray:
    """Compare every region of one image with its complement inside the evaluation mask.

    Args:
        masks: bool [R, n] regions at the valid pixels.
        score: [n] uncertainty, larger where the model is less certain.
        error: [n] absolute residuals.
        pred: [n] predicted distance in metres.
        sigma: [n] standard deviations; NaN in the columns that need them where None (kind `score`).
        log_sigma: [n] their logarithms.

    Returns:
        float64 [R, 13] in the order of `COLUMNS`; NaN where a side is empty.
    """
    weights = np.atleast_2d(np.asarray(masks, np.bool_)).astype(np.float64)
    n = weights.shape[1]
    strata = distance_bin(pred.values)
    ranks = [column for v in (score, error, pred) for column in (v.ranks, ranks_within(v, strata))]
    sums = weights @ np.stack(ranks, axis=1)
    inside = weights @ (strata[:, None] == np.arange(N_BINS)).astype(np.float64)
    outside = np.bincount(strata, minlength=N_BINS) - inside
    rows = np.full((len(weights), len(COLUMNS)), np.nan)
    rows[:, 0] = inside.sum(axis=1)
    rows[:, 1] = n - rows[:, 0]
    for k, column in enumerate((2, 5, 7)):
        rows[:, column] = auroc_from_ranks(sums[:, 2 * k], rows[:, 0], n)
        # summed over strata, pairs times AUROC is the rank sum within strata minus its smallest possible value
        above = sums[:, 2 * k + 1] - (inside * (inside + 1)).sum(axis=1) / 2
        # strata without pixels on both sides add the rank sums of nothing but themselves, which cancel
        rows[:, column + 1] = _ratio(above, (inside * outside).sum(axis=1))
    if log_sigma is not None and sigma is not None:
        squares = np.stack([log_sigma, sigma * sigma, error.values * error.values], axis=1)
        totals, parts = squares.sum(axis=0), weights @ squares
        rest = totals - parts
        rows[:, 4] = _ratio(parts[:, 0], rows[:, 0]) - _ratio(rest[:, 0], rows[:, 1])
        rows[:, 9:13:2], rows[:, 10:13:2] = parts[:, 1:], np.maximum(rest[:, 1:], 0.0)
    return rows


def auroc(values: FloatArray, inside: BoolArray) -> float:
    """P(value inside > value outside) + P(equal) / 2 for one region [n]; NaN where a side is empty."""
    ranks = average_ranks(values)
    return float(auroc_from_ranks(float(ranks[inside].sum()), int(inside.sum()), values.size))


def _ratio(sums: FloatArray, counts: FloatArray) -> FloatArray:
    out = np.full(sums.shape, np.nan)
    np.divide(sums, counts, out=out, where=counts > 0)
    return out


def z_ratios(rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """RMSE / RMV inside and outside [R] from rows [N, R, 13]; 1 is right, above 1 sigma is too small there."""
    sums = np.nansum(rows[..., 9:13], axis=0)
    inside, outside = _ratio(sums[:, 2], sums[:, 0]), _ratio(sums[:, 3], sums[:, 1])
    return np.sqrt(inside), np.sqrt(outside)


def eligible(rows: FloatArray) -> BoolArray:
    """Images and regions [N, R] with enough pixels on both sides."""
    enough: BoolArray = (rows[..., 0] >= MIN_SIDE) & (rows[..., 1] >= MIN_SIDE)
    return enough


def assess_regions(
    rows: FloatArray,
    regions: tuple[str, ...],
    drives: list[str] | tuple[str, ...],
    *,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[RegionTest]:
    """Test all regions, plain and at equal distance; the p-values that decide are adjusted together.

    Args:
        rows: [N, R, 13] of `region_rows`.
        regions: R names.
        drives: N names of the sampling units.
        resamples: of the drive bootstrap.
        confidence: of the intervals.
        seed: of bootstrap and random sign flips.

    Raises:
        ProtocolError: the numbers of rows, names and drives do not fit.
    """
    if rows.ndim != 3 or rows.shape[:2] != (len(drives), len(regions)):
        raise ProtocolError(f"{len(drives)} drives and {len(regions)} regions do not fit rows of shape {rows.shape}.")
    cells = [(r, region, name) for r, region in enumerate(regions) for name in STATISTICS]
    if not cells:
        return []
    usable = eligible(rows)
    labels, names = statistics.label_clusters(drives)
    values, errors, keep = [], [], []
    for r, _, name in cells:
        column = rows[:, r, COLUMNS.index(name)]
        keep.append(usable[:, r] & np.isfinite(column))
        values.append(column)
        errors.append(rows[:, r, COLUMNS.index(f"error_{name}")])
    kept = np.stack(keep, axis=1)
    sums = statistics.sum_by_cluster(
        np.stack([np.where(kept, np.stack(values, axis=1), 0.0), kept.astype(np.float64)], axis=1), labels, len(names)
    )
    groups = (sums[:, 1] > 0).sum(axis=0)
    intervals = _intervals(sums, resamples, confidence, seed)
    p_values = _p_values(sums, groups, seed)
    deciding = np.array([claim_of(region) == name for _, region, name in cells])
    adjusted = statistics.holm(np.where(deciding, p_values, np.nan))
    out = []
    for k, (_, region, name) in enumerate(cells):
        at, drive_count = kept[:, k], int(groups[k])
        mean = float(values[k][at].mean()) if at.any() else math.nan
        error = float(errors[k][at].mean()) if at.any() else math.nan
        p, holm = float(p_values[k]), float(adjusted[k])
        words = verdict(mean, holm, error, drive_count) if deciding[k] else ""
        out.append(RegionTest(region, name, mean, intervals[k], p, holm, error, int(at.sum()), drive_count, words))
    return out


def _mean_of(sums: FloatArray) -> FloatArray:
    """[..., 2, K] sums and counts to means [..., K]; NaN without images."""
    return _ratio(sums[..., 0, :], sums[..., 1, :])


def _intervals(sums: FloatArray, resamples: int, confidence: float, seed: int) -> list[tuple[float, float]]:
    """Percentile intervals over drives of K means, from sums [G, 2, K]; NaN where they are undefined."""
    undefined = (math.nan, math.nan)
    if len(sums) < 2:
        return [undefined] * sums.shape[2]
    found = []
    for draws in _mean_of(statistics.bootstrap_sums(sums, resamples, seed)).T:
        good, dropped = statistics.drop_undefined(draws)
        empty = dropped > 0.05 or good.size == 0
        found.append(undefined if empty else statistics.percentile_interval(good, confidence))
    return found


def _p_values(sums: FloatArray, groups: NDArray[np.intp], seed: int) -> FloatArray:
    """Two-sided p of K means against 0.5 by sign flips of drives; NaN where so few drives cannot reject anything."""
    # exchanging a drive with a model that has 0.5 everywhere flips the sign of its difference
    null = np.stack([0.5 * sums[:, 1], sums[:, 1]], axis=1)
    flat = (len(sums), -1)
    test = statistics.swap_test(
        sums.reshape(flat), null.reshape(flat), lambda s: _mean_of(s.reshape(*s.shape[:-1], 2, -1)), seed
    )
    hopeless = [statistics.smallest_p(int(g)) >= SIGNIFICANT for g in groups]
    return np.where(hopeless, np.nan, test.two_sided)


def verdict(mean: float, p_holm: float, error_mean: float, drives: int) -> str:
    """Put a test into words, see `RegionTest.verdict`."""
    if not math.isfinite(mean):
        return "n/a"
    if not math.isfinite(p_holm):
        return "too few drives" if statistics.smallest_p(drives) >= SIGNIFICANT else "n/a"
    if p_holm >= SIGNIFICANT or mean == 0.5:
        return "n.s."
    if mean < 0.5:
        return "lower"
    return "higher, justified" if error_mean > 0.5 else "higher, excess"
