"""The `regions` part of the `uncertainty` section: is sigma higher there, justly, and is it right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.evaluators import calibration, uncertainty_regions
from adubench.evaluators.sparsification import ERRORS
from adubench.evaluators.uncertainty import ImageUncertainty, UncertaintyOptions
from adubench.evaluators.uncertainty_values import Resampling

FloatArray = NDArray[np.float64]


def region_section(
    records: Sequence[ImageUncertainty], drives: Sequence[str], options: UncertaintyOptions, resampling: Resampling
) -> dict[str, Any]:
    """Per region: both tests, effect sizes, over- or under-confidence, coverage curve, areas inside."""
    rows = np.stack([r.region_rows for r in records])
    tests = uncertainty_regions.assess_regions(
        rows,
        options.regions,
        list(drives),
        resamples=resampling.resamples,
        confidence=resampling.confidence,
        seed=resampling.seed,
    )
    by_name = {(t.region, t.statistic): t for t in tests}
    inside, outside = uncertainty_regions.z_ratios(rows)
    usable = uncertainty_regions.eligible(rows)
    pixels = sum(r.n for r in records)
    out: dict[str, Any] = {}
    for k, region in enumerate(options.regions):
        plain = rows[usable[:, k], k]
        column = uncertainty_regions.COLUMNS.index
        entry: dict[str, Any] = {
            "verdict": by_name[region, uncertainty_regions.claim_of(region)].verdict,
            "decided_by": uncertainty_regions.claim_of(region),
            "share": float(rows[:, k, 0].sum() / pixels),
            "n_pixels": int(rows[:, k, 0].sum()),
            "n_images": int(usable[:, k].sum()),
            "log_ratio": _mean(plain[:, column("log_ratio")]),
            "depth_auroc": _mean(plain[:, column("depth_auroc")]),
            "depth_auroc_stratified": _mean(plain[:, column("depth_auroc_stratified")]),
            "z_ratio_inside": float(inside[k]),
            "z_ratio_outside": float(outside[k]),
        }
        for claim in uncertainty_regions.STATISTICS:
            test = by_name[region, claim]
            entry[claim] = {
                "mean": test.mean,
                "ci": list(test.ci),
                "p": test.p,
                "p_holm": test.p_holm,
                "error": test.error_mean,
                "n_images": test.images,
                "n_clusters": test.drives,
            }
        entry |= _region_coverage(records, k) | _region_means(records, k)
        out[region] = entry
    return out


def _region_coverage(records: Sequence[ImageUncertainty], k: int) -> dict[str, Any]:
    counts = [r.density.region_counts[k] for r in records if r.density is not None]
    n = sum(r.region_rows[k, 0] for r in records)
    if not counts or not n > 0:
        return {}
    observed = np.sum(counts, axis=0, dtype=np.int64) / n
    return {"ece": float(calibration.calibration_errors(observed)["ece"]), "coverage": observed.tolist()}


def _region_means(records: Sequence[ImageUncertainty], k: int) -> dict[str, Any]:
    areas = [r.region_areas[k] for r in records if r.region_areas is not None]
    areas = [a for a in areas if np.isfinite(a).all()]
    if not areas:
        return {}
    mean = np.mean(areas, axis=0)
    named = {f"{name}_{e}": float(mean[a, m]) for a, name in enumerate(("ause", "aurg")) for m, e in enumerate(ERRORS)}
    return named | {"ause_images": len(areas)}


def _mean(values: FloatArray) -> float:
    good = values[np.isfinite(values)]
    return float(good.mean()) if good.size else math.nan
