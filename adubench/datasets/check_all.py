"""Which checks `adubench data check` runs, from what the user named."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adubench.datasets.check import Report, check_folder, check_kitti, check_scans
from adubench.datasets.kitti import KittiRaw, synthdrive_frames
from adubench.datasets.leakage import TrainingSet, known_leaks, overlap, training_set
from adubench.datasets.splits import Split, checksum, load_split, looks_like_list, resolve_name
from adubench.errors import AdubenchError, UsageError

if TYPE_CHECKING:
    from adubench.datasets.frames import FrameKey
    from adubench.datasets.leakage import Leakage


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """The options of `adubench data check`; see its help."""

    dataset: str | None = None
    split: str | None = None
    data_root: Path | None = None
    gt: str | None = None
    list_file: Path | None = None
    resolution: str | None = None
    full: bool = False
    strict: bool = False
    train_split: str | None = None
    train_list: Path | None = None


def run_checks(options: CheckOptions) -> list[Report]:
    """Run the checks that the options ask for.

    Raises:
        UsageError: nothing to check was named, or names do not exist.
        DataError: a list file is malformed.
    """
    train = options.train_split or (str(options.train_list) if options.train_list else None)
    if train is not None and options.split is None:
        raise UsageError("leakage needs the evaluation split too: add --split NAME.")
    reports = []
    root = options.data_root or (Path(options.gt) if options.gt and options.gt != "raw" else None)
    if root is not None:
        reports.append(_check_data(options, root))
    elif train is None:
        raise UsageError(
            "nothing to check: give --data-root DIR (or ADUBENCH_DATA_ROOT), or --split with --train-split."
        )
    if options.split is not None:
        report = _check_leakage(options.split, train, root)
        if train is not None or report.findings:
            reports.append(report)
    return reports


def guess_dataset(root: Path, split: str | None) -> str:
    """Name the data set of a split, or what lies at a root."""
    if split is not None and not looks_like_list(split):
        name = resolve_name(split)
        return name.split(".")[0] if name.split(".")[0] in ("drivingstereo", "synthdrive", "nyu") else "kitti"
    names = [p.name.replace("_", "-") for p in root.glob("*")] + [p.name.replace("_", "-") for p in root.glob("*/*")]
    if any("depth-map" in name or "disparity-map" in name for name in names):
        return "drivingstereo"
    return "synthdrive" if (root / "synthdrive.json").is_file() else "kitti"


def _check_data(options: CheckOptions, root: Path) -> Report:
    dataset = options.dataset or guess_dataset(root, options.split)
    gt = Path(options.gt) if options.gt and options.gt != "raw" else None
    if dataset == "folder":
        return check_folder(root, gt, options.list_file, full=options.full)
    if dataset == "drivingstereo":
        return _check_drivingstereo(options, root)
    if dataset == "nyu":
        return _check_nyu(root)
    try:
        split = _synthdrive(root) if dataset == "synthdrive" and not options.split else None
        split = split or load_split(options.split or "eigen", root)
    except AdubenchError as error:
        if options.split and looks_like_list(options.split):
            raise
        report = Report(dataset, str(root))
        report.error(str(error))
        return report
    if split.dataset == "folder":
        report = Report("folder", str(root))
        report.facts["images"] = len(split.frames)
        _check_list(report, options, root, gt)
        return report
    if options.gt == "raw":
        return check_scans(split, KittiRaw(root))
    report = check_kitti(split, root, gt, full=options.full, dataset=dataset)
    if options.split and looks_like_list(options.split):
        _check_list(report, options, root, gt)
    return report


def _synthdrive(root: Path) -> Split:
    """Join the parts of a SynthDrive root."""
    frames: list[FrameKey] = []
    missing: set[FrameKey] = set()
    for part in ("train", "val", "test"):
        found, without = synthdrive_frames(root, part, allow_empty=True)
        frames += found
        missing |= without
    return Split("synthdrive", tuple(frames), len(frames), checksum(frames), "", frozenset(missing), "synthdrive")


def _check_drivingstereo(options: CheckOptions, root: Path) -> Report:
    from adubench.datasets.check_stereo import check_drivingstereo

    part = "test"
    if options.split:
        part = resolve_name(options.split).removeprefix("drivingstereo.").removeprefix("weather.").removeprefix("adu_")
    return check_drivingstereo(root, part, options.resolution, full=options.full)


def _check_nyu(root: Path) -> Report:
    from adubench.datasets.check import check_map
    from adubench.datasets.nyu import NyuGroundTruth

    report = Report("nyu", str(root))
    try:
        source = NyuGroundTruth.open(root)
    except AdubenchError as error:
        report.error(str(error))
        return report
    report.facts |= {"maps": len(source.frames), "scenes": len({f.drive for f in source.frames})}
    if len(source.frames) != 654:
        report.error(f"{len(source.frames)} depth maps, expected 654 test images")
    depth = check_map(report, source.paths(source.frames[0])[0], None, density=False)
    if depth is not None and depth.shape != (480, 640):
        report.error(f"{depth.shape[1]}x{depth.shape[0]} pixels, expected 640x480")
    return report


def _check_list(report: Report, options: CheckOptions, root: Path, gt: Path | None) -> None:
    """Add what the list file's own rules say: duplicates, focal lengths, missing files."""
    from adubench.datasets.list_files import check_files, read_list

    assert options.split is not None
    listed = read_list(options.split, strict=options.strict)
    report.facts |= {"list": listed.path.name, "format": listed.format}
    codes = Counter(warning.rsplit("[", 1)[-1].rstrip("]") for warning in listed.warnings)
    for warning in listed.warnings[:5]:
        report.warn(warning)
    for code, n in codes.items():
        if n > 5:
            report.warn(f"{listed.path}: {n} lines in all [{code}]")
    for note in listed.notes:
        report.info(note)
    for problem in check_files(listed, root, gt):
        report.error(problem)


def _check_leakage(name: str, train: str | None, root: Path | None) -> Report:
    """Compare the evaluation split with the training set, or with the published ones for information."""
    report = Report("leakage", name)
    try:
        test = load_split(name, root)
        seen: TrainingSet | None = training_set(train, root) if train else None
    except AdubenchError:
        if train is not None:
            raise
        return report
    if seen is None:
        for leak in known_leaks(test):
            report.info(f"{leak.messages()[0]}: do not score a model trained on them here")
        return report
    leak = overlap(seen, test)
    report.facts |= {"training set": seen.name, "evaluation split": test.name}
    report.facts |= {k: v for k, v in leak.to_dict().items() if isinstance(v, int)}
    _say_leak(report, leak)
    return report


def _say_leak(report: Report, leak: Leakage) -> None:
    for message in leak.messages():
        (report.error if leak.shared_frames else report.warn)(message)
    if leak.any:
        tail = ", ".join(leak.shared_drives[:3]) + (", ..." if len(leak.shared_drives) > 3 else "")
        report.info(f"{len(leak.shared_drives)} shared drives: {tail}")
    else:
        report.info("no frame and no drive in common")
