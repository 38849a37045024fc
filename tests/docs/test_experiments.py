"""The tables of docs/experiments.md are those of the stored results."""

from __future__ import annotations

import json
from statistics import mean

import pytest

from benchmarks import make_tables
from benchmarks.experiment_page import PAGE, RESULTS, SHOWN, blocks

STORED = sorted(RESULTS.glob("*.json"))


@pytest.mark.parametrize("path", STORED, ids=lambda p: p.stem)
def test_tables_are_those_of_the_stored_results(path):
    text = PAGE.read_text(encoding="utf-8")
    for key, block in blocks(path.stem, json.loads(path.read_text(encoding="utf-8"))).items():
        assert make_tables.fill(text, key, block) == text, f"{key}: run python -m benchmarks.experiment_page again"


@pytest.mark.parametrize("path", STORED, ids=lambda p: p.stem)
def test_means_are_those_of_the_runs(path):
    document = json.loads(path.read_text(encoding="utf-8"))
    columns = [column["key"] for column in document["table"]["columns"]]
    for row in document["table"]["rows"]:
        runs = [run for run in document["runs"] if run["row"] == row["name"]]
        assert [run["seed"] for run in runs] == [0, 1, 2]
        for metric in SHOWN:
            assert row["cells"][columns.index(metric)]["mean"] == pytest.approx(mean(run[metric] for run in runs))


def test_there_is_a_stored_result():
    assert "table4-synth" in [path.stem for path in STORED]
