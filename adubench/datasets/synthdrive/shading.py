"""Colour of what a ray meets."""

from __future__ import annotations

import numpy as np

from adubench.datasets.synthdrive.geometry import F64, FACE_BITS, I32, SKY
from adubench.datasets.synthdrive.lightmap import Lightmap
from adubench.datasets.synthdrive.noise import F32
from adubench.datasets.synthdrive.scene import Scene


def shade(scene: Scene, origin: F64, direction: F32, w: F32, code: I32, pixel: float, lightmap: Lightmap) -> F32:
    """Return exposed linear RGB float32 [3, n] of rays [3, n]."""
    out = np.empty(direction.shape, np.float32)
    out[:] = np.array([0.5, 0.6, 0.8], np.float32)[:, None]
    seen = np.flatnonzero(code != SKY)
    body = code[seen] >> FACE_BITS
    colour = scene.tables.colour[body].T
    normal = scene.tables.normals[body, code[seen] & 31].T
    light = np.float32(0.6) + np.float32(0.4) * np.abs(normal[0] * np.float32(0.7) + normal[1] * np.float32(0.3))
    out[:, seen] = colour * light
    return out
