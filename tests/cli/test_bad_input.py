"""Faults that the other files do not bring to the command line: list files, archives, truth, caches, encodings."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.conftest import assert_one_sentence

DRIVE = "2011_09_26_drive_0002"
IMAGE = f"2011_09_26/{DRIVE}_sync/image_02/data"
TRUTH = f"{DRIVE}_sync/proj_depth/groundtruth/image_02"
GOOD = f"{IMAGE}/0000000069.png {TRUTH}/0000000069.png 721.5377\n"

LISTS = {
    "E0": b"\xff\xfe\x00binary",
    "E0b": b"# only a comment\n\n",
    "E1": b"what is this line\n",
    "E2": (GOOD + f"{IMAGE}/0000000054.png\n").encode(),
    "E3": (GOOD + f"{IMAGE}/0000000054.png {TRUTH}/0000000054.png fast\n").encode(),
    "E4": (GOOD + f"{IMAGE}/0000000054.png {TRUTH}/0000000042.png 721.5377\n").encode(),
    "E6": (GOOD + f"{IMAGE}/0000009999.png {TRUTH}/0000009999.png 721.5377\n").encode(),
    "E9": b"00 1 l\n",
}


@pytest.fixture
def kitti(tmp_path):
    """One KITTI frame: truth in layout B, a prediction, a good list."""
    truth = tmp_path / "kitti" / TRUTH / "0000000069.png"
    pred = tmp_path / "pred" / f"{DRIVE}_sync/image_02/0000000069.png"
    for path in (truth, pred):
        path.parent.mkdir(parents=True)
        Image.fromarray(np.full((375, 1242), 2560, np.uint16)).save(path)
    (tmp_path / "list.txt").write_text(GOOD)
    return truth, pred


@pytest.mark.parametrize("code", LISTS)
@pytest.mark.parametrize("verb", ["eval", "show", "pack", "check"])
def test_a_malformed_list_names_file_and_code(tmp_path, kitti, monkeypatch, capsys, code, verb):
    from adubench.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.txt").write_bytes(LISTS[code])
    arguments = {
        "eval": ["eval", "pred", "--split", "bad.txt", "--data-root", "kitti", "-o", "r.json"],
        "show": ["data", "splits", "show", "bad.txt"],
        "pack": ["data", "pack", "--gt", "kitti", "--split", "bad.txt", "-o", "x.h5"],
        "check": ["data", "check", "--split", "eigen", "--train-list", "bad.txt"],
    }[verb]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    err = capsys.readouterr().err
    assert ended.value.code == 1
    assert err.startswith("error: bad.txt") or err.startswith(f"error: {tmp_path}/bad.txt")
    assert f"[{code}]" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "r.json").exists()
    assert not (tmp_path / "x.h5").exists()


def test_a_good_list_is_a_split(run_cli, tmp_path, kitti):
    done = run_cli("eval", "pred", "--split", "list.txt", "--data-root", "kitti", "--protocol", "kitti-eigen")
    assert done.returncode == 0, done.stderr
    assert "images 1/1" in done.stdout
    assert_one_sentence(run_cli("eval", "pred", "--split", "gone.txt", "--data-root", "kitti"), 1, "gone.txt")


def test_a_missing_calibration_is_named(run_cli, tmp_path, kitti):
    scan = tmp_path / "kitti/2011_09_26" / f"{DRIVE}_sync/velodyne_points/data/0000000069.bin"
    scan.parent.mkdir(parents=True)
    np.full((50, 4), 9, "<f4").tofile(scan)
    words = ("calibration not found", "calib_cam_to_cam.txt")
    for arguments in (
        (
            "eval",
            "pred",
            "--split",
            "list.txt",
            "--protocol",
            "kitti-eigen-raw",
            "--data-root",
            "kitti",
            "-o",
            "r.json",
        ),
        ("data", "pack", "--gt", "raw", "--split", "list.txt", "--data-root", "kitti", "-o", "r.h5"),
    ):
        assert_one_sentence(run_cli(*arguments), 1, *words)
    assert_one_sentence(
        run_cli("data", "pack", "--gt", "raw", "--scan", scan, "-o", "r.npy"), 1, "calib_cam_to_cam.txt"
    )
    assert not list(tmp_path.glob("r.*"))


@pytest.mark.parametrize("mode", ["L", "RGB", "text", "cut", "empty", "palette"])
@pytest.mark.parametrize("verb", ["eval", "eval with workers", "pack", "pack truth", "export"])
def test_a_bad_map_is_named_by_every_command(run_cli, tmp_path, pairs, mode, verb):
    pred, gt = pairs(n=3)
    folder = gt if verb in ("eval", "eval with workers", "pack truth") else pred
    victim = folder / "drive_0/0001.png"
    data = victim.read_bytes()
    if mode in ("L", "RGB", "palette"):
        image = Image.fromarray(np.full((40, 60, 3), 9, np.uint8))
        image.convert({"L": "L", "RGB": "RGB", "palette": "P"}[mode]).save(victim)
    else:
        victim.write_bytes({"text": b"hello\n", "cut": data[: len(data) // 2], "empty": b""}[mode])
    arguments = {
        "eval": ("eval", pred, "--gt", gt, "-o", "out.json"),
        "eval with workers": ("eval", pred, "--gt", gt, "-o", "out.json", "--workers", 2),
        "pack": ("data", "pack", pred, "-o", "out.h5"),
        "pack truth": ("data", "pack", "--gt", gt, "-o", "out.h5"),
        "export": ("export-submission", pred, "--images", gt, "--rehearsal", "-o", "out.zip"),
    }[verb]
    assert_one_sentence(run_cli(*arguments), 1, "0001.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gt", "pred"]


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".npy", ".zip"])
@pytest.mark.parametrize("side", ["prediction", "truth"])
def test_a_truncated_archive_is_named(run_cli, tmp_path, pairs, suffix, side):
    pred, gt = pairs(n=2)
    bad = tmp_path / f"bad{suffix}"
    if suffix == ".npy":
        np.save(bad, np.ones((2, 40, 60), np.float32))
    elif suffix == ".zip":
        import zipfile

        with zipfile.ZipFile(bad, "w") as archive:
            for path in sorted(gt.rglob("*.png")):
                archive.write(path, path.relative_to(gt).as_posix())
    else:
        assert run_cli("data", "pack", pred, "-o", bad).returncode == 0
    bad.write_bytes(bad.read_bytes()[:-300])
    source, truth = (bad, gt) if side == "prediction" else (pred, bad)
    assert_one_sentence(run_cli("eval", source, "--gt", truth, "-o", "r.json"), 1, bad.name)
    assert not list(tmp_path.glob("r.*"))


def test_a_full_disk_while_packing_leaves_nothing(tmp_path, pairs, monkeypatch, capsys):
    from adubench.cli import main
    from adubench.io import pack_writer

    pairs(n=3)
    monkeypatch.chdir(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pack_writer.PackWriter, "_write_tables", full)
    for arguments in (["data", "pack", "--gt", "gt", "-o", "x.h5"], ["data", "pack", "pred", "-o", "x.h5"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 1
        assert "No space left on device" in capsys.readouterr().err
        assert sorted(p.name for p in tmp_path.iterdir()) == ["gt", "pred"]


# --- the cache -------------------------------------------------------------------------------------------------------


def test_a_cache_that_cannot_be_written_costs_only_time(run_process, tmp_path, pairs):
    pred, gt = pairs(n=34)
    (tmp_path / "file").touch()
    done = run_process("eval", pred, "--gt", gt, "-o", "r.json", "--cache", "file")
    assert done.returncode == 0
    assert done.stderr.startswith("warning: ground truth is not cached")


def test_a_broken_map_is_said_once(run_cli, tmp_path, pairs):
    pred, gt = pairs(n=34)
    (gt / "drive_0/0003.png").write_text("x")
    done = run_cli("eval", pred, "--gt", gt, "--cache", "cache")
    assert_one_sentence(done, 1, "0003.png")
    assert done.stderr.count("\n") == 1
    assert not any((tmp_path / "cache").glob("*"))


def test_a_damaged_cache_is_made_again_or_named(run_cli, tmp_path, pairs):
    pred, gt = pairs(n=34)
    arguments = ("eval", pred, "--gt", gt, "--cache", "cache", "--json")
    want = json.loads(run_cli(*arguments).stdout)["per_image"]
    (cache,) = (tmp_path / "cache").glob("*.h5")
    data = cache.read_bytes()
    for damaged in (data[:4000], b"hello", b""):
        cache.write_bytes(damaged)
        done = run_cli(*arguments)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["per_image"] == want
    middle = len(data) // 2
    cache.write_bytes(data[:middle] + bytes(b ^ 0x55 for b in data[middle : middle + 2000]) + data[middle + 2000 :])
    done = run_cli(*arguments)
    if done.returncode:
        assert_one_sentence(done, 1, cache.name, "delete it")


def test_two_runs_share_a_cache(tmp_path, pairs):
    pred, gt = pairs(n=40)
    command = [sys.executable, "-m", "adubench", "eval", pred, "--gt", gt, "--cache", "cache", "-o"]
    runs = [
        subprocess.Popen([*command, f"{i}.json"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for i in range(2)
    ]
    for run in runs:
        _, err = run.communicate(timeout=60)
        assert run.returncode == 0, err
    assert len(list((tmp_path / "cache").iterdir())) == 1


# --- names and encodings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_without_arrows_gets_the_numbers(run_cli, pairs, encoding):
    pred, gt = pairs(n=1)
    done = run_cli("eval", pred, "--gt", gt, env={"PYTHONIOENCODING": encoding})
    assert done.returncode == 0, done.stderr
    assert "full-frame" in done.stdout


@pytest.mark.skipif(sys.platform == "darwin", reason="file names are UTF-8 there")
def test_a_file_name_that_is_no_text_is_named(run_cli, tmp_path, pairs):
    pred, gt = pairs(n=1)
    for folder in (pred, gt):
        os.rename(folder / "drive_0/0000.png", os.fsencode(folder / "drive_0") + b"/\xff\xe9.png")
    assert_one_sentence(run_cli("eval", pred, "--gt", gt), 1, "no UTF-8 text")


def test_paths_from_another_folder(run_cli, tmp_path, pairs):
    pairs(n=2)
    (tmp_path / "o ther/ü").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "gt")
    done = run_cli("eval", "../../pred", "--gt", "../../link", "-o", "new/r.json", cwd=tmp_path / "o ther/ü")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o ther/ü/new/r.json").exists()


def test_a_split_on_disk_needs_its_root_even_with_packed_truth(run_cli, tmp_path, pairs):
    pred, gt = pairs(n=1)
    assert run_cli("data", "pack", "--gt", gt, "-o", "gt.h5").returncode == 0
    assert_one_sentence(run_cli("eval", pred, "--split", "synthdrive", "--gt", "gt.h5"), 2, "--data-root")
