"""Ray casting on separable ray grids: one geometry code for the cameras and the LiDAR.

Every grid's rays are d[v, u] = col[u] + row[v]. For a camera that is the pinhole with d_z = 1, so the ray parameter is the
depth; for a spinning scanner it is (cos a, sin a, 0) + (0, 0, tan e), so the parameter is the horizontal range. With
w = 1/parameter every plane is a linear function of u and v: a convex body costs one addition and one minimum per plane and
pixel, and only inside its screen box.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from adubench.datasets.synthdrive.noise import F32, grain

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

    def window(self, vertices: F64) -> tuple[int, int, int, int] | None:
        """Rows and columns (r0, r1, c0, c1) that can see the convex hull of `vertices` [n, 3]; None when none can."""
        local = (vertices - self.origin) @ self.axes
        forward = 0 if self.scanner else 2
        ahead = local[:, forward] > _NEAR
        if not ahead.any():
            return None
        points = local if ahead.all() else _clip(local, ahead, forward)
        if self.scanner:
            rho = np.hypot(points[:, 0], points[:, 1])
            x = -np.arctan2(points[:, 1], points[:, 0])
            down, nearest = -points[:, 2], points[:, 0].min()
            low = down.min() / (nearest if down.min() < 0 else rho.max())
            high = down.max() / (nearest if down.max() > 0 else rho.max())
        else:
            x = points[:, 0] / points[:, 2]
            y = points[:, 1] / points[:, 2]
            low, high = y.min(), y.max()
        c0, c1 = np.searchsorted(self.col_key, (x.min(), x.max()))
        r0, r1 = np.searchsorted(self.row_key, (low, high))
        return (int(r0), int(r1), int(c0), int(c1)) if r1 > r0 and c1 > c0 else None


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


@dataclass(slots=True)
class Hits:
    """What each ray meets.

    Attributes:
        w: float32 [H, W], 1 / ray parameter, 0 for the sky.
        code: int32 [H, W], primitive << FACE_BITS | face; SKY where nothing is met.
    """

    w: F32
    code: I32


def cast_convex(grid: RayGrid, body: Primitive, code: int, hits: Hits) -> None:
    """Draw a convex body into `hits` where it is nearer."""
    window = grid.window(body.vertices)
    if window is None:
        return
    r0, r1, c0, c1 = window
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


def cast_quadric(grid: RayGrid, body: Primitive, code: int, hits: Hits) -> None:
    """Draw an ellipsoid (with leaves cut out, if it has any) or an upright open cylinder into `hits`."""
    window = grid.window(body.vertices)
    if window is None:
        return
    r0, r1, c0, c1 = window
    cos, sin = np.cos(body.yaw), np.sin(body.yaw)
    to_local = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    cylinder = body.kind == "cylinder"
    scale = np.array([1 / body.radii[0]] * 2 + [0.0]) if cylinder else 1 / body.radii
    matrix = scale[:, None] * to_local
    start = matrix @ (grid.origin - body.origin)
    constant = float(start @ start) - 1
    if constant <= 0:
        return
    m32 = matrix.astype(np.float32)
    s32 = start.astype(np.float32)
    col, row = _rotate(m32, grid.col[:, c0:c1]), _rotate(m32, grid.row[:, r0:r1])
    square = (row**2).sum(0)[:, None] + (col**2).sum(0)[None]
    for k in range(3):
        square += (2 * row[k])[:, None] * col[k][None]
    linear = -((s32[:, None] * row).sum(0)[:, None] + (s32[:, None] * col).sum(0)[None])
    root = linear * linear - np.float32(constant) * square
    hit = (root > 0) & (linear > 0)
    root = np.sqrt(np.maximum(root, 0))
    w = (linear + root) * np.float32(1 / constant)
    if cylinder:
        rise = grid.row[2, r0:r1][:, None] + grid.col[2, c0:c1][None]
        base = body.origin[2] - grid.origin[2]
        hit &= (rise >= np.float32(base) * w) & (rise <= np.float32(base + body.radii[2]) * w)
    elif body.holes > 0:
        far = (linear - root) * np.float32(1 / constant)
        w, hit = _leaves(body, start * body.radii, col, row, w, far, hit)
    hit &= w > hits.w[r0:r1, c0:c1]
    np.copyto(hits.w[r0:r1, c0:c1], w, where=hit)
    np.copyto(hits.code[r0:r1, c0:c1], np.int32(code << FACE_BITS), where=hit)


def _rotate(matrix: F32, vectors: F32) -> F32:
    """Multiply [3, 3] by [3, n] without BLAS, whose rounding differs between machines."""
    out: F32 = matrix[:, :1] * vectors[0] + matrix[:, 1:2] * vectors[1] + matrix[:, 2:] * vectors[2]
    return out


def _leaves(
    body: Primitive, start: F64, col: F32, row: F32, near: F32, far: F32, hit: NDArray[np.bool_]
) -> tuple[F32, NDArray[np.bool_]]:
    """Cut a solid noise pattern out of an ellipsoid: rays go through a hole to the inside of the far half."""
    v, u = np.nonzero(hit)
    radii = body.radii.astype(np.float32)[:, None]
    origin = (
        start.astype(np.float32)[:, None] + body.origin.astype(np.float32)[:, None]
    )  # a pattern of its own per tree
    direction = (col[:, u] + row[:, v]) * radii
    w = near[v, u]
    keep = _leaf(origin + direction / w) > body.holes
    back = np.flatnonzero(~keep)
    w_far = np.maximum(far[v[back], u[back]], np.float32(1e-6))
    solid = _leaf(origin + direction[:, back] / w_far) > body.holes
    w[back] = w_far
    keep[back] = solid
    out, mask = near.copy(), np.zeros_like(hit)
    out[v, u] = w
    mask[v, u] = keep
    return out, mask


def _leaf(p: F32) -> F32:
    """Solid noise of a point [3, n], in [0, 1]."""
    tile = grain()
    scale = np.float32(1 / 7.0)
    x, y, z = p[0] * scale, p[1] * scale, p[2] * scale
    out: F32 = (tile.nearest(x + z * np.float32(0.37), y) + tile.nearest(y, z + x * np.float32(0.37))) * np.float32(0.5)
    return out
