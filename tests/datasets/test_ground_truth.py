"""Sources of ground truth: what they read, what they say when something is missing."""

import pickle

import numpy as np
import pytest

from adubench.datasets.frames import kitti_frame
from adubench.datasets.ground_truth import FolderGroundTruth, open_ground_truth
from adubench.datasets.splits import load_split
from adubench.errors import DataError, UsageError

D = "2011_09_26_drive_0001"
VAL = "2011_09_26_drive_0079"
FRAMES = [kitti_frame(D, 5), kitti_frame(D, 6), kitti_frame(VAL, 5)]


def write_layout(root, trees, layout, frames=FRAMES):
    for k, f in enumerate(frames):
        trees.save_png(trees.gt_path(root, layout, f.drive, f.index, f.camera), trees.depth_codes(k))


def same(sparse, codes):
    flat = codes.reshape(-1)
    np.testing.assert_array_equal(sparse.index, np.flatnonzero(flat))
    np.testing.assert_array_equal(sparse.metres(), (flat[flat > 0] / 256).astype(np.float32))
    assert sparse.shape == codes.shape


@pytest.mark.parametrize("layout", "ABCD")
def test_improved_maps_of_every_layout(tmp_path, trees, layout):
    write_layout(tmp_path, trees, layout)
    source = open_ground_truth(trees.split_of(FRAMES), tmp_path, None)
    source = pickle.loads(pickle.dumps(source))
    assert source.kind == "improved PNG"
    assert source.layout.startswith(layout)
    assert source.frames == tuple(FRAMES)
    assert source.missing == ()
    for k, frame in enumerate(FRAMES):
        same(source.read(frame), trees.depth_codes(k))
        assert source.paths(frame) == (trees.gt_path(tmp_path, layout, frame.drive, frame.index),)


def test_expected_gaps_are_no_fault_and_others_are_named(tmp_path, trees):
    write_layout(tmp_path, trees, "A", FRAMES[:2])
    early = kitti_frame(D, 0)
    source = open_ground_truth(trees.split_of([early, *FRAMES], [early]), None, tmp_path)
    assert source.frames == tuple(FRAMES[:2])
    assert len(source.missing) == 1
    assert "unpack val/" in source.missing[0]


def test_no_map_at_all_is_an_error(tmp_path, trees):
    with pytest.raises(DataError, match=f"ground truth not found for {D}"):
        open_ground_truth(trees.split_of(FRAMES), tmp_path, None)
    with pytest.raises(DataError, match="root not found"):
        open_ground_truth(trees.split_of(FRAMES), tmp_path / "absent", None)
    with pytest.raises(UsageError, match="--data-root"):
        open_ground_truth(trees.split_of(FRAMES), None, None)
    with pytest.raises(UsageError, match="--gt"):
        open_ground_truth(None, None, None)


def test_projected_scans(tmp_path, trees):
    frame, other = kitti_frame(D, 0), kitti_frame(D, 1)
    folder = tmp_path / "2011_09_26"
    trees.write_scan(folder / f"{D}_sync/velodyne_points/data/0000000000.bin")
    with pytest.raises(DataError, match="calibration not found"):
        open_ground_truth(trees.split_of([frame]), None, tmp_path, "raw")
    trees.write_calibration(folder)
    source = open_ground_truth(trees.split_of([frame, other]), None, tmp_path, "raw")
    source = pickle.loads(pickle.dumps(source))
    assert source.frames == (frame,)
    assert "0000000001.bin" in source.missing[0]
    depth = source.read(frame)
    assert depth.shape == (24, 64)
    assert len(depth.index) > 50
    assert source.kind.startswith("raw")
    assert [p.name for p in source.paths(frame)] == [
        "0000000000.bin",
        "calib_cam_to_cam.txt",
        "calib_velo_to_cam.txt",
    ]
    assert source.focal_baseline(frame) == pytest.approx(21.6)
    # A point 10 m ahead of the scanner: 10 m along its axis, 9.73 m from the camera.
    np.array([[10, 0, 0, 0]], "<f4").tofile(folder / f"{D}_sync/velodyne_points/data/0000000000.bin")
    assert source.read(frame).metres().tolist() == [10.0]


def test_val_selection(tmp_path, trees):
    split = load_split("official")
    codes = trees.depth_codes(3)
    folder = tmp_path / "depth_selection/val_selection_cropped/groundtruth_depth"
    first = split.frames[0]
    trees.save_png(folder / f"{first.drive}_sync_groundtruth_depth_{first.index:010d}_image_0{first.camera}.png", codes)
    source = open_ground_truth(split, tmp_path, None, "official")
    assert source.frames == (first,)
    assert len(source.missing) == 999
    same(source.read(first), codes)
    assert source.kind.startswith("improved")


def test_val_selection_missing(tmp_path):
    with pytest.raises(DataError, match="data_depth_selection"):
        open_ground_truth(load_split("official"), tmp_path, None, "official")


def test_anonymous_test_sets_have_no_truth(tmp_path):
    with pytest.raises(DataError, match="no public ground truth"):
        open_ground_truth(load_split("kitti_official.test"), tmp_path, None)


@pytest.mark.parametrize("name", ["{drive}_sync_{frame}", "{drive}_{frame}", "{drive}_sync/image_02/{frame}"])
def test_maps_by_name(tmp_path, trees, name):
    for k, f in enumerate(FRAMES):
        path = tmp_path / f"{name.format(drive=f.drive, frame=f'{f.index:010d}')}.png"
        trees.save_png(path, trees.depth_codes(k))
    source = open_ground_truth(trees.split_of(FRAMES), tmp_path, None)
    assert source.frames == tuple(FRAMES)
    assert source.kind.startswith("improved")
    same(source.read(FRAMES[1]), trees.depth_codes(1))


@pytest.mark.parametrize("kind", ["npz", "stack", "h5", "pack"])
def test_maps_of_a_split_in_one_file(tmp_path, trees, kind):
    early = kitti_frame(D, 0)
    split = trees.split_of([early, *FRAMES], [early])
    maps = {f.name: (trees.depth_codes(k) / 256).astype(np.float32) for k, f in enumerate(FRAMES)}
    path = tmp_path / ("gt.h5" if kind in ("h5", "pack") else "gt.npy" if kind == "stack" else "gt.npz")
    write_file(path, kind, maps, trees)
    source = pickle.loads(pickle.dumps(open_ground_truth(split, path, None)))
    assert source.frames == tuple(FRAMES)
    assert source.paths(FRAMES[0]) == (path,)
    for k, f in enumerate(FRAMES):
        same(source.read(f), trees.depth_codes(k))


def write_file(path, kind, maps, trees):
    import h5py

    from adubench.io.maps import DepthMap, SparseDepth
    from adubench.io.packed import PackWriter

    if kind == "npz":
        np.savez(path, **maps)
    elif kind == "stack":
        np.save(path, np.stack(list(maps.values())))
    elif kind == "h5":
        with h5py.File(path, "w") as file:
            for name, values in maps.items():
                file[name] = values
    else:
        with PackWriter(path, "ground_truth") as writer:
            for name, values in maps.items():
                writer.add(name, SparseDepth.from_map(DepthMap(values)))


def test_stack_of_another_length(tmp_path, trees):
    np.save(tmp_path / "gt.npy", np.ones((5, 4, 4), np.float32))
    with pytest.raises(DataError, match="5 maps in one array, but the split has 3 frames"):
        open_ground_truth(trees.split_of(FRAMES), tmp_path / "gt.npy", None)


def test_foreign_names_in_a_file(tmp_path, trees):
    np.savez(tmp_path / "gt.npz", a=np.ones((4, 4)))
    with pytest.raises(DataError, match="it holds names like 'a'"):
        open_ground_truth(trees.split_of(FRAMES), tmp_path / "gt.npz", None)


@pytest.mark.parametrize("kind", ["npz", "h5", "pack"])
def test_explicit_files_pair_by_stem(tmp_path, trees, kind):
    maps = {name: (trees.depth_codes(k) / 256).astype(np.float32) for k, name in enumerate(("a/x", "a/y", "b/x"))}
    path = tmp_path / ("gt.npz" if kind == "npz" else "gt.h5")
    write_file(path, kind, maps, trees)
    source = pickle.loads(pickle.dumps(FolderGroundTruth(path)))
    assert [f.name for f in source.frames] == ["a/x", "a/y", "b/x"]
    assert [f.drive for f in source.frames] == ["a", "a", "b"]
    same(source.read(source.frames[1]), trees.depth_codes(1))


def test_explicit_folder(tmp_path, trees):
    trees.save_png(tmp_path / "a/x.png", trees.depth_codes(0))
    np.save(tmp_path / "y.npy", np.where(trees.depth_codes(1) > 0, 2.5, np.nan))
    source = open_ground_truth(None, tmp_path, None)
    assert [f.name for f in source.frames] == ["a/x", "y"]
    same(source.read(source.frames[0]), trees.depth_codes(0))
    assert set(source.read(source.frames[1]).metres().tolist()) == {2.5}
    assert source.paths(source.frames[0]) == (tmp_path / "a/x.png",)
    half = FolderGroundTruth(tmp_path, scale=128.0)
    assert half.read(source.frames[0]).metres()[0] == 2 * source.read(source.frames[0]).metres()[0]


def test_two_files_of_one_name(tmp_path, trees):
    trees.save_png(tmp_path / "x.png", trees.depth_codes())
    np.save(tmp_path / "x.npy", np.ones((4, 4)))
    with pytest.raises(DataError, match=r"x\.(png|npy) and .*x\.(png|npy)"):
        FolderGroundTruth(tmp_path)


def test_empty_missing_and_unfit(tmp_path):
    with pytest.raises(DataError, match=r"no \.png or \.npy"):
        FolderGroundTruth(tmp_path)
    with pytest.raises(DataError, match="not found"):
        FolderGroundTruth(tmp_path / "absent")
    (tmp_path / "x.png").write_text("not a picture")
    source = FolderGroundTruth(tmp_path)
    with pytest.raises(DataError, match=r"x\.png"):
        source.read(source.frames[0])


def test_prediction_pack_is_no_ground_truth(tmp_path):
    from adubench.io.maps import DepthMap
    from adubench.io.packed import PackWriter

    with PackWriter(tmp_path / "p.h5", "prediction") as writer:
        writer.add("a", DepthMap(np.ones((4, 4), np.float32)))
    with pytest.raises(DataError, match="pack of predictions"):
        FolderGroundTruth(tmp_path / "p.h5")


def test_nyu(tmp_path, trees):
    codes = np.full((6, 8), 2500, np.uint16)
    trees.save_png(tmp_path / "bathroom/sync_depth_00045.png", codes)
    trees.save_image(tmp_path / "bathroom/rgb_00045.jpg")
    split = load_split("nyu", tmp_path)
    assert split.count == 654
    source = open_ground_truth(split, None, tmp_path, "depth")
    assert [(f.name, f.drive) for f in source.frames] == [("bathroom/rgb_00045", "bathroom")]
    assert set(source.read(source.frames[0]).metres().tolist()) == {2.5}


def test_list_of_nyu(tmp_path, trees):
    trees.save_png(tmp_path / "nyu/bathroom/sync_depth_00045.png", np.full((6, 8), 2500, np.uint16))
    path = tmp_path / "nyu.txt"
    path.write_text(
        "/bathroom/rgb_00045.jpg /bathroom/sync_depth_00045.png 518.8579\n/b/rgb_1.jpg /b/sync_depth_1.png 518\n"
    )
    source = open_ground_truth(load_split(str(path)), tmp_path / "nyu", None)
    assert [f.name for f in source.frames] == ["bathroom/rgb_00045"]
    assert "sync_depth_1.png" in source.missing[0]
    assert set(source.read(source.frames[0]).metres().tolist()) == {2.5}


def test_root_one_level_too_deep(tmp_path, trees):
    write_layout(tmp_path, trees, "A", FRAMES[:2])
    source = open_ground_truth(trees.split_of(FRAMES), tmp_path / "train", None)
    assert "give the folder above it" in source.missing[0]
