"""Integrity of a data set on this disk: what is there, what is missing, and the likely cause."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from adubench.datasets.kitti import (
    LAYOUT_NAMES,
    ImprovedMaps,
    KittiRaw,
    date_facts,
    selection_path,
)
from adubench.datasets.kitti_splits import MARGIN, frame_counts, missing_scans
from adubench.errors import AdubenchError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adubench.datasets.frames import FrameKey
    from adubench.datasets.splits import Split
    from adubench.io.maps import DepthMap

SHOWN = 5
#: Share of pixels with a value in KITTI's improved maps; outside it is worth a warning, not more.
DENSITY = (0.05, 0.35)


@dataclass(frozen=True, slots=True)
class Finding:
    """One remark of a check."""

    level: Literal["error", "warning", "info"]
    text: str


@dataclass(slots=True)
class Report:
    """What a check found.

    Attributes:
        dataset: which data set.
        root: data root.
        facts: layout, extension, calibration source, counts, ...: name -> value.
        findings: errors, warnings and remarks in the order found.
        table: per drive or sequence: name -> column -> number.
    """

    dataset: str
    root: str
    facts: dict[str, object] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    table: dict[str, dict[str, object]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not any(finding.level == "error" for finding in self.findings)

    def error(self, text: str) -> None:
        """Add an error."""
        self.findings.append(Finding("error", text))

    def warn(self, text: str) -> None:
        """Add a warning."""
        self.findings.append(Finding("warning", text))

    def info(self, text: str) -> None:
        """Add a remark."""
        self.findings.append(Finding("info", text))

    def first(self, what: str, missing: Sequence[str], total: int) -> None:
        """Report missing things: the first few by name, then the count."""
        for text in missing[:SHOWN]:
            self.error(f"{what}: {text}")
        if len(missing) > SHOWN:
            self.error(f"{what}: {len(missing)} of {total} in all")

    def to_dict(self) -> dict[str, object]:
        """Return everything for JSON."""
        return {
            "dataset": self.dataset,
            "root": self.root,
            "ok": self.ok,
            "facts": self.facts,
            "findings": [{"level": f.level, "text": f.text} for f in self.findings],
            "table": self.table,
        }


def check_kitti(
    split: Split, data_root: Path, gt_root: Path | None = None, *, full: bool = False, dataset: str = "kitti"
) -> Report:
    """Check KITTI raw and KITTI depth (or SynthDrive) for a split.

    Args:
        split: which frames are needed.
        data_root: raw root.
        gt_root: root of the improved maps; default the raw root.
        full: decode every map, not one per drive.
        dataset: "kitti" or "synthdrive", for the report.
    """
    report = Report(dataset, str(data_root))
    report.facts["split"] = split.name
    if split.name == "kitti_official.val_selection":
        _check_selection(report, split, gt_root or data_root, full)
        return report
    images = _check_images(report, split, KittiRaw(data_root), dataset)
    if full:
        _decode_images(report, images)
    try:
        _check_maps(report, split, ImprovedMaps(gt_root or data_root), images, full)
    except DataError as error:
        report.error(str(error))
    return report


def _check_images(report: Report, split: Split, raw: KittiRaw, dataset: str) -> dict[FrameKey, Path]:
    """Look for drives, images and calibration; return the images found."""
    if not raw.root.is_dir():
        report.error(f"data root not found: {raw.root}; check --data-root")
        return {}
    found: dict[FrameKey, Path] = {}
    absent: list[str] = []
    lost: list[str] = []
    for drive in split.drives:
        try:
            raw.drive_dir(drive)
        except DataError as error:
            if not absent:
                report.error(str(error))
            absent.append(drive)
            continue
        for frame in (f for f in split.frames if f.drive == drive):
            try:
                found[frame] = raw.image(frame)
            except DataError as error:
                lost.append(str(error).removeprefix("image not found: ").rstrip("."))
    report.facts |= {"drives": f"{len(split.drives) - len(absent)} of {len(split.drives)}"}
    report.facts["images"] = f"{len(found)} of {len(split.frames)}"
    report.first("drive missing", absent, len(split.drives))
    report.first("image not found", lost, len(split.frames))
    suffixes = Counter(path.suffix for path in found.values())
    report.facts["extension"] = ", ".join(f"{suffix} ({n})" for suffix, n in suffixes.most_common()) or "none"
    if suffixes.keys() - {".png"}:
        report.warn("JPEG images: predictions differ slightly from those on the original PNGs")
    for drive in split.drives:
        report.table[drive] = {"images": sum(f.drive == drive for f in found)}
    _check_dates(report, split, raw, found, dataset)
    return found


def _decode_images(report: Report, images: dict[FrameKey, Path]) -> None:
    """Decode every image: a truncated download shows here only."""
    from adubench.io.images import read_rgb

    for path in images.values():
        try:
            read_rgb(path)
        except AdubenchError as error:
            report.error(str(error))


def _check_dates(report: Report, split: Split, raw: KittiRaw, found: dict[FrameKey, Path], dataset: str) -> None:
    """Compare the image size of each date with its constants, and say where the calibration comes from."""
    from adubench.io.images import image_size

    sources = {}
    for date in dict.fromkeys(frame.date for frame in split.frames):
        calibration = raw.root / date / "calib_cam_to_cam.txt"
        expected = date_facts().get(date)
        size = (expected.width, expected.height) if expected else None
        sources[date] = "file" if calibration.is_file() else "missing"
        if not calibration.is_file():
            tail = "using built-in constants" if expected else "there are no constants for this date"
            text = f"calibration not found: {calibration}; {tail}, and raw scans cannot be projected without it"
            (report.warn if expected else report.error)(text)
        elif dataset == "synthdrive" or expected is None:
            try:
                height, width = raw.calibration(date).size
                size = (width, height)
            except AdubenchError as error:
                report.error(str(error))
        path = next((p for f, p in found.items() if f.date == date), None)
        if path is None or size is None:
            continue
        try:
            height, width = image_size(path)
        except AdubenchError as error:
            report.error(str(error))
            continue
        if (width, height) != size:
            report.error(
                f"{path}: {width}x{height} pixels, expected {size[0]}x{size[1]} for {date}; the images were resized, "
                "so metrics at native resolution would be wrong"
            )
    report.facts["calibration"] = ", ".join(f"{date}: {source}" for date, source in sources.items())


def _check_maps(report: Report, split: Split, maps: ImprovedMaps, images: dict[FrameKey, Path], full: bool) -> None:
    """Look for every map that the split needs; decode one per drive, or all."""
    wanted = [frame for frame in split.frames if frame not in split.no_gt]
    layout = maps.probe(tuple(dict.fromkeys(frame.drive for frame in wanted)))
    report.facts["layout"] = LAYOUT_NAMES.get(layout, "none")
    report.facts["without improved map"] = f"{len(split.no_gt)} of {len(split.frames)} (expected)"
    if not layout:
        if wanted:
            report.error(maps.explain_missing(wanted[0]))
        return
    missing: list[str] = []
    opened: set[tuple[str, int]] = set()
    counts: Counter[str] = Counter()
    hinted: set[str] = set()
    for frame in wanted:
        path = maps.find(frame)
        if path is None:
            if maps.explain_missing(frame).startswith("ground truth not found for") and frame.drive not in hinted:
                hinted.add(frame.drive)
                report.error(maps.explain_missing(frame))
            missing.append(frame.name)
            continue
        counts[frame.drive] += 1
        if full or (frame.drive, frame.camera) not in opened:
            opened.add((frame.drive, frame.camera))
            check_map(report, path, images.get(frame), density=report.dataset == "kitti")
    report.first("ground truth not found", missing, len(wanted))
    report.facts["maps"] = f"{len(wanted) - len(missing)} of {len(wanted)}"
    for drive in dict.fromkeys(frame.drive for frame in wanted):
        report.table.setdefault(drive, {})["maps"] = counts[drive]
        _check_drive_count(report, maps, drive)


def _check_drive_count(report: Report, maps: ImprovedMaps, drive: str) -> None:
    """Compare the number of left maps of a drive with its length minus ten, where the length is known."""
    n = frame_counts().get(drive)
    folder = next((f for f in maps.folders(drive) if (f / "image_02").is_dir()), None)
    if n is None or folder is None:
        return
    found = sum(1 for path in (folder / "image_02").iterdir() if path.suffix == ".png")
    expected = n - 2 * MARGIN - len(missing_scans().get(drive, ()))
    report.table[drive] |= {"maps on disk": found, "expected": expected}
    if found > expected:
        report.warn(f"{folder / 'image_02'}: {found} maps, expected {expected} (length {n} minus ten)")
    elif found < expected:
        report.info(f"{folder / 'image_02'}: {found} of {expected} maps of the whole drive")


def check_map(report: Report, path: Path, image: Path | None, *, density: bool = True) -> DepthMap | None:
    """Decode one map: 16 bit, one channel, the size of its image, not 8-bit content, a plausible density."""
    from adubench.io.depth_png import read_depth_map
    from adubench.io.images import image_size

    try:
        depth = read_depth_map(path)
        wanted = image_size(image) if image is not None else depth.shape
    except AdubenchError as error:
        report.error(str(error))
        return None
    if depth.shape != wanted:
        report.error(
            f"{path}: {depth.shape[1]}x{depth.shape[0]} pixels, its image has {wanted[1]}x{wanted[0]}; the map or the "
            "image was resized or cropped"
        )
    top = int(depth.values.max(initial=0))
    if top == 0:
        report.error(f"{path}: no pixel has a value")
    elif top <= 256:
        report.error(f"{path}: largest code {top}; the map was stored with 8 bits or divided by 256 already")
    share = float(np.count_nonzero(depth.values)) / depth.values.size
    if density and top and not DENSITY[0] <= share <= DENSITY[1]:
        report.warn(
            f"{path}: {share:.1%} of the pixels have a value; improved maps have {DENSITY[0]:.0%} to {DENSITY[1]:.0%}"
            + ("; is this a single scan (velodyne_raw)?" if share < DENSITY[0] else "; is this a filled map?")
        )
    return depth


def check_scans(split: Split, raw: KittiRaw) -> Report:
    """Check what projected ground truth needs: a scan per frame and the calibration of every date."""
    report = Report("kitti", str(raw.root))
    report.facts["split"] = split.name
    missing: list[str] = []
    for frame in split.frames:
        try:
            size = raw.scan(frame).stat().st_size
        except DataError as error:
            missing.append(str(error).removeprefix("Velodyne scan not found: ").split(";")[0])
            continue
        if size == 0 or size % 16:
            report.error(f"{raw.scan(frame)}: {size} bytes are not whole points of 16 bytes; the file is cut off")
    for date in dict.fromkeys(frame.date for frame in split.frames):
        try:
            raw.calibration(date)
        except AdubenchError as error:
            report.error(str(error))
    report.facts["scans"] = f"{len(split.frames) - len(missing)} of {len(split.frames)}"
    report.first("Velodyne scan not found", missing, len(split.frames))
    return report


def _check_selection(report: Report, split: Split, root: Path, full: bool) -> None:
    """Check the devkit's val_selection: all maps there, 1216 x 352."""
    missing: list[str] = []
    for i, frame in enumerate(split.frames):
        try:
            path = selection_path(root, frame)
        except DataError as error:
            if not missing:
                report.error(str(error))
            missing.append(frame.name)
            continue
        if full or i % 100 == 0:
            depth = check_map(report, path, None)
            if depth is not None and depth.shape != (352, 1216):
                report.error(f"{path}: {depth.shape[1]}x{depth.shape[0]} pixels, expected 1216x352")
    report.facts |= {"layout": "val_selection_cropped", "maps": f"{len(split.frames) - len(missing)} of 1000"}
    report.first("ground truth not found", missing, len(split.frames))


def check_folder(images: Path, depth: Path | None, list_file: Path | None = None, *, full: bool = False) -> Report:
    """Check a plain folder data set: names, sizes and content of the maps."""
    from adubench.datasets.folder import open_folder
    from adubench.io.images import image_size

    report = Report("folder", str(images))
    try:
        data = open_folder(images, depth, list_file)
    except AdubenchError as error:
        report.error(str(error))
        return report
    report.facts |= {"images": len(data.samples), "maps": sum(s.depth is not None for s in data.samples)}
    report.first("image without depth map", data.without_depth, len(data.samples))
    for name in data.without_image[:SHOWN]:
        report.warn(f"depth map without image: {name}")
    sizes: Counter[str] = Counter()
    for i, sample in enumerate(data.samples):
        if not full and i % max(1, len(data.samples) // 20):
            continue
        try:
            height, width = image_size(sample.image)
        except AdubenchError as error:
            report.error(str(error))
            continue
        sizes[f"{width}x{height}"] += 1
        if sample.depth is not None and sample.depth.suffix == ".png":
            check_map(report, sample.depth, sample.image, density=False)
    report.facts["sizes"] = ", ".join(f"{size} ({n})" for size, n in sizes.most_common())
    return report
