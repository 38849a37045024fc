"""Colour pictures of depth maps for people to look at; no number is ever computed from them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.io.atomic import write_bytes

# From far (dark) to near (bright), monotone in lightness: it reads in grey and for the colour-blind too.
_ANCHORS = np.array(
    [
        (13, 8, 40), (46, 15, 92), (91, 22, 118), (137, 34, 106), (181, 53, 82), (219, 84, 55), (243, 130, 33),
        (250, 184, 53), (246, 233, 140), (252, 252, 220),
    ],
    np.float64,
)  # fmt: skip
_LEVELS = 256


def palette() -> NDArray[np.uint8]:
    """Return the colours, uint8 [256, 3], far to near."""
    place = np.linspace(0, len(_ANCHORS) - 1, _LEVELS)
    columns = [np.interp(place, np.arange(len(_ANCHORS)), _ANCHORS[:, c]) for c in range(3)]
    return np.rint(np.stack(columns, axis=1)).astype(np.uint8)


def colorize(depth: NDArray[Any], *, invert: bool = True) -> NDArray[np.uint8]:
    """Colour a map by inverse depth between its 2nd and 98th percentile; near is bright, invalid is black.

    Args:
        depth: [H, W]; values that are not finite or not > 0 are invalid.
        invert: the map is depth; False for maps that grow towards the camera (disparity).

    Returns:
        uint8 [H, W, 3].
    """
    values = np.asarray(depth, np.float64)
    valid = np.isfinite(values) & (values > 0)
    out = np.zeros((*values.shape, 3), np.uint8)
    if not valid.any():
        return out
    near = 1.0 / values[valid] if invert else values[valid]
    low, high = np.percentile(near, [2, 98])
    level = (near - low) / (high - low) if high > low else np.full(near.shape, 0.5)
    out[valid] = palette()[np.rint(np.clip(level, 0, 1) * (_LEVELS - 1)).astype(np.intp)]
    return out


def write_color_jpeg(path: str | Path, depth: NDArray[Any], *, invert: bool = True) -> None:
    """Write a colour picture of a map as JPEG, atomically: readers of predictions take PNG for depth codes."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(colorize(depth, invert=invert)).save(stream, "JPEG", quality=92)
    write_bytes(path, stream.getvalue())
