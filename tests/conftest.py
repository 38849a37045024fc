"""Shared fixtures: small pairs of predictions and ground truth, and the command line as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

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
    """Run `adubench ARGS` in a process of its own; the user's view: exit status, stdout, stderr."""

    def run(*args, cwd=None, env=None, timeout=120):
        return subprocess.run(
            [sys.executable, "-m", "adubench", *map(str, args)],
            capture_output=True,
            text=True,
            cwd=cwd or tmp_path,
            env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1"} | (env or {}),
            timeout=timeout,
        )

    return run


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
