"""`adubench predict` and `eval` with a network of several images: a frame and its neighbours in time."""

import json

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from tests.checkpoints import MONODEPTH2, make_checkpoint, save_image  # noqa: E402
from tests.conftest import assert_one_sentence  # noqa: E402
from tests.self_supervised import DRIVE, write_drive  # noqa: E402

FOLDER = f"{DRIVE[:10]}/{DRIVE}_sync/image_02/data"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A drive of 4 frames, and a network of 3 images."""
    root = tmp_path_factory.mktemp("sequence")
    write_drive(root, frames=4, cameras=(2,))
    make_checkpoint(root / "three.safetensors", {**MONODEPTH2, "input_images": 3})
    return root


def infer(place, numbers):
    """The network's own answer for resized frames in this order."""
    from adubench import load_model

    views = []
    for number in numbers:
        image = Image.open(place / FOLDER / f"{number:010d}.png").resize((96, 64), Image.Resampling.LANCZOS)
        views.append(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255)
    with torch.no_grad():
        return 0.01 + 9.99 * load_model(place / "three.safetensors").infer(torch.cat(views, 1)).disparity[0, 0].numpy()


def test_a_folder_is_predicted_from_frames_and_their_neighbours(call, place, tmp_path):
    """The order is that of the published `frame_ids`: target, one before, one after. Ends of the drive are named."""
    done = call("predict", place / "three.safetensors", place / FOLDER, "-o", "out", "--output", "disparity")
    assert done.returncode == 1
    assert sorted(p.stem for p in (tmp_path / "out").glob("*.npy")) == ["0000000001", "0000000002"]
    for end, offset in (("0000000000.png", "-1"), ("0000000003.png", "+1")):
        assert f"{end}: its neighbour {offset} is not there" in done.stderr
    found = np.load(tmp_path / "out" / "0000000001.npy")
    np.testing.assert_allclose(found, infer(place, (1, 0, 2)), atol=1e-5)
    assert np.abs(found - infer(place, (0, 1, 2))).max() > 1e-4
    assert len(json.loads((tmp_path / "out" / "prediction.json").read_text())["failed"]) == 2


def test_depth_is_written_at_the_size_of_the_image_and_mirrored_images_are_averaged(call, place, tmp_path):
    frame = place / FOLDER / "0000000002.png"
    for flip in ("--no-flip", "--flip"):
        assert call("predict", place / "three.safetensors", frame, "-o", flip.strip("-"), flip).returncode == 0
    one, two = (np.load(tmp_path / name / "0000000002.npy") for name in ("no-flip", "flip"))
    assert one.shape == two.shape == (60, 160)
    assert not np.array_equal(one, two)


def test_one_image_alone_is_one_sentence(call, place, tmp_path):
    save_image(tmp_path / "street.png")
    done = call("predict", place / "three.safetensors", "street.png", "-o", "out")
    assert_one_sentence(done, 1, "its name has no frame number at the end")
    save_image(tmp_path / "frame_7.png")
    save_image(tmp_path / "frame_6.png", (64, 128))
    done = call("predict", place / "three.safetensors", "frame_7.png", "-o", "out")
    assert_one_sentence(done, 1, "frame_6.png: is of another size than frame_7.png")
    assert not list((tmp_path / "out").glob("*.npy"))


def test_a_score_needs_the_neighbours_too(call, place, tmp_path):
    (tmp_path / "gt").mkdir()
    for number in (1, 2):
        np.save(tmp_path / "gt" / f"{number:010d}.npy", np.full((60, 160), 5, np.float32))
    args = ("--gt", "gt", "--images", place / FOLDER, "--protocol", "full-frame", "-o", "r.json")
    done = call("eval", place / "three.safetensors", *args)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "r.json").read_text())["counts"]["evaluated"] == 2
    np.save(tmp_path / "gt" / "0000000003.npy", np.full((60, 160), 5, np.float32))
    assert_one_sentence(call("eval", place / "three.safetensors", *args), 1, "its neighbour +1 is not there")
