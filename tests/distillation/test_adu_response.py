"""Response distillation against the golden values."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from adubench.distillation.adu_response import at_quarter, laplace_term, response_loss  # noqa: E402
from tests.distillation.adu_cases import assert_close, golden, leaf  # noqa: E402

DTYPES = (torch.float64, torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_uncertainty(dtype):
    case = golden("response_distill", dtype)
    ds = leaf(case["ds"])
    loss = response_loss(ds, case["dt"])
    loss.backward()
    assert_close(loss, case["L_rd_mean"], dtype)
    assert_close(ds.grad, case["grad_ds_rd_mean"], dtype)
    assert_close(response_loss(ds, case["dt"], reduction="sum"), case["L_rd_sum"], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", ["printed", "log_variance"])
def test_with_uncertainty(form, dtype):
    case = golden("response_distill", dtype)
    ds, s = leaf(case["ds"]), leaf(case["s"])
    loss = response_loss(ds, case["dt"], s, form=form)
    loss.backward()
    assert_close(loss, case[f"L_umr_{form}"], dtype)
    assert_close(ds.grad, case[f"grad_ds_umr_{form}"], dtype)
    assert_close(s.grad, case[f"grad_s_umr_{form}"], dtype)


@pytest.mark.parametrize("form", ["printed", "log_variance"])
def test_the_best_uncertainty_is_the_golden_one(form):
    case = golden("response_distill")
    residual = (case["ds"] - case["dt"]).abs()
    seen = residual > 0
    best = leaf(case[f"s_opt_{form}"][seen])
    laplace_term(residual[seen], best, form).sum().backward()
    assert float(best.grad.abs().max()) < 1e-9


def test_closed_form_of_the_gradient_in_s():
    case = golden("response_distill")
    s = leaf(case["s"])
    response_loss(case["ds"], case["dt"], s).backward()
    residual = (case["ds"] - case["dt"]).abs()
    assert_close(s.grad, (1 - math.sqrt(2) * torch.exp(-case["s"]) * residual) / residual.numel())


def test_a_mask_leaves_the_other_pixels_out():
    case = golden("response_distill")
    ds = leaf(case["ds"])
    mask = torch.zeros_like(case["ds"], dtype=torch.bool)
    mask[..., :4] = True
    loss = response_loss(ds, case["dt"], case["s"], mask)
    loss.backward()
    inner = response_loss(case["ds"][..., :4], case["dt"][..., :4], case["s"][..., :4])
    assert_close(loss, inner)
    assert float(ds.grad[..., 4:].abs().max()) == 0
    nothing = response_loss(ds, case["dt"], None, torch.zeros_like(mask))
    nothing.backward()
    assert float(nothing.detach()) == 0


def test_spaces():
    ds, dt = torch.tensor([[[[20.0, 0.0]]]]), torch.tensor([[[[10.0, 10.0]]]])
    assert float(response_loss(ds, dt)) == 10
    logs = (math.log(2) + math.log(10 / 1e-3)) / 2
    assert float(response_loss(ds, dt, space="log")) == pytest.approx(logs, rel=1e-6)
    assert float(response_loss(ds, dt, space="inverse")) == pytest.approx((0.05 + 1000 - 0.1) / 2, rel=1e-6)


def test_quarter_maps():
    depth = torch.arange(64.0).view(1, 1, 8, 8)
    want = torch.tensor([[[[13.5, 17.5], [45.5, 49.5]]]])
    assert torch.equal(at_quarter(depth, (2, 2)), want)
    assert torch.equal(at_quarter(depth, (8, 8)), want), "cells of the padding are left out"
    assert at_quarter(depth[..., :7, :6], (8, 8)).tolist() == [[[[13.5, 16.5], [41.5, 44.5]]]]
    resized = at_quarter(torch.ones(1, 1, 100, 100), (10, 20))
    assert resized.shape[-2:] == (10, 20)


def test_bfloat16_depth_is_widened_before_the_difference():
    """Between 32 and 64 m bfloat16 has steps of 0.25 m; a difference of float32 maps keeps what lies between."""
    ds, dt = torch.tensor([[[[40.0]]]]).bfloat16(), torch.tensor([[[[40.1]]]])
    assert float(response_loss(ds, dt)) == pytest.approx(0.1, abs=1e-5)


def test_no_gradient_for_the_teacher():
    case = golden("response_distill")
    dt, ds = leaf(case["dt"]), leaf(case["ds"])
    response_loss(ds, dt, case["s"]).backward()
    assert dt.grad is None
