"""One key per frame. It joins images, ground truth, predictions, per-image results and the cluster for statistics."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

# A path of KITTI raw or KITTI depth; a file name of the devkit's val_selection; a path flattened by TIE-KD.
_RAW_PATH = re.compile(
    r"(?:^|/)(?P<drive>\d{4}_\d\d_\d\d_drive_\d{4})(?:_sync)?/(?:proj_depth/(?:groundtruth|velodyne_raw)/)?"
    r"image_0(?P<camera>[23])/(?:data/)?(?P<index>\d{10})(?:\.\w+)?$"
)
_SELECTION_NAME = re.compile(
    r"(?:^|/)(?P<drive>\d{4}_\d\d_\d\d_drive_\d{4})_sync_(?:image|groundtruth_depth|velodyne_raw)"
    r"_(?P<index>\d{10})_image_0(?P<camera>[23])(?:\.\w+)?$"
)
_TIE_KD_NAME = re.compile(
    r"(?:^|/)\d{4}_\d\d_\d\d_(?P<drive>\d{4}_\d\d_\d\d_drive_\d{4})(?:_sync)?"
    r"_image_0(?P<camera>[23])_(?:data_)?(?P<index>\d{10})(?:\.\w+)?$"
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
    def date(self) -> str:
        """Recording date of a KITTI drive (`2011_09_26`), else ``."""
        return self.drive[:10] if self.camera else ""

    def aliases(self) -> tuple[str, ...]:
        """List the stems (relative, `/`, no extension) under which a prediction for this frame is accepted.

        The frame's own name comes first. For KITTI: the relative path with and without the date, `data/` and `_sync`
        parts, the path inside the depth archives, `<drive>[_sync]_<frame>` (left camera only, as it names no camera),
        the val_selection image and ground-truth names, and TIE-KD's flattened path. Frames of other data sets answer
        to their stem; DrivingStereo's also to `<sequence>/<stem>`.
        """
        if self.dataset == "drivingstereo":
            return (self.stem, f"{self.drive}/{self.stem}")
        if not self.camera:
            return (self.stem,)
        names = _kitti_aliases(self.drive, self.index, self.camera)
        return names if self.dataset == "kitti" else tuple(dict.fromkeys((self.stem, *names)))

    @property
    def side(self) -> str:
        """`l` for camera 2, `r` for camera 3, `` for anything else."""
        return {2: "l", 3: "r"}.get(self.camera, "")


def _kitti_aliases(drive: str, index: int, camera: int) -> tuple[str, ...]:
    """Build every accepted name of a KITTI frame, the canonical one first."""
    date, frame, cam = drive[:10], f"{index:010d}", f"image_0{camera}"
    names = [f"{drive}_sync/{cam}/{frame}"]
    for folder in (f"{drive}_sync", drive):
        for prefix in ("", f"{date}/"):
            names += [f"{prefix}{folder}/{cam}/{frame}", f"{prefix}{folder}/{cam}/data/{frame}"]
            names += [f"{prefix}{folder}/proj_depth/{kind}/{cam}/{frame}" for kind in ("groundtruth", "velodyne_raw")]
        if camera == 2:
            names.append(f"{folder}_{frame}")
        names += [f"{date}_{folder}_{cam}_data_{frame}", f"{date}_{folder}_{cam}_{frame}"]
    names += [f"{drive}_sync_image_{frame}_{cam}", f"{drive}_sync_groundtruth_depth_{frame}_{cam}"]
    return tuple(dict.fromkeys(names))


def kitti_frame(drive: str, index: int, camera: int = 2) -> FrameKey:
    """Build the key of a KITTI frame; `drive` with or without `_sync`."""
    return FrameKey("kitti", drive.removesuffix("_sync"), index, camera)


def parse_kitti(path: str) -> FrameKey | None:
    """Find drive, camera and frame in a KITTI path or file name; None when there are none."""
    for pattern in (_RAW_PATH, _SELECTION_NAME, _TIE_KD_NAME):
        match = pattern.search(path)
        if match:
            return FrameKey("kitti", match["drive"], int(match["index"]), int(match["camera"]))
    match = _FLAT_NAME.search(path)
    return FrameKey("kitti", match["drive"], int(match["index"]), 2) if match else None


def drivingstereo_frame(stem: str) -> FrameKey:
    """Build the key of a DrivingStereo frame from `<sequence>_<time stamp>`; the sequence is its first 19 letters."""
    return FrameKey("drivingstereo", stem[:19], 0, 0, stem)


def anonymous_frame(index: int) -> FrameKey:
    """Build the key of image `index` of KITTI's anonymous test sets (`%010d`, no drive is known)."""
    return FrameKey("kitti-anonymous", "", index, 0, f"{index:010d}")


def driving_stereo_stem(name: str) -> str | None:
    """Find a DrivingStereo frame's stem at the end of a path; None when there is none."""
    stem = PurePosixPath(name).name
    return stem if _DRIVINGSTEREO_STEM.match(stem) else None


def frame_from_stem(stem: str, dataset: str = "folder") -> FrameKey:
    """Build the key of a file that is paired by its relative stem; the drive is parsed where the name has one."""
    kitti = parse_kitti(stem)
    if kitti is not None:
        return FrameKey(dataset, kitti.drive, kitti.index, kitti.camera, stem)
    name = PurePosixPath(stem)
    sequence = _DRIVINGSTEREO_STEM.match(name.name)
    drive = sequence["drive"] if sequence else str(name.parent) if str(name.parent) != "." else ""
    return FrameKey(dataset, drive, 0, 0, stem)
