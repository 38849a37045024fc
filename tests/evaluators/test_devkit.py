from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adubench.errors import ProtocolError
from adubench.evaluators import devkit, moments
from adubench.evaluators.metrics import metrics_from_moments
from adubench.evaluators.predicted_values import Prediction
from adubench.evaluators.protocols import PROTOCOLS
from adubench.evaluators.scoring import score_frame
from adubench.io.maps import DepthMap, SparseDepth

FOLDER = Path(__file__).resolve().parents[1] / "data" / "kitti_devkit"
RESULTS = json.loads((FOLDER / "results.json").read_text())
GOOD = [name for name, entry in RESULTS["cases"].items() if not entry.get("error")]
PROTOCOL = PROTOCOLS["kitti-official"]


def read(kind: str, name: str) -> DepthMap:
    return DepthMap(np.asarray(Image.open(FOLDER / kind / f"{name}.png")).astype(np.uint16), 256.0)


def score(name: str):
    return score_frame(PROTOCOL, SparseDepth.from_map(read("gt", name)), Prediction(read("pred", name)), frame=name)


def raw_errors(result) -> list[float]:
    return [result.extra[key] / factor for key, factor in devkit.OUR_UNITS.values()]


@pytest.mark.parametrize("name", GOOD)
def test_errors_of_one_image(name):
    entry, result = RESULTS["cases"][name], score(name)
    got = raw_errors(result)
    assert [devkit.printed(v) for v in got] == entry["errors_out_txt"]
    np.testing.assert_allclose(got, np.float32(entry["errors_float32"]), rtol=4e-7)
    assert result.moments[0] == entry["n_valid_gt"]
    assert result.n_invalid == entry["n_missing_pred"]
    assert tuple(RESULTS["metric_order"]) == devkit.DEVKIT_METRICS


@pytest.mark.parametrize("name", GOOD)
def test_float64_beside_it(name):
    if name.startswith("10"):
        pytest.skip("constant ratio: the float32 sums leave 0.0062 where the exact value is 0")
    result = score(name)
    exact = metrics_from_moments(result.moments)
    for key, _ in devkit.OUR_UNITS.values():
        np.testing.assert_allclose(float(exact[key]), result.extra[key], rtol=3e-4, atol=1e-6, err_msg=key)


def test_exact_silog_of_a_constant_ratio():
    result = score("10_constant_ratio_1p5")
    assert result.extra["silog"] == pytest.approx(0.623, abs=2e-3)
    assert float(metrics_from_moments(result.moments)["silog"]) < 1e-5


@pytest.mark.parametrize("path", sorted((FOLDER / "interpolated").glob("*.png")), ids=lambda p: p.stem)
def test_filling(path):
    depth = read("pred", path.stem)
    filled = devkit.interpolate_background(depth.quantity(), devkit.given_pixels(depth))
    want = np.asarray(Image.open(path))
    np.testing.assert_array_equal(np.where(filled < 0, 0, filled * 256), want)
    missing = RESULTS["cases"][path.stem]["n_missing_after_interpolation"]
    assert (filled < 0).sum() == missing
    assert ("missing-after-fill" in score(path.stem).flags) <= (missing > 0)


def test_float_predictions_are_filled_alike():
    name = "02_random_30pct_missing"
    holes = read("pred", name).quantity()
    gt = SparseDepth.from_map(read("gt", name))
    assert score_frame(PROTOCOL, gt, Prediction(DepthMap(holes))).extra == score(name).extra
    for bad in (np.nan, np.inf, -1.0):  # no PNG can hold these: missing only under compat
        broken = np.where(holes == 0, np.float32(bad), holes)
        with pytest.raises(ProtocolError, match="no submitted PNG can hold"):
            score_frame(PROTOCOL, gt, Prediction(DepthMap(broken)))
        assert score_frame(PROTOCOL, gt, Prediction(DepthMap(broken)), compat=True).extra == score(name).extra


@pytest.mark.parametrize("name", [s for s, entry in RESULTS["sets"].items() if entry["success"]])
def test_statistics_over_images(name):
    entry = RESULTS["sets"][name]
    table = np.array([raw_errors(score(case)) for case in sorted(entry["files"])], np.float32)
    mean, (low, high) = devkit.mean_over_images(table), devkit.extremes(table)
    for i, metric in enumerate(devkit.DEVKIT_METRICS):
        want = entry["stats_depth_txt"][metric]
        assert devkit.printed(float(mean[i])) == want["mean"], metric
        assert devkit.printed(float(low[i])) == want["min"], metric
        assert devkit.printed(float(high[i])) == want["max"], metric
    board = devkit.leaderboard(mean)
    assert list(board) == ["SILog", "sqErrorRel", "absErrorRel", "iRMSE"]
    np.testing.assert_allclose(board["absErrorRel"], 100 * mean[7])


def test_empty_ground_truth_is_counted_not_fatal():
    assert not score("12_empty_gt_error").moments.any()
    assert np.isnan(devkit.float32_errors(np.empty(0, np.float32), np.empty(0, np.float32))).all()
    assert np.isnan(devkit.mean_over_images(np.empty((0, 9), np.float32))).all()


def test_compiled_sums_have_the_same_digits():
    pytest.importorskip("numba")
    want = raw_errors(score("01_dense_pred_16pct_gt"))
    moments.use_compiled(True)
    got = raw_errors(score("01_dense_pred_16pct_gt"))
    moments.use_compiled(False)
    assert got == want


@pytest.mark.parametrize("n", [1, 2, 9, 1000, 100_003])
def test_running_sums_add_left_to_right(n):
    """numpy's own sum adds pairwise; the digits of the devkit need one addition after the other."""
    terms = [np.random.default_rng(i).lognormal(0, 2, n).astype(np.float32) for i in range(9)]
    got = np.zeros(9, np.float32)
    for start in range(0, n, 777):
        got = devkit.running_sums([t[start : start + 777] for t in terms], got)
    assert [float(v) for v in got] == [float(np.cumsum(t, dtype=np.float32)[-1]) for t in terms]
