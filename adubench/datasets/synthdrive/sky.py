"""Everything at infinity: sky, clouds, and the skyline of hills, woods and roofs."""

from __future__ import annotations

import numpy as np

from adubench.datasets.synthdrive.noise import F32, band, clouds, grain, hash_unit, smooth
from adubench.datasets.synthdrive.world import Weather, World


def sky_colour(weather: Weather, world: World, ray: F32) -> F32:
    """Linear RGB float32 [3, n] of unit rays [3, n] that meet nothing."""
    up = np.maximum(ray[2], np.float32(0.0))
    glow = (ray * np.array(weather.sun, np.float32)[:, None]).sum(0)
    halo = np.maximum(glow, 0) ** 8 * np.float32(0.0 if weather.weak else 0.25)
    rise = 1 - np.exp(up * np.float32(-5.5))
    shift = np.float32((world.seed % 97) / 97)
    scale = np.float32(0.055) / (up + np.float32(0.09))
    u, v = ray[0] * scale + shift, ray[1] * scale + shift * np.float32(3.1)
    foot = scale * np.float32(0.004)
    density = clouds().sample(u, v, foot) * np.float32(0.75) + clouds().sample(v * 3, u * 3, foot * 3) * np.float32(
        0.25
    )
    low = np.float32(0.62 - 0.30 * weather.clouds)
    cover = smooth((density - low) * np.float32(1 / 0.22), 0.0, 1.0) * smooth(up, 0.0, 0.10)
    thick = smooth((density - low) * np.float32(1 / 0.45), 0.2, 1.0)
    haze = np.array(weather.haze_colour, np.float32)
    base = (0.012, 0.018, 0.038) if weather.weak else (0.20, 0.40, 0.80)
    lit = np.array([0.75, 0.75, 0.80], np.float32) * haze if weather.weak else np.array([1.35, 1.33, 1.30], np.float32)
    out = np.empty_like(ray)
    for k in range(3):
        clear = haze[k] * np.float32(1.08) + (np.float32(base[k]) - haze[k]) * rise + halo
        cloud = lit[k] * (1 - np.float32(0.42) * thick)
        out[k] = clear + (cloud - clear) * cover * np.float32(0.92)
    return _skyline(weather, world, ray, out, haze)


def _skyline(weather: Weather, world: World, ray: F32, out: F32, haze: F32) -> F32:
    """Draw hills, a line of trees, and in cities far blocks of houses over the sky near the horizon."""
    angle = np.arctan2(ray[1], ray[0]) * np.float32(1 / (2 * np.pi))
    key = np.float32((world.seed % 89) / 89)
    none = np.full_like(angle, 1e-3)
    far = np.float32(0.016) + np.float32(0.075) * (clouds().sample(angle * 2 + key, none, none) - np.float32(0.35))
    ragged = grain().sample(angle * 9 + key, none, none * np.float32(4))
    near = np.float32(0.004) + np.float32(0.05) * (clouds().sample(angle * 5 + key, none + 1, none)) * ragged
    edge = np.float32(0.0022)
    layers = [(far, (0.16, 0.22, 0.30), 0.8), (near, (0.06, 0.095, 0.055), 0.62)]
    if world.scene == "city":
        cell = np.floor(angle * 150)
        roofs = np.float32(0.015) + np.float32(0.055) * hash_unit(cell, seed=world.seed)
        layers.insert(1, (roofs, (0.28, 0.27, 0.27), 0.62))
    dim = np.float32(0.06 if weather.weak else 1.0)
    for height, colour, mist in layers:
        covered = band(ray[2], -1.0, height, edge + np.zeros_like(angle))
        for k in range(3):
            tone = np.float32(colour[k]) * dim * np.float32(1 - mist) + haze[k] * np.float32(mist)
            out[k] += (tone - out[k]) * covered
    return out
