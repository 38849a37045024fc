"""The tables of docs/experiments.md are those of the stored results, and stored results are those of a folder."""

from __future__ import annotations

import json
from statistics import mean

import pytest

from adubench.evaluators.result import save_results
from benchmarks import experiment_page, make_tables
from benchmarks.experiment_page import PAGE, RESULTS, base_of, blocks, collect
from tests.evaluators.results_for_comparison import make_result

STORED = [p for p in sorted(RESULTS.glob("*.json")) if "runs" in json.loads(p.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("path", STORED, ids=lambda p: p.stem)
def test_tables_are_those_of_the_stored_results(path):
    text = PAGE.read_text(encoding="utf-8")
    for key, block in blocks(path.stem, json.loads(path.read_text(encoding="utf-8"))).items():
        assert make_tables.fill(text, key, block) == text, f"{key}: run python -m benchmarks.experiment_page again"


@pytest.mark.parametrize("path", STORED, ids=lambda p: p.stem)
def test_every_row_has_the_same_seeds(path):
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
    seeds = {row: [run["seed"] for run in runs if run["row"] == row] for row in {run["row"] for run in runs}}
    assert len({tuple(values) for values in seeds.values()}) == 1


@pytest.mark.parametrize("path", STORED, ids=lambda p: p.stem)
def test_differences_are_those_of_the_runs(path):
    document = json.loads(path.read_text(encoding="utf-8"))
    for row, metrics in document.get("differences", {}).items():
        for metric in experiment_page.TESTED:
            ours, theirs = ([r[metric] for r in document["runs"] if r["row"] == name] for name in (row, metrics["to"]))
            assert metrics[metric]["delta"] == pytest.approx(mean(ours) - mean(theirs), abs=1e-9)


def test_there_are_stored_results():
    assert {"table4-synth", "tie-kd-synth"} <= {path.stem for path in STORED}


def test_the_base_of_a_row_is_its_own_network():
    rows = ["a", "a + SUB", "b", "b + SUB", "c + SUB"]
    assert [base_of(row, rows, "a") for row in rows] == ["a", "a", "a", "b", "a"]


@pytest.fixture
def folder(tmp_path):
    """What an experiment of two rows and three seeds leaves behind; row 2 is better by its bias."""
    runs = []
    for i, row in enumerate(("monodepth2", "monodepth2 + SUB-Depth")):
        for seed in range(3):
            name = f"{i}-s{seed}"
            result = make_result(name, 10 * i + seed, bias=0.02 - 0.2 * i, protocol="synthdrive", split="synthdrive")
            save_results([result], tmp_path / f"{name}.json")
            steps = [{"event": "step", "step": 5, "epoch": 0.5}, {"event": "step", "step": 10, "epoch": 1.0}]
            values = {5: 0.9, 10: 0.5 + i, 20: 0.2, 30: 0.25}
            steps += [{"event": "validation", "step": step, "abs_rel": value} for step, value in values.items()]
            (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, steps)), encoding="utf-8")
            files = {"log": f"{name}.jsonl", "results": {"test": f"{name}.json"}, "numbers": dict(result.summary)}
            runs.append({"id": name, "row": row, "seed": seed, "recipe_digest": "0", "state": "finished"} | files)
    index = {"experiment": "self_supervised", "scale": "synth", "code": "1", "question": "?", "baseline": "monodepth2"}
    (tmp_path / "runs.json").write_text(json.dumps(index | {"runs": runs}), encoding="utf-8")
    return tmp_path


def test_a_folder_becomes_tables(folder):
    document = collect(folder, "adubench experiment", {"teacher": [folder / "1-s0.json"]})
    assert document["runs"][0]["validation"] == {"first": 0.5, "last": 0.25, "best": 0.2, "epochs": 3}
    assert document["differences"]["monodepth2 + SUB-Depth"]["to"] == "monodepth2"
    assert document["published"]["monodepth2"]["abs_rel"] == 0.115
    tables = blocks("x", json.loads(json.dumps(document, allow_nan=False)))
    assert set(tables) == {"x", "x-differences"}
    assert "| monodepth2 | 3 | 0.500 ± 0.000 -> 0.250 ± 0.000 (0.200 ± 0.000) |" in tables["x"]
    assert "| teacher | 1 | - |" in tables["x"]
    assert tables["x-differences"].count("\n") == 1 + len(experiment_page.TESTED)


def test_an_unfinished_experiment_is_refused(folder):
    index = json.loads((folder / "runs.json").read_text(encoding="utf-8"))
    index["runs"][5]["state"] = "started"
    (folder / "runs.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ValueError, match="not finished: 1-s2"):
        collect(folder, "", {})
    seen = collect(folder, "", {}, partial=True)
    assert len(seen["runs"]) == 5
    assert "differences" not in seen  # other seeds than its base


def test_every_self_supervised_run_learned_after_its_first_epoch() -> None:
    runs = json.loads((RESULTS / "self-supervised-synth.json").read_text(encoding="utf-8"))["runs"]
    rows = {run["row"]: [other["validation"] for other in runs if other["row"] == run["row"]] for run in runs}
    assert len(runs) == 21
    assert all(curve["last"] < curve["first"] for curves in rows.values() for curve in curves)
    gains = [1 - sum(c["last"] for c in curves) / sum(c["first"] for c in curves) for curves in rows.values()]
    assert f"by {100 * min(gains):.0f} to {100 * max(gains):.0f} %" in PAGE.read_text(encoding="utf-8")
