"""The table that `adubench eval` prints: one row per protocol, never a number without its protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adubench.evaluators.metrics import METRICS
from adubench.reports.tables import Cell, Column, Group, Row, Table, metric_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adubench.evaluators.result import EvaluationResult


def banner(result: EvaluationResult) -> str:
    """Name protocol, version, split, frames found/expected, ground truth and alignment in one line."""
    counts, protocol, facts = result.counts, result.protocol, result.provenance
    without = facts.get("without_ground_truth")
    parts = [
        f"{protocol['name']} v{protocol['version']}",
        result.split or "explicit ground truth",
        f"images {counts['evaluated']}/{counts['expected']}"
        + (" PARTIAL" if result.partial else "")
        + (f" ({without} have no improved ground truth, as expected)" if without else ""),
        f"pixels {counts['n_pixels']:,}",
        f"gt {facts.get('ground_truth_kind', '?')}",
        f"kind {facts.get('kind', 'depth')}",
        f"alignment {facts.get('alignment', 'none').replace('lsqr', 'lstsq')}",
    ]
    if "flip" in facts:
        parts.append(f"flip {facts['flip']}")
    return " | ".join(parts)


def evaluation_table(results: Sequence[EvaluationResult], style: str = "paper") -> Table:
    """Build the table model: a row per result with the metrics that the protocols report.

    Metrics that only some of the protocols report are shown for all: every result has them.
    """
    wanted = dict.fromkeys(key for result in results for key in result.protocol.get("metrics", ()))
    keys = [key for key in wanted if key in METRICS and any(key in r.summary for r in results)]
    columns = (Column("images", "images", decimals=0), *metric_columns(keys, style))
    rows = [Row(result.protocol["name"], _cells(result, columns), ranked=False) for result in results]
    ratio = [
        f"{r.protocol['name']}: scaling ratios med {r.summary['ratio_med']:.3f}, std {r.summary['ratio_std']:.3f}"
        for r in results
        if "ratio_med" in r.summary
    ]
    beside = (
        ["kitti-official: d1, d2, d3 are computed on the same pixels but are not part of the devkit."]
        if any(r.protocol["name"].startswith("kitti-official") for r in results)
        else []
    )
    return Table("evaluation", results[0].label, "protocol", columns, (Group("", tuple(rows)),), (*ratio, *beside))


def _cells(result: EvaluationResult, columns: Sequence[Column]) -> tuple[Cell, ...]:
    values = result.summary | {"images": float(result.counts["evaluated"])}
    return tuple(Cell(column.text(values.get(column.key, float("nan"))), values.get(column.key)) for column in columns)


def render_evaluation(
    results: Sequence[EvaluationResult], *, style: str = "paper", width: int | None = None, color: bool = False
) -> str:
    """Render banner lines and the table as text.

    Args:
        results: one per protocol, of the same predictions.
        style: `paper`, `leaderboard` or `full`.
        width: columns of the terminal; None takes what the table needs.
        color: use terminal attributes.
    """
    from adubench.reports.boundaries import boundary_tables
    from adubench.reports.formats import render_rich
    from adubench.reports.regions import region_tables
    from adubench.reports.uncertainty import teacher_tables, uncertainty_tables

    lines = [banner(result) for result in results]
    tables = [evaluation_table(results, style)]
    for result in results:
        tables += [*region_tables(result, style), *boundary_tables(result), *uncertainty_tables(result)]
        tables += teacher_tables(result)
    return "\n".join(lines) + "\n\n" + render_rich(tables, width=width, color=color)
