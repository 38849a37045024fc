from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from adubench.cli import cli
from adubench.errors import UsageError
from adubench.evaluators.metrics import METRICS
from adubench.evaluators.protocols import PROTOCOLS


def run(*args: str) -> str:
    result = CliRunner().invoke(cli, list(args), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("args", [("protocols",), ("protocols", "list")])
def test_list(args):
    text = run(*args)
    for name in PROTOCOLS:
        assert name in text
    data = json.loads(run(*args, "--json"))
    assert [record["name"] for record in data] == list(PROTOCOLS)


def test_show():
    text = run("protocols", "show", "kitti-eigen[cap=50]")
    assert "kitti-eigen[cap=50]" in text
    assert "< 50 m" in text
    data = json.loads(run("protocols", "show", "kitti-official", "--json"))
    assert data["fingerprint"] == PROTOCOLS["kitti-official"].fingerprint
    assert data["gt_max"] == "inf"


def test_diff():
    text = run("protocols", "diff", "kitti-eigen", "kitti-eigen-full")
    assert "352x1216" in text
    assert "Window against full frame" in text
    assert "do the same" in run("protocols", "diff", "kitti-eigen", "kitti-eigen[crop=garg]")
    data = json.loads(run("protocols", "diff", "kitti-eigen", "kitti-eigen-raw", "--json"))
    assert {d["field"] for d in data["differences"]} >= {"ground_truth", "frame", "alignment"}
    assert data["pitfalls"]


def test_metrics():
    text = run("list", "metrics")
    assert "sq_rel_gt2" in text
    data = json.loads(run("list", "metrics", "--json"))
    assert [metric["key"] for metric in data] == list(METRICS)


def test_unknown_name():
    with pytest.raises(UsageError, match="did you mean 'kitti-eigen'"):
        CliRunner().invoke(cli, ["protocols", "show", "kitti-eigne"], catch_exceptions=False)
    done = subprocess.run([sys.executable, "-m", "adubench", "protocols", "show", "x"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown protocol 'x'")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "args", [["protocols", "--json"], ["protocols", "diff", "kitti-eigen", "nyu"], ["list", "metrics"]]
)
def test_imports_stay_light(args):
    heavy = ("torch", "scipy", "matplotlib", "pandas", "h5py", "numba", "cv2")
    code = (
        "import sys\nfrom adubench.cli import main\n"
        f"try:\n    main({args!r})\nexcept SystemExit as e:\n    assert not e.code\n"
        f"print([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
