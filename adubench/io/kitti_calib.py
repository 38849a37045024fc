"""Calibration files: KITTI raw and DrivingStereo (`key: values` text)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import DataError
from adubench.io.depth_png import read_bytes

Matrix = NDArray[np.float64]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KittiCalibration:
    """The calibration of one recording day, float64.

    Attributes:
        P_rect_02: [3, 4] projection of the left colour camera after rectification, pixels.
        P_rect_03: [3, 4] the same of the right colour camera.
        R_rect_00: [3, 3] rectifying rotation of camera 0.
        S_rect_02: [2] width and height of the rectified image.
        R: [3, 3] rotation velodyne -> camera 0.
        T: [3] translation velodyne -> camera 0, metres.
    """

    P_rect_02: Matrix
    P_rect_03: Matrix
    R_rect_00: Matrix
    S_rect_02: Matrix
    R: Matrix
    T: Matrix

    @property
    def fx(self) -> float:
        """Focal length along columns, pixels."""
        return float(self.P_rect_02[0, 0])

    @property
    def fy(self) -> float:
        """Focal length along rows, pixels."""
        return float(self.P_rect_02[1, 1])

    @property
    def cx(self) -> float:
        """Principal point, column."""
        return float(self.P_rect_02[0, 2])

    @property
    def cy(self) -> float:
        """Principal point, row."""
        return float(self.P_rect_02[1, 2])

    @property
    def K(self) -> Matrix:  # noqa: N802 - the field's name
        """[3, 3] intrinsics in pixels; both colour cameras share them."""
        return self.P_rect_02[:, :3].copy()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the rectified images (S_rect_02 truncated)."""
        return int(self.S_rect_02[1]), int(self.S_rect_02[0])

    @property
    def baseline_m(self) -> float:
        """Distance of the colour cameras in metres, from both projections.

        P = K [I | t] has t_z in its last row, so t_x = (P[0, 3] - cx t_z) / fx; leaving t_z out is off by up to 2.5 mm.
        """
        return _translation_x(self.P_rect_02) - _translation_x(self.P_rect_03)

    def projection(self, camera: int) -> Matrix:
        """Return P_rect of camera 2 or 3.

        Raises:
            DataError: another camera.
        """
        if camera not in (2, 3):
            raise DataError(f"camera {camera}: expected 2 (left colour) or 3 (right colour).")
        return self.P_rect_02 if camera == 2 else self.P_rect_03


@dataclass(frozen=True, slots=True)
class StereoCalibration:
    """Rectified stereo pair of DrivingStereo, at the resolution of its calibration file.

    Attributes:
        fx: focal length along columns, pixels.
        fy: focal length along rows, pixels.
        cx: principal point, column.
        cy: principal point, row.
        baseline_m: distance of the cameras, metres.
        warning: a sentence when the two ways to compute the baseline disagree, else empty.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    baseline_m: float
    warning: str = ""


def read_calib_file(path: str | Path) -> dict[str, Matrix]:
    """Read `key: v1 v2 ...` lines; lines whose values are not all numbers (`calib_time`) are left out.

    Returns:
        float64 vectors by key, not reshaped. A repeated key keeps its last value.

    Raises:
        DataError: missing or not text.
    """
    raw = read_bytes(path, "calibration file")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"calibration file {path}: not a text file (byte {error.start}). Copy it again.") from None
    values: dict[str, Matrix] = {}
    for line in text.splitlines():
        key, colon, rest = line.partition(":")
        if not colon or not rest.strip():
            continue
        try:
            values[key.strip()] = np.array([float(word) for word in rest.split()])
        except ValueError:
            continue
    return values


def read_calibration(date_dir: str | Path) -> KittiCalibration:
    """Read `calib_cam_to_cam.txt` and `calib_velo_to_cam.txt` of a recording day.

    Args:
        date_dir: folder of the date, e.g. `<raw>/2011_09_26`.

    Raises:
        DataError: a file or key is missing, or a key has the wrong number of values or a value that is not finite.
    """
    cam_path, velo_path = Path(date_dir) / "calib_cam_to_cam.txt", Path(date_dir) / "calib_velo_to_cam.txt"
    cam, velo = read_calib_file(cam_path), read_calib_file(velo_path)
    return KittiCalibration(
        P_rect_02=_projection(cam, "P_rect_02", cam_path),
        P_rect_03=_projection(cam, "P_rect_03", cam_path),
        R_rect_00=_entry(cam, "R_rect_00", cam_path, (3, 3)),
        S_rect_02=_image_size(cam, "S_rect_02", cam_path),
        R=_entry(velo, "R", velo_path, (3, 3)),
        T=_entry(velo, "T", velo_path, (3,)),
    )


def read_driving_stereo_calibration(path: str | Path) -> StereoCalibration:
    """Read one calibration file of DrivingStereo (cameras 101 left, 103 right).

    Intrinsics come from `P_rect_101`. The baseline is the norm of `T_103`: users of the data set found the last column
    of `P_rect_103` not rescaled in half-resolution files; when the two differ by more than 1 % the difference is
    logged.

    Raises:
        DataError: the file or a key is missing or malformed.
    """
    values = read_calib_file(path)
    left = _projection(values, "P_rect_101", Path(path))
    baseline = float(np.linalg.norm(_entry(values, "T_103", Path(path), (3,))))
    if not baseline > 0:
        raise DataError(f"calibration file {path}: key T_103 gives a baseline of 0. Get the file again.")
    warning = ""
    if "P_rect_103" in values:
        right = _projection(values, "P_rect_103", Path(path))
        projected = _translation_x(left) - _translation_x(right)
        if abs(projected - baseline) > 0.01 * baseline:
            warning = (
                f"calibration file {path}: baseline {baseline:.4f} m from T_103 is used, "
                f"P_rect_103 would give {projected:.4f} m."
            )
            _log.warning(warning)
    return StereoCalibration(
        float(left[0, 0]), float(left[1, 1]), float(left[0, 2]), float(left[1, 2]), baseline, warning
    )


def _translation_x(projection: Matrix) -> float:
    return float((projection[0, 3] - projection[0, 2] * projection[2, 3]) / projection[0, 0])


def _entry(values: dict[str, Matrix], key: str, path: Path, shape: tuple[int, ...]) -> Matrix:
    if key not in values:
        raise DataError(f"calibration file {path}: key {key} is missing. Get the file of this recording day again.")
    value = values[key]
    expected = int(np.prod(shape))
    if value.size != expected or not np.isfinite(value).all():
        raise DataError(
            f"calibration file {path}: key {key}: expected {expected} finite numbers, got {value.size}"
            f"{'' if np.isfinite(value).all() else ' with NaN or infinity'}. Get the file again."
        )
    return value.reshape(shape)


def _projection(values: dict[str, Matrix], key: str, path: Path) -> Matrix:
    matrix = _entry(values, key, path, (3, 4))
    if not (matrix[0, 0] > 0 and matrix[1, 1] > 0):
        raise DataError(f"calibration file {path}: key {key}: focal lengths must be > 0. Get the file again.")
    return matrix


def _image_size(values: dict[str, Matrix], key: str, path: Path) -> Matrix:
    size: Any = _entry(values, key, path, (2,))
    if not (size.min() >= 1 and size.max() < 32768):
        raise DataError(f"calibration file {path}: key {key}: {size[0]:g} x {size[1]:g} is no image size.")
    matrix: Matrix = size
    return matrix
