"""The table of methods: means over runs, their spread, and differences with both sources of chance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from adubench.errors import counted
from adubench.evaluators.comparability import protocol_title_of
from adubench.reports.tables import Cell, Column, Group, Row, Table, metric_columns, p_text, rank_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adubench.evaluators.methods import MethodComparison, MethodDifference, MethodValue


def methods_tables(comparison: MethodComparison, style: str = "paper") -> list[Table]:
    """Return the values of every method by region, and the differences to the baseline.

    Args:
        comparison: of several methods.
        style: `paper`, `leaderboard` or `full`.
    """
    columns = metric_columns(comparison.metrics, style)
    groups = []
    for region in comparison.values[comparison.baseline]:
        rows = []
        for name in comparison.methods:
            cells = comparison.values[name].get(region, {})
            runs = max((len(v.seeds) for v in cells.values()), default=0)
            remark = f"{runs} runs" if runs > 1 else "single run"
            rows.append(Row(name, tuple(_value(c, cells.get(c.key)) for c in columns), remarks=(remark,)))
        groups.append(Group("" if region == "all" else f"region {region}", rank_rows(rows, columns)))
    values = Table("methods", _title(comparison), "method", columns, tuple(groups), _notes(comparison))
    return [values, _differences(comparison, columns)]


def _value(column: Column, value: MethodValue | None) -> Cell:
    if value is None or not math.isfinite(value.mean):
        return Cell("-" if value is None else "n/a")
    spread = f" ± {column.text(value.spread, finer=1)}" if math.isfinite(value.spread) else ""
    return Cell(column.text(value.mean) + spread, value.mean * column.factor)


def _differences(comparison: MethodComparison, columns: Sequence[Column]) -> Table:
    heads = ("a - b", "interval", "in seed sd", "p (runs)", "smallest p", "verdict")
    groups = []
    for name, regions in comparison.differences.items():
        rows = tuple(
            Row(f"{column.key}@{region}", _cells(column, cells[column.key]), "detail", ranked=False)
            for region, cells in regions.items()
            for column in columns
            if column.key in cells
        )
        groups.append(Group(f"a = {name}, b = {comparison.baseline}", rows))
    title = f"Differences to {comparison.baseline}: {_title(comparison)}"
    return Table("differences", title, "metric@region", tuple(Column(h, h) for h in heads), tuple(groups))


def _cells(column: Column, d: MethodDifference) -> tuple[Cell, ...]:
    text = column.text
    ci = "-" if d.ci is None else f"[{text(d.ci[0], signed=True, finer=1)}, {text(d.ci[1], signed=True, finer=1)}]"
    units = f"{d.in_spreads:+.1f}" if math.isfinite(d.in_spreads) else "-"
    texts = (text(d.delta, signed=True, finer=1), ci, units, p_text(d.p), p_text(d.smallest_p), d.verdict)
    return tuple(Cell(t) for t in texts)


def _title(comparison: MethodComparison) -> str:
    split = f"split {comparison.split}" if comparison.split else "explicit ground truth"
    size = f"{counted(comparison.n_images, 'image')}, {comparison.n_clusters} {comparison.cluster_name}"
    return f"{protocol_title_of(comparison.protocol)}, {split}, {size}"


def _notes(comparison: MethodComparison) -> tuple[str, ...]:
    o = comparison.options
    return (
        *(f"warning: {text}" for text in comparison.warnings),
        "Values: mean ± standard deviation over runs that differ in their seed.",
        f"{o.confidence:.0%} intervals: runs drawn within each method, then {comparison.cluster_name} common to all, "
        f"B = {o.resamples}, seed {o.seed}; p: exact permutation of the runs, which ignores the drives.",
    )
