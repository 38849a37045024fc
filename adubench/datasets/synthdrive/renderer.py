"""From a scene and a camera to a picture, its exact depth and its object mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adubench.datasets.synthdrive.geometry import Hits, RayGrid
from adubench.datasets.synthdrive.lightmap import Lightmap
from adubench.datasets.synthdrive.noise import F32, hash_unit
from adubench.datasets.synthdrive.rig import Rig
from adubench.datasets.synthdrive.scene import Scene, depth_map
from adubench.datasets.synthdrive.shading import shade

_CHUNK = 1 << 16
_CURVE = 4096


@dataclass(frozen=True, slots=True)
class View:
    """What one camera sees.

    Attributes:
        image: uint8 [H, W, 3]. depth: float32 [H, W] metres, 0 for none. things: uint16 [H, W], class * 256 + instance.
    """

    image: NDArray[np.uint8]
    depth: F32
    things: NDArray[np.uint16]


def render(scene: Scene, rig: Rig, frame: int, camera: int, lightmap: Lightmap) -> View:
    """Render camera 2 or 3 at a frame. Silhouettes are sampled four times per pixel, the rest once."""
    pose = scene.world.poses[frame]
    grid = rig.camera_rays(pose, camera)
    hits = scene.cast(grid)
    colour = shade_hits(scene, grid, hits, np.arange(hits.w.size), rig, lightmap)
    edges = np.flatnonzero(_mixed(hits))
    fine = rig.camera_rays(pose, camera, samples=2)
    fine_hits = scene.cast(fine, scene.worth_refining(hits))
    width = rig.size[1]
    top_left = (edges // width) * (4 * width) + (edges % width) * 2
    quad = (top_left[:, None] + np.array([0, 1, 2 * width, 2 * width + 1])).reshape(-1)
    soft = np.minimum(shade_hits(scene, fine, fine_hits, quad, rig, lightmap), np.float32(2))
    colour[:, edges] = soft.reshape(3, -1, 4).mean(2)
    image = develop(colour.reshape(3, *rig.size), scene.world.weather.noise, scene.world.seed + 31 * frame + camera)
    return View(image, depth_map(hits), scene.things(hits))


def shade_hits(scene: Scene, grid: RayGrid, hits: Hits, index: NDArray[np.intp], rig: Rig, lightmap: Lightmap) -> F32:
    """Shade the rays at flat positions `index`, in cache-sized pieces; exposed linear RGB, float32 [3, n]."""
    out = np.empty((3, index.size), np.float32)
    code, w = hits.code.reshape(-1), hits.w.reshape(-1)
    width = grid.shape[1]
    for start in range(0, index.size, _CHUNK):
        part = index[start : start + _CHUNK]
        direction = grid.col[:, part % width] + grid.row[:, part // width]
        out[:, start : start + _CHUNK] = shade(scene, grid.origin, direction, w[part], code[part], 1 / rig.fx, lightmap)
    return out


def _mixed(hits: Hits) -> NDArray[np.bool_]:
    """Pixels whose neighbour shows another face or body, or a jump in depth."""
    code, w = hits.code, hits.w
    out = np.zeros(code.shape, np.bool_)
    for axis in (0, 1):
        a = (slice(None), slice(1, None)) if axis else (slice(1, None), slice(None))
        b = (slice(None), slice(None, -1)) if axis else (slice(None, -1), slice(None))
        change = (code[a] != code[b]) | (
            np.abs(w[a] - w[b]) > np.float32(0.06) * np.maximum(w[a], w[b]) + np.float32(4e-3)
        )
        out[a] |= change
        out[b] |= change
    return out


def develop(colour: F32, noise: float, seed: int) -> NDArray[np.uint8]:
    """Tone-map linear RGB [3, H, W] to uint8 [H, W, 3] with vignette and sensor noise."""
    _, height, width = colour.shape
    y = (np.arange(height, dtype=np.float32) - height / 2) / height
    x = (np.arange(width, dtype=np.float32) - width / 2) / width
    vignette = (1 - np.float32(0.22) * (x * x)[None]) - np.float32(0.12) * (y * y)[:, None]
    index = np.clip(colour * vignette * np.float32(_CURVE / 4), 0, _CURVE - 1.001)
    low = index.astype(np.int32)
    grey = _TONE.take(low) + _SLOPE.take(low) * (index - low)
    grey += np.float32(noise) * _noise(height, width, seed)
    bytes_: NDArray[np.uint8] = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(bytes_.transpose(1, 2, 0))


def _tone_curve() -> F32:
    """Filmic curve and display gamma of linear values 0..4 as grey values."""
    x = np.arange(_CURVE + 1) * (4 / _CURVE)
    film = x * (1.9 * x + 0.06) / (x * (1.75 * x + 0.62) + 0.17)
    out: F32 = (255 * np.clip(film, 0, 1) ** (1 / 2.0)).astype(np.float32)
    return out


_TONE = _tone_curve()
_SLOPE = np.diff(_TONE)
_BOX = 1021
_POOL: list[F32] = []


def _noise(height: int, width: int, seed: int) -> F32:
    """Noise [3, H, W] of about unit deviation, cut from a pool at places that the seed decides."""
    if not _POOL:
        grid = np.arange(_BOX * _BOX)
        total = sum(hash_unit(grid, seed=77 + k) for k in range(3))
        _POOL.append(((np.asarray(total) - np.float32(1.5)) * np.float32(2)).astype(np.float32))
    pool = _POOL[0]
    starts = (hash_unit(np.arange(3), seed=seed) * (pool.size - 1)).astype(np.int64)
    size = height * width
    out = np.empty((3, size), np.float32)
    for channel, start in enumerate(starts):
        piece = pool[start : start + size]
        out[channel, : piece.size] = piece
        filled = piece.size
        while filled < size:
            piece = pool[: size - filled]
            out[channel, filled : filled + piece.size] = piece
            filled += piece.size
    return out.reshape(3, height, width)
