"""The table over all families: what is scored again, who is compared with whom, what the page shows."""

from __future__ import annotations

import hashlib
import json

import pytest

from adubench.evaluators.result import save_results
from benchmarks import families_table
from tests.evaluators.results_for_comparison import make_result

ROWS = {"monodepth2": 0.3, "monodepth2 + SUB-Depth": 0.0, "hr-depth": 0.1}


@pytest.fixture
def scored(tmp_path, monkeypatch):
    """A finished experiment of three rows and three seeds, and a stand-in of `adubench eval` that counts its calls."""
    monkeypatch.setattr(families_table, "REGIONS", {"far": "far"})
    calls = []
    real = families_table._adubench

    def fake(command, *words):
        if command != "eval":
            return real(command, *words, "--resamples", "200")
        calls.append(words)
        row, seed = words[0].split("/")[-1].removesuffix(".safetensors").split("-s")
        result = make_result(row, int(seed), bias=list(ROWS.values())[int(row)], split="synthdrive.test",
                             protocol="synthdrive", regions=("all", "far"))  # fmt: skip
        result.label = words[words.index("--label") + 1]
        with open(words[0], "rb") as file:
            result.provenance["predictor"] = {"sha256": hashlib.sha256(file.read()).hexdigest()}
        save_results([result], words[words.index("-o") + 1])
        return ""

    monkeypatch.setattr(families_table, "_adubench", fake)
    runs = []
    for i, row in enumerate(ROWS):
        for seed in range(3):
            name = f"{i}-s{seed}.safetensors"
            (tmp_path / name).write_bytes(f"{i} {seed}".encode())
            runs.append({"id": f"{i}-s{seed}", "row": row, "seed": seed, "state": "finished", "checkpoint": name})
    index = {"experiment": "self_supervised", "runs": runs}
    (tmp_path / "runs.json").write_text(json.dumps(index), encoding="utf-8")

    def run(**more):
        return families_table.evaluate(
            [tmp_path], tmp_path / "evals", split="synthdrive.test", data_root=tmp_path, **more
        )

    return run, calls, tmp_path


def test_a_network_is_compared_with_its_own_baseline(scored):
    run, calls, _ = scored
    files = run()
    assert len(calls) == 2 * 9
    assert sum("--alignment" in words for words in calls) == 9
    document = json.loads(json.dumps(families_table.collect(files, "synthdrive.test"), allow_nan=False))
    (pair,) = document["pairs"]
    assert (pair["a"], pair["b"], pair["seeds"]) == ("Monodepth2 + SUB-Depth", "Monodepth2", 3)
    assert pair["regions"]["all"]["abs_rel"]["delta"] < 0
    assert pair["regions"]["all"]["abs_rel"]["paired"]
    tables = families_table.blocks(document)
    assert "| Monodepth2 + SUB-Depth - Monodepth2 | `abs_rel` | -" in tables["families-differences"]
    assert "helps" in tables["families-differences"]
    assert "Fewer than three" not in tables["families-differences"]
    assert tables["families"].count("\n| ") == 2 + len(ROWS)
    assert "[-" in tables["families-where"]


def test_what_is_scored_is_not_scored_again_unless_the_weights_changed(scored):
    run, calls, place = scored
    run()
    calls.clear()
    run()
    assert calls == []
    (place / "1-s2.safetensors").write_bytes(b"other weights")
    run()
    assert [words[0].split("/")[-1] for words in calls] == ["1-s2.safetensors"] * 2


def test_a_run_that_is_not_finished_is_named(scored):
    run, _, place = scored
    index = json.loads((place / "runs.json").read_text(encoding="utf-8"))
    index["runs"][5]["state"] = "started"
    (place / "runs.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ValueError, match="1-s2 is not finished"):
        run()
    document = families_table.collect(run(partial=True), "synthdrive.test")
    assert document["pairs"] == []  # other seeds than its baseline
    assert len(document["tables"][0]["methods"]) == 3
