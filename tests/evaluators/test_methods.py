"""Methods are compared by several runs each: runs and drives are drawn together."""

import itertools

import numpy as np
import pytest

from adubench.errors import UsageError
from adubench.evaluators.comparison_model import Options
from adubench.evaluators.methods import compare_methods, permute_runs
from tests.evaluators.results_for_comparison import make_result

FAST = Options(resamples=500)


def _runs(name, bias, seeds, **kwargs):
    return [make_result(f"{name}{s}", s, bias=bias, **kwargs) for s in seeds]


def test_the_mean_and_the_spread_over_runs():
    a, b = _runs("a", 0.05, range(3)), _runs("b", 0.0, range(10, 13))
    found = compare_methods({"a": a, "b": b}, baseline="b", metrics=["abs_rel"], options=FAST)
    values = np.array([r.summary["abs_rel"] for r in a])
    cell = found.values["a"]["all"]["abs_rel"]
    assert cell.mean == pytest.approx(values.mean())
    assert cell.spread == pytest.approx(values.std(ddof=1))
    difference = found.differences["a"]["all"]["abs_rel"]
    assert difference.delta == pytest.approx(values.mean() - found.values["b"]["all"]["abs_rel"].mean)
    assert difference.ci[0] < difference.delta < difference.ci[1]
    assert set(found.differences) == {"a"}


def test_runs_that_scatter_widen_the_interval():
    drives = {"drives": 12, "per_drive": 3}
    calm = _runs("a", 0.02, (0, 0, 0), **drives)
    for i, run in enumerate(calm):
        run.label = f"a{i}"
    wild = [make_result(f"w{i}", 0, bias=bias, **drives) for i, bias in enumerate((-0.15, 0.02, 0.25))]
    base = _runs("b", 0.0, range(20, 23), **drives)
    widths = []
    for runs in (calm, wild):
        found = compare_methods({"a": runs, "b": base}, baseline="b", metrics=["rmse"], options=FAST)
        low, high = found.differences["a"]["all"]["rmse"].ci
        widths.append(high - low)
    assert widths[1] > 1.5 * widths[0]


def test_a_difference_below_two_spreads_is_run_to_run_variation():
    spread = [make_result(f"a{i}", i, bias=bias) for i, bias in enumerate((0.0, 0.1, 0.2))]
    base = [make_result(f"b{i}", 5 + i, bias=bias) for i, bias in enumerate((0.0, 0.1, 0.19))]
    found = compare_methods({"a": spread, "b": base}, baseline="b", metrics=["rmse"], options=FAST)
    assert found.differences["a"]["all"]["rmse"].verdict == "within run-to-run variation"


def test_paired_runs_cancel_what_a_seed_does_to_both():
    biases = (-0.2, 0.0, 0.2)
    a = [make_result(f"a{i}", i, bias=bias + 0.02) for i, bias in enumerate(biases)]
    b = [make_result(f"b{i}", i, bias=bias) for i, bias in enumerate(biases)]
    widths = {}
    for paired in (False, True):
        found = compare_methods({"a": a, "b": b}, baseline="b", metrics=["log_bias"], options=FAST, paired=paired)
        low, high = found.differences["a"]["all"]["log_bias"].ci
        widths[paired] = high - low
    assert widths[True] < 0.5 * widths[False]


def test_the_permutation_of_runs_is_exact():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 3), rng.normal(1, 1, 4)
    pool, observed = np.concatenate([a, b]), a.mean() - b.mean()
    values = []
    for chosen in itertools.combinations(range(7), 3):
        rest = [i for i in range(7) if i not in chosen]
        values.append(pool[list(chosen)].mean() - pool[rest].mean())
    values = np.array(values)
    less, greater = (values <= observed + 1e-12).mean(), (values >= observed - 1e-12).mean()
    p, smallest = permute_runs(a, b)
    assert p == pytest.approx(min(1, 2 * min(less, greater)))
    assert smallest == pytest.approx(2 / 35)
    assert permute_runs(np.zeros(3), np.ones(3)) == (pytest.approx(0.1), pytest.approx(0.1))


def test_same_input_same_numbers():
    runs = {"a": _runs("a", 0.05, range(3)), "b": _runs("b", 0.0, range(10, 13))}
    assert compare_methods(runs, options=FAST).to_dict() == compare_methods(runs, options=FAST).to_dict()


@pytest.mark.parametrize(
    ("methods", "kwargs", "text"),
    [
        ({"a": 1}, {}, "two or more"),
        ({"a": 1, "b": 0}, {}, "no result file"),
        ({"a": 2, "b": 1}, {"paired": True}, "same number of runs, got a 2, b 1"),
        ({"a": 1, "b": 1}, {"baseline": "c"}, "no such method"),
    ],
)
def test_what_cannot_be_compared_is_said(methods, kwargs, text):
    runs = {name: [make_result(f"{name}{i}", i) for i in range(n)] for name, n in methods.items()}
    with pytest.raises(UsageError, match=text):
        compare_methods(runs, options=FAST, **kwargs)


def test_single_runs_are_said_to_be_single():
    found = compare_methods({"a": _runs("a", 0, [0]), "b": _runs("b", 0, [1, 2])}, options=FAST)
    assert any("a: single run" in text for text in found.warnings)
    assert any("b: 2 runs" in text for text in found.warnings)
