"""Feature distillation against the golden values."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from adubench.distillation.features import feature_loss, uncertainty_at  # noqa: E402
from adubench.errors import UsageError  # noqa: E402
from tests.distillation.adu_cases import assert_close, golden, leaf  # noqa: E402

DTYPES = (torch.float64, torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("level", range(3))
def test_one_level(level, dtype):
    case = golden("feature_distill", dtype)
    ft, fs, s = case[f"ft{level}"], leaf(case[f"fs{level}"]), leaf(case[f"s{level}"])
    loss = feature_loss([fs], [ft])
    assert_close(loss, case[f"L_e{level}"], dtype)
    assert_close(torch.autograd.grad(loss, fs)[0], case[f"grad_fs_L_e{level}"], dtype)
    for reduction in ("mean", "sum"):
        loss = feature_loss([fs], [ft], [s], channel_reduction=reduction)
        assert_close(loss, case[f"L_umf_{reduction}{level}"], dtype)
        for found, which in zip(torch.autograd.grad(loss, (fs, s)), ("fs", "s"), strict=True):
            assert_close(found, case[f"grad_{which}_umf_{reduction}{level}"], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("levels", ["mean", "sum"])
def test_over_levels(levels, dtype):
    case = golden("feature_distill", dtype)
    ft, fs, s = ([case[f"{k}{i}"] for i in range(3)] for k in ("ft", "fs", "s"))
    assert_close(feature_loss(fs, ft, level_reduction=levels), case[f"L_e_level_{levels}"], dtype)
    for channels in ("mean", "sum"):
        found = feature_loss(fs, ft, s, channel_reduction=channels, level_reduction=levels)
        assert_close(found, case[f"L_umf_{channels}_level_{levels}"], dtype)


def test_channel_sum_without_uncertainty():
    case = golden("feature_distill")
    mean = feature_loss([case["fs1"]], [case["ft1"]])
    assert_close(feature_loss([case["fs1"]], [case["ft1"]], channel_reduction="sum"), 6 * mean)


def test_level_maps_of_the_uncertainty():
    case = golden("uem")
    z = leaf(case["z"])
    s = case["s_min"] + (case["s_max"] - case["s_min"]) * torch.sigmoid(z)
    maps = {
        "quarter": uncertainty_at(s, (8, 20)),
        "eighth": uncertainty_at(s, (4, 10)),
        "sixteenth": uncertainty_at(s, (2, 5)),
        "full": torch.nn.functional.interpolate(s, scale_factor=4, mode="bilinear", align_corners=False),
    }
    for name, found in maps.items():
        assert_close(found, case[f"s_{name}"])
    sum((found * case[f"cot_{name}"]).sum() for name, found in maps.items()).backward()
    assert_close(z.grad, case["grad_z"])


def test_the_other_ways_to_reach_the_size_of_a_level():
    s = torch.arange(16.0).view(1, 1, 4, 4)
    assert uncertainty_at(s, (2, 2), "nearest").flatten().tolist() == [0, 2, 8, 10]
    assert uncertainty_at(s, (2, 2), "area").flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert uncertainty_at(s, (2, 2), "bilinear").shape == (1, 1, 2, 2)
    assert float(uncertainty_at(s, (1, 1), "bilinear")) == 7.5
    assert uncertainty_at(s.bfloat16(), (3, 2)).dtype == torch.float32


def test_features_are_cast_before_they_are_subtracted():
    """In half precision a sum over 1536 channels overflows, and close features lose their difference."""
    student = torch.full((1, 1536, 2, 2), 100.0).half()
    loss = feature_loss([student], [torch.zeros_like(student)], channel_reduction="sum")
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(1536e4)
    a, b = torch.tensor([1.0]).bfloat16(), torch.tensor([1.0 + 2**-9])
    assert float(feature_loss([a.view(1, 1, 1, 1)], [b.view(1, 1, 1, 1)])) == pytest.approx(2.0**-18)


def test_no_gradient_for_the_teacher():
    case = golden("feature_distill")
    ft, fs = leaf(case["ft0"]), leaf(case["fs0"])
    feature_loss([fs], [ft], [case["s0"]]).backward()
    assert ft.grad is None
    assert fs.grad is not None


def test_shapes_that_differ_are_named():
    with pytest.raises(UsageError, match=r"level 1.*\(1, 4, 2, 2\).*\(1, 4, 2, 3\)"):
        feature_loss(
            [torch.zeros(1, 4, 2, 2)] * 2, [torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 2, 3)], level_reduction="sum"
        )
    with pytest.raises(UsageError, match="at least one level"):
        feature_loss([], [])
