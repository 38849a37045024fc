"""Mutated inputs through whole commands: an exit status and a sentence, never a traceback, nothing half-written.

`ADUBENCH_FUZZ=20` runs twenty times as many cases.
"""

import json
import os
import random
import zipfile

import h5py
import numpy as np
import pytest
from PIL import Image

from adubench.cli import main
from tests.io.test_fuzz import mutate, repair

TIMES = int(os.environ.get("ADUBENCH_FUZZ", "1"))
SHAPE = (12, 20)
NAMES = ("2011_09_26_drive_0002_sync/image_02/0000000069", "x/1")


def _run(capsys, *arguments):
    """Run a command in this process; returns its status after checking what it printed."""
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    status = ended.value.code
    captured = capsys.readouterr()
    assert status in (0, 1, 2), captured.err
    if status and arguments[0] != "check-submission":
        errors = [line for line in captured.err.splitlines() if line.startswith(("error: ", "Error: "))]
        assert len(errors) == 1, captured.err
    return status


def _make(path, seed):
    """One source with two maps in the container that the suffix of `path` says."""
    rng = np.random.default_rng(seed)
    maps = {name: np.rint(rng.uniform(3, 70, SHAPE) * 256).astype(np.uint16) for name in NAMES}
    if path.suffix == ".npz":
        np.savez_compressed(path, **{n: m.astype(np.float32) / 256 for n, m in maps.items()})
    elif path.suffix == ".npy":
        np.save(path, np.stack([m.astype(np.float32) / 256 for m in maps.values()]))
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            for n, m in maps.items():
                file[n] = m.astype(np.float32) / 256
    else:
        folder = path.with_suffix("")
        for n, m in maps.items():
            (folder / n).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(m).save(folder / f"{n}.png")
        if path.suffix == ".zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for n in NAMES:
                    archive.write(folder / f"{n}.png", f"{n}.png")
        return path if path.suffix == ".zip" else folder
    return path


@pytest.mark.parametrize("side", ["prediction", "truth"])
@pytest.mark.parametrize("suffix", [".npz", ".npy", ".h5", ".zip", ".pack.h5"])
def test_eval_of_mutated_files(tmp_path, capsys, suffix, side):
    rng = random.Random(f"{suffix}{side}")
    good = _make(tmp_path / f"good{'.npy' if suffix == '.npy' else ''}", 0)
    bad = tmp_path / f"bad{suffix}"
    if suffix == ".pack.h5":
        flag = ("--gt",) if side == "truth" else ()
        assert _run(capsys, "data", "pack", *flag, good, "-o", bad) == 0
    else:
        bad = _make(bad, 1)
    data = bad.read_bytes()
    for _ in range(40 * TIMES):
        bad.write_bytes(mutate(data, rng))
        source, truth = (bad, good) if side == "prediction" else (good, bad)
        status = _run(capsys, "eval", source, "--gt", truth, "-o", tmp_path / "r.json", "--compat", "--allow-empty")
        assert (tmp_path / "r.json").exists() == (tmp_path / "r.npz").exists() == (status == 0)
        (tmp_path / "r.json").unlink(missing_ok=True)
        (tmp_path / "r.npz").unlink(missing_ok=True)


@pytest.mark.parametrize("side", ["prediction", "truth"])
def test_eval_of_mutated_pngs(tmp_path, capsys, side):
    rng = random.Random(side)
    folders = {"prediction": _make(tmp_path / "pred", 0), "truth": _make(tmp_path / "gt", 1)}
    victim = folders[side] / f"{NAMES[0]}.png"
    data = victim.read_bytes()
    for i in range(100 * TIMES):
        changed = mutate(data, rng)
        victim.write_bytes(repair(changed) if i % 2 else changed)
        status = _run(capsys, "eval", folders["prediction"], "--gt", folders["truth"], "-o", tmp_path / "r.json")
        (tmp_path / "r.json").unlink(missing_ok=status != 0)


LIST = "".join(
    f"2011_09_26/2011_09_26_drive_0002_sync/image_02/data/{i:010d}.png "
    f"2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02/{i:010d}.png 721.5377\n"
    for i in (69, 54, 42)
)
MD2 = "2011_09_26/2011_09_26_drive_0002_sync 69 l\n2011_09_26/2011_09_26_drive_0002_sync 54 r\n"
NYU = "/bathroom/rgb_00045.jpg /bathroom/sync_depth_00045.png 518.8579\n/b/rgb_1.jpg None 518.8579\n"


@pytest.mark.parametrize("text", [LIST, MD2, NYU], ids=["bts", "md2", "nyu"])
def test_mutated_list_files(tmp_path, capsys, text):
    rng = random.Random(text)
    path = tmp_path / "list.txt"
    source = _make(tmp_path / "pred", 0)
    words = [
        b" ",
        b"\n",
        b"None",
        b"..",
        b"/",
        b"-1",
        b"nan",
        b"1e400",
        b"l",
        b"r",
        b"\xef\xbb\xbf",
        b"\x00",
        b"9" * 30,
    ]
    for i in range(70 * TIMES):
        changed = bytearray(mutate(text.encode(), rng) if i % 2 else text.encode())
        for _ in range(rng.randint(0, 3)):
            at = rng.randrange(len(changed) + 1)
            changed[at : at + rng.randint(0, 4)] = rng.choice(words)
        path.write_bytes(bytes(changed))
        commands = [
            ("data", "splits", "show", path),
            ("eval", source, "--split", path, "--gt", source),
            ("data", "check", "--split", "eigen", "--train-list", path),
            ("data", "check", "--split", path, "--data-root", source),
        ]
        _run(capsys, *commands[i % 4])


def test_mutated_results(tmp_path, capsys):
    rng = random.Random(5)
    pred, gt = _make(tmp_path / "pred", 0), _make(tmp_path / "gt", 1)
    for name in ("a", "b"):
        assert _run(capsys, "eval", pred, "--gt", gt, "-o", tmp_path / f"{name}.json", "--label", name) == 0
    text, table = (tmp_path / "a.json").read_bytes(), (tmp_path / "a.npz").read_bytes()
    values = [None, True, 0, -1, 1e308, "", "x", [], {}, [1], [[1]], {"a": 1}, "nan", 2**70]
    forms = ("rich", "json", "csv", "markdown", "latex")

    def paths(value, here=()):
        yield here
        children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, child in children:
            yield from paths(child, (*here, key))

    places = [p for p in paths(json.loads(text)) if p]
    for i in range(200 * TIMES):
        (tmp_path / "a.json").write_bytes(text)
        (tmp_path / "a.npz").write_bytes(table)
        if i % 3 == 0:
            (tmp_path / "a.json").write_bytes(mutate(text, rng))
        elif i % 3 == 1:
            (tmp_path / "a.npz").write_bytes(mutate(table, rng))
        else:
            root = json.loads(text)
            for _ in range(rng.randint(1, 3)):
                *front, last = rng.choice(places)
                target = root
                try:
                    for key in front:
                        target = target[key]
                    if rng.random() < 0.3:
                        del target[last]
                    else:
                        target[last] = rng.choice(values)
                except (KeyError, IndexError, TypeError):
                    continue
            (tmp_path / "a.json").write_text(json.dumps(root))
        _run(capsys, "compare", tmp_path / "a.json", tmp_path / "b.json", "--format", forms[i % 5])


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000, "1" * 5000, "NaN", '"x"', "[]", "{}", ""])
def test_json_that_is_no_result(tmp_path, capsys, text):
    (tmp_path / "a.json").write_text(text)
    assert _run(capsys, "compare", tmp_path / "a.json", tmp_path / "a2.json") == 1


def test_mutated_calibration_and_scan(tmp_path, capsys):
    rng = random.Random(6)
    (tmp_path / "velodyne.bin").write_bytes(np.random.default_rng(0).uniform(1, 30, (200, 4)).astype("<f4").tobytes())
    texts = {
        "calib_cam_to_cam.txt": "calib_time: 09-Jan-2012 13:57:47\nS_rect_02: 6.4e+01 2.4e+01\nS_rect_03: 64 24\n"
        "R_rect_00: 1 0 0 0 1 0 0 0 1\nP_rect_02: 40 0 32 1.6 0 40 12 0 0 0 1 0\n"
        "P_rect_03: 40 0 32 -20 0 40 12 0 0 0 1 0\n",
        "calib_velo_to_cam.txt": "calib_time: 15-Mar-2012 11:37:16\nR: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 -0.27\n",
    }
    scan = (tmp_path / "velodyne.bin").read_bytes()
    for i in range(120 * TIMES):
        for name, text in texts.items():
            (tmp_path / name).write_text(text)
        (tmp_path / "velodyne.bin").write_bytes(scan)
        victim = tmp_path / (*texts, "velodyne.bin")[i % 3]
        victim.write_bytes(mutate(victim.read_bytes(), rng))
        out = tmp_path / ("m.npy", "m.png", "m.h5")[i // 3 % 3]
        _run(capsys, "data", "pack", "--gt", "raw", "--scan", tmp_path / "velodyne.bin", "-o", out)
        out.unlink(missing_ok=True)
        assert not list(tmp_path.glob(".*"))


def test_mutated_submissions(tmp_path, capsys):
    rng = random.Random(7)
    pred = tmp_path / "p"
    pred.mkdir()
    for i in range(3):
        codes = np.random.default_rng(i).integers(500, 20000, SHAPE).astype(np.uint16)
        Image.fromarray(codes).save(pred / f"{i:010d}.png")
    archive = tmp_path / "s.zip"
    assert _run(capsys, "export-submission", pred, "--images", pred, "--rehearsal", "-o", archive) == 0
    data = archive.read_bytes()
    for i in range(100 * TIMES):
        archive.write_bytes(mutate(data, rng))
        truth = ("--gt", pred) if i % 2 else ()
        _run(capsys, "check-submission", archive, "--rehearsal", *truth)
        out = tmp_path / "again.zip"
        if i % 4 == 0:
            _run(capsys, "export-submission", archive, "--images", pred, "--rehearsal", "-o", out)
            out.unlink(missing_ok=True)
        assert not list(tmp_path.glob(".*"))
