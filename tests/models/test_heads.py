"""The uncertainty head of ADU-Depth."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pathlib import Path  # noqa: E402

from adubench.models.heads import UncertaintyConfig, UncertaintyHead, pool_uncertainty, upsample  # noqa: E402
from adubench.models.zoo import build  # noqa: E402
from tests.models.newcrfs_golden import redraw  # noqa: E402

UEM = Path(__file__).resolve().parents[1] / "data" / "adu_depth" / "uem.npz"
MINI = {"family": "newcrfs", "variant": "mini"}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_scaling_resizing_and_their_gradient_are_the_golden_ones(dtype, tolerance):
    with np.load(UEM) as arrays:
        golden = {key: torch.from_numpy(arrays[key]).to(dtype) for key in arrays}
    config = UncertaintyConfig(s_min=float(golden["s_min"]), s_max=float(golden["s_max"]))
    head = UncertaintyHead(1, config).to(dtype)
    with torch.no_grad():
        head.conv.weight[0, 0, 1, 1] = 1  # z passes through
    z = golden["z"].clone().requires_grad_()
    quarter = head(z)
    maps = {
        "quarter": pool_uncertainty(quarter, (8, 20)),
        "eighth": pool_uncertainty(quarter, (4, 10)),
        "sixteenth": pool_uncertainty(quarter, (2, 5)),
        "full": upsample(quarter),
    }
    for name, value in maps.items():
        torch.testing.assert_close(value, golden[f"s_{name}"], rtol=tolerance, atol=tolerance)
    sum((value * golden[f"cot_{name}"]).sum() for name, value in maps.items()).backward()
    torch.testing.assert_close(z.grad, golden["grad_z"], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("settings", "start"), [({}, 0.0), ({"s_min": -2.0, "s_max": 6.0}, 2.0), ({"scaling": "gain"}, 0.5)]
)
def test_the_head_starts_at_the_middle_of_its_range_everywhere(settings, start):
    network = redraw(build(MINI))
    with_head = build(MINI | {"uncertainty": settings}).eval()
    with_head.load_state_dict(network.state_dict(), strict=False)
    with torch.no_grad():
        out = with_head(torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(out.s, torch.full((1, 1, 64, 96), start))
    assert torch.equal(out.s_quarter, torch.full((1, 1, 16, 24), start))


def test_a_gain_is_learned_and_bounded():
    head = UncertaintyHead(2, UncertaintyConfig(scaling="gain"))
    assert [name for name, _ in head.named_parameters()] == ["gain", "conv.weight", "conv.bias"]
    with torch.no_grad():
        head.gain.fill_(1e6)
    assert head(torch.ones(1, 2, 3, 3)).max() == 8


def test_the_affine_range_cannot_be_left():
    head = UncertaintyHead(1, UncertaintyConfig())
    with torch.no_grad():
        head.conv.weight.fill_(1e4)
    s = head(torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert s.min() == -4
    assert s.max() == 4


def test_the_head_changes_no_depth_and_its_kind_follows_the_form():
    network = redraw(build(MINI)).eval()
    x = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    for form, kind in (("printed", "log_sigma"), ("log_variance", "log_variance")):
        with_head = build(MINI | {"uncertainty": {"laplace_form": form}}).eval()
        with_head.load_state_dict(network.state_dict(), strict=False)
        assert with_head.uncertainty_kind == kind
        with torch.no_grad():
            assert torch.equal(with_head.infer(x).depth, network.infer(x).depth)
            assert with_head.infer(x).uncertainty.shape == (1, 1, 64, 96)
    assert network.uncertainty_kind is None
    with torch.no_grad():
        assert network.infer(x).uncertainty is None


def test_the_published_head_has_1153_parameters():
    assert sum(p.numel() for p in UncertaintyHead(128, UncertaintyConfig()).parameters()) == 1153


@pytest.mark.parametrize("mode", ["area", "bilinear", "nearest"])
def test_every_resize_keeps_a_constant_map(mode):
    s = torch.full((1, 1, 11, 35), -1.5)
    assert torch.equal(pool_uncertainty(s, (6, 18), mode), torch.full((1, 1, 6, 18), -1.5))
