"""Focal lengths of training images, for networks that scale their depth by them (BTS)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from adubench.datasets.frame_inputs import KittiPlaces
from adubench.errors import counted

if TYPE_CHECKING:
    from adubench.datasets.training_frames import TrainingFrames

DEFAULT_FOCAL = 715.0873
"""Pixels; BTS's reference, which leaves the depth unscaled."""


def focal_lengths(frames: TrainingFrames, data_root: Path | None) -> tuple[dict[str, float], tuple[str, ...]]:
    """Find the focal length of every frame.

    A list file's third column comes first, then the calibration of the drive's date (file, else KITTI's constants).

    Args:
        frames: of the run.
        data_root: holds calibration files.

    Returns:
        Frame name -> pixels, and a sentence about frames that take `DEFAULT_FOCAL` because nothing is known of them.
    """
    listed = _listed(frames.split)
    places = KittiPlaces(data_root or Path())
    found: dict[str, float] = {}
    unknown: list[str] = []
    for frame in frames.frames:
        focal = listed.get(frame.name)
        if focal is None:
            K = places.intrinsics(frame.key)
            focal = None if K is None else float(K[0, 0])
        if focal is None:
            unknown.append(frame.name)
        found[frame.name] = DEFAULT_FOCAL if focal is None else focal
    if not unknown:
        return found, ()
    return found, (
        f"{counted(len(unknown), 'frame')} without a known focal length (first {unknown[0]}): {DEFAULT_FOCAL} pixels "
        "are taken, which leaves their depth unscaled.",
    )


def _listed(split: str) -> dict[str, float]:
    from adubench.datasets.list_files import read_list
    from adubench.datasets.splits import looks_like_list

    if split == "folder" or not looks_like_list(split):
        return {}
    return {s.frame().name: s.focal for s in read_list(split).samples if s.focal is not None}
