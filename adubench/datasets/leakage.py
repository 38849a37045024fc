"""Does an evaluation split share frames or drives with what a model was trained on?

The two splits of KITTI depth cross: official training drives hold 522 of the 697 Eigen test images, and the Eigen
training list holds 103 of the 1,000 val_selection images. A number across that line is not a test result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adubench.datasets.kitti_splits import all_drives, has_improved_map, official_val_drives
from adubench.datasets.splits import Split, load_split, looks_like_list, resolve_name

if TYPE_CHECKING:
    from pathlib import Path

    from adubench.datasets.frames import FrameKey

#: How splits are called in sentences: (as training set, as evaluation set).
_TITLES = {
    "eigen_test": "Eigen test",
    "eigen_train": "Eigen training",
    "eigen_benchmark": "Eigen benchmark test",
    "eigen_full.train": "Eigen (full) training",
    "eigen_zhou.train": "Eigen-Zhou training",
    "kitti_official.train": "official training",
    "kitti_official.val": "official validation",
    "kitti_official.val_selection": "official val_selection",
}


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """What a model saw.

    Attributes:
        name: split name or list file.
        frames: its frames; empty when only the drives are known.
        drives: its drives.
        by_rule: every frame of the drives that has an improved map belongs to it (official training split).
    """

    name: str
    frames: frozenset[FrameKey]
    drives: frozenset[str]
    by_rule: bool = False

    def holds(self, frame: FrameKey) -> bool:
        """Say whether a frame is a training image."""
        if self.by_rule:
            return frame.drive in self.drives and has_improved_map(frame)
        return frame in self.frames


@dataclass(frozen=True, slots=True)
class Leakage:
    """The overlap of a training set and an evaluation split.

    Attributes:
        train: name of the training set.
        test: name of the evaluation split.
        n_test: images of the evaluation split.
        shared_frames: evaluation images that are training images, in split order.
        partners: evaluation images whose stereo partner (same drive and frame, other camera) is a training image while
            they are not.
        shared_drives: drives of both.
        on_shared_drives: evaluation images on those drives.
    """

    train: str
    test: str
    n_test: int
    shared_frames: tuple[FrameKey, ...]
    partners: tuple[FrameKey, ...]
    shared_drives: tuple[str, ...]
    on_shared_drives: int

    @property
    def any(self) -> bool:
        """Whether anything is shared."""
        return bool(self.shared_drives)

    def messages(self) -> tuple[str, ...]:
        """Say what is shared, one sentence each; empty when nothing is."""
        if not self.any:
            return ()
        train, test = _title(self.train), _title(self.test)
        out = [f"{self.on_shared_drives} of {self.n_test} {test} images lie on {train} drives"]
        if self.shared_frames:
            out.append(
                f"{len(self.shared_frames)} of {self.n_test} {test} images are {train} images (first: "
                f"{self.shared_frames[0].name})"
            )
        if self.partners:
            out.append(f"{len(self.partners)} more are stereo partners of {train} images")
        return tuple(out)

    def to_dict(self) -> dict[str, object]:
        """Return counts and names for JSON."""
        return {
            "train": self.train,
            "test": self.test,
            "images": self.n_test,
            "shared_images": len(self.shared_frames),
            "stereo_partners": len(self.partners),
            "images_on_shared_drives": self.on_shared_drives,
            "shared_drives": list(self.shared_drives),
        }


def _title(name: str) -> str:
    return _TITLES.get(name, f"'{name}'")


def training_set(name: str, root: str | Path | None = None) -> TrainingSet:
    """Load what a model was trained on: a split name, an alias, or a list file.

    `kitti_official.train` needs no data root here: its rule decides which frames belong to it.
    """
    if not looks_like_list(name) and resolve_name(name) == "kitti_official.train":
        return TrainingSet(
            "kitti_official.train", frozenset(), frozenset(all_drives()) - official_val_drives(), by_rule=True
        )
    return from_split(load_split(name, root))


def from_split(split: Split) -> TrainingSet:
    """Take the frames of a split as a training set."""
    return TrainingSet(split.name, frozenset(split.frames), frozenset(f.drive for f in split.frames))


def overlap(train: TrainingSet | Split, test: Split) -> Leakage:
    """Compare a training set with an evaluation split.

    Args:
        train: what the model saw.
        test: what it is scored on.
    """
    seen = from_split(train) if isinstance(train, Split) else train
    shared = tuple(frame for frame in test.frames if seen.holds(frame))
    known = frozenset(shared)
    partners = tuple(
        frame for frame in test.frames if frame.camera and frame not in known and seen.holds(_partner(frame))
    )
    drives = tuple(drive for drive in test.drives if drive and drive in seen.drives)
    on_drives = sum(frame.drive in set(drives) for frame in test.frames)
    return Leakage(seen.name, test.name, len(test.frames), shared, partners, drives, on_drives)


def _partner(frame: FrameKey) -> FrameKey:
    from dataclasses import replace

    return replace(frame, camera=5 - frame.camera)


def known_leaks(test: Split) -> tuple[Leakage, ...]:
    """Compare an evaluation split with the two training sets that KITTI models are published with.

    All other training lists of KITTI use drives of one of these two.

    Returns:
        The overlaps that are not empty, for `adubench data check`.
    """
    if test.dataset != "kitti":
        return ()
    found = (overlap(training_set(name), test) for name in ("kitti_official.train", "eigen_train") if name != test.name)
    return tuple(leak for leak in found if leak.any)
