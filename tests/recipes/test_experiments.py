"""Experiments: how many runs, what each row changes, and faults in their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from adubench.errors import UsageError
from adubench.recipes.experiments import SCALE_NAMES, expand, experiment_files, flat, later_runs, load_experiment
from adubench.recipes.recipe import needs_teacher


def test_all_experiments_are_there() -> None:
    assert {"E1", "E2", "E3", "E4", "E5", "E6", "E7", "E8", "table4"} <= set(experiment_files())


@pytest.mark.parametrize(
    ("name", "scale", "runs", "later"),
    [
        ("E1", "smoke", 8 * 3, 0),
        ("E2", "smoke", 6 * 2 * 2 * 3, 1),
        ("E3", "smoke", 32 + 5, 0),
        ("E3", "dev", 2 * (32 + 5), 0),
        ("E4", "dev", 10 * 3, 0),
        ("E4", "synth", 5 * 3, 0),
        ("E5", "smoke", 8 * 3, 0),
        ("E6", "smoke", 4 * 3, 0),
        ("E7", "smoke", 5 * 3, 0),
        ("E8", "smoke", 7 * 3, 0),
        ("table4", "full", 7 * 3, 0),
    ],
)
def test_number_of_runs(name: str, scale: str, runs: int, later: int) -> None:
    expansion = expand(load_experiment(name)[0], scale)
    assert len(expansion.runs) == runs
    assert len(expansion.later) == later
    assert len({spec.id for spec in expansion.runs}) == runs
    assert len({spec.digest for spec in expansion.runs}) >= runs * 0.6  # grids repeat a point at most a few times


def test_rows_of_table_4_change_exactly_the_named_keys() -> None:
    runs = {spec.variant: spec for spec in expand(load_experiment("table4")[0], "full", seeds=1).runs}
    full = flat(runs["Full"].recipe.plain())
    for name, spec in runs.items():
        own = flat(spec.recipe.plain())
        changed = {k for k in own.keys() | full.keys() if own.get(k) != full.get(k)} - {"name"}
        assert changed == set(spec.set), name
    assert runs["Teacher"].role == "teacher"
    assert not needs_teacher(runs["Baseline"].recipe)


def test_scales() -> None:
    experiment = load_experiment("table4")[0]
    for scale, encoder in zip(SCALE_NAMES, ("large07", "tiny07", "micro", "mini"), strict=True):
        recipe = expand(experiment, scale, seeds=1).runs[0].recipe
        assert recipe.student.encoder == recipe.teacher.encoder == encoder
    assert expand(experiment, "dev").runs[0].recipe.train.epochs == 5
    assert expand(experiment, "full").runs[0].recipe.train.epochs == 40
    assert expand(experiment, "smoke").runs[0].recipe.train.steps == 20


def test_the_search_has_the_sobol_points_and_the_fixed_ones() -> None:
    runs = {spec.variant: spec.recipe.distill.lambda_ for spec in expand(load_experiment("E3")[0], "smoke").runs}
    first = runs["sobol 00"]
    assert (first.umr, first.umf, first.focal) == pytest.approx((1.275878, 1.397049, 0.544076), abs=1e-6)
    assert (runs["published"].umr, runs["published"].umf, runs["published"].focal) == (0.9, 0.6, 0.8)
    assert all(0 <= value <= 1.5 for point in runs.values() for value in (point.umr, point.umf, point.focal))


def test_a_row_that_waits_starts_from_the_best_one() -> None:
    expansion = expand(load_experiment("E2")[0], "smoke", seeds=2)
    best = "gamma 0.5, granularity pixel, score exp"
    runs = later_runs(expansion, best)
    assert [spec.seed for spec in runs] == [0, 1]
    focal = runs[0].recipe.distill.focal
    assert (focal.alpha, focal.gamma, focal.granularity, focal.score) == (0.25, 0.5, "pixel", "exp")


def test_rows_that_a_scale_cannot_run_are_named_with_the_reason() -> None:
    expansion = expand(load_experiment("E4")[0], "smoke")
    assert "ImageNet" in expansion.absent["patch repeat"]


def test_overrides_reach_every_run() -> None:
    expansion = expand(load_experiment("table4")[0], "smoke", seeds=1, overrides=["train.steps=3"])
    assert {spec.recipe.train.steps for spec in expansion.runs} == {3}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("question: q\ntable: {a: silog}\nvary:\n  - name: one\n    sett: {seed: 1}\n", 5, "unknown key 'sett'"),
        ("question: q\ntable: {a: silog}\n", 1, "no rows"),
        ("question: q\ntable: {a: silog}\nbaseline: tow\nvary:\n  - name: two\n", 3, "did you mean 'two'"),
        ("question: q\ntable: {a: silog}\nvary:\n  - name: two\n  - name: two\n", 3, "'two' stands twice"),
        ("question: q\ntable: {a: silog}\nseeds: none\nvary:\n  - name: two\n", 3, "expected a whole number"),
        ("question: q\nmeasure: [metric]\ntable: {a: silog}\nvary:\n  - name: two\n", 2, "did you mean 'metrics'"),
    ],
)  # fmt: skip
def test_a_fault_in_an_experiment_names_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_experiment(path)
    assert str(caught.value).startswith(f"{path}, line {line}: ")
    assert words in str(caught.value)


def test_a_wrong_key_of_a_row_names_the_row(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("question: q\ntable: {a: silog}\nvary:\n  - {name: one, set: {distill.lamda.umr: 1.0}}\n")
    with pytest.raises(UsageError, match=r"row 'one': .*unknown key 'lamda' in 'distill': did you mean 'lambda'"):
        expand(load_experiment(path)[0], "smoke")


def test_unknown_names() -> None:
    with pytest.raises(UsageError, match="did you mean 'table4'"):
        load_experiment("tabel4")
    with pytest.raises(UsageError, match="did you mean 'smoke'"):
        expand(load_experiment("E1")[0], "smok")
