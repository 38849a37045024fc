"""`adubench export-submission CHECKPOINT`: whole images predicted, the archive the server takes."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from tests.checkpoints import MONODEPTH2, NEWCRFS, make_checkpoint, save_image  # noqa: E402


@pytest.fixture
def place(tmp_path):
    make_checkpoint(tmp_path / "nc.safetensors", {**NEWCRFS, "uncertainty": {}}, data={"split": "eigen_train"})
    for i in range(3):
        save_image(tmp_path / "images" / f"{i:010d}.png", seed=i)
    return tmp_path


def test_the_archive_holds_what_predict_writes(call, place):
    args = ("--images", "images", "--rehearsal", "-o", "s.zip")
    done = call("export-submission", "nc.safetensors", *args, "--uncertainty")
    assert done.returncode == 0, done.stderr
    assert "trained on 'eigen_train'" in done.stdout
    assert call("predict", "nc.safetensors", "images", "-o", "maps", "--format", "png").returncode == 0
    with zipfile.ZipFile(place / "s.zip") as archive:
        assert archive.namelist() == [f"{i:010d}.png" for i in range(3)]
        for name in archive.namelist():
            written = np.asarray(Image.open(archive.open(name)))
            assert np.array_equal(written, np.asarray(Image.open(place / "maps" / name)))
    manifest = json.loads((place / "s.manifest.json").read_text())
    assert manifest["checkpoint"]["name"] == "nc.safetensors"
    assert manifest["trained_on"] == "eigen_train"
    assert len(list((place / "s_uncertainty").glob("*.npy"))) == 3
    assert not list(place.glob(".*"))


def test_depth_without_a_scale_asks_for_one(call, place):
    make_checkpoint(place / "md2.safetensors", MONODEPTH2)
    args = ("export-submission", "md2.safetensors", "--images", "images", "--rehearsal", "-o", "s.zip")
    done = call(*args)
    assert done.returncode == 2
    assert "--disparity-scale" in done.stderr
    assert call(*args, "--disparity-scale", "5.4").returncode == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("nc.safetensors", "--rehearsal"), "--images"),
        (("nc.safetensors", "--images", "images", "--rehearsal", "--input", "scaled-disparity"), "leave --input out"),
        (("images", "--images", "images", "--rehearsal", "--amp"), "belongs to a checkpoint"),
        (("images", "--images", "images", "--rehearsal", "--flip"), "belongs to a checkpoint"),
        (("none.safetensors", "--images", "images", "--rehearsal"), "not found"),
        (("nc.safetensors", "--images", "images"), "needs 500 images"),
    ],
)
def test_wrong_input_is_one_sentence_and_leaves_nothing(call, place, args, words):
    done = call("export-submission", *args, "-o", "s.zip")
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (place / "s.zip").exists()
    assert not list(place.glob(".*"))
