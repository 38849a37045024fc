"""Depth maps as 16-bit PNG (KITTI: metres = value / 256, 0 = no measurement)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import DataError
from adubench.io.atomic import write_bytes
from adubench.io.maps import DepthMap
from adubench.io.png import PngHeader, decode_grey16, encode_grey16, read_header

KITTI_SCALE = 256.0


def read_bytes(path: str | Path, what: str) -> bytes:
    """Read a whole file.

    Args:
        path: the file.
        what: its role in messages, e.g. "depth map".

    Raises:
        DataError: missing, a folder, or unreadable; one sentence that names the file.
    """
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError(f"{what} {path}: no such file. Check the path and the data root.") from None
    except IsADirectoryError:
        raise DataError(f"{what} {path}: this is a folder, expected a file.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{what} {path}: cannot be read ({reason}). Check the path and its permissions.") from None


def read_depth_map(path: str | Path, scale: float = KITTI_SCALE) -> DepthMap:
    """Read a 16-bit single-channel PNG as codes.

    Args:
        path: the file.
        scale: metres = code / scale.

    Returns:
        A map of uint16 codes [H, W]; 0 means "no measurement".

    Raises:
        DataError: missing, not a 16-bit single-channel PNG, truncated or corrupt.
    """
    name = f"depth map {path}"
    return DepthMap(decode_grey16(read_bytes(path, "depth map"), name), scale)


def read_depth_header(path: str | Path) -> PngHeader:
    """Read only the header of a depth PNG (33 bytes).

    Raises:
        DataError: missing or not a PNG.
    """
    try:
        with Path(path).open("rb") as file:
            return read_header(file.read(33), f"depth map {path}")
    except (OSError, ValueError):  # say why in the same words
        return read_header(read_bytes(path, "depth map"), f"depth map {path}")


def encode_depth(depth_m: NDArray[Any], scale: float = KITTI_SCALE) -> NDArray[np.uint16]:
    """Quantise depth: round half to even, clip to [1, 65535]; 0 for values that are not finite or not > 0.

    Args:
        depth_m: [H, W] floating point, metres.
        scale: code = metres * scale.

    Returns:
        uint16 codes of the same shape. A valid pixel never becomes 0 (KITTI devkit, io_depth.h: max(d * 256, 1), but
        rounded instead of truncated).
    """
    exact = depth_m.dtype == np.float32 and math.frexp(scale)[0] == 0.5
    # A power of two only shifts the exponent: float32 gives the same codes as float64 at half the cost.
    with np.errstate(invalid="ignore", over="ignore"):
        codes = np.multiply(depth_m, np.float32(scale) if exact else np.float64(scale))
        missing = ~((depth_m > 0) & np.isfinite(depth_m))
        np.rint(codes, out=codes)
        np.clip(codes, 1, 65535, out=codes)
    codes[missing] = 0
    out: NDArray[np.uint16] = codes.astype(np.uint16)
    return out


def write_depth_png(
    path: str | Path, depth_m: NDArray[Any], scale: float = KITTI_SCALE, *, portable: bool = False
) -> None:
    """Write depth as 16-bit PNG, atomically; rounding as in `encode_depth`.

    Args:
        path: the file to write.
        depth_m: [H, W] floating point, metres.
        scale: code = metres * scale.
        portable: bytes that do not depend on installed extras (`png.encode_grey16`).

    Raises:
        DataError: the array has no two dimensions, or the file cannot be written.
    """
    write_bytes(path, encode_grey16(encode_depth(depth_m, scale), portable=portable))
