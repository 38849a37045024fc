"""Focal-depth loss against the golden values, its clamps and its numerical rules."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from adubench.distillation.focal import focal_depth_loss, focal_term, mismatch  # noqa: E402
from tests.distillation.adu_cases import assert_close, golden, leaf  # noqa: E402

GAMMAS = ("0", "0.5", "1", "2", "5")
DTYPES = (torch.float64, torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("pixels", ["all", "mask"])
def test_per_image_score(pixels, gamma, dtype):
    case = golden("focal_depth", dtype)
    ds, mask = leaf(case["ds"]), case["mask"].bool() if pixels == "mask" else None
    loss, p_d = focal_depth_loss(ds, case["dt"], mask, gamma=float(gamma))
    loss.backward()
    assert_close(loss, case[f"L_{pixels}_g{gamma}"], dtype)
    assert_close(ds.grad, case[f"grad_ds_{pixels}_g{gamma}"], dtype)
    assert_close(p_d, case[f"p_raw_{pixels}"], dtype)
    per_image = focal_term(1 - case[f"p_raw_{pixels}"], gamma=float(gamma))
    torch.testing.assert_close(per_image[:5], case[f"L_img_{pixels}_g{gamma}"][:5], rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gamma", ["1", "2"])
def test_per_pixel_score_and_exponential_score(gamma, dtype):
    case = golden("focal_depth", dtype)
    ds = leaf(case["ds"])
    loss, _ = focal_depth_loss(ds, case["dt"], gamma=float(gamma), granularity="pixel")
    loss.backward()
    assert_close(loss, case[f"L_pixel_g{gamma}"], dtype)
    assert_close(ds.grad, case[f"grad_ds_pixel_g{gamma}"], dtype)
    loss, _ = focal_depth_loss(case["ds"], case["dt"], gamma=float(gamma), score="exp")
    assert_close(loss, case[f"L_expscore_g{gamma}"], dtype)


def test_one_score_for_the_batch_is_the_score_of_one_large_image():
    case = golden("focal_depth")
    few = slice(0, 3)
    batch, p_d = focal_depth_loss(case["ds"][few], case["dt"][few], granularity="batch")
    flat = [case[k][few].reshape(1, 1, 1, -1) for k in ("ds", "dt")]
    image, p_flat = focal_depth_loss(*flat)
    assert_close(batch, image)
    assert_close(p_d.mean(), p_flat[0])


def test_more_than_double_is_clamped_and_has_no_gradient_but_the_exponential_score_has_one():
    dt = torch.full((1, 1, 4, 4), 10.0)
    for score, flat in (("linear", True), ("exp", False)):
        ds = leaf(torch.full_like(dt, 45.0))
        loss, p_d = focal_depth_loss(ds, dt, score=score)
        loss.backward()
        assert torch.isfinite(loss)
        assert bool((ds.grad == 0).all()) is flat
        assert float(p_d) == pytest.approx(-2.5 if score == "linear" else 0.0302, abs=1e-3)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("score", ["linear", "exp"])
def test_equal_depths_give_finite_values_and_gradients(gamma, score):
    ds = leaf(torch.full((2, 1, 3, 3), 20.0))
    loss, p_d = focal_depth_loss(ds, ds.detach().clone(), gamma=gamma, score=score)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(ds.grad).all()
    assert float(p_d.min()) == 1


def test_small_mismatches_keep_their_digits():
    """log1p(-m): in float32 the logarithm of 1 - m would be off by several percent at m = 1e-6."""
    m = torch.tensor(2e-6, dtype=torch.float32)
    assert float(focal_term(m, gamma=0)) == pytest.approx(2e-6, rel=1e-5)
    assert abs(float(-torch.log(1 - m)) / 2e-6 - 1) > 0.01


def test_eps_bounds_the_slope():
    m = leaf(torch.tensor(0.9899, dtype=torch.float64))
    focal_term(m, gamma=0, eps=0.01).backward()
    assert 95 < float(m.grad) <= 100


def test_tiny_teacher_depths_do_not_blow_up_the_score():
    assert float(mismatch(torch.tensor([2.0]), torch.tensor([0.0]))) == pytest.approx(2000)


def test_images_without_a_pixel_in_the_mask_do_not_count():
    case = golden("focal_depth")
    mask = torch.ones(2, 1, 6, 10, dtype=torch.bool)
    mask[1] = False
    for granularity in ("image", "pixel", "batch"):
        both, p_d = focal_depth_loss(case["ds"][:2], case["dt"][:2], mask, granularity=granularity)
        one, _ = focal_depth_loss(case["ds"][:1], case["dt"][:1], granularity=granularity)
        assert_close(both, one)
        assert float(p_d[1]) == 1


def test_an_empty_mask_gives_a_zero_that_keeps_its_graph():
    ds = leaf(torch.full((2, 1, 3, 3), 20.0))
    mask = torch.zeros_like(ds, dtype=torch.bool)
    for granularity in ("image", "pixel"):
        loss, _ = focal_depth_loss(ds, ds.detach() * 2, mask, granularity=granularity)
        loss.backward()
        assert float(loss.detach()) == 0
        assert torch.equal(ds.grad, torch.zeros_like(ds))


def test_half_precision_is_computed_in_float32():
    ds, dt = torch.full((1, 1, 2, 2), 30.0).bfloat16(), torch.full((1, 1, 2, 2), 31.0).bfloat16()
    loss, p_d = focal_depth_loss(ds, dt)
    assert loss.dtype == p_d.dtype == torch.float32
    assert float(p_d) == pytest.approx(1 - 1 / 31, rel=1e-6)
