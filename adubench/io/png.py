"""16-bit single-channel PNG: strict decoding and quick, reproducible encoding.

The container is checked here for both tiers (signature, chunk lengths, checksums, IHDR, IEND), because image libraries
forgive what an evaluation must not: a stream that ends early leaves black rows without an error in some of them.
Format: PNG specification, third edition.
"""

from __future__ import annotations

import io
import struct
import sys
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from adubench.errors import DataError
from adubench.io import _fast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

MAX_PIXELS = 64 * 1024 * 1024
"""Larger images are refused before memory is allocated: no depth benchmark has them, decompression bombs do."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_COLOURS = {0: "single channel", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGBA"}
_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"PK\x03\x04", "zip archive"),
    (b"\x93NUMPY", "NumPy array"),
    (b"\x89HDF\r\n\x1a\n", "HDF5 file"),
    (b"%PDF", "PDF"),
    (b"version https://git-lfs", "Git LFS pointer; fetch the real file"),
)


@dataclass(frozen=True, slots=True)
class PngHeader:
    """The IHDR chunk of a PNG.

    Attributes:
        width: pixels per row, >= 1.
        height: rows, >= 1.
        bit_depth: 1, 2, 4, 8 or 16 bits per sample.
        color_type: 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGB with alpha.
        interlace: 0 none, 1 Adam7.
    """

    width: int
    height: int
    bit_depth: int
    color_type: int
    interlace: int

    @property
    def description(self) -> str:
        """What the pixels are, e.g. "8-bit RGB"."""
        return f"{self.bit_depth}-bit {_COLOURS[self.color_type]}"


def looks_like(data: bytes) -> str:
    """Guess from the first bytes what a file that is not a PNG may be, e.g. "JPEG", "text", "empty file"."""
    if not data:
        return "empty file"
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    head = data[:256]
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return "text"
    return "unknown binary data"


def read_header(data: bytes, name: str) -> PngHeader:
    """Parse signature and IHDR; the rest of the file may be missing.

    Args:
        data: the file, or at least its first 33 bytes.
        name: what error messages call it, e.g. "depth map a/b.png".

    Raises:
        DataError: not a PNG, truncated within the header, zero-sized, or a combination the format does not allow.
    """
    if not data.startswith(_SIGNATURE):
        raise DataError(f"{name}: not a PNG (looks like {looks_like(data)}). Export the map again as a 16-bit PNG.")
    if len(data) < 33:
        raise DataError(f"{name}: truncated PNG, {len(data)} bytes end within the header. Copy the file again.")
    length, kind = struct.unpack(">I4s", data[8:16])
    if length != 13 or kind != b"IHDR":
        raise DataError(f"{name}: corrupt PNG, the first chunk is not a header. Copy the file again.")
    if zlib.crc32(data[12:29]) != int.from_bytes(data[29:33], "big"):
        raise DataError(f"{name}: corrupt PNG, checksum error in chunk IHDR. Copy the file again.")
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", data[16:29])
    if not (0 < width < 2**31 and 0 < height < 2**31):
        raise DataError(f"{name}: a PNG of {width}x{height} pixels is not valid. Export the map again.")
    if depth not in _DEPTHS.get(colour, ()) or compression or filtering or interlace > 1:
        raise DataError(f"{name}: corrupt PNG header (bit depth {depth}, colour type {colour}). Copy the file again.")
    return PngHeader(width, height, depth, colour, interlace)


def check_size(width: int, height: int, name: str) -> None:
    """Refuse images of more than `MAX_PIXELS` pixels.

    Raises:
        DataError: the declared size is too large.
    """
    if width * height > MAX_PIXELS:
        raise DataError(
            f"{name}: declares {width}x{height} pixels, more than the limit of {MAX_PIXELS // 1024**2} Mpixel. "
            "This is no depth map; remove it or scale it down."
        )


def require_grey16(header: PngHeader, name: str) -> None:
    """Refuse everything but 16-bit single-channel images of a sane size.

    Raises:
        DataError: another bit depth or colour type, naming both, or too many pixels.
    """
    if header.bit_depth != 16 or header.color_type != 0:
        raise DataError(
            f"{name}: expected 16-bit single channel, got {header.description}. "
            "KITTI depth maps are 16-bit; save codes (metres * 256) as uint16."
        )
    check_size(header.width, header.height, name)


def decode_grey16(data: bytes, name: str) -> NDArray[np.uint16]:
    """Decode a 16-bit single-channel PNG completely, or not at all.

    Args:
        data: the whole file.
        name: what error messages call it, e.g. "depth map a/b.png".

    Returns:
        uint16 [H, W], native byte order. Both tiers give the same bits.

    Raises:
        DataError: any other kind of file, and any damage (checksums, missing or surplus bytes).
    """
    header = read_header(data, name)
    require_grey16(header, name)
    parts = [chunk for kind, chunk in _chunks(data, name) if kind == b"IDAT"]
    if not parts:
        raise DataError(f"{name}: the PNG holds no image data. Copy the file again.")
    if header.interlace:
        return _decode_interlaced(header, data, parts, name)
    igzip, unfilter = _fast.igzip(), _fast.unfilter16()
    if igzip is not None and unfilter is not None:
        return _decode_compiled(igzip, unfilter, header, parts, name)
    stream = b"".join(parts)
    codes = _decode_up(header, stream, name)
    return codes if codes is not None else _decode_pillow(header, stream, name)


def encode_grey16(codes: NDArray[np.uint16], level: int = 1, *, portable: bool = False) -> bytes:
    """Encode a map as 16-bit single-channel PNG, every row filtered with Up.

    Up is what smooth dense depth compresses best with, and its inverse is a plain sum down the columns. Equal input
    gives equal bytes within one tier.

    Args:
        codes: uint16 [H, W].
        level: 0 (stored) to 9 (smallest). Levels above 1 always use the standard library.
        portable: never use igzip, so that the bytes do not depend on which extras are installed.

    Raises:
        DataError: the array is not a two-dimensional, non-empty uint16 array.
    """
    if codes.ndim != 2 or codes.dtype != np.uint16 or not codes.size:
        raise DataError(f"cannot encode a PNG: expected uint16 [H, W], got {codes.dtype} {list(codes.shape)}.")
    height, width = codes.shape
    lanes = np.ascontiguousarray(codes, ">u2").view(np.uint8)
    rows = np.empty((height, 2 * width + 1), np.uint8)
    rows[:, 0] = 2
    rows[0, 1:] = lanes[0]
    np.subtract(lanes[1:], lanes[:-1], out=rows[1:, 1:])
    igzip = None if portable or level != 1 else _fast.igzip()
    packed: bytes = igzip.compress(rows, 1) if igzip is not None else zlib.compress(rows.data, level)
    header = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    return b"".join((_SIGNATURE, *_chunk(b"IHDR", header), *_chunk(b"IDAT", packed), *_chunk(b"IEND", b"")))


def _chunk(kind: bytes, payload: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    checksum = zlib.crc32(payload, zlib.crc32(kind))
    return struct.pack(">I", len(payload)), kind, payload, struct.pack(">I", checksum)


def _chunks(data: bytes, name: str) -> Iterator[tuple[bytes, memoryview]]:
    """Walk all chunks, verify each checksum, and insist on IEND as the last bytes of the file."""
    view = memoryview(data)
    position, end = 8, len(data)
    igzip = _fast.igzip()
    crc32 = igzip.crc32 if igzip is not None else zlib.crc32
    while position + 12 <= end:
        length = int.from_bytes(view[position : position + 4], "big")
        kind = bytes(view[position + 4 : position + 8])
        stop = position + 8 + length
        if stop + 4 > end:
            break
        if crc32(view[position + 4 : stop]) != int.from_bytes(view[stop : stop + 4], "big"):
            label = kind.decode("ascii", "replace")
            raise DataError(f"{name}: corrupt PNG, checksum error in chunk {label}. Copy the file again.")
        yield kind, view[position + 8 : stop]
        position = stop + 4
        if kind == b"IEND":
            if position != end:
                raise DataError(f"{name}: corrupt PNG, {end - position} bytes after its end. Copy the file again.")
            return
    raise DataError(f"{name}: truncated PNG, it ends at byte {end} before its last chunk. Copy the file again.")


def _broken(name: str, reason: str) -> DataError:
    return DataError(f"{name}: cannot decode the image data ({reason}). Copy or export the file again.")


def _stream_size(header: PngHeader) -> int:
    """Count the bytes of the inflated stream: every row has its filter type in front."""
    return header.height * (2 * header.width + 1)


def _inflate(module: Any, stream: Any, expected: int, name: str) -> bytes:
    """Inflate to exactly `expected` bytes with zlib or a module of the same interface."""
    inflater = module.decompressobj()
    try:
        raw: bytes = inflater.decompress(stream, expected + 1)
        if len(raw) == expected and not inflater.eof:
            raw += inflater.decompress(inflater.unconsumed_tail, 1)  # the checksum may be all that is left
    except Exception as error:  # zlib.error and igzip's own exception
        raise _broken(name, str(error) or type(error).__name__) from None
    _check_end(inflater, len(raw), expected, name)
    return raw


def _check_end(inflater: Any, size: int, expected: int, name: str) -> None:
    if size < expected or (size == expected and not inflater.eof):
        raise _broken(name, "the data end early")
    if size > expected or inflater.unused_data:
        raise _broken(name, "more data than pixels")


def _decode_compiled(
    igzip: Any, unfilter: Callable[..., int], header: PngHeader, parts: list[memoryview], name: str
) -> NDArray[np.uint16]:
    raw = _inflate(igzip, parts[0] if len(parts) == 1 else b"".join(parts), _stream_size(header), name)
    out = np.empty((header.height, header.width), np.uint16)
    bad = unfilter(np.frombuffer(raw, np.uint8), out)
    if bad >= 0:
        raise _broken(name, f"unknown filter in row {bad}")
    return out


def _decode_up(header: PngHeader, stream: bytes, name: str) -> NDArray[np.uint16] | None:
    """Decode maps whose rows are all filtered with Up, as `encode_grey16` writes them: NumPy beats Pillow there.

    Returns:
        None when the first rows, or any later one, have another filter.
    """
    width, size = 2 * header.width + 1, _stream_size(header)
    inflater = zlib.decompressobj()
    try:
        head = inflater.decompress(stream, min(4 * width, size))
        if any(kind != 2 for kind in head[::width]) or len(head) < min(4 * width, size):
            return None
        raw = head + inflater.decompress(inflater.unconsumed_tail, size - len(head) + 1)
        _check_end(inflater, len(raw), size, name)
    except zlib.error as error:
        raise _broken(name, str(error)) from None
    rows = np.frombuffer(raw, np.uint8).reshape(header.height, width)
    if (rows[:, 0] != 2).any():
        return None
    lanes = np.empty((header.height, width - 1), np.uint8)
    lanes[0] = rows[0, 1:]
    for y in range(1, header.height):  # a quarter of the time of one cumulative sum down the columns
        np.add(lanes[y - 1], rows[y, 1:], out=lanes[y])
    return lanes.view(">u2").astype(np.uint16)


def _decode_pillow(header: PngHeader, stream: bytes, name: str) -> NDArray[np.uint16]:
    """Decode with Pillow, whose inflate and unfilter are the quickest among the core dependencies.

    Pillow writes straight into the returned array. It accepts a stream that ends early but cleanly and leaves the rows
    it never reached as they were; therefore the last row is marked, and where the mark is still there the bytes are
    counted.
    """
    from PIL import Image

    codes = np.empty((header.height, header.width), np.uint16)
    codes[-1] = 65535
    swap = "I;16B" if sys.byteorder == "little" else "I;16"
    try:
        image = Image.frombuffer("I;16", (header.width, header.height), codes, "raw", "I;16", 0, 1)
        image.frombytes(stream, "zip", swap, 0)
    except Exception as error:  # ValueError for damage; other kinds for other versions of Pillow
        raise _broken(name, str(error) or type(error).__name__) from None
    if (codes[-1] == 65535).all():
        _inflate(zlib, stream, _stream_size(header), name)
    return codes


def _decode_interlaced(header: PngHeader, data: bytes, parts: list[memoryview], name: str) -> NDArray[np.uint16]:
    from PIL import Image

    _inflate(zlib, b"".join(parts), _adam7_size(header.width, header.height), name)
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            image.load()
            codes = np.frombuffer(image.tobytes("raw", "I;16"), "<u2").reshape(header.height, header.width)
    except Exception as error:  # OSError, SyntaxError, ValueError, struct.error, ...
        raise _broken(name, str(error) or type(error).__name__) from None
    return codes.astype(np.uint16)


def _adam7_size(width: int, height: int) -> int:
    """Count the bytes of the seven filtered passes (PNG specification, section 8.2)."""
    total = 0
    for x0, y0, dx, dy in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        columns, rows = -(-(width - x0) // dx), -(-(height - y0) // dy)
        if columns > 0 and rows > 0:
            total += rows * (2 * columns + 1)
    return total
