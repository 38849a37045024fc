"""Write the archive that KITTI's depth server takes, byte-identical for equal input.

Depth stays what the caller predicted: nothing is resized, cropped or scaled here. Rounding is half to even (the public
exporters truncate, which shifts every depth by -1.95 mm; `quantize="trunc"` reproduces them).
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adubench import __version__
from adubench.errors import DataError, SubmissionError, counted
from adubench.submissions.encoding import ExportOptions, encode_map, manifest_path, package_paths, zip_record
from adubench.submissions.findings import Finding, SubmissionReport, finding, sort_findings
from adubench.submissions.kitti import DEPTH_SCALE, LIMITS, MEGABYTE, Limits, Target, get_target
from adubench.submissions.planning import Job, plan
from adubench.submissions.validate import set_findings

if TYPE_CHECKING:
    from collections.abc import Callable

    from adubench.io.collection import MapCollection
    from adubench.submissions.png_scan import MapStatistics

LEVELS = (1, 6, 9)


@dataclass(slots=True)
class _Written:
    """What one pass over the predictions wrote."""

    files: list[dict[str, Any]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    total: int = 0
    level: int = 1


def export_submission(
    source: str | Path,
    *,
    images: str | Path | None = None,
    output: str | Path = "submission.zip",
    kind: str = "prediction",
    on_invalid: str = "error",
    quantize: str = "round",
    png_scale: float = DEPTH_SCALE,
    input_kind: str = "depth",
    disparity_scale: float | None = None,
    checkpoint: str | Path | None = None,
    trained_on: str | None = None,
    limits: Limits = LIMITS,
    progress: Callable[[int, int], None] | None = None,
) -> SubmissionReport:
    """Write a submission archive and its manifest; one map is in memory at a time.

    Args:
        source: folder or zip of PNG / npy, npz, HDF5, or one stacked array (N, H, W) in the order of the images.
        images: folder of the test images; it gives the names and the sizes. Without it, names and sizes are the kind's.
        output: the archive; an existing one is replaced when the new one is complete.
        kind: key of `kitti.TARGETS`.
        on_invalid: see `ExportOptions`.
        quantize: see `ExportOptions`.
        png_scale: see `ExportOptions`.
        input_kind: see `ExportOptions.input`.
        disparity_scale: see `ExportOptions`.
        checkpoint: file whose hash goes into the manifest.
        trained_on: split the model was trained on; anything but the official training split is warned about.
        limits: thresholds.
        progress: called with (done, total) after every map.

    Returns:
        The report; its findings are warnings (predictions of no image, clipped pixels, implausible scale).

    Raises:
        SubmissionError: predictions missing or of the wrong size, invalid values, too many clipped, too large.
        DataError: a prediction cannot be read, or the archive cannot be written.
        UsageError: unknown options.
    """
    from adubench.io.collection import open_maps

    target = get_target(kind)
    options = ExportOptions(on_invalid, quantize, png_scale, input_kind, disparity_scale)
    path = Path(output)
    maps = open_maps(source, png_scale=png_scale)
    jobs, found = plan(maps, target, Path(images) if images is not None else None)
    found += _split_warning(trained_on)
    extra = {"checkpoint": _checkpoint(checkpoint), "trained_on": trained_on}
    if kind == "mdec":
        from adubench.submissions.mdec import write_mdec

        return write_mdec(maps, jobs, path, options, found, extra)
    statistics: list[MapStatistics] = []
    with package_paths(path) as (archive, manifest):
        written = _write_archive(archive, maps, jobs, options, limits, statistics, progress)
        found += _changed_pixels(written.files, options)
        found += _plausibility(written.findings + set_findings(statistics, target, limits))
        digest = _file_digest(archive)
        document = _manifest(written, target, options, extra)
        document["archive"] = {"name": path.name, "sha256": digest, "bytes": archive.stat().st_size}
        manifest.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return SubmissionReport(
        path=str(path),
        kind=kind,
        files=len(written.files),
        total_bytes=written.total,
        findings=sort_findings(found),
        statistics={"compression_level": written.level, "archive_sha256": digest},
        manifest=str(manifest_path(path)),
        reminder=target.reminder,
    )


def _manifest(written: _Written, target: Target, options: ExportOptions, extra: dict[str, Any]) -> dict[str, Any]:
    """Say how the archive was made, map by map."""
    return {
        "tool": f"adubench {__version__}",
        "kind": target.kind,
        "title": target.title,
        "archive": {},
        "files": len(written.files),
        "accumulated_bytes": written.total,
        "png": {"scale": DEPTH_SCALE, "compression_level": written.level},
        "config": asdict(options),
        **extra,
        "totals": {key: sum(f[key] for f in written.files) for key in ("clipped", "invalid")},
        "maps": written.files,
    }


def _write_archive(
    archive: Path,
    maps: MapCollection,
    jobs: list[Job],
    options: ExportOptions,
    limits: Limits,
    statistics: list[MapStatistics],
    progress: Callable[[int, int], None] | None,
) -> _Written:
    """Encode at the lowest compression level whose total stays below the aim; fail above the server's limit."""
    written = _Written()
    for level in LEVELS:
        written = _Written(level=level)
        statistics.clear()
        aim = limits.target_bytes if level != LEVELS[-1] else None
        if _one_pass(archive, maps, jobs, options, limits, statistics, progress, written, aim):
            break
    if written.total > limits.total_bytes:
        raise SubmissionError(
            f"{len(jobs)} maps take {written.total / MEGABYTE:.1f} MB at the highest compression "
            f"({written.total / len(jobs) / MEGABYTE:.2f} MB each); the server takes "
            f"{limits.total_bytes / MEGABYTE:.0f} MB. Noisy maps compress badly: is this a depth map?"
        )
    return written


def _one_pass(
    archive: Path,
    maps: MapCollection,
    jobs: list[Job],
    options: ExportOptions,
    limits: Limits,
    statistics: list[MapStatistics],
    progress: Callable[[int, int], None] | None,
    written: _Written,
    aim: int | None,
) -> bool:
    """Write all maps; stop early and return False as soon as the total exceeds the aim."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as package:
        for done, job in enumerate(jobs, 1):
            data, record, numbers, found = encode_map(maps, job, options, limits, written.level)
            written.total += len(data)
            if aim is not None and written.total > aim:
                return False
            package.writestr(zip_record(job.output), data)
            written.files.append(record)
            written.findings += found
            if numbers is not None:
                statistics.append(numbers)
            if progress is not None:
                progress(done, len(jobs))
    return True


def _changed_pixels(files: list[dict[str, Any]], options: ExportOptions) -> list[Finding]:
    """Say how many pixels are not what the prediction said."""
    found = []
    for key, code, text in (
        ("clipped", "S19", "above 255.996 m, clipped"),
        ("invalid", "S18", f"not finite or not > 0; --on-invalid {options.on_invalid} replaced them"),
    ):
        changed = [f[key] for f in files if f[key]]
        if changed:
            found.append(finding(code, f"{counted(sum(changed), 'pixel')} in {counted(len(changed), 'map')} {text}"))
    return found


def _plausibility(findings: list[Finding]) -> list[Finding]:
    """Keep what is wrong with the values as warnings; missing and saturated pixels are counted over the set."""
    return [
        finding(f.code, f.message, f.file, level="warning" if f.level == "error" else f.level)
        for f in findings
        if f.code not in ("S18", "S19")
    ]


def _split_warning(trained_on: str | None) -> list[Finding]:
    allowed = {"kitti_official.train", "kitti_official.train+val", "kitti_official.trainval", "official"}
    if trained_on is None or trained_on in allowed:
        return []
    message = (
        f"the model was trained on '{trained_on}', not on kitti_official.train: the anonymous test frames may "
        "come from drives inside that split"
    )
    return [finding("G04", message)]


def _checkpoint(path: str | Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    file = Path(path)
    if not file.is_file():
        raise DataError(f"checkpoint not found: {file}. Its hash goes into the manifest.")
    return {"name": file.name, "sha256": _file_digest(file)}


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
