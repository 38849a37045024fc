"""What both sides of the packed format share: names of its parts, and the lossless coding of the archival layout.

Archival blobs are zlib streams. A sparse map is a bitmap of its pixels (row-major, most significant bit first) followed
by the values; a dense map is its values alone. Values are differences of neighbours (sparse: to the previous value;
dense: to the pixel above) modulo 2^16 or 2^32 of their bit patterns, split into byte planes, so that every bit
survives.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCHEMA = 1
MARK = "adubench_pack"
KINDS = ("ground_truth", "prediction", "at_ground_truth")
DTYPES: dict[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "float32": np.dtype("<f4")}
INDEX_DTYPE = np.dtype("<u4")


def storable(values: NDArray[Any]) -> NDArray[Any] | None:
    """Return the values as uint16 or float32, or None when they are of a type that packs do not hold.

    float16 and float64 become float32, in which all scores are computed anyway; uint16 and float32 keep their bits.
    """
    if values.dtype == np.uint16 or values.dtype == np.float32:
        return np.ascontiguousarray(values)
    if values.dtype.kind == "f":
        return np.ascontiguousarray(values, np.float32)
    return None


def pack_dense(values: NDArray[Any]) -> bytes:
    """Compress a map [H, W]."""
    bits = _bits(values)
    delta = bits.copy()
    delta[1:] -= bits[:-1]
    return zlib.compress(_planes(delta.reshape(-1)), 6)


def unpack_dense(blob: bytes, shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Invert `pack_dense`.

    Raises:
        ValueError: the blob does not hold exactly this many values.
    """
    count = shape[0] * shape[1]
    delta = _unplanes(_inflate(blob, count * dtype.itemsize), count, dtype).reshape(shape)
    bits = np.add.accumulate(delta, axis=0, dtype=delta.dtype)
    return bits.view(dtype)


def pack_values(values: NDArray[Any]) -> bytes:
    """Compress a list of values [n]."""
    bits = _bits(values)
    delta = bits.copy()
    delta[1:] -= bits[:-1]
    return zlib.compress(_planes(delta), 6)


def unpack_values(blob: bytes, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Invert `pack_values`.

    Raises:
        ValueError: the blob does not hold exactly this many values.
    """
    delta = _unplanes(_inflate(blob, count * dtype.itemsize), count, dtype)
    return np.add.accumulate(delta, dtype=delta.dtype).view(dtype)


def pack_index(index: NDArray[np.uint32], pixels: int) -> bytes:
    """Compress ascending flat positions among `pixels` as a bitmap."""
    mask = np.zeros(pixels, np.uint8)
    mask[index] = 1
    return zlib.compress(np.packbits(mask).data, 9)


def unpack_index(blob: bytes, count: int, pixels: int) -> NDArray[np.uint32]:
    """Invert `pack_index`.

    Raises:
        ValueError: the blob is damaged or does not hold `count` positions.
    """
    bitmap = np.frombuffer(_inflate(blob, -(-pixels // 8)), np.uint8)
    index = np.flatnonzero(np.unpackbits(bitmap, count=pixels)).astype(np.uint32)
    if len(index) != count:
        raise ValueError(f"{len(index)} pixels in the bitmap, {count} expected")
    return index


def _bits(values: NDArray[Any]) -> NDArray[Any]:
    contiguous = np.ascontiguousarray(values)
    return contiguous.view(np.dtype(f"<u{contiguous.dtype.itemsize}"))


def _planes(delta: NDArray[Any]) -> bytes:
    """Put all low bytes first, then the next ones."""
    return delta.view(np.uint8).reshape(-1, delta.dtype.itemsize).T.tobytes()


def _unplanes(raw: bytes, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    planes = np.frombuffer(raw, np.uint8).reshape(dtype.itemsize, count)
    return np.ascontiguousarray(planes.T).reshape(-1).view(np.dtype(f"<u{dtype.itemsize}"))


def _inflate(blob: bytes, expected: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(blob, expected + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if len(raw) != expected or not inflater.eof:
        raise ValueError(f"{len(raw)} bytes instead of {expected}")
    return raw
