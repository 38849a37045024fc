"""The table of an experiment: means and spread over seeds, what is missing and why, and tests against the baseline."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from adubench.errors import ResultError, UsageError
from adubench.evaluators.metrics import METRICS
from adubench.recipes.experiments import variants
from adubench.training.experiment_details import Detail, details

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from adubench.evaluators.methods import MethodComparison
    from adubench.evaluators.result import EvaluationResult
    from adubench.recipes.experiments import Expansion, Experiment
    from adubench.training.experiment_runs import Place, Record

RANKED_METRICS = ("silog", "abs_rel", "sq_rel", "rmse")


@dataclass(frozen=True, slots=True)
class Value:
    """One cell.

    Attributes:
        mean: over seeds, None for text and for what is missing.
        spread: standard deviation over seeds (divisor S - 1), None for one seed.
        runs: seeds with a value.
        text: where there is no number: a setting, or `n/a`.
        delta: mean - mean of the baseline over common seeds, None for the baseline itself.
    """

    mean: float | None = None
    spread: float | None = None
    runs: int = 0
    text: str = ""
    delta: float | None = None


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column: title, what it shows, and whether higher is better (None: neither)."""

    title: str
    key: str
    higher_is_better: bool | None


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row: name, data set, cells, published numbers, remark."""

    name: str
    data_set: str
    cells: tuple[Value, ...]
    published: dict[str, float]
    remark: str


@dataclass(frozen=True, slots=True)
class ExperimentTable:
    """Everything that is printed about an experiment.

    Attributes:
        title: id, question, scale.
        columns: of all rows.
        rows: by data set, in the order of the file.
        notes: missing things, cautions, how to read it.
        comparisons: paired drive-clustered statistics against the baseline, one per data set.
        searches: metric -> key -> Spearman correlation, for searches.
        details: levels, test sets, epochs of every row.
    """

    title: str
    columns: tuple[TableColumn, ...]
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...]
    comparisons: dict[str, MethodComparison] = field(default_factory=dict)
    searches: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    details: tuple[Detail, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        from dataclasses import asdict

        return {
            "title": self.title,
            "columns": [asdict(column) for column in self.columns],
            "rows": [asdict(row) for row in self.rows],
            "notes": list(self.notes),
            "comparisons": {name: comparison.to_dict() for name, comparison in self.comparisons.items()},
            "searches": self.searches,
            "details": [asdict(detail) for detail in self.details],
        }


def build_table(
    expansion: Expansion, records: Sequence[Record], place: Place, *, extra: Sequence[str] = ()
) -> ExperimentTable:
    """Build the table of what has finished.

    Args:
        expansion: the experiment at its scale.
        records: finished runs.
        place: where result files lie.
        extra: further notes.
    """
    experiment = expansion.experiment
    columns = tuple(TableColumn(title, key, _direction(key)) for title, key in experiment.table.items())
    names = list(dict.fromkeys(spec.variant for spec in expansion.runs))
    names += [variant.name for variant in expansion.later if variant.name not in names]
    sets = list(dict.fromkeys(spec.data_set for spec in expansion.runs))
    ranks = {name: _ranks(experiment, [r for r in records if r.data_set == name]) for name in sets}
    rows = []
    for data_set in sets:
        here = [record for record in records if record.data_set == data_set]
        base = [record for record in here if record.variant == experiment.baseline]
        for name in names:
            own = [record for record in here if record.variant == name]
            cells = tuple(_cell(column.key, own, base, ranks[data_set]) for column in columns)
            rows.append(TableRow(name, data_set, cells, _published(experiment, name), _remark(own, expansion, name)))
    rows += [TableRow(name, "", (Value(text="n/a"),) * len(columns), {}, why) for name, why in expansion.absent.items()]
    comparisons, trouble = _comparisons(experiment, records, place, sets)
    notes = [*trouble, *_missing(columns, records), *_unfinished(expansion, records), *extra]
    notes += list(dict.fromkeys(w for comparison in comparisons.values() for w in comparison.warnings))
    searches = {}
    if "search" in experiment.measure:
        searches = {
            name or "all": _correlations(experiment, [r for r in records if r.data_set == name]) for name in sets
        }
        notes += _search_notes(experiment, records, sets)
    notes += [f"caution: {sentence}" for sentence in experiment.cautions]
    title = f"{experiment.id}, scale {expansion.scale}: {experiment.question}"
    more = details(expansion, records)
    return ExperimentTable(title, columns, tuple(rows), tuple(notes), comparisons, searches, more)


def _direction(key: str) -> bool | None:
    group, _, name = key.rpartition(":")
    scored = group.split(":")[0] in ("", "region", "teacher", "transfer")
    return METRICS[name].higher_is_better if scored and name in METRICS else None


def _cell(key: str, own: Sequence[Record], base: Sequence[Record], ranks: Mapping[str, int]) -> Value:
    if not own:
        return Value(text="-")
    if key.startswith("recipe:"):
        return Value(text=_setting(own[0].values.get(key.removeprefix("recipe:"))))
    if key == "search:rank":
        rank = ranks.get(own[0].variant)
        return Value(text=str(rank) if rank is not None else "n/a")
    found = {record.seed: record.numbers[key] for record in own if key in record.numbers}
    if not found:
        return Value(text="n/a")
    values = np.array(list(found.values()))
    spread = float(values.std(ddof=1)) if len(values) > 1 else None
    theirs = {record.seed: record.numbers[key] for record in base if key in record.numbers}
    common = [found[seed] - theirs[seed] for seed in found if seed in theirs]
    is_base = bool(base) and own[0].variant == base[0].variant
    delta = float(np.mean(common)) if common and not is_base else None
    return Value(float(values.mean()), spread, len(values), delta=delta)


def _setting(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _published(experiment: Experiment, name: str) -> dict[str, float]:
    return next((variant.published for variant in experiment.vary if variant.name == name), {})


def _remark(own: Sequence[Record], expansion: Expansion, name: str) -> str:
    wanted = sum(spec.variant == name for spec in expansion.runs)
    count = len(own)
    if not count:
        return "not run yet"
    sets = len({spec.data_set for spec in expansion.runs}) or 1
    runs = f"{count} seed{'s' if count > 1 else ''}"
    return runs if count >= wanted // sets else f"{runs} of {wanted // sets}"


def _unfinished(expansion: Expansion, records: Sequence[Record]) -> list[str]:
    left = len(expansion.runs) - len(records)
    notes = (
        [f"{left} of {len(expansion.runs)} runs are not finished; the table shows what there is."] if left > 0 else []
    )
    if expansion.later:
        names = ", ".join(variant.name for variant in expansion.later)
        notes.append(f"{names}: runs when all other rows are finished, from the best of them.")
    return notes


def _missing(columns: Sequence[TableColumn], records: Sequence[Record]) -> list[str]:
    """Say of every column that has no number anywhere why that is."""
    notes: dict[str, list[str]] = {}
    for column in columns:
        if column.key.startswith(("recipe:", "search:")) or any(column.key in record.numbers for record in records):
            continue
        reasons = {_reason(column.key, record.absent) for record in records} - {""}
        if reasons:
            notes.setdefault("; ".join(sorted(reasons)), []).append(column.title)
        elif records:
            notes.setdefault("the evaluation does not report it", []).append(column.title)
    return [f"n/a: {', '.join(titles)}: {why}." for why, titles in notes.items()]


def _reason(key: str, absent: Mapping[str, str]) -> str:
    """Find the reason that was recorded for a key or for the group it belongs to."""
    for prefix in sorted(absent, key=len, reverse=True):
        if key == prefix or key.startswith(f"{prefix}:"):
            return absent[prefix]
    return ""


def _comparisons(
    experiment: Experiment, records: Sequence[Record], place: Place, sets: Sequence[str]
) -> tuple[dict[str, MethodComparison], list[str]]:
    """Compare all rows with the baseline: runs and drives are drawn together, runs of one seed as pairs."""
    from adubench.evaluators.comparison_model import Options
    from adubench.evaluators.methods import compare_methods

    if experiment.baseline is None:
        return {}, []
    found, notes = {}, []
    for data_set in sets:
        methods, lost = _result_files([r for r in records if r.data_set == data_set], place)
        if lost:
            notes.append(f"no statistics for {', '.join(lost)}: their result files are on another machine.")
        base = methods.get(experiment.baseline)
        if base is None or len(methods) < 2:
            notes.append("no statistics: the baseline and another row must be finished.")
            continue
        same = {name: runs for name, runs in methods.items() if len(runs) == len(base)}
        left = [name for name in methods if name not in same]
        if left:
            notes.append(f"no statistics for {', '.join(left)}: another number of seeds than the baseline.")
        ordered = {experiment.baseline: base} | same
        metrics = [c for c in (*RANKED_METRICS, "d1") if c in base[0].summary]
        try:
            found[data_set or "all"] = compare_methods(
                ordered, baseline=experiment.baseline, metrics=metrics, regions=_regions(experiment, base[0]),
                options=Options(), paired=True,
            )  # fmt: skip
        except (ResultError, UsageError) as error:
            notes.append(f"no statistics: {error}")
    return found, notes


def _regions(experiment: Experiment, result: EvaluationResult) -> list[str] | None:
    """Return the regions that the experiment's table shows."""
    shown = [key.split(":")[1] for key in experiment.table.values() if key.startswith("region:")]
    known = [name for name in dict.fromkeys(["all", *shown]) if name == "all" or name in result.regions]
    return known if shown else ["all"]


def _result_files(records: Sequence[Record], place: Place) -> tuple[dict[str, list[EvaluationResult]], list[str]]:
    """Load the results of all rows, seeds in order."""
    from adubench.evaluators.result import load_results

    methods: dict[str, list[EvaluationResult]] = {}
    lost: list[str] = []
    for record in sorted(records, key=lambda r: r.seed):
        path = place.run_folder(record.id) / record.results.get("test", "test.json")
        if not path.is_file():
            lost.append(record.id)
            continue
        (result,) = load_results(path)
        result.label = f"{record.variant} s{record.seed}"
        methods.setdefault(record.variant, []).append(result)
    return methods, lost


def _means(experiment: Experiment, records: Sequence[Record], metric: str) -> dict[str, float]:
    known = [variant.name for variant in variants(experiment)]
    out: dict[str, float] = {}
    for name in known:
        values = [r.numbers[metric] for r in records if r.variant == name and metric in r.numbers]
        if values:
            out[name] = float(np.mean(values))
    return out


def _ranks(experiment: Experiment, records: Sequence[Record]) -> dict[str, int]:
    """Rank rows by the experiment's metric, 1 for the lowest."""
    means = _means(experiment, records, experiment.best_metric)
    return {name: i for i, name in enumerate(sorted(means, key=lambda n: means[n]), 1)}


def _correlations(experiment: Experiment, records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Spearman correlation of every searched key with every metric, over the points of the search."""
    from scipy.stats import spearmanr

    if experiment.sobol is None:
        return {}
    points = [record for record in records if record.variant.startswith("sobol ")]
    out: dict[str, dict[str, float]] = {}
    for metric in RANKED_METRICS:
        scored = [record for record in points if metric in record.numbers]
        if len(scored) < 3:
            continue
        values = [record.numbers[metric] for record in scored]
        out[metric] = {}
        for key in experiment.sobol.keys:
            rho = float(spearmanr([record.set[key] for record in scored], values).statistic)
            out[metric][key] = rho if math.isfinite(rho) else 0.0
    return out


def _search_notes(experiment: Experiment, records: Sequence[Record], sets: Sequence[str]) -> list[str]:
    """Name the best point of each data set, and how far the data sets agree."""
    from scipy.stats import spearmanr

    notes, by_set = [], {}
    for name in sets:
        means = _means(experiment, [r for r in records if r.data_set == name], experiment.best_metric)
        by_set[name] = means
        if means:
            best = min(means, key=lambda row: means[row])
            where = f" on {name}" if name else ""
            notes.append(f"best point{where} by {experiment.best_metric}: {best} ({means[best]:.4f}).")
    for first, second in combinations(sets, 2):
        common = [row for row in by_set[first] if row in by_set[second]]
        if len(common) > 2:
            rho = spearmanr([by_set[first][r] for r in common], [by_set[second][r] for r in common]).statistic
            notes.append(f"rank correlation of {len(common)} points between {first} and {second}: {float(rho):.2f}.")
    if len(sets) < 2:
        notes.append("n/a: rank correlation between data sets: this scale has one data set.")
    return notes
