"""KITTI on disk: folder and extension variants, the four layouts, the causes of missing files."""

import pickle
import shutil

import pytest

from adubench.datasets.frames import kitti_frame
from adubench.datasets.kitti import ImprovedMaps, KittiRaw, date_facts, maps_on_disk, selection_path
from adubench.errors import DataError

D = "2011_09_26_drive_0001"
VAL = "2011_09_26_drive_0079"
FRAME = kitti_frame(D, 5)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg"])
@pytest.mark.parametrize("folder", ["{d}_sync/image_02/data", "{d}/image_02/data", "{d}_sync/image_02"])
def test_image_variants_load_without_configuration(tmp_path, trees, folder, suffix):
    path = trees.save_image(tmp_path / "2011_09_26" / folder.format(d=D) / f"0000000005{suffix}")
    raw = KittiRaw(tmp_path)
    assert raw.image(FRAME) == path
    assert raw.extensions[D] == suffix


def test_wanted_extension_wins_then_the_cached_one(tmp_path, trees):
    folder = tmp_path / "2011_09_26" / f"{D}_sync/image_02/data"
    for name in ("0000000005.png", "0000000005.jpg", "0000000006.png", "0000000006.jpg", "0000000007.png"):
        trees.save_image(folder / name)
    raw = KittiRaw(tmp_path)
    assert raw.image(FRAME, ".jpg").suffix == ".jpg"
    assert raw.image(kitti_frame(D, 6)).suffix == ".jpg"
    assert raw.image(kitti_frame(D, 7)).suffix == ".png"
    with pytest.raises(DataError, match=r"extensions tried: \.png, \.jpg, \.jpeg"):
        raw.image(kitti_frame(D, 8))


def test_sync_folder_is_preferred(tmp_path, trees):
    for name in (D, f"{D}_sync"):
        trees.save_image(tmp_path / "2011_09_26" / name / "image_02/data/0000000005.png")
    assert f"{D}_sync" in str(KittiRaw(tmp_path).image(FRAME))


def test_wrong_roots_are_explained(tmp_path, trees):
    trees.save_image(tmp_path / "raw" / "2011_09_26" / f"{D}_sync/image_02/data/0000000005.png")
    with pytest.raises(DataError, match="raw holds date folders"):
        KittiRaw(tmp_path).image(FRAME)
    with pytest.raises(DataError, match="one level too deep"):
        KittiRaw(tmp_path / "raw" / "2011_09_26").image(FRAME)
    with pytest.raises(DataError, match=r"dates there: 2011_09_26\)"):
        KittiRaw(tmp_path / "raw").image(kitti_frame("2011_09_28_drive_0001", 5))
    with pytest.raises(DataError, match="data root not found"):
        KittiRaw(tmp_path / "no").image(FRAME)


def test_calibration_and_its_fallback(tmp_path, trees):
    raw = KittiRaw(tmp_path)
    with pytest.raises(DataError, match=r"2011_09_26_calib\.zip"):
        raw.calibration("2011_09_26")
    with pytest.warns(UserWarning, match="built-in constants"):
        facts, source = raw.intrinsics("2011_09_26")
    assert (facts.fx, source) == (721.5377, "built-in")
    with pytest.raises(DataError, match="no constants for the date 2031_01_01"):
        raw.intrinsics("2031_01_01")
    trees.write_calibration(tmp_path / "2011_09_26")
    facts, source = raw.intrinsics("2011_09_26")
    assert (facts.width, facts.height, facts.fx, source) == (64, 24, 40.0, "file")
    assert facts.baseline_m == pytest.approx((1.6 + 20) / 40)


def test_constants_of_the_dates():
    assert {d: (f.width, f.height) for d, f in date_facts().items()} == {
        "2011_09_26": (1242, 375),
        "2011_09_28": (1224, 370),
        "2011_09_29": (1238, 374),
        "2011_09_30": (1226, 370),
        "2011_10_03": (1241, 376),
    }


@pytest.mark.parametrize("layout", "ABCD")
def test_layouts_are_found(tmp_path, trees, layout):
    for drive in (D, VAL):
        trees.save_png(trees.gt_path(tmp_path, layout, drive, 5), trees.depth_codes())
    maps = ImprovedMaps(tmp_path)
    assert maps.probe((D, VAL)) == layout
    for drive in (D, VAL):
        assert maps.path(kitti_frame(drive, 5)) == trees.gt_path(tmp_path, layout, drive, 5)
    assert maps_on_disk(tmp_path, D) == [FRAME]
    assert pickle.loads(pickle.dumps(maps)).path(FRAME).is_file()


def test_first_drive_with_maps_decides_and_others_are_tried_once(tmp_path, trees):
    trees.save_png(trees.gt_path(tmp_path, "C", VAL, 5), trees.depth_codes())
    trees.save_png(trees.gt_path(tmp_path, "A", D, 5), trees.depth_codes())
    maps = ImprovedMaps(tmp_path)
    assert maps.probe(("2011_09_26_drive_0002", VAL, D)) == "C"
    assert maps.path(FRAME) == trees.gt_path(tmp_path, "A", D, 5)


def test_layout_a_wins_over_merged_maps(tmp_path, trees):
    for layout in "ACD":
        trees.save_png(trees.gt_path(tmp_path, layout, D, 5), trees.depth_codes())
    assert ImprovedMaps(tmp_path).probe((D,)) == "A"


def test_missing_val_folder_is_the_named_cause(tmp_path, trees):
    trees.save_png(trees.gt_path(tmp_path, "A", D, 5), trees.depth_codes())
    maps = ImprovedMaps(tmp_path)
    maps.probe((D,))
    with pytest.raises(DataError, match=r"2011_09_26_drive_0079 in layouts A, B, C, D .*unpack val/ too"):
        maps.path(kitti_frame(VAL, 5))
    with pytest.raises(DataError, match="archive is incomplete"):
        maps.path(kitti_frame(D, 6))
    with pytest.raises(DataError, match="first and last five frames"):
        maps.path(kitti_frame(D, 4))
    with pytest.raises(DataError, match="check --gt"):
        maps.path(kitti_frame("2011_09_26_drive_0011", 5))
    with pytest.raises(DataError, match="root not found"):
        ImprovedMaps(tmp_path / "absent").probe((D,))


@pytest.mark.parametrize("base", ["depth_selection/val_selection_cropped/groundtruth_depth", "groundtruth_depth", "."])
def test_selection_is_found_at_every_level(tmp_path, trees, base):
    frame = kitti_frame(VAL, 8, 3)
    path = trees.save_png(
        tmp_path / base / "2011_09_26_drive_0079_sync_groundtruth_depth_0000000008_image_03.png", trees.depth_codes()
    )
    assert selection_path(tmp_path, frame).resolve() == path.resolve()
    shutil.rmtree(tmp_path)
    with pytest.raises(DataError, match=r"data_depth_selection\.zip"):
        selection_path(tmp_path, frame)


def test_selection_images_have_their_own_name(tmp_path, trees):
    path = trees.save_image(
        tmp_path / "val_selection_cropped/image/2011_09_26_drive_0079_sync_image_0000000008_image_02.png"
    )
    assert selection_path(tmp_path, kitti_frame(VAL, 8), "image") == path
