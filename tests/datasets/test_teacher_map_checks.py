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
