"""Which files a training run reads: found and counted before the first step, so that nothing is missing in the middle.

Frames without right image or ground truth leave stereo lists here and are counted. A reference view is always the left
camera: a right frame as reference would turn the sign of disparity.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from adubench.datasets.training_places import (
    BY_DESIGN,
    DECLARED,
    EXPECTED,
    NO_IMAGE,
    NO_RIGHT,
    NO_RIGHT_TRUTH,
    NO_TRUTH,
    RIGHT_CAMERA,
    explain_first,
    open_places,
    scale_of,
)
from adubench.errors import DataError, UsageError, counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adubench.datasets.frames import FrameKey
    from adubench.datasets.stereo_pairs import Flip
    from adubench.datasets.training_packing import PackedFrame
    from adubench.datasets.training_places import Places
    from adubench.datasets.transforms import Codes, FlipRule, Image8

GroundTruthKind = Literal["improved", "raw", "depth"]


@dataclass(frozen=True, slots=True)
class TrainingFrame:
    """The files of one frame (a `stereo_pairs.FrameFiles`).

    Attributes:
        key: identity of the frame.
        image_path: the image.
        right_path: the right image, for stereo lists.
        codes_path: 16-bit ground truth.
        right_codes_path: ground truth of the right view, where it exists.
        flip: rule of this frame.
        scale: metres = code / scale.
        window: common size of the list's images, for mode "resize", or None.
    """

    key: FrameKey
    image_path: Path
    codes_path: Path
    right_path: Path | None = None
    right_codes_path: Path | None = None
    flip: Flip = "single"
    scale: float = 256.0
    window: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """The frame's name in results."""
        return self.key.name

    @property
    def stereo(self) -> bool:
        """Whether the right view belongs to the sample."""
        return self.right_path is not None

    @property
    def kitti(self) -> bool:
        """Whether KITTI's window applies."""
        return self.key.dataset == "kitti"

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files of the frame."""
        every = (self.image_path, self.right_path, self.codes_path, self.right_codes_path)
        return tuple(path for path in every if path is not None)

    def image(self) -> Image8:
        """Read the image."""
        return _image(self.image_path)

    def right(self) -> Image8:
        """Read the right image."""
        assert self.right_path is not None
        return _image(self.right_path)

    def codes(self) -> Codes:
        """Read the ground truth."""
        return _codes(self.codes_path)

    def right_codes(self) -> Codes:
        """Read the right view's ground truth."""
        assert self.right_codes_path is not None
        return _codes(self.right_codes_path)


@dataclass(slots=True)
class Dropped:
    """Frames that left the list: how many for which reason, and the first name of each."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, name: str) -> None:
        """Count a frame."""
        self.counts[reason] += 1
        self.first.setdefault(reason, name)

    def sentences(self) -> tuple[str, ...]:
        """Say it, one sentence per reason."""
        return tuple(
            f"{counted(n, 'frame')} left out: {reason} (first {self.first[reason]})"
            for reason, n in self.counts.items()
        )


@dataclass(frozen=True, slots=True)
class TrainingFrames:
    """The list that a run trains on.

    Attributes:
        split: name of the split or list file.
        dataset: "kitti", "drivingstereo", "synthdrive", "nyu" or "folder".
        stereo: whether samples are pairs.
        flip: what `auto` became: "single", "swap", "joint" or "none".
        ground_truth: kind of the maps.
        frames: in the order of the split.
        dropped: what was left out, and why.
        listed: frames of the split before anything was left out.
    """

    split: str
    dataset: str
    stereo: bool
    flip: Flip
    ground_truth: str
    frames: tuple[TrainingFrame | PackedFrame, ...]
    dropped: Dropped
    listed: int

    @property
    def left_out(self) -> tuple[str, ...]:
        """Sentences about frames that were left out."""
        return self.dropped.sentences()

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the frames."""
        return tuple(frame.name for frame in self.frames)

    @property
    def sha256(self) -> str:
        """Digest of the frame names in order: part of the data fingerprint."""
        return hashlib.sha256("\n".join(self.names).encode()).hexdigest()

    def describe(self) -> str:
        """Say in one line what was found."""
        kind = f"stereo pairs, flips by rule {self.flip}" if self.stereo else "images"
        return f"{self.split}: {len(self.frames)} of {self.listed} frames ({kind}; {self.ground_truth})"


def training_frames(
    split: str,
    data_root: str | Path | None,
    *,
    gt_root: str | Path | None = None,
    stereo: bool = False,
    flip_rule: FlipRule = "auto",
    gt_kind: GroundTruthKind = "improved",
    right_root: str | Path | None = None,
    resolution: str | None = None,
    allow_missing: bool = False,
) -> TrainingFrames:
    """Find the files of every frame of a training list.

    Args:
        split: a split, a list file, or a folder of images (then `gt_root` has maps of the same names).
        data_root: where the images lie.
        gt_root: where the maps lie, when not below `data_root`.
        stereo: samples are pairs.
        flip_rule: of pairs; "auto" is `swap` for frames whose right view has ground truth and `none` for the others.
        gt_kind: "improved" (accumulated maps), "raw" (`velodyne_raw` PNGs) or "depth" (dense maps: SynthDrive's exact
            ones, and all that DrivingStereo, NYU and folders have).
        right_root: folder of right images, for folders.
        resolution: of DrivingStereo.
        allow_missing: leave frames without files out (counted) in lists of single images too.

    Raises:
        UsageError: unknown split, or no root.
        DataError: nothing to train on: an empty split, no image, no ground truth, no right image; one sentence that
            names the first missing file and the likely cause.
    """
    if flip_rule not in ("auto", "swap", "joint", "none"):
        raise UsageError(f"unknown flip rule '{flip_rule}': choose auto, swap, joint or none.")
    root = Path(data_root) if data_root is not None else None
    if root is None:
        raise UsageError(f"training on '{split}' needs its images: give --data-root DIR or set ADUBENCH_DATA_ROOT.")
    if not root.is_dir():
        raise DataError(f"data root not found: {root}; check --data-root.")
    gt = Path(gt_root) if gt_root is not None else None
    if gt is not None and not gt.is_dir():
        raise DataError(f"ground-truth root not found: {gt}; check --gt.")
    right = Path(right_root) if right_root is not None else None
    places = open_places(split, root, gt, gt_kind, right, resolution)
    return _choose(places, stereo, flip_rule, allow_missing)


def _choose(places: Places, stereo: bool, flip_rule: FlipRule, allow_missing: bool) -> TrainingFrames:
    if not places.keys:
        raise DataError(f"split '{places.split}' has no frames: choose another --set data.train, or make the data.")
    dropped, kept = Dropped(), []
    for key in places.keys:
        reason, frame = _one(places, key, stereo, flip_rule)
        if frame is not None:
            kept.append(frame)
        elif reason in EXPECTED or stereo or allow_missing:
            dropped.add(reason, key.name)
        else:
            raise DataError(explain_first(places, key, reason))
    if not kept:
        worst = max(dropped.counts, key=lambda r: (r not in EXPECTED, dropped.counts[r]))
        first = next(k for k in places.keys if k.name == dropped.first[worst])
        count = dropped.counts[worst]
        raise DataError(explain_first(places, first, worst, f"no frame of '{places.split}' is left ({count} of them)"))
    rules = {frame.flip for frame in kept}
    flip: Flip = "swap" if "swap" in rules else next(iter(rules))
    return TrainingFrames(
        places.split, places.dataset, stereo, flip, places.kind, _common(kept), dropped, len(places.keys)
    )


def _one(places: Places, key: FrameKey, stereo: bool, rule: FlipRule) -> tuple[str, TrainingFrame | None]:
    """Find the files of a frame, or say why it cannot be used."""
    if key in places.no_gt:
        return (DECLARED if places.dataset in ("folder", "nyu") else BY_DESIGN), None
    if stereo and key.camera == 3:
        return RIGHT_CAMERA, None
    image = places.image(key)
    if image is None:
        return NO_IMAGE, None
    codes = places.codes(key)
    if codes is None:
        return NO_TRUTH, None
    if not stereo:
        # One view has nothing to swap: every rule but `none` is a plain flip.
        return "", TrainingFrame(key, image, codes, flip="none" if rule == "none" else "single", scale=scale_of(codes))
    right = places.right(key)
    if right is None:
        return NO_RIGHT, None
    other = places.right_codes(key) if rule in ("auto", "swap") else None
    if rule == "swap" and other is None:
        return NO_RIGHT_TRUTH, None
    flip: Flip = ("swap" if other is not None else "none") if rule == "auto" else rule
    return "", TrainingFrame(key, image, codes, right, other, flip, scale_of(codes))


def _common(frames: Sequence[TrainingFrame]) -> tuple[TrainingFrame, ...]:
    """Give frames of unequal sizes the size that all of them contain; one image per drive is looked at."""
    from dataclasses import replace

    from adubench.io.images import image_size

    first = {frame.key.drive: frame for frame in reversed(frames)}
    sizes = {image_size(frame.image_path) for frame in first.values()}
    if len(sizes) == 1:
        return tuple(frames)
    window = min(h for h, _ in sizes), min(w for _, w in sizes)
    return tuple(replace(frame, window=window) for frame in frames)


def _image(path: Path) -> Image8:
    from adubench.io.images import read_rgb

    return read_rgb(path)


def _codes(path: Path) -> Codes:
    from adubench.io.depth_png import read_depth_map

    return read_depth_map(path).values
