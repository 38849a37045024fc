"""Bootstrap over images: counts times values against gathering the drawn rows.

Goals: B = 10 000 resamples of n = 697 images are at least 4 x faster than gathering at k = 18 columns and 10 x at
k = 180 (B1), and take at most 6 x the time that drawing the indices takes (B2).
Run: python -m benchmarks.bench_bootstrap
"""

from __future__ import annotations

from benchmarks import harness  # isort: skip  (limits threads, so it comes before numpy)

import argparse
from typing import Any

import numpy as np

from adubench.evaluators.statistics import bootstrap_sums

RESAMPLES, IMAGES = 10_000, 697
GOALS = {18: 4.0, 180: 10.0}
DRAW_GOAL = 6.0


def gather_per_resample(values: np.ndarray, resamples: int, seed: int = 0) -> np.ndarray:
    """The usual form: for every resample draw row numbers, gather the rows, average them."""
    rng = np.random.default_rng(seed)
    n = len(values)
    return np.stack([values[rng.integers(0, n, n)].mean(axis=0) for _ in range(resamples)])


def gather_in_chunks(values: np.ndarray, resamples: int, seed: int = 0, chunk: int = 100) -> np.ndarray:
    """The vectorised form: gather [chunk, n, k] rows at once, average over n."""
    rng = np.random.default_rng(seed)
    n = len(values)
    parts = [values[rng.integers(0, n, (chunk, n))].mean(axis=1) for _ in range(resamples // chunk)]
    return np.concatenate(parts)


def draw_indices(resamples: int, n: int, seed: int = 0, chunk: int = 100) -> None:
    """Draw the row numbers and do nothing with them."""
    rng = np.random.default_rng(seed)
    for _ in range(resamples // chunk):
        rng.integers(0, n, (chunk, n))


def agreement(values: np.ndarray, resamples: int) -> dict[str, float]:
    """Largest difference of means and of standard errors between both ways, in standard errors.

    The draws differ (other streams of random numbers), so the comparison is statistical; on equal indices both are
    equal to rounding, which the tests of the package check.
    """
    ours = bootstrap_sums(values, resamples) / len(values)
    theirs = gather_in_chunks(values, resamples)
    error = theirs.std(axis=0, ddof=1)
    return {
        "mean_shift_in_standard_errors": float((np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) / error).max()),
        "standard_error_ratio_off": float(np.abs(ours.std(axis=0, ddof=1) / error - 1).max()),
    }


def measure(columns: int, resamples: int, images: int, rounds: int) -> dict[str, Any]:
    """Time all contestants on one workload."""
    values = np.random.default_rng(columns).lognormal(size=(images, columns))
    report = harness.run_interleaved(
        {
            "gather per resample": lambda: gather_per_resample(values, resamples),
            "gather in chunks": lambda: gather_in_chunks(values, resamples),
            "draw indices": lambda: draw_indices(resamples, images),
            "adubench": lambda: bootstrap_sums(values, resamples),
        },
        rounds,
    )
    found = agreement(values, resamples)
    baselines = {name: harness.ratio(report, name, "adubench") for name in ("gather per resample", "gather in chunks")}
    return {
        "workload": f"bootstrap B={resamples} n={images} k={columns}",
        "ratio": min(baselines.values()),
        "ratios": baselines,
        "goal": GOALS.get(columns),
        "time_over_drawing": 1 / harness.ratio(report, "draw indices", "adubench"),
        "agreement": found,
        "agrees": found["mean_shift_in_standard_errors"] < 0.1 and found["standard_error_ratio_off"] < 0.05,
        **report,
    }


def main() -> int:
    """Measure both widths, write JSON, exit 1 if a goal (with --gate 0.75 of it) is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--resamples", type=int, default=RESAMPLES)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--columns", type=int, nargs="+", default=list(GOALS))
    parser.add_argument("--gate", type=float, default=1.0, help="share of the goal that must be reached (CI: 0.75)")
    parser.add_argument("-o", "--output", help="JSON file; default stdout")
    options = parser.parse_args()
    runs = [measure(k, options.resamples, options.images, options.rounds) for k in options.columns]
    narrow = runs[0]["time_over_drawing"]
    reached = all(run["agrees"] and run["ratio"] >= (run["goal"] or 0) * options.gate for run in runs)
    reached = reached and narrow <= DRAW_GOAL / options.gate
    summary = {
        "benchmark": "bootstrap",
        "goals": ["B1", "B2"],
        "draw_goal": DRAW_GOAL,
        "reached": reached,
        "runs": runs,
    }
    harness.write_json(summary, options.output)
    return 0 if reached else 1


if __name__ == "__main__":
    raise SystemExit(main())
