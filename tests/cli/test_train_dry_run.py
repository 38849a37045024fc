"""`adubench train --dry-run`: what would run is worked out from recipe and data; nothing is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adubench.cli import main
from adubench.datasets.frames import FrameKey
from adubench.datasets.splits import load_split

pytest.importorskip("torch")
pytest.importorskip("timm")

SMALL = [f"{role}.{key}" for role in ("teacher", "student") for key in ("encoder=mini", "init=random")]
SIZE = (375, 1242)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


@pytest.fixture(scope="module")
def kitti(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three frames of the Eigen training list: two complete, one without its right image."""
    root = tmp_path_factory.mktemp("kitti")
    for number, frame in enumerate([f for f in load_split("eigen_train").frames if f.camera == 2][:3]):
        for camera in (2, 3):
            if number == 2 and camera == 3:
                continue
            _image(root, frame, camera)
            _truth(root, frame, camera)
    return root


def _image(root: Path, frame: FrameKey, camera: int) -> None:
    path = root / frame.date / f"{frame.drive}_sync" / f"image_0{camera}" / "data" / f"{frame.index:010d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(path)


def _truth(root: Path, frame: FrameKey, camera: int) -> None:
    folder = root / "train" / f"{frame.drive}_sync" / "proj_depth" / "groundtruth" / f"image_0{camera}"
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(SIZE, 2560, np.uint16)).save(folder / f"{frame.index:010d}.png")


def options(*more: str) -> list[str]:
    return [word for text in (*SMALL, *more) for word in ("--set", text)]


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the estimate out where it is not looked at."""
    from adubench.training import plan
    from adubench.training.estimate import Estimate

    monkeypatch.setattr(plan, "estimate", lambda *_, **__: Estimate({}, {}, {}, ("left out",)))


def test_frames_steps_and_cost_of_the_published_recipe(
    kitti: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")  # words of one cell on one line
    code, out, err = run(capsys, "train", "adu-kitti-eigen", "--dry-run", "--data-root", kitti, *options())
    assert code == 0, err
    assert "2 of 23,158" in out  # the third frame has no right image
    assert "right image" in out
    assert "40" in out  # one step per epoch
    for word in ("parameters", "GFLOP per sample", "activations", "frozen teacher", "adapters", "checkpoi"):
        assert word in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("cheap")
def test_without_data_the_plan_is_still_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ADUBENCH_DATA_ROOT", raising=False)
    code, out, err = run(capsys, "train", "adu-kitti-eigen", "--dry-run", "--stage", "teacher", *options())
    assert code == 1
    assert "about 231,600" in out  # 5,790 steps of 4 per epoch
    assert "give --data-root DIR" in err
    assert "Eigen training images" in out  # the validation list overlaps it, and that is said


@pytest.mark.usefixtures("cheap")
def test_a_baseline_plans_no_teacher(kitti: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(
        capsys, "train", "adu-kitti-eigen-baseline", "--dry-run", "--data-root", kitti, *options("train.steps=5")
    )
    assert code == 1  # single images: a missing one is an error, not a dropped pair
    assert "ground truth and the" not in out
    assert "student" in out
    assert "left out" in out


@pytest.mark.slow
def test_full_size_networks_are_estimated_as_published(capsys: pytest.CaptureFixture[str]) -> None:
    from adubench.recipes.recipe import load_recipe
    from adubench.training.estimate import estimate

    found = estimate(load_recipe("adu-kitti-eigen"), "student")
    assert found.parameters["network"] == pytest.approx(270.4e6, rel=0.01)
    assert found.parameters["adapters"] == pytest.approx(18.1e6, rel=0.01)
    assert found.gflop["frozen teacher"] == pytest.approx(733, rel=0.01)
    assert found.step_gflop == pytest.approx(3500, rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["no-such-recipe"], 2, "unknown recipe"),
        (["demo", "--set", "train.lr=x"], 2, "expected a number"),
        (["demo", "--stage", "studnt", "--dry-run"], 2, "did you mean 'student'"),
        (["newcrfs-code", "--stage", "teacher", "--dry-run"], 2, "stage"),
    ],
)
def test_faults_are_sentences(arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    got, _, err = run(capsys, "train", *arguments)
    assert got == code
    assert words in err
    assert "Traceback" not in err
