import json
from pathlib import Path

import numpy as np
import pytest

from adubench.errors import DataError
from adubench.io.kitti_calib import KittiCalibration, read_calibration
from adubench.io.velodyne import project_scan, read_scan

DATA = Path(__file__).resolve().parents[1] / "data" / "velodyne"
REAL = Path(__file__).resolve().parents[3] / "shared"
CASES = [(cam, kind) for cam in (2, 3) for kind in ("camdepth", "veldepth")]


def compare(folder, golden, cam, kind):
    """Golden: the set of pixels exactly, depths to 4e-6 m (float32 storage), velodyne x exactly."""
    sparse = project_scan(read_scan(folder / "velodyne.bin"), read_calibration(folder), cam, kind == "veldepth")
    assert sparse.shape == tuple(golden["shape"])
    assert sparse.index.dtype == np.uint32
    assert sparse.values.dtype == np.float32
    np.testing.assert_array_equal(sparse.index, golden[f"cam{cam}_{kind}_index"])
    np.testing.assert_allclose(
        sparse.metres(), golden[f"cam{cam}_{kind}_depth"], rtol=0, atol=0 if kind == "veldepth" else 4e-6
    )
    return sparse


@pytest.mark.parametrize("name", ["synthetic_exact", "synthetic_rig"])
@pytest.mark.parametrize(("cam", "kind"), CASES)
def test_golden(name, cam, kind):
    sparse = compare(DATA / name, np.load(DATA / name / "depth.npz"), cam, kind)
    summary = json.loads((DATA / "summary.json").read_text())[name][f"cam{cam}_{kind}"]
    assert len(sparse.index) == summary["n"]
    assert sparse.values.astype(np.float64).sum() == pytest.approx(summary["sum"], rel=1e-7)


@pytest.mark.parametrize(("cam", "kind"), CASES)
def test_real_scan(cam, kind):
    folder, golden = REAL / "real" / "kitti_000008", REAL / "golden" / "velodyne" / "real_kitti_000008.npz"
    if not (folder.is_dir() and golden.is_file()):
        pytest.skip("the real KITTI frame is not on this machine")
    compare(folder, np.load(golden), cam, kind)


def reference(scan, calib):
    """The rule step by step, one point and one key at a time."""
    height, width = calib.size
    image, keys = np.zeros((height, width)), {}
    for x, y, z, _ in scan.astype(np.float64):
        if x < 0:
            continue
        q = calib.P_rect_02 @ np.array([*(calib.R @ [x, y, z] + calib.T), 1.0])
        column, row = np.round(q[0] / q[2]) - 1, np.round(q[1] / q[2]) - 1
        if 0 <= column < width and 0 <= row < height:
            image[int(row), int(column)] = x
            keys.setdefault(int(row) * (width - 1) + int(column) - 1, []).append((int(row), int(column), x))
    for points in keys.values():
        if len(points) > 1:
            image[points[0][0], points[0][1]] = min(p[2] for p in points)
    return image.astype(np.float32)


def camera(width=12, height=6):
    projection = np.array([[4.0, 0, width / 2, 0], [0, 4.0, height / 2, 0], [0, 0, 1, 0]])
    rotation = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
    return KittiCalibration(projection, projection, np.eye(3), np.array([width, height]), rotation, np.zeros(3))


@pytest.mark.parametrize("seed", range(4))
def test_random_scans_follow_the_rule(seed):
    rng = np.random.default_rng(seed)
    scan = rng.uniform((-2, -8, -4, 0), (10, 8, 4, 1), (400, 4)).astype(np.float32)
    np.testing.assert_array_equal(project_scan(scan, camera()).dense(), reference(scan, camera()))


def test_hostile_points_drop_out():
    bad = [[np.nan, 1, 1, 0], [1, np.inf, 0, 0], [0, 0, 0, 0], [1e38, 1e38, 1e38, 0], [-1, 0, 0, 0]]
    scan = np.array([*bad, [5, 0, 0, 0]], np.float32)
    sparse = project_scan(scan, camera())
    np.testing.assert_array_equal(sparse.values, [5])
    assert len(project_scan(scan[:0], camera()).index) == 0


def test_scan_files(tmp_path):
    path = tmp_path / "s.bin"
    path.write_bytes(b"")
    assert read_scan(path).shape == (0, 4)
    path.write_bytes(bytes(33))
    with pytest.raises(DataError, match=r"s\.bin: 33 bytes are no multiple of the 16"):
        read_scan(path)
    with pytest.raises(DataError, match="no such file"):
        read_scan(tmp_path / "gone.bin")
