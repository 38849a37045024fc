"""Frame keys: what a name identifies, and under which names a prediction is accepted."""

import pickle

import pytest

from adubench.datasets.frames import (
    FrameKey,
    anonymous_frame,
    drivingstereo_frame,
    frame_from_stem,
    kitti_frame,
    parse_kitti,
)

KEY = kitti_frame("2011_09_26_drive_0002", 69)
NAMES = [
    "2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.png",
    "2011_09_26_drive_0002_sync/image_02/data/0000000069",
    "2011_09_26_drive_0002_sync/image_02/0000000069.npy",
    "2011_09_26_drive_0002/image_02/0000000069",
    "2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02/0000000069.png",
    "2011_09_26_drive_0002_sync_0000000069.png",
    "2011_09_26_drive_0002_0000000069",
    "2011_09_26_drive_0002_sync_image_0000000069_image_02.png",
    "2011_09_26_drive_0002_sync_groundtruth_depth_0000000069_image_02.png",
    "2011_09_26_2011_09_26_drive_0002_sync_image_02_data_0000000069.png",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_the_wild_give_the_key(name):
    assert parse_kitti(name) == KEY


@pytest.mark.parametrize("name", NAMES)
def test_names_of_the_wild_are_aliases(name):
    assert name.rsplit(".", 1)[0] in KEY.aliases()


def test_every_alias_leads_back_to_the_key():
    for camera in (2, 3):
        key = kitti_frame("2011_09_29_drive_0026", 8, camera)
        assert all(parse_kitti(alias) == key for alias in key.aliases())
        assert key.aliases()[0] == key.name


def test_aliases_of_left_and_right_are_disjoint():
    left, right = kitti_frame("2011_09_26_drive_0002", 5, 2), kitti_frame("2011_09_26_drive_0002", 5, 3)
    assert not set(left.aliases()) & set(right.aliases())


def test_sync_suffix_does_not_matter():
    assert kitti_frame("2011_09_26_drive_0002_sync", 69) == KEY
    assert KEY.name == "2011_09_26_drive_0002_sync/image_02/0000000069"
    assert (KEY.side, KEY.date) == ("l", "2011_09_26")


def test_anonymous_frames_are_named_by_number():
    assert anonymous_frame(7).name == "0000000007"
    assert anonymous_frame(7).aliases() == ("0000000007",)


def test_drivingstereo_key_has_the_sequence_as_drive():
    stem = "2018-07-11-14-48-52_2018-07-11-15-45-53-241"
    key = drivingstereo_frame(stem)
    assert (key.drive, key.name) == ("2018-07-11-14-48-52", stem)
    assert key.aliases() == (stem, f"2018-07-11-14-48-52/{stem}")


def test_folder_frames_keep_their_stem_and_find_their_drive():
    assert frame_from_stem("a/b/c").drive == "a/b"
    assert frame_from_stem("c").drive == ""
    key = frame_from_stem("x/2011_09_26_drive_0002_sync/image_03/0000000005")
    assert (key.name, key.drive, key.camera) == (
        "x/2011_09_26_drive_0002_sync/image_03/0000000005",
        "2011_09_26_drive_0002",
        3,
    )
    assert key.aliases()[0] == key.stem
    assert "2011_09_26_drive_0002_sync/image_03/0000000005" in key.aliases()


@pytest.mark.parametrize("name", ["", "0000000005.png", "2011_09_26_drive_0002_sync/image_04/0000000005.png", "a b"])
def test_other_names_have_no_key(name):
    assert parse_kitti(name) is None


def test_keys_are_ordered_and_picklable():
    assert kitti_frame("a", 1, 2) < kitti_frame("a", 1, 3) < kitti_frame("a", 2, 2)
    assert pickle.loads(pickle.dumps(KEY)) == KEY
    assert isinstance(KEY, FrameKey)
