"""Ray casting on separable ray grids: one geometry code for the cameras and the LiDAR.

Every grid's rays are d[v, u] = col[u] + row[v]. For a camera that is the pinhole with d_z = 1, so the parameter is the
depth; for a spinning scanner it is (cos a, sin a, 0) + (0, 0, tan e), so the parameter is the horizontal range. With
w = 1/parameter every plane is a linear function of u and v: a convex body costs one addition and one minimum per plane
and pixel, and only inside its screen box.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.datasets.synthdrive.noise import F32, TILE, grain

F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
FACE_BITS = 5
SKY = -1
_NEAR = 0.25


@dataclass(frozen=True, slots=True)
class RayGrid:
    """Rays from one point.

    Attributes:
        origin: [3] world position.
        axes: [3, 3], columns are the sensor's axes in the world: right, down, forward for a camera; forward, left, up
            for a scanner.
        col: [3, W] world directions; row: [3, H] what is added per row.
        col_key, row_key: ascending sensor coordinates of the columns and rows, for screen boxes.
        scanner: whether the keys are -azimuth and -tan(elevation) instead of x/z and y/z.
    """

    origin: F64
    axes: F64
    col: F32
    row: F32
    col_key: F64
    row_key: F64
    scanner: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.row.shape[1], self.col.shape[1]

    def windows(self, vertices: F64) -> tuple[NDArray[np.int64], F64]:
        """Screen boxes of the convex hulls of `vertices` [n, k, 3].

        Returns:
            Boxes [n, 4] as (first row, end row, first column, end column), empty ones for hulls out of sight, and a
            lower bound of the ray parameter at which each hull may be met [n].
        """
        local = (vertices - self.origin) @ self.axes
        forward = 0 if self.scanner else 2
        ahead = local[..., forward] > _NEAR
        boxes = np.zeros((len(local), 4), np.int64)
        depth = np.maximum(local[..., forward].min(1), _NEAR)
        whole, cut = np.flatnonzero(ahead.all(1)), np.flatnonzero(ahead.any(1) & ~ahead.all(1))
        if whole.size:
            boxes[whole] = self._boxes(local[whole])
        for number in cut:
            boxes[number] = self._boxes(_clip(local[number], ahead[number], forward)[None])[0]
        return boxes, depth

    def _boxes(self, points: F64) -> NDArray[np.int64]:
        """Boxes [n, 4] around points [n, k, 3] that all lie ahead."""
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        if self.scanner:
            # The elevation of a straight edge may peak between its ends: bound it by height over the nearest range.
            rho, across = np.hypot(x, y), -np.arctan2(y, x)
            low, high = -z.max(1), -z.min(1)
            low = np.where(low < 0, low / x.min(1), low / rho.max(1))
            high = np.where(high > 0, high / x.min(1), high / rho.max(1))
        else:
            across = x / z
            low, high = (y / z).min(1), (y / z).max(1)
        columns = np.searchsorted(self.col_key, (across.min(1), across.max(1)))
        rows = np.searchsorted(self.row_key, (low, high))
        return np.stack([rows[0], rows[1], columns[0], columns[1]], 1)


def _clip(local: F64, ahead: NDArray[np.bool_], forward: int) -> F64:
    """Cut a hull at the near plane: its vertices ahead plus every crossing of a pair (a superset of the edges)."""
    front, back = local[ahead][:, None], local[~ahead][None]
    share = (front[..., forward] - _NEAR) / (front[..., forward] - back[..., forward])
    cut = front + share[..., None] * (back - front)
    return np.concatenate([local[ahead], cut.reshape(-1, 3)])


@dataclass(slots=True)
class Primitive:
    """A body of the world.

    Attributes:
        kind: "convex", "ellipsoid" or "cylinder" (upright, open).
        material: number of the material (shading.py).
        thing: number of the object it belongs to.
        origin, yaw: local frame; x forward, y left, z up.
        vertices: [n, 3] world points whose hull contains the body.
        normals: [k, 3], offsets: [k], outward planes n.p = offset of a convex body, world frame.
        radii: [3] of an ellipsoid; of a cylinder (radius, 0, height).
        colour: [3] linear albedo; params: [6] whatever the material wants.
        holes: share of an ellipsoid's surface that is cut out (leaves), 0 for none.
        lit: 1 where the sun reaches the body past the buildings, 0 in their shadow.
    """

    kind: str
    material: int
    thing: int
    origin: F64
    yaw: float
    vertices: F64
    normals: F64 = field(default_factory=lambda: np.zeros((0, 3)))
    offsets: F64 = field(default_factory=lambda: np.zeros(0))
    radii: F64 = field(default_factory=lambda: np.zeros(3))
    colour: tuple[float, float, float] = (0.5, 0.5, 0.5)
    params: tuple[float, ...] = (0.0,) * 6
    holes: float = 0.0
    lit: float = 1.0


@dataclass(slots=True)
class Hits:
    """What each ray meets.

    Attributes:
        w: float32 [H, W], 1 / ray parameter, 0 for the sky.
        code: int32 [H, W], primitive << FACE_BITS | face; SKY where nothing is met.
    """

    w: F32
    code: I32


Box = tuple[int, int, int, int]


def cast_convex(grid: RayGrid, body: Primitive, code: int, hits: Hits, box: Box) -> None:
    """Draw a convex body into the box (r0, r1, c0, c1) of `hits` where it is nearer."""
    r0, r1, c0, c1 = box
    distance = body.normals @ grid.origin - body.offsets
    distance = np.where(np.abs(distance) < 1e-9, 1e-9, distance)
    if not (distance > 0).any():
        return
    scaled = (-body.normals / distance[:, None]).astype(np.float32)
    col, row = grid.col[:, c0:c1], grid.row[:, r0:r1]
    across = scaled[:, :1] * col[0] + scaled[:, 1:2] * col[1] + scaled[:, 2:] * col[2]
    down = scaled[:, :1] * row[0] + scaled[:, 1:2] * row[1] + scaled[:, 2:] * row[2]
    leave = np.array(hits.w[r0:r1, c0:c1])
    enter: F32 | None = None
    face = np.zeros(leave.shape, np.int32)
    for k in np.argsort(distance <= 0, kind="stable"):  # faces towards the sensor first
        plane = down[k][:, None] + across[k][None, :]
        if distance[k] <= 0:
            np.maximum(leave, plane, out=leave)
        elif enter is None:
            enter = plane
            face += np.int32(k)
        else:
            np.copyto(face, np.int32(k), where=plane < enter)
            np.minimum(enter, plane, out=enter)
    assert enter is not None
    hit = enter > leave
    np.copyto(hits.w[r0:r1, c0:c1], enter, where=hit)
    face += np.int32(code << FACE_BITS)
    np.copyto(hits.code[r0:r1, c0:c1], face, where=hit)


def cast_quadric(grid: RayGrid, body: Primitive, code: int, hits: Hits, box: Box) -> None:
    """Draw an ellipsoid (with leaves cut out, if it has any) or an upright open cylinder into a box of `hits`."""
    r0, r1, c0, c1 = box
    cylinder = body.kind == "cylinder"
    turn = _local_axes(body, cylinder)
    start = _apply(turn, [float(v) for v in grid.origin - body.origin])
    constant = sum(v * v for v in start) - 1
    if constant <= 0:
        return
    col, row = _apply(turn, list(grid.col[:, c0:c1])), _apply(turn, list(grid.row[:, r0:r1]))
    square = sum(r * r for r in row)[:, None] + sum(c * c for c in col)[None]
    linear = -sum(s * r for s, r in zip(start, row, strict=True))[:, None]
    linear = linear - sum(s * c for s, c in zip(start, col, strict=True))[None]
    for r, c in zip(row, col, strict=True):
        square += (r + r)[:, None] * c
    root = linear * linear - square * constant
    hit = root > 0
    root = np.sqrt(np.maximum(root, 0))
    w = (linear + root) * (1 / constant)
    hit &= w > hits.w[r0:r1, c0:c1]
    if cylinder:
        rise = grid.row[2, r0:r1][:, None] + grid.col[2, c0:c1]
        base = float(body.origin[2] - grid.origin[2])
        hit &= (rise >= base * w) & (rise <= (base + float(body.radii[2])) * w)
    elif body.holes > 0 and hit.any():
        far = (linear - root) * (1 / constant)
        _leaves(grid, body, w, far, hit, (r0, c0))
        hit &= w > hits.w[r0:r1, c0:c1]
    np.copyto(hits.w[r0:r1, c0:c1], w, where=hit)
    np.copyto(hits.code[r0:r1, c0:c1], np.int32(code << FACE_BITS), where=hit)


def _local_axes(body: Primitive, cylinder: bool) -> tuple[float, ...]:
    """Rotation about z and scaling to the unit sphere (or cylinder): (xx, xy, yx, yy, zz)."""
    cos, sin = math.cos(body.yaw), math.sin(body.yaw)
    rx = float(body.radii[0])
    ry, rz = (rx, 0.0) if cylinder else (float(body.radii[1]), 1 / float(body.radii[2]))
    return cos / rx, sin / rx, -sin / ry, cos / ry, rz


def _apply(turn: tuple[float, ...], vector: list[Any]) -> list[Any]:
    """Apply the axes of `_local_axes` to a vector of numbers or arrays; z is left out where it does not count."""
    x, y, z = vector
    out = [x * turn[0] + y * turn[1], x * turn[2] + y * turn[3]]
    return [*out, z * turn[4]] if turn[4] else out


def _leaves(grid: RayGrid, body: Primitive, w: F32, far: F32, hit: NDArray[np.bool_], corner: tuple[int, int]) -> None:
    """Cut a solid noise pattern out of an ellipsoid; changes `w` and `hit`.

    The pattern stands in the world, so all views agree; rays go through a hole to the inside of the far half.
    """
    v, u = np.nonzero(hit)
    direction = grid.row[:, v + corner[0]] + grid.col[:, u + corner[1]]
    origin = grid.origin.astype(np.float32)[:, None]
    keep = _leaf(origin + direction * np.reciprocal(w[v, u])) > body.holes
    back = np.flatnonzero(~keep)
    v_back, u_back = v[back], u[back]
    w_far: F32 = np.maximum(far[v_back, u_back], np.float32(1e-6))
    keep[back] = _leaf(origin + direction[:, back] * np.reciprocal(w_far)) > body.holes
    w[v_back, u_back] = w_far
    hit[v, u] = keep


def _leaf(p: F32) -> F32:
    """Solid noise of points [3, n], 0..1: the mean of three coordinate planes, alike from all sides."""
    x, y, z = np.floor(p * (TILE / 3.2)).astype(np.int32) & (TILE - 1)
    flat = grain().flat
    out: F32 = (flat.take(y * TILE + x) + flat.take(z * TILE + y) + flat.take(x * TILE + z)) * np.float32(1 / 3)
    return out


def meets(body: Primitive, x: F32, y: F32, z: F32 | float, direction: F64) -> NDArray[np.bool_]:
    """Whether rays from points along one direction meet a convex body."""
    enter = np.zeros(x.shape, np.float32)
    leave = np.full(x.shape, 1e9, np.float32)
    for n, offset in zip(body.normals, body.offsets, strict=True):
        rate = float(n @ direction)
        gap = np.float32(n[0]) * x + np.float32(n[1]) * y + (np.float32(n[2]) * np.float32(1) * z - np.float32(offset))
        if abs(rate) < 1e-9:
            leave[gap > 0] = -1
        elif rate < 0:
            np.maximum(enter, gap * np.float32(-1 / rate), out=enter)
        else:
            np.minimum(leave, gap * np.float32(-1 / rate), out=leave)
    out: NDArray[np.bool_] = enter < leave
    return out
