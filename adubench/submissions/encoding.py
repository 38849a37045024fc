"""Turn predictions into codes, PNGs and zip entries, and put the package in place."""

from __future__ import annotations

import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from adubench.errors import AdubenchError, DataError, SubmissionError, UsageError
from adubench.io.atomic import atomic_path
from adubench.submissions.kitti import DEPTH_SCALE, Limits
from adubench.submissions.png_scan import MapStatistics, digest_of, scan_codes, size_hint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from adubench.io.collection import MapCollection
    from adubench.submissions.findings import Finding
    from adubench.submissions.planning import Job

INPUTS = ("depth", "scaled-disparity", "sigmoid-disparity")
ON_INVALID = ("error", "min", "zero")
QUANTIZE = ("round", "trunc")


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How values become codes.

    Attributes:
        on_invalid: NaN, inf, 0 and negatives are an "error", become the smallest code ("min"), or 0 = missing ("zero").
        quantize: "round" half to even, or "trunc" like the public exporters.
        png_scale: metres = code / png_scale, for predictions that are PNGs.
        input: "depth" in metres; "scaled-disparity" d with depth = disparity_scale / d; "sigmoid-disparity" in 0..1,
            scaled to 0.01..10 first (Monodepth2's range of 0.1 to 100).
        disparity_scale: see `input`; Monodepth2's stereo models use 5.4, pixel disparity takes focal length x baseline.
    """

    on_invalid: str = "error"
    quantize: str = "round"
    png_scale: float = DEPTH_SCALE
    input: str = "depth"
    disparity_scale: float | None = None

    def __post_init__(self) -> None:
        for value, known, what in (
            (self.on_invalid, ON_INVALID, "--on-invalid"),
            (self.quantize, QUANTIZE, "--quantize"),
            (self.input, INPUTS, "--input"),
        ):
            if value not in known:
                raise UsageError(f"{what} {value}: known: {', '.join(known)}.")
        if not (np.isfinite(self.png_scale) and self.png_scale > 0):
            raise UsageError(f"--png-scale {self.png_scale}: expected a number > 0.")
        if self.input != "depth" and not (self.disparity_scale and self.disparity_scale > 0):
            raise UsageError(f"--input {self.input} needs --disparity-scale X > 0 (depth = X / disparity).")


def quantise(depth: NDArray[Any], options: ExportOptions, where: str) -> tuple[NDArray[np.uint16], int, int]:
    """Turn metric depth into codes.

    Args:
        depth: [H, W], metres.
        options: what to do with invalid values, and how to round.
        where: for the messages.

    Returns:
        (uint16 codes [H, W], number of invalid pixels, number of pixels clipped at 65535).

    Raises:
        SubmissionError: invalid values that the options do not allow.
    """
    values = np.multiply(depth, DEPTH_SCALE, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        bad = ~(np.isfinite(values) & (values > 0))
    invalid = int(np.count_nonzero(bad))
    if invalid and options.on_invalid == "error":
        row, column = np.argwhere(bad)[0]
        raise SubmissionError(
            f"{where}: {invalid} pixels are not finite or not > 0, first at row {row}, column {column}: "
            f"{float(depth[row, column])}. Choose --on-invalid min or zero if this is meant."
        )
    values[bad] = 1.0
    (np.rint if options.quantize == "round" else np.floor)(values, out=values)
    clipped = int(np.count_nonzero(values > 65535))
    np.clip(values, 1, 65535, out=values)
    codes = values.astype(np.uint16)
    if invalid and options.on_invalid == "zero":
        codes[bad] = 0
        empty = np.flatnonzero(~codes.any(axis=1))
        if empty.size:
            raise SubmissionError(
                f"{where}: {empty.size} rows have no valid pixel (first {empty[0]}); the server cannot fill empty rows "
                "and SILog becomes NaN. Choose --on-invalid min, or predict every row."
            )
    return codes, invalid, clipped


def read_metres(maps: MapCollection, name: str, options: ExportOptions) -> NDArray[np.float64]:
    """Read one prediction as float64 [H, W] metres (as disparity first, where the options say so)."""
    stored = maps.read(name)
    values = stored.values.astype(np.float64)
    if stored.scale != 1.0:
        values /= stored.scale
    if options.input == "depth":
        return values
    if options.input == "sigmoid-disparity":
        values = 0.01 + (10.0 - 0.01) * values
    assert options.disparity_scale is not None
    with np.errstate(divide="ignore"):
        return np.where(values > 0, options.disparity_scale / values, np.nan)


def check_size(shape: tuple[int, ...], job: Job, where: str) -> None:
    """Refuse a map that has not its image's size.

    Raises:
        SubmissionError: naming both sizes and the likely cause.
    """
    if job.size is not None and tuple(shape) != job.size:
        height, width = shape
        raise SubmissionError(
            f"{where}: {width}x{height}, expected {job.size[1]}x{job.size[0]}"
            f"{size_hint((height, width), job.size)}. Resize to the image (bilinear) before exporting."
        )


def encode_map(
    maps: MapCollection, job: Job, options: ExportOptions, limits: Limits, level: int
) -> tuple[bytes, dict[str, Any], MapStatistics | None, list[Finding]]:
    """Encode one map and prove that it decodes to the same codes.

    Returns:
        (PNG, its record in the manifest, statistics, what looks wrong with the values).
    """
    from adubench.io.png import decode_grey16, encode_grey16

    where = maps.where(job.source)
    depth = read_metres(maps, job.source, options)
    check_size(depth.shape, job, where)
    codes, invalid, clipped = quantise(depth, options, where)
    if clipped > limits.clipped * codes.size:
        raise SubmissionError(
            f"{where}: {100 * clipped / codes.size:.2f} % of the pixels are above 255.996 m (largest "
            f"{float(np.nanmax(depth)):.6g}). Is the prediction in metres?"
        )
    data = encode_grey16(codes, level, portable=True)
    if not np.array_equal(decode_grey16(data, job.output), codes):
        raise AdubenchError(f"{job.output}: the encoded PNG does not decode to its values. Report this as a bug.")
    digest = digest_of(data)
    found, numbers = scan_codes(codes, job.output, limits, digest)
    record = {
        "name": job.output,
        "image": job.image or None,
        "prediction": job.source,
        "sha256": digest,
        "bytes": len(data),
        "size": [codes.shape[1], codes.shape[0]],
        "invalid": invalid,
        "clipped": clipped,
        "min_m": numbers.minimum if numbers else None,
        "median_m": numbers.median if numbers else None,
        "max_m": numbers.maximum if numbers else None,
    }
    return data, record, numbers, found


def zip_record(name: str, method: int = zipfile.ZIP_STORED) -> zipfile.ZipInfo:
    """Build a zip entry that depends on nothing but its name: 1980-01-01, rw-r--r--, Unix."""
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.compress_type = method
    info.external_attr = 0o100644 << 16
    info.create_system = 3
    return info


def manifest_path(output: Path) -> Path:
    """Return `<name>.manifest.json` beside the archive."""
    return output.with_name(f"{output.stem}.manifest.json")


@contextmanager
def package_paths(path: Path) -> Iterator[tuple[Path, Path]]:
    """Write archive and manifest, or neither."""
    if path.is_dir():
        raise DataError(f"cannot write {path}: it is a folder. Name the zip file with -o.")
    manifest = manifest_path(path)
    old = manifest.exists()
    try:
        with atomic_path(path) as first, atomic_path(manifest) as second:
            yield first, second
    except BaseException:
        if not old and not path.exists() and manifest.is_file():
            manifest.unlink()
        raise
