"""One drive, frame by frame: pictures, scans and ground truth, with eleven scans in memory at most."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adubench.datasets.synthdrive.geometry import F64
from adubench.datasets.synthdrive.lidar import WINDOW, accumulate, nearest_map, project, scan, to_world
from adubench.datasets.synthdrive.lightmap import bake
from adubench.datasets.synthdrive.noise import F32
from adubench.datasets.synthdrive.renderer import View, render
from adubench.datasets.synthdrive.rig import Rig
from adubench.datasets.synthdrive.scene import make_scene
from adubench.datasets.synthdrive.world import World

CAMERAS = (2, 3)
BOUNDARY_RATIO = 1.1


@dataclass(frozen=True, slots=True)
class DriveFrame:
    """Everything about one frame.

    Attributes:
        number: of the frame, from 0. views: by camera. scan: float32 [n, 4].
        ground_truth: accumulated maps by camera (float32 metres, 0 for none), empty where a drive has none.
        velodyne_raw: the scan of this frame as maps by camera, likewise.
    """

    number: int
    views: dict[int, View]
    scan: F32
    ground_truth: dict[int, F32]
    velodyne_raw: dict[int, F32]


def record(world: World, rig: Rig, every_frame: bool = False) -> Iterator[DriveFrame]:
    """Drive through a world.

    Args:
        world: the world with its poses.
        rig: the sensors.
        every_frame: accumulate at the ends of the drive too, from the scans there are (DrivingStereo), instead of
            leaving the first and last five frames without ground truth (KITTI).
    """
    frames = len(world.poses)
    lightmap = bake(world, min(0.25, max(0.08, 0.1 * 1242 / rig.size[1])))
    scans: dict[int, tuple[F32, F64]] = {}
    for frame in range(frames):
        for ahead in range(max(scans, default=-1) + 1, min(frame + WINDOW + 1, frames)):
            points = scan(make_scene(world, ahead), rig, ahead)
            scans[ahead] = points, to_world(points, rig.velo_pose(world.poses[ahead]))
        scans.pop(frame - WINDOW - 1, None)
        scene = make_scene(world, frame)
        light = lightmap.with_cars(scene, world.moving(frame))
        views = {camera: render(scene, rig, frame, camera, light) for camera in CAMERAS}
        truth: dict[int, F32] = {}
        raw: dict[int, F32] = {}
        if every_frame or WINDOW <= frame < frames - WINDOW:
            clouds = [cloud for _, cloud in scans.values()]
            for camera in CAMERAS:
                to_camera = invert(rig.camera_pose(world.poses[frame], camera))
                truth[camera] = accumulate(clouds, to_camera, rig, views[camera].depth, world.seed + frame)
                raw[camera] = nearest_map(project(scans[frame][1], to_camera, rig), rig.size)
        yield DriveFrame(frame, views, scans[frame][0], truth, raw)


def invert(rigid: F64) -> F64:
    """Invert a rigid motion [4, 4]."""
    out = np.eye(4)
    out[:3, :3] = rigid[:3, :3].T
    out[:3, 3] = -rigid[:3, :3].T @ rigid[:3, 3]
    return out


def boundaries(view: View) -> NDArray[np.bool_]:
    """Occlusion boundaries [H, W]: pixels with a 4-neighbour of another object more than 10 % farther, or sky."""
    depth = np.where(view.depth > 0, view.depth, np.float32(1e4))
    out = np.zeros(depth.shape, np.bool_)
    for axis in (0, 1):
        near = (slice(None), slice(1, None)) if axis else (slice(1, None), slice(None))
        far = (slice(None), slice(None, -1)) if axis else (slice(None, -1), slice(None))
        for a, b in ((near, far), (far, near)):
            out[a] |= (view.things[a] != view.things[b]) & (depth[b] > np.float32(BOUNDARY_RATIO) * depth[a])
    return out
