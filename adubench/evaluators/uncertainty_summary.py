"""The `uncertainty` section of a result: everything about one uncertainty over one data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import ProtocolError
from adubench.evaluators import calibration, sparsification, uncertainty_kinds
from adubench.evaluators.pixel_pool import PixelPool
from adubench.evaluators.recalibration import (
    Isotonic,
    Temperature,
    conformal_factor,
    fit_isotonic,
    fit_temperature,
)
from adubench.evaluators.sparsification import ERRORS
from adubench.evaluators.uncertainty import DensityScores, ImageUncertainty, UncertaintyOptions
from adubench.evaluators.uncertainty_region_section import region_section
from adubench.evaluators.uncertainty_values import (
    Resampling,
    density_values,
    image_means,
    level_name,
    paired_claim,
    pooled_values,
    scores_of_images,
)

FloatArray = NDArray[np.float64]

_PREFIXES = tuple(f"{name}_" for name in sparsification.BASELINES)


@dataclass(frozen=True, slots=True)
class Recalibration:
    """What a calibration split says about an uncertainty.

    Attributes:
        temperature: factors for sigma; give them to `UncertaintyOptions` to score another split after it.
        conformal: named level ("coverage_90") to the factor that makes its interval cover.
        isotonic: map of quantile levels.
    """

    temperature: Temperature
    conformal: dict[str, float]
    isotonic: Isotonic


def fit_recalibration(
    records: Sequence[ImageUncertainty], pool: PixelPool, options: UncertaintyOptions, *, by_distance: bool = False
) -> Recalibration:
    """Fit all recalibrations on the records of a calibration split.

    Args:
        records: of its images.
        pool: of its pixels.
        options: those the records were measured with.
        by_distance: one temperature per bin of predicted distance.

    Raises:
        ProtocolError: kind `score`, no pixels, or no error.
    """
    scores = [r.density for r in records if r.density is not None]
    if not scores:
        raise ProtocolError("recalibration needs images and an uncertainty with a scale: a score has none.")
    family = options.interval_family
    temperature = fit_temperature(np.stack([d.temperature_sums for d in scores]), family, by_distance=by_distance)
    gt, pred, _, sigma = pool.pixels
    residual = uncertainty_kinds.residuals(gt, pred, options.space)
    factors = {level_name(a): conformal_factor(residual, sigma, a, family) for a in calibration.NAMED_LEVELS}
    counts = sum(d.counts[calibration.FORMS.index("quantile")] for d in scores)
    observed = np.asarray(counts)[: calibration.N_LEVELS] / sum(r.n for r in records)
    return Recalibration(temperature, factors, fit_isotonic(observed))


def summarise(
    records: Sequence[ImageUncertainty | None],
    drives: Sequence[str],
    options: UncertaintyOptions,
    *,
    pool: PixelPool | None = None,
    recalibration: Recalibration | None = None,
    resampling: Resampling | None = None,
    pooled_curves: bool = False,
) -> dict[str, Any]:
    """Make the section of the result file: plain dicts, lists and numbers, NaN where undefined.

    Args:
        records: of all images in frame order; None for images that were left out.
        drives: their sampling units (drive, block or image names).
        options: those the records were measured with.
        pool: their pixels; without it no ENCE and no pooled values.
        recalibration: fitted on another split, whose temperature is in `options`.
        resampling: of intervals.
        pooled_curves: also sparsify over all pixels.

    Returns:
        Scores by name, and `baselines`, `intervals` (of a baseline under its name and the score's), `undefined_images`,
        `claims`, `curves`, `regions`, `recalibration`.

    Raises:
        ProtocolError: no image has two valid pixels, or the numbers of records and drives differ.
    """
    if len(records) != len(drives):
        raise ProtocolError(f"{len(records)} records do not fit {len(drives)} drives.")
    kept = [(r, d) for r, d in zip(records, drives, strict=True) if r is not None]
    if not kept:
        raise ProtocolError("no image has two valid pixels: there is no uncertainty to evaluate.")
    images, names = [r for r, _ in kept], [d for _, d in kept]
    resampling = resampling or Resampling()
    out = _about(images, names, options, len(records) - len(images))
    means, intervals, undefined = image_means(images, names, resampling)
    out |= {name: v for name, v in means.items() if not name.startswith(_PREFIXES)}
    out["baselines"] = {
        baseline: {name.removeprefix(prefix): v for name, v in means.items() if name.startswith(prefix)}
        for baseline, prefix in zip(sparsification.BASELINES, _PREFIXES, strict=True)
    }
    out["undefined_images"] = undefined
    curves = _mean_curves(images)
    density = [r.density for r in images if r.density is not None]
    if density:
        pixels = np.array([r.n for r in images], np.float64)
        values, more, observed = density_values(density, pixels, names, options.interval_family, resampling)
        out |= values
        out["tau"] = common_factor(density)
        intervals |= more
        curves["calibration"] = _calibration_curves(observed)
        if uncertainty_kinds.family_of(options.kind) is None and options.family is None:
            out["better_family"] = "laplace" if values["nll_laplace"] < values["nll_gaussian"] else "gaussian"
    pooled = pooled_values(pool, options, curves=pooled_curves) if pool is not None else {}
    after = pooled.pop("after", {})
    out |= pooled
    out["claims"] = {f"nause_{e}_below_depth": paired_claim(images, names, e, resampling) for e in ERRORS}
    if options.regions:
        out["regions"] = region_section(images, names, options, resampling)
    if recalibration is not None:
        scores = [r.recalibrated for r in images if r.recalibrated is not None]
        out["recalibration"] = _recalibrated(images, names, options, recalibration, scores, after, resampling)
        if pool is not None and density:
            out["recalibration"]["ece_quantile_isotonic"] = _isotonic_ece(pool, options, recalibration)
    out["intervals"] = {name: list(ci) for name, ci in intervals.items()}
    out["curves"] = curves
    return out


def common_factor(scores: Sequence[DensityScores]) -> float:
    """Return tau, the mean over images of |residual| / b with b = sigma / sqrt(2) (ADU-Depth's heads predict b).

    It is the factor for sigma that maximises the Laplace likelihood of the very images it is measured on: above 1 sigma
    is too small.
    """
    sums = np.stack([d.temperature_sums[0] for d in scores])
    sums = sums[sums[:, 0] > 0]
    return float(np.sqrt(2) * np.mean(sums[:, 2] / sums[:, 0])) if len(sums) else float("nan")


def per_image_columns(records: Sequence[ImageUncertainty | None]) -> dict[str, list[float]]:
    """Columns for the per-image table, one entry per image (NaN for images that were left out).

    Names: `unc_` and the score: areas, correlations, `nll_gaussian`, `nll_laplace`, `crps_gaussian`, `crps_laplace`,
    `floored`. Baselines stay out.
    """
    found = [(i, r) for i, r in enumerate(records) if r is not None]
    wanted: dict[str, FloatArray] = {}
    if found:
        images = [r for _, r in found]
        wanted = {k: v for k, v in scores_of_images(images).items() if not k.startswith(_PREFIXES)}
        if not any(np.isfinite(wanted["kendall"])):
            del wanted["kendall"]  # on request only
        if all(r.density is not None for r in images):
            sums = np.array([r.density.sums / r.n for r in images if r.density is not None])
            names = ("nll_gaussian", "nll_laplace", "crps_gaussian", "crps_laplace")
            wanted |= {name: sums[:, k] for k, name in enumerate(names)}
        wanted["floored"] = np.array([float(r.floored) for r in images])
    columns: dict[str, list[float]] = {}
    for name, values in wanted.items():
        column = np.full(len(records), np.nan)
        column[[i for i, _ in found]] = values
        columns[f"unc_{name}"] = column.tolist()
    return columns


def _about(
    records: Sequence[ImageUncertainty], drives: Sequence[str], options: UncertaintyOptions, left_out: int
) -> dict[str, Any]:
    pixels = sum(r.n for r in records)
    return {
        "kind": uncertainty_kinds.canonical_kind(options.kind),
        "space": options.space,
        "family": options.interval_family,
        "steps": options.steps,
        "sigma_floor": options.floor,
        "seed": options.seed,
        "n_images": len(records),
        "n_images_left_out": left_out,
        "n_clusters": len(set(drives)),
        "n_pixels": pixels,
        "n_floored": sum(r.floored for r in records),
        "floored_share": sum(r.floored for r in records) / pixels,
        "kuleshov_levels": calibration.N_LEVELS,
    }


def _mean_curves(records: Sequence[ImageUncertainty]) -> dict[str, Any]:
    """Means over images of the sparsification curves; x is the share of pixels taken away."""
    steps = records[0].oracle.shape[1] - 1

    def named(curves: list[FloatArray]) -> dict[str, list[float]]:
        return dict(zip(ERRORS, np.mean(curves, axis=0).tolist(), strict=True))

    out: dict[str, Any] = {"removed": [t / steps for t in range(steps + 1)]}
    out["oracle"] = named([r.oracle for r in records])
    for name in records[0].curves:
        out[name] = named([r.curves[name] for r in records])
    return {"sparsification": out}


def _calibration_curves(observed: FloatArray) -> dict[str, list[float]]:
    named = dict(zip(calibration.FORMS, observed.tolist(), strict=True))
    return {"levels": calibration.LEVELS.tolist()} | named


def _recalibrated(
    records: Sequence[ImageUncertainty],
    drives: Sequence[str],
    options: UncertaintyOptions,
    recalibration: Recalibration,
    scores: list[DensityScores],
    ences: dict[str, Any],
    resampling: Resampling,
) -> dict[str, Any]:
    t = recalibration.temperature
    out: dict[str, Any] = {
        "family": t.family,
        "temperature": t.value,
        "temperature_by_distance": None if t.by_distance is None else t.by_distance.tolist(),
        "conformal": recalibration.conformal,
    }
    if scores:
        pixels = np.array([r.n for r in records], np.float64)
        values, intervals, observed = density_values(scores, pixels, drives, options.interval_family, resampling)
        out["after"] = values | ences
        out["after_intervals"] = {name: list(ci) for name, ci in intervals.items()}
        out["after_calibration"] = _calibration_curves(observed)
    return out


def _isotonic_ece(pool: PixelPool, options: UncertaintyOptions, recalibration: Recalibration) -> float:
    gt, pred, _, sigma = pool.pixels
    residual = uncertainty_kinds.residuals(gt, pred, options.space)
    asked = recalibration.isotonic.levels(calibration.LEVELS)
    observed = calibration.coverage(residual, sigma, asked, "quantile")
    return float(np.abs(observed - calibration.LEVELS).mean())
