"""Goldens of the self-supervised depth networks, and their quirks."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from adubench.errors import CheckpointError, UsageError  # noqa: E402
from adubench.models import diffnet, hr_depth, monodepth2, sub_depth, zoo  # noqa: E402
from adubench.models.disparity import depth_to_disparity, disparity_to_depth, scaled_disparity  # noqa: E402
from adubench.models.hrnet import upsample_bilinearly_  # noqa: E402
from tests.self_supervised import arrays, close, recipe, weights, without_classifier  # noqa: E402

NETS = {
    "monodepth2": ({"family": "monodepth2"}, "disp"),
    "hr_depth": ({"family": "hr-depth"}, "disparity"),
    "hr_depth_lite": ({"family": "hr-depth-lite"}, "disparity"),
    "diffnet": ({"family": "diffnet"}, "disp"),
    "sub_depth": ({"family": "sub-depth"}, "disp"),
}


def load(net):
    """A full network with recipe weights, in evaluation mode."""
    network = zoo.build(NETS[net][0]).eval()
    encoder = without_classifier(recipe(net, "encoder"))
    if net == "diffnet":
        encoder = {f"encoder.{key}": value for key, value in encoder.items()}
    network.encoder.load_state_dict(encoder)
    network.depth.load_state_dict(recipe(net, "depth"))
    return network


def slow(*names):
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("net", ["hr_depth", "hr_depth_lite", "sub_depth", *slow("monodepth2", "diffnet")])
def test_full_network(net):
    file = arrays("networks")
    network = load(net)
    with torch.no_grad():
        out = network(file["image"][:1])
        inference = network.infer(file["image"][:1])
    flat = [map_ for entry in out.features for map_ in (entry if isinstance(entry, list) else [entry])]
    means = torch.stack([map_.abs().mean() for map_ in flat])
    close(means, file[f"{net}/feature_abs_mean"], 1e-4)
    close(torch.stack([map_[0, :4, 1, 1] for map_ in flat]), file[f"{net}/feature_first_values"], 1e-4)
    for scale, disparity in enumerate(out.disparities):
        close(disparity, file[f"{net}/{NETS[net][1]}_{scale}"], 2e-5)
    assert torch.equal(inference.disparity, out.disparities[0])
    if net == "sub_depth":
        for scale, logits in enumerate(out.uncertainty_logits):
            close(torch.sigmoid(logits), file[f"sub_depth/uncert_{scale}"], 2e-5)
        close(inference.uncertainty, file["sub_depth/uncert_0"], 2e-5)
    else:
        assert inference.uncertainty is None


def test_disparity_and_depth():
    file = arrays("disp_to_depth")
    close(scaled_disparity(file["disp"]), file["scaled_disp"], 1e-6, 1e-6)
    close(disparity_to_depth(file["disp"]), file["depth"], 1e-6, 1e-6)
    close(scaled_disparity(file["disp"], 1, 80), file["scaled_disp_1_80"], 1e-6, 1e-6)
    close(disparity_to_depth(file["disp"], 1, 80), file["depth_1_80"], 1e-6, 1e-6)
    close(depth_to_disparity(file["depth"]), file["disp_back"], 1e-6, 1e-6)


@pytest.mark.parametrize("name", ["monodepth2", "sub_depth", "photometric_uncertainty"])
def test_small_decoders(name):
    own = arrays(f"decoder_{name}")
    features = [arrays("decoder_monodepth2")[f"feature_{k}"] for k in range(5)]
    outputs, scales = {"monodepth2": (1, range(4)), "sub_depth": (2, range(4))}.get(name, (1, [0]))
    decoder = monodepth2.DepthDecoder((8, 8, 16, 24, 32), outputs, list(scales), (4, 6, 8, 12, 16))
    decoder.load_state_dict(weights(own))
    out = [torch.sigmoid(z) for z in decoder(features)]
    if name == "photometric_uncertainty":
        close(out[0], own["uncert"], 1e-5)
        return
    for scale in range(4):
        close(out[scale][:, :1], own[f"disp_{scale}"], 1e-5)
        if outputs == 2:
            close(out[scale][:, 1:], own[f"uncert_{scale}"], 1e-5)


def test_small_hr_depth_decoder_and_its_fusions():
    file = arrays("decoder_hr_depth")
    decoder = hr_depth.HRDepthDecoder((8, 8, 16, 32, 64), 1, (2, 4, 8, 16, 32))
    decoder.load_state_dict(weights(file))
    out = decoder([file[f"feature_{k}"] for k in range(5)])
    for scale in range(4):
        close(torch.sigmoid(out[scale]), file[f"disparity_Scale{scale}"], 1e-5)
    lows = [file[key] for key in sorted(file) if key.startswith("fse_X_22_low")]
    close(decoder.convs["X_22_attention"](file["fse_X_22_high"], lows), file["fse_X_22_out"], 1e-5)
    for source, node in (("X_10", "01"), ("X_12", "03")):
        lows = [file[key] for key in sorted(file) if key.startswith(f"fusion_{source}_low")]
        close(decoder.fuse(node, file[f"fusion_{source}_high"], lows), file[f"fusion_{source}_out"], 1e-5)


def test_the_second_convolution_of_a_node_is_named_after_its_high_input():
    decoder = hr_depth.HRDepthDecoder((64, 64, 128, 256, 512))
    assert "X_01_Conv_1" not in decoder.convs
    assert {"X_10_Conv_1", "X_11_Conv_1", "X_12_Conv_1"} <= set(decoder.convs)


def test_diffnet_attention():
    file = arrays("diffnet_attention")
    module = diffnet.Attention(32, 6)
    module.load_state_dict(weights(file))
    lows = [file[f"low_{k}"] for k in range(3)]
    close(module.gated(file["high"], lows), file["channel_attention"], 1e-5)
    close(module(file["high"], lows), file["out"], 1e-5)


def _hr_module():
    from timm.models.hrnet import HighResolutionModule
    from timm.models.resnet import BasicBlock

    return HighResolutionModule(3, BasicBlock, (1, 1, 1), [4, 8, 16], (4, 8, 16), "SUM")


@pytest.mark.parametrize("patched", [True, False])
def test_fusions_of_hrnet_are_bilinear_with_aligned_corners(patched):
    file = arrays("diffnet_hr_module")
    module = _hr_module().eval()
    if patched:
        assert upsample_bilinearly_(module) == 3
    module.load_state_dict(weights(file))
    with torch.no_grad():
        out = module([file[f"x_{i}"] for i in range(3)])
    error = max((out[i] - file[f"y_{i}"]).abs().max().item() for i in range(3))
    assert (error < 1e-5) is patched


def test_diffnet_changes_all_fusions_and_takes_raw_images():
    network = zoo.build({"family": "diffnet"})
    modes = [(m.mode, m.align_corners) for m in network.modules() if isinstance(m, torch.nn.Upsample)]
    assert modes == [("bilinear", True)] * 31
    seen = []
    network.encoder.encoder.conv1.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    network.eval()(image)
    assert torch.equal(seen[0], image)


@pytest.mark.parametrize("family", ["monodepth2", "hr-depth", "hr-depth-lite"])
def test_images_are_normalised_once_and_inside(family):
    network = zoo.build({"family": family}).eval()
    seen = []
    first = next(m for m in network.encoder.modules() if isinstance(m, torch.nn.Conv2d))
    first.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    network(image)
    close(seen[0], (image - 0.45) / 0.225, 1e-6)
    assert network.input_rule.mean == (0.0, 0.0, 0.0)
    assert network.input_rule.std == (1.0, 1.0, 1.0)


def test_excitation_comes_before_the_activation_in_the_lite_encoder():
    network = zoo.build({"family": "hr-depth-lite"})
    block = network.encoder.encoder["features"][4].conv
    assert [type(layer).__name__ for layer in block[4:7]] == ["BatchNorm2d", "SqueezeExcite", "ReLU"]
    assert [type(layer).__name__ for layer in network.encoder.encoder["features"][11].conv[5:7]] == [
        "SqueezeExcite",
        "Hardswish",
    ]


@pytest.mark.parametrize(
    ("family", "encoder", "decoder"),
    [("hr-depth", 11_176_512, 2_923_000), ("hr-depth-lite", 2_820_000, 296_000), ("diffnet", 9_560_000, 1_310_000)],
)
def test_parameters(family, encoder, decoder):
    network = zoo.build({"family": family})
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()}
    assert count["encoder"] == pytest.approx(encoder, rel=5e-3)
    assert count["depth"] == pytest.approx(decoder, rel=5e-3)


def test_monodepth2_has_the_published_number_of_parameters():
    assert sum(p.numel() for p in zoo.build({"family": "monodepth2"}).depth.parameters()) == 3_152_724


def test_never_used_blocks_of_hr_depth_get_no_gradient_but_are_there():
    network = zoo.build({"family": "hr-depth"})
    sum(d.sum() for d in network(torch.rand(1, 3, 64, 64)).disparities).backward()
    unused = {name.split(".")[1] for name, p in network.depth.named_parameters() if p.grad is None}
    assert unused == {"X_00_Conv_0", "X_01_Conv_0", "X_02_Conv_0", "X_03_Conv_0"}


@pytest.mark.parametrize(("height", "width"), [(32, 640), (192, 100), (200, 640)])
def test_sizes_the_padding_cannot_take_are_refused(height, width):
    with pytest.raises(UsageError, match="multiples of 32 and at least 64"):
        zoo.build({"family": "monodepth2", "height": height, "width": width})
    with pytest.raises(UsageError, match=f"{height}x{width}"):
        zoo.build({"family": "diffnet"})(torch.zeros(1, 3, height, width))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"family": "monodepth2", "num_layer": 18}, "did you mean 'num_layers'"),
        ({"family": "monodepth2", "num_layers": 20}, "ResNet-20"),
        ({"family": "monodepth2", "scales": [1, 2]}, "with 0"),
        ({"family": "monodepth2", "input_images": 6}, "6 input images: expected 1 to 5"),
        ({"family": "monodepth2", "min_depth": 5, "max_depth": 1}, "0 < min_depth < max_depth"),
        ({"family": "sub-depth", "base": "monodepth"}, "did you mean 'monodepth2'"),
        ({"family": "hr-depth-lite", "pretrained": True}, "no ImageNet weights"),
    ],
)
def test_wrong_configurations_are_named(config, message):
    with pytest.raises(UsageError, match=message):
        zoo.build(config)


@pytest.mark.parametrize("base", ["hr-depth-lite", *slow("monodepth2", "hr-depth", "diffnet")])
def test_sub_depth_of_every_base_and_its_teacher(base):
    config = {"family": "sub-depth", "base": base, "height": 64, "width": 96}
    student = zoo.build(config)
    out = student.eval()(torch.rand(2, 3, 64, 96))
    assert out.disparities[0].shape == out.uncertainty_logits[0].shape == (2, 1, 64, 96)
    assert student.uncertainty_kind == "b"
    teacher = zoo.build(sub_depth.teacher_config(student.config))
    assert teacher.family == base
    assert teacher.uncertainty_kind is None
    assert zoo.build(student.config).state_dict().keys() == student.state_dict().keys()


def test_what_the_predictor_needs():
    network = zoo.build({"family": "monodepth2", "height": 320, "width": 1024, "use_stereo": True})
    rule = network.input_rule
    assert (rule.size, rule.resample, rule.channels) == ((320, 1024), "lanczos", 3)
    assert (network.output, network.flip, network.depth_range, network.depth_scale) == (
        "disparity",
        "none",
        (0.1, 100.0),
        5.4,
    )


@pytest.mark.parametrize("layers", [34, *slow(50)])
def test_other_depths_and_several_images(layers):
    network = zoo.build({"family": "monodepth2", "num_layers": layers, "input_images": 2}).eval()
    assert network.input_rule.channels == 6
    assert network(torch.rand(1, 6, 64, 64)).disparities[3].shape == (1, 1, 8, 8)


@pytest.mark.parametrize(
    ("layers", "images"), [(18, 1), (18, 2), *(pytest.param(50, n, marks=pytest.mark.slow) for n in (1, 3))]
)
def test_the_encoder_is_torchvisions(layers, images):
    """Official files have torchvision's names behind `encoder.`, and its features at five places."""
    models = pytest.importorskip("torchvision.models")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(layers)
        theirs = getattr(models, f"resnet{layers}")(weights=None).eval()
        theirs.conv1 = torch.nn.Conv2d(3 * images, 64, 7, 2, 3, bias=False)
        x = torch.rand(1, 3 * images, 64, 96)
    ours = monodepth2.ResnetEncoder(layers, images).eval()
    ours.load_state_dict(without_classifier({f"encoder.{key}": value for key, value in theirs.state_dict().items()}))
    with torch.no_grad():
        features = [theirs.relu(theirs.bn1(theirs.conv1((x - 0.45) / 0.225)))]
        y = theirs.maxpool(features[0])
        for k in range(1, 5):
            y = getattr(theirs, f"layer{k}")(y)
            features.append(y)
        found = ours(x)
    assert [tuple(f.shape) for f in found] == [tuple(f.shape) for f in features]
    for one, two in zip(found, features, strict=True):
        close(one, two, 1e-5, 1e-5)


def test_pretrained_kernels_are_repeated_and_divided_for_several_images(tmp_path):
    from safetensors.torch import save_file

    state = {k: v.contiguous() for k, v in monodepth2.ResnetEncoder(18).encoder.state_dict().items()}
    save_file(state, tmp_path / "r18.safetensors")
    pair = monodepth2.ResnetEncoder(18, 2, str(tmp_path / "r18.safetensors"))
    kernel = state["conv1.weight"]
    close(pair.encoder.state_dict()["conv1.weight"], torch.cat([kernel, kernel], 1) / 2, 1e-7)


@pytest.mark.parametrize("family", ["monodepth2", "diffnet", "hr-depth-lite"])
def test_missing_and_foreign_weight_files_are_named(family, tmp_path):
    path = tmp_path / "weights.safetensors"
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        zoo.build({"family": family, "pretrained": str(path)})
    path.write_bytes(b"not weights")
    with pytest.raises(CheckpointError):
        zoo.build({"family": family, "pretrained": str(path)})
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"missing|not weights of"):
        zoo.build({"family": family, "pretrained": str(path)})
