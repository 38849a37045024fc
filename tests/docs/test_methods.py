"""The tables of docs/methods.md are those of the report, and every method is a recipe that exists."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adubench.recipes.experiments import load_experiment
from adubench.recipes.recipe import RECIPES
from benchmarks import families_table, make_tables, methods_table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "methods.md"


def test_tables_are_those_of_the_report() -> None:
    if not methods_table.RESULTS.is_file():
        pytest.skip("no report: run python -m benchmarks.methods_table --measure")
    blocks = methods_table.table(json.loads(methods_table.RESULTS.read_text(encoding="utf-8")))
    text = PAGE.read_text(encoding="utf-8")
    assert {key for key in make_tables.keys(text) if key.startswith("methods")} == set(blocks)
    for key, block in blocks.items():
        assert make_tables.fill(text, key, block) == text, f"{key}: run python -m benchmarks.methods_table"


def test_methods_are_recipes() -> None:
    assert set(methods_table.METHODS) <= set(RECIPES)


def test_the_families_are_those_of_the_stored_comparison() -> None:
    if not families_table.RESULT.is_file():
        pytest.skip("no comparison: run python -m benchmarks.families_table RUNS...")
    text = PAGE.read_text(encoding="utf-8")
    for key, block in families_table.blocks(json.loads(families_table.RESULT.read_text(encoding="utf-8"))).items():
        assert make_tables.fill(text, key, block) == text, f"{key}: run python -m benchmarks.families_table"


def test_markers_of_the_families_exist() -> None:
    empty = families_table.blocks({"split": "", "tables": [], "pairs": []})
    assert set(empty) <= set(make_tables.keys(PAGE.read_text(encoding="utf-8")))


def test_rows_of_the_families_are_rows_of_experiments() -> None:
    for name, row in families_table.METHODS:
        assert row in [variant.name for variant in load_experiment(name)[0].vary]
    names = [name for name, _ in families_table.METHODS.values()]
    assert {base for _, base in families_table.METHODS.values() if base} <= set(names)
