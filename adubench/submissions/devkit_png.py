"""Read a PNG as the public evaluator does, which accepts far more than the format it asks for.

Its PNG library converts everything to 16-bit grey: an 8-bit value v becomes 256 v (v metres), colour becomes grey with
libpng's default weights, alpha is dropped. Source: KITTI depth devkit, `io_depth.h`; behaviour measured with it.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from adubench.errors import SubmissionError
from adubench.io.png import PngHeader, decode_grey16, read_header

if TYPE_CHECKING:
    from numpy.typing import NDArray

# libpng's default weights of red, green and blue, in 1/32768.
_WEIGHTS = np.array([6968, 23434, 2366], np.int64)
_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}


def decode_any(data: bytes, max_pixels: int) -> NDArray[np.uint16]:
    """Decode any PNG to uint16 [H, W] codes.

    Args:
        data: the file.
        max_pixels: larger pictures are refused.

    Raises:
        AdubenchError: not a PNG, damaged, or too large.
    """
    header = read_header(data, "PNG")
    if header.width * header.height > max_pixels:
        raise SubmissionError(f"{header.width}x{header.height} pixels are no depth map")
    if header.bit_depth == 16 and header.color_type == 0:
        return decode_grey16(data, "PNG")
    if header.bit_depth == 16:
        samples = _samples16(data, header)
        return _grey(samples[:, :, :3]) if header.color_type in (2, 6) else np.ascontiguousarray(samples[:, :, 0])
    return np.asarray(_decode8(data, header) * np.uint16(256), np.uint16)


def _grey(rgb: NDArray[Any]) -> NDArray[np.uint16]:
    """Weigh red, green and blue [H, W, 3] to [H, W]; equal channels keep their value."""
    weighted = rgb.astype(np.int64) @ _WEIGHTS + 16384
    return np.asarray(weighted >> 15, np.uint16)


def _decode8(data: bytes, header: PngHeader) -> NDArray[np.uint16]:
    """Decode up to 8 bits per sample, values 0..255."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            image.load()
            if header.color_type in (0, 4):
                return np.asarray(image.convert("LA" if header.color_type == 4 else "L"), np.uint16).reshape(
                    header.height, header.width, -1
                )[:, :, 0]
            return _grey(np.asarray(image.convert("RGBA"))[:, :, :3])
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
        raise SubmissionError(f"cannot read the picture ({str(error) or type(error).__name__})") from None


def _samples16(data: bytes, header: PngHeader) -> NDArray[np.uint16]:
    """Decode 16-bit colour or grey with alpha to [H, W, channels], which Pillow would reduce to 8 bits."""
    if header.interlace:
        raise SubmissionError("cannot read the picture (interlaced 16-bit colour)")
    channels = _CHANNELS[header.color_type]
    stride = 2 * channels * header.width
    expected = header.height * (stride + 1)
    try:
        raw = zlib.decompressobj().decompress(_image_data(data), expected)
    except zlib.error as error:
        raise SubmissionError(f"cannot read the picture ({error})") from None
    if len(raw) < expected:
        raise SubmissionError("cannot read the picture (the data end early)")
    rows = np.frombuffer(raw, np.uint8).reshape(header.height, stride + 1)
    out = np.zeros((header.height, stride), np.uint8)
    above = np.zeros(stride, np.uint8)
    for i, row in enumerate(rows):
        above = out[i] = _unfilter(int(row[0]), row[1:], above, 2 * channels)
    return out.view(">u2").reshape(header.height, header.width, channels).astype(np.uint16)


def _image_data(data: bytes) -> bytes:
    parts, position = [], 8
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IDAT":
            parts.append(data[position + 8 : position + 8 + length])
        position += 12 + length
    return b"".join(parts)


def _unfilter(kind: int, row: NDArray[np.uint8], above: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Undo the filter of one row (PNG specification, section 9); `step` is the number of bytes per pixel."""
    if kind == 0:
        return row
    if kind == 1:
        return np.cumsum(row.reshape(-1, step), axis=0, dtype=np.uint8).reshape(-1)
    if kind == 2:
        return row + above
    if kind not in (3, 4):
        raise SubmissionError(f"cannot read the picture (unknown filter {kind})")
    out, up = bytearray(step) + bytearray(row.tobytes()), bytes(step) + above.tobytes()
    for i in range(step, len(out)):
        left, top = out[i - step], up[i]
        out[i] = (out[i] + ((left + top) >> 1 if kind == 3 else _paeth(left, top, up[i - step]))) & 0xFF
    return np.frombuffer(bytes(out[step:]), np.uint8)


def _paeth(left: int, top: int, corner: int) -> int:
    estimate = left + top - corner
    a, b, c = abs(estimate - left), abs(estimate - top), abs(estimate - corner)
    if a <= b and a <= c:
        return left
    return top if b <= c else corner
