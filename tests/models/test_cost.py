"""The formulas against the networks themselves, built without memory."""

import pytest

from adubench.models.cost import (
    adapter_flops,
    adapter_keys,
    level_sizes,
    newcrfs_flops,
    newcrfs_parameters,
    saved_activations,
    training_memory,
)

PUBLISHED = {  # variant: parameters, GFLOP at 352x1120, of which the encoder, GFLOP at 352x1216
    "tiny07": (88_455_283, 198.747, 75.360, 218),
    "base07": (139_981_297, 364.463, 261.954, 399),
    "large07": (270_444_877, 732.842, 584.891, 801.738),
}
CONFIGS = [
    {"variant": "mini"},
    {"variant": "small"},
    {"variant": "micro"},
    {"variant": "mini", "uncertainty": {}},
    {"variant": "mini", "uncertainty": {"scaling": "gain"}},
    {"variant": "mini", "in_channels": 6},
    {"variant": "mini", "in_channels": 6, "fusion": "siamese_concat"},
    {"variant": "mini", "in_channels": 6, "fusion": "siamese_corr"},
    {"variant": "mini", "in_channels": 6, "fusion": "epipolar_attention"},
    {"variant": "tiny07"},
    pytest.param({"variant": "base07"}, marks=pytest.mark.slow),
    pytest.param({"variant": "large07"}, marks=pytest.mark.slow),
]


def _on_meta(config, height, width):
    torch = pytest.importorskip("torch")
    from adubench.models.zoo import build

    with torch.device("meta"):
        network = build({"family": "newcrfs", **config})
        return network, torch.empty(1, network.input_rule.channels, height, width)


@pytest.mark.parametrize("variant", PUBLISHED)
def test_formulas_give_the_published_numbers(variant):
    parameters, total, encoder, wide = PUBLISHED[variant]
    assert sum(newcrfs_parameters({"variant": variant}).values()) == parameters
    flops = newcrfs_flops({"variant": variant}, 352, 1120)
    assert sum(flops.values()) / 1e9 == pytest.approx(total, abs=6e-4)
    assert (flops["patch_embedding"] + flops["swin"] + flops["merging"]) / 1e9 == pytest.approx(encoder, abs=6e-4)
    assert sum(newcrfs_flops({"variant": variant}, 352, 1216).values()) / 1e9 == pytest.approx(wide, rel=2e-3)


def test_flops_of_an_unpadded_size_follow_the_published_formula():
    flops = newcrfs_flops({"variant": "large07"}, 375, 1242, multiple=4)
    assert sum(flops.values()) / 1e9 == pytest.approx(882.836, abs=6e-4)
    assert sum(newcrfs_flops({"variant": "large07"}, 375, 1242).values()) > sum(flops.values())


def test_uncertainty_and_a_six_channel_teacher_cost_almost_nothing():
    plain = newcrfs_flops({}, 352, 1120)
    assert newcrfs_flops({"uncertainty": {}}, 352, 1120)["uncertainty_head"] / 1e9 == pytest.approx(0.057, abs=1e-3)
    assert plain["depth_head"] < 1e-3 * sum(plain.values())
    teacher = newcrfs_flops({"in_channels": 6}, 352, 1120)
    assert (sum(teacher.values()) - sum(plain.values())) / 1e9 == pytest.approx(0.45, abs=0.01)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_parameters_of_the_built_network_equal_the_formula(config):
    network, _ = _on_meta(config, 64, 96)
    parts = newcrfs_parameters(config)
    assert sum(p.numel() for p in network.parameters()) == sum(parts.values())
    assert sum(p.numel() for p in network.encoder.parameters()) == parts["encoder"]
    assert sum(p.numel() for p in network.crf3.parameters()) == parts["crf3"]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_counted_flops_of_the_built_network_equal_the_formula(config):
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    network, images = _on_meta(config, 100, 200)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(images)
    assert counter.get_total_flops() == sum(newcrfs_flops(config, 100, 200).values())


@pytest.mark.parametrize("variant", ["mini", "small", "tiny07", pytest.param("large07", marks=pytest.mark.slow)])
def test_the_memory_estimate_is_near_what_autograd_keeps(variant):
    torch = pytest.importorskip("torch")
    network, images = _on_meta({"variant": variant}, 352, 1120)
    known = {p.untyped_storage()._cdata for p in network.parameters()}
    kept = {}

    def keep(tensor):
        if tensor.untyped_storage()._cdata not in known:
            kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network.train()(images)
    measured = sum(storage.nbytes() for storage in kept.values())
    assert 4 * saved_activations({"variant": variant}, 352, 1120, fused=False) == pytest.approx(measured, rel=0.05)


def test_memory_estimates_are_near_the_published_ones():
    assert 4 * saved_activations({"variant": "large07"}, 352, 1120) == pytest.approx(3.83e9, rel=0.1)
    assert 4 * saved_activations({"variant": "tiny07"}, 352, 1120) == pytest.approx(1.83e9, rel=0.1)
    light = saved_activations({"variant": "large07", "activation_checkpointing": True}, 352, 1120)
    assert light < 0.2 * saved_activations({"variant": "large07"}, 352, 1120)
    memory = training_memory({}, 352, 1120, batch_size=2, activation_bytes=2, frozen_config={"in_channels": 6})
    assert memory.weights == 16 * 270_444_877
    assert memory.total == memory.weights + memory.frozen + memory.activations


def test_adapter_costs_are_the_published_ones():
    levels = list(zip(level_sizes(352, 1120), (192, 384, 768, 1536), strict=True))

    def attention(mode):
        return [round(adapter_flops(size, c, mode)["attention"] / 1e9, 2) for size, c in levels]

    assert attention("full") == [466.28, 58.28, 7.29, 0.91]
    assert attention("auto") == [29.14, 58.28, 7.29, 0.91]
    assert attention("window") == [0.93, 0.46, 0.23, 0.12]
    assert adapter_keys(levels[0][0], "auto") == ("reduced", 1540)
    assert adapter_keys(levels[1][0], "auto") == ("full", 6160)
    assert adapter_flops(levels[0][0], 192)["projections"] / 1e9 == pytest.approx(7.3, abs=0.05)
