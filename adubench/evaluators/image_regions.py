"""Maps of an image that say where it is dark, plain or repetitive; functions of the picture alone.

Thresholds are those of the parameters; constants of the definitions (windows, weights) stand here.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
Image = NDArray[np.uint8]

_WINDOW = 15  # pixels, lightness and texture
_PATCH = 4  # radius of a patch, repeated texture
_SHIFTS = (4, 48)  # pixels, repeated texture
_LEAST_STD = 0.02
_LUMA = (299, 587, 114)  # thousandths
_LUMA_ONE = 255_000.0
_STRIP = 24  # rows worked on at once: buffers stay in a second-level cache
_KNEE = 216.0 / 24389.0


def luma(image: Image) -> FloatArray:
    """Gamma-encoded luma 0.299 R + 0.587 G + 0.114 B on 0..1, float64 [H, W]."""
    return luma_codes(image) / _LUMA_ONE


def luma_codes(image: Image) -> FloatArray:
    """Luma in units of 1/255000 as whole numbers in float64, so that sums of products are exact."""
    channels = image.astype(np.int32)
    total = sum(weight * channels[..., c] for c, weight in enumerate(_LUMA))
    codes: FloatArray = np.asarray(total).astype(np.float64)
    return codes


@lru_cache(maxsize=1)
def _linear_table() -> FloatArray:
    """Linear light of the 256 sRGB codes."""
    code = np.arange(256) / 255.0
    table: FloatArray = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    return table


def lightness(image: Image) -> FloatArray:
    """CIE L* of the mean luminance of a 15 x 15 window, float64 [H, W] in 0..100.

    Args:
        image: uint8 [H, W, 3], sRGB.
    """
    table = _linear_table()
    weights = (0.2126, 0.7152, 0.0722)
    luminance = sum((weight * table).take(image[..., c]) for c, weight in enumerate(weights))
    mean = _window_mean(np.asarray(luminance))
    out: FloatArray = np.where(mean > _KNEE, 116.0 * np.cbrt(mean) - 16.0, mean * (24389.0 / 27.0))
    return out


def texture(image: Image) -> FloatArray:
    """Root mean square of the luma's gradient in a 15 x 15 window, float64 [H, W], luma on 0..1."""
    y = luma(image)
    energy = np.zeros_like(y)
    if y.shape[1] > 2:
        energy[:, 1:-1] += (0.5 * (y[:, 2:] - y[:, :-2])) ** 2
    if y.shape[0] > 2:
        energy[1:-1] += (0.5 * (y[2:] - y[:-2])) ** 2
    out: FloatArray = np.sqrt(np.maximum(0.0, _window_mean(energy)))
    return out


def _window_mean(values: FloatArray) -> FloatArray:
    """Mean of a window, the image mirrored at its border without repeating the border pixel."""
    from scipy import ndimage

    out: FloatArray = ndimage.uniform_filter(values, _WINDOW, mode="mirror")
    return out


# ---- repeated texture ------------------------------------------------------------------------------------------------


def repeated(
    image: Image, correlation: float = 0.9, dip: float = 0.0, rows: tuple[int, int] | None = None
) -> BoolArray:
    """Mark pixels whose patch recurs along the row after a place that looks different.

    The patch is 9 x 9, the shift 4 to 48 pixels to either side; between, the correlation must fall to `dip` or below.
    Sums are exact, so the map does not depend on the order of additions.

    Args:
        image: uint8 [H, W, 3].
        correlation: smallest zero-mean normalised correlation of a repetition.
        dip: largest correlation of the different place.
        rows: compute rows [r0, r1) only; the others stay False.

    Returns:
        bool [H, W].
    """
    height, width = image.shape[:2]
    out = np.zeros((height, width), np.bool_)
    if height < 2 * _PATCH + 1 or width < 2 * _PATCH + 1 + _SHIFTS[0]:
        return out
    codes = luma_codes(image)
    first, last = rows if rows is not None else (0, height)
    for top in range(max(first, _PATCH), min(last, height - _PATCH), _STRIP):
        bottom = min(top + _STRIP, last, height - _PATCH)
        out[top:bottom, _PATCH:-_PATCH] = _repeated_strip(codes[top - _PATCH : bottom + _PATCH], correlation, dip)
    return out


def _repeated_strip(codes: FloatArray, correlation: float, dip: float) -> BoolArray:
    """Rows of patches: codes [n + 8, W] -> bool [n, W - 8]."""
    count = float((2 * _PATCH + 1) ** 2)
    sums, squares = _patch_sums(codes), _patch_sums(codes * codes)
    variance = count * squares - sums * sums  # times count^2 and the codes' unit squared
    plain = variance < (_LEAST_STD * count * _LUMA_ONE) ** 2
    spread = np.sqrt(variance)
    found, dipped_right, dipped_left = (np.zeros(sums.shape, np.bool_) for _ in range(3))
    for shift in range(1, min(_SHIFTS[1], sums.shape[1] - 1) + 1):
        here, there = np.s_[:, :-shift], np.s_[:, shift:]
        covariance = _patch_sums(codes[:, :-shift] * codes[:, shift:])
        covariance *= count
        covariance -= sums[here] * sums[there]
        scale = spread[here] * spread[there]
        usable = ~(plain[here] | plain[there])
        if shift >= _SHIFTS[0]:
            alike = (covariance >= correlation * scale) & usable
            found[here] |= alike & dipped_right[here]
            found[there] |= alike & dipped_left[there]
        # A plain patch counts as correlation 0.
        different = (covariance <= dip * scale) if dip else (covariance <= 0)
        different = (different & usable) | (~usable if dip >= 0 else False)
        dipped_right[here] |= different
        dipped_left[there] |= different
    return found


def _patch_sums(values: FloatArray) -> FloatArray:
    """Sums over all 9 x 9 patches inside an array, by doubling: additions of whole arrays only."""
    for axis in (0, 1):
        values = _nine(values, axis)
    return values


def _nine(values: FloatArray, axis: int) -> FloatArray:
    """Sums of nine neighbours along an axis."""
    length = values.shape[axis] - 8

    def part(array: FloatArray, start: int, size: int) -> FloatArray:
        return array[start : start + size] if axis == 0 else array[:, start : start + size]

    two = part(values, 0, length + 7) + part(values, 1, length + 7)
    four = part(two, 0, length + 5) + part(two, 2, length + 5)
    nine: FloatArray = part(four, 0, length) + part(four, 4, length)
    nine += part(values, 8, length)
    return nine
