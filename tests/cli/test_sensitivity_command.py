"""`adubench sensitivity` as a user runs it."""

import json

import numpy as np
import pytest

from tests.conftest import assert_one_sentence


@pytest.fixture
def maps(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(2):
        depth = np.full((40, 60), 30, np.float32)
        depth[10:30, 20:40] = rng.uniform(5, 10)
        (tmp_path / "maps").mkdir(exist_ok=True)
        np.save(tmp_path / "maps" / f"{i}.npy", depth)
    return tmp_path / "maps"


def test_it_prints_what_notices(maps, run_cli):
    done = run_cli("sensitivity", "--gt", maps, "--fault", "scale:1.1", "--fault", "blur:2", "--regions")
    assert done.returncode == 0, done.stderr
    assert "scale: all depths times a factor" in done.stdout
    assert "blind" in done.stdout
    assert "boundary" in done.stdout
    data = json.loads(run_cli("sensitivity", "--gt", maps, "--fault", "scale:1.1", "--json").stdout)
    assert data["responses"][0]["ratios"]["silog"] < 0.01


def test_faults_are_listed(run_cli):
    assert "edge-bleeding" in run_cli("sensitivity", "--list").stdout


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        ((), 2, "nothing to make wrong"),
        (("--gt", "nowhere"), 1, "nowhere"),
        (("--data-root", "."), 1, "no SynthDrive data set"),
        (("--gt", "maps", "--data-root", "."), 2, "one of them"),
        (("--gt", "maps", "--fault", "blurr"), 2, "did you mean"),
        (("--gt", "maps", "--metric", "absrel2"), 2, "unknown metric"),
        (("--gt", "maps", "--limit", "0"), 2, "from 1"),
    ],
)
def test_bad_input_is_one_sentence(maps, run_cli, args, status, words):
    assert_one_sentence(run_cli("sensitivity", *args, env={"ADUBENCH_DATA_ROOT": ""}), status, words)
