"""Rotation, crop, scale and flip as one affine warp by OpenCV: faster than Pillow's rotation, not bit-equal to it.

Pillow rounds bilinear weights and nearest positions differently from OpenCV; on natural images a few per cent of the
values differ, mostly by one level. Ground truth keeps its codes: nearest positions may differ by one pixel.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import UsageError

Box = tuple[int, int, int, int]


def _opencv() -> Any:
    try:
        import cv2
    except ImportError:
        raise UsageError(
            "input.geometry is opencv, but the package is not installed: pip install opencv-python-headless, or set "
            "input.geometry=pillow."
        ) from None
    cv2.setNumThreads(0)  # workers are processes; threads inside them only fight over the cores
    return cv2


def inverse_map(
    shape: tuple[int, int], angle: float, box: Box, out: tuple[int, int], flip: bool
) -> NDArray[np.float64]:
    """Build the 2x3 map from pixels (x, y) of the result to pixels of the source, integer coordinates at centres.

    Args:
        shape: (H, W) of the source.
        angle: degrees counter-clockwise about the centre of the image.
        box: (top, left, height, width) of the crop in the rotated image.
        out: (h, w) of the result; other than the crop's size it is scaled.
        flip: mirror the result.
    """
    top, left, height, width = box
    across, down = width / out[1], height / out[0]
    scale = np.array([[across, 0, left + 0.5 * across - 0.5], [0, down, top + 0.5 * down - 0.5], [0, 0, 1]])
    if flip:
        scale = scale @ np.array([[-1.0, 0, out[1] - 1], [0, 1, 0], [0, 0, 1]])
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    x, y = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    turn = np.array([[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y]])
    return np.asarray(turn @ scale, np.float64)


def warp_image(
    image: NDArray[np.uint8], angle: float, box: Box, size: tuple[int, int] | None, flip: bool
) -> NDArray[np.uint8]:
    """Warp an image bilinearly; borders are black.

    Args:
        image: uint8 [H, W, 3].
        angle: degrees counter-clockwise.
        box: (top, left, height, width).
        size: (h, w) to scale to, or None for the size of the crop.
        flip: mirror it.
    """
    cv2 = _opencv()
    out = size or (box[2], box[3])
    matrix = inverse_map((image.shape[0], image.shape[1]), angle, box, out, flip)
    # In a resized image the border must be repeated, not black, where it is only half a pixel outside.
    border = cv2.BORDER_REPLICATE if size is not None and not angle else cv2.BORDER_CONSTANT
    warped = cv2.warpAffine(
        image, matrix, (out[1], out[0]), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=border
    )
    return np.asarray(warped, np.uint8)


def warp_codes(codes: NDArray[np.uint16], angle: float, box: Box, flip: bool) -> NDArray[np.uint16]:
    """Warp ground truth to the nearest pixel, without scaling; borders are 0."""
    cv2 = _opencv()
    matrix = inverse_map((codes.shape[0], codes.shape[1]), angle, box, (box[2], box[3]), flip)
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(codes, matrix, (box[3], box[2]), flags=flags), np.uint16)
