"""Canny edge maps and distances to edges.

The published depth boundary errors are defined through one program's edge map (scikit-image 0.26, `feature.canny`), so
every detail that moves a pixel is kept: border handling, the precision of each intermediate, the choice of neighbours.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]

LOW, HIGH = 0.1, 0.2
"""Default hysteresis thresholds, absolute, for floating-point images."""

_CUT = 4.0  # the Gaussian kernel ends at this many sigmas


def canny(image: NDArray[Any], sigma: float = 1.0, low: float = LOW, high: float = HIGH) -> BoolArray:
    """Edges of a grey image as scikit-image's `feature.canny` finds them (0.26, constant border 0).

    Args:
        image: [H, W], float32 or float64 (others become float64); the precision of the input is that of every step.
            A pixel that is not a number hides the edges within the kernel's reach.
        sigma: of the Gaussian filter, pixels.
        low: least gradient magnitude of an edge pixel; a unit ramp along one axis has magnitude 8.
        high: at least one pixel of each connected edge reaches this.

    Returns:
        bool [H, W]; the outermost frame is never an edge.
    """
    from scipy import ndimage

    picture = np.asarray(image)
    if picture.dtype not in (np.float32, np.float64):
        picture = picture.astype(np.float64)
    if min(picture.shape) < 3:  # everything is frame
        return np.zeros(picture.shape, np.bool_)
    smooth = _smooth(picture, sigma)
    across, down = ndimage.sobel(smooth, axis=1), ndimage.sobel(smooth, axis=0)
    with np.errstate(invalid="ignore", over="ignore"):
        magnitude = np.sqrt(down * down + across * across)
        kept = _thin(down, across, magnitude, low)
        labels, number = ndimage.label(kept, np.ones((3, 3), np.bool_))
        strong = np.zeros(number + 1, np.bool_)
        strong[labels[kept & (magnitude >= high)]] = True
    strong[0] = False
    out: BoolArray = strong.take(labels)
    return out


def log_depth_edges(depth: NDArray[Any]) -> BoolArray:
    """Edges of ln(depth): sigma 1, thresholds 0.1 and 0.2 (monodepth_benchmark, `metrics_ibims`).

    The scale of the map does not matter. An edge needs a change of about 2.5 % per pixel after smoothing.

    Args:
        depth: [H, W]; values <= 0 or not a number enter as 0, tiny ones as float32 epsilon before the logarithm.

    Returns:
        bool [H, W].
    """
    values = np.asarray(depth, np.float32)
    with np.errstate(invalid="ignore"):
        positive = values > 0
        log = np.log(np.maximum(values, np.finfo(np.float32).eps))
    return canny(np.where(positive, log, np.float32(0)))


def distance_to(mask: NDArray[Any]) -> NDArray[np.float64]:
    """Exact Euclidean distance in pixels of every pixel to the nearest set pixel.

    Args:
        mask: [H, W], nonzero = set.

    Returns:
        float64 [H, W]; 0 on set pixels, infinite everywhere when no pixel is set.
    """
    from scipy import ndimage

    flags = np.asarray(mask, np.bool_)
    if not flags.any():
        return np.full(flags.shape, math.inf)
    return np.asarray(ndimage.distance_transform_edt(~flags), np.float64)


def _smooth(image: NDArray[Any], sigma: float) -> NDArray[Any]:
    """Gaussian filter with 0 outside, divided by the same filter of ones: the border is not darkened."""
    from scipy import ndimage

    with np.errstate(invalid="ignore", over="ignore"):
        smooth = ndimage.gaussian_filter(image, sigma, mode="constant", cval=0.0, truncate=_CUT)
        out: NDArray[Any] = smooth / _border_weight(image.shape, image.dtype.str, sigma)
    return out


@lru_cache(maxsize=8)
def _border_weight(shape: tuple[int, ...], kind: str, sigma: float) -> NDArray[Any]:
    """Share of the kernel inside the image, plus epsilon; the same for all images of a size.

    An outer product of two vectors would be quicker but differ in the last bit.
    """
    from scipy import ndimage

    ones = np.ones(shape, np.dtype(kind))
    out: NDArray[Any] = ndimage.gaussian_filter(ones, sigma, mode="constant", cval=0.0, truncate=_CUT)
    out += np.finfo(out.dtype).eps
    out.flags.writeable = False
    return out


def _thin(down: NDArray[Any], across: NDArray[Any], magnitude: NDArray[Any], low: float) -> BoolArray:
    """Non-maximum suppression: compare each candidate with both neighbours along its gradient, interpolated.

    Args:
        down: [H, W] derivative along the rows' axis.
        across: [H, W] derivative along the columns' axis.
        magnitude: [H, W] of the gradient.
        low: least magnitude of a candidate, held as float32 whatever the image is.

    Returns:
        bool [H, W], the candidates that are local maxima.
    """
    width = magnitude.shape[1]
    candidate = np.zeros(magnitude.shape, np.bool_)
    candidate[1:-1, 1:-1] = magnitude[1:-1, 1:-1] >= np.float32(low)
    at = np.flatnonzero(candidate)
    flat = magnitude.reshape(-1)
    gi, gj, centre = down.reshape(-1).take(at), across.reshape(-1).take(at), flat.take(at)
    same = (gi > 0) == (gj > 0)
    steep, shallow = np.abs(gi), np.abs(gj)
    vertical = np.where(same, steep > shallow, steep >= shallow)
    with np.errstate(divide="ignore", invalid="ignore"):  # no gradient at all can be a candidate only for low <= 0
        weight = np.nan_to_num(np.minimum(steep, shallow) / np.maximum(steep, shallow))
    # Axis through (+1, +1) for equal signs, else through (-1, +1); the straight neighbour lies on the same side.
    diagonal = np.where(same, width + 1, -width + 1)
    straight = np.where(vertical, np.where(same, width, -width), 1)
    rest = 1.0 - weight.astype(np.float64)
    keep = np.ones(at.size, np.bool_)
    for side in (1, -1):
        between = flat.take(at + side * diagonal) * weight + flat.take(at + side * straight) * rest
        keep &= between <= centre
    out = np.zeros(magnitude.shape, np.bool_)
    out.reshape(-1)[at[keep]] = True
    return out
