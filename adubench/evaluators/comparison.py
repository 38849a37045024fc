"""Compare results: one pure function from results to differences with intervals and p-values.

The sampling unit is the drive. All models, regions and metrics share the resampling weights, so every difference is
paired. Aggregation follows the protocol for `all` (mean over images) and is pooled over pixels for other regions.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

import numpy as np

from adubench.errors import unknown_name
from adubench.evaluators import statistics as stats
from adubench.evaluators.comparability import (
    assign_clusters,
    check_columns,
    check_comparable,
    check_pixels,
    common_frames,
    drives_of,
    protocol_title,
    provenance_notes,
    shared_protocol,
)
from adubench.evaluators.comparison_model import LEVEL, Comparison, Difference, Estimate, Options, Pair
from adubench.evaluators.panel import Panel, RegionSums, build_panel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from adubench.evaluators.comparison_model import Interval
    from adubench.evaluators.result import EvaluationResult
    from adubench.evaluators.statistics import FloatArray

    SwapTests = Callable[[int, int], stats.SwapTest]

__all__ = ["Comparison", "Difference", "Estimate", "Options", "Pair", "compare"]

FEW_CLUSTERS = 8
INVERSION_BELOW = 20
MOST_EMPTY_DRAWS = 0.05


@np.errstate(all="ignore")  # results of absurd depths overflow; what is not finite is printed as n/a
def compare(
    results: Sequence[EvaluationResult],
    *,
    baseline: str | None = None,
    metrics: Sequence[str] | None = None,
    regions: Sequence[str] | None = None,
    cluster: str = "auto",
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
    force: bool = False,
    interval: str = "auto",
    adjust: str = "holm",
    primary: str = "abs_rel@all",
    bayes: bool = False,
    test: str = "swap",
    equiv: float | None = None,
) -> Comparison:
    """Compare results on their common images.

    Args:
        results: one or more results with distinct labels.
        baseline: label of the model that others are compared with; default the first.
        metrics: metric keys; default those that all results report in their summary.
        regions: region names; default all that the results share.
        cluster: see `Options`, as for the remaining arguments.
        resamples: number of bootstrap resamples.
        confidence: of intervals.
        seed: of the generator.
        force: compare results of different protocols, and say so.
        interval: kind of interval.
        adjust: `holm` or `bh`.
        primary: `metric@region` reported unadjusted.
        bayes: Bayesian bootstrap.
        test: where p-values come from.
        equiv: margin of equivalence.

    Raises:
        ResultError: the results may not be compared, share no image, or lack what was asked for.
        UsageError: an unknown name or an option that makes no sense.
    """
    options = Options(cluster, resamples, confidence, seed, interval, adjust, primary, bayes, force, test, equiv)
    options.check()
    mixed = check_comparable(results, force=force)
    check_columns(results)
    labels = tuple(r.label for r in results)
    base = labels[0] if baseline is None else baseline
    if base not in labels:
        raise unknown_name("baseline", base, labels)
    frames, notes = common_frames(results)
    notes += provenance_notes(results)
    mixed += check_pixels(results, frames, force=force)
    drives = drives_of(results[0], frames)
    names, cluster_name = assign_clusters(frames, drives, cluster)
    panel = build_panel(results, frames, names, metrics, regions)
    estimates: dict[str, dict[str, dict[str, Estimate]]] = {label: {} for label in labels}
    pairs: dict[str, dict[str, dict[str, Difference]]] = {label: {} for label in labels if label != base}
    stability: tuple[stats.Ranking | None, dict[str, str]] = (None, {})
    for sums in panel.regions:
        draws, swaps = _draws(sums, options), _swap_tests(sums, options)
        _fill_estimates(estimates, sums, draws, labels, options, swaps)
        for label, row in pairs.items():
            row[sums.region] = _differences(sums, draws, labels.index(label), labels.index(base), options, swaps)
        if len(labels) > 2 and options.primary in {f"{m}@{sums.region}" for m in sums.metrics}:
            stability = _stability(sums, draws, labels, options, swaps)
    adjusted, family = _adjust(pairs, options)
    comparison = Comparison(
        protocol=shared_protocol(results),
        split=results[0].split,
        baseline=base,
        labels=labels,
        metrics=panel.metrics,
        estimates=estimates,
        pairs=tuple(Pair(label, base, row) for label, row in adjusted.items()),
        n_images=len(frames),
        n_pixels=panel.pixels[labels.index(base)],
        n_clusters=panel.clusters,
        cluster_name=cluster_name,
        mixed=tuple(mixed),
        marks=_marks(results, len(frames), mixed=bool(mixed)),
        ranks=stability[0],
        letters=stability[1],
        options=options,
        family=family,
    )
    return replace(comparison, warnings=(*mixed, *notes, *panel.notes, *_warnings(comparison, panel)))


def _draws(sums: RegionSums, options: Options) -> FloatArray:
    """Return bootstrap values [B, K, M]; with one cluster there is nothing to resample."""
    rows = sums.sums
    if len(rows) < 2:
        return np.full((1, *sums.values.shape), np.nan)
    return sums.evaluate(stats.bootstrap_sums(rows, options.resamples, options.seed, bayes=options.bayes))


def _swap_tests(sums: RegionSums, options: Options) -> SwapTests:
    """Test pairs of models, each pair once: only what does not depend on their order may be read of the result."""
    filled = sums.filled

    @cache
    def test(i: int, j: int) -> stats.SwapTest:
        return stats.swap_test(sums.sums[filled, i], sums.sums[filled, j], sums.evaluate, options.seed)

    return lambda a, b: test(min(a, b), max(a, b))


def _fill_estimates(
    estimates: dict[str, dict[str, dict[str, Estimate]]],
    sums: RegionSums,
    draws: FloatArray,
    labels: Sequence[str],
    options: Options,
    swaps: SwapTests,
) -> None:
    kind = options.interval
    if kind in ("auto", "inversion"):
        kind = "bca" if options.cluster == "image" else "percentile"
    near = _near_best(sums, swaps)
    for k, label in enumerate(labels):
        row = estimates[label].setdefault(sums.region, {})
        for m, metric in enumerate(sums.metrics):
            value = float(sums.values[k, m])

            def deleted(k: int = k, m: int = m) -> FloatArray:
                left_out: FloatArray = stats.jackknife(sums.sums, sums.evaluate)[:, k, m]
                return left_out

            ci = _interval(kind, value, draws[:, k, m], deleted, options.confidence)[0]
            row[metric] = Estimate(value, ci, int(sums.images[m]), bool(near[k, m]))


def _near_best(sums: RegionSums, swaps: SwapTests) -> NDArray[np.bool_]:
    """[K, M]: models that the swap test (Holm over the column) does not separate from the best of the column."""
    models, count = sums.values.shape
    near = np.zeros((models, count), bool)
    sign = np.where(sums.higher_is_better, -1.0, 1.0)
    scores = np.where(np.isfinite(sums.values), sums.values * sign, np.inf)
    best = scores.argmin(axis=0)
    tests = {
        (i, j): swaps(i, j).two_sided
        for i, j in combinations(range(models), 2)
        if (best == i).any() or (best == j).any()
    }
    for m in range(count):
        others = [k for k in range(models) if k != best[m] and np.isfinite(scores[k, m])]
        p = [tests[min(k, best[m]), max(k, best[m])][m] for k in others]
        near[others, m] = stats.holm(np.array(p, dtype=np.float64)) >= LEVEL
    return near


def _interval(
    kind: str, estimate: float, draws: FloatArray, deleted: Callable[[], FloatArray], confidence: float
) -> tuple[Interval, str, float]:
    """Return the interval, how it was made, and the share of undefined draws."""
    good, dropped = stats.drop_undefined(draws)
    if not np.isfinite(estimate) or len(good) < 2 or dropped > MOST_EMPTY_DRAWS:
        return None, "none", dropped
    if kind == "basic":
        return stats.basic_interval(estimate, good, confidence), kind, dropped
    if kind == "bca":
        found = stats.bca_interval(estimate, good, deleted(), confidence)
        if found is not None:
            return found, "BCa", dropped
        return stats.percentile_interval(good, confidence), "percentile (BCa undefined)", dropped
    return stats.percentile_interval(good, confidence), "percentile", dropped


def _differences(
    sums: RegionSums, draws: FloatArray, a: int, b: int, options: Options, swaps: SwapTests
) -> dict[str, Difference]:
    """Compare models a and b in every metric of one region."""
    swap = swaps(a, b) if options.test == "swap" else None
    out = {}
    for m, metric in enumerate(sums.metrics):
        value_a, value_b = float(sums.values[a, m]), float(sums.values[b, m])
        delta = value_a - value_b
        difference = draws[:, a, m] - draws[:, b, m]
        ci, how, dropped = _pair_interval(sums, difference, delta, (a, b, m), options)
        valid = sums.valid[:, m]
        d = (sums.per_image[a, :, m] - sums.per_image[b, :, m])[valid]
        groups = sums.labels[valid]
        strength = stats.clustering(d, groups)
        sizes = np.bincount(groups)
        present = sizes > 0
        means = np.bincount(groups, weights=d)[present] / sizes[present]
        good, _ = stats.drop_undefined(difference)
        p = _on_means(means, options.test) if swap is None else float(swap.two_sided[m])
        up = sums.higher_is_better[m]
        out[metric] = Difference(
            value_a=value_a,
            value_b=value_b,
            delta=delta,
            relative=delta / value_b if value_b else float("nan"),
            ci=ci,
            interval=how,
            p=p,
            p_holm=p,
            standard_error=float(good.std(ddof=1)) if len(good) > 1 else float("nan"),
            n_images=int(valid.sum()),
            n_clusters=int(present.sum()),
            icc=strength.icc,
            deff=strength.design_effect,
            effect=stats.standardised(means),
            wins_images=stats.win_rate(d, np.zeros_like(d), higher_is_better=up),
            wins_clusters=stats.win_rate(means, np.zeros_like(means), higher_is_better=up) * int(present.sum()),
            higher_is_better=up,
            exact=swap is not None and swap.exact,
            dropped=dropped,
            equivalent=_equivalent(sums, difference, delta, (a, b, m), options),
        )
    return out


def _pair_interval(
    sums: RegionSums, draws: FloatArray, delta: float, where: tuple[int, int, int], options: Options
) -> tuple[Interval, str, float]:
    a, b, m = where
    kind = options.interval
    if kind == "auto" and options.cluster == "image":
        kind = "bca"
    groups = int(sums.filled.sum())
    if kind == "inversion" or (kind == "auto" and groups < INVERSION_BELOW):
        shares = sums.mean_type(a, b, m)
        if shares is not None and np.isfinite(delta):
            low, high = stats.inversion_interval(*shares, options.confidence, options.seed)
            if np.isfinite(low) and np.isfinite(high):
                return (low, high), "inversion", 0.0

    def deleted() -> FloatArray:
        values = stats.jackknife(sums.sums, sums.evaluate)
        left_out: FloatArray = values[:, a, m] - values[:, b, m]
        return left_out

    return _interval(kind, delta, draws, deleted, options.confidence)


def _on_means(means: FloatArray, test: str) -> float:
    """Return the p-value of a test on the means of the clusters; NaN where they do not vary."""
    if len(means) < 2 or not np.ptp(means):
        return float("nan")
    return (stats.signed_rank if test == "wilcoxon" else stats.t_test)(means)[1]


def _equivalent(
    sums: RegionSums, draws: FloatArray, delta: float, where: tuple[int, int, int], options: Options
) -> bool | None:
    """Two one-sided tests at 5 %: whether the 90 % interval lies within the margin; None when it was not asked."""
    if options.equiv is None:
        return None
    ci, _, _ = _pair_interval(sums, draws, delta, where, replace(options, confidence=1 - 2 * LEVEL))
    return ci is not None and -options.equiv < ci[0] and ci[1] < options.equiv


def _stability(
    sums: RegionSums, draws: FloatArray, labels: Sequence[str], options: Options, swaps: SwapTests
) -> tuple[stats.Ranking | None, dict[str, str]]:
    """Rank stability and the letters of models whose neighbours are not separated, in the primary metric."""
    m = sums.metrics.index(options.primary.partition("@")[0])
    values, up = sums.values[:, m], sums.higher_is_better[m]
    usable = draws[np.isfinite(draws[:, :, m]).all(axis=1), :, m]
    if len(usable) < 2 or not np.isfinite(values).all():
        return None, {}
    ranks = stats.ranking(usable, values, higher_is_better=up, confidence=options.confidence)
    order = np.argsort(-values if up else values, kind="stable")
    p = [float(swaps(i, j).two_sided[m]) for i, j in pairwise(order.tolist())]
    separated = stats.holm(np.array(p)) < LEVEL
    letters, current = {labels[order[0]]: "a"}, 0
    for step, model in enumerate(order[1:]):
        current += int(separated[step])
        letters[labels[model]] = chr(ord("a") + current) if current < 26 else f"g{current}"
    return ranks, letters


def _adjust(
    pairs: dict[str, dict[str, dict[str, Difference]]], options: Options
) -> tuple[dict[str, dict[str, dict[str, Difference]]], int]:
    """Adjust all p-values but the primary ones together."""
    keys = [
        (label, region, metric)
        for label, row in pairs.items()
        for region, cells in row.items()
        for metric in cells
        if f"{metric}@{region}" != options.primary
    ]
    rule = stats.holm if options.adjust == "holm" else stats.benjamini_hochberg
    adjusted = rule(np.array([pairs[label][region][metric].p for label, region, metric in keys], dtype=np.float64))
    out = {label: {region: dict(cells) for region, cells in row.items()} for label, row in pairs.items()}
    for (label, region, metric), p in zip(keys, adjusted, strict=True):
        out[label][region][metric] = replace(out[label][region][metric], p_holm=float(p))
    return out, len(keys)


def _marks(results: Sequence[EvaluationResult], n_common: int, *, mixed: bool) -> dict[str, tuple[str, ...]]:
    """Remarks to print with each row."""
    marks = {}
    for result in results:
        found = []
        evaluated, expected = result.counts.get("evaluated", 0), result.counts.get("expected", 0)
        if result.partial or evaluated != expected:
            found.append(f"partial: {evaluated} of {expected} images")
        if evaluated > n_common:
            found.append(f"on {n_common} common images")
        if mixed:
            found.append(f"protocol {protocol_title(result)}")
        marks[result.label] = tuple(found)
    return marks


def _warnings(comparison: Comparison, panel: Panel) -> list[str]:
    """Say what weakens the conclusions."""
    found = [f"{label} is {m}." for label, marks in comparison.marks.items() for m in marks if m.startswith("partial")]
    groups, name = comparison.n_clusters, comparison.cluster_name
    images = comparison.options.cluster == "image"
    if groups == 1:
        found.append(
            f"all frames are of one cluster ({name}): no interval and no p-value. Use --cluster block:N or "
            "--cluster image."
        )
    elif groups < FEW_CLUSTERS:
        found.append(
            f"{groups} {name} are few: bootstrap intervals are too narrow"
            + (", and no p-value can be below 0.05" if stats.smallest_p(groups) >= LEVEL else "")
            + ". Runs of frames can serve as clusters (--cluster block:N)."
        )
    if panel.largest_share > 0.25 and groups > 1:
        found.append(f"one of the {groups} {name} holds {panel.largest_share:.0%} of the images.")
    if images:
        found.append("--cluster image treats frames of one drive as independent: p-values are far too small.")
    cells = [(pair.a, r, m, d) for pair in comparison.pairs for r, row in pair.regions.items() for m, d in row.items()]
    for label, region, metric, d in cells:
        if d.dropped > MOST_EMPTY_DRAWS and groups > 1:  # one cluster was said above
            found.append(f"{metric}@{region} of {label}: {d.dropped:.0%} of resamples are empty, no interval is given.")
    return found
