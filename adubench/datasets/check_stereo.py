"""Integrity of DrivingStereo on this disk."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from adubench.datasets.check import Report, check_map
from adubench.datasets.driving_stereo import (
    DEPTH_SCALE,
    DISPARITY_SCALE,
    MODALITIES,
    StereoIndex,
    calibration_path,
    check_sizes,
    default_resolution,
    focal_and_baseline,
    index_part,
    known_sequences,
)
from adubench.datasets.tables import load_table
from adubench.errors import AdubenchError

#: Largest departure of depth * disparity / (fx * baseline) from 1.
TOLERANCE = 0.03


def check_drivingstereo(root: Path, part: str = "test", resolution: str | None = None, *, full: bool = False) -> Report:
    """Check a part ("train", "test", or a weather name) at one resolution.

    Args:
        root: data root.
        part: which part.
        resolution: "half", "full", or None for the part's default.
        full: decode every depth map, not one per sequence.
    """
    report = Report("drivingstereo", str(root))
    report.facts["part"] = part
    try:
        resolution = resolution or default_resolution(root, part)
        index = index_part(root, part, resolution)
    except AdubenchError as error:
        report.error(str(error))
        return report
    report.facts["resolution"] = resolution
    _check_counts(report, index)
    seen: set[str] = set()
    for stem in index.stems:
        sequence = stem[:19]
        if sequence in seen and not full:
            continue
        _check_stem(report, index, stem, first=sequence not in seen)
        seen.add(sequence)
    return report


def _check_counts(report: Report, index: StereoIndex) -> None:
    for modality in MODALITIES:
        report.facts[modality] = len(index.files[modality])
        counts = Counter(stem[:19] for stem in index.files[modality])
        for sequence, n in sorted(counts.items()):
            report.table.setdefault(sequence, {})[modality] = n
    report.facts["samples"] = len(index.stems)
    for modality, n in index.dropped.items():
        report.warn(f"{n} {modality} files have no partner (image and map must both exist) and are left out")
    known = known_sequences(index.part)
    held = {stem[:19] for stem in index.stems}
    unknown = sorted(held - set(known))
    if unknown:
        report.info(f"{len(unknown)} sequences are none of the published ones: {', '.join(unknown[:5])}")
    if not held & set(known):
        return
    missing = [sequence for sequence in known if sequence not in held]
    report.first(f"{index.part} sequence missing", missing, len(known))
    table = load_table("drivingstereo")["count"]
    expected = {"train": (table["train"], table["train_alternative"]), "test": (table["test"],)}.get(
        index.part, (table["weather_each"],)
    )
    report.facts["expected"] = " or ".join(f"{n}" for n in expected)
    if not missing and len(index.stems) not in expected:
        report.error(f"{len(index.stems)} samples, expected {report.facts['expected']}: the archives are incomplete")


def _check_stem(report: Report, index: StereoIndex, stem: str, *, first: bool) -> None:
    """Check one frame: sizes, bit depth, and the relation of depth and disparity once per sequence."""
    depth_path, disparity_path = index.files["depth-map"].get(stem), index.files["disparity-map"].get(stem)
    image = index.files["left-image"].get(stem)
    if image is not None:
        try:
            check_sizes(index, stem)
        except AdubenchError as error:
            report.error(str(error))
            return
    for path in (depth_path, disparity_path):
        if path is not None and check_map(report, path, None, density=False) is None:
            return
    if not first:
        return
    if calibration_path(index.root, stem[:19], index.resolution) is None:
        report.warn(f"sequence {stem[:19]} has no calibration file; depth maps can be used, metric disparity cannot")
        return
    if depth_path is not None and disparity_path is not None:
        _check_relation(report, index, stem, depth_path, disparity_path)


def _check_relation(report: Report, index: StereoIndex, stem: str, depth_path: Path, disparity_path: Path) -> None:
    """Compare depth * disparity with fx * baseline: a wrong disparity factor shows as 0.5 or 2."""
    from adubench.io.depth_png import read_depth_map

    try:
        fx, baseline = focal_and_baseline(index.root, stem[:19], index.resolution)
        depth = read_depth_map(depth_path, DEPTH_SCALE).quantity()
        disparity = read_depth_map(disparity_path, DISPARITY_SCALE[index.resolution]).quantity()
    except AdubenchError as error:
        report.error(str(error))
        return
    valid = (depth > 0) & (disparity > 0)
    if depth.shape != disparity.shape or not valid.any():
        report.error(f"{disparity_path}: does not cover the same pixels as {depth_path}")
        return
    ratio = float(np.median(depth[valid] * disparity[valid])) / (fx * baseline)
    report.table.setdefault(stem[:19], {})["depth*disparity/(fx*b)"] = round(ratio, 4)
    if abs(ratio - 1) <= TOLERANCE:
        return
    doubled = min(abs(ratio - 0.5), abs(ratio - 2)) <= 2 * TOLERANCE
    cause = (
        "disparity scale factor looks wrong: full-resolution disparity uses 128, half-resolution 256 (or the baseline "
        "is doubled)"
        if doubled
        else "depth, disparity and calibration do not belong together"
    )
    report.error(f"{disparity_path}: depth * disparity is {ratio:.3f} times fx * baseline; {cause}")
