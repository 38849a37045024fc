"""Colour of what a ray meets: material, sun and sky light, contact shadow, lamps, haze."""

from __future__ import annotations

import numpy as np

from adubench.datasets.synthdrive import materials
from adubench.datasets.synthdrive.geometry import F64, FACE_BITS, I32, SKY
from adubench.datasets.synthdrive.ground import paint_ground
from adubench.datasets.synthdrive.lightmap import Lightmap
from adubench.datasets.synthdrive.noise import F32, smooth
from adubench.datasets.synthdrive.road import GROUND
from adubench.datasets.synthdrive.scene import Scene
from adubench.datasets.synthdrive.sky import sky_colour
from adubench.datasets.synthdrive.surface import Batch

_LAMP_STEP = 29.0
_CLEAREST = 0.25  # what haze leaves of the farthest things


def shade(scene: Scene, origin: F64, direction: F32, w: F32, code: I32, pixel: float, lightmap: Lightmap) -> F32:
    """Return exposed linear RGB float32 [3, n].

    Args:
        scene: the world at this frame.
        origin: [3] the eye.
        direction: float32 [3, n] rays of depth 1.
        w: float32 [n] inverse depth; code: int32 [n] what is met.
        pixel: angle of a pixel, for texture filtering.
        lightmap: light on the ground.
    """
    out = np.empty(direction.shape, np.float32)
    seen = code != SKY
    blank = np.flatnonzero(~seen)
    if blank.size:
        out[:, blank] = sky_colour(scene.world.weather, scene.world, _unit(direction[:, blank]))
    order = np.flatnonzero(seen)
    body = code[order] >> FACE_BITS
    material = scene.tables.material[body]
    for number in np.unique(material):
        part = order[material == number]
        batch = _batch(scene, origin, direction[:, part], w[part], code[part], pixel)
        out[:, part] = _light(scene, batch, int(number), lightmap)
    out *= np.float32(scene.world.weather.exposure)
    return out


def _unit(direction: F32) -> F32:
    out: F32 = direction / np.sqrt((direction * direction).sum(0))
    return out


def _batch(scene: Scene, origin: F64, direction: F32, w: F32, code: I32, pixel: float) -> Batch:
    depth = np.reciprocal(w)
    point = direction * depth
    point += origin.astype(np.float32)[:, None]
    length = np.sqrt((direction * direction).sum(0))
    return Batch(
        scene.tables,
        code >> FACE_BITS,
        code & ((1 << FACE_BITS) - 1),
        point,
        direction / length,
        depth * length,
        depth * np.float32(pixel),
    )


def _light(scene: Scene, batch: Batch, material: int, lightmap: Lightmap) -> F32:
    """Light a batch of one material."""
    weather = scene.world.weather
    sun = np.array(weather.sun, np.float32)
    if material == GROUND:
        albedo, normal, lateral = paint_ground(scene.world, batch)
        sunny, openness = lightmap.lookup(batch.point[0], lateral)
        glow: F32 | None = None
    else:
        normal = materials.normals(batch)
        albedo, glow = materials.paint(material, batch, normal, scene.world)
        sunny = scene.tables.lit[batch.body]
        openness = np.float32(0.55) + np.float32(0.45) * smooth(batch.point[2], -0.05, 1.3)
    facing = np.maximum(normal[0] * sun[0] + normal[1] * sun[1] + normal[2] * sun[2], 0)
    up = np.float32(0.5) + np.float32(0.5) * normal[2]
    sky_share = openness * (np.float32(0.30) + np.float32(0.70) * up)
    bounce = openness * (1 - up) * np.float32(0.16)
    direct = facing * sunny
    out = np.empty_like(albedo)
    lamps = _lamps(scene, batch, normal) if weather.weak else None
    for k in range(3):
        light = direct * np.float32(weather.sun_colour[k]) + sky_share * np.float32(weather.sky_colour[k])
        light += bounce * np.float32(weather.sun_colour[k] * weather.sun[2] + weather.sky_colour[k])
        if lamps is not None:
            light += lamps * np.float32((1.0, 0.72, 0.42)[k])
        out[k] = albedo[k] * light
    if glow is not None:
        out += glow
    return _haze(scene, batch, out)


def _lamps(scene: Scene, batch: Batch, normal: F32) -> F32:
    """Light of the head lights and of pools under a regular row of street lamps (an approximation of the real row)."""
    position = scene.world.poses[0].position
    road = scene.road
    x, y, z = batch.point
    lateral = road.lateral(x, y)
    phase = (x - np.float32(position[0])) * np.float32(1 / _LAMP_STEP)
    along = (phase - np.floor(phase) - np.float32(0.5)) * np.float32(_LAMP_STEP)
    side = np.abs(lateral) - np.float32(road.half_width - 1.5)
    rise = np.float32(6.5) - z
    square = along * along + side * side + rise * rise
    pool = np.float32(22.0) * np.maximum(rise, 0) / (square * np.sqrt(square)) if road.walk > 0 else np.zeros_like(x)
    pool = pool * (np.float32(0.35) + np.float32(0.65) * np.abs(normal[2]))
    beam = -(normal * batch.ray).sum(0)
    ahead = np.float32(9.0) * np.maximum(beam, 0.02) / (1 + batch.distance * batch.distance * np.float32(0.018))
    cone = smooth(np.float32(0.12) - batch.ray[2], 0.0, 0.16)
    out: F32 = pool * np.float32(0.8) + np.float32(0.3) * ahead * cone
    return out


def _haze(scene: Scene, batch: Batch, colour: F32) -> F32:
    """Aerial perspective: fade towards the haze's colour with distance."""
    weather = scene.world.weather
    clear = np.exp(batch.distance * np.float32(-weather.haze))
    clear = np.float32(_CLEAREST) + np.float32(1 - _CLEAREST) * clear
    for k in range(3):
        colour[k] = colour[k] * clear + np.float32(weather.haze_colour[k]) * (1 - clear)
    return colour
