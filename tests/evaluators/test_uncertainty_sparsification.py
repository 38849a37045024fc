"""AUSE and AURG against mono-uncertainty (golden data) and against a plain second implementation."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adubench.evaluators import rank_correlation as R
from adubench.evaluators import sparsification as S
from tests.evaluators.uncertainty_cases import CASES, METRICS, WANT, case, plain_curves


@pytest.mark.parametrize("name", list(WANT["ause"]))
def test_areas_curves_and_kept_pixels(name):
    gt, pred, unc = case(name)
    found = S.sparsify(S.pixel_errors(gt, pred), unc)
    assert (found.kept == CASES[f"{name}/kept"]).all()
    for m, metric in enumerate(METRICS):
        want = WANT["ause"][name][metric]
        assert found.ause[m] == pytest.approx(want["ause"], abs=1e-9)
        assert found.aurg[m] == pytest.approx(want["aurg"], abs=1e-9)
        assert found.full[m] == pytest.approx(want["full_error"], abs=1e-9)
        np.testing.assert_allclose(found.curve[m], CASES[f"{name}/sparse_{metric}"], atol=1e-9)
        np.testing.assert_allclose(found.oracle[m], CASES[f"{name}/oracle_{metric}"], atol=1e-9)


@pytest.mark.parametrize("steps", [10, 100])
@pytest.mark.parametrize("name", list(WANT["ause_intervals"]))
def test_other_step_counts(name, steps):
    gt, pred, unc = case(name)
    found = S.sparsify(S.pixel_errors(gt, pred, steps), unc)
    want = np.array([WANT["ause_intervals"][name][str(steps)][m] for m in METRICS])
    np.testing.assert_allclose(np.stack([found.ause, found.aurg], axis=1), want, atol=1e-9)


def test_mean_over_cases():
    found = [S.sparsify(S.pixel_errors(*case(n)[:2]), case(n)[2]) for n in WANT["ause"]]
    want = np.array([WANT["ause_mean_over_cases"][m] for m in METRICS])
    np.testing.assert_allclose(np.mean([f.ause for f in found], axis=0), want[:, 0], atol=1e-9)
    np.testing.assert_allclose(np.mean([f.aurg for f in found], axis=0), want[:, 1], atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 120),
    steps=st.sampled_from([2, 7, 50]),
    levels=st.sampled_from([1, 2, 5, 40, 10**6]),
)
def test_equals_the_plain_protocol_with_ties(seed, n, steps, levels):
    rng = np.random.default_rng(seed)
    gt = rng.integers(2, 40, n) / 4.0  # quantised depth: errors tie as well
    pred = gt + rng.integers(-2, 3, n) / 8.0
    score = rng.integers(0, levels, n) / 3.0
    found = S.sparsify(S.pixel_errors(gt, pred, steps), score)
    want = plain_curves(gt, pred, score, steps)
    for m, metric in enumerate(METRICS):
        np.testing.assert_allclose(found.curve[m], want[metric][0], atol=1e-12)
        np.testing.assert_allclose(found.oracle[m], want[metric][1], atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 200), steps=st.integers(2, 60))
def test_thresholds_are_those_of_numpy_to_the_bit(seed, n, steps):
    rng = np.random.default_rng(seed)
    keys = np.sort(rng.standard_normal(n) * 10.0 ** rng.integers(-3, 4, n))
    first = S.first_kept(keys, steps)
    assert (first == [np.count_nonzero(keys < np.percentile(keys, 100.0 / steps * t)) for t in range(steps)]).all()


def test_known_order_changes_nothing():
    gt, pred, unc = case("quantised_ties")
    errors = S.pixel_errors(gt, pred)
    a, b = S.sparsify(errors, unc), S.sparsify(errors, unc, np.argsort(unc, kind="stable"))
    np.testing.assert_allclose(a.curve, b.curve, atol=1e-14)


def test_constant_score_keeps_all_and_gets_the_appended_zero():
    gt, pred, unc = case("constant")
    errors = S.pixel_errors(gt, pred)
    slow, quick = S.sparsify(errors, unc), S.keep_all(errors)
    np.testing.assert_allclose(slow.curve, quick.curve, atol=1e-14)
    assert (slow.kept == quick.kept).all()
    np.testing.assert_allclose(quick.naurg, 1 / (2 * S.STEPS), rtol=1e-12)


def test_no_error_at_all():
    gt = np.linspace(1, 50, 100)
    found = S.sparsify(S.pixel_errors(gt, gt), np.arange(100.0))
    assert not found.ause.any()
    assert not found.aurg.any()
    assert np.isnan(found.nause).all()
    assert np.isnan(found.naurg).all()


def test_normalised_areas_do_not_grow_with_the_error():
    gt = np.full(1000, 10.0)
    error = np.random.default_rng(0).exponential(0.1, 1000)
    small, large = (S.sparsify(S.pixel_errors(gt, gt + k * error), error[::-1]) for k in (1, 3))
    np.testing.assert_allclose(large.ause[0], 3 * small.ause[0])
    np.testing.assert_allclose(large.nause[0], small.nause[0])


def test_two_pixels():
    found = S.sparsify(S.pixel_errors(np.array([2.0, 4.0]), np.array([3.0, 4.0])), np.array([1.0, 0.0]))
    np.testing.assert_allclose(found.ause, 0, atol=1e-15)


def test_baselines():
    rng = np.random.default_rng(3)
    gt = rng.uniform(2, 70, 4000)
    pred = gt * (1 + 0.002 * gt * rng.standard_normal(4000))
    errors = S.pixel_errors(gt, np.maximum(pred, 0.1))
    distance = rng.uniform(0, 30, 4000)
    found = S.baseline_curves(errors, pred, edge_distance=distance, frame="a")
    assert tuple(found) == tuple(name for name in S.BASELINES if name != "flip")  # which needs a mirrored prediction
    assert found["depth"].naurg[1] > 0.2  # errors grow with distance
    assert abs(found["random"].naurg[0] - 1 / (2 * S.STEPS)) < 0.05
    np.testing.assert_allclose(found["edge"].curve, S.sparsify(errors, -distance).curve)
    again = S.baseline_curves(errors, pred, frame="a")
    assert (again["random"].curve == found["random"].curve).all()
    assert "edge" not in again
    assert (S.baseline_curves(errors, pred, frame="b")["random"].curve != found["random"].curve).any()


def test_edge_baseline_without_any_edge_is_constant():
    gt, pred, _ = case("noisy")
    errors = S.pixel_errors(gt, pred)
    found = S.baseline_curves(errors, pred, edge_distance=np.full(gt.size, np.inf))
    np.testing.assert_allclose(found["edge"].curve, found["constant"].curve, atol=1e-13)


@pytest.mark.parametrize("name", list(WANT["correlation"]))
def test_correlations(name):
    gt, pred, unc = case(name)
    error = np.abs(pred - gt)
    want = WANT["correlation"][name]
    found = dict(
        zip(R.CORRELATIONS, R.correlations(R.rank(unc), R.rank(error), R.rank(pred), gt).tolist(), strict=True)
    )
    assert found.pop("spearman_partial") == pytest.approx(want["spearman_partial_pred_depth"], abs=1e-9)
    for key, value in found.items():
        assert value == pytest.approx(want[key], abs=1e-9), key
    assert R.kendall(unc, error) == pytest.approx(want["kendall"], abs=1e-9)


def test_correlations_of_a_constant_are_undefined():
    gt, pred, unc = case("constant")
    found = R.correlations(R.rank(unc), R.rank(np.abs(pred - gt)), R.rank(pred), gt)
    assert np.isnan(found).all()
    assert np.isnan(R.pearson(np.full(5, 0.1), np.arange(5.0)))
    assert np.isnan(R.spearman(np.arange(1.0), np.arange(1.0)))
    assert np.isnan(R.partial(0.5, 1.0, 0.5))


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.integers(0, 6), min_size=1, max_size=40), strata=st.integers(1, 4))
def test_average_ranks(values, strata):
    from scipy.stats import rankdata

    v = np.array(values, np.float64)
    np.testing.assert_array_equal(R.average_ranks(v), rankdata(v))
    labels = np.arange(v.size) % strata
    within = R.ranks_within(R.rank(v), labels)
    for k in range(min(strata, v.size)):
        np.testing.assert_array_equal(within[labels == k], rankdata(v[labels == k]))


def test_speed_of_one_image():
    rng = np.random.default_rng(0)
    gt = rng.uniform(2, 80, 67_000)
    pred = gt * np.exp(0.1 * rng.standard_normal(gt.size))
    score = rng.random(gt.size)
    taken = []
    for _ in range(3):
        start = time.process_time()
        S.sparsify(S.pixel_errors(gt, pred), score)
        taken.append(time.process_time() - start)
    assert min(taken) < 0.1
