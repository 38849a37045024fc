"""A network as a predictor: what goes in, how the mirrored image is averaged, what happens without memory."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from adubench.errors import DataError, UsageError  # noqa: E402
from adubench.evaluators import flip  # noqa: E402
from adubench.evaluators.resize import bilinear  # noqa: E402
from adubench.models.interface import Inference, InputRule  # noqa: E402
from adubench.training.network_predictor import NetworkPredictor, resolve_device  # noqa: E402
from adubench.training.predictor import (  # noqa: E402
    PredictOptions,
    crop_to_window,
    depth_of,
    evaluator_kind,
    open_predictor,
)
from tests.checkpoints import MONODEPTH2, Known, make_checkpoint, save_image  # noqa: E402

GOLDEN = Path(__file__).parents[1] / "data" / "newcrfs" / "post_process_depth.npz"


def image(size=(6, 40), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def test_an_image_is_normalised_by_the_networks_rule():
    network = Known(input_rule=InputRule(3, (0.5, 0, 0), (0.25, 1, 1)))
    pixels = image()
    (found,) = NetworkPredictor(network).predict([pixels])
    expected = 1 + (pixels[:, :, 0] / np.float32(255) - 0.5) / 0.25 + np.linspace(0, 1, 40)
    assert found.values.dtype == np.float32
    assert found.kind == "depth"
    np.testing.assert_allclose(found.values, expected, atol=1e-6)


@pytest.mark.parametrize("case", [0, 1, 2])
def test_blending_gives_the_references_numbers(case):
    """Stored output of NeWCRFs' post_process_depth."""
    golden = np.load(GOLDEN)
    passes = iter([golden[f"depth{case}"], golden[f"depth_of_flipped{case}"]])
    network = Known(flip="blend")
    network.infer = lambda images, focal=None: Inference(depth=torch.from_numpy(next(passes)))
    count, _, height, width = golden[f"y{case}"].shape
    found = NetworkPredictor(network, PredictOptions(batch_size=2)).predict([image((height, width))] * count)
    np.testing.assert_allclose(np.stack([p.values for p in found]), golden[f"y{case}"][:, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("rule", "output", "wanted", "name"),
    [
        ("blend", "depth", None, "blend"),
        ("mean", "depth", None, "mean"),
        ("none", "depth", None, "off"),
        ("disparity-blend", "disparity", None, "off"),
        ("blend", "depth", False, "off"),
        ("none", "depth", True, "mean"),
        ("none", "disparity", True, "blend"),
    ],
)
def test_flip_averaging_follows_the_reference_unless_told_otherwise(rule, output, wanted, name):
    network = Known(flip=rule, output=output)
    predictor = NetworkPredictor(network, PredictOptions(flip=wanted))
    predictor.predict([image()])
    assert predictor.describe()["flip"] == name
    assert len(network.calls) == (1 if name == "off" else 2)


def test_uncertainty_is_averaged_with_the_weights_of_the_depth():
    network = Known(flip="blend", uncertainty_kind="log_sigma")
    pixels = image()
    (found,) = NetworkPredictor(network).predict([pixels])
    plain = NetworkPredictor(network, PredictOptions(flip=False)).predict([pixels])[0]
    mirrored = NetworkPredictor(network, PredictOptions(flip=False)).predict([pixels[:, ::-1]])[0]
    np.testing.assert_allclose(found.values, flip.blend(plain.values, mirrored.values), atol=1e-6)
    np.testing.assert_allclose(found.uncertainty, flip.blend(plain.uncertainty, mirrored.uncertainty), atol=1e-6)
    assert found.uncertainty_kind == "log_sigma"


def test_order_and_sizes_survive_batching():
    images = [image((4, 8), 0), image((4, 8), 1), image((6, 8), 2), image((4, 8), 3), image((4, 8), 4)]
    network = Known()
    found = NetworkPredictor(network, PredictOptions(batch_size=2)).predict(images)
    assert [c.shape[0] for c in network.calls] == [2, 1, 2]
    for pixels, prediction in zip(images, found, strict=True):
        assert prediction.values.shape == pixels.shape[:2]
        np.testing.assert_allclose(prediction.values[:, 0], 1 + pixels[:, 0, 0] / np.float32(255), atol=1e-6)


def test_a_batch_that_does_not_fit_is_halved_and_one_image_is_a_sentence():
    network, plain = Known(), Known.infer
    limit = 1

    def infer(images, *, focal=None):
        if len(images) > limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return plain(network, images, focal=focal)

    network.infer = infer
    predictor = NetworkPredictor(network, PredictOptions(batch_size=4))
    assert len(predictor.predict([image(seed=i) for i in range(4)])) == 4
    limit = 0
    with pytest.raises(DataError, match="out of memory on cpu with one image of 6x40"):
        predictor.predict([image()])


def test_other_faults_of_a_network_stay_faults():
    network = Known()

    def infer(images, *, focal=None):
        raise RuntimeError("shapes do not match")

    network.infer = infer
    with pytest.raises(RuntimeError, match="shapes"):
        NetworkPredictor(network).predict([image()])


def test_disparity_comes_scaled_at_the_networks_size_and_becomes_depth_at_the_images():
    network = Known(
        output="disparity",
        input_rule=InputRule(3, (0.0,) * 3, (1.0,) * 3, (4, 8), "lanczos"),
        depth_range=(0.1, 100.0),
        uncertainty_kind="b",
    )
    (found,) = NetworkPredictor(network).predict([image((12, 20))])
    assert (found.kind, found.values.shape) == ("scaled-disparity", (4, 8))
    assert network.calls[0].shape == (1, 3, 4, 8)
    np.testing.assert_allclose(found.uncertainty, (found.values - 0.01) / 9.99 * 8 * 9.99, rtol=1e-5)
    depth = depth_of(found, (12, 20))
    np.testing.assert_allclose(depth.values, 1 / bilinear(found.values, (12, 20)), rtol=1e-6)


def test_passes_are_clamped_before_they_are_averaged_on_request():
    """TIE-KD's teachers: 85 m and 79 m of two passes are 79.5 m with a range of 80 m, not 80 m."""
    network = Known()
    network.config |= {"min_depth": 0.001, "max_depth": 1.5}
    pixels = np.zeros((2, 5, 3), np.uint8)  # the network answers 1 to 2 m from left to right
    plain, clamped = (
        NetworkPredictor(network, PredictOptions(flip=True, clamp=clamp)).predict([pixels])[0].values
        for clamp in (False, True)
    )
    np.testing.assert_allclose(plain[0], 1.5, atol=1e-6)
    np.testing.assert_allclose(clamped[0], [1.25, 1.375, 1.5, 1.375, 1.25], atol=1e-6)


def test_images_are_resized_for_the_network_on_request(tmp_path):
    network = Known()
    predictor = NetworkPredictor(network, PredictOptions(network_size=(16, 24)))
    (found,) = predictor.predict([np.full((20, 30, 3), 100, np.uint8)])
    assert {call.shape[-2:] for call in network.calls} == {(16, 24)}
    assert found.values.shape == (20, 30)
    assert not predictor.any_size
    assert predictor.describe()["predictor"]["network_size"] == [16, 24]
    with pytest.raises(UsageError, match="resizes images itself"):
        open_predictor("hf:any/model", PredictOptions(network_size=(16, 24)))
    with pytest.raises(UsageError, match="HEIGHTxWIDTH"):
        PredictOptions(network_size=(0, 24))


def test_a_network_of_fixed_size_that_predicts_depth_is_resized_back():
    network = Known(input_rule=InputRule(3, (0.0,) * 3, (1.0,) * 3, (4, 8)))
    assert NetworkPredictor(network).predict([image((12, 20))])[0].values.shape == (12, 20)


def test_the_kb_window_is_the_bottom_of_the_image():
    big = image((375, 1242))
    (found,) = NetworkPredictor(Known(), PredictOptions(kb_crop=True)).predict([big])
    assert found.values.shape == (352, 1216)
    np.testing.assert_allclose(found.values[:, 0], 1 + big[23:, 13, 0] / np.float32(255), atol=1e-6)
    with pytest.raises(DataError, match="smaller than the 352x1216 window"):
        crop_to_window(image())


def test_a_stereo_network_takes_both_views_and_averages_nothing():
    network = Known(input_rule=InputRule(6, (0.0,) * 3, (1.0,) * 3), flip="blend")
    predictor = NetworkPredictor(network, label="teacher")
    predictor.predict([image()], [image(seed=1)])
    assert network.calls[0].shape[1] == 6
    assert predictor.describe()["flip"] == "off"
    with pytest.raises(UsageError, match="needs the right image"):
        predictor.predict([image()])
    with pytest.raises(DataError, match="differ in size: 6x40 and 6x42"):
        predictor.predict([image()], [image((6, 42))])
    with pytest.raises(UsageError, match="nothing to average"):
        NetworkPredictor(network, PredictOptions(flip=True))


def test_focal_lengths_reach_networks_that_need_them():
    network = Known(input_rule=InputRule(3, (0.0,) * 3, (1.0,) * 3, needs_focal=True))
    NetworkPredictor(network, PredictOptions(batch_size=2)).predict([image(), image()], focals=[700.0, None])
    assert network.calls[0].focal.tolist() == pytest.approx([700.0, 715.0873])
    NetworkPredictor(network, PredictOptions(focal=1.5)).predict([image()], focals=[700.0])
    assert network.calls[1].focal.tolist() == [1.5]


def test_a_network_in_training_goes_on_as_it_was():
    network = Known()
    network.frozen = torch.nn.BatchNorm2d(1)
    network.train()
    network.frozen.eval()
    NetworkPredictor(network).predict([image()])
    assert not network.calls[0].training
    assert network.training
    assert not network.frozen.training


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "--batch-size 0"),
        ({"focal": -1.0}, "--focal -1"),
        ({"kind": "metres"}, "--kind metres"),
    ],
)
def test_absurd_options_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        PredictOptions(**options)


def test_devices_that_are_not_there_are_named(tmp_path):
    with pytest.raises(UsageError, match="unknown"):
        resolve_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="none on this machine"):
            resolve_device("cuda")
    with pytest.raises(UsageError, match="--amp"):
        NetworkPredictor(Known(), PredictOptions(amp=True))


def test_stereo_training_gives_self_supervised_depth_its_scale(tmp_path):
    make_checkpoint(tmp_path / "s.safetensors", {**MONODEPTH2, "use_stereo": True})
    predictor = open_predictor(tmp_path / "s.safetensors", PredictOptions(device="cpu"))
    assert evaluator_kind(predictor) == ("scaled-disparity", "fixed:5.4")
    (found,) = predictor.predict([save_image(tmp_path / "i.png")])
    np.testing.assert_allclose(depth_of(found, (64, 96)).values, 5.4 / found.values, rtol=1e-6)


def test_networks_of_image_sequences_take_neighbours_behind_the_frame():
    rule = InputRule(6, (0.0,) * 3, (1.0,) * 3, (4, 8))
    predictor = NetworkPredictor(Known(output="disparity", input_rule=rule, neighbours=(-1,)))
    with pytest.raises(UsageError, match=r"its neighbours -1: 6 channels, got 3"):
        predictor.predict([np.zeros((4, 8, 3), np.uint8)])
    predictor.predict([np.zeros((5, 9, 6), np.uint8)])
    assert predictor.network.calls[0].shape == (1, 6, 4, 8)


def test_official_files_are_sent_to_import_weights(tmp_path):
    with pytest.raises(UsageError, match="import-weights auto"):
        open_predictor(tmp_path / "model.pth")
