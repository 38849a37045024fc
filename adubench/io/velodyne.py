"""LiDAR scans and their projection to a sparse depth map (Monodepth2, kitti_utils.py: generate_depth_map).

The rule's quirks are part of published numbers and therefore kept: one image size for every camera, a pixel key with
factor W - 1 that joins the last pixel of a row with the first of the next, and "the first point's pixel receives the
minimum".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import DataError
from adubench.io.depth_png import read_bytes
from adubench.io.kitti_calib import KittiCalibration
from adubench.io.maps import SparseDepth


def read_scan(path: str | Path) -> NDArray[np.float32]:
    """Read a scan.

    Returns:
        float32 [n, 4]: x forward, y left, z up in metres, reflectance.

    Raises:
        DataError: missing, or a size that is no multiple of the 16 bytes of a point.
    """
    data = read_bytes(path, "LiDAR scan")
    if len(data) % 16:
        raise DataError(
            f"LiDAR scan {path}: {len(data)} bytes are no multiple of the 16 bytes of a point. Copy the file again."
        )
    return np.frombuffer(data, "<f4").reshape(-1, 4).astype(np.float32)


def project_scan(
    scan: NDArray[np.float32], calib: KittiCalibration, camera: int = 2, velodyne_x_depth: bool = True
) -> SparseDepth:
    """Project a scan into a rectified colour camera.

    Args:
        scan: float32 [n, 4] as from `read_scan`.
        calib: calibration of the recording day.
        camera: 2 (left) or 3 (right); the image size is S_rect_02 for both.
        velodyne_x_depth: depth is the scan's x (what the `kitti-eigen-raw` protocol scores against), else the depth in
            the camera's frame.

    Returns:
        Sparse depth, float32 metres, scale 1.
    """
    height, width = calib.size
    rows, columns, depth = _visible(scan, calib, camera, velodyne_x_depth)
    pixel = rows * width + columns
    image = np.zeros(height * width)
    image[pixel] = depth  # in scan order: the last one wins
    _minimum_per_key(image, pixel, rows * (width - 1) + columns - 1, depth)
    np.maximum(image, 0.0, out=image)
    index = np.flatnonzero(image)
    values = image[index].astype(np.float32)
    keep = values > 0  # a tiny positive float64 may underflow
    return SparseDepth((height, width), index[keep].astype(np.uint32), values[keep], 1.0)


def _visible(
    scan: NDArray[np.float32], calib: KittiCalibration, camera: int, velodyne_x_depth: bool
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
    """Return row, column (int64 [m]) and depth (float64 [m]) of the points inside the image, in scan order."""
    rectify, rigid = np.eye(4), np.eye(4)
    rectify[:3, :3] = calib.R_rect_00
    rigid[:3, :3], rigid[:3, 3] = calib.R, calib.T
    matrix = calib.projection(camera) @ rectify @ rigid
    height, width = calib.size
    with np.errstate(all="ignore"):  # non-finite coordinates drop out in the comparisons
        front = scan[scan[:, 0] >= 0]
        points = np.ones((len(front), 4))
        points[:, :3] = front[:, :3]
        q = (matrix @ points.T).T
        u, v = np.rint(q[:, 0] / q[:, 2]) - 1, np.rint(q[:, 1] / q[:, 2]) - 1
        inside = (u >= 0) & (v >= 0) & (u < width) & (v < height)
    depth = points[:, 0] if velodyne_x_depth else q[:, 2]
    return v[inside].astype(np.int64), u[inside].astype(np.int64), depth[inside]


def _minimum_per_key(
    image: NDArray[np.float64], pixel: NDArray[Any], key: NDArray[Any], depth: NDArray[np.float64]
) -> None:
    """For each key with several points write their minimum to the pixel of the first one, in place."""
    if not len(key):
        return
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    start = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    count = np.diff(np.r_[start, len(ordered)])
    several = count > 1
    lowest = np.minimum.reduceat(depth[order], start)
    image[pixel[order[start[several]]]] = lowest[several]
