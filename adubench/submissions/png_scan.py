"""Look at one depth PNG: is it what the server reads, and do its values look like metres x 256?"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from adubench.errors import AdubenchError
from adubench.submissions.findings import Finding, finding
from adubench.submissions.kitti import DEPTH_SCALE, Limits

if TYPE_CHECKING:
    from numpy.typing import NDArray

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class MapStatistics:
    """Numbers of one map that the checks over the whole set need.

    Attributes:
        name: file name.
        digest: SHA-256 of the file.
        lower: median of the given pixels in the lower half, metres; NaN when there are none.
        upper: the same for the upper half.
        minimum: smallest given depth, metres.
        median: median of all given pixels, metres.
        maximum: largest depth, metres.
        zeros: number of pixels without a value.
        pixels: number of pixels.
    """

    name: str
    digest: str
    lower: float
    upper: float
    minimum: float
    median: float
    maximum: float
    zeros: int
    pixels: int


def size_hint(size: tuple[int, int], expected: tuple[int, int]) -> str:
    """Say what probably happened to a map of the wrong (height, width)."""
    height, width = size
    if size == (expected[1], expected[0]):
        return "; width and height are swapped (transposed array?)"
    if 368 <= height <= 378 and 1220 <= width <= 1245:
        return "; uncropped: the test images are already cropped, predict on them as they are"
    for factor in (2, 4, 8):
        if abs(height * factor - expected[0]) < factor and abs(width * factor - expected[1]) < factor:
            return f"; not upsampled: 1/{factor} of the size"
    return ""


def scan_png(
    data: bytes, name: str, expected: tuple[int, int] | None, limits: Limits
) -> tuple[list[Finding], NDArray[np.uint16] | None]:
    """Check format and size of one file (S09 to S15).

    Args:
        data: the file.
        name: for the messages.
        expected: (height, width), None for any.
        limits: the thresholds.

    Returns:
        (findings, uint16 codes [H, W] or None when the picture cannot be used).
    """
    from adubench.io.png import decode_grey16, looks_like, read_header

    if not data.startswith(PNG_SIGNATURE):
        return [finding("S09", f"{name}: not a PNG (looks like {looks_like(data)})", name)], None
    try:
        header = read_header(data, name)
    except AdubenchError as error:
        return [finding("S15", f"{name}: cannot decode ({_reason(error, name)})", name)], None
    found = _format_findings(header, name)
    size = (header.height, header.width)
    if expected is not None and size != expected:
        message = f"{name}: {size[1]}x{size[0]}, expected {expected[1]}x{expected[0]}{size_hint(size, expected)}"
        found.append(finding("S14", message, name))
    elif size[0] * size[1] > limits.pixels:
        found.append(finding("S14", f"{name}: {size[1]}x{size[0]} is no depth map; refused", name, hostile=True))
    if header.color_type != 0 or header.bit_depth != 16 or size[0] * size[1] > limits.pixels:
        return found, None
    try:
        return found, decode_grey16(data, name)
    except AdubenchError as error:
        found.append(finding("S15", f"{name}: cannot decode ({_reason(error, name)})", name))
    return found, None


def _format_findings(header: Any, name: str) -> list[Finding]:
    if header.color_type in (2, 6):
        kind = "RGB" if header.color_type == 2 else "RGBA"
        message = f"{name}: {kind} image; expected one 16-bit grey channel (was a colour map saved?)"
        return [finding("S10", message, name)]
    if header.color_type == 3:
        return [finding("S11", f"{name}: palette image; expected 16-bit grey", name)]
    if header.color_type == 4:
        return [finding("S12", f"{name}: grey with alpha; remove the alpha channel", name)]
    if header.bit_depth != 16:
        message = f"{name}: {header.bit_depth}-bit PNG; expected 16-bit (value = metres * 256)"
        return [finding("S13", message, name)]
    return []


def scan_codes(
    codes: NDArray[np.uint16], name: str, limits: Limits, digest: str = ""
) -> tuple[list[Finding], MapStatistics | None]:
    """Check the values of one map (S16 to S21, S24 constant, S26).

    Args:
        codes: uint16 [H, W], metres x 256, 0 = missing.
        name: for the messages.
        limits: the thresholds.
        digest: SHA-256 of the file, for the search for identical files.

    Returns:
        (findings, statistics; None for an empty map).
    """
    given = codes > 0
    n_given = int(np.count_nonzero(given))
    if n_given == 0:
        return [finding("S16", f"{name}: empty map", name)], None
    found = _missing(given, name) if n_given < codes.size else []
    saturated = int(np.count_nonzero(codes == 65535)) / codes.size
    if saturated > limits.saturated:
        message = f"{name}: {100 * saturated:.2f} % saturated at 255.996 m"
        found.append(finding("S19", message, name))
    low, high = int(codes.min(where=given, initial=65535)), int(codes.max())
    steps = not np.any(codes & 0xFF)
    if low == high and n_given == codes.size:
        found.append(finding("S24", f"{name}: constant value", name))
    elif steps:
        found.append(finding("S26", f"{name}: depth has 1 m steps (converted from 8 bit?)", name))
    if not steps and _variation(codes) > limits.swap_ratio * max(_variation(codes.byteswap()), 1e-9):
        # Whole metres are left out: their bytes swapped are small numbers, which would look smoother.
        found.append(finding("S21", f"{name}: bytes look swapped", name))
    elif _jumps(codes, given) > limits.jump:
        message = f"{name}: values jump by ~65536; depth overflowed uint16 (multiply by 256, not 1000, and clip)"
        found.append(finding("S20", message, name))
    half = codes.shape[0] // 2
    statistics = MapStatistics(
        name=name,
        digest=digest,
        lower=_median(codes[half:]),
        upper=_median(codes[:half]),
        minimum=low / DEPTH_SCALE,
        median=_median(codes),
        maximum=high / DEPTH_SCALE,
        zeros=codes.size - n_given,
        pixels=codes.size,
    )
    return found, statistics


def digest_of(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def empty_rows(given: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Rows without a value that lie between rows with one; the server cannot fill them.

    Args:
        given: bool [H, W].
    """
    rows = np.asarray(given.any(axis=1))
    filled = np.flatnonzero(rows)
    if filled.size == 0:
        return filled
    empty: NDArray[np.intp] = filled[0] + np.flatnonzero(~rows[filled[0] : filled[-1]])
    return empty


def _missing(given: NDArray[np.bool_], name: str) -> list[Finding]:
    found = []
    rows = empty_rows(given)
    if rows.size:
        message = f"{name}: {rows.size} empty rows (first {rows[0]}); the server cannot fill them and SILog becomes NaN"
        found.append(finding("S17", message, name))
    missing = given.size - int(np.count_nonzero(given))
    if missing > rows.size * given.shape[1]:
        share = 100 * missing / given.size
        text = f"{share:.1f}" if share >= 0.05 else "less than 0.1"
        message = f"{name}: {text} % of pixels are 0 (missing); the server fills them with neighbours"
        found.append(finding("S18", message, name))
    return found


def _variation(codes: NDArray[np.uint16]) -> float:
    """Mean absolute difference of horizontal neighbours, in codes."""
    wide = codes.astype(np.int32)
    steps = np.abs(wide[:, 1:] - wide[:, :-1])
    return float(steps.mean()) if steps.size else 0.0


def _jumps(codes: NDArray[np.uint16], given: NDArray[np.bool_]) -> float:
    """Share of horizontal neighbours, both given, whose codes differ by more than 32768.

    Saturated pixels (65535) are left out: they were clipped, so they did not wrap.
    """
    inside = given & (codes != 65535)
    both = inside[:, 1:] & inside[:, :-1]
    pairs = int(np.count_nonzero(both))
    if not pairs or int(codes.max()) < 32768:
        return 0.0
    wide = codes.astype(np.int32)
    return int(np.count_nonzero((np.abs(wide[:, 1:] - wide[:, :-1]) > 32768) & both)) / pairs


def _median(codes: NDArray[np.uint16]) -> float:
    """Median of the given pixels in metres; NaN when there are none."""
    given = codes[codes > 0]
    if not given.size:
        return float("nan")
    return float(np.partition(given, given.size // 2)[given.size // 2]) / DEPTH_SCALE


def _reason(error: AdubenchError, name: str) -> str:
    """Take the reason out of a reader's sentence, without the file name and the advice to copy the file again."""
    text = str(error).removeprefix(f"{name}: ").split(". ")[0].rstrip(".")
    return text.removeprefix("cannot decode the image data (").removesuffix(")") if text.startswith("cannot") else text
