"""Validation is the evaluator's number; the best checkpoint is the best of them; everything is logged."""

import json

import pytest

torch = pytest.importorskip("torch")

from adubench.evaluators.evaluator import evaluate  # noqa: E402
from adubench.training import run_folder  # noqa: E402
from adubench.training.checkpoint import read_info  # noqa: E402
from adubench.training.live_predictions import LivePredictor  # noqa: E402
from adubench.training.predictor import PredictOptions, open_predictor  # noqa: E402
from adubench.training.run import train  # noqa: E402
from adubench.training.validation import evenly, open_validation  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
CHANGES = ("validate.split=synthdrive.val", "validate.frames=null", "validate.every=2", "train.steps=4")


@pytest.fixture
def lines(tmp_path):
    def read(stage="student"):
        return [json.loads(line) for line in (tmp_path / "run" / stage / "log.jsonl").read_text().splitlines()]

    return read


def test_validation_is_what_eval_says(recipe, synth, tmp_path, lines):
    chosen = recipe(*CHANGES)
    teacher, student = train(chosen, output=tmp_path / "run", data_root=synth, device="cpu")
    for stage, path in (("teacher", teacher), ("student", student)):
        found = [line for line in lines(stage) if line["event"] == "validation"]
        assert [line["step"] for line in found] == [2, 4]
        source = LivePredictor(open_predictor(path, PredictOptions(device="cpu")), path)
        (result,) = evaluate(source, split="synthdrive.val", data_root=synth)
        assert found[-1]["frames"] == result.counts["evaluated"] == 3
        for name in ("silog", "abs_rel", "d1"):
            assert found[-1][name] == pytest.approx(result.summary[name], rel=1e-5)
            assert read_info(path).metrics[name] == found[-1][name]
        best = min(found, key=lambda line: line["silog"])
        assert read_info(tmp_path / "run" / stage / run_folder.BEST).step == best["step"]
        assert run_folder.read_run(tmp_path / "run" / stage)["best"]["step"] == best["step"]


def test_a_checkpoint_says_what_it_was_trained_on(recipe, synth, tmp_path):
    _, student = train(recipe(), output=tmp_path / "run", data_root=synth, device="cpu")
    info = read_info(student)
    assert info.role == "student"
    assert (info.data["split"], info.data["count"], info.step) == ("synthdrive.train", 6, 3)
    assert info.recipe["name"] == "demo"
    assert info.recipe["distill"]["lambda"]["umr"] == 0.9
    assert len(info.source["teacher_sha256"]) == 64
    assert read_info(tmp_path / "run/teacher" / run_folder.LAST).role == "teacher"
    assert (tmp_path / "run/student" / run_folder.ADAPTERS).is_file()


def test_better_follows_the_metric(recipe, synth):
    lower = open_validation(recipe(*CHANGES), "student", synth)
    higher = open_validation(recipe(*CHANGES, "validate.metric=d1"), "student", synth)
    assert lower.better(1.0, None)
    assert lower.better(1.0, 2.0)
    assert not lower.better(2.0, 2.0)
    assert higher.better(0.9, 0.8)
    assert not higher.better(0.8, 0.9)
    assert not lower.better(float("nan"), None)


def test_frames_are_evenly_spread():
    assert evenly(tuple(range(10)), 4) == (0, 2, 5, 7)
    assert evenly(tuple(range(3)), 9) == (0, 1, 2)
    assert evenly(tuple(range(3)), None) == (0, 1, 2)


def test_tensorboard_has_scalars_and_pictures(recipe, synth, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    chosen = recipe("log.trackers=[tensorboard]", "log.images=1", "train.steps=2")
    _, student = train(chosen, output=tmp_path / "run", data_root=synth, device="cpu")
    events = next((tmp_path / "run/student").rglob("events.out.tfevents*"))
    found = EventAccumulator(str(events.parent))
    found.Reload()
    tags = found.Tags()
    assert {"train/loss", "train/response", "train/lr"} <= set(tags["scalars"])
    assert set(tags["images"]) == {"input", "ground_truth", "prediction", "teacher", "error", "uncertainty"}
    # Pictures are drawn by a forward pass of their own, which leaves no trace in the weights.
    (_, plain) = train(recipe("train.steps=2"), output=tmp_path / "plain", data_root=synth, device="cpu")
    from safetensors.torch import load_file

    one, other = load_file(student), load_file(plain)
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_one_error_sum_over_micro_batches(recipe, synth, tmp_path, lines):
    """Accumulation runs, counts all samples, and needs the same number of steps."""
    train(recipe("train.accumulate=2", "train.steps=2"), output=tmp_path / "run", data_root=synth, device="cpu")
    halves = [line for line in lines("teacher") if line["event"] == "step"]
    train(recipe("train.steps=2"), output=tmp_path / "whole", data_root=synth, device="cpu")
    whole = [json.loads(t) for t in (tmp_path / "whole/teacher/log.jsonl").read_text().splitlines()]
    whole = [line for line in whole if line["event"] == "step"]
    assert [line["n_valid"] for line in halves] == [line["n_valid"] for line in whole]
    assert halves[0]["loss"] == pytest.approx(whole[0]["loss"], rel=0.05)
    assert halves[0]["loss"] != whole[0]["loss"]


def test_bf16_on_the_cpu_trains(recipe, synth, tmp_path, lines):
    chosen = recipe("train.precision=bf16", "train.steps=2")
    _, student = train(chosen, output=tmp_path / "run", data_root=synth, device="cpu")
    full = train(recipe("train.steps=2"), output=tmp_path / "full", data_root=synth, device="cpu")[1]
    from safetensors.torch import load_file

    one, other = load_file(student), load_file(full)
    assert all(v.dtype == other[k].dtype for k, v in one.items())
    assert not all(torch.equal(v, other[k]) for k, v in one.items())
    assert lines()[-1]["loss"] < 40
