"""Depth maps as they are stored: integer codes stay integers until the moment a number is computed from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class DepthMap:
    """A dense map on its own grid.

    Attributes:
        values: [H, W], uint16 codes or floating point.
        scale: quantity = values / scale. 256 for KITTI's PNGs, 1 for arrays in metres.
    """

    values: NDArray[Any]
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.values.shape
        return int(height), int(width)

    def quantity(self) -> FloatArray:
        """Return the map as float32 [H, W] in the unit of the quantity (metres for depth)."""
        return _decode(self.values, self.scale)

    def take(self, index: NDArray[Any]) -> FloatArray:
        """Return the quantity at flat row-major positions as float32 [n], without converting the whole map."""
        return _decode(self.values.reshape(-1).take(index), self.scale)


@dataclass(frozen=True, slots=True)
class SparseDepth:
    """Ground truth as the list of its given pixels.

    Attributes:
        shape: height and width of the map.
        index: uint32 [n], flat row-major positions, ascending, each once.
        values: [n], uint16 codes or float32.
        scale: metres = values / scale.
        selected: key of the pixel selection that these pixels already passed (packs store one first); "" for all.
    """

    shape: tuple[int, int]
    index: NDArray[np.uint32]
    values: NDArray[Any]
    scale: float = 1.0
    selected: str = ""

    @classmethod
    def from_map(cls, depth: DepthMap) -> SparseDepth:
        """List the pixels whose value is > 0 (NaN, 0 and negatives mean "no measurement"; +inf is kept)."""
        flat = depth.values.reshape(-1)
        with np.errstate(invalid="ignore"):
            index = np.flatnonzero(flat > 0).astype(np.uint32)
        return cls(depth.shape, index, flat.take(index), depth.scale)

    def metres(self) -> FloatArray:
        """Return the values as float32 [n] in metres."""
        return _decode(self.values, self.scale)

    def signature(self) -> tuple[int, int, int]:
        """Return exact integers that identify the map: number of pixels, sum of their codes, sum of their positions.

        Packed and unpacked maps have the same signature. Floating-point maps enter in units of 2**-16.
        """
        values = self.values
        if np.issubdtype(values.dtype, np.floating):
            finite = values[np.isfinite(values)].astype(np.float64)
            with np.errstate(over="ignore"):
                units = np.rint(finite / self.scale * 65536.0).sum()
            total = int(units) % 2**63 if np.isfinite(units) else 0  # packs store 64 bits
        else:
            total = int(values.sum(dtype=np.int64))
        return int(values.size), total, int(self.index.sum(dtype=np.int64))

    def dense(self) -> FloatArray:
        """Return float32 [H, W] in metres, 0 where there is no measurement."""
        out = np.zeros(self.shape[0] * self.shape[1], np.float32)
        out[self.index] = self.metres()
        return out.reshape(self.shape)


def _decode(values: NDArray[Any], scale: float) -> FloatArray:
    """Divide in float32 by the scale; exact for 16-bit codes and scales that are powers of two."""
    out = values.astype(np.float32)
    if scale != 1.0:
        out /= np.float32(scale)
    return out
