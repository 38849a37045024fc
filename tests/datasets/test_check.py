"""The integrity check: what it must find, and that it is silent about good data."""

import numpy as np
import pytest

from adubench.datasets.check import check_kitti, check_scans
from adubench.datasets.check_all import CheckOptions, guess_dataset, run_checks
from adubench.datasets.frames import kitti_frame
from adubench.datasets.kitti import KittiRaw
from adubench.datasets.list_files import write_lines
from adubench.errors import UsageError

DATE = "2031_01_01"
DRIVES = [f"{DATE}_drive_0001", f"{DATE}_drive_0002"]
FRAMES = [kitti_frame(d, i) for d in DRIVES for i in (5, 6)]


@pytest.fixture
def tree(tmp_path, trees):
    trees.write_calibration(tmp_path / DATE)
    for k, f in enumerate(FRAMES):
        trees.save_image(tmp_path / DATE / f"{f.drive}_sync/image_02/data/{f.index:010d}.png")
        trees.save_png(trees.gt_path(tmp_path, "C", f.drive, f.index), trees.depth_codes(k))
    return tmp_path


def run(root, trees, frames=FRAMES, **options):
    return check_kitti(trees.split_of(frames, name="mine"), root, **options)


def texts(report, level="error"):
    return [f.text for f in report.findings if f.level == level]


def image(root, f, suffix=".png"):
    return root / DATE / f"{f.drive}_sync/image_02/data/{f.index:010d}{suffix}"


def test_good_data_is_good(tree, trees):
    report = run(tree, trees, full=True)
    assert report.findings == []
    assert report.facts["layout"].startswith("C")
    assert report.facts["images"] == report.facts["maps"] == "4 of 4"
    assert report.facts["extension"] == ".png (4)"
    assert report.facts["calibration"] == f"{DATE}: file"
    assert report.table[DRIVES[0]] == {"images": 2, "maps": 2}
    assert report.to_dict()["ok"] is True


def test_missing_drive_image_and_map(tree, trees):
    absent = kitti_frame(f"{DATE}_drive_0009", 5)
    image(tree, FRAMES[0]).unlink()
    trees.gt_path(tree, "C", DRIVES[1], 6).unlink()
    found = texts(run(tree, trees, [*FRAMES, absent]))
    assert any("drive missing: 2031_01_01_drive_0009" in t for t in found)
    assert any(t.startswith("image not found") and "0000000005" in t for t in found)
    assert any("ground truth not found: 2031_01_01_drive_0002_sync/image_02/0000000006" in t for t in found)


def test_many_missing_files_are_counted_not_listed(tree, trees):
    frames = [kitti_frame(DRIVES[0], i) for i in range(5, 40)]
    found = [t for t in texts(run(tree, trees, frames)) if t.startswith("image not found")]
    assert len(found) == 6
    assert "33 of 35 in all" in found[-1]


def test_resized_images(tree, trees):
    trees.save_image(image(tree, FRAMES[0]), (12, 32))
    assert any("32x12 pixels, expected 64x24" in t for t in texts(run(tree, trees)))


def test_kitti_dates_have_known_sizes(tmp_path, trees):
    frame = kitti_frame("2011_09_26_drive_0001", 5)
    trees.save_image(tmp_path / "2011_09_26" / f"{frame.drive}_sync/image_02/data/0000000005.jpg")
    trees.save_png(trees.gt_path(tmp_path, "A", frame.drive, 5), trees.depth_codes())
    report = run(tmp_path, trees, [frame])
    assert any("expected 1242x375 for 2011_09_26; the images were resized" in t for t in texts(report))
    warnings = texts(report, "warning")
    assert any("using built-in constants" in t for t in warnings)
    assert any("JPEG" in t for t in warnings)
    assert report.table[frame.drive]["expected"] == 98
    assert any("1 of 98 maps" in t for t in texts(report, "info"))


@pytest.mark.parametrize(
    ("codes", "level", "message"),
    [
        (np.full((24, 64), 80, np.uint16), "error", "largest code 80; the map was stored with 8 bits"),
        (np.zeros((24, 64), np.uint16), "error", "no pixel has a value"),
        (np.full((24, 64), 5000, np.uint16), "warning", "is this a filled map"),
        (np.eye(24, 64, dtype=np.uint16) * 5000, "warning", "is this a single scan"),
        (np.full((12, 32), 5000, np.uint16), "error", "32x12 pixels, its image has 64x24"),
        (np.full((24, 64), 80, np.uint8), "error", "0000000005.png"),
        (np.full((24, 64, 3), 80, np.uint8), "error", "0000000005.png"),
    ],
)
def test_maps_that_are_wrong(tree, trees, codes, level, message):
    trees.save_png(trees.gt_path(tree, "C", DRIVES[0], 5), codes)
    assert any(message in t for t in texts(run(tree, trees), level))


def test_truncated_files_are_found_with_full(tree, trees):
    path = trees.gt_path(tree, "C", DRIVES[0], 6)
    path.write_bytes(path.read_bytes()[:-60])
    picture = image(tree, FRAMES[3])
    picture.write_bytes(picture.read_bytes()[:-40])
    assert run(tree, trees).ok
    found = texts(run(tree, trees, full=True))
    assert any(str(path) in t for t in found)
    assert any(str(picture) in t for t in found)


def test_missing_calibration_of_an_unknown_date(tree, trees):
    (tree / DATE / "calib_cam_to_cam.txt").unlink()
    assert any("no constants for this date" in t for t in texts(run(tree, trees)))


def test_missing_val_archive_is_the_named_cause(tree, trees):
    frame = kitti_frame("2011_09_26_drive_0079", 5)
    assert any("unpack val/ too" in t for t in texts(run(tree, trees, [*FRAMES, frame])))


def test_expected_gaps_are_no_error(tree, trees):
    early = kitti_frame(DRIVES[0], 0)
    trees.save_image(image(tree, early))
    report = check_kitti(trees.split_of([early, *FRAMES], [early], name="mine"), tree)
    assert report.ok
    assert report.facts["without improved map"] == "1 of 5 (expected)"


def test_scans(tree, trees):
    split, raw = trees.split_of(FRAMES[:2], name="mine"), KittiRaw(tree)
    assert any("0000000005.bin" in t for t in texts(check_scans(split, raw)))
    for f in FRAMES[:2]:
        trees.write_scan(tree / DATE / f"{f.drive}_sync/velodyne_points/data/{f.index:010d}.bin")
    assert check_scans(split, raw).ok
    with (tree / DATE / f"{DRIVES[0]}_sync/velodyne_points/data/0000000005.bin").open("ab") as file:
        file.write(b"xyz")
    assert any("cut off" in t for t in texts(check_scans(split, raw)))


def test_selection(tmp_path, trees):
    (report, *_) = run_checks(CheckOptions(split="official", data_root=tmp_path))
    assert any("data_depth_selection.zip" in t for t in texts(report))
    folder = tmp_path / "depth_selection/val_selection_cropped/groundtruth_depth"
    trees.save_png(folder / "2011_09_26_drive_0002_sync_groundtruth_depth_0000000005_image_02.png", trees.depth_codes())
    (report, *_) = run_checks(CheckOptions(split="official", data_root=tmp_path))
    assert any("expected 1216x352" in t for t in texts(report))
    assert report.facts["maps"] == "1 of 1000"


def test_list_file(tree, tmp_path, trees):
    path = tmp_path / "mine.txt"
    path.write_text(write_lines(FRAMES, "toolbox2") + write_lines(FRAMES[:1], "toolbox2"))
    reports = run_checks(CheckOptions(split=str(path), data_root=tree))
    assert reports[0].ok, texts(reports[0])
    assert any("E5" in t for t in texts(reports[0], "warning"))
    assert reports[0].facts["format"] == "toolbox2"
    image(tree, FRAMES[0]).unlink()
    assert any("E7" in t for t in texts(run_checks(CheckOptions(split=str(path), data_root=tree))[0]))


def test_leakage_is_an_error_when_images_are_shared():
    (report,) = run_checks(CheckOptions(split="eigen", train_split="kitti_official.train"))
    assert "522 of 697 Eigen test images lie on official training drives" in texts(report)
    (report,) = run_checks(CheckOptions(split="eigen", train_split="eigen_train"))
    assert report.ok
    assert texts(report, "info") == ["no frame and no drive in common"]


def test_published_overlaps_are_said_with_every_check(tmp_path):
    reports = run_checks(CheckOptions(split="eigen", data_root=tmp_path))
    said = texts(reports[1], "info")
    assert (
        "522 of 697 Eigen test images lie on official training drives: do not score a model trained on them here"
        in said
    )


def test_usage():
    with pytest.raises(UsageError, match="nothing to check"):
        run_checks(CheckOptions())
    with pytest.raises(UsageError, match="add --split"):
        run_checks(CheckOptions(train_split="eigen_train"))


def test_data_sets_are_guessed(tmp_path, trees):
    assert guess_dataset(tmp_path, None) == "kitti"
    assert guess_dataset(tmp_path, "drivingstereo.adu_test") == "drivingstereo"
    assert guess_dataset(tmp_path, "nyu") == "nyu"
    trees.write_drivingstereo(tmp_path / "ds")
    assert guess_dataset(tmp_path / "ds", None) == "drivingstereo"
    (tmp_path / "ds" / "synthdrive.json").write_text("{}")
    assert guess_dataset(tmp_path / "ds", None) == "drivingstereo"
    (tmp_path / "sd").mkdir()
    (tmp_path / "sd" / "synthdrive.json").write_text("{}")
    assert guess_dataset(tmp_path / "sd", None) == "synthdrive"


def test_nyu(tmp_path, trees):
    (report,) = run_checks(CheckOptions(dataset="nyu", data_root=tmp_path))
    assert any("sync_depth" in t for t in texts(report))
    trees.save_png(tmp_path / "bathroom/sync_depth_00045.png", np.full((480, 640), 2500, np.uint16))
    (report,) = run_checks(CheckOptions(dataset="nyu", data_root=tmp_path))
    assert texts(report) == ["1 depth maps, expected 654 test images"]
