from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adubench.evaluators.resize import bilinear, bilinear_take
from tests.evaluators.metric_cases import FOLDER

VECTORS = np.load(FOLDER / "vectors.npz")


@pytest.mark.parametrize("name", ["resize_out_50x71", "resize_out_11x20", "resize_align_corners_50x71"])
def test_golden(name):
    want = VECTORS[name]
    got = bilinear(VECTORS["resize_in"], want.shape, align_corners="align" in name)
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-6)
    assert got.dtype == np.float32


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_taking_equals_resizing(h, w, height, width, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(h, w)).astype(np.float32)
    index = rng.integers(0, height * width, rng.integers(0, 40)).astype(np.uint32)
    whole = bilinear(values, (height, width)).reshape(-1)
    np.testing.assert_array_equal(bilinear_take(values, (height, width), index), whole[index])


def test_many_and_few_positions_agree():
    values = np.random.default_rng(0).normal(size=(20, 30)).astype(np.float32)
    index = np.arange(41 * 57, dtype=np.uint32)
    many = bilinear_take(values, (41, 57), index)
    few = np.concatenate([bilinear_take(values, (41, 57), part) for part in np.array_split(index, 60)])
    np.testing.assert_array_equal(many, few)


def test_same_size_is_a_copy_and_corners_stay():
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    same = bilinear(values, (3, 4))
    same[0, 0] = 9
    assert values[0, 0] == 0
    large = bilinear(values, (30, 40), align_corners=True)
    assert large[0, 0] == values[0, 0]
    assert large[-1, -1] == values[-1, -1]


def test_nan_spreads_only_to_neighbours():
    values = np.ones((4, 4), np.float32)
    values[1, 1] = np.nan
    out = bilinear(values, (8, 8))
    assert np.isnan(out).any()
    assert not np.isnan(out[6:, 6:]).any()
