"""Archives made to do harm, and damaged ones: a finding or one of our errors, nothing else, and little memory."""

from __future__ import annotations

import os
import random
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from adubench.errors import AdubenchError
from adubench.io.png import encode_grey16
from adubench.submissions.findings import SubmissionReport
from adubench.submissions.validate import check_submission
from tests.submissions.helpers import SIZE, good, png, write_zip

FIRST = "0000000000.png"


def check(path: Path) -> SubmissionReport:
    return check_submission(path, count=4, size=SIZE)


def refused(report: SubmissionReport) -> list[str]:
    assert report.refused
    assert not report.ok
    return [f.message for f in report.findings if f.hostile]


@pytest.mark.parametrize(
    "name", ["../0000000000.png", "a/../../x.png", "/etc/x.png", "C:\\x.png", "c:x.png", "..\\x.png", "\\\\host\\x.png"]
)
def test_names_that_leave_the_folder(tmp_path: Path, name: str) -> None:
    report = check(write_zip(tmp_path / "s.zip", {**good(), name: png(9)}))
    assert any("points outside" in m for m in refused(report))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.zip"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicates_links_and_odd_names(tmp_path: Path) -> None:
    path = tmp_path / "s.zip"
    with zipfile.ZipFile(path, "w") as package:
        for name, data in [*good().items(), (FIRST, png(8))]:
            package.writestr(name, data)
        link = zipfile.ZipInfo("link.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        package.writestr(link, "/etc/passwd")
        package.writestr("a\x1b[31m.png", png(9))
    text = "\n".join(refused(check(path)))
    assert f"duplicate entry {FIRST}" in text
    assert "link.png is a link or device" in text
    assert "control characters" in text
    assert "\x1b" not in text


def test_nul_in_a_name(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "s.zip", {**good(), "aXb.png": png(9)})
    path.write_bytes(path.read_bytes().replace(b"aXb.png", b"a\0b.png"))
    assert any("control characters" in m for m in refused(check(path)))


def test_bomb_is_not_unpacked(tmp_path: Path) -> None:
    zeros = bytes(60_000_000)
    path = write_zip(tmp_path / "s.zip", {**good(), "0000000003.png": zeros}, zipfile.ZIP_DEFLATED)
    del zeros
    tracemalloc.start()
    report = check(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert any("claim to unpack to 60000000" in m for m in refused(report))
    assert peak < 8_000_000


def _patch_sizes(path: Path, name: str, size: int) -> None:
    """Let the archive claim another unpacked size, in both headers."""
    data = bytearray(path.read_bytes())
    local = data.find(b"PK\3\4", data.find(name.encode()) - 30)
    struct.pack_into("<L", data, local + 22, size)
    central = data.rfind(name.encode()) - 46
    struct.pack_into("<L", data, central + 24, size)
    path.write_bytes(data)


def test_header_that_understates_the_size(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "s.zip", {**good(), "0000000003.png": bytes(30_000_000)}, zipfile.ZIP_DEFLATED)
    _patch_sizes(path, "0000000003.png", 1000)
    tracemalloc.start()
    report = check(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not report.ok
    assert peak < 8_000_000


def test_header_that_overstates_the_size(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "s.zip", good())
    _patch_sizes(path, FIRST, 4_000_000_000)
    assert any("4000 MB" in m for m in refused(check(path)))


def test_overlapping_entries(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "s.zip", good())
    data = bytearray(path.read_bytes())
    second = data.rfind(b"0000000001.png") - 46
    struct.pack_into("<L", data, second + 42, 0)
    path.write_bytes(data)
    assert any("share the same bytes" in m for m in refused(check(path)))


def test_huge_number_of_entries(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "s.zip", {f"{i}": b"" for i in range(20_001)})
    assert any("20001 entries" in m for m in refused(check(path)))


def test_huge_directory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "s.zip", good())
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\5\6")
    struct.pack_into("<L", data, at + 12, 0xFFFFFFF0)
    path.write_bytes(bytes(data[:at]) + bytes(6_000_000) + bytes(data[at:]))
    assert any("directory claims" in m for m in refused(check(path)))


@pytest.mark.parametrize("keep", [0.2, 0.9, 0.995])
def test_truncated_archive(tmp_path: Path, keep: float) -> None:
    path = write_zip(tmp_path / "s.zip", good())
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    report = check(path)
    assert report.codes == {"S01"}
    assert not report.ok


def test_picture_bomb_is_not_decoded(tmp_path: Path) -> None:
    data = bytearray(encode_grey16(np.ones((2, 2), np.uint16)))
    struct.pack_into(">LL", data, 16, 60_000, 60_000)
    struct.pack_into(">L", data, 29, zlib.crc32(bytes(data[12:29])))
    path = write_zip(tmp_path / "s.zip", {FIRST: bytes(data)})
    report = check_submission(path, kind="rehearsal")
    assert any("60000x60000" in m for m in refused(report))
    report = check_submission(path, kind="rehearsal", size=(60_000, 60_000))
    assert any("60000x60000" in m for m in refused(report))


def test_surplus_image_data(tmp_path: Path) -> None:
    small = np.full(SIZE, 2560, np.uint16)
    data = encode_grey16(small)
    body = zlib.compress(bytes(40_000_000), 9)
    chunk = len(body).to_bytes(4, "big") + b"IDAT" + body + zlib.crc32(b"IDAT" + body).to_bytes(4, "big")
    report = check(write_zip(tmp_path / "s.zip", {**good(), FIRST: data[:33] + chunk + data[-12:]}))
    assert not any(f.code not in ("S15", "S16") for f in report.findings)
    assert not report.ok


def _mutate(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        at = rng.randrange(len(out))
        action = rng.randrange(5)
        if action == 0:
            out[at] = rng.randrange(256)
        elif action == 1:
            out[at] ^= 1 << rng.randrange(8)
        elif action == 2:
            del out[at : at + rng.randrange(1, 64)]
        elif action == 3:
            out[at:at] = rng.randbytes(rng.randrange(1, 16))
        else:
            out[at : at + 4] = rng.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"PK\1\2", b"\x7f\xff\xff\xff"])
        if not out:
            out = bytearray(b"P")
    return bytes(out)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("seed", range(5))
def test_mutated_archives_never_raise_anything_else(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    size = (8, 12)
    members = {f"{i:010d}.png": png(i, size) for i in range(3)}
    method = zipfile.ZIP_DEFLATED if seed % 2 else zipfile.ZIP_STORED
    original = write_zip(tmp_path / "o.zip", members, method).read_bytes()
    tail = original.find(b"PK\1\2")
    path, truth = tmp_path / "m.zip", tmp_path / "gt"
    truth.mkdir()
    for name, data in members.items():
        (truth / name).write_bytes(data)
    faults = 0
    for case in range(160):
        data = original[:tail] + _mutate(original[tail:], rng) if case % 3 == 0 else _mutate(original, rng)
        path.write_bytes(data)
        compat = "devkit" if case % 2 else None
        try:
            report = check_submission(path, count=3, size=size, gt=truth if case % 5 == 0 else None, compat=compat)
            faults += not report.ok
            assert report.to_dict()["counts"]["error"] == report.count("error")
        except AdubenchError:
            faults += 1
    assert faults > 100


@pytest.mark.parametrize("seed", range(2))
def test_mutated_pngs_in_a_folder(tmp_path: Path, seed: int) -> None:
    rng = random.Random(100 + seed)
    size = (8, 12)
    original = png(0, size)
    path = tmp_path / FIRST
    for _ in range(100):
        path.write_bytes(_mutate(original, rng))
        report = check_submission(tmp_path, count=1, size=size)
        assert report.files == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_pipes_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.zip")
    with pytest.raises(AdubenchError, match="neither a file nor a folder"):
        check(tmp_path / "pipe.zip")
    (tmp_path / FIRST).write_bytes(png())
    assert any("pipe.zip is no ordinary file" in f.message for f in check(tmp_path).findings)


def test_file_names_that_are_no_text(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"\xff\xfe.png")).write_bytes(png())
    except OSError:
        pytest.skip("this file system takes text only")
    report = check(tmp_path)
    assert "S05" in report.codes
    "".join(f.message for f in report.findings).encode("utf-8")
