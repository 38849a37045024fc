"""Shared fixtures: small pairs of predictions and ground truth, and the command line as a user runs it."""

import contextlib
import io
import os
import subprocess
import sys
import traceback
from pathlib import Path
from unittest import mock

# Two test processes with as many threads each as there are cores would wait for each other most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """No test reads or writes the user's cache folder or data root."""
    monkeypatch.setenv("ADUBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("ADUBENCH_DATA_ROOT", raising=False)


@pytest.fixture
def run_cli(tmp_path):
    """Run `adubench ARGS` and give the user's view: exit status, stdout, stderr.

    It runs in this process, which saves half a second of start-up, unless what Python itself does is asked for: `env`
    with PYTHON... variables.
    """

    def run(*args, cwd=None, env=None, timeout=120):
        env = {"COLUMNS": "200", "NO_COLOR": "1"} | (env or {})
        if any(name.startswith("PYTHON") for name in env):
            return _process(args, cwd or tmp_path, env, timeout)
        return _here(args, cwd or tmp_path, env)

    return run


@pytest.fixture
def run_process(tmp_path):
    """Run `adubench ARGS` in a process of its own."""

    def run(*args, cwd=None, env=None, timeout=120):
        return _process(args, cwd or tmp_path, {"COLUMNS": "200", "NO_COLOR": "1"} | (env or {}), timeout)

    return run


def _process(args, cwd, env, timeout):
    return subprocess.run(
        [sys.executable, "-m", "adubench", *map(str, args)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | env,
        timeout=timeout,
    )


def _here(args, cwd, env):
    """Do what Python does around `main`: an exit status for everything, a traceback for what nobody caught."""
    from adubench.cli import main

    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    status = 0
    with (
        contextlib.redirect_stdout(streams[0]),
        contextlib.redirect_stderr(streams[1]),
        contextlib.chdir(cwd),
        mock.patch.dict(os.environ, env),
    ):
        try:
            main([str(arg) for arg in args])
        except SystemExit as ended:
            status = int(ended.code or 0)
        except Exception:
            traceback.print_exc()
            status = 1
    out, err = (stream.buffer.getvalue().decode() for stream in streams)
    return subprocess.CompletedProcess(args, status, out, err)


@pytest.fixture(scope="session")
def synth(tmp_path_factory):
    """SynthDrive with 2 training drives of 3 usable frames, and a drive each to validate and to test.

    Read only: all tests of a process share it.
    """
    from adubench.datasets.synthdrive.writer import write_dataset

    root = tmp_path_factory.mktemp("synth") / "data"
    write_dataset(root, drives=4, frames=13, size=(64, 128))
    return root


def assert_one_sentence(done, status=1, *words):
    """A user error: the exit status, exactly one error line, no traceback, and the words that help."""
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith(("error:", "Error:"))]
    assert len(lines) == 1, done.stderr
    for word in words:
        assert str(word) in done.stderr, f"{word!r} not in {done.stderr!r}"


@pytest.fixture
def pairs(tmp_path):
    """Make folders `pred` and `gt` of 16-bit PNGs: `n` frames, sparse truth, predictions 5 % off."""
    from PIL import Image

    def make(n=3, shape=(40, 60), drives=1, suffix=".png", seed=0):
        rng = np.random.default_rng(seed)
        for i in range(n):
            depth = rng.uniform(3, 70, shape)
            pred = depth * np.exp(rng.normal(0, 0.05, shape))
            depth = np.where(rng.random(shape) < 0.3, depth, 0)
            for kind, values in (("gt", depth), ("pred", pred)):
                path = tmp_path / kind / f"drive_{i % drives}" / f"{i:04d}{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                if suffix == ".png":
                    Image.fromarray(np.rint(values * 256).astype(np.uint16)).save(path)
                else:
                    np.save(path, values.astype(np.float32))
        return tmp_path / "pred", tmp_path / "gt"

    return make
