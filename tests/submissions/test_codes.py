"""One fixture for every code of the validator, and what must not be reported."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adubench.errors import SubmissionError, UsageError
from adubench.io.png import encode_grey16
from adubench.submissions.findings import CODES, SubmissionReport, name_ranges
from adubench.submissions.kitti import LIMITS, Limits
from adubench.submissions.validate import check_submission
from tests.submissions.helpers import SIZE, codes, good, pil_png, png, raw_png, scene, write_zip

FIRST = "0000000000.png"
Members = dict[str, bytes]


def check(path: Path, **options: object) -> SubmissionReport:
    options = {"count": 4, "size": SIZE, **options}
    return check_submission(path, **options)  # type: ignore[arg-type]


def of_code(report: SubmissionReport, code: str) -> list[str]:
    return [f.message for f in report.findings if f.code == code]


def with_first(data: bytes) -> Members:
    return {**good(), FIRST: data}


def with_codes(array: np.ndarray) -> Members:
    return with_first(encode_grey16(array.astype(np.uint16)))


def all_depths(change: Callable[[np.ndarray], np.ndarray]) -> Members:
    maps = (np.clip(np.rint(change(scene(i)) * 256), 1, 65535) for i in range(4))
    return {f"{i:010d}.png": encode_grey16(m.astype(np.uint16)) for i, m in enumerate(maps)}


def holes(*rows: slice) -> np.ndarray:
    array = codes()
    for row in rows:
        array[row] = 0
    return array


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def renamed(old: str, new: str) -> Members:
    members = good()
    members[new] = members.pop(old)
    return members


WAVY = scene() * (1 + 0.2 * np.sin(np.arange(SIZE[1]) / 3))
GREY8 = np.clip(scene(), 0, 255).astype(np.uint8)
LAST = "0000000003.png"

# code, members, what the message says, level
CASES: list[tuple[str, Members, str, str]] = [
    ("S02", {f"maps/{n}": d for n, d in good().items()}, "inside folder 'maps'", "error"),
    ("S02", {f"maps\\{n}": d for n, d in good().items()}, "inside folder 'maps'", "error"),
    ("S03", {n: d for n, d in good().items() if n != FIRST}, f"1 of 4 files missing, first: {FIRST}", "error"),
    ("S03", {}, "4 of 4 files missing", "error"),
    ("S04", {**good(), ".DS_Store": b"x"}, ".DS_Store", "error"),
    ("S04", {**good(), "__MACOSX/._0000000000.png": b"x"}, "metadata", "error"),
    ("S04", {**good(), "Thumbs.db": b"x"}, "Thumbs.db", "error"),
    ("S04", {**good(), "stats_depth.txt": b"x"}, "stats_depth.txt (left by the devkit", "error"),
    ("S04", {**good(), "errors_img/0000000000.png": png()}, "errors_img", "error"),
    ("S04", {**good(), "a.jpg": jpeg()}, "a.jpg", "error"),
    ("S04", {**good(), "inner.zip": b"PK\3\4"}, "not opened", "error"),
    ("S04", {**good(), "0000000004.png": png(9)}, "0000000004.png (expected 4 files", "error"),
    ("S05", renamed(FIRST, "0.png"), f"'0.png' must be named {FIRST} .. {LAST}", "error"),
    ("S05", renamed(FIRST, "000000.png"), "'000000.png' must be named", "error"),
    ("S05", renamed(FIRST, "0000000000.PNG"), "'0000000000.PNG' must be named", "error"),
    ("S05", renamed(FIRST, "2011_09_26_drive_0002_sync_0000000005.png"), "must be named", "error"),
    ("S09", with_first(jpeg()), f"{FIRST}: not a PNG (looks like JPEG)", "error"),
    ("S09", with_first(b"hello, world\n"), "looks like text", "error"),
    ("S09", with_first(b""), "looks like empty file", "error"),
    ("S10", with_first(pil_png(np.dstack([GREY8] * 3))), f"{FIRST}: RGB image; expected one 16-bit grey", "error"),
    ("S10", with_first(pil_png(np.dstack([GREY8] * 4))), "RGBA image", "error"),
    ("S11", with_first(pil_png(GREY8, "P")), f"{FIRST}: palette image; expected 16-bit grey", "error"),
    ("S12", with_first(pil_png(GREY8, "LA")), f"{FIRST}: grey with alpha; remove the alpha", "error"),
    ("S13", with_first(pil_png(GREY8)), f"{FIRST}: 8-bit PNG; expected 16-bit (value = metres * 256)", "error"),
    ("S13", with_first(pil_png(GREY8, "1")), "1-bit PNG", "error"),
    ("S14", with_codes(codes().T), "44x152, expected 152x44; width and height are swapped", "error"),
    ("S14", with_codes(codes(0, (22, 76))), "76x22, expected 152x44; not upsampled: 1/2", "error"),
    ("S14", with_codes(codes(0, (11, 38))), "not upsampled: 1/4", "error"),
    ("S14", with_codes(codes(0, (375, 1242))), "1242x375, expected 152x44; uncropped", "error"),
    ("S15", with_first(png()[:-200]), f"{FIRST}: cannot decode (truncated", "error"),
    ("S15", with_first(png()[:20]), "cannot decode (truncated", "error"),
    ("S16", with_codes(np.zeros(SIZE)), f"{FIRST}: empty map", "error"),
    ("S17", with_codes(holes(slice(20, 23))), f"{FIRST}: 3 empty rows (first 20); the server cannot fill", "error"),
    ("S18", with_codes(holes(slice(0, 11))), f"{FIRST}: 25.0 % of pixels are 0 (missing)", "warning"),
    ("S19", with_codes(np.where(np.arange(152) < 2, 65535, codes())), "1.32 % saturated at 255.996 m", "warning"),
    ("S20", with_codes(np.rint(WAVY * 1000).astype(np.int64) % 65536), "values jump by ~65536", "error"),
    ("S21", with_codes(codes().byteswap()), f"{FIRST}: bytes look swapped", "error"),
    ("S22", all_depths(lambda d: d / 80), "normalised depth or inverse depth?", "error"),
    ("S22", all_depths(lambda d: d * 100 / 256), "scale 100, or another factor below 256?", "error"),
    ("S22", all_depths(lambda d: d * 1000 / 256), "scale 1000 instead of 256?", "error"),
    ("S22", all_depths(lambda d: 500 / d), "disparity instead of depth?", "error"),
    ("S22", all_depths(lambda d: d / 256), "saved metres without x256?", "error"),
    ("S23", all_depths(lambda d: 30 / d + 8), "maps look like disparity", "warning"),
    ("S24", with_first(png(1)), f"{FIRST} and 0000000001.png are identical", "warning"),
    ("S24", with_codes(np.full(SIZE, 2560)), f"{FIRST}: constant value", "warning"),
    ("S25", all_depths(lambda d: np.minimum(d, 35)), "prediction is capped at 35.0 m; GT on the server", "warning"),
    ("S25", all_depths(lambda d: np.minimum(d, 80)), "prediction is capped at 80.0 m", "warning"),
    ("S26", with_codes(codes() // 256 * 256), f"{FIRST}: depth has 1 m steps", "info"),
]


@pytest.mark.parametrize(("code", "members", "text", "level"), CASES, ids=[f"{c[0]}-{c[2][:24]}" for c in CASES])
def test_every_code_has_a_fixture_that_it_reports(
    tmp_path: Path, code: str, members: Members, text: str, level: str
) -> None:
    report = check(write_zip(tmp_path / "s.zip", members))
    assert any(text in message for message in of_code(report, code)), report.findings
    assert {f.level for f in report.findings if f.code == code} == {level}
    assert report.ok == (not report.count("error"))
    assert report.ok != (level == "error")


def test_good_package_has_no_finding(tmp_path: Path) -> None:
    report = check(write_zip(tmp_path / "s.zip", good()), strict=True)
    assert report.findings == ()
    assert report.ok
    assert report.files == 4
    assert 5 < report.statistics["median_lower_half_m"] < 20


def test_folder_is_checked_like_an_archive(tmp_path: Path) -> None:
    for name, data in good().items():
        (tmp_path / name).write_bytes(data)
    assert check(tmp_path).findings == ()
    (tmp_path / "errors_out").mkdir()
    (tmp_path / "sub").mkdir()
    (tmp_path / "submission.manifest.json").write_text("{}")
    (tmp_path / "link.png").symlink_to("nowhere")
    report = check(tmp_path)
    assert report.codes == {"S02", "S04"}
    assert len(of_code(report, "S04")) == 3


@pytest.mark.parametrize("code", ["S10", "S11", "S12", "S13", "S14", "S15"])
def test_a_malformed_file_does_not_hide_the_others(tmp_path: Path, code: str) -> None:
    members = {**good(), LAST: encode_grey16(np.zeros(SIZE, np.uint16))}
    members[FIRST] = next(case[1][FIRST] for case in CASES if case[0] == code)
    assert check(write_zip(tmp_path / "s.zip", members)).codes == {code, "S16"}


@pytest.mark.parametrize("color_type", [2, 4, 6])
def test_sixteen_bit_colour_is_reported_by_colour(tmp_path: Path, color_type: int) -> None:
    channels = {2: 3, 4: 2, 6: 4}[color_type]
    data = raw_png(np.dstack([codes(0, (8, 12))] * channels), color_type)
    expected = {2: "S10", 4: "S12", 6: "S10"}[color_type]
    assert check(write_zip(tmp_path / "s.zip", {**good(), FIRST: data})).codes == {expected, "S14"}


def test_s01_not_a_zip(tmp_path: Path) -> None:
    path = tmp_path / "s.zip"
    path.write_text("this is no archive")
    report = check(path)
    assert "not a valid zip archive" in of_code(report, "S01")[0]
    assert not report.ok


def test_s01_checksum_of_a_member(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "s.zip", good())
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF
    path.write_bytes(data)
    report = check(path)
    assert report.codes == {"S01"}
    assert FIRST in of_code(report, "S01")[0]
    assert "CRC" in of_code(report, "S01")[0]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_s06_duplicate(tmp_path: Path) -> None:
    path = tmp_path / "s.zip"
    with zipfile.ZipFile(path, "w") as package:
        for name, data in [*good().items(), (FIRST, png(7))]:
            package.writestr(name, data)
    report = check(path)
    assert of_code(report, "S06") == [f"duplicate entry {FIRST}"]


def test_s07_encrypted_and_unsupported(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "s.zip", good())
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\1\2")
    data[at + 8] |= 1
    path.write_bytes(data)
    assert of_code(check(path), "S07") == [f"{LAST}: encrypted or compressed with an unsupported method"]
    path = write_zip(tmp_path / "b.zip", good(), zipfile.ZIP_BZIP2)
    assert len(of_code(check(path), "S07")) == 4


def test_s08_size_limits(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "s.zip", good())
    total = sum(map(len, good().values()))
    near = replace(LIMITS, warn_bytes=total - 1)
    over = replace(near, total_bytes=total - 1)
    report = check(path, limits=near)
    assert [f.level for f in report.findings] == ["warning"]
    assert report.ok
    assert not replace(report, strict=True).ok
    report = check(path, limits=over)
    assert [f.level for f in report.findings] == ["error"]
    assert "exceeds the server limit" in report.findings[0].message
    assert (LIMITS.total_bytes, LIMITS.warn_bytes) == (500_000_000, 450_000_000)


def test_rehearsal_takes_any_count_and_size_but_not_any_name(tmp_path: Path) -> None:
    mixed = {"0000000000.png": png(0), "0000000001.png": png(1, (30, 200))}
    assert check_submission(write_zip(tmp_path / "a.zip", mixed), kind="rehearsal").findings == ()
    gap = {"0000000000.png": png(0), "0000000002.png": png(1)}
    assert check_submission(write_zip(tmp_path / "b.zip", gap), kind="rehearsal").codes == {"S03", "S04"}
    report = check_submission(write_zip(tmp_path / "c.zip", {}), kind="rehearsal")
    assert "no PNG file" in of_code(report, "S03")[0]


def test_rehearsal_warns_about_scale_only(tmp_path: Path) -> None:
    members = all_depths(lambda d: d * 3)
    report = check_submission(write_zip(tmp_path / "a.zip", members), kind="rehearsal")
    assert [(f.code, f.level) for f in report.findings] == [("S22", "warning")]
    assert report.ok


def test_val_selection_names_are_taken_for_completion(tmp_path: Path) -> None:
    names = [f"2011_09_26_drive_0002_sync_image_{i:010d}_image_02.png" for i in (5, 8, 11, 23)]
    members = dict(zip(names, good().values(), strict=True))
    path = write_zip(tmp_path / "s.zip", members)
    assert check(path, kind="completion").findings == ()
    assert check(path, kind="completion", count=5).codes == {"S03"}
    assert "S05" in check(path, kind="prediction").codes


def test_default_counts_and_size(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "s.zip", good())
    for kind, total in (("prediction", 500), ("completion", 1000), ("rvc", 500)):
        report = check_submission(path, kind=kind)
        assert f"{total - 4} of {total} files missing, first: 0000000004.png" in of_code(report, "S03")[0]
        assert "152x44, expected 1216x352" in of_code(report, "S14")[0]


def test_thresholds_are_one_record(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "s.zip", all_depths(lambda d: d * 3))
    assert "S22" in check(path).codes
    assert "S22" not in check(path, limits=Limits(median_high=60.0)).codes
    with pytest.raises(AttributeError):
        LIMITS.jump = 1.0  # type: ignore[misc]


def test_errors_of_use(tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match="submission not found"):
        check(tmp_path / "none.zip")
    path = write_zip(tmp_path / "s.zip", good())
    with pytest.raises(UsageError, match="unknown kind"):
        check(path, kind="predicton")
    with pytest.raises(UsageError, match="cannot check"):
        check(path, kind="mdec")
    with pytest.raises(UsageError, match="compatibility"):
        check(path, compat="server")


def test_docs_explain_every_code() -> None:
    text = (Path(__file__).parents[2] / "docs" / "submission.md").read_text(encoding="utf-8")
    assert [code for code in CODES if f"| {code} |" not in text] == []


def test_name_ranges_lists_every_name() -> None:
    names = [f"{i:010d}.png" for i in (0, 1, 2, 5, 7, 8)]
    assert name_ranges(names) == "0000000000.png .. 0000000002.png, 0000000005.png, 0000000007.png .. 0000000008.png"
