"""Which pixels of an image count under a protocol: those in its range of distances, inside its rectangle."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from adubench.errors import ProtocolError
from adubench.evaluators import crops
from adubench.evaluators.protocols import Protocol
from adubench.io.maps import DepthMap, SparseDepth

FloatArray = NDArray[np.float32]
_CODES = 1 << 16


@dataclass(frozen=True, slots=True)
class ValidPixels:
    """The pixels of one image that count.

    Attributes:
        positions: [n] flat positions in the full map, ascending, of any integer type.
        values: [n] their ground truth as stored.
        scale: metres = values / scale.
        at: positions of these pixels in the ground truth's own list.
    """

    positions: NDArray[Any]
    values: NDArray[Any]
    scale: float
    at: NDArray[np.intp] | slice

    @property
    def index(self) -> NDArray[np.intp]:
        """Positions in numpy's own index type."""
        return self.positions.astype(np.intp, copy=False)

    @property
    def gt(self) -> FloatArray:
        """Ground truth in metres, float32 [n]."""
        return DepthMap(self.values, self.scale).quantity()


def valid_pixels(protocol: Protocol, gt: SparseDepth, *, frame: str = "") -> ValidPixels:
    """Select the ground truth's pixels inside the protocol's range and rectangle.

    Raises:
        ProtocolError: the map is smaller than the KB window, or has the wrong size for a crop with fixed bounds.
    """
    if gt.selected and gt.selected == protocol.selection:
        return ValidPixels(gt.index, gt.values, gt.scale, slice(None))
    try:
        bounds = pixel_bounds(protocol, gt.shape)
    except ProtocolError as error:
        fail(frame, f"ground truth: {str(error).rstrip('.')}")
    width = gt.shape[1]
    first, last = _row_range(gt, bounds)
    # Positions of numpy's own index type: every look-up below would convert them again.
    index, values = gt.index[first:last].astype(np.intp), gt.values[first:last]
    keep = _in_range(values, gt.scale, protocol.gt_min, protocol.gt_max)
    if bounds[2] > 0 or bounds[3] < width:
        inside = _inside(gt.shape, bounds).take(index)
        keep = inside if keep is None else np.logical_and(keep, inside, out=keep)
    if keep is None or keep.all():
        at: NDArray[np.intp] | slice = slice(first, last)
    else:
        # Not by mask: its branches are mispredicted where valid pixels lie scattered.
        chosen = np.flatnonzero(keep)
        index, values = index.take(chosen), values.take(chosen)
        at = chosen + first
    return ValidPixels(index, values, gt.scale, at)


def selection_mask(protocol: Protocol, gt: SparseDepth) -> NDArray[np.bool_]:
    """Mark the pixels of a map that the protocol selects, bool [n]; none where the map does not fit the protocol."""
    mask = np.zeros(gt.index.size, np.bool_)
    with contextlib.suppress(ProtocolError):
        mask[valid_pixels(protocol, gt).at] = True
    return mask


def _row_range(gt: SparseDepth, bounds: crops.Rectangle) -> tuple[int, int]:
    """Positions in the ground truth's list of the first pixel of the rectangle's rows and of the first one below."""
    width = gt.shape[1]
    edges = np.array([bounds[0] * width, bounds[1] * width], gt.index.dtype)
    first, last = np.searchsorted(gt.index, edges)
    return int(first), int(last)


@lru_cache(maxsize=128)
def pixel_bounds(protocol: Protocol, shape: tuple[int, int]) -> crops.Rectangle:
    """The protocol's rectangle in full-map coordinates: rows [r0, r1), columns [c0, c1)."""
    if protocol.frame != "window":
        return crops.rectangle(protocol.crop, *shape)
    top, left = crops.kb_window(*shape)
    r0, r1, c0, c1 = crops.rectangle(protocol.crop, *crops.KB_WINDOW)
    return r0 + top, r1 + top, c0 + left, c1 + left


@lru_cache(maxsize=32)
def _inside(shape: tuple[int, int], bounds: crops.Rectangle) -> NDArray[np.bool_]:
    """Flat mask of a rectangle; a table look-up is cheaper than the remainder of every position."""
    mask = np.zeros(shape, np.bool_)
    mask[bounds[0] : bounds[1], bounds[2] : bounds[3]] = True
    return mask.reshape(-1)


@lru_cache(maxsize=64)
def code_range(scale: float, low: float, high: float | None) -> tuple[int, int]:
    """Smallest and largest 16-bit code whose depth lies in (low, high), compared in float32; (1, 0) for none."""
    depth = DepthMap(np.arange(_CODES, dtype=np.uint16), scale).quantity()
    valid = np.flatnonzero(_float_range(depth, low, high) & (depth > 0))
    return (int(valid[0]), int(valid[-1])) if valid.size else (1, 0)


def _float_range(depth: FloatArray, low: float, high: float | None) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        valid: NDArray[np.bool_] = depth > np.float32(low)
        if high is not None:
            valid &= depth < np.float32(high)
    return valid


def _in_range(values: NDArray[Any], scale: float, low: float, high: float | None) -> NDArray[np.bool_] | None:
    """Mask of the values in (low, high) metres; None when all are, as the ground truth lists only values > 0."""
    if values.dtype != np.uint16:
        return _float_range(DepthMap(values, scale).quantity(), low, high)
    least, most = code_range(scale, low, high)
    if least > most:
        return np.zeros(values.shape, np.bool_)
    if least <= 1 and most >= _CODES - 1:
        return None
    # One comparison: codes below `least` wrap around to large numbers.
    mask: NDArray[np.bool_] = (values - np.uint16(least)) <= np.uint16(most - least)
    return mask


def fail(frame: str, sentence: str) -> NoReturn:
    """Refuse a frame.

    Raises:
        ProtocolError: the sentence, after the frame's name.
    """
    raise ProtocolError((f"frame {frame}: " if frame else "") + sentence + ".")
