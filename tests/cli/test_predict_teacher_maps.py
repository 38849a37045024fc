"""`adubench predict --layout tie-kd`: maps in TIE-KD's code and names, with the record that training checks."""

import numpy as np
import pytest
from PIL import Image

from adubench.datasets.frames import kitti_frame
from adubench.datasets.teacher_maps import Expected, frames_sha256, open_teacher_maps, read_record

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
