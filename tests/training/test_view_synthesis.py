"""Goldens of the geometry (Monodepth2, layers.py), and the quirks that make it what it is."""

import pytest

torch = pytest.importorskip("torch")

from adubench.training.view_synthesis import (  # noqa: E402
    Cameras,
    backproject,
    pose_matrix,
    project,
    rotation_matrix,
    sample,
    scale_translation,
    synthesise,
)
from tests.self_supervised import arrays, close  # noqa: E402


def test_pose_matrices():
    file = arrays("pose_matrix")
    axisangle, translation = file["axisangle"][:, 0], file["translation"][:, 0]
    close(rotation_matrix(axisangle), file["rotation"][:, :3, :3], 2e-6)
    close(pose_matrix(axisangle, translation), file["matrix"], 2e-6)
    close(pose_matrix(axisangle, translation, invert=True), file["matrix_inverted"], 2e-6)


def test_no_rotation_is_exactly_the_identity_and_has_a_gradient():
    axisangle = torch.zeros(1, 3, requires_grad=True)
    R = rotation_matrix(axisangle)
    assert torch.equal(R[0], torch.eye(3))
    R.sum().backward()
    assert torch.isfinite(axisangle.grad).all()


def test_the_axis_is_divided_by_the_angle_plus_1e_7():
    """At an angle of 1e-7 the axis has length one half; a clean normalisation doubles the rotation."""
    R = rotation_matrix(torch.tensor([[0.0, 0.0, 1e-7]]))
    assert R[0, 1, 0].item() == pytest.approx(0.5e-7, rel=1e-3)


def test_inverted_is_the_inverse():
    g = torch.Generator().manual_seed(0)
    axisangle, translation = torch.randn(4, 3, generator=g), torch.randn(4, 3, generator=g)
    product = pose_matrix(axisangle, translation) @ pose_matrix(axisangle, translation, invert=True)
    close(product, torch.eye(4).expand(4, 4, 4), 1e-5)


def test_warp():
    file = arrays("warp")
    points = backproject(file["depth"], file["inv_K"])
    close(points, file["cam_points"], 1e-4, 1e-5)
    grid = project(file["cam_points"], file["K"], file["T"], (12, 20))
    close(grid, file["grid"], 1e-4, 1e-4)
    close(sample(file["image"], file["grid"]), file["warped_align_true"], 1e-6)
    close(sample(file["image"], file["grid"], align_corners=False), file["warped_align_false"], 1e-6)


@pytest.mark.parametrize("align_corners", [True, False])
def test_identity_motion_reproduces_the_image_only_with_aligned_corners(align_corners):
    file = arrays("warp")
    cameras = Cameras(file["K"][:1], file["inv_K"][:1])
    image = file["image"][:1]
    out, _ = synthesise(image, file["depth"][:1], torch.eye(4)[None], cameras, align_corners=align_corners)
    error = (out - image).abs().max().item()
    assert (error < 1e-4) is align_corners


def test_points_behind_the_camera_are_projected_too():
    points = torch.tensor([[[1.0], [2.0], [-4.0], [1.0]]])
    K = torch.eye(4)[None]
    grid = project(points, K, torch.eye(4)[None], (1, 1)).flatten()
    assert not torch.isfinite(grid).all()  # a one-pixel image has no extent
    pixels = (project(points.expand(1, 4, 6), K, torch.eye(4)[None], (2, 3)) / 2 + 0.5)[0, 0, 0]
    close(pixels * torch.tensor([2.0, 1.0]), torch.tensor([-0.25, -0.5]), 1e-6)


def test_the_grid_is_scaled_by_the_size_less_one():
    points = torch.tensor([4.0, 3.0, 1.0, 1.0]).view(1, 4, 1).expand(1, 4, 20)
    grid = project(points, torch.eye(4)[None], torch.eye(4)[None], (4, 5))
    close(grid[0, 0, 0], torch.tensor([1.0, 1.0]), 1e-5)


def test_translations_scale_by_the_mean_of_the_inverse_depth_not_by_the_inverse_of_the_mean():
    depth = torch.tensor([1.0, 4.0]).view(1, 1, 1, 2)
    close(scale_translation(torch.ones(1, 3), depth), torch.full((1, 3), 0.625), 1e-7)


def test_nan_positions_give_nan_and_the_process_survives_the_backward_pass():
    """torch reads the first pixel at NaN, and its backward pass on the CPU is a segmentation fault."""
    source = torch.rand(2, 3, 8, 8, requires_grad=True)
    grid = torch.zeros(2, 8, 8, 2)
    grid[1, 2:4] = float("nan")
    grid[0, 0, 0, 0] = float("inf")  # far outside: the border
    grid.requires_grad_(True)
    read = sample(source, grid)
    assert read[1, :, 2:4].isnan().all()
    assert read.isnan().sum() == 3 * 2 * 8
    read.nansum().backward()
    assert grid.grad.isfinite().all()
