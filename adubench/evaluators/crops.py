"""Rectangles of pixels: the evaluation crops and the KB window.

Every bound is the float64 product of a fraction and a side, truncated toward zero. Products in float32, or rounding,
move bounds by one pixel for some KITTI sizes (370 rows: 366.9999993 and 337.9999987).
"""

from __future__ import annotations

from functools import lru_cache

from adubench.errors import ProtocolError, unknown_name

Rectangle = tuple[int, int, int, int]

KB_HEIGHT, KB_WIDTH = 352, 1216
KB_WINDOW = (KB_HEIGHT, KB_WIDTH)

# Rows from, to; columns from, to; as fractions of the sides (BTS, NeWCRFs, AdaBins, Monodepth2: identical literals).
_FRACTIONS: dict[str, tuple[float, float, float, float]] = {
    "garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),
    "eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),
}
# NeWCRFs eval.py, eigen_crop for NYU; pixel bounds that belong to 480 x 640 alone.
_FIXED: dict[str, tuple[tuple[int, int], Rectangle]] = {"nyu": ((480, 640), (45, 471, 41, 601))}

CROPS: tuple[str, ...] = ("none", "garg", "eigen", "nyu")


def check_crop(crop: str) -> str:
    """Return `crop` if it is known.

    Raises:
        UsageError: it is not.
    """
    if crop not in CROPS:
        raise unknown_name("crop", crop, CROPS)
    return crop


@lru_cache(maxsize=256)
def rectangle(crop: str, height: int, width: int) -> Rectangle:
    """Bounds of a crop in a map of `height` x `width` pixels.

    Args:
        crop: one of `CROPS`.
        height: rows of the map that the fractions refer to.
        width: columns of that map.

    Returns:
        (r0, r1, c0, c1): rows [r0, r1), columns [c0, c1).

    Raises:
        UsageError: unknown crop.
        ProtocolError: a crop with fixed bounds on a map of another size.
    """
    check_crop(crop)
    if crop == "none":
        return 0, height, 0, width
    if crop in _FIXED:
        size, bounds = _FIXED[crop]
        if (height, width) != size:
            raise ProtocolError(f"crop {crop} belongs to maps of {size[0]}x{size[1]}, not {height}x{width}.")
        return bounds
    top, bottom, left, right = _FRACTIONS[crop]
    return int(top * height), int(bottom * height), int(left * width), int(right * width)


def kb_window(height: int, width: int) -> tuple[int, int]:
    """Top row and left column of the 352 x 1216 window: bottom-aligned, horizontally centred (KITTI benchmark crop).

    Raises:
        ProtocolError: the map is smaller than the window.
    """
    if height < KB_HEIGHT or width < KB_WIDTH:
        raise ProtocolError(f"a map of {height}x{width} is smaller than the {KB_HEIGHT}x{KB_WIDTH} window.")
    return height - KB_HEIGHT, (width - KB_WIDTH) // 2


def fits_window(shape: tuple[int, int]) -> bool:
    """Whether a map of this (height, width) holds the KB window."""
    return shape[0] >= KB_HEIGHT and shape[1] >= KB_WIDTH
