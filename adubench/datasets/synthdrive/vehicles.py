"""Paint of cars: lacquer that mirrors the sky, windows, lights, number plates, doors."""

from __future__ import annotations

import numpy as np

from adubench.datasets.synthdrive.noise import F32, band, smooth
from adubench.datasets.synthdrive.surface import Batch, Painted, fresnel, mirror
from adubench.datasets.synthdrive.world import World


def paint_body(batch: Batch, normal: F32, world: World) -> Painted:
    """Paint the lower body. Parameters: half length, half width, belt, top, front and rear end of the cabin."""
    x, y, z = batch.local
    half, width = batch.param(0), batch.param(1)
    foot = batch.foot * np.float32(1.5)
    colour = batch.colour()
    normal[2] += (z - np.float32(0.62)) * np.float32(0.9)  # panels are not flat
    normal[0] += x * np.float32(0.06) * batch.tables.cos[batch.body]
    normal[1] += x * np.float32(0.06) * batch.tables.sin[batch.body]
    normal /= np.sqrt((normal * normal).sum(0))
    side = np.abs(y) > width - np.float32(0.09)
    arch = np.minimum(np.abs(x - np.float32(0.6) * half), np.abs(x + np.float32(0.62) * half))
    arch = smooth(np.sqrt(arch * arch + (z - np.float32(0.31)) ** 2), 0.40, 0.37) * side
    trim = band(z, 0.0, 0.33, foot)
    for place in (0.62, -0.18):
        seam = band(x, place - 0.012, place + 0.012, foot) * band(z, 0.36, 2.0, foot) * side
        colour *= 1 - np.float32(0.7) * seam
    handle = (band(x, 0.02, 0.2, foot) + band(x, -0.8, -0.62, foot)) * band(z, 0.74, 0.78, foot) * side
    colour *= 1 - np.float32(0.5) * handle
    front = x - half
    rear = -half - x
    end = np.maximum(band(front, -0.06, 0.1, foot), band(rear, -0.05, 0.1, foot))
    grille = band(front, -0.12, 0.1, foot) * band(z, 0.36, 0.52, foot) * band(y, -0.45, 0.45, foot)
    plate = end * band(y, -0.26, 0.26, foot) * band(z, 0.42, 0.54, foot)
    lamps_y = band(np.abs(y), width * np.float32(0.62), width + 1, foot)
    head = band(front, -0.30, 0.1, foot) * band(z, 0.56, 0.70, foot) * lamps_y
    tail = band(rear, -0.12, 0.1, foot) * band(z, 0.62, 0.80, foot) * lamps_y
    dark = np.maximum(np.maximum(trim, grille), arch)
    for k in range(3):
        colour[k] += (np.float32(0.02) - colour[k]) * dark
        colour[k] += (np.float32((0.62, 0.62, 0.60)[k]) - colour[k]) * plate
        colour[k] += (np.float32((0.70, 0.71, 0.72)[k]) - colour[k]) * head
        colour[k] += (np.float32((0.42, 0.015, 0.012)[k]) - colour[k]) * tail
    lacquer = (1 - dark) * fresnel(batch, normal, 0.05) * np.float32(0.8)
    light = mirror(batch, normal, world, lacquer)
    if world.weather.weak:
        light = light + tail * np.array([[0.5], [0.02], [0.015]], np.float32)
    return colour, light + _sun_glint(batch, normal, world) * (1 - dark)


def paint_cabin(batch: Batch, normal: F32, world: World) -> Painted:
    """Paint the cabin: windows all round, pillars and roof in the body's colour."""
    x, y, z = batch.local
    width, belt, top = batch.param(1), batch.param(2), batch.param(3)
    front, rear = batch.param(4), batch.param(5)
    foot = batch.foot * np.float32(1.5)
    side = batch.face >= 4
    rise = (z - belt) / np.maximum(top - belt, np.float32(0.1))
    lean_front, lean_rear = front - np.float32(0.78) * rise, rear + np.float32(0.42) * rise
    pillar = np.maximum(
        band(x, -0.24, -0.16, foot), np.maximum(smooth(lean_front - x, 0.16, 0.10), smooth(x - lean_rear, 0.16, 0.10))
    )
    height = band(z, belt + np.float32(0.02), top - np.float32(0.10), foot)
    ends = height * band(np.abs(y), -1.0, width - np.float32(0.17) - np.float32(0.14) * rise, foot)
    roof = normal[2] > 0.93
    glass = np.where(side, height * (1 - np.minimum(pillar, 1)), ends) * (1 - roof)
    colour = batch.colour()
    for k in range(3):
        colour[k] += (np.float32((0.018, 0.021, 0.024)[k]) - colour[k]) * glass
    shine = fresnel(batch, normal, 0.05) * np.float32(0.8) + glass * np.float32(0.17) * np.clip(rise, 0.1, 1)
    return colour, mirror(batch, normal, world, shine) + _sun_glint(batch, normal, world)


def _sun_glint(batch: Batch, normal: F32, world: World) -> F32:
    """Mirrored sun, [1, n]."""
    along = (normal * batch.ray).sum(0)
    mirrored = batch.ray - 2 * along * normal
    facing = np.maximum((mirrored * np.array(world.weather.sun, np.float32)[:, None]).sum(0), 0)
    square = facing * facing
    peak = (square * square) ** 8
    out: F32 = (peak * np.float32(world.weather.sun_colour[1] * 0.5) * batch.tables.lit[batch.body])[None]
    return out
