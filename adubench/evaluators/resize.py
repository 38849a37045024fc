"""Bilinear resizing as OpenCV (INTER_LINEAR) and PyTorch do it, with numpy alone."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
_Axis = tuple[NDArray[np.intp], NDArray[np.intp], FloatArray]


@lru_cache(maxsize=64)
def _axis(source: int, target: int, align_corners: bool) -> _Axis:
    """Left neighbour, right neighbour and weight of the right one for every target position."""
    place = np.arange(target, dtype=np.float64)
    if align_corners:
        # PyTorch places the pixels in float32; OpenCV, which has the other convention only, in float64.
        step = np.float32((source - 1) / (target - 1)) if target > 1 else np.float32(0)
        position = (place.astype(np.float32) * step).astype(np.float64)
    else:
        position = (place + 0.5) * (source / target) - 0.5
    position = np.clip(position, 0, source - 1)
    low = np.floor(position).astype(np.intp)
    high = np.minimum(low + 1, source - 1)
    return low, high, (position - low).astype(np.float32)


def bilinear(values: NDArray[Any], size: tuple[int, int], *, align_corners: bool = False) -> FloatArray:
    """Resize a map; horizontal pass first, no antialiasing when shrinking.

    Args:
        values: [h, w], any real dtype; converted to float32. Resize disparity, not depth, where a protocol says so.
        size: (H, W) of the result.
        align_corners: place the corner pixels' centres on each other (PyTorch's option); default pixel areas.

    Returns:
        float32 [H, W]. A NaN or inf spreads to all its neighbours in the result.
    """
    source = np.asarray(values, np.float32)
    if source.shape == tuple(size):
        return source.copy() if source is values else source
    left, right, across = _axis(source.shape[1], size[1], align_corners)
    top, bottom, down = _axis(source.shape[0], size[0], align_corners)
    with np.errstate(invalid="ignore", over="ignore"):
        wide = _mix(source[:, left], source[:, right], across)
        return _mix(wide[top], wide[bottom], down[:, None])


def bilinear_take(values: NDArray[Any], size: tuple[int, int], index: NDArray[Any]) -> FloatArray:
    """Values of `bilinear(values, size)` at flat row-major positions of the result, without making the whole map.

    Args:
        values: [h, w].
        size: (H, W) of the map that is not made.
        index: [n], flat positions in it.

    Returns:
        float32 [n], equal to the full map's values bit for bit.
    """
    source = np.asarray(values, np.float32)
    if source.shape == tuple(size):
        return source.reshape(-1).take(index)
    index = np.asarray(index)
    row = index // index.dtype.type(size[1])
    column = index.astype(np.intp) - row.astype(np.intp) * size[1]
    left, right, across = _axis(source.shape[1], size[1], False)
    above, below, lean = _axis(source.shape[0], size[0], False)
    top, bottom, down = above.take(row), below.take(row), lean.take(row)
    with np.errstate(invalid="ignore", over="ignore"):
        if index.size > source.size // 4 and index.size:
            # Many positions: widen each needed row once, then mix rows at the positions.
            first, last = int(top.min()), int(bottom.max()) + 1
            part = source[first:last]
            wide = _mix(part.take(left, axis=1), part.take(right, axis=1), across).reshape(-1)
            place = column - first * size[1]
            return _mix(wide.take(top * size[1] + place), wide.take(bottom * size[1] + place), down)
        left, right, weight = left.take(column), right.take(column), across.take(column)
        flat, width = source.reshape(-1), source.shape[1]
        top, bottom = top * width, bottom * width
        upper = _mix(flat.take(top + left), flat.take(top + right), weight)
        lower = _mix(flat.take(bottom + left), flat.take(bottom + right), weight)
        return _mix(upper, lower, down)


def _mix(first: FloatArray, second: FloatArray, weight: FloatArray) -> FloatArray:
    out: FloatArray = first * (np.float32(1) - weight) + second * weight
    return out
