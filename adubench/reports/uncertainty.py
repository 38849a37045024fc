"""The tables of `adubench eval --uncertainty`: ranking beside its baselines, values as a density, regions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

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
    note = (
        f"Means over {section['n_images']} images, {section['n_clusters']} drives; {section['n_floored']:,} sigmas at "
        f"the floor of {section['sigma_floor']:g}."
    )
    tables = [Table("uncertainty", f"{title}: ranking", "", _RANKING, (Group("", tuple(rows)),), (note,))]
    if "nll" in section:
        values = (_row("model", section, _VALUES),)
        tables.append(Table("uncertainty_values", f"{title}: values", "", _VALUES, (Group("", values),)))
    if section.get("regions"):
        found = tuple(_region_row(result, name, entry) for name, entry in section["regions"].items())
        tables.append(
            Table("uncertainty_regions", f"{title}: is it higher there?", "region", _REGIONS, (Group("", found),))
        )
    return tables


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
