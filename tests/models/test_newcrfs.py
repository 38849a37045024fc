"""The whole network: against the reference, at any size, in any precision, with masks that are built once."""

import copy

import pytest

torch = pytest.importorskip("torch")

from adubench.errors import CheckpointError, UsageError  # noqa: E402
from adubench.models import encoders, windows  # noqa: E402
from adubench.models.newcrfs import NeWCRFs, level_channels  # noqa: E402
from adubench.models.variants import VARIANTS, variant_of  # noqa: E402
from adubench.models.weights.newcrfs import import_state  # noqa: E402
from adubench.models.zoo import build  # noqa: E402
from tests.models.newcrfs_golden import close, golden, redraw, weights  # noqa: E402

MINI = {"family": "newcrfs", "variant": "mini"}


@pytest.fixture(scope="module")
def mini():
    """The golden network and its arrays."""
    arrays = golden("mini_network")
    imported = import_state(weights(arrays, buffers=True))
    network = build(imported.config)
    network.load_state_dict(imported.state)
    return network.eval(), arrays


def _images(height, width, batch=1, channels=3, seed=0):
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("grad", [False, True], ids=["cached bias", "bias with gradient"])
@pytest.mark.parametrize("case", [0, 1])
def test_mini_network_is_the_references(mini, case, grad):
    network, arrays = mini
    with torch.set_grad_enabled(grad):
        out = network(arrays[f"x{case}"])
    for level, feature in enumerate(out.encoder):
        close(feature, arrays[f"feat{case}_{level}"], 1e-5)
    close(out.depth, arrays[f"depth{case}"], 1e-3)


def test_timms_window_order_is_another_network(mini):
    network, arrays = mini
    other = build(network.config | {"window_order": "timm"}).eval()
    other.load_state_dict(network.state_dict())
    assert other.config["window_order"] == "timm"
    with torch.no_grad():
        assert (other(arrays["x0"]).depth - arrays["depth0"]).abs().max() > 0.05


def test_timms_order_is_what_timm_computes():
    """Our blocks with `timm` order against timm's own code: the switch means what it says."""
    import timm

    theirs = timm.create_model(
        encoders.ANY_SWIN,
        features_only=True,
        strict_img_size=False,
        always_partition=True,
        embed_dim=8,
        depths=(2, 2, 2, 2),
        num_heads=(1, 2, 4, 8),
    ).eval()
    ours = encoders.SwinEncoder(VARIANTS["mini"], window_order="timm").eval()
    ours.backbone.load_state_dict(redraw(theirs).state_dict())
    x = _images(96, 160)
    for a, b in zip(ours.backbone(x), theirs(x), strict=True):
        close(a, b.detach(), 1e-4)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 31), (64, 96), (75, 126), (32, 224)])
def test_any_input_size_is_padded_and_cropped(mini, height, width):
    network, _ = mini
    x = _images(height, width, batch=2)
    with torch.no_grad():
        out = network(x)
        padded = torch.zeros(2, 3, -(-height // 32) * 32, -(-width // 32) * 32)
        padded[..., :height, :width] = x
        whole = network(padded)
    assert out.depth.shape == (2, 1, height, width)
    assert torch.equal(out.depth, whole.depth[..., :height, :width])


def test_depth_stays_inside_its_range(mini):
    network, _ = mini
    with torch.no_grad():
        depth = network.infer(10 * _images(64, 96)).depth
    assert depth.dtype == torch.float32
    assert depth.min() > 0
    assert depth.max() < 80


def test_a_batch_is_its_images_one_by_one(mini):
    network, _ = mini
    x = _images(64, 96, batch=3)
    with torch.no_grad():
        batch = network(x).depth
        single = torch.cat([network(image[None]).depth for image in x])
    close(batch, single, 1e-3)


def test_masks_and_biases_are_built_once_per_shape(monkeypatch):
    network = redraw(build(MINI)).eval()
    masks = []
    real = windows.build_shift_mask
    monkeypatch.setattr(windows, "build_shift_mask", lambda *size: masks.append(size) or real(*size))
    monkeypatch.setattr(windows, "_constants", type(windows._constants)())
    biases = [module.window_bias for module in network.modules() if hasattr(module, "window_bias")]
    assert [bias.shift for bias in biases] == [0, 3] * 8
    with torch.no_grad():
        first = network(_images(96, 160))
        built = len(masks)
        assert built == len(set(masks)) <= 4  # one per level, shared by all blocks of encoder and decoder
        for _ in range(3):
            again = network(_images(96, 160))
        assert len(masks) == built
        assert [bias.builds for bias in biases] == [1] * 16
        assert torch.equal(first.depth, again.depth)
        network(_images(256, 512))
        assert [bias.builds for bias in biases] == [1, 2] * 8, "another shape concerns shifted windows only"
    network.train()
    network(_images(96, 160))
    assert len(masks) <= 2 * built, "a training step takes its masks from the cache"


def test_a_cached_forward_computes_no_mask_and_no_bias():
    """Goal of the design: at most 700 device operations for the 32 blocks of large07, none of them for masks."""
    from collections import Counter

    from torch.utils._python_dispatch import TorchDispatchMode

    free = {"view", "_unsafe_view", "transpose", "permute", "slice", "unsqueeze", "t", "expand", "unbind", "select"}
    free |= {"as_strided", "alias", "detach", "empty", "split"}
    seen = Counter()

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen[func.overloadpacket.__name__] += 1
            return func(*args, **(kwargs or {}))

    network, x = redraw(build(MINI)).eval(), _images(96, 160)
    with torch.no_grad():
        network(x)
        with Count():
            network(x)
    assert not {"index", "arange", "ne", "masked_fill", "_softmax", "bmm"} & set(seen)
    device = sum(n for name, n in seen.items() if name not in free) + seen["constant_pad_nd"] + seen["roll"]
    outside_blocks = 60  # patch embedding, merging, pooling head, projections, norms, depth head
    assert device - outside_blocks <= 16 * (700 - outside_blocks) / 32


def test_a_cached_bias_never_outlives_its_table():
    network = redraw(build(MINI)).eval()
    x = _images(64, 96)
    with torch.no_grad():
        before = network(x).depth
        network.crf0.crf_layer.blocks[1].attn.relative_position_bias_table.mul_(-3)
        changed = network(x).depth
        assert not torch.equal(before, changed)
    with torch.enable_grad():
        close(network(x).depth, changed, 1e-4)
    with torch.no_grad():
        twin = redraw(copy.deepcopy(network), seed=1)
        assert not torch.equal(twin(x).depth, changed)
        assert torch.equal(network(x).depth, changed)
        network.double()
        close(network(x.double()).depth.float(), changed, 1e-4)


def test_evaluation_under_inference_mode_leaves_training_possible():
    network = redraw(build(MINI))
    with torch.inference_mode():
        network.eval()(_images(64, 128))
    network.train()(_images(64, 128)).depth.mean().backward()
    assert network.crf0.crf_layer.blocks[1].attn.relative_position_bias_table.grad is not None


def test_heads_stay_in_float32_under_autocast():
    network = redraw(build(MINI | {"uncertainty": {}})).eval()
    x = _images(64, 96)
    seen = []
    network.disp_head1.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.no_grad():
        exact = network(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = network(x)
    assert out.depth.dtype == out.s.dtype == out.s_quarter.dtype == torch.float32
    assert seen == [torch.float32] * 2
    assert out.decoder[1].dtype == torch.bfloat16 or out.encoder[0].dtype == torch.bfloat16, "autocast was on"
    assert (out.depth - exact.depth).abs().mean() < 1
    steps = out.depth.unique().diff()
    assert steps[steps > 0].min() < 1e-3, "depth was not rounded to bfloat16"


def test_a_network_stored_in_bfloat16_still_computes_its_heads_in_float32():
    network = redraw(build(MINI | {"uncertainty": {}})).eval().bfloat16()
    with torch.no_grad():
        out = network(_images(64, 96).bfloat16())
    assert out.depth.dtype == out.s.dtype == torch.float32


@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_parameter_learns_from_a_batch_of_one(checkpointing):
    config = MINI | {"uncertainty": {}, "activation_checkpointing": checkpointing, "drop_path": 0.0}
    network = redraw(build(config)).train()
    out = network(_images(64, 96))
    (out.depth.mean() + out.s.mean()).backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert silent == []


def test_activation_checkpointing_changes_no_number():
    x = _images(64, 96, batch=2)
    gradients = []
    for checkpointing in (False, True):
        network = redraw(build(MINI | {"activation_checkpointing": checkpointing})).train()
        torch.manual_seed(0)  # drop-path: the recomputation must repeat it
        out = network(x).depth
        out.log().mean().backward()
        gradients.append([out] + [p.grad for p in network.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        close(recomputed, plain.detach(), 1e-6)


def test_features_come_at_their_strides_and_widths():
    network = build(MINI)
    encoder, decoder = level_channels(network)
    with torch.no_grad():
        out = network(_images(64, 96))
    sizes = [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert [tuple(f.shape[1:]) for f in out.encoder] == [(c, *s) for c, s in zip(encoder, sizes, strict=True)]
    assert [tuple(f.shape[1:]) for f in out.decoder] == [(c, *s) for c, s in zip(decoder, sizes, strict=True)]
    assert (encoder, decoder) == ((8, 16, 32, 64), (8, 16, 32, 48))


def test_drop_path_grows_linearly_and_the_decoder_has_none():
    network = build(MINI | {"drop_path": 0.3})
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in network.encoder.blocks()]
    assert rates == pytest.approx([0.3 * i / 7 for i in range(8)])


def test_a_configuration_builds_the_same_network_again():
    config = {
        "family": "newcrfs",
        "variant": {"embed_dim": 8, "depths": [1, 1, 2, 1], "heads": [1, 1, 2, 2], "crf_widths": [8, 16, 16, 32]}
        | {"crf_heads": [1, 2, 2, 4], "psp_width": 8},
        "max_depth": 10.0,
        "uncertainty": {"scaling": "gain"},
        "window_order": "timm",
    }
    network = redraw(build(config)).eval()
    again = build(network.config).eval()
    again.load_state_dict(network.state_dict(), strict=True)
    assert again.config == network.config
    x = _images(40, 50)
    with torch.no_grad():
        assert torch.equal(again(x).depth, network(x).depth)


def test_the_state_dictionary_loads_strictly():
    network = build(MINI)
    state = network.state_dict()
    with pytest.raises(RuntimeError, match="Unexpected"):
        network.load_state_dict(state | {"module.x": torch.zeros(1)})
    del state["crf2.norm_crf.bias"]
    with pytest.raises(RuntimeError, match=r"crf2\.norm_crf\.bias"):
        network.load_state_dict(state)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"varient": "mini"}, "variant"),
        ({"variant": "tiny"}, "tiny07"),
        ({"variant": {"embed_dim": 8}}, "depths"),
        ({"variant": {"embed_dim": 9, "depths": [1] * 4, "heads": [2] * 4}}, "divide"),
        ({"variant": {"embed_dim": 8, "depths": [1] * 4, "heads": [1] * 4, "psp": 4}}, "psp_width"),
        ({"variant": {"embed_dim": 8, "depths": [1, 1], "heads": [1] * 4}}, "four positive integers"),
        ({"variant": 7}, "neither a name"),
        ({"in_channels": 4}, "3, 6"),
        ({"max_depth": -1}, "above 0"),
        ({"max_depth": True}, "number"),
        ({"drop_path": 1.0}, "below 1"),
        ({"window_order": "oficial"}, "official"),
        ({"fusion": "siamese_concat"}, "in_channels 6"),
        ({"uncertainty": {"scaling": "afine"}}, "affine"),
        ({"uncertainty": {"s_min": 2.0, "s_max": 1.0}}, "above 2"),
        ({"pretrained": 3}, "a file"),
        ({"pretrained": True}, "no ImageNet weights"),
    ],
)
def test_a_wrong_configuration_is_named(values, words):
    with pytest.raises(UsageError, match=words):
        build(MINI | values)


def test_a_timm_without_the_overridden_method_is_named(monkeypatch):
    from timm.models import swin_transformer

    monkeypatch.delattr(swin_transformer.SwinTransformerBlock, "_attn")
    with pytest.raises(RuntimeError, match="_attn"):
        build(MINI)


def _classifier_file(tmp_path, encoder, *, authors):
    """A Swin classifier file with the encoder's weights, in the naming of its authors or of timm."""
    from safetensors.torch import save_file

    state = {}
    for key, value in encoder.backbone.state_dict().items():
        key = key.replace("layers_", "layers.")
        if authors and ".downsample." in key:
            stage = int(key.split(".")[1])
            key = key.replace(f"layers.{stage}.", f"layers.{stage - 1}.")
        state[key] = value.contiguous()
    state |= {"norm.weight": torch.ones(64), "head.weight": torch.zeros(10, 64)}
    path = tmp_path / ("swin.pth" if authors else "swin.safetensors")
    if authors:
        torch.save({"model": state}, path)
    else:
        save_file(state, path)
    return path


@pytest.mark.parametrize("authors", [True, False], ids=["authors' naming", "timm's naming"])
def test_pretrained_weights_come_from_a_local_file(tmp_path, authors):
    source = redraw(build(MINI)).encoder
    network = build(MINI | {"pretrained": str(_classifier_file(tmp_path, source, authors=authors))})
    assert network.config["pretrained"] is False
    for key, value in source.backbone.state_dict().items():
        assert torch.equal(network.encoder.backbone.state_dict()[key], value), key
    assert all(torch.equal(norm.weight, torch.ones_like(norm.weight)) for norm in network.encoder.norms)


def test_a_teacher_takes_pretrained_weights_through_its_patch_init(tmp_path):
    source = redraw(build(MINI)).encoder
    path = str(_classifier_file(tmp_path, source, authors=True))
    kernel = source.patch_projection.weight
    teacher = build(MINI | {"pretrained": path, "in_channels": 6, "patch_init": "left_only"})
    assert torch.equal(teacher.encoder.patch_projection.weight, torch.cat([kernel, torch.zeros_like(kernel)], 1))
    assert torch.equal(teacher.encoder.patch_projection.bias, source.patch_projection.bias)


def test_pretrained_weights_of_another_size_are_refused(tmp_path):
    path = _classifier_file(tmp_path, build(MINI).encoder, authors=True)
    with pytest.raises(CheckpointError, match="check the variant"):
        build({"family": "newcrfs", "variant": "small", "pretrained": str(path)})
    with pytest.raises(CheckpointError, match="no checkpoint file"):
        build(MINI | {"pretrained": str(tmp_path / "absent.pth")})


def test_unreachable_pretrained_weights_are_one_sentence(monkeypatch):
    def offline(*_, **__):
        raise OSError("We couldn't connect to the hub\nand a long story")

    monkeypatch.setattr(encoders.timm, "create_model", offline)
    with pytest.raises(CheckpointError, match="go online once, or name a local file") as caught:
        encoders.SwinEncoder(VARIANTS["tiny07"], pretrained=True)
    assert "\n" not in str(caught.value)
    assert "ms_in22k" in str(caught.value)


def test_the_small_variant_is_small():
    with torch.device("meta"):
        network = build({"family": "newcrfs", "variant": "small"})
    assert sum(p.numel() for p in network.parameters()) < 5_000_000


def test_a_variant_is_named_by_its_name_where_it_has_one():
    assert [variant_of(name).to_config() for name in VARIANTS] == list(VARIANTS)
    assert isinstance(NeWCRFs(VARIANTS["mini"]).config["variant"], str)
