"""The 64-beam scanner: range noise, dropout, reflectance; and the ground truth accumulated from eleven scans."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adubench.datasets.synthdrive.bodies import CAR_CABIN
from adubench.datasets.synthdrive.geometry import F64, FACE_BITS, SKY
from adubench.datasets.synthdrive.noise import F32, hash_unit
from adubench.datasets.synthdrive.rig import Rig
from adubench.datasets.synthdrive.road import GROUND
from adubench.datasets.synthdrive.scene import Scene

RANGE_NOISE_M = 0.02
MAX_RANGE_M = 90.0
MIN_RANGE_M = 1.5
WINDOW = 5
TOLERANCE_M, TOLERANCE = 0.05, 0.01
MATCHED = 0.6


def scan(scene: Scene, rig: Rig, frame: int) -> F32:
    """Take the scan of a frame: float32 [n, 4], x forward, y left, z up in metres, reflectance 0..1; beam by beam."""
    grid = rig.scanner_rays(scene.world.poses[frame])
    hits = scene.cast(grid)
    row, column = np.nonzero(hits.code != SKY)
    code, rho = hits.code[row, column], 1 / hits.w[row, column]
    tangent, azimuth = -grid.row_key[row], -grid.col_key[column]
    stretch = np.sqrt(1 + tangent * tangent)
    distance = rho * stretch
    body = code >> FACE_BITS
    seed = scene.world.seed * 977 + frame
    keep = (distance < MAX_RANGE_M) & (distance > MIN_RANGE_M)
    chance = _return_chance(scene, grid.col[:, column] + grid.row[:, row], code, distance, stretch)
    keep &= hash_unit(row, column, seed=seed) < chance * _thinning(rig)
    noise = sum(hash_unit(row, column, k, seed=seed + 5) for k in range(1, 5))
    distance = distance + RANGE_NOISE_M * np.sqrt(3.0) * (np.asarray(noise, np.float64) - 2)
    flat = distance / stretch
    colour = scene.tables.colour[body].mean(1)
    reflectance = np.where(body == GROUND, 0.22, 0.15 + 0.7 * colour)
    reflectance = reflectance * (0.85 + 0.3 * hash_unit(row, column, 9, seed=seed))
    points = np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), flat * tangent, reflectance], 1)
    return points[keep].astype(np.float32)


def _thinning(rig: Rig) -> float:
    """Share of rays fired: pictures with fewer rows would otherwise be covered more densely than KITTI's."""
    return float(min(1.0, rig.size[0] / 375) ** 0.6)


def _return_chance(scene: Scene, ray: F32, code: NDArray[np.int32], distance: F64, stretch: F64) -> F64:
    """Probability of a return: falls with distance, grazing incidence and dark or mirroring surfaces."""
    body, face = code >> FACE_BITS, code & ((1 << FACE_BITS) - 1)
    normal = scene.tables.normals[body, face].T
    cosine = np.abs((normal * ray).sum(0)) / stretch
    cosine = np.where(scene.tables.round_body[body] > 0, 0.7, cosine)
    cosine = np.where(body == GROUND, np.abs(ray[2]) / stretch, cosine)
    albedo = np.where(body == GROUND, 0.25, scene.tables.colour[body].mean(1))
    glass = scene.tables.material[body] == CAR_CABIN
    strength = (0.15 + albedo) * (0.25 + cosine) * (60 / np.maximum(distance, 8)) ** 1.5
    chance = np.clip(0.25 + 0.9 * strength, 0, 0.97)
    return np.where(glass, 0.35 * chance, chance)


@dataclass(frozen=True, slots=True)
class Projected:
    """Points that fall into a picture: flat pixel positions and depths."""

    pixel: NDArray[np.int64]
    depth: F64


def project(points: F64, world_to_camera: F64, rig: Rig) -> Projected:
    """Project world points [n, 3]; each goes to the nearest pixel centre."""
    local = points @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]
    z = local[:, 2]
    local, z = local[z > 0.5], z[z > 0.5]
    u = np.rint(local[:, 0] / z * rig.fx + rig.cx).astype(np.int64)
    v = np.rint(local[:, 1] / z * rig.fy + rig.cy).astype(np.int64)
    height, width = rig.size
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    return Projected(v[inside] * width + u[inside], z[inside])


def nearest_map(points: Projected, size: tuple[int, int]) -> F32:
    """Keep the nearest point of each pixel; float32 [H, W], 0 for none."""
    out = np.full(size[0] * size[1], np.inf)
    np.minimum.at(out, points.pixel, points.depth)
    return np.where(np.isfinite(out), out, 0).reshape(size).astype(np.float32)


def accumulate(clouds: list[F64], world_to_camera: F64, rig: Rig, dense: F32, seed: int) -> F32:
    """Merge world-frame scans into one map and keep what agrees with the view.

    KITTI rejects points that disagree with a stereo reconstruction (moving and occluded ones); here the exact depth
    takes that part: a point stays if it is within TOLERANCE_M + TOLERANCE * depth of its pixel's depth. A
    reconstruction is not complete either, so only the share MATCHED of all points has the chance.
    """
    seen = project(np.concatenate(clouds), world_to_camera, rig)
    exact = dense.reshape(-1)[seen.pixel]
    agree = (exact > 0) & (hash_unit(np.arange(exact.size), seed=seed) < MATCHED)
    agree &= np.abs(seen.depth - exact) <= TOLERANCE_M + TOLERANCE * exact
    return nearest_map(Projected(seen.pixel[agree], seen.depth[agree]), rig.size)


def to_world(points: F32, velo_pose: F64) -> F64:
    """Scanner points [n, 4] to world points [n, 3]."""
    out: F64 = points[:, :3].astype(np.float64) @ velo_pose[:3, :3].T + velo_pose[:3, 3]
    return out
