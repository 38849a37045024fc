"""`adubench eval` as a user runs it: what it writes, what it refuses, and with which sentence."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests.conftest import assert_one_sentence


def _load(path):
    return json.loads(path.read_text())


def test_result_has_the_fields_of_the_contract(run_cli, pairs, tmp_path):
    pred, gt = pairs(n=4, drives=2)
    done = run_cli("eval", pred, "--gt", gt, "--protocol", "full-frame", "-o", "r.json")
    assert done.returncode == 0, done.stderr
    result = _load(tmp_path / "r.json")
    assert result["schema_version"] == 1
    assert result["protocol"]["name"] == "full-frame"
    assert len(result["protocol"]["fingerprint"]) == 64
    assert result["counts"]["evaluated"] == 4
    columns = result["per_image"]
    assert columns["frame"] == ["drive_0/0000", "drive_0/0002", "drive_1/0001", "drive_1/0003"]
    assert columns["drive"] == ["drive_0", "drive_0", "drive_1", "drive_1"]
    assert {"n_pixels", "abs_rel", "sq_rel", "sq_rel_gt2", "rmse", "silog", "d1", "irmse", "log_mae"} <= columns.keys()
    assert result["summary"]["abs_rel"] == pytest.approx(np.mean(columns["abs_rel"]), rel=1e-12)
    assert result["regions"]["all"]["n_pixels"] == sum(columns["n_pixels"])
    assert {"source_sha256", "data_fingerprint", "command", "libraries"} <= result["provenance"].keys()
    table = np.load(tmp_path / "r.npz")
    assert table["0_values"].shape == (4, 1, 15)
    assert "full-frame v1" in done.stdout
    assert "images 4/4" in done.stdout


def test_numbers_equal_a_plain_float64_evaluation(run_cli, pairs, tmp_path):
    pred, gt = pairs(n=3)
    run_cli("eval", pred, "--gt", gt, "-o", "r.json")
    columns = _load(tmp_path / "r.json")["per_image"]
    for i, frame in enumerate(columns["frame"]):
        g = np.asarray(Image.open(gt / f"{frame}.png")).astype(np.float64) / 256
        p = np.asarray(Image.open(pred / f"{frame}.png")).astype(np.float64) / 256
        g, p = g[g > 0], p[g > 0]
        log = np.log(p) - np.log(g)
        assert columns["n_pixels"][i] == g.size
        assert columns["abs_rel"][i] == pytest.approx(np.mean(np.abs(p - g) / g), rel=1e-12)
        assert columns["silog"][i] == pytest.approx(100 * log.std(), abs=1e-9)
        assert columns["irmse"][i] == pytest.approx(1000 * np.sqrt(np.mean((1 / p - 1 / g) ** 2)), rel=1e-12)


@pytest.mark.parametrize("form", ["folder", "zip", "npz", "npy-folder", "stack", "h5"])
def test_every_form_of_source_gives_the_same_numbers(run_cli, pairs, tmp_path, form):
    pred, gt = pairs(n=4, drives=2)
    files = sorted(pred.rglob("*.png"))
    maps = {f.relative_to(pred).with_suffix("").as_posix(): np.asarray(Image.open(f)) / np.float32(256) for f in files}
    source = tmp_path / f"source.{form}"
    if form == "folder":
        source = pred
    elif form == "zip":
        source = tmp_path / "source.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for file in files:
                archive.write(file, file.relative_to(pred).as_posix())
    elif form == "npz":
        np.savez(source, **maps)
    elif form == "npy-folder":
        for name, values in maps.items():
            path = source / f"{name}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, values)
    elif form == "stack":
        source = tmp_path / "stack.npy"
        np.save(source, np.stack([maps[name] for name in sorted(maps)]))
    else:
        h5py = pytest.importorskip("h5py")
        source = tmp_path / "maps.h5"
        with h5py.File(source, "w") as file:
            for name, values in maps.items():
                file[name] = values
    run_cli("eval", pred, "--gt", gt, "-o", "want.json")
    done = run_cli("eval", source, "--gt", gt, "-o", "got.json")
    assert done.returncode == 0, done.stderr
    want, got = _load(tmp_path / "want.json"), _load(tmp_path / "got.json")
    assert got["per_image"] == want["per_image"]
    assert got["provenance"]["data_fingerprint"] == want["provenance"]["data_fingerprint"]


def test_workers_change_nothing(run_cli, pairs, tmp_path):
    pred, gt = pairs(n=20, drives=3)
    run_cli("eval", pred, "--gt", gt, "-o", "one.json")
    done = run_cli("eval", pred, "--gt", gt, "-o", "two.json", "--workers", 2)
    assert done.returncode == 0, done.stderr
    one, two = _load(tmp_path / "one.json"), _load(tmp_path / "two.json")
    assert one["per_image"] == two["per_image"]
    assert one["summary"] == two["summary"]


def test_packed_ground_truth_changes_nothing_and_is_rebuilt_when_its_sources_change(run_cli, pairs, tmp_path):
    pred, gt = pairs(n=40, shape=(20, 30), drives=4)
    cache = tmp_path / "cache"
    run_cli("eval", pred, "--gt", gt, "-o", "plain.json", "--cache", "off")
    for name in ("first.json", "second.json"):
        done = run_cli("eval", pred, "--gt", gt, "-o", name, "--cache", cache)
        assert done.returncode == 0, done.stderr
    plain, first, second = (_load(tmp_path / f"{n}.json") for n in ("plain", "first", "second"))
    assert plain["per_image"] == first["per_image"] == second["per_image"]
    assert len(list(cache.glob("*.h5"))) == 1
    victim = gt / "drive_0/0000.png"
    Image.fromarray(np.full((20, 30), 2560, np.uint16)).save(victim)
    os.utime(victim, ns=(1, 1))
    run_cli("eval", pred, "--gt", gt, "-o", "third.json", "--cache", cache)
    third = _load(tmp_path / "third.json")
    assert third["per_image"]["n_pixels"][0] == 600
    assert third["provenance"]["data_fingerprint"] != first["provenance"]["data_fingerprint"]


def test_several_protocols_in_one_pass(run_cli, pairs, tmp_path):
    pred, gt = pairs(n=2, shape=(375, 1242))
    done = run_cli(
        "eval", pred, "--gt", gt, "--protocol", "kitti-eigen", "--protocol", "kitti-eigen-full", "-o", "r.json"
    )
    assert done.returncode == 0, done.stderr
    results = _load(tmp_path / "r.json")["results"]
    assert [r["protocol"]["name"] for r in results] == ["kitti-eigen", "kitti-eigen-full"]
    assert results[0]["per_image"]["n_pixels"] != results[1]["per_image"]["n_pixels"]
    done = run_cli("eval", pred, "--gt", gt, "--protocol", "all", "-o", "all.json")
    assert done.returncode == 0, done.stderr
    names = [r["protocol"]["name"] for r in _load(tmp_path / "all.json")["results"]]
    assert {"kitti-eigen", "kitti-official", "kitti-mdb", "full-frame"} <= set(names)
    assert "nyu" not in names


def test_an_override_is_part_of_the_printed_name(run_cli, pairs, tmp_path):
    pred, gt = pairs(n=1, shape=(375, 1242))
    done = run_cli(
        "eval", pred, "--gt", gt, "--protocol", "kitti-eigen", "--crop", "none", "--cap", "50", "-o", "r.json"
    )
    assert done.returncode == 0, done.stderr
    name = _load(tmp_path / "r.json")["protocol"]["name"]
    assert name.startswith("kitti-eigen[")
    assert "crop=none" in name
    assert "cap=50" in name


def test_json_goes_to_stdout_and_the_banner_to_stderr(run_cli, pairs):
    pred, gt = pairs(n=1)
    done = run_cli("eval", pred, "--gt", gt, "--json")
    assert json.loads(done.stdout)["schema_version"] == 1
    assert "full-frame v1" in done.stderr


# --- bad input -----------------------------------------------------------------------------------------------------


def _spoil(kind, pred, gt):
    """Apply one fault; return words that the sentence must have."""
    victim = pred / "drive_0/0001.png"
    match kind:
        case "missing folder":
            shutil.rmtree(pred)
            return (pred,)
        case "empty folder":
            shutil.rmtree(pred)
            pred.mkdir()
            return (pred,)
        case "no common names":
            (pred / "drive_0").rename(pred / "other")
            return ("other/0000", "drive_0/0000")
        case "truncated PNG":
            victim.write_bytes(victim.read_bytes()[:-200])
        case "8-bit PNG":
            Image.fromarray(np.full((40, 60), 7, np.uint8)).save(victim)
            return (victim, "8-bit")
        case "RGB PNG":
            Image.fromarray(np.full((40, 60, 3), 7, np.uint8)).save(victim)
            return (victim, "RGB")
        case "wrong size":
            Image.fromarray(np.full((41, 60), 700, np.uint16)).save(victim)
            return ("drive_0/0001", "41", "40")
        case "text named png":
            victim.write_text("not a picture\n")
        case "missing prediction":
            victim.unlink()
            return ("drive_0/0001", "missing")
        case "two predictions":
            np.save(victim.with_suffix(".npy"), np.ones((40, 60), np.float32))
            return ("0001.png", "0001.npy")
        case "all-zero prediction":
            Image.fromarray(np.zeros((40, 60), np.uint16)).save(victim)
            return ("drive_0/0001",)
        case "missing ground truth":
            shutil.rmtree(gt)
            return (gt,)
        case "truncated ground truth":
            path = gt / "drive_0/0001.png"
            path.write_bytes(path.read_bytes()[:100])
            return (path,)
    return (victim,)


FAULTS = [
    "missing folder", "empty folder", "no common names", "truncated PNG", "8-bit PNG", "RGB PNG", "wrong size",
    "text named png", "missing prediction", "two predictions", "all-zero prediction", "missing ground truth",
    "truncated ground truth",
]  # fmt: skip


@pytest.mark.parametrize("kind", FAULTS)
def test_bad_input_is_one_sentence_and_writes_nothing(run_cli, pairs, tmp_path, kind):
    pred, gt = pairs(n=3)
    words = _spoil(kind, pred, gt)
    done = run_cli("eval", pred, "--gt", gt, "-o", "r.json")
    assert_one_sentence(done, 1, *words)
    assert not list(tmp_path.glob("*r.json*"))
    assert not list(tmp_path.glob("*.npz"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 0.0])
def test_bad_values_are_clamped_and_counted_where_the_protocol_clamps(run_cli, pairs, tmp_path, value):
    pred, gt = pairs(n=2, shape=(60, 90), suffix=".npy")
    victim = pred / "drive_0/0001.npy"
    values = np.load(victim)
    values[:] = value
    np.save(victim, values)
    done = run_cli("eval", pred, "--gt", gt, "--protocol", "synthdrive", "-o", "r.json")
    assert done.returncode == 0, done.stderr
    result = _load(tmp_path / "r.json")
    assert result["counts"]["invalid_values"] == result["per_image"]["n_pixels"][1]
    assert result["issues"]["invalid_values"] == ["drive_0/0001"]
    assert "NaN, infinite or not positive" in done.stderr
    refused = run_cli("eval", pred, "--gt", gt, "--protocol", "full-frame", "-o", "no.json")
    assert_one_sentence(refused, 1, "drive_0/0001")
    assert not (tmp_path / "no.json").exists()


def test_image_without_valid_pixel_is_named_and_written(run_cli, pairs, tmp_path):
    pred, gt = pairs(n=3)
    Image.fromarray(np.zeros((40, 60), np.uint16)).save(gt / "drive_0/0001.png")
    done = run_cli("eval", pred, "--gt", gt, "-o", "r.json")
    assert_one_sentence(done, 1, "drive_0/0001", "no valid pixel")
    result = _load(tmp_path / "r.json")
    assert result["counts"]["empty_ground_truth"] == 1
    assert result["per_image"]["abs_rel"][1] is None
    assert result["summary"]["abs_rel"] == pytest.approx(np.mean([result["per_image"]["abs_rel"][i] for i in (0, 2)]))
    assert run_cli("eval", pred, "--gt", gt, "-o", "r.json", "--allow-empty").returncode == 0


def test_missing_predictions_can_be_allowed_and_mark_the_result(run_cli, pairs, tmp_path):
    pred, gt = pairs(n=3)
    (pred / "drive_0/0001.png").unlink()
    done = run_cli("eval", pred, "--gt", gt, "-o", "r.json", "--allow-missing")
    assert done.returncode == 0, done.stderr
    result = _load(tmp_path / "r.json")
    assert result["counts"]["missing_prediction"] == 1
    assert result["provenance"]["partial"] is True
    assert "partial" in done.stderr
    assert "PARTIAL" in done.stdout


def test_a_prediction_for_an_unknown_frame_is_named(run_cli, pairs, tmp_path):
    pred, gt = pairs(n=2)
    shutil.copy(pred / "drive_0/0001.png", pred / "drive_0/zzz.png")
    done = run_cli("eval", pred, "--gt", gt, "-o", "r.json")
    assert done.returncode == 0
    assert "drive_0/zzz" in done.stderr
    assert _load(tmp_path / "r.json")["issues"]["unknown_prediction"] == ["drive_0/zzz"]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--gt", "gt", "--protocol", "kitti-eigne"), 2, ("kitti-eigne", "kitti-eigen")),
        (("--gt", "gt", "--kind", "inverse"), 2, ("inverse", "scaled-disparity")),
        (("--gt", "gt", "--alignment", "meidan"), 2, ("meidan", "median")),
        (("--gt", "gt", "--crop", "kb"), 2, ("kb", "garg")),
        (("--gt", "gt", "--png-scale", "0"), 2, ("png-scale",)),
        ((), 2, ("--split", "--gt")),
        (("--split", "eigne"), 2, ("eigne", "eigen")),
        (("--split", "eigen"), 2, ("--data-root",)),
        (("--gt", "pred"), 2, ("same path",)),
    ],
)
def test_usage_errors(run_cli, pairs, arguments, status, words):
    pairs(n=1)
    assert_one_sentence(run_cli("eval", "pred", *arguments), status, *words)


@pytest.mark.parametrize(("factor", "words"), [(100.0, "centimetres"), (1000.0, "millimetres"), (3.0, "not metric")])
def test_wrong_units_are_called_out(run_cli, pairs, factor, words):
    pred, gt = pairs(n=2, suffix=".npy")
    for path in pred.rglob("*.npy"):
        np.save(path, np.load(path) * np.float32(factor))
    done = run_cli("eval", pred, "--gt", gt)
    assert done.returncode == 0
    assert words in done.stderr
    assert "warning" not in run_cli("eval", pred, "--gt", gt, "--alignment", "median").stderr


def test_disparity_passed_as_depth_is_called_out(run_cli, pairs, tmp_path):
    pred, gt = pairs(n=2, suffix=".npy")
    for path in pred.rglob("*.npy"):
        np.save(path, 1 / np.load(path))
    done = run_cli("eval", pred, "--gt", gt)
    assert "disparity passed as depth" in done.stderr
    clean = run_cli("eval", pred, "--gt", gt, "--kind", "scaled-disparity", "-o", "r.json")
    assert clean.returncode == 0, clean.stderr
    assert "warning" not in clean.stderr
    assert _load(tmp_path / "r.json")["summary"]["abs_rel"] < 0.06


def test_the_moment_table_never_replaces_the_predictions(run_cli, pairs, tmp_path):
    _, gt = pairs(n=1)
    np.savez(tmp_path / "mine.npz", **{"drive_0/0000": np.ones((40, 60), np.float32)})
    before = (tmp_path / "mine.npz").read_bytes()
    done = run_cli("eval", "mine.npz", "--gt", gt, "-o", "mine.json")
    assert_one_sentence(done, 1, "mine.npz")
    assert (tmp_path / "mine.npz").read_bytes() == before


def test_read_only_output_folder(run_cli, pairs, tmp_path):
    pred, gt = pairs(n=1)
    (tmp_path / "file").write_text("in the way")
    done = run_cli("eval", pred, "--gt", gt, "-o", "file/r.json")
    assert_one_sentence(done, 1, "cannot write")


def test_full_disk_leaves_the_old_result(pairs, tmp_path, monkeypatch):
    from pathlib import Path

    from adubench.errors import DataError
    from adubench.evaluators.evaluator import evaluate
    from adubench.evaluators.result import save_results

    pred, gt = pairs(n=1)
    results = evaluate(pred, gt=gt)
    save_results(results, tmp_path / "r.json")
    before = (tmp_path / "r.json").read_bytes(), (tmp_path / "r.npz").read_bytes()

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match="No space left on device"):
        save_results(results, tmp_path / "r.json")
    assert ((tmp_path / "r.json").read_bytes(), (tmp_path / "r.npz").read_bytes()) == before
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_in_the_middle_leaves_nothing(pairs, tmp_path, workers):
    pred, gt = pairs(n=2, shape=(375, 1242))
    for folder in (pred, gt):
        for i in range(2, 300):
            os.link(folder / f"drive_0/{i % 2:04d}.png", folder / f"drive_0/{i:04d}.png")
    for delay in (0.6, 1.2, 2.0, 3.0):
        process = subprocess.Popen(
            [sys.executable, "-m", "adubench", "eval", pred, "--gt", gt, "-o", "r.json", "--workers", str(workers)],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            # A suite that runs in the background may have been started with SIGINT ignored, and would pass that on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
        if process.returncode == 130:
            break
        # Python itself dies of a signal that comes before `main` runs: nothing of ours was there to be tested.
        assert process.returncode in (-signal.SIGINT, 1), err
    assert process.returncode == 130, err
    assert err.strip() == "interrupted: nothing half-written was left behind."
    assert not list(tmp_path.glob("*r.json*"))
    assert not list(tmp_path.glob("*r.npz*"))
    assert not list(tmp_path.glob(".*"))


def test_a_killed_worker_is_one_sentence(pairs, tmp_path, monkeypatch):
    from adubench.errors import AdubenchError
    from adubench.evaluators import run as loop
    from adubench.evaluators.evaluator import EvalOptions, evaluate

    pred, gt = pairs(n=20)
    parent = os.getpid()

    def die(self, position):
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(loop.Job, "score", die)
    with pytest.raises(AdubenchError, match="worker process was killed"):
        evaluate(pred, gt=gt, options=EvalOptions(workers=2))


def test_compat_treats_nan_as_the_toolbox_does(run_cli, pairs, tmp_path):
    """silog of a NaN image is 0, its other metrics are left out of the mean; without --compat it is an error."""
    pred, gt = pairs(n=2, shape=(352, 1216), suffix=".npy")
    values = np.load(pred / "drive_0/0001.npy")
    values[::7] = np.nan
    np.save(pred / "drive_0/0001.npy", values)
    arguments = ("eval", pred, "--gt", gt, "--protocol", "kitti-eigen-toolbox", "-o", "r.json")
    assert_one_sentence(run_cli(*arguments), 1, "drive_0/0001", "--compat")
    done = run_cli(*arguments, "--compat")
    assert done.returncode == 0, done.stderr
    result = _load(tmp_path / "r.json")
    assert result["per_image"]["silog"][1] == 0.0
    assert result["summary"]["silog"] == pytest.approx(result["per_image"]["silog"][0] / 2)
    assert result["per_image"]["abs_rel"][1] is None
    assert result["summary"]["abs_rel"] == result["per_image"]["abs_rel"][0]


def test_rows_that_the_server_cannot_fill_are_named(run_cli, pairs, tmp_path):
    pred, gt = pairs(n=1)
    codes = np.asarray(Image.open(pred / "drive_0/0000.png")).copy()
    codes[10:13] = 0
    Image.fromarray(codes).save(pred / "drive_0/0000.png")
    done = run_cli("eval", pred, "--gt", gt, "--protocol", "kitti-official", "-o", "r.json")
    assert done.returncode == 0, done.stderr
    assert "SILog is NaN" in done.stderr
    result = _load(tmp_path / "r.json")
    assert result["issues"]["missing_after_fill"] == ["drive_0/0000"]
    assert result["per_image"]["silog"] == [None]
    assert result["per_image"]["abs_rel"][0] > 0


def test_all_leaves_out_what_does_not_fit_and_says_so(run_cli, pairs, tmp_path):
    pred, gt = pairs(n=1, shape=(100, 200))
    done = run_cli("eval", pred, "--gt", gt, "--protocol", "all", "-o", "r.json")
    assert done.returncode == 0, done.stderr
    names = {r["protocol"]["name"] for r in _load(tmp_path / "r.json")["results"]}
    assert {"full-frame", "synthdrive", "kitti-official"} <= names
    assert "kitti-eigen" not in names
    assert "left out" in done.stderr
    assert "kitti-eigen" in done.stderr


def test_a_named_protocol_that_does_not_fit_is_an_error_also_among_several(run_cli, pairs):
    pred, gt = pairs(n=1, shape=(100, 200))
    done = run_cli("eval", pred, "--gt", gt, "--protocol", "full-frame", "--protocol", "kitti-eigen")
    assert_one_sentence(done, 1, "drive_0/0000", "352")


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_the_official_protocol_refuses_what_no_png_can_hold(run_cli, pairs, tmp_path, value):
    pred, gt = pairs(n=2, suffix=".npy")
    values = np.load(pred / "drive_0/0001.npy")
    values[3, 4] = value
    np.save(pred / "drive_0/0001.npy", values)
    arguments = ("eval", pred, "--gt", gt, "--protocol", "kitti-official", "-o", "r.json")
    assert_one_sentence(run_cli(*arguments), 1, "drive_0/0001", "1 pixels")
    assert run_cli(*arguments, "--compat").returncode == 0
    values[3, 4] = 0
    np.save(pred / "drive_0/0001.npy", values)
    assert run_cli(*arguments).returncode == 0, "0 means missing, and missing pixels are filled"
