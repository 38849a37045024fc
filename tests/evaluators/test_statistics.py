"""The statistics against scipy and statsmodels (golden data), and their properties."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adubench.evaluators import statistics as S

DATA = Path(__file__).parents[1] / "data" / "statistics"
WANT = json.loads((DATA / "expected.json").read_text())
PAIRS = ("b-a", "c-a", "c-b")
STATISTICS = ("mean_abs_rel", "pooled_rmse")
close = pytest.approx  # golden tolerance: 1e-9 relative


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(DATA / "cases.npz") as data:
        return {name: data[name] for name in data.files}


def ratio(rows: np.ndarray) -> np.ndarray:
    return rows[..., :1] / rows[..., 1:]


def root_ratio(rows: np.ndarray) -> np.ndarray:
    return np.sqrt(rows[..., :1] / rows[..., 1:])


FUNCTIONS = {"mean_abs_rel": ratio, "pooled_rmse": root_ratio}


def cluster_sums(golden, statistic: str, model: str) -> np.ndarray:
    """[12, 2]: numerator and denominator of each drive."""
    k = "abc".index(model)
    if statistic == "mean_abs_rel":
        rows = np.stack([golden["abs_rel"][k], np.ones(226)], axis=1)
    else:
        rows = np.stack([golden["sum_sq"][k], golden["n_px"]], axis=1)
    return S.sum_by_cluster(rows, golden["cluster"].astype(np.intp), 12)


def sample(golden, key: str, statistic: str, weights: np.ndarray | None = None) -> np.ndarray:
    """The statistic of a model or a pair, of the sample or under each row of weights [B, 12]."""
    values = []
    for model in key.split("-"):
        c = cluster_sums(golden, statistic, model)
        values.append(FUNCTIONS[statistic](c.sum(axis=0) if weights is None else weights @ c)[..., 0])
    return values[0] if len(values) == 1 else values[0] - values[1]


def counts_of(indices: np.ndarray, groups: int) -> np.ndarray:
    return np.stack([np.bincount(row, minlength=groups) for row in indices]).astype(float)


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("key", [*PAIRS, "a", "b", "c"])
def test_cluster_bootstrap_intervals_equal_scipy(golden, key, statistic):
    want = WANT["cluster_bootstrap"][key][statistic]
    draws = sample(golden, key, statistic, counts_of(golden["cluster_resample_indices"], 12))
    estimate = float(sample(golden, key, statistic))
    left_out = sample(golden, key, statistic, 1.0 - np.eye(12))
    assert estimate == close(want["estimate"], rel=1e-9)
    assert S.percentile_interval(draws) == close(want["percentile"], rel=1e-9)
    assert S.basic_interval(estimate, draws) == close(want["basic"], rel=1e-9)
    assert S.bca_interval(estimate, draws, left_out) == close(want["BCa"], rel=1e-9)
    assert draws.std(ddof=1) == close(want["standard_error"], rel=1e-9)


@pytest.mark.parametrize("pair", PAIRS)
def test_stored_distributions_equal_ours(golden, pair):
    draws = sample(golden, pair, "pooled_rmse", counts_of(golden["cluster_resample_indices"], 12))
    np.testing.assert_allclose(draws, golden[f"boot/{pair}/pooled_rmse"], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("pair", PAIRS)
def test_image_bootstrap_intervals_equal_scipy(golden, pair):
    first, second = pair.split("-")
    d = golden["abs_rel"]["abc".index(first)] - golden["abs_rel"]["abc".index(second)]
    draws = counts_of(golden["image_resample_indices"], 226) @ d / 226
    want = WANT["image_bootstrap"][pair]
    left_out = (d.sum() - d) / 225
    assert S.percentile_interval(draws) == close(want["percentile"], rel=1e-9)
    assert S.bca_interval(float(d.mean()), draws, left_out) == close(want["BCa"], rel=1e-9)


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("pair", PAIRS)
def test_exact_swap_test_equals_scipy(golden, pair, statistic):
    a, b = (cluster_sums(golden, statistic, m) for m in pair.split("-"))
    test = S.swap_test(a, b, FUNCTIONS[statistic])
    want = WANT["permutation_exact"][pair][statistic]
    assert test.exact
    assert (test.two_sided[0], test.less[0], test.greater[0]) == (want["two-sided"], want["less"], want["greater"])


def test_random_swap_test_is_near_the_exact_one(golden, monkeypatch):
    a, b = (cluster_sums(golden, "mean_abs_rel", m) for m in "ba")
    monkeypatch.setattr(S, "EXACT_CLUSTERS", 4)
    test = S.swap_test(a, b, ratio, seed=3)
    assert not test.exact
    assert test.two_sided[0] == pytest.approx(WANT["permutation_exact"]["b-a"]["mean_abs_rel"]["two-sided"], abs=0.01)


@pytest.mark.parametrize("pair", PAIRS)
def test_effects_and_tests_on_drive_means(golden, pair):
    first, second = pair.split("-")
    x, y = (golden["abs_rel"]["abc".index(m)] for m in (first, second))
    labels = golden["cluster"].astype(np.intp)
    means = np.bincount(labels, x - y) / np.bincount(labels)
    want = WANT["effect"][pair]
    assert S.standardised(x - y) == close(want["dz_images"], rel=1e-9)
    assert S.standardised(means) == close(want["dz_clusters"], rel=1e-9)
    assert S.win_rate(x, y) == close(want["share_images_first_lower"], rel=1e-9)
    assert S.win_rate(means, 0 * means) == close(want["share_clusters_first_lower"], rel=1e-9)
    assert S.win_rate(x, y, higher_is_better=True) == close(1 - want["share_images_first_lower"], rel=1e-9)
    assert S.t_test(means) == close(want["t_test_clusters"], rel=1e-9)
    assert S.signed_rank(means) == close(WANT["wilcoxon"][pair]["cluster_means_exact"], rel=1e-9)


def test_icc_and_design_effect(golden):
    got = S.clustering(golden["abs_rel"][1] - golden["abs_rel"][0], golden["cluster"].astype(np.intp))
    want = WANT["icc_b-a"]
    assert (got.icc, got.n0, got.design_effect) == close(
        (want["icc_anova"], want["n0"], want["design_effect"]), rel=1e-9
    )


@pytest.mark.parametrize(("name", "function"), [("holm", S.holm), ("benjamini_hochberg", S.benjamini_hochberg)])
def test_adjusted_p_values(name, function):
    want = WANT[name]
    np.testing.assert_allclose(function(np.array(want["p"])), want["adjusted"], rtol=1e-12)


def test_adjustment_ignores_missing_p_values():
    np.testing.assert_allclose(S.holm(np.array([0.01, np.nan, 0.02])), [0.02, np.nan, 0.02])


def test_ranking(golden):
    weights = counts_of(golden["cluster_resample_indices"], 12)
    draws = np.stack([sample(golden, m, "mean_abs_rel", weights) for m in "abc"], axis=1)
    observed = np.array([float(sample(golden, m, "mean_abs_rel")) for m in "abc"])
    got, want = S.ranking(draws, observed), WANT["ranking"]
    np.testing.assert_allclose(got.p_rank, want["p_rank"], rtol=1e-12)
    np.testing.assert_allclose(got.mean_rank, want["mean_rank"], rtol=1e-12)
    assert got.kendall_tau == close(want["kendall_tau_mean"], rel=1e-9)
    for key, p in want["p_pairwise_lower"].items():
        k, other = ("abc".index(m) for m in key.split("<"))
        assert got.p_better[k, other] == close(p, rel=1e-12)


def bisected(d: np.ndarray, n: np.ndarray, side: int) -> float:
    """The plain definition: flip the signs of D_c - delta n_c, search for the delta with p = 0.05."""
    g = len(d)
    signs = 1.0 - 2.0 * ((np.arange(2**g)[:, None] >> np.arange(g)) & 1)

    def accepted(delta: float) -> bool:
        t = signs @ (d - delta * n)
        less = np.mean(t <= t[0] + 1e-12 * abs(t[0]))
        greater = np.mean(t >= t[0] - 1e-12 * abs(t[0]))
        return min(1, 2 * min(less, greater)) > 0.05

    inside, outside = d.sum() / n.sum(), d.sum() / n.sum() + side * 10.0
    for _ in range(60):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if accepted(middle) else (inside, middle)
    return inside


@pytest.mark.parametrize("groups", [6, 9, 12])
def test_inverted_interval_equals_bisection(groups):
    rng = np.random.default_rng(groups)
    n = rng.integers(1, 30, groups).astype(float)
    d = rng.normal(0.1, 1, groups) * np.sqrt(n)
    low, high = S.inversion_interval(d, n)
    assert (low, high) == close((bisected(d, n, -1), bisected(d, n, 1)), rel=1e-7, abs=1e-9)


def test_inverted_interval_is_unbounded_with_five_clusters():
    assert S.inversion_interval(np.arange(5.0), np.ones(5)) == (-np.inf, np.inf)
    assert S.smallest_p(5) > 0.05 > S.smallest_p(6)


def test_swap_test_accepts_the_ends_of_its_interval():
    rng = np.random.default_rng(5)
    d, n = rng.normal(0.3, 1, 18), np.full(18, 10.0)  # above 16 clusters: random exchanges
    low, high = S.inversion_interval(d, n)
    assert low < d.sum() / n.sum() < high
    assert S.inversion_interval(-d, n) == close((-high, -low), rel=1e-12)


def test_bootstrap_sums_is_paired_and_reproducible():
    rows = np.random.default_rng(0).normal(size=(40, 3))
    one = S.bootstrap_sums(rows, 3000, 7)
    again = S.bootstrap_sums(rows[:, 1:2], 3000, 7)
    np.testing.assert_allclose(one[:, 1:2], again, rtol=1e-12, atol=1e-12)
    assert not np.allclose(one, S.bootstrap_sums(rows, 3000, 8))
    counts = np.concatenate(list(S.draw_weights(40, 3000, 7)))
    np.testing.assert_allclose(one, counts @ rows, rtol=1e-12, atol=1e-12)
    assert np.all(counts.sum(axis=1) == 40)
    assert counts.var(axis=0).mean() == pytest.approx(1 - 1 / 40, rel=0.03)
    bayes = np.concatenate(list(S.draw_weights(40, 500, 7, bayes=True)))
    assert np.all(bayes > 0)
    np.testing.assert_allclose(bayes.sum(axis=1), 40)


def test_bca_says_when_it_is_undefined():
    assert S.bca_interval(1.0, np.ones(100), np.ones(5)) is None
    assert S.bca_interval(9.0, np.arange(5.0), np.arange(5.0)) is None


def test_clusters_are_named_and_summed():
    labels, names = S.label_clusters(["b", "a", "b"])
    assert names == ("a", "b")
    np.testing.assert_array_equal(S.sum_by_cluster(np.array([[1.0], [2.0], [4.0]]), labels, 3), [[2], [5], [0]])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=9), st.integers(0, 2**31))
def test_swapping_the_models_mirrors_everything(shift, seed):
    rng = np.random.default_rng(seed)
    g = len(shift)
    a = np.stack([rng.uniform(1, 2, g), rng.integers(1, 9, g)], axis=1)
    b = a + np.stack([np.array(shift) * 1e-2, np.zeros(g)], axis=1)
    one, other = S.swap_test(a, b, root_ratio), S.swap_test(b, a, root_ratio)
    np.testing.assert_array_equal(one.two_sided, other.two_sided)
    np.testing.assert_array_equal(one.less, other.greater)
    assert S.swap_test(a, a, root_ratio).two_sided[0] == 1.0
