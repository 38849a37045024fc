"""What painting needs to know about a batch of surface points, and what all paints share."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from adubench.datasets.synthdrive.geometry import I32
from adubench.datasets.synthdrive.noise import F32, clouds, grain, smooth
from adubench.datasets.synthdrive.scene import Tables
from adubench.datasets.synthdrive.world import World

Painted = tuple[F32, F32 | None]  # albedo [3, n], emitted or mirrored light [3, n]


@dataclass(slots=True)
class Batch:
    """Points of one material.

    Attributes:
        tables: attributes of the bodies. body, face: int32 [n]. point: float32 [3, n] world. ray: float32 [3, n] unit.
        distance: float32 [n] metres from the eye. foot: float32 [n] size of a pixel at that depth in metres.
        local: float32 [3, n], filled by `normals`: the point in its body's frame.
    """

    tables: Tables
    body: I32
    face: I32
    point: F32
    ray: F32
    distance: F32
    foot: F32
    local: F32 = field(default_factory=lambda: np.zeros((3, 0), np.float32))

    def colour(self) -> F32:
        """Colour of the bodies, [3, n]."""
        out: F32 = self.tables.colour[self.body].T.copy()
        return out

    def param(self, number: int) -> F32:
        """One parameter of the bodies, [n]."""
        out: F32 = self.tables.params[:, number][self.body]
        return out


def normals(batch: Batch) -> F32:
    """World normals [3, n]; fills `batch.local`."""
    tables, body = batch.tables, batch.body
    offset = batch.point - tables.origin[body].T
    cos, sin = tables.cos[body], tables.sin[body]
    batch.local = np.stack([cos * offset[0] + sin * offset[1], cos * offset[1] - sin * offset[0], offset[2]])
    normal: F32 = tables.normals[body, batch.face].T.copy()
    curved = np.flatnonzero(tables.round_body[body] > 0)
    if curved.size:
        radii = tables.radii[body[curved]].T
        local = batch.local[:, curved]
        bent = local / np.maximum(radii * radii, np.float32(1e-6))
        bent[2, tables.round_body[body[curved]] == 2] = 0
        bent /= np.maximum(np.sqrt((bent * bent).sum(0)), np.float32(1e-6))
        c, s = cos[curved], sin[curved]
        normal[:, curved] = np.stack([c * bent[0] - s * bent[1], s * bent[0] + c * bent[1], bent[2]])
    return normal


def slant(batch: Batch, normal: F32) -> F32:
    """Size of a pixel along a wall."""
    out: F32 = batch.foot / np.maximum(np.abs((normal * batch.ray).sum(0)), np.float32(0.05))
    return out


def rough(batch: Batch, size: float, depth: float) -> F32:
    """Brightness noise around 1 with features of about `size` metres."""
    k = np.float32(1 / (size * 8))
    u = (batch.local[0] + batch.local[1] + batch.body * np.float32(3.7)) * k
    v = (batch.local[2] + batch.local[1] * np.float32(0.3)) * k
    out: F32 = 1 + np.float32(depth) * (grain().sample(u, v, batch.foot * k) - np.float32(0.5)) * 2
    return out


def _cloud_mirror(batch: Batch, normal: F32, world: World) -> F32:
    """Brightness of the sky mirrored by a smooth surface, 0..1."""
    along = (normal * batch.ray).sum(0)
    up = batch.ray[2] - 2 * along * normal[2]
    side = batch.ray[0] - 2 * along * normal[0]
    blur = clouds().sample(side * np.float32(0.3), up * np.float32(0.3), np.full_like(up, 0.01))
    out: F32 = smooth(up, -0.12, 0.2) * (np.float32(0.55) + np.float32(0.6) * blur)
    return out


def mirror(batch: Batch, normal: F32, world: World, strength: F32) -> F32:
    """Light [3, n] that a smooth surface mirrors from the sky."""
    sky = np.array(world.weather.haze_colour, np.float32)[:, None]
    out: F32 = sky * (_cloud_mirror(batch, normal, world) * strength)
    return out


def fresnel(batch: Batch, normal: F32, base: float) -> F32:
    """Mirrored share of light, Schlick's approximation."""
    grazing = 1 - np.minimum(np.abs((normal * batch.ray).sum(0)), 1)
    square = grazing * grazing
    out: F32 = np.float32(base) + np.float32(1 - base) * square * square * grazing
    return out
