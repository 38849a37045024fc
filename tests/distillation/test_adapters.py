"""Adapters against the golden values, and what they promise: no score matrix, identity at the start, their sizes."""

from __future__ import annotations

import dataclasses
import math

import pytest

torch = pytest.importorskip("torch")

from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402

from adubench.distillation import attention as A  # noqa: E402
from adubench.distillation.adapters import AdaptationSet, AttentionAdapter, build_adapter, head_count  # noqa: E402
from adubench.distillation.adu_config import AdapterConfig, DistillationConfig  # noqa: E402
from adubench.errors import UsageError  # noqa: E402
from tests.distillation.adu_cases import assert_close, golden, leaf  # noqa: E402

PRINTED = AdapterConfig(heads=1, scale="none", residual=False, zero_init=False, attention="full")
SCALED = dataclasses.replace(PRINTED, scale="sqrt_d")
CASES = {
    "printed": PRINTED,
    "scaled": SCALED,
    # 48 positions over a budget of 12: factor 2
    "reduced2_scaled": dataclasses.replace(SCALED, attention="reduced", kv_budget=12),
    "window7_scaled": dataclasses.replace(SCALED, attention="window"),
}
DTYPES = (torch.float64, torch.float32)


def adapter_of(case, config, dtype, **more):
    adapter = AttentionAdapter(6, 6, config, key_width=4).to(dtype)
    for name, key in {"query": "wq", "key": "wk", "value": "wv", **more}.items():
        getattr(adapter, name).weight.data.copy_(case[key])
    return adapter


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name, dtype):
    case = golden("attention_adapter", dtype)
    adapter, x = adapter_of(case, CASES[name], dtype), leaf(case["x"])
    y = adapter(x)
    assert_close(y, case[f"y_{name}"], dtype)
    (y * case["cotangent"]).sum().backward()
    if f"grad_x_{name}" in case:
        assert_close(x.grad, case[f"grad_x_{name}"], dtype)
        for part, key in (("query", "wq"), ("key", "wk"), ("value", "wv")):
            assert_close(getattr(adapter, part).weight.grad, case[f"grad_{key}_{name}"], dtype)
    if f"y_residual_{name}" in case:
        with_residual = adapter_of(case, dataclasses.replace(CASES[name], residual=True), dtype)
        with_residual.output.weight.data.copy_(torch.eye(6))
        assert_close(with_residual(case["x"]), case[f"y_residual_{name}"], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_cells_at_the_border_average_what_they_cover(dtype):
    case = golden("attention_adapter", dtype)
    config = dataclasses.replace(SCALED, attention="reduced", kv_budget=9)
    assert A.attention_plan(5, 7, "reduced", kv_budget=9) == A.AttentionPlan("reduced", 2, 35, 12)
    assert_close(adapter_of(case, config, dtype)(case["x_odd"]), case["y_odd_reduced2_scaled"], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_heads_with_output_projection_and_residual(dtype):
    case = golden("attention_adapter", dtype)
    config = AdapterConfig(heads=2, attention="full")
    found = adapter_of(case, config, dtype, output="wo")(case["x"])
    assert_close(found, case["y_heads2_scaled_wo_residual"], dtype)


def test_plan():
    assert A.attention_plan(88, 280).mode == "reduced"
    assert A.attention_plan(88, 280) == A.AttentionPlan("reduced", 4, 24640, 1540)
    for size in ((44, 140), (22, 70), (11, 35)):
        n = size[0] * size[1]
        assert A.attention_plan(*size) == A.AttentionPlan("full", 1, n, n)
    assert A.attention_plan(88, 280, "full").keys == 24640
    assert A.attention_plan(88, 280, "window").keys == 49
    for n, budget in ((4, 1), (5, 1), (9, 1), (2048, 2048), (2049, 2048), (8192, 2048), (8193, 2048)):
        assert A.attention_plan(1, n, "reduced", kv_budget=budget).factor == math.ceil(math.sqrt(n / budget))


@pytest.mark.parametrize("config", ["full", "reduced", "window"])
@pytest.mark.parametrize("channels", [(64, 64), (96, 128), (128, 96)])
def test_every_mode_runs_in_the_kernels_without_a_score_matrix(config, channels):
    """With the explicit kernel forbidden, forward and backward still work, also where the channels differ."""
    adapter = AttentionAdapter(*channels, AdapterConfig(attention=config, kv_budget=16, zero_init=False))
    x = leaf(torch.randn(2, channels[0], 9, 10, generator=torch.Generator().manual_seed(0)))
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
        adapter(x).square().sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("mode", ["full", "reduced", "window"])
def test_the_last_dimension_is_contiguous_whatever_the_layout_of_the_features(mode, monkeypatch):
    seen = []
    real = torch.nn.functional.scaled_dot_product_attention

    def spy(q, k, v, **options):
        seen.append({t.stride(-1) for t in (q, k, v)})
        return real(q, k, v, **options)

    monkeypatch.setattr(A.functional, "scaled_dot_product_attention", spy)
    adapter = AttentionAdapter(64, 64, AdapterConfig(attention=mode, kv_budget=8))
    x = torch.randn(2, 64, 6, 10)
    same = [adapter(x), adapter(x.to(memory_format=torch.channels_last))]
    torch.testing.assert_close(*same)
    assert seen == [{1}, {1}]


def test_different_head_widths_give_the_explicit_result():
    g = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(2, n, c, generator=g) for n, c in ((6, 8), (5, 8), (5, 12)))
    found = A.attend(q, k, v, heads=2, scale=0.3)
    for head in range(2):
        qh, kh, vh = q[..., head * 4 : head * 4 + 4], k[..., head * 4 : head * 4 + 4], v[..., head * 6 : head * 6 + 6]
        want = torch.softmax(0.3 * qh @ kh.mT, -1) @ vh
        torch.testing.assert_close(found[..., head * 6 : head * 6 + 6], want)


@pytest.mark.parametrize("size", [(7, 14), (9, 10), (3, 5), (8, 7)])
def test_windows_come_back_in_their_place(size):
    tokens = torch.arange(2 * size[0] * size[1] * 3.0).view(2, -1, 3)
    windows = A.to_windows(tokens, *size)
    assert torch.equal(A.from_windows(windows, *size), tokens)
    mask = A.window_mask(*size, 2, torch.device("cpu"))
    if mask is None:
        assert size == (7, 14)
    else:
        assert mask.shape == (len(windows), 1, 1, 49)
        assert int(mask.sum()) == 2 * size[0] * size[1]
        assert bool(mask.any(dim=-1).all()), "a window of padding alone would give NaN"


@pytest.mark.parametrize(
    "config",
    [AdapterConfig(attention=mode, kv_budget=16) for mode in ("full", "reduced", "window", "auto")]
    + [AdapterConfig(kind=kind) for kind in ("identity", "conv1x1", "conv3x3", "conv3x3x2")],
    ids=lambda config: f"{config.kind}-{config.attention}",
)
def test_zero_initialised_adapters_are_the_identity(config):
    x = torch.randn(2, 64, 9, 10)
    assert torch.equal(build_adapter(64, 64, config)(x), x)


@pytest.mark.parametrize("kind", ["attention", "conv1x1", "conv3x3", "conv3x3x2"])
def test_switches_of_the_start(kind):
    x = torch.randn(1, 32, 4, 5)
    free = build_adapter(32, 32, AdapterConfig(kind=kind, zero_init=False))
    assert not torch.equal(free(x), x)
    bare = build_adapter(32, 32, AdapterConfig(kind=kind, residual=False, zero_init=True))
    assert torch.equal(bare(x), torch.zeros_like(x))


@pytest.mark.parametrize("kind", ["attention", "identity", "conv1x1", "conv3x3", "conv3x3x2"])
def test_other_channels_go_through_a_projection(kind):
    x = torch.randn(1, 96, 4, 5)
    adapter = build_adapter(96, 128, AdapterConfig(kind=kind))
    projection = (adapter if kind == "identity" else adapter.residual).weight
    assert projection.shape == (128, 96, 1, 1)
    torch.testing.assert_close(adapter(x), torch.nn.functional.conv2d(x, projection))


def test_a_zero_initialised_adapter_can_leave_its_start():
    adapter = build_adapter(32, 32)
    adapter(torch.randn(1, 32, 4, 5)).square().sum().backward()
    assert float(adapter.output.weight.grad.abs().max()) > 0


def test_heads():
    assert [head_count("C/32", c, c) for c in (8, 96, 192, 1536)] == [1, 3, 6, 48]
    assert head_count("C/32", 96, 128) == 2
    assert head_count(4, 96, 128) == 4
    with pytest.raises(UsageError, match="heads 5 does not divide the 96 student and 128 teacher channels"):
        head_count(5, 96, 128)


def test_parameters_of_the_published_sizes():
    decoder = (128, 256, 512, 1024)
    for widths, millions in ((192, 18.1), (96, 8.7)):
        channels = ([widths * 2**i for i in range(4)], decoder)
        with torch.device("meta"):
            adapters = AdaptationSet(channels, channels)
        assert sum(p.numel() for p in adapters.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_unscaled_logits_stay_in_float32(monkeypatch):
    """Logits of half-precision queries beyond 65504 would be infinite and the softmax NaN."""
    seen = []
    real = torch.nn.functional.scaled_dot_product_attention

    def spy(q, k, v, **options):
        seen.append({q.dtype, k.dtype, v.dtype})
        return real(q, k, v, **options)

    monkeypatch.setattr(A.functional, "scaled_dot_product_attention", spy)
    adapter = AttentionAdapter(32, 32, PRINTED).half()
    for part in (adapter.query, adapter.key, adapter.value):
        torch.nn.init.eye_(part.weight)
    x = torch.full((1, 32, 2, 2), 100.0, dtype=torch.half)
    assert 32 * 100.0**2 > 65504
    assert torch.isfinite(adapter(x)).all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        adapter.float()(x.float())
    assert seen == [{torch.float32}, {torch.float32}]


@pytest.mark.parametrize("mode", ["full", "reduced", "window"])
def test_under_autocast(mode):
    adapter = AttentionAdapter(64, 64, AdapterConfig(attention=mode, kv_budget=16, zero_init=False))
    x = torch.randn(1, 64, 9, 10, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = adapter(x)
    torch.testing.assert_close(half.float(), adapter(x), atol=0.03, rtol=0.03)


def test_only_distilled_levels_have_adapters():
    channels = ((8, 16, 32, 64), (8, 16, 32, 64))
    config = DistillationConfig.from_mapping({"features": {"encoder": [3, 1], "decoder": []}})
    adapters = AdaptationSet(channels, channels, config)
    assert adapters.encoder_levels == (1, 3)
    assert adapters.decoder_levels == ()
    maps = [torch.randn(1, c, 4, 4) for c in channels[0]]
    encoder, decoder = adapters(maps, maps)
    assert [m.shape[1] for m in encoder] == [16, 64]
    assert decoder == []
    assert set(adapters.state_dict()) == {
        f"encoder.{i}.{name}.weight" for i in (1, 3) for name in ("query", "key", "value", "output")
    }


@pytest.mark.parametrize(
    "off", [{"enabled": False}, {"lambda": {"umf": 0}}, {"features": {"encoder": [], "decoder": []}}]
)
def test_nothing_is_built_while_features_are_not_distilled(off):
    channels = ((8, 16, 32, 64), (8, 16, 32, 64))
    adapters = AdaptationSet(channels, channels, DistillationConfig.from_mapping(off))
    assert not list(adapters.parameters())


def test_restoration_starts_as_nothing_and_learns_from_s():
    channels = ((8, 16, 32, 64), (8, 16, 32, 64))
    config = DistillationConfig.from_mapping({"uem": {"g": "film"}})
    adapters = AdaptationSet(channels, channels, config)
    maps = [torch.randn(1, c, 4, 4) for c in channels[0]]
    s = [torch.randn(1, 1, 4, 4)] * 4
    encoder, _ = adapters(maps, maps, s, s)
    assert all(torch.equal(a, b) for a, b in zip(encoder, maps, strict=True))
    sum(m.square().sum() for m in encoder).backward()
    film = adapters.get_submodule("encoder_restoration.0.affine")
    assert float(film.weight.grad.abs().max()) > 0
    assert film.weight.shape == (16, 1, 1, 1)
