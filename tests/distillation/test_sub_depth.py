"""Goldens of SUB-Depth's losses, both batch pairings, and the properties that the method must have."""

import math

import pytest

torch = pytest.importorskip("torch")

from adubench.distillation.sub_depth import (  # noqa: E402
    AS_RELEASED,
    SubDepthConfig,
    distillation_loss,
    log_mean_sigma,
    log_sigma,
    photometric_term,
    reconstruction_loss,
    set_teacher_mode,
    weighted_error,
    weighted_loss,
)
from adubench.errors import UsageError  # noqa: E402
from adubench.models.pose import Pose  # noqa: E402
from adubench.training.photometric import PhotometricConfig, Views, photometric_losses, total_loss  # noqa: E402
from adubench.training.view_synthesis import Cameras  # noqa: E402
from tests.self_supervised import arrays, close, mostly_close, values  # noqa: E402


@pytest.fixture(scope="module")
def inputs():
    return arrays("sub_depth_inputs")


def losses_of(file, config=AS_RELEASED, *, noise=True, items=slice(None), photometric=None):
    """Evaluate both losses from the stored maps; logits are recovered from the stored sigmoids."""
    cut = {key: value[items] for key, value in file.items()}
    motion = {f: Pose(cut[f"axisangle_{f}"][:, 0, 0], cut[f"translation_{f}"][:, 0, 0], invert=f < 0) for f in (-1, 1)}
    views = Views(
        {s: cut[f"color_0_{s}"] for s in range(4)},
        {f: {0: cut[f"color_{f}_0"]} for f in (-1, 1)},
        {0: Cameras(cut["K_0"], cut["inv_K_0"])},
        motion,
    )
    drawn = (lambda scale, shape: cut[f"noise_{scale}"]) if noise else None
    parts = photometric_losses(
        {s: cut[f"disp_{s}"] for s in range(4)}, views, photometric or PhotometricConfig(), noise=drawn
    )
    pho = log_mean_sigma([torch.logit(cut[f"ph_uncert_{f}"]) for f in (-1, 1)], config.sigma_min)
    rec, scales = reconstruction_loss(
        {s: part.minimum for s, part in parts.items()},
        {s: part.regularisation for s, part in parts.items()},
        pho,
        config,
    )
    reg = log_sigma(torch.logit(cut["uncert_0"]), config.sigma_min)
    return rec, scales, distillation_loss(cut["disp_0"], cut["disp_teacher_0"], reg), parts, pho


@pytest.mark.parametrize(
    ("name", "noise", "items"),
    [
        ("batch_zero_noise", False, slice(None)),
        ("batch_noise", True, slice(None)),
        ("single_0_noise", True, slice(0, 1)),
        ("single_1_noise", True, slice(1, 2)),
        ("single_2_noise", True, slice(2, 3)),
    ],
)
def test_losses_as_released(name, noise, items, inputs):
    expected = values("sub_depth_values")[name]
    rec, scales, dis, _, _ = losses_of(inputs, noise=noise, items=items)
    assert rec.item() == pytest.approx(expected["reconstruction_total"], abs=1e-5, rel=1e-5)
    assert dis.item() == pytest.approx(expected["distillation"], abs=1e-5, rel=1e-5)
    assert (rec + dis).item() == pytest.approx(expected["loss"], abs=1e-5, rel=1e-5)
    for scale, value in scales.items():
        assert value.item() == pytest.approx(expected[f"loss/{scale}"], abs=1e-5, rel=1e-5)


def test_gradients_as_released(inputs):
    expected = arrays("sub_depth_outputs")
    leaves = {key: inputs[key].clone().requires_grad_() for key in inputs if key.startswith(("disp_", "unc", "ph_unc"))}
    rec, _, dis, parts, pho = losses_of({**inputs, **leaves})
    (rec + dis).backward()
    close(pho.exp(), expected["photometric_uncert_mean"], 1e-6)
    mostly_close(parts[0].minimum, expected["min_reprojection_0"], 1e-4, 0.999)
    for key, leaf in leaves.items():
        if key in ("uncert_1", "uncert_2", "uncert_3", "disp_teacher_0"):
            assert leaf.grad is None, key
        else:
            gradient = expected[f"grad_{key}"]
            mostly_close(leaf.grad, gradient, 1e-3 * gradient.abs().max().item(), 0.99, 1e-3)
    assert values("sub_depth_values")["uncert_scales_with_gradient"] == [0]


def test_pairings_agree_for_one_image_only(inputs):
    per_image = SubDepthConfig(sigma_min=0.0)
    for k in range(3):
        items = slice(k, k + 1)
        close(losses_of(inputs, per_image, items=items)[0], losses_of(inputs, items=items)[0], 1e-6)
    mean_of_singles = sum(losses_of(inputs, items=slice(k, k + 1))[0] for k in range(3)) / 3
    close(losses_of(inputs, per_image)[0], mean_of_singles, 1e-6)
    assert abs(losses_of(inputs)[0] - mean_of_singles) > 1e-4


def test_closed_form_is_the_broadcast_of_the_released_code():
    g = torch.Generator().manual_seed(0)
    m, sigma = torch.rand(3, 4, 5, generator=g), torch.rand(3, 1, 4, 5, generator=g) * 0.9 + 0.05
    broadcast = m / sigma + sigma.log()
    assert broadcast.shape == (3, 3, 4, 5)
    close(photometric_term(m, sigma.log(), "cross_batch"), broadcast.mean(), 1e-5)


def test_a_single_candidate_has_no_cross_term():
    g = torch.Generator().manual_seed(0)
    m, sigma = torch.rand(3, 1, 4, 5, generator=g), torch.rand(3, 1, 4, 5, generator=g) * 0.9 + 0.05
    close(photometric_term(m, sigma.log(), "cross_batch"), (m / sigma + sigma.log()).mean(), 1e-6)


def test_constant_uncertainty(inputs):
    c = 0.3
    file = {**inputs, **{key: torch.full_like(inputs[key], c) for key in inputs if "uncert_" in key}}
    for config in (AS_RELEASED, SubDepthConfig()):
        rec, _, dis, parts, _ = losses_of(file, config)
        plain = torch.stack([part.minimum.mean() for part in parts.values()]).mean()
        smooth = torch.stack([part.regularisation for part in parts.values()]).mean()
        distance = (inputs["disp_0"] - inputs["disp_teacher_0"]).abs().mean()
        close(rec + dis, (plain + distance) / c + 2 * math.log(c) + smooth, 1e-5)


def test_smoothness_is_not_divided_by_sigma_unless_asked(inputs):
    config = PhotometricConfig(smoothness=1.0)
    rough = losses_of(inputs, photometric=config)
    smooth = torch.stack([part.regularisation for part in rough[3].values()]).mean()
    none = losses_of(inputs, photometric=PhotometricConfig(smoothness=0.0))[0]
    close(rough[0], none + smooth, 1e-5)
    scaled = losses_of(inputs, SubDepthConfig("cross_batch", scale_pho_smoothness=True), photometric=config)
    close(scaled[0], none + smooth * torch.exp(-scaled[4]).mean(), 1e-5)


def test_fixed_weights(inputs):
    _, _, _, parts, _ = losses_of(inputs)
    plain, student, teacher = total_loss(parts), inputs["disp_0"], inputs["disp_teacher_0"]
    first = SubDepthConfig(loss_mode="weighted", w_pho=1.0, w_reg=0.0)
    assert weighted_loss(plain, student, teacher, first).item() == plain.item()
    second = SubDepthConfig(loss_mode="weighted", w_pho=0.2, w_reg=0.8)
    expected = 0.2 * plain + 0.8 * (student - teacher).abs().mean()
    close(weighted_loss(plain, student, teacher, second), expected, 1e-7)


def test_logarithms_survive_extreme_logits():
    z = torch.tensor([-200.0, 0.0, 200.0], dtype=torch.float16, requires_grad=True)
    logs = log_sigma(z)
    assert logs.dtype == torch.float32
    close(logs, torch.tensor([-200.0, -math.log(2), 0.0]), 1e-6)
    weighted_error(torch.full((3,), -1e-6), log_sigma(z, 1e-6)).sum().backward()
    assert torch.isfinite(z.grad).all()
    assert math.isclose(log_sigma(z, 1e-6)[0].item(), math.log(1e-6), rel_tol=1e-6)


def test_the_floor_bounds_the_loss_of_a_negative_error_and_changes_nothing_else():
    error = torch.full((1, 1, 2, 2), -1e-5)
    assert weighted_error(error, log_sigma(torch.full((1, 1, 2, 2), -60.0), 1e-6)).min() > -30
    z = torch.linspace(-10, 10, 50)
    assert torch.equal(log_sigma(z, 1e-6), log_sigma(z))


def test_sigma_pho_is_the_mean_of_the_maps():
    a, b = torch.tensor([[[[-3.0]]]]), torch.tensor([[[[2.0]]]])
    close(log_mean_sigma([a, b]).exp(), (torch.sigmoid(a) + torch.sigmoid(b)) / 2, 1e-6)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="shapes differ"):
        weighted_error(torch.zeros(3, 4, 5), torch.zeros(3, 1, 4, 5))


def test_the_teacher_gets_no_gradient_and_its_mode_decides_over_its_statistics():
    teacher = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    image = torch.rand(2, 3, 8, 8)
    for mode, moves in (("eval", False), ("train", True)):
        set_teacher_mode(teacher, mode)
        before = teacher[1].running_mean.clone()
        assert not teacher(image).requires_grad
        assert torch.equal(before, teacher[1].running_mean) is not moves


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"photometric_pairing": "per-image"}, "did you mean 'per_image'"),
        ({"loss_mode": "fixed"}, "loss_mode"),
        ({"sigma_min": 2.0}, "sigma_min is 2.0"),
    ],
)
def test_wrong_switches_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        SubDepthConfig(**options)
