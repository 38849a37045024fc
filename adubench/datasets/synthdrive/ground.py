"""Paint of the ground: asphalt with markings, kerb, pavement, grass."""

from __future__ import annotations

import numpy as np

from adubench.datasets.synthdrive.noise import F32, band, clouds, grain, hash_unit, smooth, stripes
from adubench.datasets.synthdrive.road import CAMERA_HEIGHT, KERB_FACE, LANE, ROAD_FACE
from adubench.datasets.synthdrive.surface import Batch
from adubench.datasets.synthdrive.world import World

_LINE = 0.13
_CROSSING_EVERY = 67.0


def paint_ground(world: World, batch: Batch) -> tuple[F32, F32, F32]:
    """Return albedo [3, n], normal [3, n] and the lateral coordinate [n] of ground points."""
    x, y = batch.point[0], batch.point[1]
    lateral = world.road.lateral(x, y)
    across = batch.foot
    along = batch.foot * np.maximum(batch.distance * np.float32(1 / CAMERA_HEIGHT), 1)
    albedo = np.empty_like(batch.point)
    normal = np.zeros_like(batch.point)
    normal[2] = 1
    blur = np.sqrt(across * along)
    for face, paint in ((ROAD_FACE, _road), (KERB_FACE, _kerb), (-1, _verge)):
        part = np.flatnonzero(
            batch.face == face if face >= 0 else (batch.face != ROAD_FACE) & (batch.face != KERB_FACE)
        )
        if part.size:
            albedo[:, part] = paint(world, x[part], y[part], lateral[part], across[part], along[part], blur[part])
    kerb = np.flatnonzero(batch.face == KERB_FACE)
    normal[:, kerb] = np.stack([np.zeros(kerb.size), -np.sign(lateral[kerb]), np.full(kerb.size, 0.3)]).astype(
        np.float32
    )
    return albedo, normal, lateral


def _road(world: World, x: F32, y: F32, lateral: F32, across: F32, along: F32, blur: F32) -> F32:
    patches = clouds().sample(x * np.float32(1 / 37), y * np.float32(1 / 37), blur * np.float32(1 / 37))
    fine = grain().sample(x * np.float32(1 / 2.3), y * np.float32(1 / 2.3), blur * np.float32(1 / 2.3))
    streak = clouds().sample(x * np.float32(1 / 90), lateral * np.float32(1 / 6), along * np.float32(1 / 90))
    tone = np.float32(0.105) + np.float32(0.05) * patches + np.float32(0.055) * (fine - np.float32(0.5))
    tone += np.float32(0.04) * (streak - np.float32(0.5))
    lane = np.abs(np.abs(lateral) - np.float32(LANE / 2))
    tone *= 1 - np.float32(0.10) * smooth(np.abs(lane - np.float32(0.75)), 0.4, 0.1)
    tone *= _repairs(x, lateral, across, along, world.seed)
    half = world.road.half_width
    tone *= 1 - np.float32(0.35) * band(np.abs(lateral), half - 0.3, half, across)
    paint = _markings(world, x, lateral, across, along)
    worn = paint * (np.float32(0.55) + np.float32(0.45) * smooth(fine + patches, 0.6, 1.1))
    out = np.empty((3, x.size), np.float32)
    for k, (grey, white) in enumerate(((1.0, 0.62), (1.0, 0.62), (1.03, 0.59))):
        base = tone * np.float32(grey)
        out[k] = base + (np.float32(white) - base) * worn
    return out


def _repairs(x: F32, lateral: F32, across: F32, along: F32, seed: int) -> F32:
    """Darker rectangles where the road was opened, thin tar seams, and manhole covers."""
    cell = np.floor(x * np.float32(1 / 11))
    draw, place = hash_unit(cell, seed=seed), hash_unit(cell, seed=seed + 1)
    middle = (place - np.float32(0.5)) * np.float32(5)
    inside = band(lateral - middle, -0.8, 0.8, across) * band(x - cell * 11, 2.0, 7.5, along)
    out = 1 - np.float32(0.28) * inside * (draw < 0.4)
    seam = band(lateral - (draw - np.float32(0.5)) * 2, -0.025, 0.025, across)
    out *= 1 - np.float32(0.4) * seam * (place < 0.6)
    dx, dy = x - cell * 11 - np.float32(4), lateral + np.float32(1.6) - (place < 0.5) * np.float32(3.0)
    cover = smooth(np.sqrt(dx * dx + dy * dy), 0.36, 0.32) * (draw > 0.62)
    result: F32 = out * (1 - np.float32(0.55) * cover)
    return result


def _markings(world: World, x: F32, lateral: F32, across: F32, along: F32) -> F32:
    """Share of road paint: dashed centre line, edge lines, parking bays, crossings."""
    half = world.road.half_width
    distance = np.abs(lateral)
    if world.scene == "country":
        centre = band(lateral, -_LINE / 2, _LINE / 2, across) * stripes(x, 9.0, 4.0, along)
        paint = centre + band(distance, half - 0.42, half - 0.42 + _LINE, across)
    else:
        centre = band(lateral, -_LINE / 2, _LINE / 2, across) * stripes(x, 6.0, 3.0, along)
        edge = band(distance, LANE + 0.05, LANE + 0.15, across) * stripes(x, 2.0, 1.0, along)
        bays = band(distance, LANE + 0.05, half - 0.1, across) * stripes(x, 6.5, 0.1, along)
        paint = centre + edge + bays * np.float32(0.8)
        away = x - np.floor(x * np.float32(1 / _CROSSING_EVERY)) * np.float32(_CROSSING_EVERY)
        zone = band(away, 40.0, 43.2, along)
        bars = stripes(lateral + 50, 1.0, 0.5, across) * band(distance, 0.0, half - 0.4, across)
        paint = paint * (1 - band(away, 37.5, 44.5, along)) + zone * bars
        paint += band(away, 37.9, 38.3, along) * band(lateral, -LANE, -0.1, across)
    out: F32 = np.minimum(paint, 1)
    return out


def _kerb(world: World, x: F32, y: F32, lateral: F32, across: F32, along: F32, blur: F32) -> F32:
    joints = stripes(x, 1.0, 0.02, along)
    tone = np.float32(0.34) * (1 - np.float32(0.4) * joints)
    tone *= np.float32(0.8) + np.float32(0.4) * grain().sample(
        x * np.float32(1 / 3), y * np.float32(1 / 3), blur * np.float32(1 / 3)
    )
    if world.road.walk <= 0:
        tone *= np.float32(0.6)
    return np.stack([tone, tone, tone * np.float32(0.97)])


def _verge(world: World, x: F32, y: F32, lateral: F32, across: F32, along: F32, blur: F32) -> F32:
    half, walk = world.road.half_width, world.road.walk
    big = clouds().sample(x * np.float32(1 / 26), y * np.float32(1 / 26), blur * np.float32(1 / 26))
    fine = grain().sample(x * np.float32(1 / 1.9), y * np.float32(1 / 1.9), blur * np.float32(1 / 1.9))
    dry = smooth(big, 0.45, 0.75)
    tone = np.float32(0.55) + np.float32(0.9) * fine * (np.float32(0.6) + np.float32(0.8) * big)
    red, green = np.float32(0.085) + np.float32(0.075) * dry, np.float32(0.135) + np.float32(0.02) * dry
    grass = np.stack([tone * red, tone * green, tone * np.float32(0.04)])
    if walk <= 0:
        gravel = band(np.abs(lateral), 0.0, half + 0.7, across) * np.float32(0.8)
        stone = np.float32(0.26) * (np.float32(0.6) + np.float32(0.8) * fine)
        mixed: F32 = grass + (stone * np.array([[1], [0.95], [0.86]], np.float32) - grass) * gravel
        return mixed
    slab = np.float32(0.25) + np.float32(0.09) * big + np.float32(0.10) * (fine - np.float32(0.5))
    joints = np.maximum(stripes(x, 0.6, 0.025, along), stripes(lateral + 60, 0.6, 0.025, across))
    slab *= 1 - np.float32(0.35) * joints
    slab *= np.float32(0.92) + np.float32(0.16) * hash_unit(
        np.floor(x / np.float32(0.6)), np.floor((lateral + 60) / np.float32(0.6))
    )
    stone_edge = band(np.abs(lateral), half, half + 0.16, across)
    slab += (np.float32(0.36) - slab) * stone_edge
    paved = band(np.abs(lateral), 0.0, 60.0 if world.scene == "city" else half + walk, across)
    pavement = slab * np.array([[1.0], [0.97], [0.93]], np.float32)
    out: F32 = grass + (pavement - grass) * paved
    return out
