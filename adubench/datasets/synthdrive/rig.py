"""The sensor rig: a rectified colour pair and a 64-beam scanner, at about the places they have on KITTI's car."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from adubench.datasets.synthdrive.geometry import F64, RayGrid
from adubench.datasets.synthdrive.road import Pose

# Beams of the HDL-64: the upper block is denser than the lower one (+2 to -24.8 degrees).
BEAMS_DEG = np.concatenate([np.linspace(2.0, -8.33, 32), np.linspace(-8.85, -24.8, 32)])
AZIMUTH_LIMIT_DEG = 44.0
AZIMUTH_STEP_DEG = 0.17


@dataclass(frozen=True, slots=True)
class Rig:
    """Calibration of the rig.

    Attributes:
        size: height and width of the pictures.
        fx, fy, cx, cy: pixels, integer coordinates at pixel centres; equal for both cameras.
        shift: {camera: [3]}, P_rect = K [I | shift] (metres, camera 2 left and 3 right).
        rect: [3, 3] R_rect_00. velo_rotation: [3, 3], velo_shift: [3], scanner to unrectified reference camera.
    """

    size: tuple[int, int]
    fx: float
    fy: float
    cx: float
    cy: float
    shift: dict[int, F64]
    rect: F64
    velo_rotation: F64
    velo_shift: F64

    @property
    def K(self) -> F64:  # noqa: N802
        """Intrinsic matrix [3, 3]."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1.0]])

    @property
    def baseline_m(self) -> float:
        """Distance between the two cameras in metres."""
        return float(self.shift[2][0] - self.shift[3][0])

    def projection(self, camera: int) -> F64:
        """P_rect of a camera, [3, 4]."""
        return self.K @ np.column_stack([np.eye(3), self.shift[camera]])

    def camera_pose(self, pose: Pose, camera: int) -> F64:
        """Camera-to-world matrix [4, 4] of a camera."""
        out = np.eye(4)
        out[:3, :3] = pose.axes
        out[:3, 3] = pose.position - pose.axes @ self.shift[camera]
        return out

    def velo_pose(self, pose: Pose) -> F64:
        """Scanner-to-world matrix [4, 4]."""
        out = np.eye(4)
        out[:3, :3] = pose.axes @ self.rect @ self.velo_rotation
        out[:3, 3] = pose.position + pose.axes @ self.rect @ self.velo_shift
        return out

    def camera_rays(self, pose: Pose, camera: int, samples: int = 1) -> RayGrid:
        """Rays of a camera with samples x samples rays per pixel."""
        matrix = self.camera_pose(pose, camera)
        height, width = self.size
        inside = (np.arange(samples) + 0.5) / samples - 0.5
        x = ((np.arange(width)[:, None] + inside).reshape(-1) - self.cx) / self.fx
        y = ((np.arange(height)[:, None] + inside).reshape(-1) - self.cy) / self.fy
        right, down, forward = matrix[:3, :3].T
        col = right[:, None] * x + forward[:, None]
        row = down[:, None] * y
        return RayGrid(matrix[:3, 3], matrix[:3, :3], col.astype(np.float32), row.astype(np.float32), x, y)

    def scanner_rays(self, pose: Pose) -> RayGrid:
        """Rays of the scanner over what the cameras may see (+-44 degrees); coarser in azimuth for small pictures."""
        matrix = self.velo_pose(pose)
        step = AZIMUTH_STEP_DEG * max(1.0, 1242 / self.size[1])
        count = int(2 * AZIMUTH_LIMIT_DEG / step)
        azimuth = np.radians(AZIMUTH_LIMIT_DEG - step * np.arange(count))
        tangent = np.tan(np.radians(BEAMS_DEG))
        forward, left, up = matrix[:3, :3].T
        col = forward[:, None] * np.cos(azimuth) + left[:, None] * np.sin(azimuth)
        row = up[:, None] * tangent
        return RayGrid(
            matrix[:3, 3], matrix[:3, :3], col.astype(np.float32), row.astype(np.float32), -azimuth, -tangent, True
        )


def _turn(yaw: float, pitch: float, roll: float) -> F64:
    """Small rotation about y, x, z of a camera frame, degrees."""
    (cy, sy), (cx, sx), (cz, sz) = ((math.cos(math.radians(a)), math.sin(math.radians(a))) for a in (yaw, pitch, roll))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1.0]])
    out: F64 = about_z @ about_x @ about_y
    return out


def _rig(
    size: tuple[int, int], base: tuple[int, int], focal: float, centre: tuple[float, float], baseline: float
) -> Rig:
    """Scale a rig from its own picture size to `size` (corner-aligned pixel areas)."""
    height, width = size
    sx, sy = width / base[1], height / base[0]
    left = np.array([0.0598, -0.0004, 0.0027])
    axes = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
    return Rig(
        size,
        focal * sx,
        focal * sy,
        (centre[0] + 0.5) * sx - 0.5,
        (centre[1] + 0.5) * sy - 0.5,
        {2: left, 3: left - np.array([baseline, 0, 0])},
        _turn(0.55, -0.25, 0.45),
        _turn(-0.3, 0.4, -0.35) @ axes,
        np.array([-0.004, -0.08, -0.27]),
    )


def kitti_rig(size: tuple[int, int]) -> Rig:
    """The rig at KITTI's scale: fx 721.5377, 1242 x 375, baseline 0.5327 m."""
    return _rig(size, (375, 1242), 721.5377, (609.5593, 172.8540), 0.5327)


def drivingstereo_rig(size: tuple[int, int]) -> Rig:
    """The rig at DrivingStereo's scale: fx 1004 at the half size 881 x 400, baseline 0.5447 m."""
    return _rig(size, (400, 881), 1004.0, (440.5, 190.0), 0.5447)
