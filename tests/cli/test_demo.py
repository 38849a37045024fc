"""`adubench demo`: without networks quick, with them on the smallest data; again in the same folder; bad options."""

from __future__ import annotations

import hashlib
import json

import pytest

from adubench.commands import _training
from adubench.commands._side_by_side import run_together
from adubench.errors import TrainingError, UsageError

TINY = ("--drives", "2", "--frames", "11", "--size", "64x160", "--workers", "1")
SMALL = ("--drives", "4", *TINY[2:])


def _run(call, *args):
    done = call(*args)
    return done.returncode, done.stdout, done.stderr


def test_without_networks_it_compares_the_two_references(tmp_path, call):
    status, out, err = _run(call, "demo", "-o", tmp_path / "d", *TINY, "--no-train")
    assert status == 0
    assert "rendering: 22/22" in err  # no terminal: lines
    assert "[5/5]" in out
    assert "Δ stereo-matching - row-mean" in out or "Δ row-mean - stereo-matching" in out
    assert sorted(p.name for p in (tmp_path / "d" / "results").glob("*.json")) == [
        "row-mean.json",
        "stereo-matching.json",
    ]
    assert (tmp_path / "d" / "submission" / "submission.zip").is_file()
    assert not (tmp_path / "d" / "runs").exists()


def test_without_the_packages_it_says_what_is_left_out(tmp_path, call, monkeypatch):
    monkeypatch.setattr(_training, "_PACKAGES", ("torch_that_nobody_has",))
    status, out, _ = _run(call, "demo", "-o", tmp_path / "d", *TINY)
    assert status == 0
    assert "torch_that_nobody_has not installed: the networks" in out
    assert "[5/5]" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--drives", "1"], "--drives 1: the demo needs at least 2"),
        (["--frames", "10"], "--frames 10: expected at least 11"),
        (["--size", "big"], "--size big: expected HEIGHTxWIDTH"),
        (["--seed", "-1"], "--seed -1: expected a number >= 0"),
        (["--steps", "5", "--no-train"], "--steps belongs to the trainings"),
        (["--steps", "0"], "Invalid value for '--steps'"),
    ],
)
def test_bad_options_are_refused_before_any_work(tmp_path, call, options, said):
    status, _, err = _run(call, "demo", "-o", tmp_path / "d", *options)
    assert status == 2
    assert said in err
    assert not (tmp_path / "d").exists()


def test_a_file_in_the_way_is_named(tmp_path, call):
    (tmp_path / "d").write_text("x")
    status, _, err = _run(call, "demo", "-o", tmp_path / "d", "--no-train")
    assert status == 2
    assert "is a file; choose a folder" in err


def test_commands_side_by_side_pass_on_the_sentence_of_the_one_that_fails():
    with pytest.raises(UsageError, match="did you mean 'demo'"):
        run_together([["train", "dmeo"], ["list", "metrics"]])
    with pytest.raises(TrainingError, match=r"missing\.json: no such result file"):
        run_together([["compare", "missing.json"]])


@pytest.mark.slow
def test_networks_are_trained_once_and_are_the_same_every_time(tmp_path, call):
    pytest.importorskip("torch")
    steps = ("--steps", "2")
    status, out, err = _run(call, "demo", "-o", tmp_path / "a", *SMALL, *steps)
    assert status == 0, err
    assert "[8/8]" in out
    for label in ("teacher", "baseline", "response", "adu-depth"):
        document = json.loads((tmp_path / "a" / "results" / f"{label}.json").read_text())
        assert document["protocol"]["name"] == "synthdrive"
        assert f"{label} (" in out
    assert "adu-depth: abs_rel" in out
    assert "compares these checkpoints, not the methods" in out

    first = weights(tmp_path / "a")
    changed = {path: path.stat().st_mtime_ns for path in first}
    status, _, err = _run(call, "demo", "-o", tmp_path / "a", *SMALL, *steps)
    assert status == 0, err
    assert "step 2/2" not in err
    assert {path: path.stat().st_mtime_ns for path in first} == changed

    status, _, err = _run(call, "demo", "-o", tmp_path / "a", *SMALL, "--steps", "3")
    assert status == 2
    assert "train.steps: 2 there, 3 now" in err
    assert weights(tmp_path / "a") == first

    status, _, err = _run(call, "demo", "-o", tmp_path / "b", *SMALL, *steps)
    assert status == 0, err
    assert list(weights(tmp_path / "b").values()) == list(first.values())


def weights(folder):
    """Path -> SHA-256 of the last tensors' bytes (the record before them names folders)."""
    from safetensors.numpy import load_file

    files = sorted((folder / "runs").glob("*/*/checkpoint-last.safetensors"))
    assert len(files) == 4
    digests = {}
    for path in files:
        tensors = load_file(path)
        digests[path] = hashlib.sha256(b"".join(tensors[name].tobytes() for name in sorted(tensors))).hexdigest()
    return digests
