"""What a comparison is: its options, its numbers, and their JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from adubench.errors import UsageError, unknown_name
from adubench.evaluators import statistics as stats

if TYPE_CHECKING:
    Interval = tuple[float, float] | None

INTERVALS = ("auto", "percentile", "basic", "bca", "inversion")
TESTS = {"swap": "swap test", "wilcoxon": "Wilcoxon signed rank on means", "t": "t-test on means"}
LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Options:
    """How a comparison is made.

    Attributes:
        cluster: `auto`, `drive`, `image`, `block:N` or a CSV file (`comparability.assign_clusters`).
        resamples: number of bootstrap resamples.
        confidence: of all intervals.
        seed: of PCG64.
        interval: one of `INTERVALS`; `auto` inverts the swap test for mean-type statistics with fewer than 20 clusters,
            takes BCa for images as clusters, else percentiles.
        adjust: `holm` or `bh`.
        primary: the one `metric@region` that is reported unadjusted.
        bayes: Dirichlet weights instead of counts.
        force: compare results of different protocols.
        test: `swap`, or on the means of the clusters `wilcoxon` (signed rank) or `t`.
        equiv: margin of equivalence in the metric's own unit; None asks for none.
    """

    cluster: str = "auto"
    resamples: int = 10_000
    confidence: float = 0.95
    seed: int = 0
    interval: str = "auto"
    adjust: str = "holm"
    primary: str = "abs_rel@all"
    bayes: bool = False
    force: bool = False
    test: str = "swap"
    equiv: float | None = None

    def check(self) -> None:
        """Raise UsageError for values that make no sense."""
        if self.resamples < 100:
            raise UsageError(f"--resamples {self.resamples}: expected at least 100; 10000 is the default.")
        if not 0.5 <= self.confidence < 1:
            raise UsageError(f"--confidence {self.confidence}: expected a number in [0.5, 1), e.g. 0.95.")
        if self.interval not in INTERVALS:
            raise unknown_name("interval", self.interval, INTERVALS)
        if self.adjust not in ("holm", "bh"):
            raise unknown_name("adjustment", self.adjust, ("holm", "bh"))
        if self.test not in TESTS:
            raise unknown_name("test", self.test, TESTS)
        if self.equiv is not None and not 0 < self.equiv < float("inf"):
            raise UsageError(f"--equiv {self.equiv}: expected a margin > 0 in the metric's unit, e.g. 0.001.")
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed}: expected a number >= 0.")


@dataclass(frozen=True, slots=True)
class Estimate:
    """One model's value of a metric in a region.

    Attributes:
        value: on the common images.
        ci: interval from the cluster bootstrap, None where undefined.
        n_images: images with a value in every model.
        near_best: not the best of its column, and not separated from it either.
    """

    value: float
    ci: Interval
    n_images: int
    near_best: bool = False


@dataclass(frozen=True, slots=True)
class Difference:
    """Model a against model b in one metric of one region.

    Attributes:
        value_a: value of a on the common images.
        value_b: value of b.
        delta: a - b.
        relative: delta / value of b.
        ci: interval of delta, None where it is undefined.
        interval: how it was made.
        p: two-sided p-value of the swap test, NaN where undefined.
        p_holm: the adjusted p-value (the primary one stays as it is).
        standard_error: bootstrap standard deviation of delta.
        n_images: images with a value in every model.
        n_clusters: clusters with such images.
        icc: intraclass correlation of the per-image differences.
        deff: design effect; n_images / deff is the equivalent number of independent images.
        effect: d_z, mean over standard deviation of the cluster means of the differences.
        wins_images: share of images where a is better, ties half.
        wins_clusters: number of clusters where a is better on average, ties half.
        higher_is_better: direction of the metric.
        exact: all exchanges of labels were visited.
        dropped: share of resamples in which the region was empty.
        equivalent: the 90 % interval lies within the margin of equivalence; None when none was asked.
    """

    value_a: float
    value_b: float
    delta: float
    relative: float
    ci: Interval
    interval: str
    p: float
    p_holm: float
    standard_error: float
    n_images: int
    n_clusters: int
    icc: float
    deff: float
    effect: float
    wins_images: float
    wins_clusters: float
    higher_is_better: bool
    exact: bool
    dropped: float
    equivalent: bool | None = None

    @property
    def too_few(self) -> bool:
        """True when no p-value below 0.05 is possible with these clusters."""
        return stats.smallest_p(self.n_clusters) >= LEVEL

    @property
    def separated(self) -> bool:
        """True when the adjusted p is below 0.05 and the interval excludes 0."""
        return not self.too_few and self.ci is not None and self.p_holm < LEVEL and not self.ci[0] <= 0 <= self.ci[1]

    @property
    def better(self) -> bool:
        """True when a is better than b in the metric's direction (whether or not separated)."""
        return self.delta > 0 if self.higher_is_better else self.delta < 0


@dataclass(frozen=True, slots=True)
class Pair:
    """All differences of one model to the baseline: region -> metric -> difference."""

    a: str
    b: str
    regions: dict[str, dict[str, Difference]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that tables, files and reports say about a set of results.

    Attributes:
        protocol: the protocol's record; when protocols are mixed, `name` "mixed" and all of them by label.
        split: name of the split, None for a folder of ground truth.
        baseline: name of the model that others are compared with.
        labels: all models in the order given.
        metrics: metric keys, in table order.
        estimates: model -> region -> metric -> estimate.
        pairs: one per model other than the baseline.
        n_images: common images.
        n_pixels: valid pixels of the baseline on them.
        n_clusters: their clusters.
        cluster_name: what a cluster is called (`drives`).
        mixed: differences that `force` overrode; empty for a proper comparison.
        marks: model -> remarks to print with its row (partial, protocol of a mixed table).
        warnings: sentences a reader must see.
        ranks: rank stability in the primary metric, when there are three models or more.
        letters: model -> letters; neighbours not separated in the primary metric share one.
        options: how the comparison was made.
        family: number of p-values adjusted together.
    """

    protocol: dict[str, Any]
    split: str | None
    baseline: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    estimates: dict[str, dict[str, dict[str, Estimate]]]
    pairs: tuple[Pair, ...]
    n_images: int
    n_pixels: int
    n_clusters: int
    cluster_name: str
    mixed: tuple[str, ...] = ()
    marks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    ranks: stats.Ranking | None = None
    letters: dict[str, str] = field(default_factory=dict)
    options: Options = field(default_factory=Options)
    family: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of `compare --format json`; non-finite numbers are None."""
        return {
            "protocol": self.protocol,
            "baseline": self.baseline,
            "comparisons": [
                {
                    "a": pair.a,
                    "b": pair.b,
                    "regions": {
                        region: {metric: _cell(d) for metric, d in row.items()} for region, row in pair.regions.items()
                    },
                }
                for pair in self.pairs
            ],
        }


def _cell(d: Difference) -> dict[str, Any]:
    ci = [None, None] if d.ci is None else [_number(d.ci[0]), _number(d.ci[1])]
    return {
        "delta": _number(d.delta),
        "ci": ci,
        "p": _number(d.p),
        "p_holm": _number(d.p_holm),
        "n_clusters": d.n_clusters,
        "deff": _number(d.deff),
    } | ({} if d.equivalent is None else {"equivalent": d.equivalent})


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
