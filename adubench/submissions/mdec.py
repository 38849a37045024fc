"""The array file of the Monocular Depth Estimation Challenge (SYNS-Patches).

One compressed `.npz` with key `pred`: unscaled disparities (n, h, w) in list order; the organisers align them.
Source: monodepth_benchmark, `api/eval/export_depth.py`.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from adubench import __version__
from adubench.errors import SubmissionError, counted
from adubench.submissions.encoding import check_size, manifest_path, package_paths, read_metres, zip_record
from adubench.submissions.findings import Finding, SubmissionReport, finding, sort_findings

if TYPE_CHECKING:
    from pathlib import Path

    from adubench.io.collection import MapCollection
    from adubench.submissions.encoding import ExportOptions
    from adubench.submissions.planning import Job

COUNTS = {400: "validation", 775: "test"}


def write_mdec(
    maps: MapCollection,
    jobs: list[Job],
    path: Path,
    options: ExportOptions,
    findings: list[Finding],
    extra: dict[str, Any],
) -> SubmissionReport:
    """Write the array one map at a time: depth becomes 1 / depth, disparity stays as it is.

    Raises:
        SubmissionError: maps of different sizes, or values that have no disparity.
    """
    found = list(findings)
    if len(jobs) not in COUNTS:
        message = f"{counted(len(jobs), 'map')}; the challenge has 400 (validation) or 775 (test) images"
        found.append(finding("S03", message, level="warning"))
    total = 0
    digest = hashlib.sha256()
    shape: tuple[int, ...] | None = None
    with package_paths(path) as (archive, manifest):
        with (
            zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as package,
            package.open(zip_record("pred.npy", zipfile.ZIP_DEFLATED), "w", force_zip64=True) as stream,
        ):
            for job in jobs:
                disparity = _disparity(maps, job, options)
                if shape is None:
                    shape = disparity.shape
                    stream.write(_npy_header((len(jobs), *shape)))
                if disparity.shape != shape:
                    raise SubmissionError(
                        f"{maps.where(job.source)}: shape {disparity.shape}, the first map has {shape}. One array "
                        "holds all maps, so they need one size."
                    )
                data = disparity.tobytes()
                digest.update(data)
                stream.write(data)
                total += len(data)
        document = {
            "tool": f"adubench {__version__}",
            "kind": "mdec",
            "key": "pred",
            "shape": [len(jobs), *(shape or ())],
            "sha256_of_values": digest.hexdigest(),
            "archive": {"name": path.name, "bytes": archive.stat().st_size},
            "config": asdict(options),
            **extra,
            "order": [job.source for job in jobs],
        }
        manifest.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return SubmissionReport(
        path=str(path),
        kind="mdec",
        files=len(jobs),
        total_bytes=total,
        findings=sort_findings(found),
        manifest=str(manifest_path(path)),
        reminder="The organisers align the disparities; the order of the maps is that of the challenge's list file.",
    )


def _disparity(maps: MapCollection, job: Job, options: ExportOptions) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Read one map as disparity, float32 [h, w], finite and > 0."""
    where = maps.where(job.source)
    depth = read_metres(maps, job.source, options)
    check_size(depth.shape, job, where)
    with np.errstate(divide="ignore", invalid="ignore"):
        disparity = (options.disparity_scale or 1.0) / depth
    bad = ~(np.isfinite(disparity) & (disparity > 0))
    if bad.any():
        if options.on_invalid == "error":
            raise SubmissionError(
                f"{where}: {np.count_nonzero(bad)} pixels have no disparity (not finite or not > 0). "
                "Choose --on-invalid min if this is meant."
            )
        disparity[bad] = disparity[~bad].min() if (~bad).any() else 1.0
    return disparity.astype("<f4")


def _npy_header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return buffer.getvalue()
