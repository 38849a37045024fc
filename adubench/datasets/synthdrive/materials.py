"""Paint of everything that stands on the ground. Textures live in the object's own coordinates, so all views agree."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from adubench.datasets.synthdrive import bodies as kinds
from adubench.datasets.synthdrive import facades, vehicles
from adubench.datasets.synthdrive.noise import F32, band, grain, hash_unit, smooth, stripes
from adubench.datasets.synthdrive.surface import Batch, Painted, normals, rough, slant
from adubench.datasets.synthdrive.world import World

__all__ = ["normals", "paint"]


def paint(material: int, batch: Batch, normal: F32, world: World) -> tuple[F32, F32 | None]:
    """Return albedo [3, n] and emitted light [3, n] (or None) of a batch; may bend `normal` in place."""
    return _PAINTS[material](batch, normal, world)


def _plain(batch: Batch, normal: F32, world: World) -> Painted:
    return batch.colour() * rough(batch, 0.3, 0.12), None


def _metal(batch: Batch, normal: F32, world: World) -> Painted:
    return batch.colour() * rough(batch, 0.5, 0.1), None


def _lamp(batch: Batch, normal: F32, world: World) -> Painted:
    colour = batch.colour()
    if not world.weather.weak:
        return colour, None
    return colour, np.array([[5.0], [3.8], [2.4]], np.float32) * smooth(normal[2], 0.5, -0.5)


def _bark(batch: Batch, normal: F32, world: World) -> Painted:
    u = batch.local[0] * np.float32(0.9) + batch.local[1] * np.float32(0.7)
    v = batch.local[2] * np.float32(0.11)
    ribs = grain().sample(u, v, batch.foot)
    return batch.colour() * (np.float32(0.5) + ribs), None


def _leaves(batch: Batch, normal: F32, world: World) -> Painted:
    x, y, z = batch.point * np.float32(1 / 3.0)
    foot = batch.foot * np.float32(1 / 3.0)
    one, two, three = (grain().sample(a, b, foot) - np.float32(0.5) for a, b in ((x, y), (y, z), (z, x)))
    normal[0] += two * np.float32(2.6)
    normal[1] += three * np.float32(2.6)
    normal[2] += one * np.float32(2.6) + np.float32(0.3)
    normal /= np.sqrt((normal * normal).sum(0))
    inner = np.maximum(np.float32(0.8) + np.float32(1.1) * (one + two + three), np.float32(0.12))
    height = batch.local[2] / np.maximum(batch.tables.radii[batch.body, 2], np.float32(0.1))
    light = np.float32(0.75) + np.float32(0.4) * np.clip(height, -1, 1)
    return batch.colour() * inner * light, None


def _hedge(batch: Batch, normal: F32, world: World) -> Painted:
    u = (batch.local[0] + batch.local[1] * np.float32(0.6)) * np.float32(1 / 4.0)
    v = (batch.local[2] + batch.local[1] * np.float32(0.6)) * np.float32(1 / 4.0)
    leaf = grain().sample(u, v, batch.foot * np.float32(1 / 4.0))
    normal[0] += (leaf - np.float32(0.5)) * 2
    normal[1] += (grain().sample(v + np.float32(0.3), u, batch.foot * np.float32(1 / 4.0)) - np.float32(0.5)) * 2
    normal /= np.sqrt((normal * normal).sum(0))
    return batch.colour() * (np.float32(0.3) + np.float32(1.4) * leaf), None


def _fence(batch: Batch, normal: F32, world: World) -> Painted:
    foot = slant(batch, normal)
    along = batch.local[0] + 50
    board = np.floor(along * np.float32(1 / 0.16))
    gap = stripes(along, 0.16, 0.028, foot)
    rails = np.maximum(band(batch.local[2], 0.25, 0.33, batch.foot), band(batch.local[2], 0.8, 0.88, batch.foot))
    tone = np.float32(0.85) + np.float32(0.3) * (hash_unit(board, batch.body) - np.float32(0.5))
    wood = grain().sample(along * np.float32(2.0), batch.local[2] * np.float32(0.13), foot)
    shade = (
        tone
        * (np.float32(0.75) + np.float32(0.5) * wood)
        * (1 - np.float32(0.85) * gap * (1 - np.float32(0.6) * rails))
    )
    return batch.colour() * shade, None


def _rail(batch: Batch, normal: F32, world: World) -> Painted:
    z = batch.local[2] * np.float32(1 / 0.31)
    wave = np.abs(z - np.float32(0.5))
    tone = np.float32(0.55) + np.float32(0.55) * smooth(wave, 0.02, 0.25) - np.float32(0.35) * smooth(wave, 0.36, 0.5)
    return batch.colour() * tone * rough(batch, 0.4, 0.15), None


def _cloth(batch: Batch, normal: F32, world: World) -> Painted:
    return batch.colour() * rough(batch, 0.08, 0.25), None


def _sign(batch: Batch, normal: F32, world: World) -> Painted:
    kind, radius = batch.param(0), batch.param(1)
    y, z = batch.local[1] / radius, batch.local[2] / radius
    r = np.sqrt(y * y + z * z)
    triangle = np.maximum(
        -z, np.maximum(z * np.float32(0.5) + y * np.float32(0.866), z * np.float32(0.5) - y * np.float32(0.866))
    )
    rim = np.where(kind == 0, smooth(triangle, 0.30, 0.36), np.where(kind == 3, 0, smooth(r, 0.74, 0.78)))
    mark = band(y, -0.1, 0.1, batch.foot / radius) * band(z, -0.35, 0.45, batch.foot / radius)
    white, red = (0.75, 0.75, 0.73), (0.50, 0.03, 0.03)
    ground = np.where(kind == 2, 1.0, 0.0)
    out = np.empty_like(batch.point)
    for k in range(3):
        face = np.where(kind == 3, (0.02, 0.10, 0.42)[k], white[k]) * (1 - ground) + red[k] * ground
        inner = face * (1 - mark) + np.where(kind >= 2, white[k], 0.03) * mark
        out[k] = inner * (1 - rim) + np.where(kind == 2, white[k], red[k]) * rim
    return out, out * np.float32(0.35 if world.weather.weak else 0.0)


def _roof(batch: Batch, normal: F32, world: World) -> Painted:
    foot = slant(batch, normal)
    course = stripes(batch.local[2] + 20, 0.22, 0.05, foot * np.float32(0.7))
    tile = stripes(batch.local[0] + 60, 0.28, 0.04, foot)
    tone = (1 - np.float32(0.45) * course) * (1 - np.float32(0.25) * tile) * rough(batch, 0.7, 0.25)
    gable = np.abs(batch.face - np.float32(3.5)) < 1  # the two ends
    tone = np.where(gable, np.float32(1.0), tone)
    return batch.colour() * tone, None


def _wheel(batch: Batch, normal: F32, world: World) -> Painted:
    r = np.sqrt(batch.local[0] ** 2 + batch.local[2] ** 2)
    side = batch.face >= 10
    angle = np.arctan2(batch.local[2], batch.local[0])
    spokes = np.float32(0.5) + np.float32(0.5) * np.sin(angle * 5)
    hub = smooth(r, 0.215, 0.195) * side
    tone = np.float32(0.022) + hub * (np.float32(0.09) + np.float32(0.30) * smooth(spokes, 0.2, 0.6))
    return np.stack([tone, tone, tone]), None


_PAINTS: dict[int, Callable[[Batch, F32, World], Painted]] = {
    kinds.FACADE: facades.paint_facade,
    kinds.ROOF: _roof,
    kinds.CAR_BODY: vehicles.paint_body,
    kinds.CAR_CABIN: vehicles.paint_cabin,
    kinds.WHEEL: _wheel,
    kinds.BARK: _bark,
    kinds.LEAVES: _leaves,
    kinds.METAL: _metal,
    kinds.SIGN: _sign,
    kinds.FENCE: _fence,
    kinds.HEDGE: _hedge,
    kinds.CLOTH: _cloth,
    kinds.PLAIN: _plain,
    kinds.LAMP: _lamp,
    kinds.RAIL: _rail,
}
