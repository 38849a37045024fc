"""The base loss against the NeWCRFs code, and where that code gives NaN."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from adubench.distillation.silog import silog_loss  # noqa: E402
from tests.distillation.adu_cases import golden, leaf  # noqa: E402


@pytest.mark.parametrize("i", range(4))
def test_value_and_gradient_of_the_reference(i):
    case = golden("silog", torch.float32)
    pred, gt = leaf(case[f"est{i}"]), case[f"gt{i}"]
    loss, n = silog_loss(pred, gt)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(case[f"loss{i}"]), abs=1e-5)
    torch.testing.assert_close(pred.grad, case[f"grad{i}"], rtol=0, atol=1e-6)
    assert int(n) == int((gt > 1).sum())


@pytest.mark.parametrize("focus", ["0.0", "0.5", "1.0"])
def test_variance_focus(focus):
    case = golden("silog", torch.float32)
    loss, _ = silog_loss(case["est3"], case["gt3"], variance_focus=float(focus))
    assert float(loss.detach()) == pytest.approx(float(case[f"loss3_vf{focus}"]), abs=1e-5)


def test_without_a_valid_pixel_the_loss_is_a_zero_that_keeps_its_graph():
    pred = leaf(torch.full((2, 1, 3, 4), 7.0))
    loss, n = silog_loss(pred, torch.ones(2, 1, 3, 4))
    loss.backward()
    assert float(loss.detach()) == 0
    assert int(n) == 0
    assert torch.equal(pred.grad, torch.zeros_like(pred))


def test_exact_agreement_has_a_zero_gradient_instead_of_nan():
    gt = torch.full((1, 1, 4, 4), 9.0)
    pred = leaf(gt)
    loss, _ = silog_loss(pred, gt)
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.equal(pred.grad, torch.zeros_like(pred))


def test_what_lies_outside_the_mask_does_not_matter():
    gt = torch.tensor([[[[0.0, 5.0, 9.0, float("nan")]]]])
    wild = leaf(torch.tensor([[[[0.0, 4.0, 10.0, -3.0]]]]))
    loss, n = silog_loss(wild, gt)
    loss.backward()
    tame, _ = silog_loss(torch.tensor([[[[4.0, 10.0]]]]), torch.tensor([[[[5.0, 9.0]]]]))
    assert float(loss.detach()) == float(tame)
    assert int(n) == 2
    assert torch.isfinite(wild.grad).all()


def test_a_bad_prediction_at_a_valid_pixel_is_not_hidden():
    loss, _ = silog_loss(torch.tensor([[[[float("nan"), 4.0]]]]), torch.tensor([[[[5.0, 5.0]]]]))
    assert torch.isnan(loss)


def test_half_precision_is_computed_in_float32():
    g = torch.Generator().manual_seed(0)
    gt = 20 + 40 * torch.rand(1, 1, 16, 16, generator=g)
    pred = (gt * (1 + 0.05 * torch.randn(gt.shape, generator=g))).bfloat16()
    loss, _ = silog_loss(pred, gt)
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == float(silog_loss(pred.float(), gt)[0])


def test_the_loss_of_a_batch_is_that_of_all_its_pixels_not_the_mean_of_its_images():
    case = golden("silog", torch.float32)
    whole, _ = silog_loss(case["est0"], case["gt0"])
    halves = [silog_loss(case["est0"][k : k + 1], case["gt0"][k : k + 1])[0] for k in range(2)]
    assert abs(float(whole - sum(halves) / 2)) > 1e-3
