"""The tables of the self-supervised page: published numbers as in the recipes, keys and defaults as in the schema."""

import json
import re
from pathlib import Path

import pytest

from adubench.recipes.recipe import RECIPES, load_recipe
from adubench.recipes.self_supervised_sections import SelfSupervisedSection, SubDepthSection

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "self_supervised.md").read_text(encoding="utf-8")
METRICS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "d1", "d2", "d3")


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_published_numbers_are_those_of_the_recipes():
    found = {row[0].strip("`"): row[1:] for line in TEXT.splitlines() if len(row := cells(line)) == 8 and "`" in row[0]}
    expected = {}
    for name in RECIPES:
        recipe = load_recipe(name)
        if recipe.self_supervision and recipe.expected:
            expected[name] = [f"{recipe.expected[m]:.3f}" if m in recipe.expected else "" for m in METRICS]
    assert found == expected


def test_the_table_of_wrong_motion_is_that_of_its_report():
    make_tables = pytest.importorskip("benchmarks.make_tables")
    landscape = pytest.importorskip("benchmarks.motion_landscape", reason="needs torch", exc_type=ImportError)
    report = json.loads(landscape.RESULTS.read_text(encoding="utf-8"))
    for key, block in landscape.table(report).items():
        assert make_tables.fill(TEXT, key, block) == TEXT, "run python -m benchmarks.motion_landscape"
    error = report["error"]
    turn = error["no translation, false yaw of +1.2 degrees"]
    assert turn[1] < error["0.2 of the true translation"][1], "what the page says with masking"
    assert turn[0] > error["0 of the true translation"][0], "what the page says without"


def test_every_switch_is_described():
    named = set(re.findall(r"`([a-z_0-9]+)`", TEXT))
    left_out = {"flip", "jitter"}
    assert set(SelfSupervisedSection.model_fields) - named - left_out - {"weights", "pose_weights"} == set()
    assert set(SubDepthSection.model_fields) - named == set()
    assert "self_supervised.weights" in TEXT
