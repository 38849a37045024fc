"""`adubench eval --uncertainty` as a user runs it."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.conftest import assert_one_sentence
from tests.evaluators.uncertainty_cases import CASES, METRICS, WANT, case

COMMON = ("eval", "pred", "--gt", "gt", "--uncertainty", "--uncertainty-maps", "unc", "--uncertainty-kind")
NAMES = tuple(WANT["ause"])


def _load(path):
    return json.loads(path.read_text())


def _write(folder, name):
    for kind, values in zip(("gt", "pred", "unc"), case(name), strict=True):
        (folder / kind).mkdir(exist_ok=True)
        np.save(folder / kind / f"{name}.npy", values.reshape(1, -1))


def test_golden_scores_through_the_command_line(run_cli, tmp_path):
    for name in NAMES:
        _write(tmp_path, name)
    done = run_cli(*COMMON, "score", "-o", "r.json")
    assert done.returncode == 0, done.stderr
    columns = _load(tmp_path / "r.json")["per_image"]
    for name in NAMES:
        at = columns["frame"].index(name)
        for error in METRICS:
            want = WANT["ause"][name][error]
            # Depth is float32 here, so 1e-7 of a depth is what an error of metres can keep.
            assert columns[f"unc_ause_{error}"][at] == pytest.approx(want["ause"], rel=1e-6, abs=1e-6), (name, error)
            assert columns[f"unc_aurg_{error}"][at] == pytest.approx(want["aurg"], rel=1e-6, abs=1e-6), (name, error)
    at = columns["frame"].index("noisy")
    assert columns["unc_spearman"][at] == pytest.approx(WANT["correlation"]["noisy"]["spearman"], abs=1e-5)


def test_golden_calibration_through_the_command_line(run_cli, tmp_path):
    _write(tmp_path, "calibrated_gauss")
    done = run_cli(*COMMON, "sigma", "--unc-family", "gaussian", "-o", "r.json")
    assert done.returncode == 0, done.stderr
    want, found = WANT["calibration"]["calibrated_gauss"], _load(tmp_path / "r.json")["uncertainty"]
    assert found["nll_gaussian"] == pytest.approx(want["nll_gaussian"], rel=1e-6)
    assert found["crps_gaussian"] == pytest.approx(want["crps_gaussian"], rel=1e-6)
    assert found["sharpness"] == pytest.approx(want["sharpness"], rel=1e-6)
    observed = found["curves"]["calibration"]["gaussian"]
    np.testing.assert_allclose(observed, CASES["calibrated_gauss/cal_observed_interval"], atol=2 / 1200)
    assert "NLL" in done.stdout
    assert "baseline: depth" in done.stdout


@pytest.fixture
def maps(pairs, tmp_path):
    """Pairs with a map of ln sigma for each prediction."""

    def make(n=6, change=lambda s: s):
        pred, gt = pairs(n=n, drives=2)
        for path in pred.rglob("*.png"):
            target = tmp_path / "unc" / path.relative_to(pred).with_suffix(".npy")
            target.parent.mkdir(parents=True, exist_ok=True)
            depth = np.asarray(Image.open(path)) / 256.0
            np.save(target, change(np.log(0.05 * depth)).astype(np.float32))
        return pred, gt

    return make


def test_everything_is_the_same_with_workers_and_regions(run_cli, maps, tmp_path):
    maps(n=12)
    runs = {"a": (), "b": ("--workers", 2), "c": ("--regions=depth,edge",)}
    for name, more in runs.items():
        done = run_cli(*COMMON, "log_sigma", *more, "-o", f"{name}.json")
        assert done.returncode == 0, done.stderr
    assert run_cli("eval", "pred", "--gt", "gt", "-o", "plain.json").returncode == 0
    a, b, c = (_load(tmp_path / f"{k}.json") for k in "abc")
    assert a["uncertainty"] == b["uncertainty"]
    regions = c["uncertainty"].pop("regions")
    assert a["uncertainty"] == c["uncertainty"]
    assert {"verdict", "share", "auroc", "auroc_stratified"} <= regions["depth2"].keys()
    plain = _load(tmp_path / "plain.json")
    assert plain["summary"] == a["summary"] == c["summary"]
    assert "uncertainty" not in plain
    from adubench.evaluators.result import load_result

    assert load_result(tmp_path / "a.json").uncertainty["nause_rmse"] == a["uncertainty"]["nause_rmse"]
    assert run_cli("compare", "a.json", "b.json").returncode == 0


def test_sigma_follows_a_median_alignment(run_cli, maps, tmp_path):
    maps()
    for path in (tmp_path / "pred").rglob("*.png"):
        halved = np.asarray(Image.open(path)) // 2
        Image.fromarray(halved.astype(np.uint16)).save(path)
    for path in (tmp_path / "unc").rglob("*.npy"):
        np.save(path, np.load(path) - np.float32(np.log(2)))
    assert run_cli(*COMMON, "log_sigma", "--alignment", "median", "-o", "half.json").returncode == 0
    found = _load(tmp_path / "half.json")["uncertainty"]
    assert found["coverage_68.3"] == pytest.approx(0.68, abs=0.12)
    assert found["sharpness"] == pytest.approx(found["residual_rms"], rel=0.25)


def test_maps_smaller_than_the_truth_are_resized_as_sigma(run_cli, maps, tmp_path):
    maps()
    for kind, suffix in (("pred", ".npy"), ("unc", ".npy")):
        for path in (tmp_path / kind).rglob("*.png" if kind == "pred" else "*.npy"):
            values = np.asarray(Image.open(path)) / 256.0 if kind == "pred" else np.load(path)
            if kind == "pred":
                values = 1 / values
                path.unlink()
            np.save(path.with_suffix(suffix), values[::2, ::2].astype(np.float32))
    done = run_cli(*COMMON, "log_sigma", "--kind", "scaled-disparity", "-o", "r.json")
    assert done.returncode == 0, done.stderr
    found = _load(tmp_path / "r.json")["uncertainty"]
    assert found["kind"] == "log_sigma"
    assert 1 < found["sharpness"] < 3  # 5 % of 3 to 70 m


def test_bad_maps_are_one_sentence(run_cli, maps, tmp_path):
    maps()
    path = tmp_path / "unc" / "drive_1" / "0003.npy"
    good = np.load(path)
    for values, kind, status, words in (
        (good[:5], "log_sigma", 1, ("drive_1/0003", "5x60", "40x60")),
        (np.full_like(good, np.nan), "log_sigma", 1, ("drive_1/0003", "NaN")),
        (-np.ones_like(good), "variance", 1, ("negative variance", "log_variance")),
        (good, "entropy", 2, ("entropy",)),
    ):
        np.save(path, values)
        if kind == "variance":
            for other in (tmp_path / "unc").rglob("*.npy"):
                np.save(other, -np.ones_like(good))
        assert_one_sentence(run_cli(*COMMON, kind, "-o", "r.json"), status, *words)
        assert not (tmp_path / "r.json").exists()
    assert_one_sentence(run_cli(*COMMON, "score", "--alignment", "lstsq"), 1, "shift")
    path.unlink()
    assert_one_sentence(run_cli(*COMMON, "log_sigma"), 1, "1 of 6 uncertainty maps missing", "drive_1/0003")
    arguments = ("eval", "pred", "--gt", "gt", "--uncertainty")
    assert_one_sentence(run_cli(*arguments), 2, "--uncertainty-maps")
    assert_one_sentence(run_cli(*arguments, "--uncertainty-maps", "unc"), 2, "--uncertainty-kind")
    assert_one_sentence(run_cli("eval", "pred", "--gt", "gt", "--ause-steps", 20), 2, "--uncertainty")
    assert_one_sentence(run_cli(*COMMON, "sigma", "--ause-steps", 1), 2, "--ause-steps")
    assert_one_sentence(run_cli(*COMMON, "sigma", "--sigma-floor", 0), 2, "--sigma-floor")
    assert_one_sentence(run_cli(*COMMON, "sigma", "--unc-space", "cubic"), 2, "cubic")
