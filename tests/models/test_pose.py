"""Goldens of the pose networks and of sigma_pho; which image goes first and what is inverted."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from adubench.errors import UsageError  # noqa: E402
from adubench.models.pose import build_pose, temporal_pair  # noqa: E402
from adubench.models.resnet_encoder import ResnetEncoder  # noqa: E402
from adubench.models.sub_depth import PhotometricUncertainty  # noqa: E402
from tests.self_supervised import arrays, close, recipe, without_classifier  # noqa: E402


@pytest.fixture(scope="module")
def file():
    return arrays("networks")


def images(file):
    return [file["image"][:1], file["image"][1:]]


def test_separate_resnet(file):
    network = build_pose({}).eval()
    network.pose_encoder.load_state_dict(without_classifier(recipe("monodepth2", "pose_encoder")))
    network.pose.load_state_dict(recipe("monodepth2", "pose"))
    with torch.no_grad():
        axisangle, translation = network.raw(images(file))
        first, second = images(file)
        older, newer = network({0: first, 1: second})[1], network({0: second, -1: first})[-1]
    close(axisangle, file["monodepth2/axisangle"], 1e-6)
    close(translation, file["monodepth2/translation"], 1e-6)
    for pose in (older, newer):  # both times the older image is the first one
        close(pose.axisangle, file["monodepth2/axisangle"][:, 0, 0], 1e-6)
        close(pose.translation, file["monodepth2/translation"][:, 0, 0], 1e-6)
    assert (older.invert, newer.invert) == (False, True)


def test_posecnn_takes_raw_images(file):
    network = build_pose({"kind": "posecnn"}).eval()
    network.pose.load_state_dict(recipe("pose_cnn", "pose"))
    with torch.no_grad():
        axisangle, translation = network.raw(images(file))
    close(axisangle, file["pose_cnn/axisangle"], 1e-6)
    close(translation, file["pose_cnn/translation"], 1e-6)


def test_shared(file):
    encoder = ResnetEncoder(18).eval()
    encoder.load_state_dict(without_classifier(recipe("pose_shared", "encoder")))
    network = build_pose({"kind": "shared"}).eval()
    network.pose.load_state_dict(recipe("pose_shared", "pose"))
    with torch.no_grad():
        features = [encoder(image)[-1] for image in images(file)]
        axisangle, translation = network.raw(features)
    close(axisangle, file["pose_shared/axisangle"], 1e-6)
    close(translation, file["pose_shared/translation"], 1e-6)


def test_all_frames_in_one_stack_and_nothing_inverted():
    network = build_pose({"kind": "posecnn", "input": "all"})
    frames = {f: torch.full((1, 3, 64, 64), 0.1 * k) for k, f in enumerate((0, -1, 1))}
    seen = []
    network.pose.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    poses = network(frames)
    assert [pose.invert for pose in poses.values()] == [False, False]
    close(seen[0][0, ::3, 0, 0], torch.tensor([0.0, 0.1, 0.2]), 1e-7)
    rotations, _ = network.raw(list(frames.values()))
    assert torch.equal(poses[-1].axisangle, rotations[:, 0, 0])
    assert torch.equal(poses[1].axisangle, rotations[:, 1, 0])


def test_temporal_order():
    frames = {0: "target", -1: "before", 1: "after"}
    assert temporal_pair(frames, -1) == ["before", "target"]
    assert temporal_pair(frames, 1) == ["target", "after"]


def test_number_of_poses_of_each_kind():
    assert build_pose({}).pose.poses == 2
    assert build_pose({"kind": "shared"}).pose.poses == 1
    assert build_pose({"kind": "shared", "input": "all"}).pose.poses == 2
    assert build_pose({"kind": "posecnn", "input": "all"}).pose.poses == 2
    assert build_pose({"num_layers": 50}).pose.net[0].in_channels == 2048


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "resnet"}, "unknown kind of pose network"),
        ({"inputs": "all"}, "did you mean 'input'"),
        ({"input": "triples"}, "unknown input"),
        ({"num_layers": 20}, "num_layers"),
        ({"frames": 1}, "at least 2"),
    ],
)
def test_wrong_configurations_are_named(config, message):
    with pytest.raises(UsageError, match=message):
        build_pose(config)


def test_photometric_uncertainty(file):
    network = PhotometricUncertainty().eval()
    network.ph_uncert_enc.load_state_dict(without_classifier(recipe("sub_depth", "ph_uncert_enc")))
    network.ph_uncert_dec.load_state_dict(recipe("sub_depth", "ph_uncert_dec"))
    with torch.no_grad():
        sigma = torch.sigmoid(network(images(file)))
    close(sigma, file["sub_depth/photometric_uncert"], 2e-5)


def test_photometric_uncertainty_pairs_temporal_sources_and_falls_back_to_stereo():
    network = PhotometricUncertainty().eval()
    frames = {f: torch.rand(1, 3, 64, 64) for f in (0, -1, 1)}
    stereo = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert len(network.of_sources(frames, stereo)) == 2
        alone = network.of_sources({0: frames[0]}, stereo)
        assert len(alone) == 1
        assert torch.equal(alone[0], network([frames[0], stereo]))
