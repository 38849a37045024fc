from __future__ import annotations

import json

import numpy as np
import pytest

from adubench.evaluators import extended
from adubench.evaluators.alignment import align
from adubench.evaluators.metrics import METRICS, metrics_from_moments
from adubench.evaluators.moments import frame_moments
from tests.evaluators.metric_cases import FOLDER, assert_close

VECTORS = np.load(FOLDER / "vectors.npz")
WANT = json.loads((FOLDER / "vectors.json").read_text())
CORE_NAMES = {"d1": "d1", "d2": "d2", "d3": "d3", "rmse": "rmse", "rmselog": "rmse_log", "arel": "abs_rel",
              "sqrel": "sq_rel", "log10": "log10"}  # fmt: skip
OWN_NAMES = {"silog": "silog_n1", "medianlog": "medianlog", "d_auc": "d_auc", "tau": "tau"}


@pytest.mark.parametrize("name", WANT)
def test_unidepth(name):
    gt, pred, want = VECTORS[f"{name}_gt"], VECTORS[f"{name}_pred"], WANT[name]["f32"]["unidepth"]
    core = metrics_from_moments(frame_moments(gt, pred))
    own = extended.extended_metrics(gt, pred)
    for theirs, ours in CORE_NAMES.items():
        assert_close(float(core[ours]), want[theirs], 3e-5, theirs)
    for theirs, ours in OWN_NAMES.items():
        assert_close(own[ours], want[theirs], 3e-5, theirs)
    for suffix, alignment in (("si", "median_low"), ("ssi", "affine_lsqr")):
        aligned, _ = align(alignment, gt, pred)
        values = metrics_from_moments(frame_moments(gt, aligned))
        assert_close(float(values["d1"]), want[f"d1_{suffix}"], 3e-5, suffix)
        assert_close(float(values["abs_rel"]), want[f"arel_{suffix}"], 3e-5, suffix)
        assert_close(extended.accuracy(gt, aligned, 1.03), want[f"tau_{suffix}"], 3e-5, suffix)


def test_every_key_is_a_record():
    gt = np.float32([1, 2, 3])
    assert set(extended.extended_metrics(gt, gt)) <= set(METRICS)
    assert set(extended.teacher_agreement(np.ones((352, 1216), np.float32), np.ones((352, 1216), np.float32))) <= set(
        METRICS
    )


def test_perfect_and_empty():
    gt = np.float32([1, 2, 3])
    perfect = extended.extended_metrics(gt, gt)
    assert perfect["tau"] == perfect["d_1.05"] == 1
    assert perfect["d_auc"] == pytest.approx(4.99 / 5)
    assert perfect["moge_rel"] == perfect["medianlog"] == perfect["silog_n1"] == 0
    empty = np.empty(0, np.float32)
    assert all(np.isnan(v) for v in extended.extended_metrics(empty, empty).values())


def test_teacher_rows():
    teacher, student = np.full((352, 1216), 10, np.float32), np.full((352, 1216), 10, np.float32)
    student[:110] = 70
    assert extended.teacher_agreement(teacher, student)["rmse_T"] == 0
    assert extended.teacher_agreement(teacher, student, top_rows=0)["rmse_T"] > 0
    student[110, 0] = 20
    assert extended.teacher_agreement(teacher, student)["rmse_T"] > 0
    assert extended.decode_teacher(np.array([65535, 0], np.uint16)).tolist() == [80.0, 0.0]


def test_distance_aware_curve():
    gt, pred = np.array([1.0, 8.0, 12.0, 30.0]), np.array([1.5, 8.8, 12.0, 33.0])
    curve = extended.ard_curve(gt, pred)
    assert curve["ard_0"] == pytest.approx(0.5)
    assert curve["ard_8"] == pytest.approx(0.05)  # 8 m and, on the border, 12 m
    assert curve["ard_16"] == 0
    assert curve["ard_32"] == pytest.approx(0.1)
    assert np.isnan(curve["ard_72"])
    assert curve["ard_bins"] == 4
    assert curve["ard_mean"] == pytest.approx((0.5 + 0.05 + 0 + 0.1) / 4)
    assert len(extended.ard_curve(gt, pred, centres=(5, 10), half_width=2.5)) == 4
    assert extended.ard_curve(gt[:0], pred[:0])["ard_bins"] == 0
