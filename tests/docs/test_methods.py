"""The tables of docs/methods.md are those of the report, and every method is a recipe that exists."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adubench.recipes.recipe import RECIPES
from benchmarks import make_tables, methods_table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "methods.md"


def test_tables_are_those_of_the_report() -> None:
    if not methods_table.RESULTS.is_file():
        pytest.skip("no report: run python -m benchmarks.methods_table --measure")
    blocks = methods_table.table(json.loads(methods_table.RESULTS.read_text(encoding="utf-8")))
    text = PAGE.read_text(encoding="utf-8")
    assert set(make_tables.keys(text)) == set(blocks)
    for key, block in blocks.items():
        assert make_tables.fill(text, key, block) == text, f"{key}: run python -m benchmarks.methods_table"


def test_methods_are_recipes() -> None:
    assert set(methods_table.METHODS) <= set(RECIPES)
