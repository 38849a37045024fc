"""Likelihoods, coverage, ENCE and recalibration against uncertainty-toolbox, scipy and netcal (golden data)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.stats import laplace, norm

from adubench.errors import ProtocolError, UsageError
from adubench.evaluators import calibration as C
from adubench.evaluators import recalibration as T
from adubench.evaluators.rank_correlation import spearman
from tests.evaluators.uncertainty_cases import ADU, CASES, WANT, case, scene

CALIBRATED = tuple(WANT["calibration"])
close = pytest.approx


def golden(name):
    gt, pred, sigma = case(name)
    return pred - gt, sigma, WANT["calibration"][name]


@pytest.mark.parametrize("name", CALIBRATED)
def test_likelihoods(name):
    residual, sigma, want = golden(name)
    log_sigma = np.log(sigma)
    assert C.nll_gaussian(residual, log_sigma).mean() == close(want["nll_gaussian"], rel=1e-9)
    assert C.nll_laplace(residual, log_sigma).mean() == close(want["nll_laplace"], rel=1e-9)
    assert C.crps_gaussian(residual, sigma).mean() == close(want["crps_gaussian"], rel=1e-9)
    np.testing.assert_allclose(
        C.nll_laplace(residual, log_sigma), -laplace.logpdf(residual, scale=sigma / math.sqrt(2))
    )


@pytest.mark.parametrize(("residual", "sigma"), [(0.0, 1.0), (0.7, 0.4), (-3.0, 1.5), (12.0, 0.2)])
def test_crps_is_the_integral_of_its_definition(residual, sigma):
    x = np.linspace(-40, 40, 800_001)
    for density, found in (
        (norm(0, sigma), C.crps_gaussian),
        (laplace(0, sigma / math.sqrt(2)), C.crps_laplace),
    ):
        want = trapezoid((density.cdf(x) - (x >= residual)) ** 2, x)
        assert found(np.array([residual]), np.array([sigma]))[0] == close(want, abs=2e-4)


@pytest.mark.parametrize("name", CALIBRATED)
def test_coverage_curves_and_their_errors(name):
    residual, sigma, want = golden(name)
    np.testing.assert_allclose(C.LEVELS, CASES[f"{name}/cal_expected"], rtol=1e-15)
    observed = C.coverage_counts(residual, sigma) / residual.size
    keys = ("cal_observed_interval", "cal_observed_interval_laplace", "cal_observed_quantile")
    for k, (form, key) in enumerate(zip(C.FORMS, keys, strict=True)):
        np.testing.assert_allclose(observed[k, :100], CASES[f"{name}/{key}"], rtol=1e-12)
        np.testing.assert_allclose(C.coverage(residual, sigma, C.ALL_LEVELS, form), observed[k])
    for k, suffix in ((0, "interval"), (2, "quantile")):
        errors = C.calibration_errors(observed[k, :100])
        assert errors["ece"] == close(want[f"mace_{suffix}"], rel=1e-9)
        assert errors["rmsce"] == close(want[f"rmsce_{suffix}"], rel=1e-9)
        assert errors["miscalibration_area"] == close(want[f"miscal_area_{suffix}"], rel=1e-9)
    assert C.calibration_errors(observed[1, :100])["ece"] == close(want["mace_interval_laplace"], rel=1e-9)
    quantile = observed[2, :100]
    assert C.calibration_errors(quantile)["kuleshov"] == close(((C.LEVELS - quantile) ** 2).sum())


def test_ends_of_the_coverage_curve():
    counts = C.coverage_counts(np.array([0.0, 1e6, -1e6]), np.ones(3))
    assert (counts[:2, 0] == 1).all()  # only the exact pixel
    assert (counts[:, 99] == 3).all()  # infinite bounds
    assert counts[2, 0] == 0


def test_level_index_adds_up_to_coverage():
    residual, sigma, _ = golden("noisy")
    for k, form in enumerate(C.FORMS):
        index = C.level_index(residual, sigma, form)
        want = C.coverage_counts(residual, sigma)[k, :100]
        np.testing.assert_array_equal(np.cumsum(np.bincount(index, minlength=100)), want)


def test_miscalibration_area_where_the_curve_crosses_the_diagonal():
    # two triangles of height 0.25: between 0 and the crossing, and after it
    expected, observed = np.array([0.0, 1.0]), np.array([0.25, 0.75])
    assert C.miscalibration_area(observed, expected) == close(2 * 0.5 * 0.5 * 0.25)
    assert C.miscalibration_area(expected, expected) == 0


@pytest.mark.parametrize("name", CALIBRATED)
def test_ence(name):
    residual, sigma, want = golden(name)
    assert C.ence(sigma, residual, 10).value == close(want["ence_equal_count_10"], rel=1e-9)
    assert C.ence(sigma, residual, 20).value == close(want["ence_equal_count_20"], rel=1e-9)
    assert C.ence_equal_width(sigma, residual).value == close(want["ence_equal_width_10"], rel=1e-9)
    assert C.variation(sigma) == close(want["cv_sigma"], rel=1e-9)


def test_ence_bins_and_refusal():
    found = C.ence(np.arange(1.0, 504.0), np.ones(503), 10)
    assert found.counts.tolist() == [51] * 3 + [50] * 7
    with pytest.raises(ProtocolError, match="at least 500 pixels, got 499"):
        C.ence(np.ones(499), np.ones(499), 10)


def test_constant_sigma():
    sigma, residual = np.full(600, 0.3), np.linspace(-1, 1, 600)
    assert C.variation(sigma) == 0
    assert C.ence_equal_width(sigma, residual).counts.tolist() == [600]
    assert math.isfinite(C.ence(sigma, residual).value)


@pytest.mark.parametrize("name", CALIBRATED)
def test_temperatures_are_the_minima_of_the_likelihood(name):
    residual, sigma, want = golden(name)
    assert T.temperature(residual, sigma, "gaussian") == close(want["temperature_gaussian_numeric"], abs=1e-6)
    assert T.temperature(residual, sigma, "laplace") == close(want["temperature_laplace_numeric"], abs=1e-6)


def test_adu_depth_calibration():
    error, sigma = ADU["error"], ADU["sigma"]
    log_sigma = ADU["s"]
    np.testing.assert_allclose(C.LEVELS_19, ADU["levels"], rtol=1e-14)
    for form in ("laplace", "gaussian"):
        coverage = C.coverage(error, sigma, C.LEVELS_19, form)
        np.testing.assert_allclose(coverage, ADU[f"coverage_{form}"], rtol=1e-9)
        at = C.coverage_counts(error, sigma)[C.FORMS.index(form), 100:119] / error.size
        np.testing.assert_array_equal(at, coverage)
        assert np.abs(coverage - C.LEVELS_19).mean() == close(float(ADU[f"ece_{form}"]), rel=1e-9)
    found = C.ence(sigma, error)
    assert found.value == close(float(ADU["ence"]), rel=1e-9)
    np.testing.assert_allclose(found.rmv, ADU["bin_rmv"], rtol=1e-9)
    np.testing.assert_allclose(found.rmse, ADU["bin_rmse"], rtol=1e-9)
    assert C.nll_laplace(error, log_sigma).mean() == close(float(ADU["nll_laplace"]), rel=1e-9)
    assert spearman(sigma, np.abs(error)) == close(float(ADU["spearman"]), rel=1e-9)
    tau = T.temperature(error, sigma, "laplace")
    assert tau == close(float(ADU["tau_laplace"]), rel=1e-9)
    after = C.coverage(error, tau * sigma, C.LEVELS_19, "laplace")
    assert np.abs(after - C.LEVELS_19).mean() == close(float(ADU["ece_laplace_after_tau"]), rel=1e-9)


def sums_of(*parts):
    return np.stack([T.temperature_sums(r, s, p) for r, s, p in parts])


def test_images_weigh_equally():
    dense = (np.full(9000, 2.0), np.ones(9000), np.full(9000, 10.0))
    sparse = (np.full(10, 4.0), np.ones(10), np.full(10, 10.0))
    sums = sums_of(dense, sparse)
    assert T.fit_temperature(sums, "gaussian").value == close(math.sqrt((4 + 16) / 2))
    assert T.fit_temperature(sums, "laplace").value == close(math.sqrt(2) * 3)


def test_binned_temperature_needs_pixels():
    near = (np.full(6000, 1.0), np.ones(6000), np.full(6000, 5.0))
    far = (np.full(100, 5.0), np.ones(100), np.full(100, 70.0))
    found = T.fit_temperature(sums_of(near, far), "gaussian", by_distance=True)
    assert found.value == close(math.sqrt(13))
    np.testing.assert_allclose(found.by_distance, [1.0, found.value, found.value, found.value])
    assert found.pixels.tolist() == [6000, 0, 0, 100]
    np.testing.assert_allclose(found.factor(np.array([5.0, 70.0])), [1.0, found.value])
    assert T.distance_bin(np.array([0.1, 20.0, 39.9, 60.0, 1e9])).tolist() == [0, 1, 1, 3, 3]


def test_temperature_needs_pixels_and_errors():
    with pytest.raises(ProtocolError, match="no valid pixels"):
        T.fit_temperature(np.zeros((0, 5, 3)), "gaussian")
    with pytest.raises(ProtocolError, match="no error"):
        T.temperature(np.zeros(10), np.ones(10), "laplace")


def test_conformal_factor_covers_new_pixels():
    gt, pred, sigma = scene(1, 20_000)
    residual = pred - gt
    fit, new = slice(0, 10_000), slice(10_000, None)
    for family in ("gaussian", "laplace"):
        factor = T.conformal_factor(residual[fit], sigma[fit], 0.9, family)
        covered = C.coverage(residual[new], factor * sigma[new], np.array([0.9]), family)[0]
        assert covered == close(0.9, abs=0.01)


def test_conformal_rank():
    z = np.arange(1.0, 20.0)  # n = 19: rank ceil(20 * 0.9) = 18
    c = C.critical_values(np.array([0.9]), "gaussian")[0]
    assert T.conformal_factor(z, np.ones(19), 0.9, "gaussian") == close(18 / c)
    assert T.conformal_factor(z, np.ones(19), 0.99, "gaussian") == math.inf
    with pytest.raises(ProtocolError, match="level in"):
        T.conformal_factor(z, np.ones(19), 1.0, "gaussian")


def test_isotonic_map_repairs_the_quantile_curve():
    gt, pred, sigma = scene(2, 40_000, factor=1.2)
    residual = pred - gt + 0.3 * sigma  # biased as well: no temperature can repair this
    fit, new = slice(0, 20_000), slice(20_000, None)
    before = C.coverage(residual[new], sigma[new], C.LEVELS, "quantile")
    found = T.fit_isotonic(C.coverage(residual[fit], sigma[fit], C.LEVELS, "quantile"))
    after = C.coverage(residual[new], sigma[new], found.levels(C.LEVELS), "quantile")
    assert np.abs(before - C.LEVELS).mean() > 0.05
    assert np.abs(after - C.LEVELS).mean() < 0.01


def test_isotonic_pools_what_descends():
    found = T.fit_isotonic(np.array([0.0, 0.5, 0.4, 0.5, 1.0]), np.array([0.0, 0.3, 0.6, 0.5, 1.0]))
    assert found.observed.tolist() == [0.0, 0.4, 0.5, 1.0]
    # 0.6 at 0.4 stands against the mean 0.4 of the two levels at 0.5: pooled with weights 1 and 2
    np.testing.assert_allclose(found.expected, [0.0, 1.4 / 3, 1.4 / 3, 1.0])
    assert (np.diff(found.expected) >= 0).all()


def test_calibration_split_is_another_one():
    T.check_calibration_split("val", "test", {"a", "b"}, {"c"})
    with pytest.raises(UsageError, match="'test' is the evaluated split"):
        T.check_calibration_split("test", "test", {"a"}, {"a"})
    with pytest.raises(UsageError, match="shares drive b and 1 more with 'test'"):
        T.check_calibration_split("val", "test", {"a", "b", "c"}, {"b", "c", "d"})
