"""`adubench train` as a user runs it: what it writes, what it says, and what it says when something is wrong."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

torch = pytest.importorskip("torch")

from adubench.cli import main  # noqa: E402
from tests.training.conftest import QUICK  # noqa: E402

SETS = [part for change in QUICK for part in ("--set", change)]


@pytest.fixture(scope="module")
def synth(tmp_path_factory):
    from adubench.datasets.synthdrive.writer import write_dataset

    root = tmp_path_factory.mktemp("synth") / "data"
    write_dataset(root, drives=4, frames=12, size=(64, 128))
    return root


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run `adubench train` in this process: (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    torch.set_num_threads(1)

    def call(*args):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(["train", *map(str, args)])
        said = capsys.readouterr()
        return stop.value.code, said.out, said.err

    yield call
    torch.set_num_threads(before)


def test_a_recipe_with_two_stages(run, synth, tmp_path):
    common = ["demo", *SETS, "--data-root", synth, "--device", "cpu"]
    status, out, err = run(*common, "-o", "run")
    assert (status, out) == (0, ""), err
    for stage in ("teacher", "student"):
        files = {p.name for p in (tmp_path / "run" / stage).iterdir()}
        assert {"checkpoint-last.safetensors", "log.jsonl", "recipe.yaml", "run.json", "state-00000003.pt"} <= files
        assert f"written: run/{stage}/checkpoint-last.safetensors" in err
        assert json.loads((tmp_path / "run" / stage / "run.json").read_text())["status"] == "finished"
    assert "step 3/3" in err
    assert not list((tmp_path / "run").rglob("*.part"))
    assert not (tmp_path / "run/.lock").exists()
    status, _, err = run(*common, "-o", "run")
    assert status == 2
    assert "holds a teacher run of recipe 'demo' that is finished. Continue it with --resume" in err
    status, _, err = run(*common, "-o", "run", "--resume", "--set", "distill.lambda.umr=0.3")
    assert status == 2
    assert "distill.lambda.umr: 0.9 there, 0.3 now" in err
    # The recipe that a run wrote is a recipe; a trained teacher serves another student.
    again = ["run/student/recipe.yaml", "--data-root", synth, "--device", "cpu"]
    teacher = ["--teacher", "run/teacher/checkpoint-last.safetensors"]
    status, _, err = run(*again, *teacher, "-o", "again")
    assert status == 0, err
    assert not (tmp_path / "again/teacher").exists()
    left, right = (tmp_path / name / "student/checkpoint-last.safetensors" for name in ("run", "again"))
    from safetensors.torch import load_file

    one, other = load_file(left), load_file(right)
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_dry_run_writes_nothing(run, synth, tmp_path):
    status, out, err = run("demo", *SETS, "--data-root", synth, "--device", "cpu", "--dry-run", "-o", "run")
    assert status == 0, err
    assert "teacher" in out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("base: demo\ntrain:\n  bach_size: 4\n", 2, ("mine.yaml, line 3", "batch_size")),
        ("base: demo\ntrain:\n  lr: fast\n", 2, ("mine.yaml, line 3", "lr")),
        ("base: demo\nstudent: {encoder: tiny7}\n", 2, ("mine.yaml, line 2", "tiny07")),
        ("base: demo\nstudent: {init: 'checkpoint:none.safetensors'}\n", 1, ("none.safetensors", "not found")),
        ("base: demo\ndata: {train: empty.txt}\n", 1, ("empty.txt",)),
        ("base: demo\ndata: {train: synthdrive.tran}\n", 2, ("synthdrive.train",)),
    ],
)
def test_wrong_recipes(run, synth, tmp_path, text, status, words):
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "empty.txt").write_text("\n")
    changes = [change for change in QUICK if not ("encoder" in text and change.startswith("student.encoder"))]
    sets = [part for change in changes for part in ("--set", change)]
    common = [
        "--data-root",
        synth,
        "--device",
        "cpu",
        "--stage",
        "student",
        "--teacher",
        _teacher(tmp_path),
        "-o",
        "run",
    ]
    found, _, err = run("mine.yaml", *sets, *common)
    assert found == status, err
    assert [line for line in err.splitlines() if line.startswith("error:")], err
    assert "Traceback" not in err
    for word in words:
        assert word in err
    assert not (tmp_path / "run/student/log.jsonl").exists()


def _teacher(folder):
    from adubench.recipes.recipe import load_recipe
    from adubench.training.build import build_network
    from adubench.training.checkpoint import save_checkpoint

    return save_checkpoint(folder / "teacher.safetensors", build_network(load_recipe("demo", QUICK), "teacher"))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(synth, tmp_path, number, status):
    command = [sys.executable, "-m", "adubench", "train", "demo", *SETS, "--set", "train.steps=4000"]
    command += ["--data-root", str(synth), "--device", "cpu", "-o", str(tmp_path / "run")]
    ours = {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        env=os.environ | ours,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    log = tmp_path / "run/teacher/log.jsonl"
    started = time.monotonic()
    while (not log.exists() or len(log.read_text().splitlines()) < 4) and time.monotonic() - started < 120:
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert "everything is saved" in err
    assert "--resume" in err
    assert "Traceback" not in err
    step = json.loads((tmp_path / "run/teacher/run.json").read_text())["step"]
    assert step >= 3
    assert (tmp_path / f"run/teacher/state-{step:08d}.pt").is_file()
    assert (tmp_path / "run/teacher/checkpoint-last.safetensors").is_file()
