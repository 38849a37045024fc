"""Methods, not checkpoints: a method is several results that differ in their seed alone.

One checkpoint per method says which checkpoint is better, not which method is. Here both sources of chance are drawn:
training runs within each method, and drives, common to all.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from adubench.errors import UsageError
from adubench.evaluators import statistics as stats
from adubench.evaluators.comparability import (
    assign_clusters,
    check_columns,
    check_comparable,
    check_pixels,
    common_frames,
    drives_of,
    provenance_notes,
    shared_protocol,
)
from adubench.evaluators.comparison_model import LEVEL, Options
from adubench.evaluators.panel import build_panel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from adubench.evaluators.panel import RegionSums
    from adubench.evaluators.result import EvaluationResult
    from adubench.evaluators.statistics import FloatArray

FEWEST_SEEDS = 3


@dataclass(frozen=True, slots=True)
class MethodValue:
    """One method in one metric of one region.

    Attributes:
        seeds: value of each run, in the order given.
        mean: over the runs.
        spread: standard deviation over the runs (divisor S - 1), NaN for a single run.
    """

    seeds: tuple[float, ...]
    mean: float
    spread: float


@dataclass(frozen=True, slots=True)
class MethodDifference:
    """Method a against method b in one metric of one region.

    Attributes:
        delta: mean of a - mean of b.
        ci: interval of delta from runs and clusters drawn together, None where undefined.
        p: exact two-sided permutation of the runs between the methods; its smallest value is 2 / C(2S, S).
        smallest_p: that value for these numbers of runs.
        in_spreads: delta / pooled standard deviation over runs, NaN for single runs.
        paired: runs were drawn as pairs.
        higher_is_better: direction of the metric.
    """

    delta: float
    ci: tuple[float, float] | None
    p: float
    smallest_p: float
    in_spreads: float
    paired: bool
    higher_is_better: bool

    @property
    def verdict(self) -> str:
        """What may be said: better or worse, within run-to-run variation, or not separated."""
        if np.isfinite(self.in_spreads) and abs(self.in_spreads) < 2:
            return "within run-to-run variation"
        if self.ci is None or self.ci[0] <= 0 <= self.ci[1]:
            return "n.s."
        return "a better" if (self.delta > 0) == self.higher_is_better else "b better"


@dataclass(frozen=True, slots=True)
class MethodComparison:
    """Several methods under one protocol.

    Attributes:
        protocol: the protocol's record.
        split: its split.
        baseline: name of the method that others are compared with.
        methods: names in the order given.
        metrics: metric keys in table order.
        values: method -> region -> metric -> value.
        differences: method -> region -> metric -> difference to the baseline.
        n_images: common images.
        n_clusters: their clusters.
        cluster_name: what a cluster is called.
        options: how it was made.
        warnings: sentences a reader must see.
    """

    protocol: dict[str, Any]
    split: str | None
    baseline: str
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    values: dict[str, dict[str, dict[str, MethodValue]]]
    differences: dict[str, dict[str, dict[str, MethodDifference]]]
    n_images: int
    n_clusters: int
    cluster_name: str
    options: Options
    warnings: tuple[str, ...] = ()

    @property
    def mixed(self) -> bool:
        """Whether the results differ in protocol or split: never, such methods are refused."""
        return False

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; non-finite numbers are None."""
        return {
            "protocol": self.protocol,
            "baseline": self.baseline,
            "methods": {name: _plain(regions) for name, regions in self.values.items()},
            "comparisons": [
                {"a": name, "b": self.baseline, "regions": _plain(regions)}
                for name, regions in self.differences.items()
            ],
            "warnings": list(self.warnings),
        }


@np.errstate(all="ignore")  # results of absurd depths overflow; what is not finite is printed as n/a
def compare_methods(
    methods: Mapping[str, Sequence[EvaluationResult]],
    *,
    baseline: str | None = None,
    metrics: Sequence[str] | None = None,
    regions: Sequence[str] | None = None,
    options: Options | None = None,
    paired: bool = False,
) -> MethodComparison:
    """Compare methods by several runs each, drawing runs and clusters together.

    Args:
        methods: name -> results of its runs, all with labels of their own.
        baseline: name of the method that others are compared with; default the first.
        metrics: metric keys; default those that all results report.
        regions: region names; default those shared.
        options: resamples, confidence, clusters, seed.
        paired: run i of every method has the same seed and data order: draw runs as pairs.

    Raises:
        UsageError: fewer than two methods, a method without runs, pairs of unequal number, an unknown baseline.
        ResultError: results that may not stand side by side.
    """
    options = options or Options()
    options.check()
    base = _baseline(methods, baseline, paired=paired)
    results = [result for runs in methods.values() for result in runs]
    check_comparable(results, force=False, remedy="Evaluate all runs alike.")
    check_columns(results)
    frames, notes = common_frames(results)
    notes += provenance_notes(results)
    check_pixels(results, frames, force=False)
    names, cluster_name = assign_clusters(frames, drives_of(results[0], frames), options.cluster)
    panel = build_panel(results, frames, names, metrics, regions)
    places = _places(methods)
    values: dict[str, dict[str, dict[str, MethodValue]]] = {name: {} for name in methods}
    differences: dict[str, dict[str, dict[str, MethodDifference]]] = {name: {} for name in methods if name != base}
    for sums in panel.regions:
        for name, at in places.items():
            values[name][sums.region] = {key: _value(sums.values[at, m]) for m, key in enumerate(sums.metrics)}
        draws = _draws(sums, options)
        for name, row in differences.items():
            row[sums.region] = _differences(sums, draws, places[name], places[base], options, paired=paired)
    return MethodComparison(
        shared_protocol(results),
        results[0].split,
        base,
        tuple(methods),
        panel.metrics,
        values,
        differences,
        len(frames),
        panel.clusters,
        cluster_name,
        options,
        (*notes, *panel.notes, *_warnings(methods)),
    )


def _baseline(methods: Mapping[str, Sequence[Any]], baseline: str | None, *, paired: bool) -> str:
    if len(methods) < 2:
        raise UsageError("comparing methods needs two or more: give --method NAME=FILE,FILE,... for each.")
    for name, runs in methods.items():
        if not runs:
            raise UsageError(f"--method {name}: no result file. Give NAME=FILE,FILE,...")
    if paired and len({len(runs) for runs in methods.values()}) > 1:
        counts = ", ".join(f"{name} {len(runs)}" for name, runs in methods.items())
        raise UsageError(f"--paired-seeds: every method needs the same number of runs, got {counts}.")
    base = next(iter(methods)) if baseline is None else baseline
    if base not in methods:
        raise UsageError(f"--baseline {base}: no such method; known: {', '.join(methods)}.")
    return base


def _places(methods: Mapping[str, Sequence[Any]]) -> dict[str, list[int]]:
    places, start = {}, 0
    for name, runs in methods.items():
        places[name] = list(range(start, start + len(runs)))
        start += len(runs)
    return places


def _value(seeds: FloatArray) -> MethodValue:
    spread = float(seeds.std(ddof=1)) if len(seeds) > 1 else float("nan")
    return MethodValue(tuple(float(v) for v in seeds), float(seeds.mean()), spread)


def _draws(sums: RegionSums, options: Options) -> FloatArray:
    if len(sums.sums) < 2:
        return np.full((1, *sums.values.shape), np.nan)
    return sums.evaluate(stats.bootstrap_sums(sums.sums, options.resamples, options.seed, bayes=options.bayes))


def _differences(
    sums: RegionSums, draws: FloatArray, a: list[int], b: list[int], options: Options, *, paired: bool
) -> dict[str, MethodDifference]:
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([options.seed, 2])))
    runs_a = rng.integers(0, len(a), size=(len(draws), len(a)))
    runs_b = runs_a if paired else rng.integers(0, len(b), size=(len(draws), len(b)))
    row = np.arange(len(draws))[:, None]
    drawn = draws[row, np.array(a)[runs_a]].mean(axis=1) - draws[row, np.array(b)[runs_b]].mean(axis=1)  # [B, M]
    out = {}
    for m, key in enumerate(sums.metrics):
        seeds_a, seeds_b = sums.values[a, m], sums.values[b, m]
        good, dropped = stats.drop_undefined(drawn[:, m])
        ci = stats.percentile_interval(good, options.confidence) if len(good) > 1 and dropped <= LEVEL else None
        p, smallest = permute_runs(seeds_a, seeds_b)
        delta = float(seeds_a.mean() - seeds_b.mean())
        spread = _pooled_spread(seeds_a, seeds_b)
        units = delta / spread if spread > 0 else float("nan")
        out[key] = MethodDifference(delta, ci, p, smallest, units, paired, sums.higher_is_better[m])
    return out


def _pooled_spread(a: FloatArray, b: FloatArray) -> float:
    if len(a) < 2 or len(b) < 2:
        return float("nan")
    free = len(a) + len(b) - 2
    return float(np.sqrt((a.var(ddof=1) * (len(a) - 1) + b.var(ddof=1) * (len(b) - 1)) / free))


def permute_runs(a: FloatArray, b: FloatArray) -> tuple[float, float]:
    """Exact permutation test of run values between two methods.

    Args:
        a: [S] values of the runs of one method.
        b: [T] values of the runs of the other.

    Returns:
        Two-sided p, and the smallest that these numbers of runs allow (2 / C(S + T, S) for S = T).
    """
    pool = np.concatenate([a, b])
    observed = a.mean() - b.mean()
    slack = 1e-12 * max(abs(float(observed)), 1e-300)
    less = greater = total = 0
    for chosen in combinations(range(len(pool)), len(a)):
        mask = np.zeros(len(pool), bool)
        mask[list(chosen)] = True
        t = pool[mask].mean() - pool[~mask].mean()
        less += int(t <= observed + slack)
        greater += int(t >= observed - slack)
        total += 1
    return min(1.0, 2 * min(less, greater) / total), min(1.0, 2 / total)


def _warnings(methods: Mapping[str, Sequence[Any]]) -> list[str]:
    single = [name for name, runs in methods.items() if len(runs) == 1]
    few = [name for name, runs in methods.items() if 1 < len(runs) < FEWEST_SEEDS]
    found = [f"{name}: single run; nothing can be said about the method." for name in single]
    found += [f"{name}: {len(methods[name])} runs; three are the least, five are better." for name in few]
    return found


def _plain(regions: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    from dataclasses import asdict

    def clean(value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return [clean(v) for v in value]
        return None if isinstance(value, float) and not np.isfinite(value) else value

    out: dict[str, Any] = {}
    for region, cells in regions.items():
        out[region] = {}
        for metric, cell in cells.items():
            record = {k: clean(v) for k, v in asdict(cell).items()}
            if isinstance(cell, MethodDifference):
                record["verdict"] = cell.verdict
            out[region][metric] = record
    return out
