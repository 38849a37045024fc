from __future__ import annotations

import numpy as np
import pytest

from adubench.errors import UsageError
from adubench.evaluators.metrics import (
    CORE,
    METRICS,
    MOMENT_METRICS,
    STYLES,
    get_metric,
    metrics_from_moments,
)
from adubench.evaluators.moments import frame_moments
from adubench.evaluators.protocols import PROTOCOLS


def oracle(gt, pred) -> dict[str, float]:
    g, p = gt.astype(np.float64), pred.astype(np.float64)
    e, log, v = p - g, np.log(p) - np.log(g), 1 / p - 1 / g
    r = np.maximum(p / g, g / p)
    return {
        "silog": 100 * np.std(log),
        "abs_rel": np.mean(np.abs(e) / g),
        "log10": np.mean(np.abs(np.log10(p) - np.log10(g))),
        "rmse": np.sqrt(np.mean(e**2)),
        "sq_rel": np.mean(e**2 / g),
        "rmse_log": np.sqrt(np.mean(log**2)),
        "d1": np.mean(r < 1.25),
        "d2": np.mean(r < 1.25**2),
        "d3": np.mean(r < 1.25**3),
        "mae": np.mean(np.abs(e)),
        "sq_rel_gt2": np.mean(e**2 / g**2),
        "imae": 1000 * np.mean(np.abs(v)),
        "irmse": 1000 * np.sqrt(np.mean(v**2)),
        "log_mae": np.mean(np.abs(log)),
        "log_bias": np.mean(log),
        "bias": np.mean(e),
    }


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(4)
    gt = rng.uniform(2, 79, (3, 500)).astype(np.float32)
    return gt, np.clip(gt * np.exp(rng.normal(0.05, 0.2, gt.shape)), 1e-3, 80).astype(np.float32)


def test_every_moment_metric_is_its_definition(vectors):
    gt, pred = vectors
    got = metrics_from_moments(np.array([frame_moments(g, p) for g, p in zip(gt, pred, strict=True)]))
    assert set(got) == set(MOMENT_METRICS)
    for i in range(3):
        want = oracle(gt[i], pred[i])
        assert set(want) == set(got)
        for key, value in want.items():
            assert got[key][i] == pytest.approx(value, rel=1e-10), key


def test_leading_axes_and_pooling(vectors):
    gt, pred = vectors
    rows = np.array([frame_moments(g, p) for g, p in zip(gt, pred, strict=True)])
    table = metrics_from_moments(rows.reshape(3, 1, 15))
    assert table["rmse"].shape == (3, 1)
    pooled = metrics_from_moments(rows.sum(axis=0))
    want = oracle(gt.ravel(), pred.ravel())
    for key in CORE:
        assert float(pooled[key]) == pytest.approx(want[key], rel=1e-9), key


def test_no_pixel_is_nan():
    for value in metrics_from_moments(np.zeros((2, 15))).values():
        assert np.isnan(value).all()
    with pytest.raises(ValueError, match="15 sums"):
        metrics_from_moments(np.zeros(14))


def test_records():
    assert tuple(METRICS)[: len(CORE)] == CORE
    for key, metric in METRICS.items():
        assert metric.key == key
        assert metric.title
        assert metric.definition
        assert metric.source
        assert (metric.formula is not None) == (metric.needs == "moments")
        assert metric.header()
        for style in STYLES:
            assert metric.format(float("nan"), style) == "n/a"
            float(metric.format(0.5, style))
    for protocol in PROTOCOLS.values():
        assert set(protocol.metrics) <= set(METRICS)


def test_display_rules():
    assert METRICS["abs_rel"].format(0.05149) == "0.051"
    assert METRICS["abs_rel"].format(0.05149, "leaderboard") == "5.15"
    assert METRICS["abs_rel"].header("leaderboard") == "absErrorRel [%] ↓"
    assert METRICS["sq_rel_gt2"].format(0.0089, "leaderboard") == "0.89"
    assert METRICS["silog"].format(7.041) == "7.04"
    assert METRICS["irmse"].header() == "irmse [1/km] ↓"
    assert METRICS["d1"].header(protocol="kitti-eigen") == "d1 ↑ (kitti-eigen)"
    assert METRICS["rmse"].format(2.1287654321, "full") == "2.12877"
    assert METRICS["rmse"].format(None) == "n/a"
    with pytest.raises(UsageError, match="table style"):
        METRICS["rmse"].format(1.0, "papper")


def test_the_two_squared_relative_errors_are_apart(vectors):
    gt, pred = vectors
    values = metrics_from_moments(frame_moments(gt[0], pred[0]))
    assert values["sq_rel"] > 2 * values["sq_rel_gt2"]
    assert METRICS["sq_rel"].unit == "m"
    assert METRICS["sq_rel_gt2"].unit == "1"


def test_names_of_others():
    assert get_metric("a1").key == "d1"
    assert get_metric("sqErrorRel").key == "sq_rel_gt2"
    with pytest.raises(UsageError, match="did you mean 'rmse"):
        get_metric("rmsee")
