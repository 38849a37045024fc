"""AdaBins against the reference's numbers, its size limits, and what inference does after the network."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from adubench.errors import DataError, UsageError  # noqa: E402
from adubench.models import adabins  # noqa: E402
from adubench.models.mini_vit import MiniViT, bins_to_depth  # noqa: E402
from tests.models.tie_kd_golden import assert_near, fill, load, weights  # noqa: E402


@pytest.mark.parametrize(("name", "high"), [("kitti", 80), ("nyu", 10)])
def test_bins_to_depth(name, high):
    golden = load("adabins_bins_to_depth.npz")
    widths, logits = torch.from_numpy(golden["bin_widths_normed"]), torch.from_numpy(golden["logits"])
    edges, depth = bins_to_depth(widths, logits, 0.001, high)
    assert_near(edges, golden[f"{name}_bin_edges"], 1e-6)
    assert_near(depth, golden[f"{name}_depth"], 1e-6)


def test_decoder():
    golden = load("adabins_decoder_tiny.npz")
    decoder = adabins.AdaBinsDecoder(bottleneck=16, width=64, out_channels=8).eval()
    missing, unexpected = decoder.load_state_dict(weights(golden), strict=False)
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)
    with torch.no_grad():
        assert_near(decoder([torch.from_numpy(golden[f"feat{i}"]) for i in (4, 5, 6, 8, 11)]), golden["out"], 1e-5)


@pytest.mark.parametrize("norm", ["linear", "softmax", "sigmoid"])
def test_mini_vit(norm):
    golden = load("adabins_mvit_tiny.npz")
    module = MiniViT(8, n_bins=9, queries=6, patch=4, width=16, norm=norm).eval()
    module.load_state_dict(weights(golden))
    with torch.no_grad():
        widths, maps = module(torch.from_numpy(golden["x"]))
    assert_near(widths, golden[f"widths_{norm}"], 1e-5)
    assert_near(maps, golden["range_attention_maps"], 1e-5)


@pytest.mark.slow
def test_whole_network_and_inference():
    golden = load("adabins_full.npz")
    network = fill(adabins.build({}), int(golden["fill_seed"]))
    image = torch.from_numpy(golden["image"])
    with torch.no_grad():
        assert_near(network.decoder(network.encoder(image))[:, ::16, ::8, ::8], golden["unet_sample"], 1e-4)
        output = network(image)
        assert_near(output.edges, golden["bin_edges"], 1e-4)
        assert_near(output.depth, golden["depth"], 1e-4)
        network.forward = lambda images: output
        inferred = network.infer(image).depth
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(golden["depth"]).clamp(0.001, 80), (192, 704), mode="bilinear", align_corners=True
    )
    assert_near(inferred, expected.numpy(), 1e-4)


def test_the_official_network_has_973_tensors():
    with torch.device("meta"):
        assert len(adabins.build({}).state_dict()) == 973


def test_it_starts_from_the_weights_of_its_paper(monkeypatch):
    """timm's bare name `tf_efficientnet_b5` stands for other weights."""
    import timm

    asked = []
    real = timm.create_model
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda name, **options: asked.append(name) or real(name, **options | {"pretrained": False}),
    )
    with torch.device("meta"):
        adabins.build({"pretrained": True})
    assert asked == ["tf_efficientnet_b5.ap_in1k"]
    assert real(asked[0], pretrained=False, num_classes=0).pretrained_cfg["tag"] == "ap_in1k"


def test_the_last_tap_lies_before_norm_and_activation():
    with torch.device("meta"):
        encoder = adabins.AdaBinsEncoder()
        model = encoder.original_model
        model.bn2.forward = lambda x: (_ for _ in ()).throw(AssertionError("bn2 is in the file and never used"))
        taps = encoder(torch.zeros(1, 3, 96, 160))
    assert [tap.shape[1] for tap in taps] == [24, 40, 64, 176, 2048]
    assert [96 // tap.shape[2] for tap in taps] == [2, 4, 8, 16, 32]
    assert model.bn2.eps == 1e-3


def test_only_the_official_bottleneck_convolution_pads():
    x = [torch.zeros(1, c, s, s) for c, s in ((24, 16), (40, 8), (64, 4), (176, 2), (16, 1))]
    official = adabins.AdaBinsDecoder(bottleneck=16, width=64, out_channels=8)
    toolbox = adabins.AdaBinsDecoder(bottleneck=16, width=64, out_channels=8, toolbox=True)
    assert official.conv2(x[4]).shape[-2:] == (3, 3)
    assert toolbox.conv2(x[4]).shape[-2:] == (1, 1)
    assert toolbox.up1._net[0].bias is None
    assert isinstance(toolbox.up1._net[2], torch.nn.ReLU)
    assert official.up1._net[2].negative_slope == 0.01
    assert official.eval()(x).shape == toolbox.eval()(x).shape == (1, 8, 16, 16)


@pytest.mark.parametrize(("h", "w"), [(352, 1216), (352, 704), (480, 640), (192, 704), (375, 1242)])
def test_sizes_it_takes(h, w):
    adabins.check_size(h, w)


@pytest.mark.parametrize(("h", "w"), [(128, 416), (256, 512), (512, 1216)])
def test_sizes_it_refuses(h, w):
    with pytest.raises(DataError, match=rf"{h}x{w}.*129 to 500.*resize=\[H, W\]"):
        adabins.check_size(h, w)


def half_answer(network, value):
    """Replace the network by one that answers `value` at half resolution, as the real one would."""

    def forward(images):
        h, w = (-(-v // 2) for v in images.shape[-2:])
        return adabins.AdaBinsOutput(None, torch.full((1, 1, h, w), value))

    network.forward = forward
    return network


@pytest.mark.parametrize(
    ("value", "expected"), [(90.0, 80.0), (0.0, 0.001), (np.nan, 0.001), (np.inf, 80.0), (7.0, 7.0)]
)
def test_inference_clamps_and_answers_at_the_input_size(value, expected):
    with torch.device("meta"):
        network = adabins.build({})
    depth = half_answer(network, value).infer(torch.zeros(1, 3, 201, 701)).depth
    assert depth.shape == (1, 1, 201, 701)
    assert torch.allclose(depth, torch.tensor(expected))


def test_inference_resizes_on_request():
    with torch.device("meta"):
        network = adabins.build({"resize": [352, 704]})
    seen = []

    def forward(images):
        seen.append(images.shape[-2:])
        return adabins.AdaBinsOutput(None, torch.ones(1, 1, 176, 352))

    network.forward = forward
    assert network.infer(torch.zeros(1, 3, 64, 96)).depth.shape == (1, 1, 64, 96)
    assert seen == [(352, 704)]


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"layout": "mm"}, UsageError, "toolbox"),
        ({"resize": 352}, UsageError, "height, width"),
        ({"resize": [32, 32]}, DataError, "129 to 500"),
        ({"bins": 3}, UsageError, "n_bins"),
    ],
)
def test_wrong_configurations_are_named(config, error, message):
    with pytest.raises(error, match=message):
        adabins.build(config)
