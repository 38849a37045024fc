"""Semantic label maps: single-channel PNGs whose values (or palette indices) are class ids."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adubench.errors import DataError
from adubench.io.depth_png import read_bytes
from adubench.io.png import check_size, looks_like, read_header


def read_labels(path: str | Path) -> NDArray[np.uint8]:
    """Read a label map; of palette images the indices count, not the colours.

    Returns:
        uint8 [H, W].

    Raises:
        DataError: missing, not a PNG, not one channel of at most 8 bits, or corrupt.
    """
    from PIL import Image

    name = f"label map {path}"
    data = read_bytes(path, "label map")
    if not data.startswith(b"\x89PNG"):
        raise DataError(f"{name}: not a PNG (looks like {looks_like(data)}). Lossy formats cannot hold class ids.")
    header = read_header(data, name)
    check_size(header.width, header.height, name)
    if header.color_type not in (0, 3) or header.bit_depth > 8:
        raise DataError(
            f"{name}: expected one channel of class ids in 8 bits, got colour type {header.color_type} with "
            f"{header.bit_depth} bits. Save the ids, not their colours."
        )
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            array = np.array(image)
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, ...
        raise DataError(f"{name}: cannot decode ({str(error) or type(error).__name__}). Copy the file again.") from None
    return array.astype(np.uint8)
