"""What can go wrong in a training is one sentence, and nothing is lost."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from adubench.errors import (  # noqa: E402
    AdubenchError,
    CheckpointError,
    DataError,
    TrainingError,
    UsageError,
)
from adubench.training import build, guards, run_folder  # noqa: E402
from adubench.training.run import train  # noqa: E402
from adubench.training.sampler import epoch_order  # noqa: E402
from adubench.training.state import read_state, states  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
ALONE = ("method=supervised", "stages=[student]")


def run(recipe, synth, output, **options):
    return train(recipe, output=output, data_root=synth, device="cpu", **options)


def spoil(monkeypatch, step, change):
    """Change the losses of one step."""
    from adubench.training.objectives import Supervised

    real, calls = Supervised.forward, []

    def forward(self, batch, at):
        calls.append(at)
        losses = real(self, batch, at)
        return change(losses) if at + 1 == step else losses

    monkeypatch.setattr(Supervised, "forward", forward)


def test_a_loss_that_is_no_number_stops_the_run(recipe, synth, tmp_path, monkeypatch):
    chosen = recipe(*ALONE, "train.steps=5", "student.drop_path=0.3")
    (whole,) = run(chosen, synth, tmp_path / "whole")
    spoil(monkeypatch, 3, lambda losses: losses | {"loss": losses["loss"] * float("nan")})
    with pytest.raises(TrainingError, match=r"step 3: loss = nan; the batch is 2031_01_01\S+/image_02/\d+, .*kept"):
        run(chosen, synth, tmp_path / "run")
    monkeypatch.undo()
    folder = tmp_path / "run/student"
    assert [step for step, _ in states(folder)] == [2]
    # The statistics that the spoilt forward pass changed, and its random numbers, were taken back.
    (parts,) = run(chosen, synth, tmp_path / "run", resume=True)
    assert parts.read_bytes() == whole.read_bytes()


def test_the_guilty_term_is_named_before_the_sum():
    parts = {"loss": float("nan"), "base": 1.0, "response": float("inf"), "grad_norm": float("nan")}
    with pytest.raises(TrainingError, match=r"step 7: response = inf; the batch is a, b, c, d and 2 more"):
        guards.check_finite(parts, step=7, frames=list("abcdef"), sources=("loss", "grad_norm"))
    with pytest.raises(TrainingError, match=r"step 7: grad_norm = nan"):
        guards.check_finite({"loss": 1.0, "grad_norm": float("nan")}, step=7, frames=["a"], sources=("loss",))
    guards.check_finite({"loss": 1.0}, step=1, frames=["a"])


def test_a_batch_without_ground_truth_is_counted_and_left_out(recipe, synth, tmp_path, capsys):
    chosen = recipe(*ALONE, "data.min_gt=300", "data.max_depth=400", "train.steps=2")
    (path,) = run(chosen, synth, tmp_path / "run")
    said = capsys.readouterr().err
    assert "no ground truth beyond 300 m" in said
    assert said.count("warning:") == 1
    last = json.loads((tmp_path / "run/student/log.jsonl").read_text().splitlines()[-1])
    assert last["empty"] == 2
    assert last["loss"] == 0
    assert run_folder.read_run(tmp_path / "run/student")["empty_batches"] == 2
    assert path.is_file()


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:115] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_out_of_memory_says_what_takes_less(recipe, synth, tmp_path, monkeypatch, error):
    chosen = recipe(*ALONE, "train.steps=3")

    def explode(losses):
        raise error

    spoil(monkeypatch, 2, explode)
    with pytest.raises(TrainingError, match=r"out of memory in step 2 of the student.*train\.accumulate=2") as caught:
        run(chosen, synth, tmp_path / "run")
    assert "student.activation_checkpointing=true" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [step for step, _ in states(tmp_path / "run/student")] == [1]


def test_a_programming_error_stays_a_traceback(recipe, synth, tmp_path, monkeypatch):
    def explode(losses):
        raise RuntimeError("shapes do not fit")

    spoil(monkeypatch, 2, explode)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        run(recipe(*ALONE), synth, tmp_path / "run")


@pytest.fixture
def own_data(synth, tmp_path):
    import shutil

    root = tmp_path / "data"
    shutil.copytree(synth, root)
    return root


def _used_images(root, chosen):
    return [frame.image_path for frame in build.open_data(chosen, "student", root).frames.frames]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_in_the_middle(recipe, own_data, tmp_path, workers):
    chosen = recipe(*ALONE, "train.steps=9", f"train.workers={workers}", "checkpoint.every=100")
    (whole,) = run(chosen, own_data, tmp_path / "whole")
    images = _used_images(own_data, chosen)
    # One of the last batch of the first epoch; the first of the list is looked at before the first step.
    victim = images[next(i for i in reversed(epoch_order(len(images), 0, 0)) if i != 0)]
    good = victim.read_bytes()
    victim.write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError, match=rf"step 3: .*{victim.name}.*continue with --resume") as caught:
        run(chosen, own_data, tmp_path / "run")
    assert "\n" not in str(caught.value)
    victim.write_bytes(good)
    (parts,) = run(chosen, own_data, tmp_path / "run", resume=True)
    assert parts.read_bytes() == whole.read_bytes()


def test_missing_right_images_are_found_before_the_first_step(recipe, own_data, tmp_path):
    for folder in own_data.glob("*/*/image_03"):
        for image in folder.rglob("*.png"):
            image.unlink()
    with pytest.raises(DataError, match="right image"):
        run(recipe(), own_data, tmp_path / "run")
    assert not (tmp_path / "run/teacher").exists()


def test_data_is_looked_at_before_the_first_step(recipe, synth, tmp_path):
    wrong = {
        r"data root not found": {"data_root": tmp_path / "nowhere"},
        r"--data-root": {"data_root": None},
    }
    for words, options in wrong.items():
        with pytest.raises(AdubenchError, match=words):
            train(recipe(), output=tmp_path / "run", device="cpu", **options)
    with pytest.raises(AdubenchError, match=r"smaller|larger|input"):
        run(recipe("input.height=128", "input.width=320"), synth, tmp_path / "run")
    with pytest.raises(AdubenchError, match="ground"):
        run(recipe("data.gt_root=" + str(tmp_path)), synth, tmp_path / "run")
    assert not (tmp_path / "run/teacher").exists()


def test_validation_is_looked_at_before_the_first_step(recipe, synth, tmp_path):
    for change, words in (
        ("validate.split=synthdrive.vall", "synthdrive.val"),
        ("validate.metric=silogg", "silog"),
        ("validate.protocol=synthdriv", "synthdrive"),
    ):
        with pytest.raises(UsageError, match=words):
            run(recipe("validate.split=synthdrive.val", change), synth, tmp_path / "run")
    assert not (tmp_path / "run/teacher").exists()


def test_a_student_without_teacher(recipe, synth, tmp_path):
    with pytest.raises(UsageError, match=r"learns from a teacher, and there is none at .*--teacher CHECKPOINT"):
        run(recipe(), synth, tmp_path / "run", stages=["student"])
    with pytest.raises(UsageError, match="learns from no teacher"):
        run(recipe("method=supervised"), synth, tmp_path / "run", teacher=tmp_path / "x.safetensors")
    with pytest.raises(UsageError, match="stage"):
        run(recipe(), synth, tmp_path / "run", stages=["techer"])
    with pytest.raises(UsageError, match="there is none at"):
        run(recipe(), synth, tmp_path / "run", teacher=tmp_path / "none.safetensors")


def test_a_teacher_of_another_kind(recipe, synth, tmp_path):
    from adubench.training.checkpoint import save_checkpoint

    mono = tmp_path / "mono.safetensors"
    save_checkpoint(mono, build.build_network(recipe("method=supervised"), "student"))
    with pytest.raises(CheckpointError, match=r"mono\.safetensors: takes 3 input channels, a stereo teacher takes 6"):
        run(recipe(), synth, tmp_path / "run", teacher=mono)
    far = tmp_path / "far.safetensors"
    save_checkpoint(far, build.build_network(recipe("data.max_depth=100.0"), "teacher"))
    with pytest.raises(CheckpointError, match=r"reaches to 100 m, the recipe's student to 80 m.*data\.max_depth=100"):
        run(recipe(), synth, tmp_path / "run", teacher=far)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(far.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors"):
        run(recipe(), synth, tmp_path / "run", teacher=cut)
    assert not (tmp_path / "run/student").exists()


def test_a_start_of_another_encoder(recipe, synth, tmp_path):
    from adubench.training.checkpoint import save_checkpoint

    small = tmp_path / "small.safetensors"
    save_checkpoint(small, build.build_network(recipe("student.encoder=small", "method=supervised"), "student"))
    with pytest.raises(CheckpointError, match=r"small\.safetensors: .*encoder"):
        run(recipe(*ALONE, f"student.init=checkpoint:{small}"), synth, tmp_path / "run")


def test_what_is_wrong_with_the_student_is_found_before_the_teacher_is_trained(recipe, synth, tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.safetensors"):
        run(recipe(f"student.init=checkpoint:{tmp_path / 'none.safetensors'}"), synth, tmp_path / "run")
    assert not (tmp_path / "run/teacher").exists()


def test_a_missing_tracker_is_named(recipe, synth, tmp_path, monkeypatch):
    from adubench.training import trackers

    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"wandb is not installed.*pip install wandb"):
        run(recipe("log.trackers=[wandb]"), synth, tmp_path / "run")


def test_an_unwritable_folder(recipe, synth, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot write"):
        run(recipe(), synth, tmp_path / "file" / "run")


def test_state_holds_what_the_next_step_depends_on(recipe, synth, tmp_path):
    run(recipe("train.steps=2"), synth, tmp_path / "run")
    state = read_state(states(tmp_path / "run/student")[-1][1])
    assert {"modules", "optimizer", "random", "step", "best", "scaler", "epoch"} <= state.keys()
    assert any(name.startswith("extras.encoder") for name in state["modules"])
    assert not any("teacher" in name for name in state["modules"])
    assert np.isfinite(state["optimizer"]["param_groups"][0]["lr"])
