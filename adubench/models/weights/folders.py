"""Official folders of the self-supervised families: Monodepth2, HR-Depth, DIFFNet, SUB-Depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adubench.models.weights.official_networks import detect_family, import_folder

if TYPE_CHECKING:
    from pathlib import Path

    from adubench.models.weights import Imported


def detect(source: object, *, family: str) -> bool:
    """Tell whether a folder (its path) or a loaded file is of a family."""
    return detect_family(source) == family


def import_weights(path: Path, *, family: str, max_depth: float | None = None, dataset: str = "kitti") -> Imported:
    """Read the folder with `encoder.pth` and `depth.pth`, or one of the two files.

    Args:
        path: the folder or file.
        family: `monodepth2`, `hr-depth`, `hr-depth-lite`, `diffnet` or `sub-depth` (two channels per head, any base).
        max_depth: far end of the depth range in metres, None for 100.
        dataset: not used; the range is the same for all.

    Raises:
        CheckpointError: unreadable, incomplete, or of another family.
    """
    return import_folder(path, family, max_depth)
