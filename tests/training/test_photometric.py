"""Goldens of the photometric objective with all its options, and the quirks that make it what it is."""

import pytest

torch = pytest.importorskip("torch")

from adubench.errors import UsageError  # noqa: E402
from adubench.models.disparity import disparity_to_depth  # noqa: E402
from adubench.models.pose import Pose  # noqa: E402
from adubench.training.photometric import (  # noqa: E402
    PhotometricConfig,
    Views,
    generator_noise,
    mean_normalised,
    photometric_error,
    photometric_losses,
    smoothness_term,
    ssim_term,
    total_loss,
)
from adubench.training.view_synthesis import Cameras, pose_matrix  # noqa: E402
from tests.self_supervised import arrays, close, mostly_close, values  # noqa: E402

OPTIONS = {
    "default_noise": {},
    "default_zero_noise": {},
    "default_align_false": {"align_corners": False},
    "default_noise_align_false": {"align_corners": False},
    "no_automask": {"automask": False},
    "avg_reprojection": {"average": True},
    "avg_no_automask": {"average": True, "automask": False},
    "l1_only": {"ssim": False},
    "v1_multiscale": {"v1_multiscale": True},
    "v1_avg_no_automask": {"v1_multiscale": True, "average": True, "automask": False},
    "mono_stereo": {},
    "stereo_only": {},
    "stereo_only_no_automask": {"automask": False},
    "predictive_mask": {"automask": False},
    "posecnn_translation_scaling": {"scale_translations": True},
    "smoothness_1e-2": {"smoothness": 1e-2},
    "depth_range_1_80": {"min_depth": 1.0, "max_depth": 80.0},
}
SOURCES = {"mono_stereo": (-1, 1, "s"), "stereo_only": ("s",), "stereo_only_no_automask": ("s",)}


def make_views(file, sources=(-1, 1)):
    """The batch of the golden file."""
    motion = {
        f: file["stereo_T"]
        if f == "s"
        else Pose(file[f"axisangle_{f}"][:, 0, 0], file[f"translation_{f}"][:, 0, 0], invert=f < 0)
        for f in sources
    }
    return Views(
        {s: file[f"color_0_{s}"] for s in range(4)},
        {f: {s: file[f"color_{f}_{s}"] for s in range(4)} for f in sources},
        {s: Cameras(file[f"K_{s}"], file[f"inv_K_{s}"]) for s in range(4)},
        motion,
    )


def evaluate(name, file):
    noise = (lambda scale, shape: file[f"noise_{scale}"]) if "_noise" in name and "zero" not in name else None
    masks = {s: file[f"mask_{s}"] for s in range(4)} if name == "predictive_mask" else None
    return photometric_losses(
        {s: file[f"disp_{s}"] for s in range(4)},
        make_views(file, SOURCES.get(name, (-1, 1))),
        PhotometricConfig(**OPTIONS[name]),
        noise=noise,
        masks=masks,
    )


@pytest.fixture(scope="module")
def inputs():
    return arrays("loss_inputs")


def test_every_option_set_of_the_reference_is_tested():
    assert set(OPTIONS) == set(values("loss_values"))


@pytest.mark.parametrize("name", OPTIONS)
def test_loss_of_each_option_set(name, inputs):
    expected = values("loss_values")[name]
    losses = evaluate(name, inputs)
    assert total_loss(losses).item() == pytest.approx(expected["loss"], abs=1e-5, rel=1e-4)
    for scale, part in losses.items():
        assert part.loss.item() == pytest.approx(expected[f"loss/{scale}"], abs=1e-5, rel=1e-4)
        if f"selected_fraction/{scale}" in expected:
            share = part.reprojection_wins.float().mean().item()
            assert share == pytest.approx(expected[f"selected_fraction/{scale}"], abs=2e-3)
        else:
            assert part.reprojection_wins is None


def test_maps_and_gradients(inputs):
    expected = arrays("loss_outputs")
    leaves = {key: inputs[key].clone().requires_grad_() for key in inputs if key.startswith(("disp_", "axis", "trans"))}
    losses = evaluate("default_noise", {**inputs, **leaves})
    for scale, part in losses.items():
        selection = expected[f"identity_selection_{scale}"].bool()
        assert (part.reprojection_wins == selection).float().mean() >= 0.999
    for scale in (0, 3):
        mostly_close(losses[scale].candidates, expected[f"combined_{scale}"], 1e-3, 0.999)
    for f in (-1, 1):
        mostly_close(losses[0].grids[f], expected[f"grid_{f}_0"], 1e-4, 0.999, 1e-4)
        mostly_close(losses[0].warped[f], expected[f"warped_{f}_0"], 1e-3, 0.999)
        pose = make_views(inputs).motion[f]
        close(pose_matrix(pose.axisangle, pose.translation, invert=pose.invert), expected[f"T_{f}"], 2e-6)
    upsampled = torch.nn.functional.interpolate(inputs["disp_3"], size=(32, 96), mode="bilinear", align_corners=False)
    close(disparity_to_depth(upsampled), expected["depth_3"], 1e-5, 1e-5)
    total_loss(losses).backward()
    for key, leaf in leaves.items():
        gradient = expected[f"grad_{key}"]
        mostly_close(leaf.grad, gradient, 1e-3 * gradient.abs().max().item(), 0.99, 1e-3)


def test_translation_scaling_moves_the_grid(inputs):
    losses = evaluate("posecnn_translation_scaling", inputs)
    mostly_close(losses[0].grids[-1], arrays("loss_outputs")["grid_posecnn_-1_0"], 1e-4, 0.999, 1e-4)


def test_translation_scaling_leaves_the_stereo_source_alone(inputs):
    views = make_views(inputs, (-1, "s"))
    disparities = {0: inputs["disp_0"]}
    plain = photometric_losses(disparities, views, PhotometricConfig())
    scaled = photometric_losses(disparities, views, PhotometricConfig(scale_translations=True))
    assert torch.equal(plain[0].grids["s"], scaled[0].grids["s"])
    assert not torch.equal(plain[0].grids[-1], scaled[0].grids[-1])


def test_terms():
    file = arrays("photometric")
    pred, target, disparity = file["pred"], file["target"], file["disp"]
    close(ssim_term(pred, target), file["ssim"], 2e-5)
    close(photometric_error(pred, target), file["reprojection"], 2e-5)
    close(photometric_error(pred, target, ssim=False), file["reprojection_l1_only"], 2e-5)
    close(smoothness_term(disparity, target), file["smooth_raw"], 0, 1e-5)
    close(smoothness_term(mean_normalised(disparity), target), file["smooth_mean_normalised"], 0, 1e-5)


def test_the_two_parts_have_different_weights():
    """One paper prints the same factor on both; all code has 0.85 and 0.15."""
    pred, target = torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)
    ssim = ssim_term(pred, target).mean().item()
    assert photometric_error(pred, target)[0, 0, 0, 0].item() == pytest.approx(0.85 * ssim + 0.15, abs=1e-6)


def test_noise_is_fresh_for_every_scale_and_small(inputs):
    views = make_views(inputs)
    disparities = {s: inputs[f"disp_{s}"] for s in range(4)}
    drawn = []
    base = generator_noise(torch.Generator().manual_seed(3), torch.device("cpu"))

    def noise(scale, shape):
        drawn.append(base(scale, shape))
        return drawn[-1]

    losses = photometric_losses(disparities, views, PhotometricConfig(), noise=noise)
    assert len(drawn) == 4
    assert not torch.equal(drawn[0], drawn[1])
    clean = photometric_losses(disparities, views, PhotometricConfig())
    difference = losses[0].candidates[:, :2] - clean[0].candidates[:, :2]
    assert 0.5e-5 < difference.std() < 2e-5
    assert torch.equal(losses[0].candidates[:, 2:], clean[0].candidates[:, 2:])


def test_the_minimum_keeps_its_channel_only_with_one_candidate(inputs):
    disparities = {0: inputs["disp_0"]}
    stereo = make_views(inputs, ("s",))
    several = photometric_losses(disparities, stereo, PhotometricConfig())[0]
    single = photometric_losses(disparities, stereo, PhotometricConfig(automask=False))[0]
    assert several.minimum.shape == (2, 32, 96)
    assert single.minimum.shape == (2, 1, 32, 96)


def test_a_tie_goes_to_the_unwarped_source():
    """Static pixels drop out even without noise: the first of equal candidates is the un-warped one."""
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    eye = torch.eye(4)[None]
    views = Views({0: image}, {1: {0: image}}, {0: Cameras(eye, eye)}, {1: eye})
    part = photometric_losses({0: torch.full((1, 1, 8, 8), 0.5)}, views, PhotometricConfig(ssim=False))[0]
    assert not part.reprojection_wins.all()
    assert part.minimum.max() == 0


def test_smoothness_is_that_of_the_native_resolution_and_halves_per_scale(inputs):
    part = evaluate("default_zero_noise", inputs)[2]
    native = smoothness_term(mean_normalised(inputs["disp_2"]), inputs["color_0_2"])
    close(part.smoothness, native, 1e-7)
    assert part.smoothness_weight == 1e-3 / 4


def test_contradictions_are_named(inputs):
    with pytest.raises(UsageError, match="replace automasking"):
        photometric_losses({0: inputs["disp_0"]}, make_views(inputs), PhotometricConfig(), masks={0: inputs["mask_0"]})
    with pytest.raises(UsageError, match="at least one source"):
        photometric_losses({0: inputs["disp_0"]}, make_views(inputs, ()), PhotometricConfig())
