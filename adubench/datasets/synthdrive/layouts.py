"""Names and contents of the files of both layouts."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adubench.datasets.synthdrive.drive import CAMERAS, DriveFrame, boundaries, invert
from adubench.datasets.synthdrive.geometry import F64
from adubench.datasets.synthdrive.rig import Rig, drivingstereo_rig, kitti_rig
from adubench.datasets.synthdrive.world import World
from adubench.io.depth_png import encode_depth
from adubench.io.png import encode_grey16

Layout = Literal["kitti", "drivingstereo"]
DATE = "2031_01_01"


def drive_name(number: int, layout: Layout) -> str:
    """Name of drive `number` (from 1): `2031_01_01_drive_0001`, or the sequence `2031-01-01-08-00-01`."""
    if layout == "kitti":
        return f"{DATE}_drive_{number:04d}"
    minute, second = divmod(number, 60)
    return f"2031-01-01-{8 + minute // 60:02d}-{minute % 60:02d}-{second:02d}"


def split_of(number: int) -> str:
    """Split of drive `number` (from 1): test for 2, 6, 10, ..., val for 3, 7, 11, ..., train for the others."""
    return {2: "test", 3: "val"}.get(number % 4, "train")


def make_rig(size: tuple[int, int], layout: Layout) -> Rig:
    """The rig that a layout's data set has."""
    return kitti_rig(size) if layout == "kitti" else drivingstereo_rig(size)


def grey16(codes: NDArray[np.uint16]) -> bytes:
    """Encode codes as 16-bit PNG, with bytes that do not depend on optional packages."""
    return encode_grey16(codes, portable=True)


def png(array: NDArray[np.uint8]) -> bytes:
    """Encode an 8-bit grey or RGB picture."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def jpeg(array: NDArray[np.uint8]) -> bytes:
    """Encode an RGB picture with quality 95 and full chroma resolution."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class KittiLayout:
    """KITTI raw with the depth maps merged in, below one drive folder."""

    rig: Rig
    number: int

    def folders(self, world_root: Path, staging: Path) -> list[tuple[Path, Path]]:
        """(staged, final) folders of this drive; the last one marks the drive as complete."""
        name = f"{drive_name(self.number, 'kitti')}_sync"
        return [(staging / name, world_root / DATE / name)]

    def frame(self, frame: DriveFrame) -> dict[str, bytes]:
        """Files of a frame, by path below the staging folder."""
        drive, name = f"{drive_name(self.number, 'kitti')}_sync", f"{frame.number:010d}"
        out = {f"{drive}/velodyne_points/data/{name}.bin": frame.scan.astype("<f4").tobytes()}
        for camera in CAMERAS:
            view, eye = frame.views[camera], f"image_0{camera}"
            out[f"{drive}/{eye}/data/{name}.png"] = png(view.image)
            out[f"{drive}/dense_depth/{eye}/{name}.png"] = grey16(encode_depth(view.depth))
            out[f"{drive}/semantics/{eye}/{name}.png"] = grey16(view.things)
            out[f"{drive}/boundaries/{eye}/{name}.png"] = png(boundaries(view).astype(np.uint8) * np.uint8(255))
            if camera in frame.ground_truth:
                out[f"{drive}/proj_depth/groundtruth/{eye}/{name}.png"] = grey16(
                    encode_depth(frame.ground_truth[camera])
                )
                out[f"{drive}/proj_depth/velodyne_raw/{eye}/{name}.png"] = grey16(
                    encode_depth(frame.velodyne_raw[camera])
                )
        return out

    def drive(self, world: World) -> dict[str, bytes]:
        """Files of the drive as a whole."""
        first = invert(self.rig.camera_pose(world.poses[0], 2))
        rows = [first @ self.rig.camera_pose(pose, 2) for pose in world.poses]
        text = "".join(" ".join(f"{v:.9e}" for v in row[:3].reshape(-1)) + "\n" for row in rows)
        return {f"{drive_name(self.number, 'kitti')}_sync/poses.txt": text.encode()}

    def shared(self) -> dict[str, bytes]:
        """Files that all drives share, by path below the root."""
        files = {
            "cam_to_cam": _cam_to_cam(self.rig),
            "velo_to_cam": _rigid(self.rig.velo_rotation, self.rig.velo_shift),
        }
        files["imu_to_velo"] = _rigid(np.eye(3), np.array([-0.81, 0.32, -0.80]))
        return {f"{DATE}/calib_{name}.txt": text.encode() for name, text in files.items()}


@dataclass(frozen=True, slots=True)
class DrivingStereoLayout:
    """DrivingStereo at half size, one folder per sequence and modality."""

    rig: Rig
    number: int

    def _modalities(self) -> dict[str, str]:
        """Folder of each modality for this drive's part (training or testing)."""
        kinds = {"left": "left-image", "right": "right-image", "depth": "depth-map", "disparity": "disparity-map"}
        if split_of(self.number) == "test":
            return {key: f"test-{kind}/{kind}-half-size" for key, kind in kinds.items()}
        return {key: f"train-{kind}" for key, kind in kinds.items()}

    def folders(self, world_root: Path, staging: Path) -> list[tuple[Path, Path]]:
        """(staged, final) folders of this drive; the last one marks the drive as complete."""
        name = drive_name(self.number, "drivingstereo")
        return [(staging / key, world_root / folder / name) for key, folder in self._modalities().items()]

    def frame(self, frame: DriveFrame) -> dict[str, bytes]:
        """Files of a frame, by path below the staging folder."""
        name = drive_name(self.number, "drivingstereo")
        seconds, tenths = divmod(frame.number, 10)
        minutes, second = divmod(seconds, 60)
        stem = f"{name}_2031-01-01-{8 + minutes // 60:02d}-{minutes % 60:02d}-{second:02d}-{tenths}00"
        depth = frame.ground_truth[2]
        strength = np.float32(self.rig.fx * self.rig.baseline_m)
        disparity = np.where(depth > 0, strength / np.maximum(depth, np.float32(1e-3)), 0).astype(np.float32)
        return {
            f"left/{stem}.jpg": jpeg(frame.views[2].image),
            f"right/{stem}.jpg": jpeg(frame.views[3].image),
            f"depth/{stem}.png": grey16(encode_depth(depth)),
            f"disparity/{stem}.png": grey16(encode_depth(disparity)),
        }

    def drive(self, world: World) -> dict[str, bytes]:
        """Files of the drive as a whole: none."""
        return {}

    def shared(self) -> dict[str, bytes]:
        """Files outside the sequence's folders, by path below the root."""
        part = "test-calib" if split_of(self.number) == "test" else "calib"
        text = _calib_103(self.rig)
        return {f"{part}/half-image-calib/{drive_name(self.number, 'drivingstereo')}.txt": text.encode()}


def make_layout(layout: Layout, rig: Rig, number: int) -> KittiLayout | DrivingStereoLayout:
    """Choose the layout of a drive."""
    return KittiLayout(rig, number) if layout == "kitti" else DrivingStereoLayout(rig, number)


def folder_checksum(folders: list[Path]) -> str:
    """SHA-256 over the names and contents of all files of a drive."""
    digest = hashlib.sha256()
    for number, folder in enumerate(folders):
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            digest.update(f"{number}/{path.relative_to(folder).as_posix()}\n".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _numbers(values: F64) -> str:
    return " ".join(f"{v:.12e}" for v in np.asarray(values, float).reshape(-1))


def _rigid(rotation: F64, shift: F64) -> str:
    return f"calib_time: 01-Jan-2031 08:00:00\nR: {_numbers(rotation)}\nT: {_numbers(shift)}\n"


def _camera_lines(rig: Rig, name: str, camera: int, rect: F64, shift: F64) -> list[str]:
    size = np.array([rig.size[1], rig.size[0]], float)
    return [
        f"S_{name}: {_numbers(size)}",
        f"K_{name}: {_numbers(rig.K)}",
        f"D_{name}: {_numbers(np.zeros(5))}",
        f"R_{name}: {_numbers(np.eye(3))}",
        f"T_{name}: {_numbers(shift)}",
        f"S_rect_{name}: {_numbers(size)}",
        f"R_rect_{name}: {_numbers(rect)}",
        f"P_rect_{name}: {_numbers(rig.projection(camera))}",
    ]


def _cam_to_cam(rig: Rig) -> str:
    """Calibration of the reference camera (00) and of the colour pair, in KITTI's format."""
    lines = ["calib_time: 01-Jan-2031 08:00:00", "corner_dist: 9.950000e-02"]
    reference = Rig(rig.size, rig.fx, rig.fy, rig.cx, rig.cy, {2: np.zeros(3), 3: np.zeros(3)}, rig.rect,
                    rig.velo_rotation, rig.velo_shift)  # fmt: skip
    lines += _camera_lines(reference, "00", 2, rig.rect, np.zeros(3))
    for camera in CAMERAS:
        lines += _camera_lines(rig, f"0{camera}", camera, rig.rect, rig.shift[camera])
    return "\n".join(lines) + "\n"


def _calib_103(rig: Rig) -> str:
    """Calibration of cameras 101 and 103, relative to the left one."""
    base = rig.shift[2]
    pair = Rig(rig.size, rig.fx, rig.fy, rig.cx, rig.cy, {2: np.zeros(3), 3: rig.shift[3] - base}, np.eye(3),
               rig.velo_rotation, rig.velo_shift)  # fmt: skip
    lines = _camera_lines(pair, "101", 2, np.eye(3), np.zeros(3)) + _camera_lines(
        pair, "103", 3, np.eye(3), pair.shift[3]
    )
    return "\n".join(lines) + "\n"
