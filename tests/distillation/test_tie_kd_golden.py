"""TIE-KD's losses against the reference's numbers (tests/data/tie_kd)."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from adubench.distillation.depth_probability import dpm_divergence_map, dpm_target  # noqa: E402
from adubench.distillation.response import (  # noqa: E402
    adabins_silog,
    bin_chamfer,
    bts_silog,
    response_kd_loss,
    si_loss,
)
from adubench.distillation.ssim import ssim  # noqa: E402
from adubench.distillation.tie_kd import TieKDConfig, tie_kd_loss  # noqa: E402
from adubench.models.densedepth import bin_centres, bin_edges  # noqa: E402
from tests.models.tie_kd_golden import ROOT, assert_near, load  # noqa: E402

CASES = json.loads((ROOT / "dpm_cases.json").read_text())


def tensor(array, *, grad=False):
    return torch.from_numpy(np.array(array)).requires_grad_(grad)


@pytest.mark.parametrize("form", ["dense", "windowed", "chunked"])
@pytest.mark.parametrize("name", CASES)
def test_target_and_divergence(name, form):
    case, golden = CASES[name], load("dpm_and_l_dpm.npz")
    centres = bin_centres(bin_edges(case["n_bins"], case["min_depth"], case["max_depth"]))
    depth, probs = tensor(golden[f"{name}__depth"]), tensor(golden[f"{name}__probs"], grad=True)
    assert_near(dpm_target(depth, centres, case["sigma"]), golden[f"{name}__target"], 1e-5)
    options = {"form": "windowed", "rows_at_once": 2} if form == "chunked" else {"form": form}
    divergence = dpm_divergence_map(probs, depth, centres, case["sigma"], **options)
    assert_near(divergence, golden[f"{name}__kl"], 1e-5)
    assert_near(divergence.mean(), golden[f"{name}__mean"], 1e-5)
    divergence.mean().backward()
    assert_near(probs.grad, golden[f"{name}__grad_probs"], 1e-5)


def student(logits, bins):
    probs = torch.softmax(logits, dim=1)
    centres = bin_centres(bin_edges(bins, 0.001, 80))
    return (probs * centres[None, :, None, None]).sum(1, keepdim=True), probs, centres


def assert_gradient_near(got, expected):
    """The reference filters in float32, which is noisy."""
    got, expected = got.double().flatten(), torch.from_numpy(expected).double().flatten()
    assert torch.nn.functional.cosine_similarity(got, expected, dim=0) > 0.9999
    assert (got - expected).norm() < 2e-3 * expected.norm()


@pytest.mark.parametrize("form", ["dense", "windowed"])
@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0])
def test_total(alpha, form):
    golden = load("tie_kd_total_small.npz")
    logits = tensor(golden["logits_q"].astype(np.float32) / 4, grad=True)
    depth, probs, centres = student(logits, 16)
    assert_near(depth, golden["depth_pred"], 1e-5)
    config = TieKDConfig(alpha=alpha, sigma=0.5, ignore_top_rows=0, form=form)
    loss = tie_kd_loss(depth, probs, centres, tensor(golden["kd_depth"]), config)
    assert loss.l_dpm.item() == pytest.approx(float(golden["l_dpm_mean"]), rel=1e-5)
    assert loss.l_depth.item() == pytest.approx(float(golden["l_depth"]), rel=1e-5)
    assert loss.total.item() == pytest.approx(float(golden[f"total_w{alpha}"]), rel=1e-5)
    loss.total.backward()
    assert_gradient_near(logits.grad, golden[f"grad_logits_w{alpha}"])


@pytest.mark.parametrize("rows_at_once", [None, 7])
def test_total_ignores_the_rows_without_lidar(rows_at_once):
    golden = load("tie_kd_total_crop704.npz")
    logits = tensor(golden["logits_q"].astype(np.float32) / 4, grad=True)
    depth, probs, centres = student(logits, 5)
    config = TieKDConfig(alpha=0.1, sigma=0.5, ignore_top_rows=110, rows_at_once=rows_at_once)
    loss = tie_kd_loss(depth, probs, centres, tensor(golden["kd_depth"]), config)
    assert loss.l_dpm.item() == pytest.approx(float(golden["l_dpm_mean"]), rel=1e-5)
    assert loss.l_depth.item() == pytest.approx(float(golden["l_depth"]), rel=1e-5)
    assert loss.total.item() == pytest.approx(float(golden["total_w0.1"]), rel=1e-5)
    loss.total.backward()
    assert logits.grad[:, :, :110].abs().max() == 0
    assert_gradient_near(logits.grad[:, :, 110:], golden["grad_logits_rows110"])


@pytest.mark.parametrize("name", "abc")
def test_ssim(name):
    golden = load("ssim.npz")
    x, y = tensor(golden[f"{name}_x"].astype(np.float64), grad=True), tensor(golden[f"{name}_y"])
    value = ssim(x, y)
    assert_near(value, golden[f"{name}_mean_f64"], 1e-9)
    assert_near(ssim(x, y, per_image=True), golden[f"{name}_per_image_f64"], 1e-9)
    assert_near(value, golden[f"{name}_mean_f32"], 1e-5)
    value.backward()
    assert_near(x.grad, golden[f"{name}_grad_x_f64"], 1e-9)


@pytest.mark.parametrize(("name", "x", "y"), [("flat_same", 20, 20), ("flat_off", 20, 20.5), ("zero_zero", 0, 0)])
def test_ssim_of_constant_maps_is_float64_whatever_comes_in(name, x, y):
    flat = torch.ones(1, 1, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = ssim(flat * x, flat * y)
    assert_near(value, load("ssim.npz")[f"{name}_f64"], 1e-9)


def test_si():
    golden = load("si_and_response_kd.npz")
    teacher, sparse = tensor(golden["teacher"]), tensor(golden["sparse_gt"])
    cases = {
        "si_dense": lambda p: si_loss(p, teacher),
        "si_sparse": lambda p: si_loss(p, sparse),
        "si_sparse_max40_w10": lambda p: si_loss(p, sparse, max_depth=40, weight=10),
        "si_warmup_sparse": lambda p: si_loss(p, sparse, step=0, warm_up=100),
        "mse": lambda p: response_kd_loss("mse", p, teacher, weight=7),
        "ssim_w1.5": lambda p: response_kd_loss("ssim", p, teacher),
        "ssim_si_w1.5": lambda p: response_kd_loss("ssim+si", p, teacher),
        "ssim_mse_w1.5": lambda p: response_kd_loss("ssim+mse", p, teacher),
        "bts_silog": lambda p: bts_silog(p, sparse),
    }
    for name, compute in cases.items():
        pred = tensor(golden["pred"], grad=True)
        value = compute(pred)
        assert_near(value, golden[f"{name}_value"], 1e-5)
        value.backward()
        if f"{name}_grad" in golden:
            assert_near(pred.grad, golden[f"{name}_grad"], 1e-5)


def test_adabins_silog_resizes_the_prediction():
    golden = load("si_and_response_kd.npz")
    pred = tensor(golden["adabins_pred_half"], grad=True)
    value = adabins_silog(pred, tensor(golden["sparse_gt"]))
    assert_near(value, golden["adabins_silog_value"], 1e-5)
    value.backward()
    assert_near(pred.grad, golden["adabins_silog_grad"], 1e-5)


@pytest.mark.parametrize("chunk", [1 << 16, 7])
def test_bin_chamfer(chunk):
    golden = load("chamfer_bins.npz")
    edges, depth = tensor(golden["bin_edges"], grad=True), tensor(golden["depth"])
    value = bin_chamfer(edges, depth, chunk=chunk)
    assert [(d >= 0.001).sum() for d in depth] == list(golden["valid_counts"])
    assert_near(value, golden["value"], 1e-5)
    assert_near(0.1 * value, golden["value_w0p1"], 1e-5)
    value.backward()
    assert_near(edges.grad, golden["grad_edges"], 1e-5)
