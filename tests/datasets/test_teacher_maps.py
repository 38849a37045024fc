"""Teacher maps on disk: coding, names, records, and what training refuses."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from adubench.datasets.frames import kitti_frame
from adubench.datasets.teacher_maps import (
    Expected,
    TeacherRecord,
    decode_teacher,
    encode_teacher,
    frames_sha256,
    open_teacher_maps,
    pack_teacher_maps,
    read_record,
    read_unfinished,
    release_record,
    same_maker,
    teacher_map_name,
    write_record,
    write_teacher_png,
)
from adubench.errors import DataError
from adubench.io.depth_png import write_depth_png
from tests.models.tie_kd_golden import ROOT, assert_near, load

IMAGE = "2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.png"
FRAME = kitti_frame("2011_09_26_drive_0002", 69)
FRAMES = {FRAME.name: FRAME.aliases()}
RECORD = TeacherRecord(
    "adabins", 80.0, split="eigen_train", split_sha256=frames_sha256(FRAMES), frames=1, weights_sha256="ab" * 32
)
DEPTH = np.linspace(0, 79.9, 240, dtype=np.float32).reshape(12, 20)


def test_decoding():
    golden = load("teacher_png_decode.npz")
    assert_near(decode_teacher(golden["png_u16"], 80), golden["depth_m"], 1e-6)


def test_encoding_truncates():
    codes = encode_teacher(np.array([[0.0, 0.001, 0.0013, 10.0, 80.0, 90.0, np.nan, np.inf, -1.0]]), 80)
    assert codes.tolist() == [[0, 0, 1, 8191, 65535, 65535, 0, 65535, 0]]
    error = DEPTH - decode_teacher(encode_teacher(DEPTH, 80), 80)
    assert -1e-5 < error.min() <= error.max() < 80 / 65535 + 1e-5


def test_small_maps_are_decoded_too():
    """The release leaves maps whose largest code is under 10000 (12.2 m) undecoded in its evaluation."""
    assert decode_teacher(np.array([[8191]], np.uint16), 80)[0, 0] == pytest.approx(10, abs=2e-3)


def test_nyu_maps_use_65535_everywhere():
    assert decode_teacher(np.array([[65535]], np.uint16), 10)[0, 0] == 10


def test_names():
    expected = json.loads((ROOT / "teacher_png_name.json").read_text())
    assert teacher_map_name(expected["image"]) == expected["teacher_file"]
    assert teacher_map_name("data/nyu/sync/room/rgb_00045.jpg") == "data_nyu_sync_room_rgb_00045.png"


def folder(tmp_path, record=RECORD):
    write_teacher_png(tmp_path, IMAGE, DEPTH, record)
    write_record(tmp_path, record)
    return tmp_path


def packed(tmp_path, record=RECORD):
    path = tmp_path / "maps.h5"
    with pack_teacher_maps(path, record) as writer:
        writer.write(IMAGE, DEPTH)
    return path


@pytest.mark.parametrize("store", [folder, packed])
@pytest.mark.parametrize("encoding", ["tie-kd", "png256"])
def test_maps_come_back(tmp_path, store, encoding):
    maps = open_teacher_maps(store(tmp_path, replace(RECORD, encoding=encoding)), Expected(max_depth=80))
    stems = maps.check_complete(FRAMES)
    assert stems == {FRAME.name: teacher_map_name(IMAGE).removesuffix(".png")}
    assert len(maps) == 1
    again = pickle.loads(pickle.dumps(maps))
    np.testing.assert_allclose(again.read(stems[FRAME.name]), DEPTH, atol=1 / 256 + 1e-5)


def test_kitti_pngs_are_read_when_the_record_says_so(tmp_path):
    write_depth_png(tmp_path / teacher_map_name(IMAGE), DEPTH + 1)
    write_record(tmp_path, replace(RECORD, encoding="png256"))
    maps = open_teacher_maps(tmp_path)
    np.testing.assert_allclose(maps.read(maps.find(FRAME.aliases())), DEPTH + 1, atol=1 / 512)


@pytest.mark.parametrize("store", [folder, packed])
@pytest.mark.parametrize(
    ("expected", "message"),
    [
        (Expected(max_depth=10.0), "wrong scale.*80 m, the recipe 10 m"),
        (Expected(split_sha256=frames_sha256(["other"])), "another split, 'eigen_train' with 1 frame, "),
        (Expected(weights_sha256="cd" * 32), "other weights .adabins, abababababab"),
        (Expected(crop="nyu"), "cut to 'kb', the recipe wants 'nyu'"),
    ],
)
def test_records_that_do_not_fit_are_refused(tmp_path, store, expected, message):
    with pytest.raises(DataError, match=message):
        open_teacher_maps(store(tmp_path), expected)


def test_a_record_that_fits_is_accepted(tmp_path):
    needs = Expected(80.0, frames_sha256([FRAME.name, FRAME.name]), "kb", "ab" * 32)
    assert open_teacher_maps(folder(tmp_path), needs).record == RECORD
    open_teacher_maps(folder(tmp_path, replace(RECORD, crop="none")), needs)


def test_missing_maps_are_named(tmp_path):
    maps = open_teacher_maps(folder(tmp_path))
    more = {f"d/{i}": (f"d/{i}",) for i in range(5)}
    with pytest.raises(DataError, match=r"5 of 6 frames have none: d/0, d/1, d/2 \.\.\."):
        maps.check_complete({**FRAMES, **more})


def test_maps_without_a_record_need_a_word(tmp_path):
    write_teacher_png(tmp_path, IMAGE, DEPTH, RECORD)
    assert read_record(tmp_path) is None
    with pytest.raises(DataError, match=r"no teacher\.json.*TIE-KD release.*--set teacher_maps\.release=true"):
        open_teacher_maps(tmp_path)
    maps = open_teacher_maps(tmp_path, Expected(80.0, frames_sha256(FRAMES), "kb"), assume=release_record())
    assert maps.check_complete(FRAMES)
    with pytest.raises(DataError, match="wrong scale"):
        open_teacher_maps(tmp_path, Expected(max_depth=10), assume=release_record())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"teacher": 1}', json.dumps({"format": 2})])
def test_damaged_records(tmp_path, text):
    folder(tmp_path)
    (tmp_path / "teacher.json").write_text(text)
    with pytest.raises(DataError, match=r"teacher record .*damaged"):
        open_teacher_maps(tmp_path)


def test_maps_that_are_not_all_there_are_refused_also_as_maps_of_the_release(tmp_path):
    folder(tmp_path)
    write_record(tmp_path, RECORD, finished=False)
    assert read_record(tmp_path) is None
    assert read_unfinished(tmp_path) == RECORD
    for assume in (None, release_record()):
        with pytest.raises(DataError, match=r"not all written.*--skip-existing"):
            open_teacher_maps(tmp_path, assume=assume)
    write_record(tmp_path, RECORD)
    assert read_unfinished(tmp_path) is None
    assert open_teacher_maps(tmp_path).record == RECORD


def test_the_folder_of_a_pack_stands_for_it(tmp_path):
    with pack_teacher_maps(tmp_path / "teacher_maps.h5", RECORD) as writer:
        writer.write(IMAGE, DEPTH)
    assert open_teacher_maps(tmp_path).root == tmp_path / "teacher_maps.h5"


def test_the_same_maker_may_have_other_frames_but_no_other_weights_or_coding():
    assert same_maker(RECORD, replace(RECORD, split="eigen_test", split_sha256="", frames=9))
    for change in ({"weights_sha256": "00"}, {"max_depth": 10.0}, {"flip": "none"}, {"crop": "none"}):
        assert not same_maker(RECORD, replace(RECORD, **change))


def test_damaged_maps_are_named(tmp_path):
    maps = open_teacher_maps(folder(tmp_path))
    stem = maps.find(FRAME.aliases())
    (tmp_path / f"{stem}.png").write_bytes((tmp_path / f"{stem}.png").read_bytes()[:60])
    with pytest.raises(DataError, match=stem):
        maps.read(stem)
    with pytest.raises(DataError, match="no such file"):
        maps.read("gone")


def test_a_pack_that_was_not_finished_is_not_there(tmp_path):
    def write_half():
        with pack_teacher_maps(tmp_path / "maps.h5", RECORD) as writer:
            writer.write(IMAGE, DEPTH)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="not found"):
        open_teacher_maps(tmp_path / "maps.h5")
