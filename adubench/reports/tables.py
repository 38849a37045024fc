"""The table model: what is shown, before it is known how. Every format renders these records and nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from adubench.errors import UsageError, counted, unknown_name
from adubench.evaluators.comparability import protocol_title_of
from adubench.evaluators.comparison_model import TESTS
from adubench.evaluators.metrics import METRICS, STYLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adubench.evaluators.comparison import Comparison, Difference, Estimate

NEAR_BEST = "†"
LEADERBOARD = ("silog", "sq_rel_gt2", "abs_rel", "irmse")
"""Columns of KITTI's depth-prediction table, in its order."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        key: metric key, or a name for columns that are no metric.
        title: header without arrow and unit.
        unit: as printed, empty for text columns.
        arrow: `↓` lower is better, `↑` higher is better, empty for no order.
        decimals: digits after the point; None for six significant digits.
        factor: displayed value / stored value (100 for percent).
    """

    key: str
    title: str
    unit: str = ""
    arrow: str = ""
    decimals: int | None = None
    factor: float = 1.0

    @property
    def header(self) -> str:
        """Title with arrow and unit."""
        return " ".join(part for part in (self.title, self.arrow, f"[{self.unit}]" if self.unit else "") if part)

    def text(self, value: float, *, signed: bool = False, finer: int = 0) -> str:
        """Format a stored value in the column's unit."""
        if not math.isfinite(value):
            return "n/a"
        sign = "+" if signed else ""
        shown = value * self.factor
        if self.decimals is None:
            return f"{shown:{sign}.6g}"
        return f"{shown:{sign}.{self.decimals + finer}f}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell.

    Attributes:
        text: as printed.
        value: the number in the column's displayed unit, None for text.
        rank: 1 best, 2 second best, 0 otherwise.
        mark: printed after the text (`*`).
        low: lower end of the interval, displayed unit.
        high: upper end.
        p: adjusted p-value of a difference.
        interval: the interval as printed, for formats that have room for it.
    """

    text: str = ""
    value: float | None = None
    rank: int = 0
    mark: str = ""
    low: float | None = None
    high: float | None = None
    p: float | None = None
    interval: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: `kind` is `result`, `difference`, `published` or `detail`."""

    label: str
    cells: tuple[Cell, ...]
    kind: str = "result"
    remarks: tuple[str, ...] = ()
    source: str = ""
    ranked: bool = True


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that may be ranked against each other, and only those."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A title that names the protocol, columns, groups of rows, and notes below.

    Attributes:
        name: short name for files (`results`, `differences`, `published`).
        title: protocol, version, split, images, pixels.
        head: header of the label column.
        columns: all columns.
        groups: groups of rows.
        notes: sentences below the table.
    """

    name: str
    title: str
    head: str
    columns: tuple[Column, ...]
    groups: tuple[Group, ...]
    notes: tuple[str, ...] = ()


def metric_columns(metrics: Sequence[str], style: str) -> tuple[Column, ...]:
    """Make the columns of a style: `paper`, `leaderboard` (KITTI server units and names) or `full`.

    Raises:
        UsageError: an unknown style, or a leaderboard without any of its metrics.
    """
    if style not in STYLES:
        raise unknown_name("style", style, STYLES)
    if style == "leaderboard":
        shown = [key for key in LEADERBOARD if key in metrics]
        if not shown:
            raise UsageError(f"--style leaderboard shows {', '.join(LEADERBOARD)}; none of them was asked for.")
        return tuple(server_column(key) for key in shown)
    return tuple(_column(key, style) for key in metrics)


def _column(key: str, style: str) -> Column:
    metric = METRICS[key]
    decimals = None if style == "full" else metric.decimals
    return Column(key, key, "" if metric.unit == "1" else metric.unit, metric.arrow, decimals)


def server_column(key: str) -> Column:
    """Make a column with the KITTI server's name and unit (percent for relative errors), two decimals."""
    metric = METRICS[key]
    if metric.leaderboard is None:
        return _column(key, "paper")
    title, factor, unit = metric.leaderboard
    return Column(key, title, unit, metric.arrow, 2, factor)


def rank_rows(rows: Sequence[Row], columns: Sequence[Column]) -> tuple[Row, ...]:
    """Mark the best and the second best value of each column; one row alone is not ranked."""
    out = list(rows)
    for position, column in enumerate(columns):
        entries = [
            (cell.value, i)
            for i, row in enumerate(rows)
            if row.ranked and row.kind in ("result", "published") and (cell := row.cells[position]).value is not None
        ]
        values = sorted({v for v, _ in entries if math.isfinite(v)}, reverse=column.arrow == "↑")
        if not column.arrow or len(entries) < 2:
            continue
        for value, i in entries:
            rank = values.index(value) + 1 if value in values[:2] else 0
            cells = out[i].cells
            out[i] = replace(
                out[i], cells=(*cells[:position], replace(cells[position], rank=rank), *cells[position + 1 :])
            )
    return tuple(out)


def comparison_title(comparison: Comparison) -> str:
    """Name everything a number needs: protocol, version, split, images, pixels, clusters."""
    protocol = protocol_title_of(comparison.protocol)
    split = f"split {comparison.split}" if comparison.split else "explicit ground truth"
    size = f"{counted(comparison.n_images, 'image')}, {comparison.n_pixels:,} pixels"
    title = f"{protocol}, {split}, {size}, {comparison.n_clusters} {comparison.cluster_name}"
    return f"NOT COMPARABLE (--force): {title}" if comparison.mixed else title


def results_table(comparison: Comparison, style: str = "paper") -> Table:
    """Show every model's values by region, each followed by its difference to the baseline."""
    columns = metric_columns(comparison.metrics, style)
    groups = tuple(
        Group(
            "" if region == "all" else f"region {region} (pooled over pixels)",
            _region_rows(comparison, region, columns),
        )
        for region in comparison.estimates[comparison.labels[0]]
    )
    return Table("results", comparison_title(comparison), "model", columns, groups, _notes(comparison))


def _region_rows(comparison: Comparison, region: str, columns: Sequence[Column]) -> tuple[Row, ...]:
    pairs = {pair.a: pair.regions.get(region, {}) for pair in comparison.pairs}
    rows = []
    for label in comparison.labels:
        estimates = comparison.estimates[label].get(region, {})
        cells = tuple(_value_cell(column, estimates.get(column.key)) for column in columns)
        if comparison.mixed:
            cells = tuple(replace(cell, mark="") for cell in cells)
        letter = comparison.letters.get(label) if region == "all" else None
        remarks = comparison.marks.get(label, ()) + ((f"group {letter}",) if letter else ())
        rows.append(Row(label, cells, "result", remarks, ranked=not comparison.mixed))
    ranked = rank_rows(rows, columns)
    out = []
    for row in ranked:
        out.append(row)
        if row.label in pairs:
            cells = tuple(_difference_cell(column, pairs[row.label].get(column.key)) for column in columns)
            if comparison.mixed:
                cells = tuple(replace(cell, mark="") for cell in cells)
            remarks = ("protocols differ",) if comparison.mixed else ()
            out.append(Row(f"Δ {row.label} - {comparison.baseline}", cells, "difference", remarks, ranked=False))
    return tuple(out)


def _value_cell(column: Column, estimate: Estimate | None) -> Cell:
    if estimate is None or not math.isfinite(estimate.value):
        return Cell("-" if estimate is None else "n/a")
    low, high = (None, None) if estimate.ci is None else (v * column.factor for v in estimate.ci)
    mark = NEAR_BEST if estimate.near_best else ""
    interval = "" if estimate.ci is None else _interval_text(column, estimate.ci)
    value = estimate.value * column.factor
    return Cell(column.text(estimate.value), value, mark=mark, low=low, high=high, interval=interval)


def _interval_text(column: Column, ci: tuple[float, float], *, signed: bool = False) -> str:
    return f"[{column.text(ci[0], signed=signed, finer=1)}, {column.text(ci[1], signed=signed, finer=1)}]"


def _difference_cell(column: Column, d: Difference | None) -> Cell:
    if d is None or not math.isfinite(d.delta):
        return Cell("-" if d is None else "n/a")
    low, high = (None, None) if d.ci is None else (v * column.factor for v in d.ci)
    p = d.p_holm if math.isfinite(d.p_holm) and not d.too_few else None
    text = column.text(d.delta, signed=True, finer=1)
    interval = "" if d.ci is None else _interval_text(column, d.ci, signed=True)
    mark = "*" if d.separated else ""
    return Cell(text, d.delta * column.factor, mark=mark, low=low, high=high, p=p, interval=interval)


def _notes(comparison: Comparison) -> tuple[str, ...]:
    options = comparison.options
    notes = [f"warning: {text}" for text in comparison.warnings]
    if comparison.pairs:
        notes.append(
            f"Δ = model - {comparison.baseline}. * separated: adjusted p < 0.05 and the interval excludes 0; "
            "no mark means not separated, never equal."
        )
    if len(comparison.labels) > 1 and not comparison.mixed:
        notes.append(f"{NEAR_BEST} not separated from the best of its column (swap test, Holm over the column).")
    if options.equiv is not None:
        notes.append(
            f"equivalent: the 90 % interval of Δ lies within ±{options.equiv:g} (two one-sided tests at 5 %), in the "
            "metric's own unit."
        )
    if comparison.letters:
        notes.append(f"Models of one group letter are not separated from their neighbours in {options.primary}.")
    notes.append(footer(comparison))
    return tuple(notes)


def footer(comparison: Comparison) -> str:
    """Say how intervals and p-values were made."""
    o = comparison.options
    rule = "Holm" if o.adjust == "holm" else "Benjamini-Hochberg"
    kind = "Bayesian bootstrap" if o.bayes else "bootstrap"
    text = f"{o.confidence:.0%} intervals: {kind} over {comparison.cluster_name}, B = {o.resamples}, seed {o.seed}"
    if comparison.pairs:
        text += f"; p: {TESTS[o.test]} over {comparison.cluster_name}" + (
            f", {rule} over {comparison.family} tests, {o.primary} unadjusted" if comparison.family else ""
        )
        text += ". One result per model compares checkpoints; to compare methods, repeat with several seeds"
    return text + "."


_DETAIL_HEADS = (
    ("a", "a"), ("b", "b"), ("delta", "a - b"), ("interval", "interval"), ("relative", "relative"), ("p", "p"),
    ("p_holm", "p adjusted"), ("wins_images", "a wins, images"), ("wins_clusters", "a wins, clusters"),
    ("worth", "worth images"), ("verdict", "verdict"),
)  # fmt: skip


def differences_table(comparison: Comparison, style: str = "paper") -> Table | None:
    """Show each difference with interval, p-values, win rates and verdict; None without pairs."""
    if not comparison.pairs:
        return None
    mixed = bool(comparison.mixed)
    remarks = ("protocols differ",) if mixed else ()
    by_key = {c.key: c for c in metric_columns(comparison.metrics, style)}
    groups = []
    for pair in comparison.pairs:
        rows = tuple(
            Row(f"{metric}@{region}", _detail_cells(by_key[metric], d, mixed), "detail", remarks, ranked=False)
            for region, cells in pair.regions.items()
            for metric, d in cells.items()
            if metric in by_key
        )
        groups.append(Group(f"a = {pair.a}, b = {pair.b}", rows))
    columns = tuple(Column(key, title) for key, title in _DETAIL_HEADS)
    title = f"Differences to {comparison.baseline}: {comparison_title(comparison)}"
    return Table("differences", title, "metric@region", columns, tuple(groups))


def _detail_cells(column: Column, d: Difference, mixed: bool) -> tuple[Cell, ...]:
    text = column.text
    interval = "-" if d.ci is None else _interval_text(column, d.ci, signed=True)
    relative = f"{d.relative:+.1%}" if math.isfinite(d.relative) else "-"
    p, adjusted = ("too few clusters", "-") if d.too_few else (p_text(d.p), p_text(d.p_holm))
    worth = f"{d.n_images / d.deff:.0f} of {d.n_images}" if math.isfinite(d.deff) else "-"
    verdict = ("a better" if d.better else "b better") if d.separated else "n.s."
    if d.equivalent is not None:
        verdict += ", equivalent" if d.equivalent else ", not equivalent"
    if mixed:
        verdict = "not comparable"
    texts = (
        text(d.value_a, finer=1), text(d.value_b, finer=1), text(d.delta, signed=True, finer=1), interval, relative,
        p, adjusted, f"{d.wins_images:.0%}", f"{d.wins_clusters:g}/{d.n_clusters}", worth, verdict,
    )  # fmt: skip
    return tuple(Cell(t) for t in texts)


def p_text(p: float) -> str:
    """Print a p-value with two significant digits, never as 0."""
    if not math.isfinite(p):
        return "-"
    return "<0.0001" if p < 1e-4 else f"{p:.2g}"
