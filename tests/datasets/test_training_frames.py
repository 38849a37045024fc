"""Lists of training files: what is found, what is left out and counted, what stops a run before its first step."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adubench.datasets.stereo_pairs import make_sample
from adubench.datasets.synthdrive import write_dataset
from adubench.datasets.training_frames import training_frames
from adubench.datasets.transforms import Augmentation
from adubench.errors import DataError, UsageError

D1 = "2011_09_26_drive_0001"


@pytest.fixture(scope="module")
def synth(tmp_path_factory):
    root = tmp_path_factory.mktemp("synth")
    write_dataset(root, drives=1, frames=12, size=(64, 128))
    return root


def picture(path, shape=(24, 64), value=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*shape, 3), value, np.uint8)).save(path)


def codes(path, shape=(24, 64), value=900):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, value, np.uint16)).save(path)


def kitti_tree(root: Path, indices=(5, 6, 7), *, right=True, right_gt=True):
    raw, gt = root / "raw", root / "gt"
    for i in indices:
        for camera in (2, 3):
            if camera == 2 or right:
                picture(raw / "2011_09_26" / f"{D1}_sync" / f"image_0{camera}" / "data" / f"{i:010d}.png")
            if camera == 2 or right_gt:
                codes(gt / "train" / f"{D1}_sync" / "proj_depth" / "groundtruth" / f"image_0{camera}" / f"{i:010d}.png")
    tail = f"{D1}_sync/proj_depth/groundtruth/image_02"
    lines = [f"2011_09_26/{D1}_sync/image_02/data/{i:010d}.png {tail}/{i:010d}.png 721.5377\n" for i in indices]
    (root / "list.txt").write_text("".join(lines))
    return str(root / "list.txt"), raw, gt


def test_synthdrive_pairs(synth):
    found = training_frames("synthdrive.train", synth, stereo=True)
    assert (len(found), found.listed, found.flip, found.dataset) == (2, 12, "swap", "synthdrive")
    assert sum(found.dropped.counts.values()) == 10
    assert "10 frames left out: the frame has no ground truth by design" in found.dropped.sentences()[0]
    frame = found.frames[0]
    assert "image_03" in str(frame.right_path)
    assert "image_03" in str(frame.right_codes_path)
    assert frame.image().shape == (64, 128, 3)
    assert found.describe().startswith("synthdrive.train: 2 of 12 frames (stereo pairs, flips by rule swap; improved")


def test_exact_maps_of_synthdrive_cover_every_frame(synth):
    found = training_frames("synthdrive.train", synth, gt_kind="depth")
    assert len(found) == 12
    assert (found.frames[0].codes() > 0).mean() > 0.5
    assert found.frames[0].right_path is None
    assert found.flip == "single"


def test_single_scans(synth):
    found = training_frames("synthdrive.train", synth, gt_kind="raw")
    assert found.ground_truth == "single scans"
    assert "velodyne_raw" in str(found.frames[0].codes_path)


def test_digest_depends_on_names_and_order_only(synth, tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copytree(synth, copy)
    one, two = (training_frames("synthdrive.train", root) for root in (synth, copy))
    assert one.sha256 == two.sha256
    assert one.sha256 != training_frames("synthdrive.train", synth, gt_kind="depth").sha256


def test_kitti_list_with_maps_elsewhere(tmp_path):
    listed, raw, gt = kitti_tree(tmp_path)
    found = training_frames(listed, raw, gt_root=gt, stereo=True)
    assert [f.key.index for f in found.frames] == [5, 6, 7]
    assert {f.flip for f in found.frames} == {"swap"}
    assert all(f.kitti for f in found.frames)


def test_auto_never_flips_pairs_without_right_ground_truth(tmp_path):
    listed, raw, gt = kitti_tree(tmp_path, right_gt=False)
    found = training_frames(listed, raw, gt_root=gt, stereo=True)
    assert (len(found), found.flip) == (3, "none")
    with pytest.raises(DataError, match=r"ground truth not found: .*image_03/0000000005\.png; .*stereo\.flip=none"):
        training_frames(listed, raw, gt_root=gt, stereo=True, flip_rule="swap")
    assert training_frames(listed, raw, gt_root=gt, stereo=True, flip_rule="joint").flip == "joint"


def test_missing_right_images_are_counted_or_stop_the_run(tmp_path):
    listed, raw, gt = kitti_tree(tmp_path)
    right = raw / "2011_09_26" / f"{D1}_sync" / "image_03"
    (right / "data" / "0000000006.png").unlink()
    found = training_frames(listed, raw, gt_root=gt, stereo=True)
    assert [f.key.index for f in found.frames] == [5, 7]
    assert found.dropped.sentences() == (
        f"1 frame left out: the right image does not exist (first {D1}_sync/image_02/0000000006)",
    )
    shutil.rmtree(right)
    with pytest.raises(DataError, match=r"image not found: .*image_03.*0000000005.*unpack the right images"):
        training_frames(listed, raw, gt_root=gt, stereo=True)
    assert len(training_frames(listed, raw, gt_root=gt)) == 3


def test_wrong_ground_truth_root_names_the_first_file_and_the_cause(tmp_path):
    listed, raw, gt = kitti_tree(tmp_path)
    with pytest.raises(DataError, match=r"ground truth not found for .*drive_0001 in layouts A, B, C, D under"):
        training_frames(listed, raw, gt_root=tmp_path / "raw")
    part = gt / "empty" / "val"
    part.mkdir(parents=True)
    with pytest.raises(DataError, match="is one part of the archive"):
        training_frames(listed, raw, gt_root=part)
    with pytest.raises(DataError, match="ground-truth root not found"):
        training_frames(listed, raw, gt_root=tmp_path / "nothing")


def test_one_missing_map_stops_single_images_unless_allowed(tmp_path):
    listed, raw, gt = kitti_tree(tmp_path)
    next(gt.rglob("image_02/0000000006.png")).unlink()
    with pytest.raises(
        DataError, match=r"ground truth not found: .*0000000006\.png; the unpacked archive is incomplete"
    ):
        training_frames(listed, raw, gt_root=gt)
    found = training_frames(listed, raw, gt_root=gt, allow_missing=True)
    assert len(found) == 2
    assert found.dropped.counts.total() == 1


def test_missing_image(tmp_path):
    listed, raw, gt = kitti_tree(tmp_path)
    next(raw.rglob("image_02/data/0000000005.png")).unlink()
    with pytest.raises(DataError, match=r"image not found: .*0000000005 \(extensions tried"):
        training_frames(listed, raw, gt_root=gt)


def test_right_frames_do_not_start_pairs(tmp_path):
    _, raw, gt = kitti_tree(tmp_path)
    (tmp_path / "both.txt").write_text("".join(f"2011_09_26/{D1}_sync 5 {s}\n" for s in "lr"))
    found = training_frames(str(tmp_path / "both.txt"), raw, gt_root=gt, stereo=True)
    assert [f.key.camera for f in found.frames] == [2]
    assert "pairs start from the left one" in found.dropped.sentences()[0]
    assert len(training_frames(str(tmp_path / "both.txt"), raw, gt_root=gt)) == 2


def stereo_tree(root, sizes=((40, 88), (40, 87))):
    for n, shape in enumerate(sizes):
        sequence = f"2018-07-0{n + 1}-16-11-56"
        stem = f"{sequence}_2018-07-0{n + 1}-16-12-06-408"
        for kind in ("left-image", "right-image"):
            picture(root / f"train-{kind}" / sequence / f"{stem}.jpg", shape)
        codes(root / "train-depth-map" / sequence / f"{stem}.png", shape)
    return root


def test_drivingstereo_of_two_widths(tmp_path):
    found = training_frames("drivingstereo.train", stereo_tree(tmp_path), stereo=True)
    assert (len(found), found.flip) == (2, "none")
    assert {f.window for f in found.frames} == {(40, 87)}
    settings = Augmentation((32, 64), mode="resize")
    samples = [make_sample(f, settings) for f in found.frames]
    assert {s.image.shape for s in samples} == {(32, 64, 3)}
    assert {s.codes.shape for s in samples} == {(40, 87)}
    with pytest.raises(DataError, match=r"DrivingStereo has no right maps: set stereo\.flip=none"):
        training_frames("drivingstereo.train", tmp_path, stereo=True, flip_rule="swap")
    shutil.rmtree(tmp_path / "train-right-image")
    with pytest.raises(DataError, match="train-right-image: expected under"):
        training_frames("drivingstereo.train", tmp_path, stereo=True)


def test_folders(tmp_path):
    for name in ("a/1", "a/2", "b/1"):
        picture(tmp_path / "images" / f"{name}.png")
        codes(tmp_path / "maps" / f"{name}.png")
        picture(tmp_path / "right" / f"{name}.png")
    found = training_frames(
        "folder", tmp_path / "images", gt_root=tmp_path / "maps", right_root=tmp_path / "right", stereo=True
    )
    assert (found.names, found.flip) == (("a/1", "a/2", "b/1"), "none")
    assert not found.frames[0].kitti
    with pytest.raises(DataError, match="give the folder of right images"):
        training_frames("folder", tmp_path / "images", gt_root=tmp_path / "maps", stereo=True)
    with pytest.raises(UsageError, match="give --gt"):
        training_frames("folder", tmp_path / "images")


def test_nyu_list_holds_millimetres(tmp_path):
    picture(tmp_path / "bath" / "rgb_00045.jpg")
    codes(tmp_path / "bath" / "sync_depth_00045.png", value=2500)
    (tmp_path / "nyu.txt").write_text("/bath/rgb_00045.jpg /bath/sync_depth_00045.png 518.8579\n")
    found = training_frames(str(tmp_path / "nyu.txt"), tmp_path)
    assert make_sample(found.frames[0], Augmentation(enabled=False)).metres().max() == 2.5


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"split": "synthdrive.trian"}, UsageError, "did you mean"),
        ({"data_root": None}, UsageError, "give --data-root"),
        ({"data_root": "nowhere"}, DataError, "data root not found"),
        ({"gt_kind": "exact"}, UsageError, "unknown ground truth"),
        ({"flip_rule": "mirror"}, UsageError, "unknown flip rule"),
        ({"split": "nyu"}, UsageError, "test set"),
    ],
)
def test_wrong_arguments(synth, arguments, error, words):
    known = {"split": "synthdrive.train", "data_root": synth} | arguments
    with pytest.raises(error, match=words):
        training_frames(known.pop("split"), known.pop("data_root"), **known)


def test_list_without_frames(tmp_path, synth):
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(DataError, match="no samples"):
        training_frames(str(tmp_path / "empty.txt"), synth)


def test_maps_missing_beyond_those_by_design(synth, tmp_path):
    shutil.copytree(synth, tmp_path / "s")
    for path in (tmp_path / "s").rglob("proj_depth/groundtruth/*/*.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"ground truth not found: .*0000000005"):
        training_frames("synthdrive.train", tmp_path / "s", stereo=True)


def test_images_and_maps_of_two_sizes(tmp_path):
    listed, raw, gt = kitti_tree(tmp_path)
    picture(next(raw.rglob("image_03/data/0000000005.png")), (24, 60))
    frame = training_frames(listed, raw, gt_root=gt, stereo=True).frames[0]
    with pytest.raises(DataError, match=r"different sizes \(24x64, 24x60"):
        make_sample(frame, Augmentation((16, 32)))


def test_rows_without_ground_truth_in_a_list_that_is_not_kittis(tmp_path):
    for i in (1, 2):
        picture(tmp_path / "scene" / f"rgb_{i}.png")
    codes(tmp_path / "scene" / "sync_depth_1.png")
    lines = "scene/rgb_1.png scene/sync_depth_1.png 518.8579\nscene/rgb_2.png None 518.8579\n"
    (tmp_path / "nyu.txt").write_text(lines)
    found = training_frames(str(tmp_path / "nyu.txt"), tmp_path)
    assert len(found) == 1
    assert "1 frame left out: its list says None for the ground truth" in found.dropped.sentences()[0]
