"""Deterministic noise: an integer hash, tileable noise pictures with mip levels, and filtered stripe functions.

Only integer arithmetic and + - * / are used, so that two machines draw the same picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
TILE = 256  # texels along the side of a noise picture


def hash_u32(*keys: Any, seed: int = 0) -> NDArray[np.uint32]:
    """Mix integer arrays (broadcast against each other) into uniform 32-bit integers."""
    state = np.atleast_1d(np.asarray(seed & 0xFFFFFFFF, np.uint32))
    for key in keys:
        word = np.atleast_1d(np.asarray(key)).astype(np.int64).astype(np.uint32)
        state = (state ^ word) * np.uint32(0x9E3779B1)
        state = (state ^ (state >> np.uint32(15))) * np.uint32(0x85EBCA77)
        state = (state ^ (state >> np.uint32(13))) * np.uint32(0xC2B2AE3D)
        state = state ^ (state >> np.uint32(16))
    return state


def hash_unit(*keys: Any, seed: int = 0) -> F32:
    """Mix integer arrays into uniform float32 values in [0, 1)."""
    return (hash_u32(*keys, seed=seed) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


@dataclass(frozen=True, slots=True)
class NoiseTile:
    """A tileable noise picture with mip levels, mean 0.5.

    Attributes:
        flat: all levels one after the other, float32.
        start: int64 [levels], where each level begins in `flat`.
    """

    flat: F32
    start: NDArray[np.int64]

    def sample(self, u: F32, v: F32, footprint: F32 | None = None) -> F32:
        """Look up bilinearly at u, v (unit: whole tiles, any value); `footprint` [same unit] chooses the level."""
        if footprint is None:
            level = np.zeros(1, np.int32)
        else:
            level = np.clip(np.frexp(footprint * np.float32(TILE))[1], 0, len(self.start) - 1)
        shift = 8 - level  # log2 of the side of the level
        side = np.left_shift(1, shift).astype(np.float32)
        x, y = u * side - np.float32(0.5), v * side - np.float32(0.5)
        x0, y0 = np.floor(x), np.floor(y)
        fx, fy = x - x0, y - y0
        mask = (side - 1).astype(np.int32)
        xi, yi = x0.astype(np.int32), y0.astype(np.int32)
        left, right = xi & mask, (xi + 1) & mask
        base = self.start[level].astype(np.int32)
        top = base + np.left_shift(yi & mask, shift)
        bottom = base + np.left_shift((yi + 1) & mask, shift)
        a, b = self.flat.take(top + left), self.flat.take(top + right)
        c, d = self.flat.take(bottom + left), self.flat.take(bottom + right)
        upper = a + (b - a) * fx
        lower = c + (d - c) * fx
        out: F32 = upper + (lower - upper) * fy
        return out


def _octave(cells: int, seed: int) -> F32:
    """Value noise [TILE, TILE] with `cells` lattice cells along the side, smoothly interpolated."""
    grid = np.arange(cells)
    lattice = hash_unit(grid[None, :], grid[:, None], cells, seed=seed).reshape(cells, cells)
    position = (np.arange(TILE, dtype=np.float32) + np.float32(0.5)) * np.float32(cells / TILE)
    low = np.floor(position).astype(np.int64)
    t = position - low
    t = t * t * (3 - 2 * t)
    rows = lattice[low % cells] * (1 - t)[:, None] + lattice[(low + 1) % cells] * t[:, None]
    out: F32 = (rows[:, low % cells] * (1 - t) + rows[:, (low + 1) % cells] * t).astype(np.float32)
    return out


@cache
def noise_tile(first: int, octaves: int, persistence: float, seed: int = 0, spread: float = 0.18) -> NoiseTile:
    """Build a tile: `octaves` of value noise from `first` cells per side on, standard deviation `spread`."""
    total = np.zeros((TILE, TILE), np.float32)
    weight = 1.0
    for octave in range(octaves):
        total += np.float32(weight) * (_octave(min(first << octave, TILE), seed + octave) - np.float32(0.5))
        weight *= persistence
    total *= np.float32(spread / float(total.std(dtype=np.float64)))
    total += np.float32(0.5) - np.float32(total.mean(dtype=np.float64))
    level = np.clip(total, 0, 1)
    levels = [level]
    while level.shape[0] > 1:
        level = (level[0::2, 0::2] + level[0::2, 1::2] + level[1::2, 0::2] + level[1::2, 1::2]) * np.float32(0.25)
        levels.append(level)
    start = np.cumsum([0] + [lev.size for lev in levels[:-1]])
    return NoiseTile(np.concatenate([lev.reshape(-1) for lev in levels]), start.astype(np.int64))


def clouds() -> NoiseTile:
    """Smooth noise with large blobs (patches on the road, clouds, hills)."""
    return noise_tile(4, 6, 0.55, seed=11)


def grain() -> NoiseTile:
    """Noise that is strong in the fine octaves (asphalt, leaves, plaster)."""
    return noise_tile(16, 5, 0.95, seed=23, spread=0.2)


def stripes(x: F32, period: Any, on: Any, width: F32) -> F32:
    """Share of a box of size `width` around x that a stripe covers; stripes are [k period, k period + on).

    The closed form of a box-filtered square wave: no aliasing however far away the surface is.
    """
    half = np.maximum(width, np.float32(1e-5)) * np.float32(0.5)
    out: F32 = (_integral(x + half, period, on) - _integral(x - half, period, on)) / (half + half)
    return out


def band(x: F32, low: Any, high: Any, width: F32) -> F32:
    """Share of a box of size `width` around x that lies in [low, high]."""
    w = np.maximum(width, np.float32(1e-5))
    half = w * np.float32(0.5)
    inside = np.minimum(x + half, np.float32(high)) - np.maximum(x - half, np.float32(low))
    out: F32 = np.clip(inside / w, 0, 1)
    return out


def smooth(x: F32, low: float, high: float) -> F32:
    """Hermite step from 0 at `low` to 1 at `high` (`low` may be the larger one)."""
    t = np.clip((x - np.float32(low)) * np.float32(1.0 / (high - low)), 0, 1)
    out: F32 = t * t * (np.float32(3) - np.float32(2) * t)
    return out


def _integral(x: F32, period: Any, on: Any) -> F32:
    """Length of stripe in [0, x]."""
    count = np.floor(x / period)
    out: F32 = count * on + np.minimum(x - count * period, on)
    return out
