"""Meanings of an uncertainty output, scaling, floor, bad values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from adubench.errors import DataError, ProtocolError, UsageError
from adubench.evaluators import uncertainty_kinds as K

SIGMA = np.array([0.05, 0.7, 1.0, 12.0])


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("sigma", SIGMA),
        ("std", SIGMA),
        ("variance", SIGMA**2),
        ("var", SIGMA**2),
        ("b", SIGMA / math.sqrt(2)),
        ("log_b", np.log(SIGMA / math.sqrt(2))),
        ("log_sigma", np.log(SIGMA)),
        ("log_std", np.log(SIGMA)),
        ("log_variance", 2 * np.log(SIGMA)),
        ("log_var", 2 * np.log(SIGMA)),
    ],
)
def test_every_kind_means_the_same_sigma(kind, values):
    u = K.convert(values, kind)
    np.testing.assert_allclose(u.sigma, SIGMA, rtol=1e-14)
    np.testing.assert_allclose(u.log_sigma, np.log(SIGMA), atol=1e-14)
    assert u.floored == 0
    assert (np.argsort(u.score) == np.argsort(SIGMA)).all()
    resized, name = K.to_resizable(values, kind)
    np.testing.assert_allclose(K.convert(resized, name).sigma, SIGMA, rtol=1e-14)


def test_log_sigma_read_as_log_variance_is_a_square_root_off():
    s = np.log(SIGMA)
    np.testing.assert_allclose(K.convert(s, "log_variance").sigma, np.sqrt(K.convert(s, "log_sigma").sigma))


def test_family_is_that_of_the_loss():
    assert {k: K.family_of(k) for k in K.KINDS} == {
        "sigma": None,
        "variance": None,
        "b": "laplace",
        "log_b": "laplace",
        "log_sigma": "laplace",
        "log_variance": "gaussian",
        "score": None,
    }


@pytest.mark.parametrize("kind", ["sigma", "log_sigma"])
@pytest.mark.parametrize(("space", "factor"), [("depth", 3.0), ("inv", 1 / 3), ("log", 1.0)])
def test_sigma_follows_the_alignment(kind, space, factor):
    values = SIGMA if kind == "sigma" else np.log(SIGMA)
    u = K.convert(values, kind, space=space, scale=3.0)
    np.testing.assert_allclose(u.sigma, SIGMA * factor, rtol=1e-14)
    np.testing.assert_allclose(np.exp(u.log_sigma), SIGMA * factor, rtol=1e-14)


def test_not_positive_sigma_is_floored_and_counted_and_still_ranks():
    u = K.convert(np.array([-2.0, 0.0, 5e-4, 1e-3, 2e-3]), "sigma")
    np.testing.assert_allclose(u.sigma, [1e-3, 1e-3, 1e-3, 1e-3, 2e-3])
    assert u.floored == 4
    assert (np.diff(u.score) > 0).all()
    np.testing.assert_allclose(K.convert(np.array([-20.0, 0.0]), "log_sigma", floor=0.01).log_sigma, [np.log(0.01), 0])


def test_huge_logarithms_do_not_overflow():
    with np.errstate(over="raise"):
        u = K.convert(np.array([0.0, 800.0, 1500.0]), "log_sigma")
        assert np.isfinite(np.square(u.sigma)).all()
        resized, _ = K.to_resizable(np.array([3000.0]), "log_variance")
    assert np.isfinite(resized).all()
    assert u.log_sigma[2] == 1500.0  # a likelihood sees the value itself


def test_score_only_ranks_and_may_be_negative():
    u = K.convert(np.array([-3.0, 2.0]), "score")
    assert u.sigma is None
    assert u.log_sigma is None
    with pytest.raises(ProtocolError, match="no scale"):
        u.times(2.0)


def test_times_multiplies_sigma_only():
    u = K.convert(SIGMA, "sigma").times(2.0)
    np.testing.assert_allclose(u.sigma, 2 * SIGMA)
    np.testing.assert_allclose(u.log_sigma, np.log(2 * SIGMA))
    assert (u.score == SIGMA).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["sigma", "log_variance", "score"])
def test_not_finite_values_name_the_file(kind, bad):
    with pytest.raises(DataError, match=r"maps/0001\.npy is NaN or infinite at 1 pixels"):
        K.convert(np.array([1.0, bad]), kind, where="maps/0001.npy")


def test_negative_variance_names_the_file():
    with pytest.raises(DataError, match=r"a\.npy has negative variances.*log_variance"):
        K.convert(np.array([1.0, -0.1]), "variance", where="a.npy")


def test_unknown_names_and_factors():
    with pytest.raises(UsageError, match="log_sigma"):
        K.convert(SIGMA, "log_sigm")
    with pytest.raises(UsageError, match="uncertainty space"):
        K.convert(SIGMA, "sigma", space="disparity")
    for options in ({"scale": 0.0}, {"scale": np.nan}, {"floor": 0.0}):
        with pytest.raises(ProtocolError, match="must be > 0"):
            K.convert(SIGMA, "sigma", **options)


def test_residuals_are_prediction_minus_truth():
    gt, pred = np.array([2.0, 10.0]), np.array([4.0, 9.0])
    np.testing.assert_allclose(K.residuals(gt, pred), [2.0, -1.0])
    np.testing.assert_allclose(K.residuals(gt, pred, "log"), np.log([2.0, 0.9]))
    np.testing.assert_allclose(K.residuals(gt, pred, "inv"), [-0.25, 1 / 9 - 1 / 10])


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_residuals_need_positive_depth(bad):
    with pytest.raises(ProtocolError, match="prediction of f1"):
        K.residuals(np.ones(2), np.array([1.0, bad]), "log", "f1")


def test_flip_disagreement():
    assert K.flip_disagreement(np.array([3.0, 5.0]), np.array([4.0, 5.0])).tolist() == [1.0, 0.0]
