"""`adubench bench recipe`: the cost of every method's real step, without weights, data or downloads."""

import json

import pytest

torch = pytest.importorskip("torch")

from adubench.cli import main  # noqa: E402
from adubench.training import bench_recipe as bench  # noqa: E402
from adubench.training.bench_recipe import RecipeBench, random_recipe  # noqa: E402
from adubench.training.estimate import Estimate, estimate  # noqa: E402

CPU = torch.device("cpu")
TINY = ("student.encoder=mini", "teacher.encoder=mini")


@pytest.fixture
def run(capsys):
    def call(*args):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(["bench", "recipe", *map(str, args)])
        said = capsys.readouterr()
        return stop.value.code or 0, said.out, said.err

    return call


def test_the_step_of_a_distilled_student(run, monkeypatch):
    args = [part for text in TINY for part in ("--set", text)]
    costs = []
    monkeypatch.setattr(bench, "estimate", lambda *given, **more: costs.append(estimate(*given, **more)) or costs[0])
    status, out, _ = run("demo", *args, "--size", "64x96", "--batch", 2, "--rounds", 1, "--device", "cpu", "--json")
    assert status == 0
    found, cost = json.loads(out), costs[0]
    assert found["parameters"] == {
        "deployed": cost.parameters["network"],
        "trained": cost.trained,
        "frozen teacher": cost.parameters["frozen teacher"],
    }
    assert found["gflop"]["step"] == pytest.approx(cost.step_gflop)
    assert found["memory"] == {"gib": pytest.approx(cost.bytes / 2**30), "how": "estimated from shapes"}
    assert found["step"]["samples_per_s"] == pytest.approx(2000 / found["step"]["ms"])
    assert found["inference"]["size"] == [64, 96]
    assert found["environment"]["threads"] == 1


@pytest.fixture
def half_a_gib(monkeypatch):
    """An estimate that costs nothing to make."""
    cost = Estimate({"network": 10**6}, {"forward": 2.5}, {"weights": 2**29}, ("without the loss",))
    monkeypatch.setattr(bench, "estimate", lambda *_, **__: cost)


def test_in_words_and_without_the_step(run, half_a_gib):
    args = ("--no-step", "--image-size", "32x64", "--rounds", 1, "--device", "cpu")
    status, out, _ = run("smoke", *args)
    assert status == 0
    assert "inference of 32x64" in out
    assert "0.50 GiB" in out
    assert "estimated from shapes, without the loss" in " ".join(out.split())
    assert "training step" not in out


@pytest.mark.parametrize(
    ("name", "extras"),
    [
        ("demo-response", TINY),
        ("demo-monodepth2", ("self_supervised.family=hr-depth-lite", "self_supervised.frame_ids=[0,-1,1]")),
        pytest.param("demo-sub-depth", (), marks=pytest.mark.slow),
        ("demo-tie-kd", ()),
        pytest.param("response-kd-mobilenetv2-adabins", ("model.encoder=resnet18",), marks=pytest.mark.slow),
        pytest.param("tie-kd-resnet18-baseline", (), marks=pytest.mark.slow),
        pytest.param("tie-kd-resnet18-adabins", (), marks=pytest.mark.slow),
        pytest.param("bts-kitti", (), marks=pytest.mark.slow),
    ],
)
def test_every_method_takes_a_step_that_changes_its_weights(name, extras, monkeypatch):
    _steps(random_recipe(name, extras, RecipeBench(size=(64, 96), batch=2)), "student", monkeypatch)


def _steps(recipe, stage, monkeypatch):
    """Take a step, check that it changes most weights, and return what was trained."""
    objectives = []
    monkeypatch.setattr(bench, "stage_objective", lambda *given: objectives.append(real(*given)) or objectives[-1])
    step = bench.training_step(recipe, stage, CPU, "fp32")
    trained = [p for p in objectives[0].parameters() if p.requires_grad]
    before = [p.detach().clone() for p in trained]
    step()
    changed = [not torch.equal(a, b) for a, b in zip(before, trained, strict=True)]
    assert sum(changed) > 0.5 * len(changed)
    assert all(torch.isfinite(p).all() for p in trained)
    return objectives[0].network


real = bench.stage_objective


def test_a_teacher_has_a_step_of_its_own(monkeypatch):
    recipe = random_recipe("demo", TINY, RecipeBench(size=(64, 96), batch=2))
    assert _steps(recipe, "teacher", monkeypatch).input_rule.channels == 6


def test_accumulation_is_part_of_the_step(monkeypatch):
    recipe = random_recipe("demo-monodepth2", ["train.accumulate=2"], RecipeBench(size=(64, 96)))
    passes = []
    step = bench.training_step(recipe, "student", CPU, "fp32")
    monkeypatch.setattr(torch.Tensor, "backward", lambda self, *_: passes.append(self))
    step()
    assert len(passes) == recipe.train.accumulate == 2


def test_nothing_starts_from_downloaded_weights():
    for name in ("adu-kitti-eigen", "sub-depth-diffnet", "adabins-kitti", "monodepth2-m"):
        recipe = random_recipe(name, (), RecipeBench())
        assert {recipe.student.init, recipe.teacher.init} == {"random"} or recipe.model or recipe.self_supervision
        assert recipe.model is None or recipe.model.init == "random"
        if recipe.self_supervision:
            assert recipe.self_supervised.init == recipe.self_supervised.pose_init == "random"


def test_the_rows_that_tie_kd_ignores_shrink_with_the_crop():
    recipe = random_recipe("tie-kd-resnet18-adabins", (), RecipeBench(size=(64, 96)))
    assert recipe.tie_kd.ignore_top_rows == 110 * 64 // 352


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("adu-kitti",), "adu-kitti-eigen"),
        (("demo", "--size", "64"), "--size 64: expected HEIGHTxWIDTH"),
        (("demo", "--image-size", "64"), "--image-size 64: expected HEIGHTxWIDTH"),
        (("demo", "--size", "60x96"), "no multiple of 32"),
        (("demo", "--set", "train.epoch=3"), "epoch"),
        (("demo", "--device", "cpu", "--precision", "bf16"), "needs a CUDA device"),
        (("adabins-kitti", "--size", "96x320", "--batch", "2", "--device", "cpu"), "352x384"),
        pytest.param(
            ("adabins-kitti", "--no-step", "--image-size", "64x64", "--device", "cpu"),
            "352x384",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_faults_are_sentences(run, args, words):
    status, _, err = run(*args)
    assert status in (1, 2)
    assert words in err
    assert "Traceback" not in err


def test_a_step_that_memory_cannot_hold_is_refused(run, monkeypatch, half_a_gib):
    monkeypatch.setattr(bench, "_free_bytes", lambda: 2**28)
    status, _, err = run("smoke", "--device", "cpu")
    assert status == 2
    assert "needs about 0.5 GiB, 0.2 GiB are free" in " ".join(err.split())
    assert "--no-step" in err
