"""Named splits: their frames in official order, their counts, their checksums.

The tables under `lists/` are compact encodings of public lists; every expansion is compared with the checksum of the
published list, so a split is either exactly the published one or an error.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from adubench.datasets import kitti_splits
from adubench.datasets.frames import FrameKey
from adubench.errors import DataError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class SplitInfo:
    """What is known about a split without expanding it.

    Attributes:
        name: the full name, e.g. `eigen_full.train`.
        dataset: "kitti", "drivingstereo", "synthdrive" or "nyu".
        count: number of images; None where only the files on disk tell.
        default_protocol: the protocol that `--split` implies, or "" for training lists.
        about: one line for `adubench data list`.
        on_disk: the frames are read from a data root.
    """

    name: str
    dataset: str
    count: int | None
    default_protocol: str
    about: str
    on_disk: bool = False


@dataclass(frozen=True, slots=True)
class Split:
    """An expanded split.

    Attributes:
        name: full name, or the file name of a list.
        frames: keys in official order (rule 9 of the tables, i.e. drive, frame, side, where none exists).
        count: the number of images that the split has by definition (not what was found on disk); None: unknown.
        sha256: checksum of the set of keys.
        default_protocol: the protocol that `--split` implies, or "".
        no_gt: the frames without improved ground truth, as published (45 of Eigen's 697).
        dataset: where the frames come from.
        notes: sentences a user should read (dropped files, missing sequences).
        gt_paths: frame -> path of its map below the ground-truth root, where a list file says so for frames that are
            not KITTI's.
    """

    name: str
    frames: tuple[FrameKey, ...]
    count: int | None
    sha256: str
    default_protocol: str
    no_gt: frozenset[FrameKey] = frozenset()
    dataset: str = "kitti"
    notes: tuple[str, ...] = field(default=())
    gt_paths: Mapping[FrameKey, str] = field(default_factory=dict, hash=False, compare=False)

    @property
    def drives(self) -> tuple[str, ...]:
        """The drives in the order in which they first occur."""
        return tuple(dict.fromkeys(frame.drive for frame in self.frames))


def _k(name: str, count: int | None, protocol: str, about: str, on_disk: bool = False) -> SplitInfo:
    return SplitInfo(name, "kitti", count, protocol, about, on_disk)


def _d(name: str, count: int | None, protocol: str, about: str) -> SplitInfo:
    return SplitInfo(f"drivingstereo.{name}", "drivingstereo", count, protocol, about, on_disk=True)


SPLITS: dict[str, SplitInfo] = {
    info.name: info
    for info in (
        _k(
            "eigen_test", 697, "kitti-eigen", "Eigen test: 697 left images of 28 drives, 652 with improved ground truth"
        ),
        _k("eigen_benchmark", 652, "kitti-eigen-benchmark", "Eigen test without the 45 images that have no map"),
        _k("eigen_benchmark_val161", 161, "kitti-eigen", "those of the 652 on official val drives (MiDaS, DPT)"),
        _k("eigen_train", 23158, "", "supervised Eigen training list (BTS, AdaBins, NeWCRFs)"),
        _k("eigen_full.train", 45200, "", "Godard's stereo training list, both cameras"),
        _k("eigen_full.val", 1776, "", "Godard's validation list, both cameras"),
        _k("eigen_zhou.train", 39810, "", "Zhou's training list without static frames, both cameras"),
        _k("eigen_zhou.val", 4424, "", "Zhou's validation list; shares stereo partners with its train list"),
        _k("eigen_zhou.test_700", 700, "kitti-mdb", "700 images of Zhou's validation list (monodepth_benchmark)"),
        _k("kitti_benchmark_moving.train", 72084, "", "moving frames of official train drives (Monodepth2 benchmark)"),
        _k("kitti_benchmark_moving.val", 6060, "", "moving frames of official val drives"),
        _k("kitti_benchmark_moving.eigen_benchmark_train", 71633, "", "the same without Eigen's left test images"),
        _k("kitti_benchmark_moving.eigen_benchmark_val", 5915, "", "the same without Eigen's left test images"),
        _k("kitti_official.train", 85898, "", "official train drives, every frame with a map on disk", on_disk=True),
        _k("kitti_official.val", 6852, "kitti-official", "official val drives, every frame with a map"),
        _k("kitti_official.val_selection", 1000, "kitti-official", "the devkit's 1,000 cropped validation images"),
        _k("kitti_official.test", 500, "", "anonymous test images of depth prediction; truth on the server only"),
        _k("kitti_official.completion_test", 1000, "", "anonymous test images of depth completion"),
        _d("train", 174437, "", "38 sequences, half resolution (the site also prints 174,431)"),
        _d("test", 7751, "drivingstereo", "4 sequences"),
        _d("weather.sunny", 500, "drivingstereo-weather", "one training sequence"),
        _d("weather.cloudy", 500, "drivingstereo-weather", "one training sequence"),
        _d("weather.foggy", 500, "drivingstereo-weather", "one training sequence"),
        _d("weather.rainy", 500, "drivingstereo-weather", "one training sequence"),
        _d("adu_train", 7000, "", "7,000 pairs by adubench's digest rule (the paper's choice is unpublished)"),
        _d("adu_test", 600, "drivingstereo", "600 images by adubench's digest rule"),
        SplitInfo("synthdrive.train", "synthdrive", None, "", "training drives of a SynthDrive root", True),
        SplitInfo("synthdrive.val", "synthdrive", None, "synthdrive", "validation drives of a SynthDrive root", True),
        SplitInfo("synthdrive.test", "synthdrive", None, "synthdrive", "test drives of a SynthDrive root", True),
        SplitInfo("nyu", "nyu", 654, "nyu", "NYU Depth v2 test images in the layout of BTS", True),
        SplitInfo("nyu_train", "nyu", None, "", "NYU Depth v2 training images, BTS's folder sync", True),
    )
}

#: Short names of the command line.
ALIASES: dict[str, str] = {
    "eigen": "eigen_test",
    "official": "kitti_official.val_selection",
    "drivingstereo": "drivingstereo.test",
    "synthdrive": "synthdrive.test",
    "nyu_test": "nyu",
}


def resolve_name(name: str) -> str:
    """Return the full name of a split.

    Raises:
        UsageError: there is no such split; the message has the close matches.
    """
    full = ALIASES.get(name, name)
    if full not in SPLITS:
        raise unknown_name(
            "split", name, [*SPLITS, *ALIASES], hint="A path to a list file works too; see adubench data list."
        )
    return full


def looks_like_list(name: str) -> bool:
    """Say whether `--split NAME` means a file: it exists, or it is written like a path."""
    if name in SPLITS or name in ALIASES:
        return False
    return Path(name).is_file() or "/" in name or "\\" in name or name.endswith((".txt", ".csv"))


def load_split(name: str, root: str | Path | None = None, *, resolution: str | None = None) -> Split:
    """Expand a split by name or alias, or read it from a list file.

    Args:
        name: a name of `SPLITS`, an alias, or the path of a list file.
        root: data root, for splits that only the files on disk define (SynthDrive, DrivingStereo, NYU,
            `kitti_official.train`).
        resolution: "half", "full" or None (full for the weather sets where it exists), for DrivingStereo.

    Raises:
        UsageError: unknown name, or a root is needed and missing.
        DataError: the list file or the root cannot be used, or a packaged table is damaged.
    """
    if looks_like_list(name):
        return _split_from_list(Path(name))
    info = SPLITS[resolve_name(name)]
    if info.dataset == "kitti":
        return _kitti_split(info, root)
    return _disk_split(info, root, resolution)


def key_text(frames: Iterable[FrameKey]) -> bytes:
    """Write keys the way the checksums of the tables are defined: one `<drive> <frame> <side>` line each."""
    lines = [f"{f.drive} {f.index:010d} {f.side}\n" if f.dataset == "kitti" else f"{f.name}\n" for f in frames]
    return "".join(lines).encode()


def checksum(frames: Iterable[FrameKey], *, ordered: bool = False) -> str:
    """SHA-256 of the keys as a set, or in the given order."""
    keys = list(frames) if ordered else sorted(set(frames))
    return hashlib.sha256(key_text(keys)).hexdigest()


def _kitti_split(info: SplitInfo, root: str | Path | None) -> Split:
    if info.name == "kitti_official.train":
        frames, notes = kitti_splits.official_train_frames(root)
        return Split(info.name, frames, info.count, checksum(frames), info.default_protocol, notes=notes)
    expansion = kitti_splits.expand_split(info.name)
    digest = checksum(expansion.frames)
    wrong_order = expansion.sha256_order and checksum(expansion.frames, ordered=True) != expansion.sha256_order
    wrong_set = expansion.sha256_set is not None and digest != expansion.sha256_set
    if len(expansion.frames) != info.count or wrong_set or wrong_order:
        raise DataError(f"the packaged table of split '{info.name}' is damaged: install adubench again.")
    return Split(info.name, expansion.frames, info.count, digest, info.default_protocol, expansion.no_gt)


def _disk_split(info: SplitInfo, root: str | Path | None, resolution: str | None) -> Split:
    from adubench.errors import UsageError

    if root is None:
        raise UsageError(
            f"split '{info.name}' is defined by the files on disk: give --data-root DIR or set ADUBENCH_DATA_ROOT."
        )
    if info.dataset == "synthdrive":
        from adubench.datasets.kitti import synthdrive_frames

        frames, no_gt = synthdrive_frames(Path(root), info.name.split(".")[1])
        return Split(info.name, frames, len(frames), checksum(frames), info.default_protocol, no_gt, info.dataset)
    if info.dataset == "nyu":
        from adubench.datasets.nyu import nyu_frames, part_root

        frames = nyu_frames(part_root(Path(root), info.name))
        return Split(info.name, frames, info.count, checksum(frames), info.default_protocol, dataset=info.dataset)
    from adubench.datasets.driving_stereo import split_frames

    part = info.name.removeprefix("drivingstereo.")
    frames, known, notes = split_frames(Path(root), part, resolution)
    count = info.count if known else len(frames)
    if part == "train" and len(frames) == kitti_splits.drivingstereo_alternative():
        count = len(frames)
    return Split(info.name, frames, count, checksum(frames), info.default_protocol, dataset=info.dataset, notes=notes)


def _split_from_list(path: Path) -> Split:
    from adubench.datasets.list_files import read_list

    listed = read_list(path)
    frames = listed.frames()
    kitti = all(frame.dataset == "kitti" for frame in frames)
    no_gt = frozenset(f for f, s in zip(frames, listed.samples, strict=True) if s.declared_missing)
    paths = {} if kitti else {f: s.gt for f, s in zip(frames, listed.samples, strict=True) if s.gt}
    dataset = "kitti" if kitti else "folder"
    return Split(str(path), frames, len(frames), checksum(frames), "", no_gt, dataset, listed.notes, paths)
