"""NYU Depth v2 as prepared for BTS: `rgb_*.jpg` and `sync_depth_*.png` (millimetres) in one folder per scene."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adubench.datasets.frames import FrameKey
from adubench.errors import DataError
from adubench.io.maps import SparseDepth

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from adubench.datasets.list_files import Sample
    from adubench.datasets.stereo_pairs import Flip, FrameFiles
    from adubench.datasets.transforms import Codes, Image8

#: metres = PNG code / 1000
DEPTH_SCALE = 1000.0


#: Where the parts lie below the folder that holds both, in BTS's layout.
_PARTS = {"nyu": ("official_splits/test", "test"), "nyu_train": ("sync", "train")}


def part_root(root: Path, split: str) -> Path:
    """Return the folder of a part: its own folder below `root` where there is one, else `root` itself."""
    folders = (root / name for name in _PARTS.get(split, ()))
    return next((folder for folder in folders if folder.is_dir()), root)


def list_root(root: Path, samples: Sequence[Sample]) -> Path:
    """Return where the paths of a list start: BTS's training lists leave the folder `sync` out."""
    folder = part_root(root, "nyu_train")
    return root if folder == root or not samples or (root / samples[0].image).is_file() else folder


@dataclass(frozen=True, slots=True)
class NyuWindow:
    """A training frame cut to rows 45:472 and columns 43:608 (a `stereo_pairs.FrameFiles`)."""

    files: FrameFiles

    @property
    def name(self) -> str:
        """The frame's name."""
        return self.files.name

    @property
    def flip(self) -> Flip:
        """Rule of the frame."""
        return self.files.flip

    @property
    def stereo(self) -> bool:
        """Never: NYU has one camera."""
        return False

    @property
    def kitti(self) -> bool:
        """Never."""
        return False

    @property
    def scale(self) -> float:
        """Codes per metre."""
        return self.files.scale

    @property
    def window(self) -> tuple[int, int] | None:
        """None: all frames have one size."""
        return None

    def image(self) -> Image8:
        """Read and cut the image."""
        return _cut(self.files.image())

    def right(self) -> Image8:
        """Never asked for."""
        raise AssertionError("NYU has one camera")

    def codes(self) -> Codes:
        """Read and cut the depth map."""
        return _cut(self.files.codes())

    def right_codes(self) -> Codes:
        """Never asked for."""
        raise AssertionError("NYU has one camera")


def _cut(array: NDArray[Any]) -> NDArray[Any]:
    from adubench.datasets.tie_kd_transforms import cut_window

    return cut_window(array, "nyu")


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
    def open(cls, root: Path, split: str = "nyu") -> NyuGroundTruth:
        """List the maps of a part (`nyu`: the test images) below a root."""
        root = part_root(root, split)
        return cls(nyu_frames(root), root)

    def paths(self, frame: FrameKey) -> tuple[Path, ...]:
        """Return the PNG of a frame."""
        image = Path(frame.stem)
        return (self.root / image.parent / f"sync_depth_{image.name.removeprefix('rgb_')}.png",)

    def read(self, frame: FrameKey) -> SparseDepth:
        """Decode the PNG of a frame."""
        from adubench.io.depth_png import read_depth_map

        return SparseDepth.from_map(read_depth_map(self.paths(frame)[0], DEPTH_SCALE))
