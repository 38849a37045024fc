"""Disparity in its three meanings, and depth from each.

*Sigmoid disparity*: network output in (0, 1). *Scaled disparity*: sigmoid disparity mapped linearly to [1/max, 1/min],
whose inverse is depth up to a constant (Monodepth2, layers.py: disp_to_depth). *Pixel disparity*: column difference of
a rectified stereo pair, depth = fx * baseline / disparity.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import DataError
from adubench.io.depth_png import read_bytes
from adubench.io.maps import DepthMap
from adubench.io.png import decode_grey16

FloatArray = NDArray[np.float32]


def scaled_from_sigmoid(disp: NDArray[Any], min_depth: float = 0.1, max_depth: float = 100.0) -> FloatArray:
    """Map sigmoid disparity to scaled disparity.

    Args:
        disp: any shape, values in [0, 1].
        min_depth: depth at disparity 1.
        max_depth: depth at disparity 0.

    Returns:
        float32 of the same shape, values in [1 / max_depth, 1 / min_depth].

    Raises:
        DataError: the depth range is empty or not positive.
    """
    if not 0 < min_depth < max_depth:
        raise DataError(f"depth range of the disparity: expected 0 < min < max, got {min_depth} and {max_depth}.")
    low, high = 1 / max_depth, 1 / min_depth
    scaled = np.float32(low) + np.float32(high - low) * np.asarray(disp, np.float32)
    return np.asarray(scaled, np.float32)


def depth_from_disparity(disp: NDArray[Any], factor: float = 1.0) -> FloatArray:
    """Invert disparity; pixels whose disparity is not > 0 become 0 (missing).

    Args:
        disp: any shape; scaled disparity, or pixel disparity in pixels.
        factor: 1 for scaled disparity; fx * baseline (pixels * metres) for pixel disparity, fx at the map's resolution.

    Returns:
        float32 of the same shape, metres (or relative depth for scaled disparity).
    """
    disp32 = np.asarray(disp, np.float32)
    depth = np.zeros_like(disp32)
    np.divide(np.float32(factor), disp32, out=depth, where=disp32 > 0)
    return depth


def depth_uncertainty(depth: NDArray[Any], spread: NDArray[Any], factor: float = 1.0) -> FloatArray:
    """Carry the spread of a disparity over to the depth that it gives, to first order.

    For SUB-Depth, whose sigma_reg is in units of sigmoid disparity, this is depth^2 * (1/min_depth - 1/max_depth) *
    sigma_reg.

    Args:
        depth: any shape, `depth_from_disparity`.
        spread: same shape, in units of the disparity: a standard deviation, or the scale of a Laplacian.
        factor: that of `depth_from_disparity`.

    Returns:
        float32 of the same shape, in units of the depth.
    """
    depth32 = np.asarray(depth, np.float32)
    return np.asarray(depth32 * depth32 * np.asarray(spread, np.float32) / np.float32(factor), np.float32)


def read_disparity_png(path: str | Path, scale: float = 256.0) -> DepthMap:
    """Read pixel disparity from a 16-bit PNG; 0 = invalid.

    Args:
        path: the file.
        scale: pixels = code / scale: 256 for KITTI and DrivingStereo at half resolution, 128 for DrivingStereo at full
            resolution.

    Raises:
        DataError: missing, not a 16-bit single-channel PNG, truncated or corrupt.
    """
    return DepthMap(decode_grey16(read_bytes(path, "disparity map"), f"disparity map {path}"), scale)
