"""Damage and wrong sizes of stored teacher maps are found before any map is decoded."""

import numpy as np
import pytest
from PIL import Image

from adubench.datasets.teacher_map_checks import check_map_files
from adubench.datasets.teacher_maps import TeacherRecord, open_teacher_maps, pack_teacher_maps, write_record
from adubench.datasets.teacher_maps import write_teacher_png as write_png
from adubench.errors import DataError

RECORD = TeacherRecord("any", 80.0, split="s", split_sha256="", frames=2)
STEMS = {"a/1": "a_1", "a/2": "a_2"}


def folder(tmp_path, shapes=((352, 1216), (352, 1216))):
    for name, shape in zip(STEMS, shapes, strict=True):
        write_png(tmp_path, f"{name}.png", np.full(shape, 9.0, np.float32), RECORD)
    write_record(tmp_path, RECORD)
    return open_teacher_maps(tmp_path)


def packed(tmp_path, shapes=((352, 1216), (352, 1216))):
    with pack_teacher_maps(tmp_path / "maps.h5", RECORD) as writer:
        for name, shape in zip(STEMS, shapes, strict=True):
            writer.write(f"{name}.png", np.full(shape, 9.0, np.float32))
    return open_teacher_maps(tmp_path / "maps.h5")


@pytest.mark.parametrize("store", [folder, packed])
@pytest.mark.parametrize("shapes", [((352, 1216),) * 2, ((375, 1242),) * 2, ((352, 1216), (375, 1242))])
def test_maps_of_the_window_or_the_frame_pass(tmp_path, store, shapes):
    check_map_files(store(tmp_path, shapes), STEMS, "kb", lambda name: (375, 1242))
    check_map_files(store(tmp_path, shapes), STEMS, "kb", lambda name: None)


@pytest.mark.parametrize("store", [folder, packed])
def test_a_map_of_another_size_is_named(tmp_path, store):
    maps = store(tmp_path, ((352, 1216), (352, 704)))
    with pytest.raises(DataError, match=r"teacher map of a/2 .* 352x704 pixels, expected 352x1216 .* or 375x1242"):
        check_map_files(maps, STEMS, "kb", lambda name: (375, 1242))


def test_the_images_are_asked_for_their_size_once_for_each_size_of_the_maps(tmp_path):
    asked = []
    check_map_files(folder(tmp_path), STEMS, "kb", lambda name: asked.append(name) or (375, 1242))
    assert asked == ["a/1"]


@pytest.mark.parametrize(("keep", "words"), [(-1, "truncated PNG"), (40, "truncated PNG"), (20, "truncated PNG"),
                                             (0, "empty file")])  # fmt: skip
def test_a_cut_off_map_is_named(tmp_path, keep, words):
    maps = folder(tmp_path)
    path = tmp_path / "a_2.png"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=f"a_2.png.*{words}"):
        check_map_files(maps, STEMS, "kb", lambda name: (375, 1242))


def test_eight_bits_are_no_map(tmp_path):
    maps = folder(tmp_path)
    Image.fromarray(np.zeros((352, 1216), np.uint8)).save(tmp_path / "a_1.png")
    with pytest.raises(DataError, match=r"a_1\.png: expected 16-bit single channel, got 8-bit single channel"):
        check_map_files(maps, STEMS, "kb", lambda name: (375, 1242))


def test_a_map_that_went_away_is_named(tmp_path):
    maps = folder(tmp_path)
    (tmp_path / "a_1.png").unlink()
    with pytest.raises(DataError, match=r"a_1\.png: cannot be read"):
        check_map_files(maps, STEMS, "kb", lambda name: None)


@pytest.mark.parametrize("store", [folder, packed])
def test_an_empty_map_and_one_beyond_the_range_are_named(tmp_path, store):
    maps = store(tmp_path)
    for depth, words in ((0.0, r"100\.0% of its pixels have no depth"), (99.0, r"100\.0% have 80 m or more")):
        values = np.full((352, 1216), depth, np.float32)
        values[0, :9] = 5.0
        if store is folder:
            write_png(tmp_path, "a/2.png", values, RECORD)
        else:
            with pack_teacher_maps(tmp_path / "maps.h5", RECORD) as writer:
                writer.write("a/1.png", np.full((352, 1216), 9.0, np.float32))
                writer.write("a/2.png", values)
        with pytest.raises(DataError, match=rf"a_2.* teaches nothing.*{words}"):
            check_map_files(maps, STEMS, "kb", lambda name: (375, 1242))


@pytest.mark.parametrize("store", [folder, packed])
def test_one_changed_pixel_changes_the_record_of_a_run_and_a_copy_does_not(tmp_path, store):
    """Checksums of PNG and gzip tell, whatever the size of the file and the time of its change are."""
    depth = np.linspace(1, 70, 352 * 1216).reshape(352, 1216).astype(np.float32)
    records = []
    for name, change in (("one", 0.0), ("copy", 0.0), ("other", 1.0)):
        root = tmp_path / name
        root.mkdir()
        maps = store(root)
        depth[100, 100] += change
        if store is folder:
            write_png(root, "a/2.png", depth, RECORD)
        else:
            with pack_teacher_maps(root / "maps.h5", RECORD) as writer:
                writer.write("a/1.png", np.full((352, 1216), 9.0, np.float32))
                writer.write("a/2.png", depth)
        records.append(check_map_files(maps, STEMS, "kb", lambda name: None))
    assert records[0]["sha256"] == records[1]["sha256"] != records[2]["sha256"]
    assert records[0]["newest"] == ("a_2.png" if store is folder else "maps.h5")
