"""What TIE-KD's loss must keep although it looks odd, and what the release got wrong."""

import math
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from adubench.distillation import response  # noqa: E402
from adubench.distillation.depth_probability import dpm_divergence_map, dpm_target, window_radius  # noqa: E402
from adubench.distillation.ssim import depth_loss, ssim, ssim_map  # noqa: E402
from adubench.distillation.tie_kd import TieKDConfig, preset, tie_kd_loss  # noqa: E402
from adubench.errors import DataError, UsageError  # noqa: E402
from adubench.models.densedepth import bin_centres, bin_edges  # noqa: E402

CENTRES = bin_centres(bin_edges(257, 0.001, 80))


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def case(h=8, w=10, bins=257, seed=0):
    """Student depth, probabilities, centres and a teacher's depth."""
    centres = bin_centres(bin_edges(bins, 0.001, 80))
    probs = torch.softmax(4 * torch.randn(2, bins, h, w, generator=rng(seed)), dim=1)
    teacher = 1 + 78 * torch.rand(2, 1, h, w, generator=rng(seed + 1))
    return (probs * centres[None, :, None, None]).sum(1, keepdim=True), probs, centres, teacher


PLAIN = TieKDConfig(ignore_top_rows=0)


# --- the target


def test_target_is_a_softmax_of_densities_not_a_normalised_gaussian():
    target = dpm_target(torch.full((1, 1, 1, 1), 40.0), CENTRES, 0.5)[0, :, 0, 0]
    inside = target[target > 0]
    assert inside.max() / inside.min() < math.exp(1 / (0.5 * math.sqrt(2 * math.pi))) + 1e-4
    assert len(inside) == ((CENTRES - 40).abs() <= window_radius(0.5)).sum()


@pytest.mark.parametrize(("sigma", "radius"), [(0.15, 1.305), (0.5, 4.279), (0.8, 6.802), (1.0, 8.476), (2.0, 16.788)])
def test_window(sigma, radius):
    assert window_radius(sigma) == pytest.approx(radius, abs=1e-3)


def test_a_teacher_beyond_all_bins_makes_a_uniform_target():
    target = dpm_target(torch.full((1, 1, 1, 1), 95.0), CENTRES, 0.5)
    assert torch.allclose(target, torch.tensor(1 / 257))


def test_teacher_depth_zero_is_a_depth():
    target = dpm_target(torch.zeros(1, 1, 1, 1), CENTRES, 0.5)[0, :, 0, 0]
    assert target[0] > 0.05
    assert target[100] == 0


def test_an_underflowed_probability_adds_nothing():
    probs, teacher = torch.zeros(1, 257, 1, 1), torch.full((1, 1, 1, 1), 40.0)
    probs[0, 0] = 1
    for form in ("dense", "windowed"):
        assert float(dpm_divergence_map(probs, teacher, CENTRES, 0.5, form=form)) == 0


@pytest.mark.parametrize("bins", [257, 64, 5])
@pytest.mark.parametrize("sigma", [0.05, 0.5, 0.8, 2.0, 40.0])
def test_the_windowed_form_is_exact(bins, sigma):
    _, probs, centres, teacher = case(bins=bins)
    teacher.view(-1)[:6] = torch.tensor([0.0, 0.001, 80.0, 88.0, 300.0, -5.0])
    results = []
    for options in ({"form": "dense"}, {"form": "windowed"}, {"form": "windowed", "rows_at_once": 3}):
        leaf = probs.clone().requires_grad_()
        divergence = dpm_divergence_map(leaf, teacher, centres, sigma, **options)
        divergence.mean().backward()
        results.append((divergence.detach(), leaf.grad))
    for divergence, gradient in results[1:]:
        assert torch.allclose(divergence, results[0][0], atol=1e-6)
        assert torch.allclose(gradient, results[0][1], rtol=1e-5, atol=1e-7)


def test_the_target_is_a_constant():
    _, probs, centres, teacher = case()
    teacher.requires_grad_()
    assert not dpm_divergence_map(probs, teacher, centres, 0.5).requires_grad


# --- SSIM


def test_anti_correlated_structure_is_rewarded_like_correlated():
    x = torch.randn(1, 1, 24, 24, generator=rng()) * 0.1 + 20
    assert ssim_map(x, 40 - x)[..., 8:16, 8:16].mean() > 0.9


def test_the_window_is_not_renormalised_at_the_border():
    flat = torch.full((1, 1, 16, 16), 20.0)
    values = ssim_map(flat, flat + 5)
    assert values[0, 0, 8, 8] - values[0, 0, 0, 0] > 0.02


def test_masked_pixels_add_nothing():
    depth, _, _, teacher = case(20, 20)
    mask = torch.ones_like(teacher, dtype=torch.bool)
    mask[..., :5, :] = False
    changed = torch.where(mask, depth, torch.tensor(3.0))
    assert torch.allclose(depth_loss(depth, teacher, mask), depth_loss(changed, teacher, mask))
    assert float(depth_loss(depth, teacher, torch.zeros_like(mask))) == 0
    everything = torch.ones_like(mask)
    assert torch.allclose(depth_loss(depth, teacher, everything), 1 - ssim(depth, teacher))


def test_autocast_changes_nothing():
    depth, probs, centres, teacher = case()
    plain = tie_kd_loss(depth, probs, centres, teacher, PLAIN)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = tie_kd_loss(depth, probs, centres, teacher, PLAIN)
    assert under.total.dtype == torch.float32
    assert torch.equal(plain.total, under.total)


# --- the total, and the release's slips


def test_sigma_is_honoured_and_presets_say_which():
    intended, released = preset("as-intended"), preset("as-released")
    assert (intended.sigma, released.sigma) == (0.8, 0.5)
    assert (intended.rotate_teacher, released.rotate_teacher) == (True, False)
    assert (preset("as-intended", dataset="nyu").sigma, preset("as-released", dataset="nyu").sigma) == (0.15, 0.5)
    assert preset("as-intended", dataset="nyu").ignore_top_rows == 0
    assert (intended.ignore_top_rows, intended.alpha, intended.factor) == (110, 0.1, 10)
    inputs = case()
    wide, narrow = (tie_kd_loss(*inputs, replace(PLAIN, sigma=s)).l_dpm for s in (0.8, 0.5))
    assert (wide - narrow).abs() > 1e-3


@pytest.mark.parametrize("alpha", [1.5, -0.1, math.nan])
def test_alpha_outside_0_to_1_is_refused(alpha):
    with pytest.raises(UsageError, match="0 to 1"):
        preset("as-intended", alpha=alpha)


@pytest.mark.parametrize("change", [{"sigma": 0.0}, {"factor": 0.0}, {"ignore_top_rows": -1}])
def test_other_values_out_of_range(change):
    with pytest.raises(UsageError, match="it takes"):
        TieKDConfig(**change)


def test_unknown_presets_are_named():
    with pytest.raises(UsageError, match="as-released"):
        preset("released")


def test_ablations_are_the_ends_of_the_same_formula():
    inputs = case()
    both = tie_kd_loss(*inputs, PLAIN)
    only_dpm = tie_kd_loss(*inputs, replace(PLAIN, alpha=1.0, factor=1.0))
    only_depth = tie_kd_loss(*inputs, replace(PLAIN, alpha=0.0, factor=1.0))
    assert torch.allclose(only_dpm.total, both.l_dpm)
    assert torch.allclose(only_depth.total, both.l_depth)
    assert torch.allclose(both.total, 10 * (0.1 * both.l_dpm + 0.9 * both.l_depth))


def test_rows_are_sliced_never_padded_and_never_inferred_from_the_width():
    depth, probs, centres, teacher = case(h=14, w=704, bins=9)
    cut = tie_kd_loss(depth[:, :, 6:], probs[:, :, 6:], centres, teacher[:, :, 6:], PLAIN)
    assert torch.equal(tie_kd_loss(depth, probs, centres, teacher, replace(PLAIN, ignore_top_rows=6)).total, cut.total)
    assert not torch.equal(tie_kd_loss(depth, probs, centres, teacher, PLAIN).total, cut.total)
    with pytest.raises(DataError, match="leaves nothing"):
        tie_kd_loss(depth, probs, centres, teacher, TieKDConfig())


def test_sizes_must_agree():
    depth, probs, centres, teacher = case()
    with pytest.raises(DataError, match="must share"):
        tie_kd_loss(depth, probs, centres, teacher[..., 1:], PLAIN)


def test_a_mask_of_ones_is_no_mask_and_masked_pixels_have_no_gradient():
    depth, probs, centres, teacher = case(12, 12)
    mask = torch.ones_like(teacher, dtype=torch.bool)
    whole, unmasked = (tie_kd_loss(depth, probs, centres, teacher, PLAIN, mask=m).total for m in (mask, None))
    assert torch.allclose(whole, unmasked)
    mask[..., :3] = False
    leaf = probs.clone().requires_grad_()
    depth = (leaf * centres[None, :, None, None]).sum(1, keepdim=True)
    tie_kd_loss(depth, leaf, centres, teacher, PLAIN, mask=mask).total.backward()
    assert leaf.grad[..., :3].abs().max() == 0
    assert leaf.grad[..., 3:].abs().min(dim=1).values.max() > 0


def test_no_ground_truth_enters():
    """The signature itself: the loss sees the student and the teacher's map."""
    names = tie_kd_loss.__code__.co_varnames[: tie_kd_loss.__code__.co_argcount]
    assert names == ("depth", "probs", "centres", "teacher", "config")


# --- response baselines and the teachers' losses


def test_si_counts_ground_truth_pixels_only_and_beta_is_015():
    pred = torch.tensor([2.0, 4.0, 7.0, 9.0]).reshape(1, 1, 2, 2)
    gt = torch.tensor([1.0, 1.0, 3.0, 0.0]).reshape(1, 1, 2, 2)
    error = (torch.log(pred + 0.001) - torch.log(gt + 0.001)).flatten()[:3]
    assert torch.allclose(response.si_loss(pred, gt), torch.sqrt(error.var() + 0.15 * error.mean() ** 2))
    limited = response.si_loss(pred, gt, max_depth=2.0)
    assert torch.allclose(limited, torch.sqrt(error[:2].var() + 0.15 * error[:2].mean() ** 2))


def test_warm_up_follows_the_step_index():
    pred, gt = 1 + torch.rand(1, 1, 4, 4, generator=rng()), torch.ones(1, 1, 4, 4)
    early, last, after = (response.si_loss(pred, gt, step=s, warm_up=100, weight=2.0) for s in (0, 99, 100))
    mean = (torch.log(pred + 0.001) - math.log(1.001)).mean().abs()
    assert torch.allclose(early, 2 * math.sqrt(0.15) * mean)
    assert torch.equal(early, last)
    assert torch.equal(after, response.si_loss(pred, gt, weight=2.0))
    with pytest.raises(ValueError, match="step"):
        response.si_loss(pred, gt, warm_up=100)


def test_weights_go_on_ssim_alone():
    _, _, _, teacher = case()
    pred = teacher * 1.1
    one = {kind: response.response_kd_loss(kind, pred, teacher, weight=1.0) for kind in response.RESPONSE_WEIGHTS}
    three = {kind: response.response_kd_loss(kind, pred, teacher, weight=3.0) for kind in response.RESPONSE_WEIGHTS}
    assert torch.equal(three["mse"], one["mse"])
    assert torch.allclose(three["si"], 3 * one["si"])
    assert torch.allclose(three["ssim"], 3 * one["ssim"])
    assert torch.allclose(three["ssim+si"], 3 * one["ssim"] + one["si"])
    assert torch.allclose(three["ssim+mse"], 3 * one["ssim"] + one["mse"])
    with pytest.raises(UsageError, match=r"ssim\+si"):
        response.response_kd_loss("ssim-si", pred, teacher)


@pytest.mark.parametrize("kind", list(response.RESPONSE_WEIGHTS))
def test_masked_pixels_do_not_count_in_the_baselines(kind):
    depth, _, _, teacher = case(20, 20)
    mask = torch.ones_like(teacher, dtype=torch.bool)
    same = response.response_kd_loss(kind, depth, teacher, mask=mask)
    assert torch.allclose(same, response.response_kd_loss(kind, depth, teacher))
    mask[..., :4] = False
    changed = torch.where(mask, depth, torch.tensor(50.0))
    first, second = (response.response_kd_loss(kind, d, teacher, mask=mask) for d in (depth, changed))
    assert torch.allclose(first, second)


def test_adabins_and_bts_take_other_variances_and_other_pixels():
    pred = torch.tensor([2.0, 4.0, 7.0, 9.0]).reshape(1, 1, 2, 2)
    gt = torch.tensor([0.5, 1.0, 3.0, 5.0]).reshape(1, 1, 2, 2)
    e = torch.log(pred / gt).flatten()
    assert torch.allclose(response.adabins_silog(pred, gt), 10 * torch.sqrt(e.var() + 0.15 * e.mean() ** 2))
    e = e[2:]
    assert torch.allclose(response.bts_silog(pred, gt), 10 * torch.sqrt((e**2).mean() - 0.85 * e.mean() ** 2))


@pytest.mark.parametrize(
    "loss",
    [
        lambda p, g: response.si_loss(p, g),
        lambda p, g: response.adabins_silog(p, g),
        lambda p, g: response.bts_silog(p, g),
        lambda p, g: response.bin_chamfer(p.flatten(1), g),
    ],
)
def test_no_ground_truth_gives_zero_with_a_graph(loss):
    pred = torch.rand(2, 1, 3, 3, generator=rng()).requires_grad_()
    value = loss(pred, torch.zeros(2, 1, 3, 3))
    value.backward()
    assert value.item() == 0
    assert torch.equal(pred.grad, torch.zeros_like(pred))


@pytest.mark.parametrize("loss", [response.si_loss, response.adabins_silog, response.bts_silog])
def test_perfect_predictions_have_a_finite_gradient(loss):
    gt = torch.full((1, 1, 3, 3), 5.0)
    pred = gt.clone().requires_grad_()
    loss(pred, gt).backward()
    assert torch.isfinite(pred.grad).all()


def test_chamfer_leaves_out_images_without_ground_truth():
    edges = torch.tensor([[1.0, 3.0, 5.0], [1.0, 3.0, 5.0]])
    gt = torch.zeros(2, 1, 2, 2)
    gt[0, 0, 0] = torch.tensor([2.5, 7.0])
    # centres 2 and 4: (0.25 + 2.25) / 2 towards the values, (0.25 + 9) / 2 back.
    assert float(response.bin_chamfer(edges, gt)) == pytest.approx(1.25 + 4.625)
