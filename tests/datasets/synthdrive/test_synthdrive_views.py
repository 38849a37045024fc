"""Pictures, depth, scans and poses of one drive fit together."""

from __future__ import annotations

import numpy as np
import pytest

from adubench.datasets.synthdrive.drive import boundaries, invert
from adubench.datasets.synthdrive.lidar import project, scan, to_world
from adubench.datasets.synthdrive.lightmap import bake
from adubench.datasets.synthdrive.renderer import View, render
from adubench.datasets.synthdrive.rig import Rig, drivingstereo_rig, kitti_rig
from adubench.datasets.synthdrive.scene import make_scene
from adubench.datasets.synthdrive.world import CLASS_ID, World, make_world

SIZE = (125, 414)
RIG = kitti_rig(SIZE)
FRAME = 2


@pytest.fixture(scope="module", params=[1, 2, 3], ids=["city", "residential", "country"])
def drive(request: pytest.FixtureRequest) -> tuple[World, dict[tuple[int, int], View]]:
    world = make_world(5, request.param, 11)
    light = bake(world, 0.2)
    views = {(f, c): render(make_scene(world, f), RIG, f, c, light) for f, c in ((2, 2), (2, 3), (3, 2))}
    return world, views


def _warp(
    depth: np.ndarray, source: View, rig: Rig, to_source: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Picture of `source` seen from where `depth` was taken; expected and found depth there."""
    v, u = np.indices(depth.shape)
    ray = np.stack([(u - rig.cx) / rig.fx, (v - rig.cy) / rig.fy, np.ones_like(depth)])
    point = np.tensordot(to_source[:3, :3], ray * depth, 1) + to_source[:3, 3, None, None]
    z = np.maximum(point[2], 1e-3)
    x, y = point[0] / z * rig.fx + rig.cx, point[1] / z * rig.fy + rig.cy
    height, width = depth.shape
    inside = (depth > 0) & (x >= 0) & (x < width - 1) & (y >= 0) & (y < height - 1) & (point[2] > 0.5)
    x, y = np.clip(x, 0, width - 1.001), np.clip(y, 0, height - 1.001)
    x0, y0 = x.astype(int), y.astype(int)
    fx, fy = (x - x0)[..., None], (y - y0)[..., None]
    image = source.image.astype(float)
    top = image[y0, x0] * (1 - fx) + image[y0, x0 + 1] * fx
    bottom = image[y0 + 1, x0] * (1 - fx) + image[y0 + 1, x0 + 1] * fx
    corners = np.stack([source.depth[y0 + j, x0 + i] for j in (0, 1) for i in (0, 1)])
    smooth = corners.max(0) - corners.min(0) < 0.05 * corners.max(0)
    inverse = 1 / np.maximum(corners, 1e-3)  # linear over a plane
    left, right = (inverse[k] * (1 - fy[..., 0]) + inverse[k + 2] * fy[..., 0] for k in (0, 1))
    near = 1 / (left * (1 - fx[..., 0]) + right * fx[..., 0])
    visible = inside & smooth & (corners.min(0) > 0) & (np.abs(near - z) < 0.05 * z + 0.05)
    return top * (1 - fy) + bottom * fy, visible, near / z


def _error(drive: tuple[World, dict[tuple[int, int], View]], frame: int, camera: int, shift: float = 0.0) -> tuple:
    world, views = drive
    target, source = views[FRAME, 2], views[frame, camera]
    motion = invert(RIG.camera_pose(world.poses[frame], camera)) @ RIG.camera_pose(world.poses[FRAME], 2)
    motion[0, 3] += shift
    image, visible, ratio = _warp(target.depth, source, RIG, motion)
    error = np.abs(image - target.image).mean(2)
    return error[visible].mean(), visible.mean(), np.median(np.abs(ratio[visible] - 1))


@pytest.mark.parametrize(("frame", "camera"), [(2, 3), (3, 2)], ids=["right picture", "next picture"])
def test_views_are_photo_consistent(drive: tuple, frame: int, camera: int) -> None:
    error, share, depth_error = _error(drive, frame, camera)
    assert share > 0.4
    assert error < 6.0  # grey levels; sensor noise alone makes about 2
    assert depth_error < 1e-4
    wrong, _, _ = _error(drive, frame, camera, shift=0.2)
    assert wrong > 1.2 * error


def test_scan_agrees_with_dense_depth_away_from_edges(drive: tuple) -> None:
    world, views = drive
    scene = make_scene(world, FRAME)
    points = scan(scene, RIG, FRAME)
    assert points.dtype == np.float32
    assert 0 <= points[:, 3].min() <= points[:, 3].max() <= 1
    assert np.linalg.norm(points[:, :3], axis=1).max() < 91
    depth = views[FRAME, 2].depth
    seen = project(
        to_world(points, RIG.velo_pose(world.poses[FRAME])), invert(RIG.camera_pose(world.poses[FRAME], 2)), RIG
    )
    pad = np.pad(depth, 1, mode="edge")
    around = np.stack([pad[j : j + SIZE[0], i : i + SIZE[1]] for j in range(3) for i in range(3)])
    low, high = around.min(0).reshape(-1)[seen.pixel], around.max(0).reshape(-1)[seen.pixel]
    flat = (low > 0) & (high < 1.2 * low)
    assert flat.sum() > 1000
    fits = (seen.depth > low - 0.1) & (seen.depth < high + 0.1)
    assert fits[flat].mean() > 0.985
    exact = depth.reshape(-1)[seen.pixel]
    close = flat & (exact < 15)
    assert abs(np.median((seen.depth - exact)[close])) < 0.02


def test_scanner_sees_past_edges_that_the_camera_does_not() -> None:
    """Parallax: at object edges some returns lie well behind what their pixel shows."""
    world = make_world(5, 1, 11)
    scene, depth = make_scene(world, 0), None
    depth = render(scene, RIG, 0, 2, bake(world, 0.25)).depth
    cloud = to_world(scan(scene, RIG, 0), RIG.velo_pose(world.poses[0]))
    seen = project(cloud, invert(RIG.camera_pose(world.poses[0], 2)), RIG)
    behind = seen.depth > 1.3 * depth.reshape(-1)[seen.pixel] + 1
    assert 0.001 < behind.mean() < 0.1


def test_ego_motion_is_smooth_and_of_the_right_speed() -> None:
    for number in (1, 2, 3, 4):
        world = make_world(9, number, 80)
        position = np.stack([pose.position for pose in world.poses])
        step = np.linalg.norm(np.diff(position, axis=0), axis=1)
        assert step.min() > 0.45
        assert step.max() < 1.4
        assert np.abs(np.diff(step)).max() < 0.1
        lateral = world.road.lateral(position[:, 0].astype(np.float32), position[:, 1].astype(np.float32))
        assert np.all((lateral < -1.4) & (lateral > -2.1))
        for pose in world.poses:
            np.testing.assert_allclose(pose.axes.T @ pose.axes, np.eye(3), atol=1e-12)
            assert np.linalg.det(pose.axes) > 0


def test_weak_light_is_dark_and_noisy() -> None:
    views = {}
    for number in (2, 6):
        world = make_world(5, number, 11)
        views[number] = render(make_scene(world, 0), RIG, 0, 2, bake(world, 0.25)).image
    assert views[6].mean() < 0.5 * views[2].mean()
    assert views[2].mean() > 70


def test_pictures_have_sky_road_and_objects(drive: tuple) -> None:
    view = drive[1][FRAME, 2]
    classes = np.unique(view.things >> 8)
    assert {CLASS_ID["sky"], CLASS_ID["road"], CLASS_ID["kerb"], CLASS_ID["vegetation"]} <= set(classes.tolist())
    assert ((view.things >> 8 == CLASS_ID["sky"]) & (view.depth > 0)).sum() == 0
    assert view.depth.max() < 256
    assert len(np.unique(view.things)) > 15
    edge = boundaries(view)
    assert 0.005 < edge.mean() < 0.2


def test_moving_cars_move() -> None:
    world = make_world(5, 1, 11, moving_cars=True)
    first, second = world.moving(0), world.moving(1)
    assert len(first) == len(second) > 0
    step = [np.linalg.norm(b.origin - a.origin) for a, b in zip(first, second, strict=True)]
    assert min(step) > 0.6
    assert max(step) < 1.3
    static = make_world(5, 1, 11)
    assert static.moving(0) == []
    depth = [render(make_scene(w, 0), RIG, 0, 2, bake(w, 0.25)).depth for w in (world, static)]
    assert (np.abs(depth[0] - depth[1]) > 0.5).mean() > 0.003


def test_rigs_have_the_field_of_view_of_their_data_sets() -> None:
    full = kitti_rig((375, 1242))
    assert (full.fx, full.fy) == (721.5377, 721.5377)
    np.testing.assert_allclose((full.cx, full.cy, full.baseline_m), (609.5593, 172.854, 0.5327))
    half = kitti_rig((188, 621))
    assert half.fx == pytest.approx(full.fx / 2)
    assert half.cx == pytest.approx((full.cx + 0.5) / 2 - 0.5)
    assert drivingstereo_rig((400, 881)).fx == pytest.approx(1004)
    velo = full.rect @ full.velo_rotation
    np.testing.assert_allclose(velo @ velo.T, np.eye(3), atol=1e-12)
    assert velo[2, 0] > 0.999  # the scanner's x points forward


def test_cars_ahead_are_never_run_into() -> None:
    for number in (1, 2, 3):
        world = make_world(11, number, 250, moving_cars=True)
        for frame in range(0, 250, 5):
            x = world.poses[frame].position[0]
            ahead = [m.start + m.speed * frame - x for m in world.movers if m.speed > 0]
            assert min(ahead) > 6
