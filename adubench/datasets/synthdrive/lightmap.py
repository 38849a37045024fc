"""Light on the ground, baked once per drive: cast shadows of the sun and the darkness around whatever stands there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adubench.datasets.synthdrive.bodies import LEAVES
from adubench.datasets.synthdrive.geometry import F64, Primitive, meets
from adubench.datasets.synthdrive.noise import F32, grain
from adubench.datasets.synthdrive.road import Road
from adubench.datasets.synthdrive.scene import Scene
from adubench.datasets.synthdrive.world import World

_SIDE = 24.0


@dataclass(slots=True)
class Lightmap:
    """Maps over (x of the road, lateral), row-major in x.

    Attributes:
        start: x of the first row. step: metres per texel. shape: texels.
        sun: float32, 1 where the sun reaches the ground. open: float32, 1 where nothing is near (ambient occlusion).
    """

    start: float
    step: float
    shape: tuple[int, int]
    sun: F32
    open: F32

    def lookup(self, x: F32, lateral: F32) -> tuple[F32, F32]:
        """Sun and openness at ground points, each float32 in [0, 1], bilinear."""
        rows, cols = self.shape
        u = np.clip((x - np.float32(self.start)) * np.float32(1 / self.step), 0, rows - 1.01)
        v = np.clip((lateral + np.float32(_SIDE)) * np.float32(1 / self.step), 0, cols - 1.01)
        u0, v0 = u.astype(np.int32), v.astype(np.int32)
        fu, fv = u - u0, v - v0
        at = u0 * cols + v0
        out = []
        for layer in (self.sun, self.open):
            flat = layer.reshape(-1)
            near = flat.take(at) * (1 - fv) + flat.take(at + 1) * fv
            far = flat.take(at + cols) * (1 - fv) + flat.take(at + cols + 1) * fv
            out.append(near + (far - near) * fu)
        return out[0], out[1]

    def with_cars(self, scene: Scene, moving: list[Primitive]) -> Lightmap:
        """Return a copy with the shadows of moving cars added."""
        if not moving:
            return self
        out = Lightmap(self.start, self.step, self.shape, self.sun.copy(), self.open.copy())
        _bake(out, scene.road, moving, np.array(scene.world.weather.sun))
        return out


def bake(world: World, step: float) -> Lightmap:
    """Bake the static bodies of a world with texels of `step` metres."""
    start = float(world.poses[0].position[0]) - 6
    end = max(float(body.vertices[:, 0].max()) for body in world.primitives[1:])
    shape = (int((end - start) / step) + 2, int(2 * _SIDE / step) + 2)
    out = Lightmap(start, step, shape, np.ones(shape, np.float32), np.ones(shape, np.float32))
    _bake(out, world.road, world.primitives[1:], np.array(world.weather.sun))
    for layer, radius in ((out.sun, 0.12), (out.open, 0.5)):
        cells = max(1, round(radius / step))
        for _ in range(2):
            layer[:] = _blur(_blur(layer, cells, 0), cells, 1)
    return out


def _bake(lightmap: Lightmap, road: Road, bodies: list[Primitive], sun: F64) -> None:
    for body in bodies:
        ground = body.vertices[:, :2] - sun[:2] / sun[2] * body.vertices[:, 2:]
        patch = _patch(lightmap, road, np.concatenate([ground, body.vertices[:, :2]]))
        if patch is None:
            continue
        rows, cols, x, y = patch
        amount = _shadow(body, x, y, sun)
        layer = lightmap.sun[rows, cols]
        np.minimum(layer, 1 - amount, out=layer)
        if body.vertices[:, 2].min() < 0.6 and body.material != LEAVES:
            covered = _covers(body, x, y)
            layer = lightmap.open[rows, cols]
            np.minimum(layer, 1 - covered, out=layer)


def _patch(lightmap: Lightmap, road: Road, points: F64) -> tuple[slice, slice, F32, F32] | None:
    """Texels around ground points, with their world coordinates."""
    x = points[:, 0].astype(np.float32)
    lateral = road.lateral(x, points[:, 1].astype(np.float32))
    r0 = int((x.min() - lightmap.start) / lightmap.step) - 4
    r1 = int((x.max() - lightmap.start) / lightmap.step) + 5
    c0 = int((lateral.min() + _SIDE) / lightmap.step) - 4
    c1 = int((lateral.max() + _SIDE) / lightmap.step) + 5
    r0, c0, r1, c1 = max(r0, 0), max(c0, 0), min(r1, lightmap.shape[0]), min(c1, lightmap.shape[1])
    if r0 >= r1 or c0 >= c1:
        return None
    s = (np.arange(r0, r1) * lightmap.step + lightmap.start).astype(np.float32)
    d = (np.arange(c0, c1) * lightmap.step - _SIDE).astype(np.float32)
    centre = np.array([road.centre(float(v)) for v in s], np.float32)
    y = centre[:, :1] + d[None] * np.sqrt(1 + centre[:, 1:] ** 2)
    return slice(r0, r1), slice(c0, c1), np.broadcast_to(s[:, None], y.shape), y


def _shadow(body: Primitive, x: F32, y: F32, sun: F64) -> F32:
    """How much of the sun `body` takes from ground points, 0..1."""
    if body.kind == "convex":
        return meets(body, x, y, 0.0, sun).astype(np.float32)
    light = sun.astype(np.float32)
    if body.kind == "cylinder":
        reach = np.float32(body.radii[2] / sun[2])
        across = -sun[:2].astype(np.float32)
        length = np.float32(np.hypot(*sun[:2]))
        dx, dy = x - np.float32(body.origin[0]), y - np.float32(body.origin[1])
        along = (dx * across[0] + dy * across[1]) / length
        off = np.abs(dx * across[1] - dy * across[0]) / length
        inside = (off < np.float32(max(body.radii[0], 0.07))) & (along > 0) & (along < reach * length)
        return np.asarray(inside, np.float32)
    dx, dy = x - np.float32(body.origin[0]), y - np.float32(body.origin[1])
    dz = np.float32(-body.origin[2])
    mean = np.float32(float(body.radii.mean()) ** 2)
    closest = dx * light[0] + dy * light[1] + dz * light[2]
    off = dx * dx + dy * dy + dz * dz - closest * closest
    dapple = grain().sample(x * np.float32(1 / 9.0), y * np.float32(1 / 9.0))
    edge = np.clip((mean * (1 - np.float32(0.5) * (dapple < 0.5)) - off) / (np.float32(0.3) * mean), 0, 1)
    shade: F32 = np.float32(0.85) * edge
    return shade


def _covers(body: Primitive, x: F32, y: F32) -> F32:
    """Whether a body stands over ground points (0..1, weaker for thin poles)."""
    if body.kind == "convex":
        inside = np.ones(x.shape, np.bool_)
        height = np.float32(body.vertices[:, 2].min() + 0.2)
        for n, offset in zip(body.normals.astype(np.float32), body.offsets, strict=True):
            inside &= n[0] * x + n[1] * y + n[2] * height < np.float32(offset)
        return inside.astype(np.float32) * np.float32(0.9)
    dx, dy = x - np.float32(body.origin[0]), y - np.float32(body.origin[1])
    radius = np.float32(max(float(body.radii[0]), 0.15))
    out: F32 = (dx * dx + dy * dy < radius * radius).astype(np.float32) * np.float32(0.9)
    return out


def _blur(layer: F32, cells: int, axis: int) -> F32:
    """Box filter of 2 cells + 1 texels along an axis, borders repeated."""
    width = [(cells + 1, cells) if k == axis else (0, 0) for k in range(2)]
    total = np.cumsum(np.pad(layer, width, mode="edge"), axis=axis, dtype=np.float64)
    size = 2 * cells + 1
    high = total[size:] if axis == 0 else total[:, size:]
    low = total[:-size] if axis == 0 else total[:, :-size]
    return ((high - low) / size).astype(np.float32)
