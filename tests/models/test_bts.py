"""BTS against the reference's numbers, its focal scaling, and its size rule."""

import pytest

torch = pytest.importorskip("torch")

from adubench.errors import DataError, UsageError  # noqa: E402
from adubench.models import bts  # noqa: E402
from adubench.models.bts_parts import PlaneHead, local_planar_guidance  # noqa: E402
from tests.models.tie_kd_golden import assert_near, fill, load, weights  # noqa: E402

OUTPUTS = {"lpg8_scaled": "scaled8", "lpg4_scaled": "scaled4", "lpg2_scaled": "scaled2", "reduc1x1": "reduced"}


@pytest.mark.parametrize("factor", [8, 4, 2])
def test_local_planar_guidance(factor):
    golden = load("bts_lpg.npz")
    depth = local_planar_guidance(torch.from_numpy(golden[f"lpg{factor}_plane"]), factor)
    assert_near(depth[:, 0], golden[f"lpg{factor}_depth"], 1e-5)


@pytest.mark.parametrize(("prefix", "width", "final"), [("reduc", 16, False), ("reduc_final", 8, True)])
def test_plane_head(prefix, width, final):
    golden = load("bts_lpg.npz")
    head = PlaneHead(16, width, 80.0, final=final)
    head.load_state_dict(weights(golden, f"{prefix}_w__"))
    with torch.no_grad():
        assert_near(head(torch.from_numpy(golden["reduc_x"])), golden[f"{prefix}_out"], 1e-5)


def test_decoder():
    golden = load("bts_decoder_tiny.npz")
    decoder = bts.BTSDecoder([8, 8, 8, 16, 16], width=128).eval()
    missing, unexpected = decoder.load_state_dict(weights(golden), strict=False)
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)
    with torch.no_grad():
        output = decoder([torch.from_numpy(golden[f"feat{i}"]) for i in range(5)])
    for name, field in OUTPUTS.items():
        assert_near(getattr(output, field)[..., ::4, ::4], golden[name], 1e-5)
    assert_near(output.depth * (float(golden["focal"]) / 715.0873), golden["depth"], 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["resnet50", "densenet161"])
def test_whole_network(encoder):
    golden = load("bts_full.npz")
    network = fill(bts.build({"encoder": encoder}), int(golden["fill_seed"]))
    image, focal = torch.from_numpy(golden["image"]), torch.from_numpy(golden["focal"])
    with torch.no_grad():
        output = network(image, focal)
        inferred = network.infer(image, focal=focal).depth
    for name, field in OUTPUTS.items():
        assert_near(getattr(output, field)[..., ::4, ::4], golden[f"{encoder}_bts_{name}"], 1e-4)
    assert_near(output.depth, golden[f"{encoder}_bts_depth"], 1e-4)
    assert_near(inferred, golden[f"{encoder}_bts_depth"], 1e-4)


def constant(config, raw=100.0):
    """A network whose decoder answers one depth before the focal length comes in."""
    with torch.device("meta"):
        network = bts.build({"width": 128, **config})
    network.encoder.forward = lambda images: images

    def decode(images):
        one = torch.full((images.shape[0], 1, *images.shape[-2:]), raw)
        return bts.BTSOutput(one, one, one, one, one)

    network.decoder.forward = decode
    return network


@pytest.mark.parametrize(
    ("config", "focal", "expected"),
    [
        ({}, 715.0873, 100.0),
        ({}, 721.5377, 100.0 * 721.5377 / 715.0873),
        ({}, None, 100.0),
        ({"dataset": "nyu", "max_depth": 10.0}, 721.5377, 100.0),
        ({"layout": "toolbox"}, 721.5377, 80.0),
    ],
)
def test_only_official_kitti_weights_scale_and_only_the_toolbox_clamps(config, focal, expected):
    network = constant(config)
    value = None if focal is None else torch.tensor([focal])
    depth = network.infer(torch.zeros(1, 3, 32, 64), focal=value).depth
    assert torch.allclose(depth, torch.tensor(expected))


def test_flip_and_focal_rules():
    official, toolbox, nyu = (constant(c) for c in ({}, {"layout": "toolbox"}, {"dataset": "nyu"}))
    assert (official.flip, official.depth_range, official.input_rule.needs_focal) == ("none", None, True)
    assert (toolbox.flip, toolbox.depth_range, toolbox.input_rule.needs_focal) == ("mean", (0.001, 80.0), False)
    assert (nyu.flip, nyu.input_rule.needs_focal) == ("none", False)
    assert official.decoder.get_depth[0].bias is None
    assert toolbox.decoder.get_depth[0].bias is not None


def test_sizes_that_are_no_multiples_of_32():
    with pytest.raises(DataError, match=r"375x1242.*multiples of 32.*resize=true"):
        constant({}).infer(torch.zeros(1, 3, 375, 1242))
    assert constant({"resize": True}).infer(torch.zeros(1, 3, 40, 50)).depth.shape == (1, 1, 40, 50)


def test_planes_are_not_clamped():
    """At 60 degrees the corner of an 8 x 8 patch lies behind the plane: the reference answers a negative depth."""
    plane = torch.tensor([-(0.75**0.5) / 2**0.5, -(0.75**0.5) / 2**0.5, 0.5, 10.0]).reshape(1, 4, 1, 1)
    depth = local_planar_guidance(plane, 8)
    assert float(depth.min()) < 0


@pytest.mark.parametrize("name", ["resnet101", "resnext50", "densenet121"])
def test_the_other_encoders_have_the_channels_the_decoder_expects(name):
    with torch.device("meta"):
        encoder = bts.BTSEncoder(name)
        taps = encoder(torch.zeros(1, 3, 64, 64))
    assert [tap.shape[1] for tap in taps] == list(bts.ENCODERS[name][1])
    assert [64 // tap.shape[2] for tap in taps] == [2, 4, 8, 16, 32]


def test_frozen_parts():
    with torch.device("meta"):
        network = bts.build({"width": 128})
    network.freeze_as_published()
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert "encoder.base_model.conv1.weight" in frozen
    assert "encoder.base_model.layer4.2.bn3.bias" in frozen
    assert "encoder.base_model.layer1.0.conv1.weight" not in frozen
    assert not any(name.startswith("decoder.") for name in frozen)


@pytest.mark.parametrize(
    ("config", "message"),
    [({"encoder": "resnet34"}, "resnet"), ({"width": 100}, "multiple of 128"), ({"resize": [1, 2]}, "resize")],
)
def test_wrong_configurations_are_named(config, message):
    with pytest.raises(UsageError, match=message):
        bts.build(config)
