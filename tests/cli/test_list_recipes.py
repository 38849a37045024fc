"""`adubench list recipes` and `list models`: complete, and without torch."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from adubench.cli import main
from adubench.models.zoo import MODELS
from adubench.recipes.recipe import RECIPES


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_recipes_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(run(capsys, "list", "recipes", "--json"))
    assert {row["name"] for row in found["recipes"]} == set(RECIPES)
    names = [row["name"] for row in found["experiments"]]
    assert len(names) == len(set(names))
    assert {*(f"E{i}" for i in range(1, 9)), "table4", "self_supervised", "tie_kd_sweep"} <= set(names)


def test_every_entry_has_a_source_and_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(run(capsys, "list", "recipes", "--json"))
    entries = [*found["recipes"], *found["experiments"], *json.loads(run(capsys, "list", "models", "--json"))]
    assert [e for e in entries if not (e["source"] and e["status"])] == []
    status = {row["name"]: row["status"] for row in found["recipes"]}
    assert status["sub-depth-diffnet"] == "published numbers known, not reproduced here"
    assert status["demo"] == "runs here, small"
    assert status["newcrfs-config"] == "no published numbers"


def test_models_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert {row["family"] for row in json.loads(run(capsys, "list", "models", "--json"))} == set(MODELS)


def test_tables_name_everything(capsys: pytest.CaptureFixture[str]) -> None:
    text = run(capsys, "list", "recipes")
    assert all(name in text for name in RECIPES)
    assert "newcrfs" in run(capsys, "list", "models")


def test_a_name_and_its_purpose_stand_on_one_line_that_grep_finds(capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(capsys, "list", "recipes").splitlines()
    (line,) = [line for line in lines if line.startswith("adu-kitti-eigen-no-attention ")]
    assert "features compared without attention" in line


def test_neither_imports_torch() -> None:
    code = (
        "import sys\nfrom adubench.cli import main\n"
        "for what in ('recipes', 'models'):\n"
        "    try:\n        main(['list', what, '--json'])\n    except SystemExit:\n        pass\n"
        "sys.stderr.write(f\"torch {'torch' in sys.modules}\")"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "torch False"
