"""TIE-KD's students: the decode heads and whole networks against the reference's numbers, sizes, configuration."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from adubench.errors import DataError, UsageError  # noqa: E402
from adubench.models.densedepth import (  # noqa: E402
    STUDENTS,
    DenseDepthHead,
    bin_centres,
    bin_edges,
    build,
    student_encoder,
)
from tests.models.tie_kd_golden import ROOT, assert_near, fill, filled, load, weights  # noqa: E402


def test_the_weight_recipe_itself():
    for case in json.loads((ROOT / "fill_check.json").read_text()):
        values = filled(case["name"], case["shape"], case["fill_seed"])
        assert_near(values.ravel()[:5], np.array(case["first5"]), 1e-6)
        assert values.astype(np.float64).sum() == pytest.approx(case["sum"], rel=1e-5)


def head(kind, blocks):
    golden = load("densedepth_head_tiny.npz")
    module = DenseDepthHead(
        [3, 4, 5, 6], [128, 12, 10, 8], blocks=blocks, head=kind, n_bins=16, min_depth=0.001, max_depth=80.0
    )
    assert not module.load_state_dict(weights(golden), strict=False).missing_keys
    with torch.no_grad():
        return golden, module([torch.from_numpy(golden[f"feat{i}"]) for i in range(4)])


@pytest.mark.parametrize("blocks", [1, 2])
def test_dpm_head(blocks):
    golden, output = head("dpm", blocks)
    assert_near(output.edges, golden["bin_edges"], 1e-5)
    assert_near(output.depth, golden[f"up{blocks}_depth"], 1e-5)
    if blocks == 2:
        assert_near(output.probs[:, :, 7], golden["up2_probs_y7"], 1e-5)
    else:
        assert_near(output.probs, golden["up1_probs"], 1e-5)


def test_regression_heads():
    golden, two = head("regression", 2)
    assert_near(two.depth[..., ::2, ::2], golden["reg_up2_depth"], 1e-5)
    assert_near(head("regression", 1)[1].depth, golden["reg_up1_depth"], 1e-5)
    assert_near(head("relu", 0)[1].depth, golden["reg_up0_relu_depth"], 1e-5)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n != "resnet18" else n for n in STUDENTS])
def test_whole_student(name):
    golden = load("students_full.npz")
    image = torch.from_numpy(golden["image"])
    network = fill(build({"encoder": name}), int(golden["fill_seed"]))
    with torch.no_grad():
        for i, feature in enumerate(network.encoder(image)):
            assert feature.shape[1] == STUDENTS[name].channels[i]
            assert_near(feature[:, ::16], golden[f"{name}_feat{i}"], 1e-4)
        output = network(image)
        assert_near(output.depth, golden[f"{name}_depth"], 1e-4)
        assert_near(output.probs[:, :, 37, ::12], golden[f"{name}_probs_row"], 1e-4)
        assert_near(network.infer(image).depth, golden[f"{name}_depth"], 1e-4)


@pytest.mark.parametrize("name", ["resnet18", pytest.param("mobilenetv2", marks=pytest.mark.slow)])
def test_whole_regression_student(name):
    golden = load("students_full.npz")
    network = fill(build({"encoder": name, "head": "regression"}), int(golden["fill_seed"]))
    with torch.no_grad():
        assert_near(network(torch.from_numpy(golden["image"])).depth, golden[f"{name}_reg_depth"], 1e-4)


# Published trainable parameters; the release counts layers it never uses: the 3x3 depth layer, and the second
# full-resolution block of the ResNets.
UNUSED_DEPTH, UNUSED_BLOCK = 128 * 9 + 1, 2 * (128 * 128 * 9 + 128)


@pytest.mark.parametrize(
    ("name", "encoder", "decoder"),
    [
        ("mobilenetv2", 1_811_712, 15_835_906 - UNUSED_DEPTH),
        ("resnet18", 11_176_512, 5_607_426 - UNUSED_DEPTH - UNUSED_BLOCK),
        ("resnet50", 23_508_032, 54_886_146 - UNUSED_DEPTH - UNUSED_BLOCK),
    ],
)
def test_parameters(name, encoder, decoder):
    with torch.device("meta"):
        network = build({"encoder": name})
    assert sum(p.numel() for p in network.encoder.parameters()) == encoder
    assert sum(p.numel() for p in network.decode_head.parameters()) == decoder


def test_bins_cover_the_range_uniformly():
    edges = bin_edges(257, 0.001, 80)
    assert edges.shape == (258,)
    assert float(edges[0]) == pytest.approx(0.001)
    assert float(edges[-1]) == 80
    centres = bin_centres(edges)
    assert float(centres[0]) == pytest.approx(0.15664, abs=1e-5)
    assert float(centres[-1]) == pytest.approx(79.84436, abs=1e-5)


def test_mobilenet_dilates_the_first_block_of_a_stage_not_the_rest():
    """timm's output_stride=8 does the opposite; the reference's features come out of this."""
    stages = student_encoder("mobilenetv2").blocks
    assert [stage[0].conv_dw.dilation[0] for stage in stages] == [1, 1, 1, 2, 2, 4, 4][: len(stages)]
    assert [stage[0].conv_dw.stride[0] for stage in stages] == [1, 2, 2, 1, 1, 1, 1][: len(stages)]
    assert all(block.conv_dw.dilation == (1, 1) for stage in stages for block in list(stage)[1:])


def test_the_decoder_starts_from_he_normal_weights_and_the_output_layers_from_torchs():
    torch.manual_seed(0)
    decoder = DenseDepthHead(
        [16, 32], [128, 64], blocks=1, head="dpm", n_bins=64, min_depth=0.001, max_depth=80.0
    )  # fmt: skip
    decoder.requires_grad_(requires_grad=False)
    conv = decoder.upsample_custom.convA.conv
    first = decoder.conv_list[1].convA.conv  # 80 -> 128 channels: fan in and fan out differ
    assert float(first.weight.std()) == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert float(conv.weight.std()) == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert float(first.bias.abs().max()) == float(conv.bias.abs().max()) == 0
    output = decoder.conv_out[0]
    assert float(output.bias.abs().max()) > 0
    assert float(output.weight.abs().max()) <= 128**-0.5


@pytest.mark.parametrize(("h", "w"), [(33, 47), (32, 64), (30, 50)])
def test_inference_answers_at_the_size_of_the_input(h, w):
    network = build({"encoder": "resnet18", "n_bins": 9}).eval()
    images = torch.randn(1, 3, h, w, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert network(images).depth.shape[-2:] == (2 * -(-h // 2), 2 * -(-w // 2))
        depth = network.infer(images).depth
    assert depth.shape == (1, 1, h, w)
    assert 0.001 <= float(depth.min()) <= float(depth.max()) <= 80


def test_regression_is_clamped_in_inference_only():
    network = build({"encoder": "resnet18", "head": "regression", "min_depth": 79.0, "max_depth": 80.0}).eval()
    images = torch.zeros(1, 3, 32, 32)
    with torch.no_grad():
        assert float(network(images).depth.max()) < 79
        assert float(network.infer(images).depth.min()) == 79


def test_training_refuses_sizes_whose_output_is_larger():
    network = build({"encoder": "resnet18", "n_bins": 9}).train()
    with pytest.raises(DataError, match="multiples of 2"):
        network(torch.zeros(2, 3, 33, 64))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"encoder": "resnet19"}, "resnet18"),
        ({"head": "bins"}, "bins"),
        ({"n_bin": 3}, "n_bins"),
        ({"n_bins": 1}, "at least 2"),
        ({"min_depth": 80}, "min_depth < max_depth"),
        ({"family": "bts"}, "densedepth"),
    ],
)
def test_wrong_configurations_are_named(config, message):
    with pytest.raises(UsageError, match=message):
        build(config)


def test_head_stays_in_float32_under_autocast():
    network = build({"encoder": "resnet18", "n_bins": 9}).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(torch.zeros(1, 3, 32, 32))
    assert output.depth.dtype == output.probs.dtype == torch.float32
    assert torch.allclose(output.probs.sum(1), torch.ones(1, 32, 32), atol=1e-6)
