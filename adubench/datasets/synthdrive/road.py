"""The road: its curve, its cross-section with kerbs, and the way the car drives on it."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np

from adubench.datasets.synthdrive.geometry import F64, FACE_BITS, Hits, RayGrid
from adubench.datasets.synthdrive.noise import F32

KERB_HEIGHT = 0.12
CAMERA_HEIGHT = 1.65
GROUND = 0  # number of the ground among the primitives
ROAD_FACE, VERGE_FACE, KERB_FACE = 0, 1, 2
LANE = 3.5
_FARTHEST = 900.0


@dataclass(frozen=True, slots=True)
class Road:
    """A road along y = f(x) on the plane z = 0, its verge KERB_HEIGHT higher.

    Attributes:
        waves: (amplitude m, wave number 1/m, phase) of the sines that f is made of.
        half_width: metres from the centre line to the kerb.
        walk: width of the pavement beyond the kerb, 0 for none.
    """

    waves: tuple[tuple[float, float, float], ...]
    half_width: float
    walk: float

    def centre(self, x: float) -> tuple[float, float]:
        """Return y and slope of the centre line at x."""
        y = sum(a * (math.sin(k * x + p) - math.sin(p)) for a, k, p in self.waves)
        return y, sum(a * k * math.cos(k * x + p) for a, k, p in self.waves)

    def place(self, x: float, lateral: float) -> tuple[float, float, float]:
        """Return world x, y and heading of a spot `lateral` metres left of the centre line."""
        y, slope = self.centre(x)
        length = math.hypot(1.0, slope)
        return x - lateral * slope / length, y + lateral / length, math.atan(slope)

    def lateral(self, x: F32, y: F32) -> F32:
        """Signed distance from the centre line (left positive) of points on the plane."""
        curve = np.zeros_like(x)
        slope = np.zeros_like(x)
        for a, k, p in self.waves:
            phase = x * np.float32(k) + np.float32(p)
            curve += np.float32(a) * np.sin(phase) - np.float32(a * math.sin(p))
            slope += np.float32(a * k) * np.cos(phase)
        out: F32 = (y - curve) / np.sqrt(1 + slope * slope)
        return out


def cast_ground(grid: RayGrid, road: Road, hits: Hits) -> None:
    """Fill empty `hits` with road, kerb and verge."""
    lowest = grid.row[2] + grid.col[2].min()
    rows = np.flatnonzero(lowest < 0)
    if rows.size == 0:
        return
    first, last = int(rows[0]), int(rows[-1]) + 1
    row, col = grid.row[:, first:last], grid.col
    fall = -(row[2][:, None] + col[2][None])
    fall = np.maximum(fall, np.float32(1e-9))
    height = float(grid.origin[2])
    w_road = fall * np.float32(1 / height)
    w_verge = fall * np.float32(1 / (height - KERB_HEIGHT))
    dx = row[0][:, None] + col[0][None]
    dy = row[1][:, None] + col[1][None]
    x0, y0 = np.float32(grid.origin[0]), np.float32(grid.origin[1])
    half = np.float32(road.half_width)
    t_road = 1 / np.maximum(w_road, np.float32(1 / _FARTHEST))
    at_road = np.abs(road.lateral(x0 + dx * t_road, y0 + dy * t_road))
    t_verge = t_road * np.float32((height - KERB_HEIGHT) / height)
    at_verge = np.abs(road.lateral(x0 + dx * t_verge, y0 + dy * t_verge))
    verge = at_verge >= half
    w = np.where(verge, w_verge, w_road)
    face = verge.astype(np.int32)
    r, c = np.nonzero((at_road > half) & ~verge)
    inner, outer = at_verge[r, c], at_road[r, c]
    share = (half - inner) / np.maximum(outer - inner, np.float32(1e-6))
    w[r, c] = 1 / (t_verge[r, c] + (t_road[r, c] - t_verge[r, c]) * share)
    face[r, c] = KERB_FACE
    seen = w > np.float32(1 / _FARTHEST)
    np.copyto(hits.w[first:last], w, where=seen)
    np.copyto(hits.code[first:last], face + np.int32(GROUND << FACE_BITS), where=seen)


@dataclass(frozen=True, slots=True)
class Pose:
    """Position [3] and axes [3, 3] (columns: right, down, forward) of the rectified reference camera in the world."""

    position: F64
    axes: F64


def make_road(dice: random.Random, half_width: float, walk: float) -> Road:
    """Draw a gently winding road (radii above about 150 m)."""
    first, second = 220 + 160 * dice.random(), 90 + 60 * dice.random()
    bend = (7 + 9 * dice.random()) * (1 if dice.random() < 0.5 else -1)
    waves = (
        (bend, 2 * math.pi / first, 2 * math.pi * dice.random()),
        (0.8 * dice.random() + 0.3, 2 * math.pi / second, 2 * math.pi * dice.random()),
    )
    return Road(waves, half_width, walk)


def drive_along(road: Road, frames: int, dice: random.Random) -> list[Pose]:
    """Drive in the right-hand lane: 0.5 to 1.3 m per frame, small sway, pitch and roll."""
    phases = [2 * math.pi * dice.random() for _ in range(6)]
    mean = 0.8 + 0.2 * dice.random()
    poses, x = [], 0.0
    for frame in range(frames):
        side = -LANE / 2 + 0.18 * math.sin(0.09 * frame + phases[0])
        px, py, heading = road.place(x, side)
        heading += 0.006 * math.sin(0.11 * frame + phases[1])
        pitch = 0.0035 * math.sin(0.7 * frame + phases[2])
        roll = 0.004 * math.sin(0.45 * frame + phases[3])
        height = CAMERA_HEIGHT + 0.012 * math.sin(0.8 * frame + phases[4])
        poses.append(Pose(np.array([px, py, height]), _axes(heading, pitch, roll)))
        step = min(1.3, max(0.5, mean + 0.28 * math.sin(0.13 * frame + phases[5])))
        x += step * math.cos(heading)
    return poses


def _axes(heading: float, pitch: float, roll: float) -> F64:
    """Camera axes (right, down, forward as columns) of a car that points along `heading`."""
    ch, sh, cp, sp = math.cos(heading), math.sin(heading), math.cos(pitch), math.sin(pitch)
    forward = np.array([ch * cp, sh * cp, sp])
    right = np.array([sh, -ch, 0.0])
    down = np.cross(forward, right)
    cr, sr = math.cos(roll), math.sin(roll)
    return np.stack([cr * right + sr * down, cr * down - sr * right, forward], axis=1)
