"""`adubench predict --layout tie-kd`: maps in TIE-KD's code and names, with the record that training checks."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from adubench.datasets.frames import kitti_frame
from adubench.datasets.teacher_maps import Expected, frames_sha256, open_teacher_maps, read_record
from adubench.errors import DataError

pytest.importorskip("torch")

MODEL = """
import numpy as np
KIND = "depth"
def predict(image):
    return np.full(image.shape[:2], {depth}, np.float32)
"""
DRIVE = "2011_09_26/2011_09_26_drive_0002_sync/image_02/data"


@pytest.fixture
def places(tmp_path):
    """Two KITTI-size images and a teacher that answers 20 m."""
    for i in (3, 9):
        path = tmp_path / "raw" / DRIVE / f"{i:010d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((375, 1242, 3), np.uint8)).save(path)
    (tmp_path / "teacher.py").write_text(MODEL.format(depth=20.0))
    return tmp_path


def frames():
    return [kitti_frame("2011_09_26_drive_0002", i) for i in (3, 9)]


@pytest.mark.parametrize("form", ["png", "hdf5"])
def test_maps_and_record(call, places, form):
    out = places / "out"
    done = call("predict", places / "teacher.py", places / "raw", "-o", out, "--layout", "tie-kd", "--format", form)
    assert done.returncode == 0, done.stderr
    expected = Expected(80.0, frames_sha256(f.name for f in frames()), "kb")
    maps = open_teacher_maps(out if form == "png" else out / "teacher_maps.h5", expected)
    stems = maps.check_complete({f.name: f.aliases() for f in frames()})
    assert stems[frames()[0].name] == f"2011_09_26_2011_09_26_drive_0002_sync_image_02_data_{3:010d}"
    depth = maps.read(stems[frames()[0].name])
    assert depth.shape == (352, 1216)
    np.testing.assert_allclose(depth, 20, atol=80 / 65535)
    assert len(maps.record.weights_sha256) == 64


def test_png_is_the_default_and_the_record_is_about_all_maps(call, places):
    out = places / "out"
    image = places / "raw" / DRIVE / f"{3:010d}.png"
    assert call("predict", places / "teacher.py", places / "raw", "-o", out, "--layout", "tie-kd").returncode == 0
    assert len(list(out.glob("*.png"))) == 2
    image.write_bytes(b"broken")
    done = call("predict", places / "teacher.py", places / "raw", "-o", out, "--layout", "tie-kd")
    assert done.returncode == 1
    assert str(image) in done.stderr
    assert read_record(out) is None


def test_codes_need_png_or_hdf5(call, places):
    done = call(
        "predict", places / "teacher.py", places / "raw", "-o", places / "o", "--layout", "tie-kd", "--format", "npz"
    )
    assert done.returncode == 2
    assert "16-bit" in done.stderr


def test_another_teachers_maps_are_never_taken_over(call, places):
    args = ("predict", places / "teacher.py", places / "raw", "-o", places / "out", "--layout", "tie-kd")
    assert call(*args).returncode == 0
    before = read_record(places / "out")
    (places / "teacher.py").write_text(MODEL.format(depth=30.0))
    done = call(*args, "--skip-existing")
    assert done.returncode == 2
    assert "holds 2 maps of another teacher" in done.stderr
    one = (*args[:2], places / "raw" / DRIVE / f"{3:010d}.png", *args[3:])
    done = call(*one)
    assert done.returncode == 2
    assert "holds 1 map of another teacher" in done.stderr
    assert read_record(places / "out") == before
    assert call(*args).returncode == 0, "all maps are written again"
    assert read_record(places / "out").weights_sha256 != before.weights_sha256
    (places / "out/teacher.json").unlink()
    done = call(*args, "--skip-existing")
    assert done.returncode == 2
    assert "holds 2 maps without a record" in done.stderr


def test_a_pack_leaves_the_record_of_the_maps_beside_it(call, places):
    args = ("predict", places / "teacher.py", places / "raw", "-o", places / "out", "--layout", "tie-kd")
    assert call(*args).returncode == 0
    assert call(*args, "--format", "hdf5").returncode == 0
    assert read_record(places / "out") == read_record(places / "out/teacher_maps.h5")


DYING = """
import os
from pathlib import Path
import numpy as np
KIND = "depth"
calls = []
def predict(image):
    calls.append(1)
    if Path("die").exists() and len(calls) == 4:
        os._exit(9)
    return np.full(image.shape[:2], 20.0, np.float32)
"""


@pytest.mark.parametrize("form", ["png", "hdf5"])
def test_a_killed_run_is_refused_by_training_and_can_be_continued(call, places, form):
    (places / "teacher.py").write_text(DYING)
    (places / "die").touch()
    args = ("predict", places / "teacher.py", places / "raw", "-o", places / "out", "--layout", "tie-kd",
            "--format", form)  # fmt: skip
    command = [sys.executable, "-m", "adubench", *map(str, args)]
    assert subprocess.run(command, cwd=places, capture_output=True, timeout=120).returncode == 9
    (places / "die").unlink()
    root = places / "out" if form == "png" else places / "out/teacher_maps.h5"
    with pytest.raises(DataError, match="not all written" if form == "png" else "not found"):
        open_teacher_maps(root)
    if form == "png":
        assert len(list(root.glob("*.png"))) == 1
        done = call(*args, "--skip-existing")
        assert "1 were there" in done.stderr
    else:
        done = call(*args)
    assert done.returncode == 0, done.stderr
    assert len(open_teacher_maps(root)) == 2


def test_the_largest_depth_of_the_code_can_be_chosen(call, places):
    args = ("predict", places / "teacher.py", places / "raw", "-o", places / "out")
    assert call(*args, "--layout", "tie-kd", "--max-depth", "40").returncode == 0
    maps = open_teacher_maps(places / "out", Expected(max_depth=40))
    np.testing.assert_allclose(maps.read(maps.find(frames()[0].aliases())), 20, atol=40 / 65535)
    for wrong in (("--layout", "tie-kd", "--max-depth", "0"), ("--max-depth", "40")):
        done = call(*args, *wrong)
        assert done.returncode == 2
        assert "--layout tie-kd" in done.stderr
