"""Canny edges of a floating-point image, as scikit-image 0.26 `feature.canny` defines them (border value 0).

The image is smoothed with zeros outside and divided by the equally smoothed ones; thresholds are absolute: a ramp of one
unit per pixel has magnitude 8.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]


def canny(image: NDArray[Any], sigma: float = 1.0, low: float = 0.1, high: float = 0.2) -> BoolArray:
    """Mark the edge pixels of an image.

    Args:
        image: float32 or float64 [H, W]; the arithmetic keeps the type.
        sigma: of the Gaussian, in pixels.
        low: smallest magnitude of an edge pixel.
        high: magnitude that at least one pixel of a connected edge must have.

    Returns:
        bool [H, W]; the outermost pixels are never edges.
    """
    from scipy import ndimage

    values = image if image.dtype in (np.float32, np.float64) else image.astype(np.float64)
    smooth = _smooth(values, sigma)
    down, right = ndimage.sobel(smooth, axis=0), ndimage.sobel(smooth, axis=1)
    magnitude = np.sqrt(down * down + right * right)
    strong = magnitude >= np.float32(low)
    strong[[0, -1]] = False
    strong[:, [0, -1]] = False
    kept = _crests(strong, down, right, magnitude)
    labels, count = ndimage.label(kept, np.ones((3, 3), np.bool_))
    anchored = np.zeros(count + 1, np.bool_)
    anchored[labels[kept & (magnitude >= high)]] = True
    anchored[0] = False
    edges: BoolArray = anchored.take(labels)
    return edges


def _smooth(values: NDArray[Any], sigma: float) -> NDArray[Any]:
    """Gaussian with zeros outside the image, normalised by what the image covers of the kernel."""
    from scipy import ndimage

    def blur(array: NDArray[Any]) -> NDArray[Any]:
        out: NDArray[Any] = ndimage.gaussian_filter(array, sigma, mode="constant", cval=0.0, truncate=4.0)
        return out

    cover = blur(np.ones_like(values)) + np.finfo(values.dtype).eps
    return blur(values) / cover


def _crests(candidates: BoolArray, down: NDArray[Any], right: NDArray[Any], magnitude: NDArray[Any]) -> BoolArray:
    """Keep candidates that are not lower than both values interpolated one pixel along the gradient."""
    width = candidates.shape[1]
    at = np.flatnonzero(candidates)
    i, j, m = down.reshape(-1).take(at), right.reshape(-1).take(at), magnitude.reshape(-1)
    same = (i > 0) == (j > 0)
    size_i, size_j = np.abs(i), np.abs(j)
    vertical = np.where(same, size_i > size_j, size_i >= size_j)
    weight = np.where(vertical, size_j, size_i) / np.where(vertical, size_i, size_j)
    straight = np.where(vertical, width, np.where(same, 1, -1))
    slope = np.where(same, width + 1, width - 1)
    keep = np.ones(at.size, np.bool_)
    for sign in (1, -1):
        beside = m.take(at + sign * straight) * (1 - weight) + m.take(at + sign * slope) * weight
        keep &= beside <= m.take(at)
    out = np.zeros(candidates.size, np.bool_)
    out[at[keep]] = True
    return out.reshape(candidates.shape)
