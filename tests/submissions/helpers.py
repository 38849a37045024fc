"""Small synthetic road maps and archives of them."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from adubench.io.png import encode_grey16

SIZE = (44, 152)


def scene(index: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A ground plane below a far background, metres, float64 [H, W]; median of the lower half near 10 m."""
    height, width = size
    row = np.arange(height)[:, None] / height
    ground = 3.3 / np.maximum(row - 0.42, 0.045)
    column = np.arange(width)[None, :] / width
    depth = np.minimum(ground, 70.0) * (1 + 0.05 * np.sin(9 * column + index)) + 0.013 * index
    depth[: height // 5, : width // 8] = 81.3
    return depth


def codes(index: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.rint(scene(index, size) * 256).astype(np.uint16)


def png(index: int = 0, size: tuple[int, int] = SIZE) -> bytes:
    return encode_grey16(codes(index, size), portable=True)


def pil_png(array: np.ndarray, mode: str | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, "PNG", **options)
    return buffer.getvalue()


def raw_png(samples: np.ndarray, color_type: int, kinds: tuple[int, ...] = (0,)) -> bytes:
    """A 16-bit PNG with any channels: samples uint16 [H, W, C], rows filtered with the given types in turn."""
    height, width, channels = samples.shape
    data = samples.astype(">u2").tobytes()
    stride, step = 2 * channels * width, 2 * channels
    above, rows = bytes(stride), []
    for y in range(height):
        row = data[y * stride : (y + 1) * stride]
        kind = kinds[y % len(kinds)]
        out = bytearray([kind])
        for i, value in enumerate(row):
            a = row[i - step] if i >= step else 0
            b, c = above[i], above[i - step] if i >= step else 0
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            out.append((value - (0, a, b, (a + b) // 2, paeth)[kind]) & 0xFF)
        rows.append(bytes(out))
        above = row

    def chunk(name: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([16, color_type, 0, 0, 0])
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def write_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as package:
        for name, data in members.items():
            package.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), data, method)
    return path


def good(count: int = 4, size: tuple[int, int] = SIZE) -> dict[str, bytes]:
    return {f"{i:010d}.png": png(i, size) for i in range(count)}
