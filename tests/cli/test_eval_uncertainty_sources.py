"""Baselines, recalibration and a teacher's maps in `adubench eval --uncertainty`."""

import json

import numpy as np
import pytest
from PIL import Image

from adubench.evaluators.teacher_similarity import teacher_similarity
from tests.conftest import assert_one_sentence

COMMON = ("eval", "pred", "--gt", "gt", "--uncertainty", "--uncertainty-maps", "unc", "--uncertainty-kind", "log_sigma")


def _load(path):
    return json.loads(path.read_text())


def _depth(path):
    return (np.asarray(Image.open(path)) / 256.0).astype(np.float32)


def _copy(source, target, change):
    """Write changed depth maps as .npy beside a folder of PNGs."""
    for path in source.rglob("*.png"):
        file = target / path.relative_to(source).with_suffix(".npy")
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, change(_depth(path)).astype(np.float32))


@pytest.fixture
def folders(pairs, tmp_path):
    pred, gt = pairs(n=6, drives=3)
    _copy(pred, tmp_path / "unc", lambda depth: np.log(0.05 * depth))
    return pred, gt


def test_edge_baseline_from_camera_images(run_cli, folders, tmp_path):
    _, gt = folders
    rng = np.random.default_rng(0)
    for path in gt.rglob("*.png"):
        image = np.zeros((40, 60, 3), np.uint8)
        image[:, rng.integers(10, 50) :] = 255
        target = tmp_path / "rgb" / path.relative_to(gt)
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(target)
    done = run_cli(*COMMON, "--images", "rgb", "-o", "r.json")
    assert done.returncode == 0, done.stderr
    assert "baseline: edge" in done.stdout
    found = _load(tmp_path / "r.json")["uncertainty"]["baselines"]
    assert found["edge"]["nause_rmse"] > 0
    assert found["edge"]["nause_rmse"] != found["constant"]["nause_rmse"]
    plain = run_cli(*COMMON, "-o", "p.json")
    assert "baseline: edge" not in plain.stdout
    assert (
        _load(tmp_path / "p.json")["uncertainty"]["nause_rmse"]
        == _load(tmp_path / "r.json")["uncertainty"]["nause_rmse"]
    )


def test_flip_disagreement_is_a_baseline_and_an_uncertainty(run_cli, folders, tmp_path):
    pred, gt = folders
    truth = {path.relative_to(gt): _depth(path) for path in gt.rglob("*.png")}
    for path in pred.rglob("*.png"):
        # Where the prediction is wrong, the mirrored one differs by just as much: a perfect ranking.
        depth, want = _depth(path), truth[path.relative_to(pred)]
        file = tmp_path / "mirrored" / path.relative_to(pred).with_suffix(".npy")
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, (depth + np.where(want > 0, np.abs(depth - want), 0))[:, ::-1])
    done = run_cli(*COMMON, "--flipped-predictions", "mirrored", "-o", "r.json")
    assert done.returncode == 0, done.stderr
    assert "baseline: flip" in done.stdout
    found = _load(tmp_path / "r.json")["uncertainty"]["baselines"]["flip"]
    assert found["nause_rmse"] < 0.05 < found["naurg_rmse"]
    alone = run_cli("eval", pred, "--gt", gt, "--uncertainty", "--flipped-predictions", "mirrored", "-o", "a.json")
    assert alone.returncode == 0, alone.stderr
    section = _load(tmp_path / "a.json")["uncertainty"]
    assert section["kind"] == "score"
    assert section["nause_rmse"] == pytest.approx(found["nause_rmse"], abs=1e-9)
    arguments = ("eval", pred, "--gt", gt, "--uncertainty")
    assert_one_sentence(run_cli(*arguments, "--flip-disagreement"), 2, "checkpoint")
    bad = next((tmp_path / "mirrored").rglob("*.npy"))
    np.save(bad, np.load(bad)[:5])
    assert_one_sentence(run_cli(*arguments, "--flipped-predictions", "mirrored"), 1, "mirrored", "5x60", "40x60")


def test_teacher_maps_are_a_second_target(run_cli, folders, tmp_path):
    pred, gt = folders
    _copy(gt, tmp_path / "teacher", lambda depth: np.where(depth > 0, depth, 1.0))
    done = run_cli(*COMMON, "--teacher-maps", "teacher", "--regions=depth", "-o", "r.json")
    assert done.returncode == 0, done.stderr
    result = _load(tmp_path / "r.json")
    against, mine = result["uncertainty"]["against_teacher"], result["uncertainty"]
    for key in ("nause_rmse", "spearman", "nll", "ece"):  # this teacher is the ground truth
        assert against[key] == pytest.approx(mine[key], rel=1e-6), key
    name = result["per_image"]["frame"][0]
    want = teacher_similarity(
        _depth(pred / f"{name}.png"), np.load(tmp_path / "teacher" / f"{name}.npy"), ignore_top_rows=0
    )
    for key, value in want.items():
        assert result["per_image"][key][0] == pytest.approx(value, rel=1e-6), key
    assert "similarity to the teacher" in done.stdout
    assert "against the teacher" in done.stdout
    alone = run_cli("eval", pred, "--gt", gt, "--teacher-maps", "teacher", "-o", "s.json")
    assert alone.returncode == 0, alone.stderr
    assert _load(tmp_path / "s.json")["summary"]["abs_rel_T"] == result["summary"]["abs_rel_T"]
    next((tmp_path / "teacher").rglob("*.npy")).unlink()
    assert_one_sentence(
        run_cli("eval", pred, "--gt", gt, "--teacher-maps", "teacher"), 1, "1 of 6 teacher maps missing"
    )
    (tmp_path / "teacher/teacher.unfinished.json").write_text("{}")
    assert_one_sentence(run_cli("eval", pred, "--gt", gt, "--teacher-maps", "teacher"), 1, "not all written")


def test_the_scale_of_teacher_codes_is_never_guessed(run_cli, folders, tmp_path):
    pred, gt = folders
    one, truth = (next(iter(sorted(folder.rglob("*.png")))) for folder in (pred, gt))
    for folder in ("mine", "truth", "teacher"):
        (tmp_path / folder).mkdir()
    flat = "2011_09_26_drive_0001_sync_image_02_data_0000000005"
    depth = _depth(one)
    np.save(tmp_path / "mine" / f"{flat}.npy", depth)
    (tmp_path / "truth" / f"{flat}.png").write_bytes(truth.read_bytes())
    codes = (np.clip(depth * 1.1, 1, 80) / 80 * 65535).astype(np.uint16)
    Image.fromarray(codes).save(tmp_path / "teacher" / f"{flat}.png")
    call = ("eval", "mine", "--gt", "truth", "--teacher-maps", "teacher")
    assert_one_sentence(run_cli(*call), 1, "--teacher-range 80")
    done = run_cli(*call, "--teacher-range", "80", "-o", "r.json")
    assert done.returncode == 0, done.stderr
    want = teacher_similarity(depth, (codes / 65535 * 80).astype(np.float32), ignore_top_rows=0)
    assert _load(tmp_path / "r.json")["summary"]["abs_rel_T"] == pytest.approx(want["abs_rel_T"], rel=1e-5)


def test_pooled_curves_on_request(run_cli, folders, tmp_path):
    done = run_cli(*COMMON, "--unc-agg", "pooled", "-o", "r.json")
    assert done.returncode == 0, done.stderr
    assert "pixels pooled" in done.stdout
    section = _load(tmp_path / "r.json")["uncertainty"]
    assert "pooled_nause_rmse" in section
    assert section["pooled_nause_rmse"] != section["nause_rmse"]
    assert_one_sentence(run_cli("eval", "pred", "--gt", "gt", "--unc-agg", "pooled"), 2, "--uncertainty")


@pytest.fixture
def two_splits(tmp_path):
    """Two lists of other drives with ground truth, predictions and maps; sigma is a third of the error."""
    rng = np.random.default_rng(0)
    for k, name in enumerate(("test", "val")):
        lines = []
        for drive in (f"2011_09_26_drive_{2 * k + n + 1:04d}_sync" for n in range(2)):
            for frame in range(5, 8):  # KITTI has no accumulated maps of the first five
                truth = np.round(rng.uniform(4, 70, (40, 60)) * 256) / 256
                sigma = 0.03 * truth
                place = tmp_path / "truth" / "train" / drive / "proj_depth/groundtruth/image_02"
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray((truth * 256).astype(np.uint16)).save(place / f"{frame:010d}.png")
                values = {"pred": truth + 3 * sigma * rng.normal(size=truth.shape), "unc": sigma}
                for kind, array in values.items():
                    file = tmp_path / kind / drive / "image_02" / f"{frame:010d}.npy"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    np.save(file, array.astype(np.float32))
                lines.append(f"2011_09_26/{drive} {frame} l")
        (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n")


def test_recalibration_on_another_split(run_cli, two_splits, tmp_path):
    arguments = (
        "eval", "pred", "--split", "test.txt", "--gt", "truth", "--protocol", "full-frame", "--uncertainty",
        "--uncertainty-maps", "unc", "--uncertainty-kind", "sigma", "--unc-family", "gaussian",
    )  # fmt: skip
    done = run_cli(*arguments, "--calib-split", "val.txt", "-o", "r.json")
    assert done.returncode == 0, done.stderr
    section = _load(tmp_path / "r.json")["uncertainty"]
    fitted = section["recalibration"]
    assert fitted["n_images"] == 6
    assert fitted["temperature"] == pytest.approx(3, rel=0.05)  # sigma was three times too small
    assert fitted["after"]["ece"] < 0.05 < section["ece"]
    assert fitted["after"]["nll"] < section["nll"]
    assert "after T = " in done.stdout
    plain = run_cli(*arguments, "-o", "p.json")
    assert plain.returncode == 0, plain.stderr
    before = _load(tmp_path / "p.json")["uncertainty"]
    for key in ("ece", "nll", "nause_rmse", "spearman", "ence"):
        assert before[key] == section[key], key
    assert_one_sentence(run_cli(*arguments, "--calib-split", "test.txt"), 2, "evaluated split")
    mixed = (tmp_path / "val.txt").read_text() + (tmp_path / "test.txt").read_text().splitlines()[0] + "\n"
    (tmp_path / "mixed.txt").write_text(mixed)
    assert_one_sentence(run_cli(*arguments, "--calib-split", "mixed.txt"), 2, "shares drive")
    assert run_cli(*arguments, "--calib-split", "nowhere").returncode != 0
    assert_one_sentence(run_cli(*arguments, "--calib-maps", "unc"), 2, "--calib-split")
    assert_one_sentence(run_cli(*COMMON, "--calib-split", "val.txt"), 2, "--split")
