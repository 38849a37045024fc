"""Every published split, exactly: counts and checksums are those of the public lists."""

import hashlib

import pytest
import yaml

from adubench.datasets.frames import kitti_frame
from adubench.datasets.kitti_splits import all_drives, frame_counts, official_val_drives
from adubench.datasets.splits import ALIASES, SPLITS, checksum, load_split
from adubench.datasets.tables import expand, load_table, unpack_bits
from adubench.errors import AdubenchError, DataError, UsageError

ON_TABLES = [name for name, info in SPLITS.items() if not info.on_disk]

# name -> (count, SHA-256 of the set), from the published lists; None where no list is published.
PUBLISHED = {
    "eigen_test": (697, "6ea7a86f4d95d86efa6f298dfd0b6b09adbb35cd169f76a9560ea314a7abb1f6"),
    "eigen_benchmark": (652, "791e01527005cd9bbeb059302c29df0dd6c41d8d1e2d2ef6ed4c49e25ad60a13"),
    "eigen_benchmark_val161": (161, "f2b59671eedc24f32904f0d9cbeecbb6d4ae7bf490064f36c52ef24cd5a49791"),
    "eigen_train": (23158, "4d53d408f194909641b9f7345ae2f3e58d94ae91c275121252b55675c5558f45"),
    "eigen_full.train": (45200, "5a5b67b78bac449d4fe1275a7b32923231aaec2237d5c0c2d81495859014dcdc"),
    "eigen_full.val": (1776, "00bc060ad42e1a7f8a3bb538d4b3186976bb68ca9736439b0b5f5f82985c54c0"),
    "eigen_zhou.train": (39810, "fc83213d8be10d42b9ab648666916ac6917ddf46200d103336c27d76c0f44f66"),
    "eigen_zhou.val": (4424, "ed80736766008d714bc5ac04a4deec0c482f8f00ae937d59a5fdbeeebd31dbac"),
    "eigen_zhou.test_700": (700, "98c44069ccdea7d8e285606d74d492dc9ab5948bcc77076f9e9e1d039b957cf2"),
    "kitti_benchmark_moving.train": (72084, "932832aff17f2f11ad1ecd6610e17d0fa064a2a26a83d2fb3f2eb1004aba9dfb"),
    "kitti_benchmark_moving.val": (6060, "08bbb8d0d872a4dfc9793c92ab139d626aa79d7e96632dd81ab362e1abdd47e8"),
    "kitti_benchmark_moving.eigen_benchmark_train": (
        71633,
        "3bd75e1caae8a353b731826d823a3b079e2c4e2bbc6f0f6ab7b591fd77e3e8c7",
    ),
    "kitti_benchmark_moving.eigen_benchmark_val": (
        5915,
        "307779eed7d002b4912f602d0ea56677d1966fbae4b790097b17af5a8b1ec133",
    ),
    "kitti_official.val": (6852, None),
    "kitti_official.val_selection": (1000, "f4134240caa377fc50dc9420228424b0e0ddf4e2ea2ee7b12d179f3d32c3a16b"),
    "kitti_official.test": (500, None),
    "kitti_official.completion_test": (1000, None),
}


def published_checksum(frames):
    """The definition of the checksum, written down again."""
    keys = sorted({(f.drive, f.index, f.side) for f in frames})
    return hashlib.sha256("".join(f"{d} {i:010d} {s}\n" for d, i, s in keys).encode()).hexdigest()


@pytest.fixture(scope="module")
def splits():
    return {name: load_split(name) for name in ON_TABLES}


def test_the_table_above_is_complete():
    assert set(PUBLISHED) == set(ON_TABLES)


@pytest.mark.parametrize("name", ON_TABLES)
def test_split_equals_the_published_list(splits, name):
    count, digest = PUBLISHED[name]
    split = splits[name]
    assert len(split.frames) == len(set(split.frames)) == split.count == count == SPLITS[name].count
    if digest is not None:
        assert published_checksum(split.frames) == split.sha256 == digest


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("eigen_test", "9c8a8cad73a11426414924404fb2edc1af98bfe3626060d4dd3bec6402893ab7"),
        ("eigen_benchmark", "1c873933c8f385927cff58160307eba5e7c9dd3581b6e52d442cd9f5e255f6c5"),
        ("eigen_benchmark_val161", "46b4971b9704f7d4ddfb94bca9be0fac625d0b9dd78612c0071bbeb3e2f4d5ab"),
    ],
)
def test_official_order(splits, name, digest):
    text = "".join(f"{f.drive} {f.index:010d} {f.side}\n" for f in splits[name].frames)
    assert hashlib.sha256(text.encode()).hexdigest() == digest
    assert checksum(splits[name].frames, ordered=True) == digest


def test_first_images_of_eigen_test_are_in_the_public_order(splits):
    assert [f.index for f in splits["eigen_test"].frames[:4]] == [69, 54, 42, 57]


def test_eigen_has_45_images_without_improved_map(splits):
    eigen = splits["eigen_test"]
    assert len(eigen.no_gt) == 45
    assert eigen.no_gt <= set(eigen.frames)
    assert tuple(f for f in eigen.frames if f not in eigen.no_gt) == splits["eigen_benchmark"].frames


def test_relations_between_splits(splits):
    eigen, train = splits["eigen_test"], splits["eigen_train"]
    val = official_val_drives()
    assert (len(train.drives), len(eigen.drives)) == (33, 28)
    small = {d for d, category in all_drives().items() if category in ("city", "residential", "road")}
    assert set(train.drives) | set(eigen.drives) == small
    assert len(small) == 61
    counts = frame_counts()
    assert sum(counts[d] for d in train.drives) == 23488
    assert 2 * sum(counts[d] - 10 for d in val) == 6852
    assert len(val & set(train.drives)) == 5
    assert len(val & set(eigen.drives)) == 7
    assert val - set(train.drives) - set(eigen.drives) == {"2011_09_28_drive_0037"}
    on_val = [f for f in eigen.frames if f.drive in val]
    assert (len(eigen.frames) - len(on_val), len(on_val)) == (522, 175)
    on_val = [f for f in splits["eigen_benchmark"].frames if f.drive in val]
    assert (652 - len(on_val), len(on_val)) == (491, 161)
    selection = set(splits["kitti_official.val_selection"].frames)
    assert (len(selection & set(train.frames)), len(selection & set(eigen.frames))) == (103, 7)
    assert sum(f.side == "l" for f in selection) == 500


def test_derived_splits(splits):
    full = {f for part in ("train", "val") for f in splits[f"eigen_full.{part}"].frames}
    counts = frame_counts()
    left = {f for f in full if f.side == "l" and 5 <= f.index < counts[f.drive] - 5}
    assert left == set(splits["eigen_train"].frames)
    train, val = set(splits["eigen_zhou.train"].frames), set(splits["eigen_zhou.val"].frames)
    assert not train & val
    assert len({(f.drive, f.index) for f in train | val}) == 22117
    assert set(splits["eigen_zhou.test_700"].frames) <= val
    eigen = set(splits["eigen_test"].frames)
    for part, removed in (("train", 451), ("val", 145)):
        whole = set(splits[f"kitti_benchmark_moving.{part}"].frames)
        assert len(whole & eigen) == removed
        assert set(splits[f"kitti_benchmark_moving.eigen_benchmark_{part}"].frames) == whole - eigen
    assert len(all_drives()) == 151


def test_frames_without_map_are_the_ends_of_drives(splits):
    no_gt = splits["eigen_full.train"].no_gt | splits["eigen_full.val"].no_gt
    assert len(no_gt) == 33 * 10 * 2
    assert kitti_frame("2011_09_26_drive_0001", 107) in no_gt


@pytest.mark.parametrize(("alias", "full"), ALIASES.items())
def test_aliases_name_splits(alias, full):
    assert full in SPLITS
    if not SPLITS[full].on_disk:
        assert load_split(alias).name == full


def test_default_protocols():
    assert SPLITS["eigen_test"].default_protocol == "kitti-eigen"
    assert SPLITS["kitti_official.val_selection"].default_protocol == "kitti-official"
    assert SPLITS["drivingstereo.test"].default_protocol == "drivingstereo"
    assert SPLITS["synthdrive.test"].default_protocol == "synthdrive"
    assert SPLITS["nyu"].default_protocol == "nyu"


def test_unknown_name_has_a_suggestion():
    with pytest.raises(UsageError, match="did you mean 'eigen_train'"):
        load_split("eigen_trian")


@pytest.mark.parametrize("name", [name for name, info in SPLITS.items() if info.on_disk])
def test_splits_on_disk_ask_for_a_root(name):
    with pytest.raises(UsageError, match="data-root"):
        load_split(name)


@pytest.mark.parametrize("name", [name for name, info in SPLITS.items() if info.on_disk])
def test_splits_on_disk_explain_an_empty_root(name, tmp_path):
    with pytest.raises(AdubenchError, match=tmp_path.name):
        load_split(name, tmp_path)


def test_damaged_table_is_an_error(monkeypatch):
    import adubench.datasets.kitti_splits as module

    table = yaml.safe_load(yaml.safe_dump(load_table("eigen_test")))
    table["drives"]["2011_09_26_drive_0002"]["frames"] = ["0:64:3", "69:76:3", 70]
    monkeypatch.setattr(module, "load_table", lambda _name: table)
    with pytest.raises(DataError, match="damaged"):
        load_split("eigen_test")


def test_tokens_and_bits():
    assert expand(["0:6:2", 9, "7:9"]) == [0, 2, 4, 7, 8, 9]
    assert unpack_bits("BQE=", 10) == {0, 2, 8}


def test_synthdrive_root(tmp_path):
    (tmp_path / "synthdrive.json").write_text(
        '{"train": ["2031_01_01_drive_0001_sync"], "val": [], "test": ["2031_01_01_drive_0002_sync"],'
        ' "frames": {"2031_01_01_drive_0001_sync": 12, "2031_01_01_drive_0002_sync": 14}}'
    )
    split = load_split("synthdrive", tmp_path)
    assert len(split.frames) == 14
    assert [f.index for f in split.frames if f not in split.no_gt] == [5, 6, 7, 8]
    assert split.frames[0].name == "2031_01_01_drive_0002_sync/image_02/0000000000"
    with pytest.raises(DataError, match="no val drives"):
        load_split("synthdrive.val", tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"test": 3}', '{"test": ["a"], "frames": {}}', '{"complete": false}'])
def test_broken_synthdrive_index(tmp_path, text):
    (tmp_path / "synthdrive.json").write_text(text)
    with pytest.raises(DataError, match=r"synthdrive\.json"):
        load_split("synthdrive", tmp_path)


def test_official_train_is_what_is_on_disk(tmp_path, trees):
    for i, camera in ((5, 2), (5, 3), (6, 2)):
        trees.save_png(trees.gt_path(tmp_path, "A", "2011_09_26_drive_0001", i, camera), trees.depth_codes())
    trees.save_png(trees.gt_path(tmp_path, "A", "2011_09_26_drive_0002", 5), trees.depth_codes())
    split = load_split("kitti_official.train", tmp_path)
    assert [(f.index, f.camera) for f in split.frames] == [(5, 2), (5, 3), (6, 2)]
    assert split.count == 85898
    assert "137 of 138" in split.notes[0]
