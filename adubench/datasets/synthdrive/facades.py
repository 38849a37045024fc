"""Paint of buildings: plaster or brick, rows of windows, shop fronts, doors."""

from __future__ import annotations

import numpy as np

from adubench.datasets.synthdrive.noise import F32, band, clouds, grain, hash_unit, smooth, stripes
from adubench.datasets.synthdrive.surface import Batch, Painted, fresnel, mirror, slant
from adubench.datasets.synthdrive.world import World

_SASH = 0.07


def paint_facade(batch: Batch, normal: F32, world: World) -> Painted:
    """Paint walls. Parameters: half x, half y, height, floor height, window spacing, style (10 and more: city)."""
    floor, column, style = batch.param(3), batch.param(4), batch.param(5)
    city = style >= 10
    face = batch.face
    sideways = face >= 2
    u = np.where(sideways, batch.local[0] + batch.param(0), batch.local[1] + batch.param(1))
    v = batch.local[2]
    wide = slant(batch, normal)
    tall = batch.foot
    wall = batch.colour() * _wall(batch, u, v, wide, tall, style)
    shop = city & (v < floor)
    part = _windows(u, v, wide, tall, floor, column, shop)
    keep = (v < batch.param(2) - np.float32(0.45)) & (u > 0.4) & (face < 4)
    glass, frame, sill = (item * keep for item in part[:3])
    cell = part[3], part[4]
    draw = hash_unit(cell[0], cell[1], batch.body, face, seed=3)
    out = wall * (1 - np.float32(0.35) * sill)
    tint = np.where(draw > 0.72, np.float32(0.30), np.float32(0.05) + np.float32(0.06) * draw)
    for k in range(3):
        frame_colour = np.where(style % 2 < 1, np.float32(0.62), np.float32(0.16))
        out[k] += (frame_colour - out[k]) * np.maximum(frame, 0)
        out[k] += (tint * np.float32((0.9, 1.0, 1.08)[k]) - out[k]) * glass
    sign_band = shop * band(v, floor - np.float32(0.62), floor - np.float32(0.12), tall)
    hue = hash_unit(np.floor(u / np.float32(9)), batch.body, seed=8)
    for k in range(3):
        paint = (
            np.float32(0.08) + np.float32(0.22) * np.abs(np.mod(hue * 3 + np.float32(k / 3), 1) - np.float32(0.5)) * 2
        )
        out[k] += (paint - out[k]) * sign_band
    light = mirror(batch, normal, world, glass * fresnel(batch, normal, 0.14) * _reflected(u, v, draw))
    if world.weather.weak:
        lit = ((draw > 0.66) | shop) * glass * (np.float32(0.25) + draw * np.float32(0.5))
        light = light * np.float32(0.5) + np.array([[1.15], [0.82], [0.42]], np.float32) * lit
    return out, light


def _reflected(u: F32, v: F32, draw: F32) -> F32:
    """Strength of the mirror image in a window, uneven like what stands opposite."""
    shape = clouds().sample(u * np.float32(1 / 11) + draw, v * np.float32(1 / 7), np.full_like(u, 0.01))
    out: F32 = smooth(shape, 0.30, 0.62) * (np.float32(0.25) + np.float32(0.65) * draw)
    return out


def _wall(batch: Batch, u: F32, v: F32, wide: F32, tall: F32, style: F32) -> F32:
    """Brightness of the wall itself: plaster with stains, brick courses for every fourth style, a darker base."""
    key = batch.body * np.float32(0.173)
    stain = clouds().sample(u * np.float32(1 / 14) + key, v * np.float32(1 / 9), wide * np.float32(1 / 14))
    fine = grain().sample(u * np.float32(1 / 2.1) + key, v * np.float32(1 / 2.1), wide * np.float32(1 / 2.1))
    tone = np.float32(0.80) + np.float32(0.28) * stain + np.float32(0.16) * (fine - np.float32(0.5))
    brick = style % 4 == 1
    course = np.floor(v * np.float32(1 / 0.085))
    shift = np.where(course % 2 == 0, np.float32(0), np.float32(0.13))
    mortar = np.maximum(stripes(v + 1, 0.085, 0.014, tall), stripes(u + shift, 0.26, 0.014, wide))
    tone = np.where(brick, tone * (np.float32(0.9) + np.float32(0.3) * mortar), tone)
    out: F32 = tone * (1 - np.float32(0.25) * band(v, -1, 0.55, tall))
    return out


def _windows(
    u: F32, v: F32, wide: F32, tall: F32, floor: F32, column: F32, shop: F32
) -> tuple[F32, F32, F32, F32, F32]:
    """Shares of glass, frame and the shadow under the sill, and the window's column and row."""
    width = np.where(shop, column * np.float32(0.86), column * np.float32(0.46))
    low = np.where(shop, floor * np.float32(0.14), floor * np.float32(0.30))
    height = np.where(shop, floor * np.float32(0.62), floor * np.float32(0.50))
    left = (column - width) * np.float32(0.5)
    x, y = u - left, v - low
    outer = stripes(x, column, width, wide) * stripes(y, floor, height, tall)
    rim = np.float32(_SASH)
    inner = stripes(x - rim, column, width - 2 * rim, wide) * stripes(y - rim, floor, height - 2 * rim, tall)
    middle = x - np.float32(0.5) * (width - rim)
    upper = np.asarray(y - height * np.float32(0.68), np.float32)
    bar = stripes(middle, column, rim, wide)
    cross = stripes(upper, floor, rim * np.float32(0.8), tall)
    inner = inner * (1 - np.maximum(bar, cross))
    sill = stripes(x + np.float32(0.1), column, width + np.float32(0.2), wide) * stripes(
        y + np.float32(0.22), floor, np.zeros_like(y) + np.float32(0.14), tall
    )
    return inner, np.maximum(outer - inner, 0), sill * smooth(v, 0.3, 0.6), np.floor(x / column), np.floor(y / floor)
