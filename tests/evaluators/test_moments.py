from __future__ import annotations

import math
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from adubench.evaluators import moments
from adubench.evaluators.metrics import metrics_from_moments
from adubench.evaluators.moments import MOMENTS, frame_moments, plain_moments

DEPTH = st.floats(np.float32(1e-3), np.float32(80.0), width=32)
PAIR = st.integers(1, 60).flatmap(lambda n: st.tuples(*(arrays(np.float32, n, elements=DEPTH) for _ in range(2))))


@pytest.fixture(params=["numpy", "compiled"])
def kernel(request):
    if request.param == "compiled":
        pytest.importorskip("numba")
    assert moments.use_compiled(request.param == "compiled") == (request.param == "compiled")
    yield request.param
    moments.use_compiled(False)


def two_passes(gt, pred) -> np.ndarray:
    """The definition, written apart from the product: math.fsum over Python floats."""
    rows = []
    for g, p in zip(gt.astype(float), pred.astype(float), strict=True):
        e, log, v = p - g, math.log(p / g), 1 / p - 1 / g
        r = max(p / g, g / p)
        rows.append([1, abs(e), e * e, abs(e) / g, e * e / g, e * e / g**2, log, log * log, abs(math.log10(p / g)),
                     abs(v), v * v, r < 1.25, r < 1.25**2, r < 1.25**3, e])  # fmt: skip
    return np.array([math.fsum(column) for column in zip(*rows, strict=True)])


def scene(n=50_000, seed=0):
    rng = np.random.default_rng(seed)
    gt = (rng.integers(1, 20480, n) / 256).astype(np.float32)
    pred = np.clip(gt * np.exp(rng.normal(0.02, 0.2, n)), 1e-3, 80).astype(np.float32)
    return gt, pred


def test_against_the_definition(kernel):
    gt, pred = scene()
    got, want = frame_moments(gt, pred), two_passes(gt, pred)
    np.testing.assert_allclose(got, want, rtol=1e-12)
    np.testing.assert_array_equal(got[[0, 11, 12, 13]], want[[0, 11, 12, 13]])
    assert len(MOMENTS) == got.size == 15


def test_kernels_agree():
    pytest.importorskip("numba")
    for seed in range(3):
        gt, pred = scene(seed=seed)
        slow = frame_moments(gt, pred)
        moments.use_compiled(True)
        fast = frame_moments(gt, pred)
        moments.use_compiled(False)
        np.testing.assert_allclose(fast, slow, rtol=1e-12)
        np.testing.assert_array_equal(fast[11:14], slow[11:14])


@pytest.mark.parametrize("threshold", [1.25, 1.5625, 1.953125])
def test_thresholds_are_strict_and_exact(kernel, threshold):
    low = np.arange(64 * 7, 64 * 7 + 6400, 64, dtype=np.float32)
    exact = (low * np.float32(threshold)).astype(np.float32)
    count = {1.25: 11, 1.5625: 12, 1.953125: 13}[threshold]
    below = np.nextafter(exact, np.float32(0))
    for gt, pred, want in ((low, exact, 0), (exact, low, 0), (low, below, low.size), (below, low, low.size)):
        assert frame_moments(gt, pred)[count] == want


def test_integer_rule_on_codes(kernel):
    rng = np.random.default_rng(3)
    g = rng.integers(1, 20480, 40_000)
    p = np.clip(g * rng.choice([4, 5], g.size) // rng.choice([4, 5], g.size) + rng.integers(-1, 2, g.size), 1, 20480)
    high, low = np.maximum(g, p), np.minimum(g, p)
    row = frame_moments((g / 256).astype(np.float32), (p / 256).astype(np.float32))
    assert row[11] == (4 * high < 5 * low).sum()
    assert row[12] == (16 * high < 25 * low).sum()
    assert row[13] == (64 * high < 125 * low).sum()


@given(PAIR)
def test_swapping_keeps_what_is_symmetric(pair):
    gt, pred = pair
    a, b = frame_moments(gt, pred), frame_moments(pred, gt)
    np.testing.assert_array_equal(a[11:14], b[11:14])
    np.testing.assert_allclose(a[[1, 2, 7, 8, 9, 10]], b[[1, 2, 7, 8, 9, 10]], rtol=1e-10, atol=1e-15)


@given(PAIR, st.sampled_from([0.25, 0.5, 2.0, 4.0, 1.7]))
def test_silog_does_not_depend_on_scale(pair, factor):
    gt, pred = pair
    row = frame_moments(gt, pred)
    a = metrics_from_moments(row)["silog"]
    b = metrics_from_moments(frame_moments(gt, pred * np.float32(factor)))["silog"]
    # The subtraction form leaves 1e-8 of the mean log error.
    assert abs(a - b) < 1e-5 * (1 + a + abs(row[6] / row[0]))


@given(PAIR)
def test_perfect_prediction_is_zero(pair):
    gt, _ = pair
    row = frame_moments(gt, gt.copy())
    assert (row[[0, 11, 12, 13]] == gt.size).all()
    assert not row[[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14]].any()


def test_perfect_prediction_is_zero_compiled(kernel):
    gt, _ = scene(2000)
    assert not frame_moments(gt, gt.copy())[[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14]].any()


def test_empty_and_one_pixel(kernel):
    empty = np.empty(0, np.float32)
    assert not frame_moments(empty, empty).any()
    row = frame_moments(np.float32([8]), np.float32([10]))
    assert row[0] == 1
    assert row[11] == 0  # 1.25 exactly
    assert row[14] == 2
    assert abs(metrics_from_moments(row)["silog"]) < 1e-5


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, -1.0])
def test_invalid_values_never_count_as_accurate(kernel, value):
    row = frame_moments(np.float32([5, 5]), np.float32([5, value]))
    assert list(row[11:14]) == [1, 1, 1]
    assert not np.isfinite(row[7])


def test_signed_ratio_is_the_references_own_count():
    assert plain_moments(np.float32([5]), np.float32([-1]), signed_ratio=True)[11] == 1


def test_threads_do_not_share_buffers():
    pairs = [scene(seed=s) for s in range(4)]
    want = [frame_moments(*pair) for pair in pairs]
    got: dict[int, list[np.ndarray]] = {}

    def work(i: int) -> None:
        got[i] = [frame_moments(*pairs[i]) for _ in range(10)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, rows in got.items():
        for row in rows:
            np.testing.assert_array_equal(row, want[i])


def test_choice_of_kernel(monkeypatch):
    monkeypatch.setenv("ADUBENCH_FAST", "0")
    assert not moments.prefer_compiled(10**6)
    assert not moments.use_compiled(True)
    assert not moments.compiled_in_use()
    pytest.importorskip("numba")
    monkeypatch.delenv("ADUBENCH_FAST")
    assert moments.prefer_compiled(5000)
    assert not moments.prefer_compiled(10)
    monkeypatch.setenv("ADUBENCH_FAST", "1")
    assert moments.prefer_compiled(1)
