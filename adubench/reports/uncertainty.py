"""The tables of `adubench eval --uncertainty`: ranking beside its baselines, values as a density, regions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from adubench.errors import counted
from adubench.reports.regions import row_label
from adubench.reports.tables import Cell, Column, Group, Row, Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from adubench.evaluators.result import EvaluationResult

_DOWN, _UP = "\N{DOWNWARDS ARROW}", "\N{UPWARDS ARROW}"
_RANKING = (
    *(Column(f"nause_{error}", f"nAUSE {error}", "", _DOWN, 3) for error in ("abs_rel", "rmse", "a1")),
    *(Column(f"naurg_{error}", f"nAURG {error}", "", _UP, 3) for error in ("abs_rel", "rmse", "a1")),
    Column("spearman", "Spearman |r|", "", _UP, 3),
    Column("spearman_partial", "given depth", "", _UP, 3),
)
_VALUES = (
    Column("nll", "NLL", "", _DOWN, 3),
    Column("crps", "CRPS", "", _DOWN, 4),
    Column("ece", "ECE", "", _DOWN, 4),
    Column("ence", "ENCE", "", _DOWN, 3),
    Column("coverage_68.3", "within 68.3 %", "%", "", 1, 100.0),
    Column("coverage_95", "within 95 %", "%", "", 1, 100.0),
    Column("sharpness", "RMS sigma", "", "", 3),
    Column("residual_rms", "RMS error", "", "", 3),
)
_TEACHER = ("a1_T", "a2_T", "a3_T", "abs_rel_T", "sq_rel_T", "rmse_T", "rmse_log_T")
_TEACHER_UNITS = {"sq_rel_T": "m", "rmse_T": "m"}
_REGIONS = (
    Column("share", "share", "%", "", 1, 100.0),
    Column("auroc", "AUROC", "", "", 3),
    Column("ci", "95 % CI"),
    Column("auroc_stratified", "equal distance", "", "", 3),
    Column("error", "error AUROC", "", "", 3),
    Column("z_ratio_inside", "RMSE/RMV", "", "", 2),
    Column("verdict", "verdict"),
)


def uncertainty_tables(result: EvaluationResult) -> list[Table]:
    """Build the tables of a result; none without uncertainty."""
    section = result.uncertainty
    if not section:
        return []
    about = f"uncertainty ({section['kind']}, {section['family']}, {section['space']})"
    title = f"{result.protocol['name']}, {about}"
    rows = [_row("model", section, _RANKING)]
    rows += [_row(f"baseline: {name}", scores, _RANKING) for name, scores in section["baselines"].items() if scores]
    if "pooled_nause_rmse" in section:
        for label, prefix in (("model, pixels pooled", ""), ("baseline: depth, pixels pooled", "depth_")):
            pooled = {c.key: section.get(f"{prefix}pooled_{c.key}") for c in _RANKING}
            rows.append(_row(label, pooled, _RANKING))
    note = (
        f"Means over {counted(section['n_images'], 'image')}, {counted(section['n_clusters'], 'drive')}; "
        f"{section['n_floored']:,} sigmas at the floor of {section['sigma_floor']:g}."
    )
    tables = [Table("uncertainty", f"{title}: ranking", "", _RANKING, (Group("", tuple(rows)),), (note,))]
    if "nll" in section:
        values = (_row("model", section, _VALUES), *_recalibrated_rows(section))
        tables.append(Table("uncertainty_values", f"{title}: values", "", _VALUES, (Group("", values),)))
    if section.get("regions"):
        found = tuple(_region_row(result, name, entry) for name, entry in section["regions"].items())
        tables.append(
            Table("uncertainty_regions", f"{title}: is it higher there?", "region", _REGIONS, (Group("", found),))
        )
    against = section.get("against_teacher")
    if against:
        rows = [_row("model", against, _RANKING)]
        rows += [_row(f"baseline: {name}", found, _RANKING) for name, found in against["baselines"].items() if found]
        tables.append(
            Table("uncertainty_teacher", f"{title}: against the teacher", "", _RANKING, (Group("", tuple(rows)),))
        )
        if "nll" in against:
            one = (_row("model", against, _VALUES),)
            tables.append(
                Table(
                    "uncertainty_teacher_values", f"{title}: values against the teacher", "", _VALUES, (Group("", one),)
                )
            )
    return tables


def _recalibrated_rows(section: Mapping[str, Any]) -> tuple[Row, ...]:
    after = section.get("recalibration") or {}
    found = after.get("after") or {}
    if "nll" not in found:
        return ()
    label = f"after T = {after['temperature']:.3g}, fitted on {after.get('split', 'another split')}"
    return (_row(label, found, _VALUES),)


def teacher_tables(result: EvaluationResult) -> list[Table]:
    """Build the table of the similarity to a teacher's maps; none without them."""
    if "abs_rel_T" not in result.summary:
        return []
    columns = tuple(
        Column(key, key, _TEACHER_UNITS.get(key, ""), _UP if key[0] == "a" and key[1].isdecimal() else _DOWN, 3)
        for key in _TEACHER
    )
    row = _row(result.label, result.summary, columns)
    title = f"{result.protocol['name']}, similarity to the teacher (TIE-KD), means over images"
    return [Table("teacher", title, "", columns, (Group("", (row,)),))]


def _row(label: str, scores: Mapping[str, Any], columns: Sequence[Column]) -> Row:
    return Row(label, tuple(_cell(column, scores.get(column.key)) for column in columns), ranked=False)


def _cell(column: Column, value: Any) -> Cell:
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return Cell("n/a")
    return Cell(column.text(value), value * column.factor)


def _region_row(result: EvaluationResult, name: str, entry: Mapping[str, Any]) -> Row:
    plain, stratified = entry["auroc"], entry["auroc_stratified"]
    ends = [float(v) if v is not None else math.nan for v in plain["ci"]]
    ci = f"[{ends[0]:.3f}, {ends[1]:.3f}]" if all(math.isfinite(v) for v in ends) else "-"
    values = {
        "share": entry["share"],
        "auroc": plain["mean"],
        "auroc_stratified": stratified["mean"],
        "error": plain["error"],
        "z_ratio_inside": entry["z_ratio_inside"],
    }
    texts = {"ci": ci, "verdict": str(entry["verdict"])}
    cells = [Cell(texts[c.key]) if c.key in texts else _cell(c, values[c.key]) for c in _REGIONS]
    title = str(result.regions.get(name, {}).get("title", name))
    return Row(row_label(name, title), tuple(cells), ranked=False)
