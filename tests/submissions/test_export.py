"""The writer: names, codes, bytes, limits, and nothing half-written."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import random
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from adubench.errors import AdubenchError, DataError, SubmissionError, UsageError
from adubench.io.png import decode_grey16
from adubench.submissions.encoding import ExportOptions, quantise
from adubench.submissions.export import export_submission
from adubench.submissions.findings import SubmissionReport
from adubench.submissions.kitti import KITTI_SIZE, LIMITS, TARGETS, match_names
from adubench.submissions.validate import check_submission
from tests.submissions.helpers import SIZE, codes, png, scene, write_zip


def predictions(folder: Path, count: int = 4, suffix: str = ".npy") -> Path:
    folder.mkdir()
    for i in range(count):
        write_map(folder / f"{i:010d}{suffix}", i)
    return folder


def write_map(path: Path, index: int = 0, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, scene(index, size))
    else:
        path.write_bytes(png(index, size))


def image_folder(folder: Path, names: list[str], size: tuple[int, int] = SIZE) -> Path:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(buffer, "PNG")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(buffer.getvalue())
    return folder


def rehearse(source: Path, output: Path, **options: object) -> SubmissionReport:
    return export_submission(source, output=output, kind="rehearsal", **options)  # type: ignore[arg-type]


def content(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as package:
        return {name: decode_grey16(package.read(name), name) for name in package.namelist()}


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_codes_names_and_records(tmp_path: Path) -> None:
    report = rehearse(predictions(tmp_path / "p"), tmp_path / "s.zip")
    assert report.findings == ()
    assert report.files == 4
    for i, (name, stored) in enumerate(content(tmp_path / "s.zip").items()):
        assert name == f"{i:010d}.png"
        np.testing.assert_array_equal(stored, codes(i))
    with zipfile.ZipFile(tmp_path / "s.zip") as package:
        for info in package.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            assert (info.create_system, info.external_attr >> 16, info.flag_bits) == (3, 0o100644, 0)
            assert info.comment == b""
            data = package.read(info)
            assert data[24:26] == b"\x10\x00"  # 16 bit, grey
        assert package.comment == b""
    assert check_submission(tmp_path / "s.zip", kind="rehearsal").findings == ()


def test_manifest(tmp_path: Path) -> None:
    source = predictions(tmp_path / "p")
    (tmp_path / "model.bin").write_bytes(b"weights")
    report = rehearse(source, tmp_path / "s.zip", checkpoint=tmp_path / "model.bin", trained_on="eigen_full")
    manifest = json.loads((tmp_path / "s.manifest.json").read_text())
    assert report.manifest == str(tmp_path / "s.manifest.json")
    assert manifest["archive"]["sha256"] == hashlib.sha256((tmp_path / "s.zip").read_bytes()).hexdigest()
    assert manifest["checkpoint"]["sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert manifest["config"]["quantize"] == "round"
    with zipfile.ZipFile(tmp_path / "s.zip") as package:
        for record in manifest["maps"]:
            assert record["sha256"] == hashlib.sha256(package.read(record["name"])).hexdigest()
            assert record["min_m"] < record["median_m"] < record["max_m"]
    assert [f.code for f in report.findings] == ["G04"]
    assert "drives inside that split" in report.findings[0].message
    assert str(tmp_path) not in (tmp_path / "s.manifest.json").read_text()


def test_equal_input_gives_equal_bytes_whatever_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = predictions(tmp_path / "p")
    rehearse(source, tmp_path / "a.zip")
    for name in ("igzip", "unfilter16"):
        monkeypatch.setattr(f"adubench.io._fast.{name}", lambda: None)
    rehearse(predictions(tmp_path / "q"), tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_every_source_gives_the_same_archive(tmp_path: Path) -> None:
    rehearse(predictions(tmp_path / "npy"), tmp_path / "npy.zip")
    expected = (tmp_path / "npy.zip").read_bytes()
    maps = {f"{i:010d}": scene(i) for i in range(4)}
    np.savez(tmp_path / "a.npz", **maps)
    np.save(tmp_path / "stack.npy", np.stack(list(maps.values())))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, value in maps.items():
            file[name] = value
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as package:
        for i in range(4):
            package.writestr(f"{i:010d}.png", png(i))
    sources = [predictions(tmp_path / "png", suffix=".png")]
    sources += [tmp_path / name for name in ("a.npz", "stack.npy", "a.h5", "in.zip")]
    for source in sources:
        rehearse(source, tmp_path / "out.zip")
        assert (tmp_path / "out.zip").read_bytes() == expected, source


def test_a_png_survives_bit_for_bit(tmp_path: Path) -> None:
    every = np.arange(1, 65536, dtype=np.uint16)[:65532].reshape(381, 172)
    from adubench.io.png import encode_grey16

    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "0000000000.png").write_bytes(encode_grey16(every))
    rehearse(tmp_path / "p", tmp_path / "s.zip")
    np.testing.assert_array_equal(content(tmp_path / "s.zip")["0000000000.png"], every)


def test_rounding_and_clipping() -> None:
    depth = np.array([[2.5, 3.5, 2.75, 1e-9, 255.99609375, 300.0]]) / np.array([[256, 256, 256, 1, 1, 1]])
    got, invalid, clipped = quantise(depth, ExportOptions(), "x")
    assert got.tolist() == [[2, 4, 3, 1, 65535, 65535]]
    assert (invalid, clipped) == (0, 1)
    assert quantise(depth, ExportOptions(quantize="trunc"), "x")[0].tolist() == [[2, 3, 2, 1, 65535, 65535]]


def test_invalid_values() -> None:
    depth = np.array([[1.0, np.nan, 2.0], [np.inf, -1.0, 0.0], [3.0, 3.0, 3.0]])
    with pytest.raises(SubmissionError, match=r"m\.npy: 4 pixels are not finite or not > 0, first at row 0, column 1"):
        quantise(depth, ExportOptions(), "m.npy")
    got, invalid, clipped = quantise(depth, ExportOptions(on_invalid="min"), "m.npy")
    assert got.tolist() == [[256, 1, 512], [1, 1, 1], [768, 768, 768]]
    assert (invalid, clipped) == (4, 0)
    with pytest.raises(SubmissionError, match="1 rows have no valid pixel"):
        quantise(depth, ExportOptions(on_invalid="zero"), "m.npy")
    depth[1, 0] = 5.0
    assert quantise(depth, ExportOptions(on_invalid="zero"), "m.npy")[0].tolist()[1] == [1280, 0, 0]


def test_too_many_clipped_pixels_are_a_unit_mistake(tmp_path: Path) -> None:
    source = predictions(tmp_path / "p")
    np.save(source / "0000000002.npy", scene(2) * 1000)
    with pytest.raises(SubmissionError, match=r"0000000002\.npy: .* above 255\.996 m .*metres\?"):
        rehearse(source, tmp_path / "s.zip")
    assert leftovers(tmp_path) == ["p"]
    few = scene(2)
    few[0, :3] = 400
    np.save(source / "0000000002.npy", few)
    report = rehearse(source, tmp_path / "s.zip")
    assert "3 pixels in 1 map" in report.findings[0].message


def test_size_comes_from_the_images(tmp_path: Path) -> None:
    images = image_folder(tmp_path / "i", [f"{i:010d}.png" for i in range(4)])
    source = predictions(tmp_path / "p")
    rehearse(source, tmp_path / "s.zip", images=images)
    write_map(source / "0000000001.npy", 1, (22, 76))
    with pytest.raises(SubmissionError, match=r"0000000001\.npy: 76x22, expected 152x44; not upsampled"):
        rehearse(source, tmp_path / "s.zip", images=images)


def test_missing_and_extra_predictions_are_named(tmp_path: Path) -> None:
    images = image_folder(tmp_path / "i", [f"{i:010d}.png" for i in range(4)])
    source = predictions(tmp_path / "p", 5)
    report = rehearse(source, tmp_path / "s.zip", images=images)
    assert "1 predictions belong to no image and are left out: 0000000004" in report.findings[0].message
    (source / "0000000001.npy").unlink()
    with pytest.raises(SubmissionError, match=r"1 of 4 predictions missing, first: 0000000001\. .*0000000004"):
        rehearse(source, tmp_path / "s.zip", images=images)
    np.save(tmp_path / "stack.npy", np.zeros((3, 4, 4)))
    with pytest.raises(SubmissionError, match="holds 3 maps for 4 images"):
        rehearse(tmp_path / "stack.npy", tmp_path / "s.zip", images=images)


def test_kitti_names_match_in_every_spelling() -> None:
    image = "2011_09_26_drive_0002_sync_image_0000000005_image_03"
    for name in (
        "2011_09_26/2011_09_26_drive_0002_sync/image_03/data/0000000005",
        "2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_03/0000000005",
        "2011_09_26_drive_0002_sync_groundtruth_depth_0000000005_image_03",
        f"sub/{image}",
    ):
        assert match_names([image], [name]) == ({image: name}, [], [])
    flat = "2011_09_26_drive_0002_sync_0000000005"
    assert match_names([image], [flat]) == ({}, [image], [flat])  # the flat name means the left camera
    left = image.replace("image_03", "image_02")
    assert match_names([left, image], [flat]) == ({left: flat}, [image], [])
    with pytest.raises(SubmissionError, match="two predictions for image"):
        match_names([left], [flat, "2011_09_26_drive_0002_sync/image_02/0000000005"])


def test_same_file_names_in_two_folders_are_told_apart() -> None:
    images = ["a/0000000000", "b/0000000000"]
    assert match_names(images, images) == ({n: n for n in images}, [], [])
    assert match_names(images, ["0000000000"])[1] == images


def test_prediction_kind_wants_exactly_its_images(tmp_path: Path) -> None:
    source = predictions(tmp_path / "p")
    images = image_folder(tmp_path / "i", [f"{i:010d}.png" for i in range(4)])
    with pytest.raises(SubmissionError, match=r"needs 500 images .* found 4 .*--rehearsal"):
        export_submission(source, images=images, output=tmp_path / "s.zip")
    with pytest.raises(SubmissionError, match="496 of 500 predictions missing, first: 0000000004"):
        export_submission(source, output=tmp_path / "s.zip")
    assert leftovers(tmp_path) == ["i", "p"]


def test_wrong_image_size_and_folders_without_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TARGETS, "prediction", replace(TARGETS["prediction"], count=4))
    source = predictions(tmp_path / "p")
    images = image_folder(tmp_path / "i", [f"{i:010d}.png" for i in range(4)])
    with pytest.raises(SubmissionError, match="152x44, but the images of KITTI depth prediction are 1216x352"):
        export_submission(source, images=images, output=tmp_path / "s.zip")
    (tmp_path / "e").mkdir()
    with pytest.raises(SubmissionError, match=r"no \.png or \.jpg image"):
        rehearse(source, tmp_path / "s.zip", images=tmp_path / "e")
    with pytest.raises(SubmissionError, match="folder of test images not found"):
        rehearse(source, tmp_path / "s.zip", images=tmp_path / "none")


def test_completion_keeps_the_names_of_val_selection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TARGETS, "completion", replace(TARGETS["completion"], count=2, size=SIZE))
    names = [f"2011_09_26_drive_0002_sync_image_{i:010d}_image_0{c}.png" for i, c in ((5, 2), (8, 3))]
    images = image_folder(tmp_path / "i", names)
    for i, c in ((5, 2), (8, 3)):
        write_map(tmp_path / "p" / "2011_09_26_drive_0002_sync" / f"image_0{c}" / f"{i:010d}.npy", i)
    export_submission(tmp_path / "p", images=images, output=tmp_path / "s.zip", kind="completion")
    assert list(content(tmp_path / "s.zip")) == names
    assert check_submission(tmp_path / "s.zip", kind="completion").findings == ()


def test_disparity_input(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    np.save(tmp_path / "p" / "0000000000.npy", 5.4 / scene())
    rehearse(tmp_path / "p", tmp_path / "s.zip", input_kind="scaled-disparity", disparity_scale=5.4)
    np.testing.assert_array_equal(content(tmp_path / "s.zip")["0000000000.png"], codes())
    sigmoid = (1 / scene() - 0.01) / (10 - 0.01)
    np.save(tmp_path / "p" / "0000000000.npy", sigmoid)
    rehearse(tmp_path / "p", tmp_path / "s.zip", input_kind="sigmoid-disparity", disparity_scale=1.0)
    difference = content(tmp_path / "s.zip")["0000000000.png"].astype(int) - codes()
    assert np.abs(difference).max() <= 1
    with pytest.raises(UsageError, match="needs --disparity-scale"):
        rehearse(tmp_path / "p", tmp_path / "s.zip", input_kind="scaled-disparity")


@pytest.mark.parametrize("options", [{"on_invalid": "x"}, {"quantize": "x"}, {"input_kind": "x"}, {"png_scale": 0.0}])
def test_unknown_options(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        rehearse(predictions(tmp_path / "p"), tmp_path / "s.zip", **options)


def test_compression_rises_and_the_limit_holds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "p").mkdir()
    for i in range(3):
        np.save(tmp_path / "p" / f"{i:010d}.npy", np.round(scene(i) + rng.integers(0, 3, SIZE)))
    first = rehearse(tmp_path / "p", tmp_path / "s.zip")
    assert first.statistics["compression_level"] == 1
    tight = replace(LIMITS, target_bytes=first.total_bytes - 1)
    second = rehearse(tmp_path / "p", tmp_path / "s.zip", limits=tight)
    assert second.statistics["compression_level"] == 6
    assert second.total_bytes < first.total_bytes
    tiny = replace(LIMITS, target_bytes=1000, total_bytes=1000)
    (tmp_path / "s.zip").unlink()
    (tmp_path / "s.manifest.json").unlink()
    with pytest.raises(SubmissionError, match=r"3 maps take 0\.0 MB at the highest compression"):
        rehearse(tmp_path / "p", tmp_path / "s.zip", limits=tiny)
    assert leftovers(tmp_path) == ["p"]


def test_implausible_scale_is_a_warning_at_export(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    for i in range(3):
        np.save(tmp_path / "p" / f"{i:010d}.npy", scene(i) / 80)
    report = rehearse(tmp_path / "p", tmp_path / "s.zip")
    assert {f.code: f.level for f in report.findings} == {"S22": "warning", "S25": "warning"}
    assert report.ok


def test_mdec(tmp_path: Path) -> None:
    source = predictions(tmp_path / "p")
    report = export_submission(source, output=tmp_path / "pred.npz", kind="mdec")
    with np.load(tmp_path / "pred.npz") as archive:
        assert archive.files == ["pred"]
        got = archive["pred"]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, np.stack([1 / scene(i) for i in range(4)]), rtol=1e-6)
    assert "400 (validation) or 775 (test)" in report.findings[0].message
    first = (tmp_path / "pred.npz").read_bytes()
    export_submission(source, output=tmp_path / "pred.npz", kind="mdec")
    assert (tmp_path / "pred.npz").read_bytes() == first
    write_map(source / "0000000002.npy", 2, (10, 10))
    with pytest.raises(SubmissionError, match="one size"):
        export_submission(source, output=tmp_path / "new.npz", kind="mdec")
    assert not (tmp_path / "new.npz").exists()


def test_wrapped_and_replaced_values_are_called_out(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    wavy = scene() * (1 + 0.2 * np.sin(np.arange(SIZE[1]) / 3))
    np.save(tmp_path / "p" / "0000000000.npy", (wavy * 1000 % 65536) / 256)
    holes = scene(1)
    holes[3, :7] = np.nan
    np.save(tmp_path / "p" / "0000000001.npy", holes)
    report = rehearse(tmp_path / "p", tmp_path / "s.zip", on_invalid="zero")
    messages = {f.code: (f.level, f.message) for f in report.findings}
    assert messages["S20"][0] == "warning"
    assert messages["S18"][1].startswith("7 pixels in 1 map not finite or not > 0; --on-invalid zero")


def test_mutated_sources_raise_our_errors_only(tmp_path: Path) -> None:
    rng = random.Random(7)
    size = (8, 12)
    original = write_zip(tmp_path / "o.zip", {f"{i:010d}.png": png(i, size) for i in range(2)}).read_bytes()
    refused = 0
    for _ in range(120):
        data = bytearray(original)
        for _ in range(rng.choice([1, 3])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / "m.zip").write_bytes(data)
        try:
            report = rehearse(tmp_path / "m.zip", tmp_path / "s.zip")
        except AdubenchError:
            refused += 1
        else:
            assert 1 <= report.files <= 2  # a changed name may no longer end in .png
        written = {p.name for p in tmp_path.iterdir()} - {"o.zip", "m.zip"}
        assert written in (set(), {"s.zip", "s.manifest.json"})
    assert 0 < refused < 120, "mutations must reach both outcomes"


def _full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "victim",
    [
        "zipfile.ZipFile.writestr",
        "zipfile.ZipFile._write_end_record",
        "pathlib.Path.write_text",
        "pathlib.Path.replace",
    ],
)
@pytest.mark.parametrize("existing", [False, True])
def test_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: str, existing: bool) -> None:
    source = predictions(tmp_path / "p")
    if existing:
        rehearse(source, tmp_path / "s.zip")
        np.save(source / "0000000000.npy", scene(9))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(victim, _full_disk)
        with pytest.raises(DataError, match="No space left on device"):
            rehearse(source, tmp_path / "s.zip")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == before


@pytest.mark.parametrize("stop_at", [1, 3, 4])
def test_interrupt_leaves_nothing(tmp_path: Path, stop_at: int) -> None:
    def interrupt(done: int, _: int) -> None:
        if done == stop_at:
            raise KeyboardInterrupt

    source = predictions(tmp_path / "p")
    with pytest.raises(KeyboardInterrupt):
        rehearse(source, tmp_path / "s.zip", progress=interrupt)
    assert leftovers(tmp_path) == ["p"]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    source = predictions(tmp_path / "p")
    (tmp_path / "folder.zip").mkdir()
    with pytest.raises(DataError, match="it is a folder"):
        rehearse(source, tmp_path / "folder.zip")
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot write"):
        rehearse(source, tmp_path / "file" / "s.zip")
    assert leftovers(tmp_path) == ["file", "folder.zip", "p"]


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    source = predictions(tmp_path / "p")
    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(DataError, match=f"cannot write .*: {os.strerror(code)}"):
        rehearse(source, tmp_path / "s.zip")
    assert leftovers(tmp_path) == ["p"]


@pytest.mark.parametrize(
    "data", [b"", b"text", png()[:-30], png()[:40]], ids=["empty", "text", "truncated", "header only"]
)
def test_unreadable_predictions_name_the_file(tmp_path: Path, data: bytes) -> None:
    source = predictions(tmp_path / "p", suffix=".png")
    (source / "0000000002.png").write_bytes(data)
    with pytest.raises(AdubenchError, match=r"0000000002\.png"):
        rehearse(source, tmp_path / "s.zip")
    assert leftovers(tmp_path) == ["p"]


def test_memory_is_flat(tmp_path: Path) -> None:
    stack = np.lib.format.open_memmap(tmp_path / "stack.npy", "w+", np.float32, (40, *SIZE))
    for i in range(40):
        stack[i] = scene(i)
    stack.flush()
    del stack
    np.save(tmp_path / "few.npy", np.load(tmp_path / "stack.npy", mmap_mode="r")[:8])
    peaks = []
    for name in ("few.npy", "few.npy", "stack.npy"):
        tracemalloc.start()
        rehearse(tmp_path / name, tmp_path / "s.zip")
        check_submission(tmp_path / "s.zip", kind="rehearsal")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] + 200_000


def _set_of_500(tmp_path: Path, size: tuple[int, int], different: int) -> tuple[Path, Path]:
    """500 predictions and images; only `different` of them are different files."""
    for i in range(500):
        path = tmp_path / "p" / f"{i:010d}.png"
        if i < different:
            write_map(path, i, size)
        else:
            path.hardlink_to(tmp_path / "p" / f"{i % different:010d}.png")
    images = image_folder(tmp_path / "i", ["0000000000.png"], size)
    for i in range(1, 500):
        (images / f"{i:010d}.png").hardlink_to(images / "0000000000.png")
    return tmp_path / "p", images


def test_a_valid_set_of_500(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("prediction", "completion"):
        monkeypatch.setitem(TARGETS, kind, replace(TARGETS[kind], size=SIZE))
    source, images = _set_of_500(tmp_path, SIZE, 500)
    report = export_submission(source, images=images, output=tmp_path / "s.zip")
    assert (report.files, report.findings) == (500, ())
    checked = check_submission(tmp_path / "s.zip", strict=True)
    assert checked.findings == ()
    assert checked.ok
    assert check_submission(tmp_path / "s.zip", kind="completion").codes == {"S03"}


@pytest.mark.slow
def test_a_set_of_500_in_full_size(tmp_path: Path) -> None:
    source, images = _set_of_500(tmp_path, KITTI_SIZE, 5)
    report = export_submission(source, images=images, output=tmp_path / "s.zip")
    assert (report.files, report.codes) == (500, {"S24"})
    checked = check_submission(tmp_path / "s.zip")
    assert checked.ok
    assert (checked.files, checked.codes) == (500, {"S24"})
