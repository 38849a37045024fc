"""Data-set values of an uncertainty and their intervals over drives, from the records of its images.

Sparsification and correlations are means over images of per-image values; likelihoods and coverage are means over
pixels, from additive sums. Both are ratios or functions of sums over drives, so one resampling of drives serves all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.evaluators import calibration, rank_correlation, sparsification, statistics, uncertainty_kinds
from adubench.evaluators.pixel_pool import PixelPool
from adubench.evaluators.rank_correlation import CORRELATIONS
from adubench.evaluators.sparsification import ERRORS
from adubench.evaluators.uncertainty import SUMS, DensityScores, ImageUncertainty, UncertaintyOptions
from adubench.evaluators.uncertainty_regions import SIGNIFICANT

FloatArray = NDArray[np.float64]

INVERSION_BELOW = 20
"""With fewer drives the interval of a mean difference comes from inverting the sign-flip test."""
_PIXEL_MEANS = ("nll_gaussian", "nll_laplace", "crps_gaussian", "crps_laplace")

_OF_DEPTH = ("spearman", "pearson", "spearman_rel")  # the others compare distance with itself


@dataclass(frozen=True, slots=True)
class Resampling:
    """How intervals are made.

    Attributes:
        resamples: of the drive bootstrap.
        confidence: of intervals.
        seed: of resamples and random sign flips.
    """

    resamples: int = 10_000
    confidence: float = 0.95
    seed: int = 0


def level_name(level: float) -> str:
    """Name of a level in results: 0.683 is "coverage_68.3"."""
    return f"coverage_{100 * level:g}"


def scores_of_images(records: Sequence[ImageUncertainty]) -> dict[str, FloatArray]:
    """Per-image values: name to [N], NaN where undefined.

    Names: `ause_<error>`, `aurg_<error>`, `nause_<error>`, `naurg_<error>`, the correlations, and `<baseline>_<name>`.
    """
    full = np.array([r.full for r in records]).reshape(-1, 3)
    out: dict[str, FloatArray] = {}
    for ordering in records[0].curves if records else ():
        prefix = "" if ordering == "model" else f"{ordering}_"
        areas = np.array([r.areas[ordering] for r in records])
        relative = np.full(areas.shape, np.nan)
        np.divide(areas, full[:, None], out=relative, where=np.broadcast_to(full[:, None] > 0, areas.shape))
        for a, area in enumerate(("ause", "aurg")):
            for m, error in enumerate(ERRORS):
                out[f"{prefix}{area}_{error}"] = areas[:, a, m]
                out[f"{prefix}n{area}_{error}"] = relative[:, a, m]
    for prefix, field, wanted in (("", "correlations", CORRELATIONS), ("depth_", "depth_correlations", _OF_DEPTH)):
        values = np.array([getattr(r, field) for r in records]).reshape(-1, len(CORRELATIONS))
        out |= {f"{prefix}{name}": values[:, CORRELATIONS.index(name)] for name in wanted}
    out["kendall"] = np.array([r.kendall for r in records])
    return out


def image_means(
    records: Sequence[ImageUncertainty], drives: Sequence[str], resampling: Resampling
) -> tuple[dict[str, float], dict[str, tuple[float, float]], dict[str, int]]:
    """Means over images, their intervals, and how many images were undefined (only where some were)."""
    scores = {name: v for name, v in scores_of_images(records).items() if np.isfinite(v).any()}
    if not scores:
        return {}, {}, {}
    table = np.stack(list(scores.values()), axis=1)
    defined = np.isfinite(table)
    rows = np.stack([np.where(defined, table, 0.0), defined.astype(np.float64)], axis=1)
    means = rows[:, 0].sum(axis=0) / rows[:, 1].sum(axis=0)
    intervals = _bootstrap(rows, drives, _ratio, resampling)
    names = list(scores)
    left_out = {name: int((~defined[:, k]).sum()) for k, name in enumerate(names) if not defined[:, k].all()}
    return dict(zip(names, means.tolist(), strict=True)), dict(zip(names, intervals, strict=True)), left_out


def density_values(
    scores: Sequence[DensityScores], pixels: NDArray[Any], drives: Sequence[str], family: str, resampling: Resampling
) -> tuple[dict[str, float], dict[str, tuple[float, float]], FloatArray]:
    """Pooled likelihoods and calibration errors.

    Args:
        scores: N records.
        pixels: [N] their pixels.
        drives: N names of the sampling units.
        family: density behind the unqualified names (`ece`, `coverage_90`, ...).
        resampling: how intervals are made.

    Returns:
        values, intervals, and the observed curves [3, 100] in the order of `calibration.FORMS`.
    """
    rows = np.stack([np.concatenate([[n], d.sums, d.counts.ravel()]) for n, d in zip(pixels, scores, strict=True)])
    names, _ = _density_row(rows[:1], family)

    def statistic(sums: FloatArray) -> FloatArray:
        return _density_row(sums, family)[1]

    total = rows.sum(axis=0)[None]
    values = statistic(total)[0]
    intervals = _bootstrap(rows, drives, statistic, resampling)
    curves = (total[0, 1 + len(SUMS) :] / total[0, 0]).reshape(3, -1)[:, : calibration.N_LEVELS]
    return dict(zip(names, values.tolist(), strict=True)), dict(zip(names, intervals, strict=True)), curves


def _density_row(sums: FloatArray, family: str) -> tuple[list[str], FloatArray]:
    """Names and values [B, K] from sums [B, 1 + 7 + 3 * 123]."""
    n = sums[:, 0]
    means = dict(zip(SUMS, (sums[:, 1 : 1 + len(SUMS)] / n[:, None]).T, strict=True))
    out = {name: means[name] for name in _PIXEL_MEANS}
    out["sharpness"], out["residual_rms"] = np.sqrt(means["sigma2"]), np.sqrt(means["error2"])
    out["cv_sigma"] = np.sqrt(np.maximum(means["sigma2"] - means["sigma"] ** 2, 0.0)) / means["sigma"]
    observed = (sums[:, 1 + len(SUMS) :] / n[:, None]).reshape(len(sums), 3, -1)
    last = calibration.N_LEVELS + len(calibration.LEVELS_19)
    for k, form in enumerate(calibration.FORMS):
        curve = observed[:, k]
        errors = calibration.calibration_errors(curve[:, : calibration.N_LEVELS])
        if form == "quantile":
            out["kuleshov"] = errors["kuleshov"]
        errors.pop("kuleshov")
        errors["ece19"] = np.abs(curve[:, calibration.N_LEVELS : last] - calibration.LEVELS_19).mean(axis=1)
        if form == family:
            out |= errors
            out |= {level_name(a): curve[:, last + j] for j, a in enumerate(calibration.NAMED_LEVELS)}
        out |= {f"{name}_{form}": v for name, v in errors.items()}
    for score in ("nll", "crps"):
        out[score] = out[f"{score}_{family}"]
    return list(out), np.stack(list(out.values()), axis=1)


def paired_claim(
    records: Sequence[ImageUncertainty], drives: Sequence[str], error: str, resampling: Resampling
) -> dict[str, Any]:
    """Does the model rank errors better than predicted distance does: nAUSE(model) - nAUSE(depth baseline).

    Returns:
        `delta` (negative: the model is better), `ci`, `interval` ("inversion" or "percentile"), `p` of the sign-flip
        test over drives (NaN where so few drives cannot reject anything), `n_images`, `n_clusters`.
    """
    scores = scores_of_images(records)
    difference = scores[f"nause_{error}"] - scores[f"depth_nause_{error}"] if scores else np.empty(0)
    keep = np.isfinite(difference)
    difference, kept = difference[keep], [d for d, k in zip(drives, keep, strict=True) if k]
    labels, names = statistics.label_clusters(kept)
    out: dict[str, Any] = {
        "delta": math.nan,
        "ci": (math.nan, math.nan),
        "interval": "",
        "p": math.nan,
        "n_images": len(kept),
        "n_clusters": len(names),
    }
    if not kept:
        return out
    out["delta"] = float(difference.mean())
    rows = np.stack([difference, np.ones(len(kept))], axis=1)
    out["ci"], out["interval"] = _bootstrap(rows[..., None], kept, _ratio, resampling)[0], "percentile"
    sums = statistics.sum_by_cluster(rows, labels, len(names))
    if len(names) < INVERSION_BELOW:
        ci = statistics.inversion_interval(sums[:, 0], sums[:, 1], resampling.confidence, resampling.seed)
        if np.isfinite(ci).all():
            out["ci"], out["interval"] = ci, "inversion"
    if statistics.smallest_p(len(names)) < SIGNIFICANT:
        zero = sums * np.array([0.0, 1.0])
        test = statistics.swap_test(sums, zero, lambda s: s[..., :1] / s[..., 1:], resampling.seed)
        out["p"] = float(test.two_sided[0])
    return out


def pooled_values(pool: PixelPool, options: UncertaintyOptions, *, curves: bool = False) -> dict[str, Any]:
    """Values over the pixels of all images at once; they mix ranking within images and between images.

    Args:
        pool: of the data set.
        options: those the records were measured with.
        curves: also one sparsification over all pixels (`pooled_ause_...`).

    Returns:
        `ence`, `ence_20`, `ence_equal_width` with their diagrams (kinds with a scale), `pooled_<correlation>`, and
        `pooled_pixels`.
    """
    gt, pred, score, sigma = pool.pixels
    out: dict[str, Any] = {"pooled_pixels": int(gt.size), "pooled_rate": pool.rate}
    if gt.size < 2:
        return out
    residual = uncertainty_kinds.residuals(gt, pred, options.space)
    scaled = bool(np.isfinite(sigma[0]))
    if scaled:
        out |= _ences(sigma, residual)
        if options.temperature is not None:
            out["after"] = _ences(sigma * options.temperature.factor(pred), residual)
    ranked = [rank_correlation.rank(v) for v in (score, np.abs(residual), pred)]
    found = rank_correlation.correlations(ranked[0], ranked[1], ranked[2], gt, sigma if scaled else None)
    out |= {f"pooled_{name}": float(v) for name, v in zip(CORRELATIONS, found, strict=True)}
    if curves:
        errors = sparsification.pixel_errors(gt, pred, options.steps)
        for prefix, v in (("", ranked[0]), ("depth_", ranked[2])):
            s = sparsification.sparsify(errors, v.values, v.order)
            for name in ("ause", "aurg", "nause", "naurg"):
                areas = getattr(s, name).tolist()
                out |= {f"{prefix}pooled_{name}_{e}": a for e, a in zip(ERRORS, areas, strict=True)}
    return out


def _ences(sigma: FloatArray, residual: FloatArray) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, bins in (("ence", 10), ("ence_20", 20)):
        if sigma.size >= 50 * bins:
            found = calibration.ence(sigma, residual, bins)
            out[name] = found.value
            out[f"{name}_bins"] = {"rmv": found.rmv.tolist(), "rmse": found.rmse.tolist()}
    out["ence_equal_width"] = calibration.ence_equal_width(sigma, residual).value
    return out


def _ratio(sums: FloatArray) -> FloatArray:
    """[..., 2, K] to [..., K]."""
    out = np.full(sums[..., 0, :].shape, np.nan)
    np.divide(sums[..., 0, :], sums[..., 1, :], out=out, where=sums[..., 1, :] > 0)
    return out


def _bootstrap(
    rows: FloatArray, drives: Sequence[str], statistic: statistics.Statistic, resampling: Resampling
) -> list[tuple[float, float]]:
    """Percentile intervals of K statistics over drives; NaN with one drive or more than 5 % undefined draws."""
    labels, names = statistics.label_clusters(drives)
    sums = statistics.sum_by_cluster(rows, labels, len(names))
    width = statistic(sums[:1]).shape[-1]
    if len(names) < 2:
        return [(math.nan, math.nan)] * width
    draws = statistic(statistics.bootstrap_sums(sums, resampling.resamples, resampling.seed))
    found = []
    for column in draws.T:
        good, dropped = statistics.drop_undefined(column)
        empty = dropped > 0.05 or good.size == 0
        found.append((math.nan, math.nan) if empty else statistics.percentile_interval(good, resampling.confidence))
    return found
