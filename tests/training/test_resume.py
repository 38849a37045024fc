"""An interrupted run, continued, ends at the weights of one that was never interrupted, bit for bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from adubench.errors import CheckpointError, DataError, UsageError  # noqa: E402
from adubench.recipes.recipe import load_recipe  # noqa: E402
from adubench.training import guards, loop, run_folder  # noqa: E402
from adubench.training.run import check_teacher, train  # noqa: E402
from adubench.training.state import load_state, read_state, save_state, states  # noqa: E402
from tests.training.conftest import QUICK  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

SUPERVISED = ("method=supervised", "stages=[student]", "student.drop_path=0.3", "train.steps=7")


def same_weights(a, b):
    """Compare two checkpoints, weights and buffers, bit for bit."""
    left, right = load_file(a), load_file(b)
    assert left.keys() == right.keys()
    return all(torch.equal(left[k], right[k]) for k in left)


def run(recipe, synth, output, **options):
    return train(recipe, output=output, data_root=synth, device="cpu", **options)


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


@pytest.fixture
def kill_after(monkeypatch):
    """Let the process "die" in the middle of a step."""
    real = loop.Trainer._one_step

    def arm(step):
        def dying(self, model, optimizer, batch):
            values = real(self, model, optimizer, batch)
            if self.step + 1 == step:
                raise Killed
            return values

        monkeypatch.setattr(loop.Trainer, "_one_step", dying)

    yield arm
    monkeypatch.setattr(loop.Trainer, "_one_step", real)


def test_a_killed_run_continues_to_the_same_weights(recipe, synth, tmp_path, kill_after, monkeypatch):
    chosen = recipe(*SUPERVISED, "checkpoint.every=2", "train.workers=0")
    (whole,) = run(chosen, synth, tmp_path / "whole")
    real = loop.Trainer._one_step
    for step in (2, 5):
        kill_after(step)
        with pytest.raises(Killed):
            run(chosen, synth, tmp_path / "parts", resume=True)
    monkeypatch.setattr(loop.Trainer, "_one_step", real)
    monkeypatch.undo()
    (parts,) = run(chosen, synth, tmp_path / "parts", resume=True)
    assert same_weights(whole, parts)
    steps = [json.loads(line) for line in (tmp_path / "parts/student/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if line["event"] == "step"] == [1, 2, 3, 4, 5, 6, 7]


def test_the_seed_decides_the_weights(recipe, synth, tmp_path):
    (a,) = run(recipe(*SUPERVISED), synth, tmp_path / "a")
    torch.rand(7)  # what else a process did with random numbers plays no role
    (b,) = run(recipe(*SUPERVISED), synth, tmp_path / "b")
    (c,) = run(recipe(*SUPERVISED, "seed=1"), synth, tmp_path / "c")
    assert same_weights(a, b)
    assert not same_weights(a, c)
    assert a.read_bytes() == b.read_bytes()


def test_workers_and_logging_do_not_change_the_weights(recipe, synth, tmp_path):
    (a,) = run(recipe(*SUPERVISED, "train.steps=4"), synth, tmp_path / "a")
    (b,) = run(recipe(*SUPERVISED, "train.steps=4", "train.workers=2", "log.every=3"), synth, tmp_path / "b")
    assert same_weights(a, b)


def test_validation_does_not_change_the_weights(recipe, synth, tmp_path):
    (a,) = run(recipe(*SUPERVISED), synth, tmp_path / "a")
    changes = ("validate.split=synthdrive.val", "validate.every=2", "validate.frames=1")
    (b,) = run(recipe(*SUPERVISED, *changes), synth, tmp_path / "b")
    assert same_weights(a, b)


def test_a_signal_finishes_the_step_and_saves(recipe, synth, tmp_path, monkeypatch):
    chosen = recipe(*SUPERVISED)
    (whole,) = run(chosen, synth, tmp_path / "whole")
    real = loop.Trainer._one_step

    def interrupted(self, model, optimizer, batch):
        if self.step + 1 == 3:
            signal.raise_signal(signal.SIGTERM)
        return real(self, model, optimizer, batch)

    monkeypatch.setattr(loop.Trainer, "_one_step", interrupted)
    with pytest.raises(guards.TrainingStopped, match=r"stopped at step 3 of 7.*--resume") as stopped:
        run(chosen, synth, tmp_path / "parts")
    assert stopped.value.exit_status == 143
    assert run_folder.read_run(tmp_path / "parts/student")["status"] == "stopped"
    assert (tmp_path / "parts/student" / run_folder.LAST).is_file()
    monkeypatch.undo()
    (parts,) = run(chosen, synth, tmp_path / "parts", resume=True)
    assert same_weights(whole, parts)


def test_ctrl_c_while_a_stage_is_finished_starts_no_other_one(synth, tmp_path, monkeypatch):
    """After the last step nothing reads the request any more: the student would be trained all the same."""
    tiny = [f"{part}.{key}=1" for part in ("train", "teacher_train") for key in ("steps", "batch_size")]
    chosen = load_recipe("demo", [*QUICK, *tiny])
    real = loop.Trainer._finish

    def interrupted(self):
        real(self)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(loop.Trainer, "_finish", interrupted)
    with pytest.raises(guards.TrainingStopped, match=r"stopped after stage teacher, .*--resume") as stopped:
        run(chosen, synth, tmp_path / "run")
    assert stopped.value.exit_status == 143
    assert run_folder.read_run(tmp_path / "run/teacher")["status"] == "finished"
    assert not (tmp_path / "run/student").exists()


def test_ctrl_c_has_its_own_exit_status():
    with guards.watch_signals() as request:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            pytest.skip("this process is deaf to Ctrl-C")
        signal.raise_signal(signal.SIGINT)
        assert request.exit_status == 130
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_full_disk_leaves_the_last_state(recipe, synth, tmp_path, monkeypatch):
    chosen = recipe(*SUPERVISED, "checkpoint.every=2")
    (whole,) = run(chosen, synth, tmp_path / "whole")
    import io

    folder = tmp_path / "parts/student"

    class Full(io.FileIO):
        def write(self, data):
            raise OSError(28, "No space left on device")

    from pathlib import Path

    opened = Path.open

    def full(self, mode="r", *args, **kwargs):
        if "w" in mode and ".state-00000004" in self.name:
            return Full(self, "w")
        return opened(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(
        DataError, match=r"state-00000004.*No space left on device.*state of step 2 is there: continue with --resume"
    ):
        run(chosen, synth, tmp_path / "parts")
    assert [step for step, _ in states(folder)] == [2]
    assert not [p for p in folder.iterdir() if p.suffix == ".part"]
    monkeypatch.undo()
    (parts,) = run(chosen, synth, tmp_path / "parts", resume=True)
    assert same_weights(whole, parts)


def test_states_are_kept_by_number(tmp_path):
    for step in (2, 4, 6, 8):
        save_state(tmp_path, step, {"value": torch.tensor([float(step)])}, keep=2)
    assert [step for step, _ in states(tmp_path)] == [6, 8]


def test_a_damaged_state_is_passed_over(tmp_path):
    for step in (2, 4):
        path = save_state(tmp_path, step, {"value": torch.tensor([float(step)])})
    path.write_bytes(path.read_bytes()[:200])
    assert load_state(tmp_path)["step"] == 2
    states(tmp_path)[0][1].write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"state-00000004.*another folder"):
        load_state(tmp_path)


def test_a_state_with_code_in_it_is_not_run(tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "owned"),))

    path = tmp_path / "state-00000001.pt"
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_state(path)
    torch.save({"format": 1, "step": 1, "evil": Evil()}, path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_state(path)
    assert not (tmp_path / "owned").exists()


def test_a_folder_with_a_run_is_not_written_over(recipe, synth, tmp_path):
    chosen = recipe(*SUPERVISED, "train.steps=2")
    (last,) = run(chosen, synth, tmp_path / "run")
    before = last.read_bytes()
    with pytest.raises(UsageError, match=r"holds a student run.*finished.*--resume"):
        run(chosen, synth, tmp_path / "run")
    with pytest.raises(UsageError, match=r"train\.lr: 0\.002 there, 0\.5 now"):
        run(recipe(*SUPERVISED, "train.steps=2", "train.lr=0.5"), synth, tmp_path / "run", resume=True)
    assert run(chosen, synth, tmp_path / "run", resume=True) == [last]
    assert last.read_bytes() == before


def test_changed_keys_of_a_stage(recipe):
    one, other = recipe().plain(), recipe("distill.lambda.umr=0.1", "train.workers=3", "name=x").plain()
    assert list(run_folder.changed_keys(one, other, "student")) == ["distill.lambda.umr"]
    assert run_folder.changed_keys(one, other, "teacher") == {}


def test_resuming_on_other_data_is_refused(recipe, synth, tmp_path, kill_after, monkeypatch):
    chosen = recipe(*SUPERVISED, "checkpoint.every=1")
    kill_after(3)
    with pytest.raises(Killed):
        run(chosen, synth, tmp_path / "run")
    monkeypatch.undo()
    import shutil

    other = tmp_path / "data"
    shutil.copytree(synth, other)
    drive = sorted(other.glob("*/*_drive_0001_sync"))[0]
    for image in sorted(drive.glob("proj_depth/groundtruth/image_02/*.png"))[:1]:
        image.unlink()
    with pytest.raises((DataError, UsageError)):
        run(chosen, other, tmp_path / "run", resume=True)


def test_two_runs_in_one_folder(tmp_path):
    with run_folder.locked(tmp_path):
        with pytest.raises(UsageError, match="is in use by process"), run_folder.locked(tmp_path):
            pass
        code = (
            "import sys\nfrom pathlib import Path\nfrom adubench.errors import UsageError\n"
            "from adubench.training.run_folder import locked\n"
            "try:\n    with locked(Path(sys.argv[1])): sys.exit(3)\nexcept UsageError as e:\n    print(e)\n"
        )
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert f"in use by process {os.getpid()}" in done.stdout
    with run_folder.locked(tmp_path):
        pass


def test_a_refused_run_leaves_no_empty_folder(tmp_path):
    new, old = tmp_path / "a" / "run", tmp_path / "old"
    old.mkdir()
    for folder in (new, old):
        with pytest.raises(DataError), run_folder.locked(folder):
            raise DataError("no images")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["old"]
    with run_folder.locked(new):
        (new / "student").mkdir()
    assert [p.name for p in new.iterdir()] == ["student"]


def test_a_run_that_trained_nothing_is_started_anew_with_a_mended_recipe(recipe, synth, tmp_path, monkeypatch):
    """Not "its recipe was another one"; what was trained is kept, even if only its record is left."""
    for step in (0, 3):
        stage = tmp_path / str(step) / "student"
        stage.mkdir(parents=True)
        run_folder.write_recipe(stage, recipe("seed=1"))
        run_folder.write_run(stage, status="started", step=step)
    assert run_folder.may_start(tmp_path / "0" / "student", recipe("seed=2"), "student", resume=False)
    with pytest.raises(UsageError, match="stopped at step 3"):
        run_folder.may_start(tmp_path / "3" / "student", recipe("seed=2"), "student", resume=False)
    with run_folder.locked(tmp_path / "0"):
        pass
    assert not (tmp_path / "0" / "student").exists()
    with run_folder.locked(tmp_path / "3"):
        assert (tmp_path / "3" / "student" / run_folder.RUN).is_file()

    def refused(self, *, resume):
        assert (self.stage.folder / run_folder.RUN).is_file()
        raise DataError("found in the first step")

    monkeypatch.setattr(loop.Trainer, "run", refused)
    with pytest.raises(DataError, match="first step"):
        train(recipe(*SUPERVISED), output=tmp_path / "new", data_root=synth)
    assert not (tmp_path / "new").exists()


def test_a_student_is_not_continued_with_another_teacher(tmp_path):
    first, second = ({"teacher": "t.safetensors", "teacher_sha256": letter * 64} for letter in "ab")
    check_teacher(tmp_path, first)  # nothing there
    run_folder.write_run(tmp_path, status="stopped", step=3, source=first)
    check_teacher(tmp_path, first)
    check_teacher(tmp_path, {})
    with pytest.raises(
        UsageError, match=r"cannot be continued with this teacher .*bbbbbbbbbbbb.*began with .*aaaaaaaaaaaa"
    ):
        check_teacher(tmp_path, second)


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    (tmp_path / run_folder.LOCK).write_text("process 1 on elsewhere since yesterday")
    with run_folder.locked(tmp_path):
        assert str(os.getpid()) in (tmp_path / run_folder.LOCK).read_text()


@pytest.mark.slow
def test_killed_five_times(recipe, synth, tmp_path):
    """kill -9 at random moments, five times, against an uninterrupted run: teacher and student, validation, workers."""
    changes = [*QUICK, "train.steps=24", "checkpoint.every=3", "student.drop_path=0.2", "train.workers=1"]
    changes += ["validate.split=synthdrive.val", "validate.every=7", "validate.frames=1"]
    command = [sys.executable, "-m", "adubench", "train", "demo", "--device", "cpu", "--data-root", str(synth)]
    command += [part for change in changes for part in ("--set", change)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(output):
        arguments = [*command, "-o", str(output), "--resume"]
        return subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True)

    def progress(folder):
        logs = [folder / stage / "log.jsonl" for stage in ("teacher", "student")]
        return sum(len(log.read_bytes().splitlines()) for log in logs if log.exists())

    whole = start(tmp_path / "whole")
    rng = random.Random(5)
    for _ in range(5):
        process = start(tmp_path / "parts")
        target = progress(tmp_path / "parts") + rng.randrange(2, 9)
        while process.poll() is None and progress(tmp_path / "parts") < target:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.3)
        process.kill()
        process.communicate()
    last = start(tmp_path / "parts")
    for process in (whole, last):
        _, said = process.communicate(timeout=400)
        assert process.returncode == 0, said
    for stage in ("teacher", "student"):
        for name in (run_folder.LAST, run_folder.BEST):
            assert same_weights(tmp_path / "whole" / stage / name, tmp_path / "parts" / stage / name)
