"""Every experiment at every scale: complete recipes, reasons for what cannot run, and what is kept for the measures."""

from __future__ import annotations

import pytest

from adubench.recipes.experiments import SCALE_NAMES, expand, load_experiment, variants

NAMES = ("E1", "E2", "E3", "E4", "E5", "E6", "E7", "E8", "table4")


@pytest.mark.parametrize("scale", SCALE_NAMES)
@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_expands_at_every_scale(name: str, scale: str) -> None:
    experiment = load_experiment(name)[0]
    expansion = expand(experiment, scale, seeds=1)
    rows = {spec.variant for spec in expansion.runs}
    assert experiment.baseline in rows
    assert len(rows) + len(expansion.absent) + len(expansion.later) == len(variants(experiment))
    assert all(expansion.absent.values())
    assert all(spec.recipe.test.split is not None for spec in expansion.runs)
    assert experiment.cautions


def test_milestones_and_shares_are_on_where_they_are_measured() -> None:
    runs = {name: expand(load_experiment(name)[0], "full", seeds=1).runs[0].recipe for name in ("E2", "E6", "E8")}
    assert runs["E6"].checkpoint.milestones == (0.0, 0.25, 0.5)  # epochs 0, 10, 20 of 40
    assert runs["E2"].log.gradient_shares
    assert not runs["E8"].log.gradient_shares
    assert runs["E8"].checkpoint.milestones == ()


def test_a_milestone_is_no_other_recipe() -> None:
    experiment = load_experiment("table4")[0]
    plain, kept = (
        expand(experiment, "smoke", seeds=1, overrides=overrides).runs[0]
        for overrides in ([], ["checkpoint.milestones=[0.5]"])
    )
    assert plain.digest == kept.digest
