"""File lists of public repositories: every format, every error code, and the writers."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adubench.datasets.frames import kitti_frame
from adubench.datasets.list_files import check_files, read_list, write_lines
from adubench.datasets.splits import load_split
from adubench.errors import AdubenchError, DataError, UsageError

D = "2011_09_26_drive_0001"


def image(i, drive=D, camera=2, suffix="png"):
    return f"{drive[:10]}/{drive}_sync/image_0{camera}/data/{i:010d}.{suffix}"


def gt(i, drive=D, camera=2):
    return f"{drive}_sync/proj_depth/groundtruth/image_0{camera}/{i:010d}.png"


@pytest.fixture
def make(tmp_path):
    def write(*lines, end="\n", data=None):
        path = tmp_path / "list.txt"
        path.write_bytes(data if data is not None else ("\n".join(lines) + end).encode())
        return path

    return write


BTS = f"{image(5)} {gt(5)} 721.5377"
FORMATS = {
    "bts": BTS,
    "bts5": f"{image(5)} {gt(5)} 721.5377 {image(5, camera=3)} {gt(5, camera=3)}",
    "toolbox2": f"{image(5)} {gt(5)}",
    "image1": image(5),
    "nyu3": "/bathroom/rgb_00045.jpg /bathroom/sync_depth_00045.png /bathroom/dense_00045.png",
    "md2": f"2011_09_26/{D}_sync 5 l",
    "md2-bench": "image 0",
}


@pytest.mark.parametrize(("form", "line"), FORMATS.items())
def test_every_format_is_recognised(make, form, line):
    listed = read_list(make(line))
    assert listed.format == form
    assert len(listed.samples) == 1
    assert listed.warnings == ()
    if form not in ("nyu3", "md2-bench"):
        assert listed.samples[0].key == kitti_frame(D, 5)


def test_fields_of_the_formats(make):
    sample = read_list(make(FORMATS["bts5"])).samples[0]
    assert (sample.image, sample.gt, sample.focal) == (image(5), gt(5), 721.5377)
    assert (sample.image_right, sample.gt_right) == (image(5, camera=3), gt(5, camera=3))
    sample = read_list(make("/a/rgb_1.jpg /a/sync_depth_1.png 518.8579")).samples[0]
    assert (sample.image, sample.gt, sample.focal) == ("a/rgb_1.jpg", "a/sync_depth_1.png", 518.8579)
    sample = read_list(make(FORMATS["nyu3"])).samples[0]
    assert sample.dense_gt == "bathroom/dense_00045.png"
    sample = read_list(make(f"2011_09_26/{D}_sync 0000000069 r")).samples[0]
    assert sample.key == kitti_frame(D, 69, 3)
    assert (sample.image, sample.focal) == (image(69, camera=3), 721.5377)
    assert read_list(make("image 17")).samples[0].image == "image/0000000017.png"


@pytest.mark.parametrize(("side", "camera"), [("l", 2), ("r", 3), ("2", 2), ("3", 3)])
def test_sides(make, side, camera):
    assert read_list(make(f"2011_09_26/{D}_sync 5 {side}")).samples[0].key.camera == camera


def test_none_means_no_ground_truth(make):
    listed = read_list(make(f"{image(0)} None 721.5377", f"{image(5)} {gt(5)} 721.5377"))
    assert [s.gt for s in listed.samples] == [None, gt(5)]
    assert [s.declared_missing for s in listed.samples] == [True, False]


def test_line_ends_bom_comments_blanks_and_tabs(make):
    text = f"\ufeff# a comment\r\n\r\n{image(5)}\t {gt(5)}   721.5377 \r\n{image(6)} {gt(6)} 721.5377"
    listed = read_list(make(data=text.encode("utf-8")))
    assert [s.line for s in listed.samples] == [3, 4]
    assert listed.format == "bts"


def test_folder_only_lists_must_be_forced(make):
    with pytest.raises(DataError, match=r"E1"):
        read_list(make(f"2011_09_26/{D}_sync"))
    assert read_list(make(f"2011_09_26/{D}_sync"), format="md2").samples[0].key == kitti_frame(D, 0)


def test_selection_and_tie_kd_names_have_keys(make):
    listed = read_list(make("2011_09_26_drive_0002_sync_image_0000000005_image_03.png"))
    assert listed.samples[0].key == kitti_frame("2011_09_26_drive_0002", 5, 3)


ERRORS = [
    ("E0", (), {"data": b"\xff\xfe\x00bad"}, "cannot decode as UTF-8 at byte 0"),
    ("E0", (), {"data": b"abc\x00def\n"}, "not a text list"),
    ("E0b", ("# only", "", "   "), {}, "no samples"),
    ("E0b", (), {"data": b""}, "no samples"),
    ("E1", ("a b c d",), {}, r":1: cannot recognise list format from 4 field\(s\): 'a b c d'"),
    ("E1", ("nonsense",), {}, "Known: 'image gt focal'"),
    ("E2", (BTS, image(6)), {}, r":2: expected bts \(3 fields\) as in line 1, got 1"),
    ("E2", ("# c", BTS, f"{image(6)} {gt(6)[:20]}"), {}, r":3: expected bts \(3 fields\) as in line 2, got 2"),
    ("E3", (BTS, f"{image(6)} {gt(6)} 72x"), {}, r":2: field 3 \('72x'\) is not a number"),
    ("E3", (BTS, f"{image(6)} {gt(6)} nan"), {}, "is not a number"),
    ("E3", (BTS, f"{image(6)} {gt(6)} -1"), {}, "is not a number above 0"),
    ("E3", (FORMATS["md2"], f"2011_09_26/{D}_sync x l"), {}, r"field 2 \('x'\) is not a frame index"),
    ("E3", (FORMATS["md2"], f"2011_09_26/{D}_sync 5 m"), {}, r"field 3 \('m'\) is not a side"),
    ("E3", (BTS, f"{image(6)[:-3]} {gt(6)} 721.5377"), {}, "field 1 .* is not an image path"),
    ("E3", (BTS, f"None {gt(6)} 721.5377"), {}, "field 1"),
    (
        "E4",
        (f"{image(5)} {gt(6)} 721.5377",),
        {},
        f":1: image is {D} cam 2 frame 5 but ground truth is {D} cam 2 frame 6",
    ),
    ("E4", (f"{image(5)} {gt(5, camera=3)} 721.5377",), {}, "cam 3"),
    ("E6", (image(108),), {}, f":1: {D} has 108 frames, frame 108 does not exist"),
    ("E9", ("9 0 l",), {}, "md2-odom lists are recognised but not supported"),
    ("E9", ("02 03.png",), {}, "syns lists are recognised but not supported"),
]


@pytest.mark.parametrize(("code", "lines", "options", "message"), ERRORS)
def test_error_codes(make, code, lines, options, message):
    with pytest.raises(DataError, match=message) as caught:
        read_list(make(*lines, **options))
    assert f"[{code}]" in str(caught.value)
    assert "list.txt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_duplicates_warn_or_fail(make):
    path = make(BTS, BTS)
    listed = read_list(path)
    assert len(listed.samples) == 2
    assert f"{path}:2: duplicate of line 1 [E5]" in listed.warnings
    with pytest.raises(DataError, match="duplicate of line 1"):
        read_list(path, strict=True)


def test_wrong_focal_length_warns_and_is_kept(make):
    listed = read_list(make(f"{image(5)} {gt(5)} 518.8579"))
    assert listed.samples[0].focal == 518.8579
    assert "focal 518.858 differs from the calibration of 2011_09_26 (721.538) [W1]" in listed.warnings[0]
    assert read_list(make(f"{image(5)} {gt(5)} 721.538")).warnings == ()


def test_ends_of_drives_have_no_map(make):
    lines = [f"2011_09_26/{D}_sync {i} l" for i in (4, 5, 102, 103)]
    listed = read_list(make(*lines))
    assert [s.gt is None for s in listed.samples] == [True, False, False, True]
    assert "2 frames" in listed.notes[0]
    assert "[N1]" in listed.notes[0]
    assert all(s.gt for s in read_list(make(*lines), need_gt=False).samples)


def test_missing_files_are_named(make, tmp_path, trees):
    lines = [f"{image(i)} {gt(i)} 721.5377" for i in range(5, 13)]
    listed = read_list(make(*lines))
    problems = check_files(listed, tmp_path)
    images = [p for p in problems if "[E7]" in p]
    assert len(images) == 6
    assert image(5) in images[0]
    assert "extensions tried: .png, .jpg, .jpeg" in images[0]
    assert "8 of 8 images" in images[-1]
    maps = [p for p in problems if "[E8]" in p]
    assert f"ground truth not found for {D} in layouts A, B, C, D under {tmp_path}" in maps[0]
    for i in range(5, 13):
        trees.save_image(tmp_path / image(i, suffix="jpg"))
        trees.save_png(tmp_path / "2011_09_26" / gt(i), trees.depth_codes())
    assert check_files(listed, tmp_path) == []


def test_official_val_drive_gets_the_hint(make, tmp_path):
    drive = "2011_09_26_drive_0079"
    listed = read_list(make(f"{image(5, drive)} {gt(5, drive)} 721.5377"))
    assert any("unpack val/" in p for p in check_files(listed, None, tmp_path))


def test_eigen_test_is_written_like_the_public_file():
    eigen = load_split("eigen")
    lines = write_lines(eigen.frames, "bts", eigen.no_gt).split("\n")
    drive = "2011_09_26_drive_0002"
    assert lines[0] == f"{image(69, drive)} {gt(69, drive)} 721.5377"
    assert len(lines) == 698
    assert lines[-1] == ""
    assert sum(" None " in line for line in lines) == 45
    focals = {line.split()[2] for line in lines[:-1]}
    assert focals == {"721.5377", "707.0493", "718.3351", "707.0912", "718.856"}


@pytest.mark.parametrize("form", ["bts", "toolbox2", "md2"])
def test_written_lists_read_back(form, make):
    eigen = load_split("eigen")
    path = make(data=write_lines(eigen.frames, form, eigen.no_gt).encode())
    listed = read_list(path)
    assert listed.format == form
    assert listed.frames() == eigen.frames
    again = load_split(str(path))
    assert again.frames == eigen.frames
    assert again.no_gt == eigen.no_gt
    assert again.sha256 == eigen.sha256
    assert again.count == 697


def test_writers_refuse_what_they_cannot_write():
    with pytest.raises(UsageError, match="not as 'csv'"):
        write_lines([kitti_frame(D, 5)], "csv")
    with pytest.raises(UsageError, match="no KITTI frame"):
        write_lines(load_split("kitti_official.test").frames, "bts")
    with pytest.raises(UsageError, match="focal length"):
        write_lines([kitti_frame("2031_01_01_drive_0001", 5)], "bts")


def test_missing_list_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        load_split(str(tmp_path / "absent.txt"))
    with pytest.raises(UsageError, match="unknown list format"):
        read_list(tmp_path, format="nope")


def test_list_of_other_images_has_plain_frames(make):
    split = load_split(str(make("a/x.png b/x.png", "a/y.png b/y.png")))
    assert [f.name for f in split.frames] == ["a/x", "a/y"]
    assert split.dataset == "folder"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_lists_never_crash(tmp_path, data):
    good = "\n".join(FORMATS[data.draw(st.sampled_from(sorted(FORMATS)))] for _ in range(3)).encode()
    start = data.draw(st.integers(0, len(good)))
    noise = data.draw(st.one_of(st.binary(max_size=8), st.text(max_size=8).map(lambda t: t.encode("utf-8", "ignore"))))
    path = tmp_path / "fuzz.txt"
    path.write_bytes(good[:start] + noise + good[start + data.draw(st.integers(0, 9)) :])
    try:
        message = "" if read_list(path).samples else "no samples"
    except AdubenchError as error:
        message = str(error)
    assert not message or "fuzz.txt" in message
