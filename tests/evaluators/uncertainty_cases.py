"""Golden cases of the uncertainty tests, and a plain second implementation of the sparsification protocol."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

DATA = Path(__file__).parents[1] / "data" / "uncertainty"
WANT = json.loads((DATA / "expected.json").read_text())
with np.load(DATA / "cases.npz") as _data:
    CASES = {name: _data[name] for name in _data.files}
with np.load(DATA / "adu_depth_calibration.npz") as _data:
    ADU = {name: _data[name] for name in _data.files}

METRICS = ("abs_rel", "rmse", "a1")


def case(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ground truth, prediction, uncertainty."""
    return CASES[f"{name}/gt"], CASES[f"{name}/pred"], CASES[f"{name}/unc"]


def plain_curves(gt, pred, score, steps):
    """{metric: (method curve, oracle curve)} by masks and percentiles, one step after the other."""
    ratio = np.maximum(gt / pred, pred / gt)
    pixel = {"abs_rel": np.abs(gt - pred) / gt, "rmse": (gt - pred) ** 2, "a1": ratio}

    def value(metric, subset):
        if metric == "rmse":
            return np.sqrt(np.mean(pixel["rmse"][subset]))
        return np.mean((ratio >= 1.25)[subset] if metric == "a1" else pixel[metric][subset])

    def curve(metric, key):
        cuts = [np.percentile(key, 100.0 / steps * t) for t in range(steps)]
        return np.array([value(metric, key >= cut) for cut in cuts] + [0.0])

    return {m: (curve(m, -score), curve(m, -pixel[m])) for m in METRICS}


def scene(seed: int, n: int = 2000, factor: float = 1.3):
    """Ground truth, prediction and a sigma that is `factor` times too small for its Laplace errors."""
    rng = np.random.default_rng(seed)
    gt = rng.uniform(2, 78, n)
    sigma = 0.02 * gt * np.exp(0.5 * rng.standard_normal(n))
    pred = np.maximum(gt + factor * rng.laplace(0, sigma / np.sqrt(2)), 0.1)
    return gt, pred, sigma
