from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adubench.errors import UsageError
from adubench.evaluators import extended
from adubench.evaluators.alignment import ALIGNMENTS, align, canonical, lower_median, median, weighted_scale
from tests.evaluators.metric_cases import FOLDER, assert_close

VECTORS = np.load(FOLDER / "vectors.npz")
WANT = json.loads((FOLDER / "vectors.json").read_text())
MOGE = {
    "moge_metric": "none",
    "moge_scale_invariant": "scale_l1",
    "moge_affine_invariant": "affine_l1",
    "moge_disparity_affine": "disparity_lsqr",
}


@pytest.mark.parametrize("name", WANT)
@pytest.mark.parametrize("key", MOGE)
def test_moge(name, key):
    gt, pred, want = VECTORS[f"{name}_gt"], VECTORS[f"{name}_pred"], WANT[name]["f64"][key]
    aligned, info = align(MOGE[key], gt, pred)
    for field in ("scale", "shift"):
        if field in want:
            assert_close(info[field], want[field], 1e-6, field)
    assert_close(extended.moge_rel(gt, aligned), want["rel"], 1e-6, "rel")
    assert_close(extended.moge_delta1(gt, aligned), want["delta1"], 1e-6, "delta1")
    assert aligned.dtype == np.float32


def test_every_alignment_recovers_its_own_family():
    rng = np.random.default_rng(0)
    gt = rng.uniform(3, 60, 301).astype(np.float32)
    made = {
        "median": gt / 3,
        "median_low": gt / 3,
        "scale_l1": gt / 3,
        "affine_l1": (gt - 1.5) / 3,
        "affine_lsqr": (gt - 1.5) / 3,
        "lsqr": 1 / ((1 / gt + 0.01) / 3),
        "disparity_lsqr": 1 / ((1 / gt + 0.01) / 3),
        "fixed:3": gt / 3,
        "none": gt,
    }
    assert set(made) == {"fixed:3" if name == "fixed:X" else name for name in ALIGNMENTS}
    for name, pred in made.items():
        aligned, _ = align(name, gt, pred.astype(np.float32))
        np.testing.assert_allclose(aligned, gt, rtol=2e-3, err_msg=name)


@given(st.integers(4000, 4200), st.integers(0, 2**32 - 1), st.sampled_from([1.0, 1e-6, 1e4]))
def test_median_is_numpys(n, seed, scale):
    rng = np.random.default_rng(seed)
    values = (rng.integers(1, 4000, n) * scale).astype(np.float32)
    assert median(values) == np.median(values)
    values[::3] = values[0]
    assert median(values) == np.median(values)


def test_median_of_unusual_values():
    values = np.linspace(1, 9, 5001, dtype=np.float32)
    for odd in (np.inf, -1.0, 0.0):
        changed = values.copy()
        changed[:100] = odd
        assert median(changed) == np.median(changed)
    values[7] = np.nan
    assert np.isnan(median(values))
    halves = np.repeat(np.float32([1, 64]), 3000)
    assert median(halves) == 32.5


def test_lower_median():
    assert lower_median(np.array([4.0, 1.0, 3.0, 2.0])) == 2.0
    assert lower_median(np.array([5.0, 1.0, 3.0])) == 3.0


@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_weighted_scale_is_the_minimum(seed, n):
    rng = np.random.default_rng(seed)
    x, y, w = rng.normal(size=n), rng.normal(size=n), rng.uniform(0.1, 1, n)
    best = weighted_scale(y, x, w)
    loss = [np.sum(w * np.abs(a * x - y)) for a in y / x]
    assert np.sum(w * np.abs(best * x - y)) <= min(loss) + 1e-9


def test_solving_on_a_part_applies_to_all():
    gt, pred = np.float32([2, 4, 6, 8]), np.float32([1, 2, np.nan, 4])
    aligned, info = align("median", gt, pred, usable=~np.isnan(pred))
    assert info["ratio"] == 2.0
    np.testing.assert_array_equal(aligned, np.float32([2, 4, np.nan, 8]))


def test_a_constant_prediction_has_no_line():
    gt = np.float32([2, 4, 8])
    for constant in (0.5, 4.0):
        aligned, info = align("lsqr", gt, np.full(3, constant, np.float32))
        assert (info["scale"], info["shift"]) == (0.0, 0.0)
        assert not aligned.any()


@pytest.mark.parametrize("name", ["median", "median_low", "scale_l1", "lsqr", "affine_l1", "disparity_lsqr"])
def test_no_pixel_is_no_error(name):
    empty = np.empty(0, np.float32)
    aligned, _ = align(name, empty, empty)
    assert aligned.size == 0


def test_names():
    assert canonical("lstsq") == "lsqr"
    assert canonical("fixed:5.40") == "fixed:5.4"
    with pytest.raises(UsageError, match="did you mean 'median'"):
        canonical("medain")
    for bad in ("fixed:", "fixed:-1", "fixed:nan", "fixed:inf", "fixed:x"):
        with pytest.raises(UsageError, match="positive number"):
            canonical(bad)
