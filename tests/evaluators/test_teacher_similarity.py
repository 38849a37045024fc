"""TIE-KD's similarity of student and teacher, against the reference's numbers."""

import numpy as np
import pytest

from adubench.errors import ProtocolError
from adubench.evaluators.metrics import metrics_from_moments
from adubench.evaluators.moments import plain_moments
from adubench.evaluators.teacher_similarity import KEYS, teacher_similarity
from tests.models.tie_kd_golden import load

GOLDEN = load("teacher_similarity_metrics.npz")


def test_similarity():
    got = teacher_similarity(GOLDEN["pred"][0], GOLDEN["teacher"][0])
    assert set(got) == set(KEYS)
    for name, value in got.items():
        assert value == pytest.approx(float(GOLDEN[name]), rel=1e-4)


def test_the_same_formulas_on_ground_truth():
    gt, pred = GOLDEN["gt"][0], GOLDEN["pred"][0]
    valid = (gt > 1e-3) & (gt < 80)
    got = metrics_from_moments(plain_moments(gt[valid], pred[valid])[None])
    names = {"a1": "d1", "a2": "d2", "a3": "d3", "log_10": "log10"}
    for name in ("a1", "a2", "a3", "abs_rel", "rmse", "log_10", "silog", "sq_rel", "rmse_log"):
        assert float(got[names.get(name, name)][0]) == pytest.approx(float(GOLDEN[name]), rel=1e-4)


def test_rows_without_lidar_do_not_count():
    pred, teacher = GOLDEN["pred"][0].copy(), GOLDEN["teacher"][0]
    pred[:110] = 1
    assert teacher_similarity(pred, teacher) == teacher_similarity(GOLDEN["pred"][0], teacher)
    assert teacher_similarity(pred, teacher, ignore_top_rows=0) != teacher_similarity(pred, teacher)


def test_zero_codes_do_not_divide():
    ones = np.ones((4, 5), np.float32)
    values = teacher_similarity(ones, ones * 0, ignore_top_rows=0)
    assert np.isfinite(list(values.values())).all()
    assert values["abs_rel_T"] == pytest.approx(999, rel=1e-5)


@pytest.mark.parametrize(
    ("pred", "teacher", "rows", "message"),
    [
        (np.ones((4, 5)), np.ones((4, 6)), 0, r"4x5 .*4x6"),
        (np.ones((4, 5)), np.ones((4, 5)), 4, "no row is left"),
        (np.full((4, 5), np.nan), np.ones((4, 5)), 0, "not finite"),
    ],
)
def test_faults_are_named(pred, teacher, rows, message):
    with pytest.raises(ProtocolError, match=message):
        teacher_similarity(pred, teacher, ignore_top_rows=rows, where="a/7")
