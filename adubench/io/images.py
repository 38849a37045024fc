"""Colour images: PNG, JPEG and a few others as uint8 RGB."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import DataError
from adubench.io.depth_png import read_bytes
from adubench.io.png import check_size, looks_like, read_header

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "PPM")
_COLOUR_MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr")


def read_rgb(path: str | Path) -> NDArray[np.uint8]:
    """Read an image as RGB.

    Grey and palette images are expanded, alpha is dropped. Orientation tags are ignored: calibration belongs to the
    stored pixel grid.

    Returns:
        uint8 [H, W, 3].

    Raises:
        DataError: missing, not an image, 16-bit grey (a depth map given as image), truncated, corrupt, or too large.
    """
    name = f"image {path}"
    data = read_bytes(path, "image")
    try:
        with _open(data, name) as image:
            if image.mode not in _COLOUR_MODES:
                raise DataError(f"{name}: expected an 8-bit colour image, got mode {image.mode}. Is this a depth map?")
            image.load()
            rgb = image if image.mode == "RGB" else image.convert("RGB")
            return np.array(rgb, np.uint8)
    except DataError:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, ...
        raise DataError(f"{name}: cannot decode ({str(error) or type(error).__name__}). Copy the file again.") from None


def image_size(path: str | Path) -> tuple[int, int]:
    """Read height and width from the header, without decoding pixels.

    Returns:
        (H, W) in pixels, of PNG (any kind, depth maps included) and of everything `read_rgb` reads.

    Raises:
        DataError: missing or not an image.
    """
    name = f"image {path}"
    try:
        with Path(path).open("rb") as file:
            head = file.read(64)
    except (OSError, ValueError):
        head = read_bytes(path, "image")
    if head.startswith(b"\x89PNG"):
        header = read_header(head, name)
        return header.height, header.width
    data = read_bytes(path, "image")
    try:
        with _open(data, name) as image:
            return image.height, image.width
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{name}: cannot read the header ({error}). Copy the file again.") from None


def _open(data: bytes, name: str) -> Any:
    """Open lazily with Pillow; sizes are checked before anything is decoded."""
    from PIL import Image, ImageFile, UnidentifiedImageError

    if ImageFile.LOAD_TRUNCATED_IMAGES:  # another library may have switched on partial decoding
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    if data.startswith(b"\x89PNG"):
        header = read_header(data, name)
        check_size(header.width, header.height, name)
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError:
        raise DataError(f"{name}: not an image (looks like {looks_like(data)}). Expected PNG or JPEG.") from None
    check_size(image.width, image.height, name)
    return image
