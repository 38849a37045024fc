from __future__ import annotations

import json

import numpy as np
import pytest

from adubench.evaluators import pointcloud as pc
from adubench.evaluators.metrics import METRICS
from tests.evaluators.metric_cases import FOLDER, assert_close

VECTORS = np.load(FOLDER / "vectors.npz")
WANT = json.loads((FOLDER / "vectors.json").read_text())


@pytest.mark.parametrize("name", WANT)
def test_moge_points(name):
    gt, pred, want = VECTORS[f"{name}_gt_points"], VECTORS[f"{name}_pred_points"], WANT[name]["f64"]
    aligned, scale = pc.align_points_scale(gt, pred)
    assert_close(scale, want["moge_points_scale"]["scale"], 1e-6, "scale")
    checks = [(aligned, want["moge_points_scale"])]
    if "moge_points_affine" in want:
        aligned, scale, shift = pc.align_points_affine(gt, pred)
        assert_close(scale, want["moge_points_affine"]["scale"], 1e-6, "scale")
        np.testing.assert_allclose(shift, want["moge_points_affine"]["shift"], rtol=1e-6)
        checks.append((aligned, want["moge_points_affine"]))
    for points, entry in checks:
        got = pc.moge_points(gt, points)
        assert_close(got["moge_point_rel"], entry["rel"], 1e-6, "rel")
        assert_close(got["moge_point_delta1"], entry["delta1"], 1e-6, "delta1")


@pytest.mark.parametrize("name", WANT)
def test_unidepth_3d(name):
    want = WANT[name]["f32"]["unidepth"]
    points = VECTORS[f"{name}_gt_points"], VECTORS[f"{name}_pred_points"]
    got = pc.unidepth_3d(*points, VECTORS["unidepth_f1_thresholds"])
    for ours, theirs in (("f1_3d", "F1_3d"), ("chamfer_3d", "chamfer_3d"), ("mse_3d", "MSE_3d")):
        assert_close(got[ours], want[theirs], 3e-5, theirs)
    limits = pc.unidepth_thresholds()
    assert (limits[0], limits[-1], limits.size) == (pytest.approx(0.05), pytest.approx(4.0), 100)


def test_f_score_by_hand():
    gt = np.array([[0, 0, 1], [0, 0, 2], [0, 0, 3], [0, 0, 4]], float)
    pred = gt + np.array([[0, 0, 0.05], [0, 0, 0.15], [0, 0, 0.5], [0, 0, 9]])
    got = pc.pointcloud_metrics(gt, pred)
    assert got["fscore"] == pytest.approx(25)  # precision 1/4, recall 1/4
    assert got["iou"] == pytest.approx(100 * (1 / 16) / (1 / 2 - 1 / 16))
    assert got["fscore_20cm"] == pytest.approx(50)
    far = pc.pointcloud_metrics(gt, gt + 100)
    assert (far["fscore"], far["iou"]) == (0, 0)
    same = pc.pointcloud_metrics(gt, gt)
    assert (same["fscore"], same["chamfer"]) == (100, 0)
    assert set(got) <= set(METRICS)
    assert all(np.isnan(v) for v in pc.pointcloud_metrics(gt[:0], gt[:0]).values())


def test_slowtv_differs():
    rng = np.random.default_rng(0)
    gt = rng.normal(size=(400, 3))
    pred = gt + rng.normal(scale=0.05, size=gt.shape)
    theirs, ours = pc.slowtv_pointcloud(gt, pred), pc.pointcloud_metrics(gt, pred)
    assert theirs["fscore_10cm"] == pytest.approx(ours["fscore"], abs=5)
    assert theirs["fscore_10cm"] != ours["fscore"]
    assert pc.slowtv_pointcloud(gt, gt + 50)["iou_5cm"] == 0
    perfect = pc.slowtv_pointcloud(gt, gt)["fscore_5cm"]
    assert perfect == pytest.approx(100 * 2 / (2 + 1e-5), rel=1e-9)


def test_back_projection():
    K = np.array([[100, 0, 5], [0, 50, 2], [0, 0, 1.0]])
    points = pc.back_project(np.float32([10, 4]), np.array([2 * 11 + 5, 3 * 11 + 6]), 11, K)
    np.testing.assert_allclose(points, [[0, 0, 10], [0.04, 0.08, 4]])
