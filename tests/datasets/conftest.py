"""Small trees in the layouts that users have."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

DATE = "2011_09_26"
CAM = """calib_time: 09-Jan-2012 13:57:47
corner_dist: 9.950000e-02
S_rect_02: 6.400000e+01 2.400000e+01
R_rect_00: 1 0 0 0 1 0 0 0 1
P_rect_02: 40 0 32 1.6 0 40 12 0 0 0 1 0
S_rect_03: 6.400000e+01 2.400000e+01
P_rect_03: 40 0 32 -20 0 40 12 0 0 0 1 0
"""
VELO = "calib_time: 15-Mar-2012 11:37:16\nR: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 -0.27\n"


def depth_codes(seed=0, shape=(24, 64), density=0.2):
    rng = np.random.default_rng(seed)
    codes = rng.integers(600, 18000, shape).astype(np.uint16)
    codes[rng.random(shape) >= density] = 0
    return codes


def save_png(path: Path, codes):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(codes).save(path)
    return path


def save_image(path: Path, shape=(24, 64)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*shape, 3), 90, np.uint8)).save(path)
    return path


def gt_path(root: Path, layout: str, drive: str, index: int, camera: int = 2) -> Path:
    """Where a layout keeps a map; written down again here, independently of the package."""
    tail = f"proj_depth/groundtruth/image_0{camera}/{index:010d}.png"
    val = drive in {"2011_09_26_drive_0002", "2011_09_26_drive_0013", "2011_09_26_drive_0079"}
    base = {
        "A": f"{'val' if val else 'train'}/{drive}_sync",
        "B": f"{drive}_sync",
        "C": f"{drive[:10]}/{drive}_sync",
        "D": f"depth_benchmark/{drive[:10]}/{drive}_sync",
    }[layout]
    return root / base / tail


def write_scan(path: Path, n=200, seed=0):
    rng = np.random.default_rng(seed)
    scan = np.column_stack(
        [rng.uniform(2, 60, n), rng.uniform(-20, 20, n), rng.uniform(-3, 3, n), rng.random(n)]
    ).astype("<f4")
    path.parent.mkdir(parents=True, exist_ok=True)
    scan.tofile(path)


def write_calibration(folder: Path):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "calib_cam_to_cam.txt").write_text(CAM)
    (folder / "calib_velo_to_cam.txt").write_text(VELO)


def split_of(frames, no_gt=(), name="eigen_test", dataset="kitti"):
    from adubench.datasets.splits import Split, checksum

    frames = tuple(frames)
    return Split(name, frames, len(frames), checksum(frames), "kitti-eigen", frozenset(no_gt), dataset)


STEREO_TEST = "2018-07-11-14-48-52"


def stereo_stem(sequence, k):
    return f"{sequence}_2018-07-11-15-45-{k:02d}-241"


def write_drivingstereo(root: Path, n=3, sequence=STEREO_TEST, size=(20, 44), names=None, part="test"):
    """Half-resolution test part; `names` maps modality -> folder."""
    folders = {m: f"{part}-{m}/{m}-half-size" for m in ("left-image", "right-image", "disparity-map", "depth-map")} | (
        names or {}
    )
    fx, baseline = 1000.0, 0.545
    stems = [stereo_stem(sequence, k) for k in range(n)]
    for k, stem in enumerate(stems):
        depth = np.random.default_rng(k).uniform(5, 70, size)
        disparity = fx * baseline / depth
        for m in ("left-image", "right-image"):
            save_image(root / folders[m] / f"{stem}.jpg", size)
        save_png(root / folders["depth-map"] / f"{stem}.png", np.rint(depth * 256).astype(np.uint16))
        save_png(root / folders["disparity-map"] / f"{stem}.png", np.rint(disparity * 256).astype(np.uint16))
    calib = root / "test-calib" / "half-image-calib" / f"{sequence}.txt"
    calib.parent.mkdir(parents=True, exist_ok=True)
    calib.write_text(
        f"P_rect_101: {fx} 0 22 0 0 {fx} 10 0 0 0 1 0\nP_rect_103: {fx} 0 22 {-2 * fx * baseline} 0 {fx} 10 0 0 0 1 0\n"
        f"T_103: {-baseline} 0 0\n"
    )
    return stems


@pytest.fixture
def trees():
    """The helpers of this file."""
    import types

    return types.SimpleNamespace(**{k: v for k, v in globals().items() if not k.startswith("__")})
