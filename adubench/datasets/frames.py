"""One key per frame. It joins images, ground truth, predictions, per-image results and the cluster for statistics."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

# spec kitti_data.md section 6 step 4: a path of KITTI raw, of KITTI depth, or a val_selection file name.
_RAW_PATH = re.compile(
    r"(?:^|/)(?P<drive>\d{4}_\d\d_\d\d_drive_\d{4})(?:_sync)?/(?:proj_depth/(?:groundtruth|velodyne_raw)/)?"
    r"image_0(?P<camera>[23])/(?:data/)?(?P<index>\d{10})(?:\.\w+)?$"
)
_SELECTION_NAME = re.compile(
    r"(?:^|/)(?P<drive>\d{4}_\d\d_\d\d_drive_\d{4})_sync_(?:image|groundtruth_depth|velodyne_raw)"
    r"_(?P<index>\d{10})_image_0(?P<camera>[23])(?:\.\w+)?$"
)
_FLAT_NAME = re.compile(r"(?:^|/)(?P<drive>\d{4}_\d\d_\d\d_drive_\d{4})(?:_sync)?_(?P<index>\d{10})(?:\.\w+)?$")
_DRIVINGSTEREO_STEM = re.compile(r"^(?P<drive>\d{4}(?:-\d\d){5})_\d{4}(?:-\d\d){5}-\d{3}$")


@dataclass(frozen=True, slots=True, order=True)
class FrameKey:
    """Identity of a frame.

    Attributes:
        dataset: "kitti", "drivingstereo", "folder", ...
        drive: the cluster for statistics: KITTI drive without `_sync`, DrivingStereo sequence, else the folder.
        index: frame number in the drive (KITTI), else 0.
        camera: 2 or 3 (KITTI), else 0.
        stem: path below the root without extension, for data sets whose frames have no number.
    """

    dataset: str
    drive: str
    index: int = 0
    camera: int = 0
    stem: str = ""

    @property
    def name(self) -> str:
        """The `frame` column of results (contract.md section 4)."""
        if self.dataset == "kitti":
            return f"{self.drive}_sync/image_0{self.camera}/{self.index:010d}"
        return self.stem

    @property
    def side(self) -> str:
        """`l` for camera 2, `r` for camera 3, `` for anything else."""
        return {2: "l", 3: "r"}.get(self.camera, "")


def kitti_frame(drive: str, index: int, camera: int = 2) -> FrameKey:
    """Build the key of a KITTI frame; `drive` with or without `_sync`."""
    return FrameKey("kitti", drive.removesuffix("_sync"), index, camera)


def parse_kitti(path: str) -> FrameKey | None:
    """Find drive, camera and frame in a KITTI path or file name; None when there are none."""
    for pattern in (_RAW_PATH, _SELECTION_NAME):
        match = pattern.search(path)
        if match:
            return FrameKey("kitti", match["drive"], int(match["index"]), int(match["camera"]))
    match = _FLAT_NAME.search(path)
    return FrameKey("kitti", match["drive"], int(match["index"]), 2) if match else None


def frame_from_stem(stem: str, dataset: str = "folder") -> FrameKey:
    """Build the key of a file that is paired by its relative stem; the drive is parsed where the name has one."""
    kitti = parse_kitti(stem)
    if kitti is not None:
        return FrameKey(dataset, kitti.drive, kitti.index, kitti.camera, stem)
    name = PurePosixPath(stem)
    sequence = _DRIVINGSTEREO_STEM.match(name.name)
    drive = sequence["drive"] if sequence else str(name.parent) if str(name.parent) != "." else ""
    return FrameKey(dataset, drive, 0, 0, stem)
