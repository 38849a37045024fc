"""NYU Depth v2 as prepared for BTS: `rgb_*.jpg` and `sync_depth_*.png` (millimetres) in one folder per scene."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from adubench.datasets.frames import FrameKey
from adubench.errors import DataError
from adubench.io.maps import SparseDepth

#: metres = PNG code / 1000
DEPTH_SCALE = 1000.0


def nyu_frames(root: Path) -> tuple[FrameKey, ...]:
    """List the frames below a root; the stem is that of the image (`bathroom/rgb_00045`), the drive is the scene.

    Raises:
        DataError: no depth map there.
    """
    if not root.is_dir():
        raise DataError(f"data root not found: {root}; give --data-root or --gt.")
    found = []
    for folder, subfolders, names in os.walk(root, followlinks=True):
        subfolders.sort()
        relative = Path(folder).relative_to(root)
        for name in sorted(names):
            if name.startswith("sync_depth_") and name.endswith(".png"):
                stem = (relative / f"rgb_{name[11:-4]}").as_posix()
                found.append(FrameKey("nyu", relative.as_posix() if relative.parts else "", 0, 0, stem))
    if not found:
        raise DataError(
            f"no sync_depth_*.png under {root}; expected BTS's layout, e.g. {root}/bathroom/rgb_00045.jpg beside "
            "sync_depth_00045.png."
        )
    return tuple(sorted(found))


@dataclass(slots=True)
class NyuGroundTruth:
    """The depth maps of NYU's test images."""

    frames: tuple[FrameKey, ...]
    root: Path
    missing: tuple[str, ...] = ()
    kind: str = "NYU depth PNG"
    layout: str = "BTS"

    @classmethod
    def open(cls, root: Path) -> NyuGroundTruth:
        """List the maps below a root."""
        return cls(nyu_frames(root), root)

    def paths(self, frame: FrameKey) -> tuple[Path, ...]:
        """Return the PNG of a frame."""
        image = Path(frame.stem)
        return (self.root / image.parent / f"sync_depth_{image.name.removeprefix('rgb_')}.png",)

    def read(self, frame: FrameKey) -> SparseDepth:
        """Decode the PNG of a frame."""
        from adubench.io.depth_png import read_depth_map

        return SparseDepth.from_map(read_depth_map(self.paths(frame)[0], DEPTH_SCALE))
