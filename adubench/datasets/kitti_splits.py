"""KITTI's splits, expanded from the packaged tables (Eigen, Zhou, Godard, official, Monodepth2's benchmark)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from adubench.datasets.frames import FrameKey, anonymous_frame, kitti_frame
from adubench.datasets.tables import expand, load_table, unpack_bits
from adubench.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

#: Improved maps accumulate 11 scans: the first and last five frames of a drive have none.
MARGIN = 5


@dataclass(frozen=True, slots=True)
class Expansion:
    """Frames of a split and the checksums of the published list (None where no list is published)."""

    frames: tuple[FrameKey, ...]
    sha256_set: str | None = None
    sha256_order: str | None = None
    no_gt: frozenset[FrameKey] = frozenset()


@cache
def official_val_drives() -> frozenset[str]:
    """The 13 drives of the official validation split."""
    return frozenset(load_table("kitti_drives")["official_val_drives"])


@cache
def all_drives() -> dict[str, str]:
    """The 151 drives with depth maps -> category (city, residential, road, campus, person)."""
    categories = load_table("kitti_drives")["categories"]
    return {
        f"{date}_drive_{number:04d}": category
        for category, dates in categories.items()
        if category != "calibration_only"
        for date, numbers in dates.items()
        for number in numbers
    }


@cache
def frame_counts() -> dict[str, int]:
    """Number of raw frames per drive, where public lists determine it."""
    return dict(load_table("kitti_drives")["n_frames"])


@cache
def missing_scans() -> dict[str, frozenset[int]]:
    """Frames whose Velodyne scan does not exist in KITTI, per drive."""
    table = load_table("kitti_drives")["missing_velodyne"]
    return {drive: frozenset(expand(tokens)) for drive, tokens in table.items()}


def drivingstereo_alternative() -> int:
    """The second frame count that DrivingStereo's site prints for its training set."""
    return int(load_table("drivingstereo")["count"]["train_alternative"])


def has_improved_map(frame: FrameKey) -> bool:
    """Say whether a frame can have an improved map, as far as the drive's length is known."""
    if frame.index < MARGIN or frame.index in missing_scans().get(frame.drive, ()):
        return False
    if kitti_frame(frame.drive, frame.index) in _eigen_without_map():
        return False
    count = frame_counts().get(frame.drive)
    return count is None or frame.index < count - MARGIN


@cache
def _eigen_without_map() -> frozenset[FrameKey]:
    """The 45 Eigen test frames; eight of them lie at the end of drives whose length no list determines."""
    return _eigen_test().no_gt


def _keys(drives: dict[str, Iterable[int]], sides: str = "lr") -> list[FrameKey]:
    cameras = [{"l": 2, "r": 3}[side] for side in sides]
    return [kitti_frame(drive, i, c) for drive, frames in drives.items() for i in frames for c in cameras]


def _without_map(frames: Iterable[FrameKey]) -> frozenset[FrameKey]:
    return frozenset(frame for frame in frames if not has_improved_map(frame))


def expand_split(name: str) -> Expansion:
    """Expand a KITTI split by its full name."""
    family, _, part = name.partition(".")
    if family.startswith("eigen_benchmark"):
        return _eigen_benchmark(family)
    expanders: dict[str, Any] = {
        "eigen_test": _eigen_test,
        "eigen_train": _eigen_train,
        "eigen_full": _eigen_full,
        "eigen_zhou": _eigen_zhou,
        "kitti_benchmark_moving": _benchmark_moving,
        "kitti_official": _official,
    }
    result: Expansion = expanders[family](part)
    return result


def _eigen_test(_part: str = "") -> Expansion:
    table = load_table("eigen_test")
    frames: list[FrameKey] = []
    no_gt: list[FrameKey] = []
    for drive, entry in table["drives"].items():
        numbers = expand(entry["frames"])
        frames += [kitti_frame(drive, numbers[k]) for k in entry.get("order", range(len(numbers)))]
        no_gt += [kitti_frame(drive, k) for k in entry.get("no_gt", ())]
    return Expansion(tuple(frames), table["sha256_set"], table["sha256_order"], frozenset(no_gt))


def _eigen_benchmark(name: str) -> Expansion:
    table = load_table("eigen_benchmark")
    base = _eigen_test()
    frames = [frame for frame in base.frames if frame not in base.no_gt]
    if name == "eigen_benchmark_val161":
        table = table["derived"][name]
        frames = [frame for frame in frames if frame.drive in official_val_drives()]
    return Expansion(tuple(frames), table["sha256_set"], table["sha256_order"])


def _eigen_train(_part: str) -> Expansion:
    table = load_table("eigen_train")
    drives = {d: range(MARGIN, e["n_frames"] - MARGIN) for d, e in table["drives"].items()}
    return Expansion(tuple(sorted(_keys(dict(drives), "l"))), table["sha256_set"])


def _eigen_full(part: str) -> Expansion:
    table = load_table("eigen_full")
    drives: dict[str, Iterable[int]] = {}
    for drive, entry in table["drives"].items():
        val = set(expand(entry.get("val", [])))
        drives[drive] = val if part == "val" else [i for i in range(entry["n_frames"]) if i not in val]
    frames = tuple(sorted(_keys(drives)))
    return Expansion(frames, table["sha256_set"][part], no_gt=_without_map(frames))


def _eigen_zhou(part: str) -> Expansion:
    table = load_table("eigen_zhou")
    prefix = "test" if part == "test_700" else "val"
    frames: list[FrameKey] = []
    for drive, entry in table["drives"].items():
        n = entry["n_frames"]
        for side, camera in (("l", 2), ("r", 3)):
            chosen = unpack_bits(entry[f"{prefix}_{side}"], n) if f"{prefix}_{side}" in entry else set()
            if part == "train":
                chosen = set(expand(entry["moving"])) - chosen
            frames += [kitti_frame(drive, i, camera) for i in chosen]
    frames.sort()
    return Expansion(tuple(frames), table["sha256_set"][part], no_gt=_without_map(frames))


def _benchmark_moving(part: str) -> Expansion:
    table = load_table("kitti_benchmark_moving")
    zhou = load_table("eigen_zhou")["drives"]
    drives: dict[str, Iterable[int]] = {}
    for drive, entry in table["val" if part.endswith("val") else "train"].items():
        if "frames" in entry:
            drives[drive] = expand(entry["frames"])
        else:
            source = zhou[drive]
            drives[drive] = [i for i in expand(source["moving"]) if MARGIN <= i < source["n_frames"] - MARGIN]
    keys = _keys(drives)
    if part.startswith("eigen_benchmark"):
        test = set(_eigen_test().frames)
        keys = [key for key in keys if key not in test]
    return Expansion(tuple(sorted(keys)), table["sha256_set"][part])


def _official(part: str) -> Expansion:
    table = load_table("kitti_official")[part]
    if "pattern" in table:
        return Expansion(tuple(anonymous_frame(i) for i in expand([table["index"]])))
    if part == "val":
        counts = frame_counts()
        drives = {d: range(MARGIN, counts[d] - MARGIN) for d in sorted(official_val_drives())}
        return Expansion(tuple(sorted(_keys(dict(drives)))))
    frames: list[FrameKey] = []
    for drive, sides in table["drives"].items():
        for side, camera in (("l", 2), ("r", 3)):
            frames += [kitti_frame(drive, i, camera) for i in expand(sides.get(side, []))]
    return Expansion(tuple(sorted(frames)), table["sha256_set"])


def official_train_frames(root: str | Path | None) -> tuple[tuple[FrameKey, ...], tuple[str, ...]]:
    """List the frames of the official train drives that have a map on disk, both cameras.

    Raises:
        UsageError: no root was given (no public list determines the lengths of all 138 drives).
        DataError: the root has no map of any of them.
    """
    if root is None:
        raise UsageError(
            "split 'kitti_official.train' is every map on disk of 138 drives: give --data-root DIR or --gt DIR."
        )
    from adubench.datasets.kitti import maps_on_disk

    drives = sorted(set(all_drives()) - official_val_drives())
    found = {drive: maps_on_disk(root, drive) for drive in drives}
    missing = [drive for drive, frames in found.items() if not frames]
    if len(missing) == len(drives):
        raise DataError(f"no improved map of an official train drive under {root}; expected {root}/train/<drive>_sync.")
    notes = (
        (f"{len(missing)} of {len(drives)} official train drives have no map: {missing[0]}, ...",) if missing else ()
    )
    return tuple(sorted(frame for frames in found.values() for frame in frames)), notes
