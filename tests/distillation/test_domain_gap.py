"""The measures of the feature gap on the golden samples of ADU-Depth (derived twice in float64)."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from tests.distillation.adu_cases import DATA

CASE = np.load(DATA / "domain_gap.npz")


def test_frechet():
    from adubench.evaluators.feature_gap import frechet

    assert frechet(CASE["x"], CASE["y"]).distance == pytest.approx(float(CASE["frechet"]), rel=1e-9)
    assert frechet(CASE["x"], CASE["x"]).distance == pytest.approx(float(CASE["frechet_self"]), abs=1e-12)


def test_mmd():
    from adubench.evaluators.mmd import median_sq_distance, mmd_rbf

    x, y = CASE["x"], CASE["y"]
    scale = median_sq_distance(x, y)
    assert scale == pytest.approx(float(CASE["mmd_median_sqdist"]), rel=1e-9)
    assert mmd_rbf(x, y, scale=scale) == pytest.approx(float(CASE["mmd2"]), rel=1e-9)
    halves = mmd_rbf(x[:150], x[150:], scale=median_sq_distance(x[:150], x[150:]))
    assert halves == pytest.approx(float(CASE["mmd2_halves"]), rel=1e-9)


def test_cka():
    from adubench.evaluators.cka import cka_linear

    assert cka_linear(CASE["cka_x"], CASE["cka_y"]) == pytest.approx(float(CASE["cka"]), rel=1e-9)
