"""Networks trained on resized images see images of that size ever after; plans and folders read what trainings read."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from adubench.datasets.training_frames import training_frames  # noqa: E402
from adubench.datasets.training_packing import pack_frames  # noqa: E402
from adubench.datasets.transforms import resize_bilinear  # noqa: E402
from adubench.errors import UsageError  # noqa: E402
from adubench.evaluators.resize import bilinear  # noqa: E402
from adubench.models.zoo import build as build_model  # noqa: E402
from adubench.training import build  # noqa: E402
from adubench.training.checkpoint import load_network  # noqa: E402
from adubench.training.network_predictor import NetworkPredictor  # noqa: E402
from adubench.training.plan import plan_training  # noqa: E402
from adubench.training.predictor import PredictOptions  # noqa: E402
from tests.checkpoints import NEWCRFS, make_checkpoint  # noqa: E402

PLAIN = PredictOptions(device="cpu", flip=False)


def picture(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def test_a_resized_training_makes_a_network_of_that_size(recipe):
    cropped, resized = recipe(), recipe("input.mode=resize")
    for stage in ("teacher", "student"):
        assert build.network_config(cropped, stage).get("input_size") is None
        assert build.build_network(resized, stage).input_rule.size == (64, 96)


def test_images_go_in_resized_as_in_training_and_depth_comes_back_at_their_size(tmp_path):
    path = tmp_path / "net.safetensors"
    make_checkpoint(path, {**NEWCRFS, "input_size": [64, 96]})
    network, info = load_network(path)
    assert info.model["input_size"] == [64, 96]
    predictor = NetworkPredictor(network, PLAIN)
    image = picture((90, 150))
    found = predictor.predict([image])[0].values
    small = NetworkPredictor(build_same(network), PLAIN).predict([resize_bilinear(image, (64, 96))])[0].values
    assert small.shape == (64, 96)
    np.testing.assert_array_equal(found, bilinear(small, (90, 150)))
    exact = picture((64, 96))
    assert predictor.predict([exact])[0].values.shape == (64, 96)


def build_same(network):
    twin = build_model({**network.config, "input_size": None}).eval()
    twin.load_state_dict(network.state_dict())
    return twin


def test_checkpoints_from_before_the_key_take_images_as_they_are(tmp_path):
    config = dict(build_model(NEWCRFS).config)
    del config["input_size"]
    assert build_model(config).input_rule.size is None


@pytest.mark.parametrize("size", [[64], [64, 0], "64x96", [64.0, 96], [True, 3]])
def test_other_sizes_are_refused(size):
    with pytest.raises(UsageError, match="height, width"):
        build_model({**NEWCRFS, "input_size": size})


def test_a_dry_run_counts_the_frames_of_the_pack(recipe, synth, tmp_path):
    pack = tmp_path / "train.h5"
    frames = training_frames(recipe().data.train, synth, stereo=True, gt_kind=recipe().data.ground_truth)
    pack_frames(frames, pack, window=False)
    chosen = recipe(f"data.pack={pack}", "data.kb_crop=false")
    plan = plan_training(chosen, output=tmp_path / "run", data_root=None, stages=("student",))
    assert not plan.problem
    assert plan.stages[0].frames == len(frames)
    missing = recipe(f"data.pack={tmp_path / 'gone.h5'}")
    assert "gone.h5" in plan_training(missing, output=tmp_path, data_root=synth, stages=("student",)).problem


def test_a_folder_finds_its_right_images(recipe, tmp_path):
    from PIL import Image

    for name in ("left", "right"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.fromarray(picture((64, 128), i)).save(tmp_path / name / f"{i}.png")
    (tmp_path / "gt").mkdir()
    for i in range(3):
        Image.fromarray(np.full((64, 128), 256 * 10, np.uint16)).save(tmp_path / "gt" / f"{i}.png")
    changes = ("data.train=folder", f"data.gt_root={tmp_path / 'gt'}", "data.ground_truth=depth", "data.kb_crop=false")
    chosen = recipe(*changes, f"data.right_root={tmp_path / 'right'}")
    data = build.open_data(chosen, "teacher", tmp_path / "left")
    assert len(data.samples) == 3
    assert data.frames.stereo
    assert {frame.image_path.parent.name for frame in data.frames.frames} == {"left"}
    assert all(frame.right_path.parent.name == "right" for frame in data.frames.frames)
