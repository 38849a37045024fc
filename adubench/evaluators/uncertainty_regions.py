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
    usable = eligible(rows)
    found = []
    for r, region in enumerate(regions):
        for name in STATISTICS:
            column = COLUMNS.index(name)
            keep = usable[:, r] & np.isfinite(rows[:, r, column])
            labels = [d for d, k in zip(drives, keep, strict=True) if k]
            values = rows[keep, r, column]
            error = rows[keep, r, COLUMNS.index(f"error_{name}")]
            ci, p, groups = _mean_test(values, labels, resamples, confidence, seed)
            mean = float(values.mean()) if values.size else math.nan
            error_mean = float(error.mean()) if error.size else math.nan
            found.append((region, name, mean, ci, p, error_mean, len(labels), groups))
    deciding = np.array([claim_of(region) == name for region, name, *_ in found])
    adjusted = statistics.holm(np.where(deciding, [f[4] for f in found], np.nan))
    out = []
    for f, holm, decides in zip(found, adjusted.tolist(), deciding.tolist(), strict=True):
        region, name, mean, ci, p, error, images, groups = f
        words = verdict(mean, holm, error, groups) if decides else ""
        out.append(RegionTest(region, name, mean, ci, p, holm, error, images, groups, words))
    return out


def _mean_test(
    values: FloatArray, drives: list[str], resamples: int, confidence: float, seed: int
) -> tuple[tuple[float, float], float, int]:
    """Interval of the mean, p of mean = 0.5, number of drives."""
    if not drives:
        return (math.nan, math.nan), math.nan, 0
    labels, names = statistics.label_clusters(drives)
    ones = np.ones(values.size)
    sums = statistics.sum_by_cluster(np.stack([values, ones], axis=1), labels, len(names))
    ci = (math.nan, math.nan)
    if len(names) > 1:
        drawn = statistics.bootstrap_sums(sums, resamples, seed)
        ci = statistics.percentile_interval(drawn[:, 0] / drawn[:, 1], confidence)
    if statistics.smallest_p(len(names)) >= SIGNIFICANT:
        return ci, math.nan, len(names)
    # exchanging a drive with a model that has 0.5 everywhere flips the sign of its difference
    null = sums * np.array([0.0, 1.0]) + sums[:, 1:] * np.array([0.5, 0.0])
    test = statistics.swap_test(sums, null, lambda s: s[..., :1] / s[..., 1:], seed)
    return ci, float(test.two_sided[0]), len(names)


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
