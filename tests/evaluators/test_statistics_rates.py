"""The statistics on data where nothing differs: how often they say otherwise, and how often intervals hold the truth.

Two designs, as in KITTI's test sets: 28 drives of about equal length, and 13 uneven ones. The intraclass correlation of
the per-image differences is 0.1 and 0.3. Bounds are the rates of 1,500 simulations in the literature of this design
(drive swap test 0.04 to 0.06, image bootstrap 0.28 to 0.80), widened by three standard errors of this test's number.
"""

import numpy as np
import pytest

from adubench.evaluators import statistics as stats

EIGEN = [23, 24, 22, 28, 25, 23, 24, 22, 25, 23, 24, 22, 23, 25, 24, 22, 23, 24, 25, 22, 23, 24, 22, 23, 25, 24, 22, 20]
OFFICIAL = [251, 190, 140, 119, 70, 55, 45, 38, 30, 25, 20, 17, 17]
TRIALS = 1500


def _mean(sums):
    return sums[..., :1] / sums[..., 1:]


def _simulate(sizes, icc, rng):
    """Per-image differences of two equal models: a drive's share of the variance is `icc`."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    d = rng.normal(0, np.sqrt(icc), len(sizes))[labels] + rng.normal(0, np.sqrt(1 - icc), len(labels))
    return d, labels


def _rates(sizes, icc, seed):
    rng = np.random.default_rng(seed)
    swap = image = covered = 0
    groups = len(sizes)
    for trial in range(TRIALS):
        d, labels = _simulate(sizes, icc, rng)
        ones = np.ones_like(d)
        a = stats.sum_by_cluster(np.stack([d, ones], 1), labels, groups)
        b = stats.sum_by_cluster(np.stack([np.zeros_like(d), ones], 1), labels, groups)
        swap += float(stats.swap_test(a, b, _mean, seed=trial, swaps=2000).two_sided[0]) < 0.05
        draws = stats.bootstrap_sums(np.stack([d, ones], 1), 200, trial)
        low, high = stats.percentile_interval(draws[:, 0] / draws[:, 1])
        image += not low <= 0 <= high
        low, high = stats.inversion_interval(a[:, 0], a[:, 1], seed=trial) if groups <= 16 else _drive(a, trial)
        covered += low <= 0 <= high
    return swap / TRIALS, image / TRIALS, covered / TRIALS


def _drive(sums, seed):
    draws = stats.bootstrap_sums(sums, 400, seed)
    return stats.percentile_interval(draws[:, 0] / draws[:, 1])


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "least_wrong"), [(EIGEN, 0.28), (OFFICIAL, 0.61)], ids=["28 drives", "13 uneven"])
@pytest.mark.parametrize("icc", [0.1, 0.3])
def test_rates_on_data_without_a_difference(sizes, least_wrong, icc):
    swap, image, covered = _rates(sizes, icc, seed=7)
    error = 3 * np.sqrt(0.05 * 0.95 / TRIALS)
    assert swap <= 0.06 + error, "the drive swap test must keep its level"
    assert covered >= 0.93 - error, "intervals from drives must hold the truth"
    wrong = 3 * np.sqrt(0.25 / TRIALS)
    assert image >= least_wrong - wrong, "the image bootstrap is as wrong as it is said to be"
