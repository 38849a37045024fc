"""What lies on disk: both layouts, calibration, ground truth, resuming, refusals."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adubench.datasets.frames import frame_from_stem, parse_kitti
from adubench.datasets.synthdrive import SynthDriveInfo, read_info, write_dataset, writer
from adubench.datasets.synthdrive.layouts import drive_name, split_of
from adubench.datasets.synthdrive.rig import drivingstereo_rig, kitti_rig
from adubench.errors import DataError, UsageError
from adubench.io.depth_png import read_depth_map
from adubench.io.kitti_calib import read_calibration, read_driving_stereo_calibration
from adubench.io.velodyne import project_scan, read_scan

TINY = {"drives": 1, "frames": 11, "size": (64, 128)}


def _folder(info: SynthDriveInfo, number: int) -> Path:
    return info.root / "2031_01_01" / f"{info.drives[number]}_sync"


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_kitti_layout_is_complete(kitti: SynthDriveInfo) -> None:
    every = [f"{k:010d}" for k in range(12)]
    for number in range(2):
        drive = _folder(kitti, number)
        assert _names(drive / "velodyne_points" / "data") == [f"{k}.bin" for k in every]
        for eye in ("image_02", "image_03"):
            assert _names(drive / eye / "data") == [f"{k}.png" for k in every]
            for extra in ("dense_depth", "semantics", "boundaries"):
                assert _names(drive / extra / eye) == [f"{k}.png" for k in every]
            for kind in ("groundtruth", "velodyne_raw"):  # none on the first and last five frames
                assert _names(drive / "proj_depth" / kind / eye) == [f"{k}.png" for k in every[5:7]]
        assert len((drive / "poses.txt").read_text().splitlines()) == 12
        image = Image.open(drive / "image_02" / "data" / f"{every[0]}.png")
        assert (image.mode, image.size) == ("RGB", (208, 64))
    path = (_folder(kitti, 1) / "image_03" / "data" / "0000000004.png").relative_to(kitti.root)
    key = parse_kitti(path.as_posix())
    assert key is not None
    assert (key.drive, key.index, key.camera) == (kitti.drives[1], 4, 3)


def test_ground_truth_agrees_with_dense_depth(kitti: SynthDriveInfo) -> None:
    for number in range(2):
        for eye in ("image_02", "image_03"):
            truth = read_depth_map(_folder(kitti, number) / "proj_depth" / "groundtruth" / eye / "0000000005.png")
            dense = read_depth_map(_folder(kitti, number) / "dense_depth" / eye / "0000000005.png")
            g, d = truth.quantity(), dense.quantity()
            assert 0.08 < (g > 0).mean() < 0.35
            error = np.abs(g - d)[g > 0]
            assert (error <= 0.05 + 0.01 * d[g > 0] + 1 / 128).mean() > 0.99
            assert error.max() > 0.005  # it is a measurement, not a copy
            raw = read_depth_map(_folder(kitti, number) / "proj_depth" / "velodyne_raw" / eye / "0000000005.png")
            assert 0.01 < (raw.values > 0).mean() < (g > 0).mean()


def test_ground_truth_needs_the_poses(kitti: SynthDriveInfo) -> None:
    """Far more pixels have ground truth than one scan gives: the scans of eleven poses were brought together."""
    drive = _folder(kitti, 0)
    truth = read_depth_map(drive / "proj_depth" / "groundtruth" / "image_02" / "0000000006.png").values > 0
    raw = read_depth_map(drive / "proj_depth" / "velodyne_raw" / "image_02" / "0000000006.png").values > 0
    assert truth.sum() > 2.5 * raw.sum()


def test_calibration_is_read_back(kitti: SynthDriveInfo) -> None:
    calib = read_calibration(kitti.root / "2031_01_01")
    rig = kitti_rig((64, 208))
    assert (calib.fx, calib.fy) == pytest.approx((rig.fx, rig.fy))
    assert (calib.cx, calib.cy) == pytest.approx((rig.cx, rig.cy))
    assert calib.baseline_m == pytest.approx(0.5327, abs=1e-6)
    scan = read_scan(_folder(kitti, 0) / "velodyne_points" / "data" / "0000000005.bin")
    sparse = project_scan(scan, calib, 2, velodyne_x_depth=False)
    raw = read_depth_map(_folder(kitti, 0) / "proj_depth" / "velodyne_raw" / "image_02" / "0000000005.png").quantity()
    shifted = np.zeros_like(raw)
    shifted[1:, 1:] = sparse.dense()[:-1, :-1]  # that projection subtracts one from row and column
    both = (shifted > 0) & (raw > 0)
    assert both.sum() > 0.9 * (raw > 0).sum()
    assert np.median(np.abs(shifted - raw)[both]) < 0.01


def test_info_lists_splits_and_drives(kitti: SynthDriveInfo) -> None:
    assert kitti == read_info(kitti.root)
    assert kitti.splits == {"train": (kitti.drives[0],), "val": (), "test": (kitti.drives[1],)}
    assert kitti.frames == dict.fromkeys(kitti.drives, 12)
    assert set(kitti.checksums) == set(kitti.drives)


@pytest.mark.parametrize("drives", range(1, 30))
def test_splits_partition_the_drives(drives: int) -> None:
    parts = [split_of(number) for number in range(1, drives + 1)]
    assert set(parts) <= {"train", "val", "test"}
    assert ("test" in parts) == (drives >= 2)
    assert ("val" in parts) == (drives >= 3)
    assert parts[0] == "train"


def test_drive_names_are_unique() -> None:
    for layout in ("kitti", "drivingstereo"):
        names = [drive_name(number, layout) for number in range(1, 3000)]
        assert len(set(names)) == len(names)
        assert names == sorted(names)


def test_same_seed_same_bytes_with_any_number_of_workers(kitti: SynthDriveInfo, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    again = write_dataset(
        tmp_path / "again", drives=2, frames=12, size=(64, 208), seed=3, workers=2, progress=lambda *c: calls.append(c)
    )
    assert again.checksums == kitti.checksums
    assert calls[-1] == (24, 24)


def test_drivingstereo_layout(stereo: SynthDriveInfo) -> None:
    train, test = stereo.drives
    folders = {
        train: {"l": "train-left-image", "r": "train-right-image", "d": "train-depth-map", "p": "train-disparity-map"},
        test: {
            "l": "test-left-image/left-image-half-size",
            "r": "test-right-image/right-image-half-size",
            "d": "test-depth-map/depth-map-half-size",
            "p": "test-disparity-map/disparity-map-half-size",
        },
    }
    for drive, kinds in folders.items():
        found = {key: _names(stereo.root / kind / drive) for key, kind in kinds.items()}
        stems = [name.removesuffix(".jpg") for name in found["l"]]
        assert len(set(stems)) == 11
        assert found["r"] == [f"{stem}.jpg" for stem in stems]
        assert found["d"] == found["p"] == [f"{stem}.png" for stem in stems]
        assert all(frame_from_stem(stem).drive == drive for stem in stems)
        part = "test-calib" if drive == test else "calib"
        calib = read_driving_stereo_calibration(stereo.root / part / "half-image-calib" / f"{drive}.txt")
        assert calib.warning == ""
        assert calib.baseline_m == pytest.approx(0.5447)
        assert calib.fx == pytest.approx(drivingstereo_rig((64, 208)).fx)
        for stem in (stems[0], stems[5]):
            depth = read_depth_map(stereo.root / kinds["d"] / drive / f"{stem}.png").quantity()
            disparity = read_depth_map(stereo.root / kinds["p"] / drive / f"{stem}.png").quantity()
            both = (depth > 0) & (disparity > 0)
            assert both.sum() > 500
            assert ((depth > 0) == (disparity > 0)).all()
            product = (depth * disparity)[both] / (calib.fx * calib.baseline_m)
            assert np.median(product) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"drives": 0}, "1 to 9999 drives"),
        ({"frames": 10}, "at least 11 frames"),
        ({"size": (63, 400)}, "at least 64x128"),
        ({"size": (100, 100)}, "at least 64x128"),
        ({"seed": -1}, "must not be negative"),
        ({"layout": "nuscenes"}, "choose kitti or drivingstereo"),
        ({"workers": 0}, "--workers 1 or more"),
    ],
)
def test_parameters_out_of_range(tmp_path: Path, change: dict, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        write_dataset(tmp_path / "new", **{**TINY, **change})
    assert not (tmp_path / "new").exists()


def test_folders_of_others_are_left_alone(kitti: SynthDriveInfo, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty and no SynthDrive"):
        write_dataset(tmp_path, **TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    before = (kitti.root / "synthdrive.json").read_bytes()
    with pytest.raises(UsageError, match=r"other parameters \(seed differs\)"):
        write_dataset(kitti.root, drives=2, frames=12, size=(64, 208), seed=4)
    assert (kitti.root / "synthdrive.json").read_bytes() == before


def test_complete_drives_are_kept(kitti: SynthDriveInfo) -> None:
    path = _folder(kitti, 0) / "poses.txt"
    before = path.stat().st_mtime_ns
    again = write_dataset(kitti.root, drives=2, frames=12, size=(64, 208), seed=3)
    assert again == kitti
    assert path.stat().st_mtime_ns == before


def test_interrupted_run_leaves_nothing_half_written_and_goes_on(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "data", **TINY, progress=stop)
    left = sorted(p.relative_to(tmp_path / "data").as_posix() for p in (tmp_path / "data").rglob("*") if p.is_file())
    calibration = [f"2031_01_01/calib_{name}.txt" for name in ("cam_to_cam", "imu_to_velo", "velo_to_cam")]
    assert left == [*calibration, "synthdrive.json"]
    with pytest.raises(DataError, match="not complete"):
        read_info(tmp_path / "data")
    (tmp_path / "data" / ".staging-2031_01_01_drive_0001").mkdir()  # as a killed process leaves it
    done = write_dataset(tmp_path / "data", **TINY)
    assert read_info(tmp_path / "data") == done
    assert not list((tmp_path / "data").glob(".*"))


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer, "write_bytes", full)
    with pytest.raises(DataError, match="No space left on device"):
        write_dataset(tmp_path / "data", **TINY)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["synthdrive.json"]


def _die(job: writer._Job) -> None:
    job.staging.mkdir()
    os._exit(9)


@pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="the worker must inherit the patched function")
def test_killed_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_write_drive", _die)
    with pytest.raises(DataError, match="a worker process was killed"):
        write_dataset(tmp_path / "data", **{**TINY, "drives": 2}, workers=2)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["synthdrive.json"]


def test_broken_index(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no SynthDrive data set"):
        read_info(tmp_path)
    for text in ("{", "[]"):
        (tmp_path / "synthdrive.json").write_text(text)
        with pytest.raises(DataError, match="make the data set again"):
            read_info(tmp_path)
    (tmp_path / "synthdrive.json").write_text(json.dumps({"complete": True}))
    with pytest.raises(DataError, match="make the data set again"):
        read_info(tmp_path)
