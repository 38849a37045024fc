"""Region statistics against scikit-learn (golden data), and the verdicts on planted truths."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adubench.errors import ProtocolError
from adubench.evaluators import statistics
from adubench.evaluators import uncertainty_regions as U
from adubench.evaluators.rank_correlation import rank
from tests.evaluators.uncertainty_cases import CASES, WANT

AT = {name: k for k, name in enumerate(U.COLUMNS)}


def rows_of(masks, score, error, pred, sigma=None):
    log_sigma = None if sigma is None else np.log(sigma)
    return U.region_rows(masks, rank(score), rank(error), rank(pred), sigma=sigma, log_sigma=log_sigma)


@pytest.mark.parametrize("name", list(WANT["regions"]))
def test_one_image(name):
    sigma, inside, depth = (CASES[f"{name}/{k}"] for k in ("sigma", "inside", "depth"))
    want = WANT["regions"][name]
    row = rows_of(inside, sigma, sigma, depth, sigma)[0]
    assert (row[AT["n_in"]], row[AT["n_out"]]) == (want["n_in"], want["n_out"])
    assert row[AT["auroc"]] == pytest.approx(want["auroc"], rel=1e-9)
    assert row[AT["auroc_stratified"]] == pytest.approx(want["auroc_stratified"], rel=1e-9)
    assert row[AT["log_ratio"]] == pytest.approx(want["log_ratio_geomean"], rel=1e-9)
    assert row[AT["error_auroc"]] == row[AT["auroc"]]
    assert row[AT["error_auroc_stratified"]] == row[AT["auroc_stratified"]]
    assert row[AT["auroc"]] * want["n_in"] * want["n_out"] == pytest.approx(want["mannwhitney_u"])
    assert U.auroc(sigma, inside) == pytest.approx(want["auroc"], rel=1e-9)
    for k, (low, high) in enumerate(((0, 20), (20, 40), (40, 60), (60, np.inf))):
        part = (depth >= low) & (depth < high)
        by_bin = U.auroc(sigma[part], inside[part])
        assert by_bin == pytest.approx(want["auroc_by_depth_bin_0_20_40_60"][k], rel=1e-9)


def plain_auroc(values, inside):
    a, b = values[inside][:, None], values[~inside][None]
    return np.mean((a > b) + 0.5 * (a == b)) if a.size and b.size else np.nan


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 60), levels=st.integers(1, 8))
def test_equals_the_definition(seed, n, levels):
    rng = np.random.default_rng(seed)
    sigma, error = rng.integers(1, levels + 1, n) * 0.5, rng.integers(0, levels, n) * 1.0
    pred, masks = rng.choice([5.0, 20.0, 59.9, 60.0, 90.0], n), rng.random((3, n)) < 0.4
    found = rows_of(masks, sigma, error, pred, sigma)
    strata = [(pred >= low) & (pred < high) for low, high in ((0, 20), (20, 40), (40, 60), (60, np.inf))]
    for mask, row in zip(masks, found, strict=True):
        for values, column in ((sigma, "auroc"), (error, "error_auroc"), (pred, "depth_auroc")):
            np.testing.assert_allclose(row[AT[column]], plain_auroc(values, mask), atol=1e-12)
            weights = [(mask & s).sum() * (~mask & s).sum() for s in strata]
            parts = [w * plain_auroc(values[s], mask[s]) for w, s in zip(weights, strata, strict=True) if w]
            want = sum(parts) / sum(weights) if sum(weights) else np.nan
            np.testing.assert_allclose(row[AT[f"{column}_stratified"]], want, atol=1e-12)
        np.testing.assert_allclose(row[AT["sigma2_in"]], (sigma[mask] ** 2).sum(), atol=1e-9)
        np.testing.assert_allclose(row[AT["sigma2_out"]], (sigma[~mask] ** 2).sum(), atol=1e-9)
        np.testing.assert_allclose(row[AT["error2_in"]], (error[mask] ** 2).sum(), atol=1e-9)


def test_empty_sides_are_undefined():
    values = np.arange(1.0, 11.0)
    found = rows_of(np.stack([np.zeros(10, bool), np.ones(10, bool)]), values, values, values, values)
    for column in ("auroc", "auroc_stratified", "log_ratio", "error_auroc"):
        assert np.isnan(found[:, AT[column]]).all()
    assert rows_of(np.zeros((0, 10), bool), values, values, values).shape == (0, len(U.COLUMNS))


def test_a_score_has_no_scale():
    values = np.arange(10.0)
    row = rows_of(values > 4, values, values, values + 1)[0]
    assert row[AT["auroc"]] == 1.0
    assert np.isnan(row[AT["log_ratio"]])
    assert np.isnan(row[AT["sigma2_in"]])


def images(drives=12, per_drive=3, n=600, seed=0):
    """sigma and errors higher at "edge" at equal distance; sigma alone higher in "dark"; nothing in "other"."""
    rng = np.random.default_rng(seed)
    rows, names = [], []
    for d in range(drives):
        for _ in range(per_drive):
            pred = rng.uniform(2, 79, n)
            masks = np.stack([pred >= 60, *(rng.random((3, n)) < 0.3)])
            scale = 0.02 * pred * np.where(masks[1], 2.0, 1.0)
            sigma = scale * np.where(masks[2], 1.5, 1.0) * np.exp(0.3 * rng.standard_normal(n))
            error = np.abs(rng.laplace(0, scale))
            rows.append(rows_of(masks, sigma, error, pred, sigma))
            names.append(f"drive{d}")
    return np.stack(rows), names


REGIONS = ("depth3", "edge0", "dark", "other")


def test_verdicts_on_planted_truths():
    rows, drives = images()
    found = {(t.region, t.statistic): t for t in U.assess_regions(rows, REGIONS, drives, resamples=500)}
    assert found["depth3", "auroc"].verdict == "higher, justified"
    assert found["edge0", "auroc_stratified"].verdict == "higher, justified"
    assert found["dark", "auroc_stratified"].verdict in ("higher, excess", "higher, justified")
    assert found["dark", "auroc_stratified"].error_mean == pytest.approx(0.5, abs=0.02)
    assert found["other", "auroc_stratified"].verdict == "n.s."
    assert found["edge0", "auroc"].verdict == ""  # does not decide
    assert math.isnan(found["edge0", "auroc"].p_holm)
    at_equal_distance = found.pop(("depth3", "auroc_stratified"))
    assert (at_equal_distance.images, math.isnan(at_equal_distance.mean)) == (0, True)  # distance defines this region
    for test in found.values():
        assert test.ci[0] <= test.mean <= test.ci[1]
        assert (test.images, test.drives) == (36, 12)
    deciding = [found[r, U.claim_of(r)] for r in REGIONS]
    np.testing.assert_allclose([t.p_holm for t in deciding], statistics.holm(np.array([t.p for t in deciding])))


def test_sign_flips_are_exact():
    from scipy.stats import permutation_test

    rows, drives = images(drives=8, per_drive=1, seed=4)
    values = rows[:, 3, AT["auroc_stratified"]] - 0.5
    tests = U.assess_regions(rows, REGIONS, drives, resamples=100)
    found = next(t for t in tests if (t.region, t.statistic) == ("other", "auroc_stratified"))
    want = permutation_test((values, np.zeros(8)), lambda x, y: np.mean(x - y), permutation_type="samples")
    assert found.p == pytest.approx(want.pvalue)


def test_few_drives_get_words_instead_of_a_p_value():
    rows, drives = images(drives=4)
    for test in U.assess_regions(rows, REGIONS, drives, resamples=100):
        assert math.isnan(test.p)
        assert test.verdict in ("", "too few drives")


def test_images_need_pixels_on_both_sides():
    rows, drives = images(drives=6)
    rows[:, 2, 0] = U.MIN_SIDE - 1
    found = {(t.region, t.statistic): t for t in U.assess_regions(rows, REGIONS, drives, resamples=100)}
    assert found["dark", "auroc_stratified"].verdict == "n/a"
    assert found["dark", "auroc"].images == 0
    assert math.isnan(found["dark", "auroc"].ci[0])


def test_lower_and_excess():
    assert U.verdict(0.4, 0.001, 0.6, 12) == "lower"
    assert U.verdict(0.6, 0.001, 0.45, 12) == "higher, excess"
    assert U.verdict(0.6, 0.06, 0.6, 12) == "n.s."


def test_z_ratio_says_where_sigma_is_too_small():
    rows, _ = images(drives=2)
    inside, outside = U.z_ratios(rows)
    assert inside[2] < outside[2]  # sigma is larger in "dark" than its errors are
    rows[:, :, 9:] = np.nan
    assert np.isnan(U.z_ratios(rows)[0]).all()


def test_shapes_are_checked():
    rows, drives = images(drives=2)
    with pytest.raises(ProtocolError, match="do not fit"):
        U.assess_regions(rows, REGIONS[:2], drives)
