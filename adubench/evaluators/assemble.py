"""From rows of sums to a result: per-image metrics, both aggregations, counts, warnings."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from adubench.errors import counted
from adubench.evaluators.metrics import metrics_from_moments
from adubench.evaluators.plausibility import scale_warnings
from adubench.evaluators.provenance import base_provenance, data_fingerprint
from adubench.evaluators.result import EvaluationResult, MomentTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from adubench.evaluators.protocols import Protocol
    from adubench.evaluators.run import TrackScores


@dataclass(frozen=True, slots=True)
class Context:
    """What the evaluator knows about a run besides the scores.

    Attributes:
        split: name of the split, None for explicit ground truth.
        expected: number of images that the split has under the protocol; None when no count is expected.
        frames: names of the scored frames, in order.
        drives: their clusters.
        missing: frames without prediction.
        unknown: predictions that belong to no frame.
        label: how tables call the result.
        kind: declared kind of the predictions.
        facts: further provenance (paths, ground-truth kind and layout, cache, workers).
        warnings: sentences found while planning.
    """

    split: str | None
    expected: int | None
    frames: tuple[str, ...]
    drives: tuple[str, ...]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    label: str
    kind: str
    facts: dict[str, Any]
    warnings: tuple[str, ...] = field(default=())


def assemble(
    protocol: Protocol, position: int, rows: Sequence[TrackScores], context: Context, *, compiled: bool
) -> EvaluationResult:
    """Build the result of one protocol.

    Args:
        protocol: the record that made the scores.
        position: its place among the track's protocols.
        rows: one per frame of `context.frames`.
        context: what is known about the run.
        compiled: the compiled kernel made the sums.
    """
    scores = [row.scores[position] for row in rows]
    values = np.array([s.moments for s in scores], np.float64).reshape(len(scores), 1, -1)
    table = MomentTable(context.frames, context.drives, ("all",), values)
    filled = values[:, 0, 0] > 0
    per_image = _per_image(context, values[:, 0], [s.extra for s in scores])
    # The Toolbox's own mean leaves out images whose metric is NaN; only --compat may do that.
    skip_nan = bool(context.facts.get("compat")) and protocol.compat_silog_zero
    image_mean = _image_mean(per_image, filled, skip_nan=skip_nan)
    if not protocol.float32_mean:
        # One path: the printed mean is the mean of the table's own rows.
        summary = dict(image_mean)
    else:
        summary = {key: _float32_mean(per_image[key], filled) for key in image_mean}
    summary |= _ratio_statistics(per_image, filled)
    pooled = {k: float(v) for k, v in metrics_from_moments(values[:, 0].sum(axis=0)).items()}
    result = EvaluationResult(
        protocol=protocol.to_dict() | {"fingerprint": protocol.fingerprint},
        split=context.split,
        counts={
            "expected": context.expected if context.expected is not None else len(scores) + len(context.missing),
            "evaluated": int(filled.sum()),
            "missing_prediction": len(context.missing),
            "empty_ground_truth": int((~filled).sum()),
            "invalid_values": int(sum(s.n_invalid for s in scores)),
            "n_pixels": int(values[:, 0, 0].sum()),
        },
        provenance=_provenance(rows, context, protocol, compiled),
        summary=summary,
        aggregates={"image_mean": image_mean, "pooled": pooled},
        per_image=per_image,
        moments=table,
        label=context.label,
    )
    result.regions = {"all": _region_all(result, values[:, 0])}
    result.issues = _issues(context, filled, [s.n_invalid for s in scores])
    unfilled = [f for f, s in zip(context.frames, scores, strict=True) if "missing-after-fill" in s.flags]
    if unfilled:
        result.issues["missing_after_fill"] = unfilled
    result.warnings = [*context.warnings, *_warnings(result, protocol, rows, context)]
    return result


def _per_image(
    context: Context, moments: NDArray[np.float64], extra: Sequence[dict[str, float]]
) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        "frame": list(context.frames),
        "drive": list(context.drives),
        "n_pixels": [int(n) for n in moments[:, 0]],
    }
    metrics = metrics_from_moments(moments)
    names = dict.fromkeys(name for row in extra for name in row)
    for key, column in metrics.items():
        columns[f"{key}_f64" if key in names else key] = [float(v) for v in column]
    for name in names:
        columns[name] = [float(row.get(name, math.nan)) for row in extra]
    return columns


def _metric_columns(per_image: dict[str, list[Any]]) -> list[str]:
    return [key for key in per_image if key not in ("frame", "drive", "n_pixels")]


def _image_mean(
    per_image: dict[str, list[Any]], filled: NDArray[np.bool_], *, skip_nan: bool = False
) -> dict[str, float]:
    """Arithmetic mean in float64 over the images that have valid pixels; NaN without any."""
    out = {}
    for key in _metric_columns(per_image):
        column = np.asarray(per_image[key])[filled]
        if skip_nan:
            column = column[~np.isnan(column)]
        with np.errstate(invalid="ignore"):  # inf - inf in a column of a broken prediction
            out[key] = float(np.mean(column)) if column.size else math.nan
    return out


def _float32_mean(column: Sequence[float], filled: NDArray[np.bool_]) -> float:
    """Running float32 sum in frame order divided by the float32 count (KITTI devkit, statistics over images)."""
    values = np.asarray(column, np.float32)[filled]
    if values.size == 0:
        return math.nan
    return float(np.cumsum(values, dtype=np.float32)[-1] / np.float32(values.size))


def _ratio_statistics(per_image: dict[str, list[Any]], filled: NDArray[np.bool_]) -> dict[str, float]:
    """Median and relative spread of the scaling ratios (Monodepth2, evaluate_depth.py)."""
    if "ratio" not in per_image or not filled.any():
        return {}
    ratios = np.asarray(per_image["ratio"])[filled]
    middle = float(np.median(ratios))
    return {"ratio_med": middle, "ratio_std": float(np.std(ratios / middle)) if middle else math.nan}


def _region_all(result: EvaluationResult, moments: NDArray[np.float64]) -> dict[str, Any]:
    n_images = int((moments[:, 0] > 0).sum())
    return {
        **result.summary,
        "image_mean": result.aggregates["image_mean"],
        "n_pixels": int(moments[:, 0].sum()),
        "n_images": n_images,
        "share": 1.0 if n_images else 0.0,
    }


def _issues(context: Context, filled: NDArray[np.bool_], n_invalid: Sequence[int]) -> dict[str, list[str]]:
    return {
        "missing_prediction": list(context.missing),
        "unknown_prediction": list(context.unknown),
        "empty_ground_truth": [f for f, ok in zip(context.frames, filled, strict=True) if not ok],
        "invalid_values": [f for f, n in zip(context.frames, n_invalid, strict=True) if n],
    }


def _provenance(rows: Sequence[TrackScores], context: Context, protocol: Protocol, compiled: bool) -> dict[str, Any]:
    partial = bool(context.missing) or (context.expected is not None and len(rows) != context.expected)
    return {
        **base_provenance(),
        **context.facts,
        "kind": context.kind,
        "alignment": protocol.alignment,
        "kernel": "compiled" if compiled else "numpy",
        "data_fingerprint": data_fingerprint(context.frames, (row.signature for row in rows)),
        "partial": partial,
    }


def _warnings(result: EvaluationResult, protocol: Protocol, rows: Sequence[TrackScores], context: Context) -> list[str]:
    counts, issues = result.counts, result.issues
    found = scale_warnings(
        [row.sample for row in rows], aligned=protocol.alignment not in ("none", ""), kind=context.kind
    )
    if counts["invalid_values"]:
        found.append(_invalid_sentence(protocol, counts["invalid_values"], issues["invalid_values"]))
    if "missing_after_fill" in issues:
        frames = issues["missing_after_fill"]
        found.append(
            f"{len(frames)} images have empty rows between predicted ones (first: {frames[0]}): the server cannot fill "
            "them, and SILog is NaN."
        )
    if context.unknown:
        found.append(
            f"{len(context.unknown)} predictions belong to no frame and were not scored, first: "
            f"{', '.join(context.unknown[:3])}."
        )
    if result.partial:
        found.append(
            f"partial result: {counts['evaluated']} of {counts['expected']} images; never compare it with full ones."
        )
    return found


def _invalid_sentence(protocol: Protocol, count: int, frames: Sequence[str]) -> str:
    where = f"in {counted(len(frames), 'image')} (first: {frames[0]})"
    if protocol.missing == "fill":
        return f"{counted(count, 'pixel')} {where} have no prediction; they were filled as KITTI's server fills them."
    what = f"{count} predicted values at valid pixels {where} are NaN, infinite or not positive"
    if protocol.clamp is None:
        return f"{what}; --compat kept them as the reference implementation does."
    return f"{what}; they were clamped to {protocol.clamp}."
