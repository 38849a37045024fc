"""The boundary cases, and maps derived from them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parents[1] / "data" / "boundaries"
REAL = Path(__file__).resolve().parents[3] / "shared" / "real"
CASES = np.load(FOLDER / "cases.npz")
WANT = json.loads((FOLDER / "expected.json").read_text())
NAMES = sorted(WANT)


def maps(name):
    """Ground truth and prediction, float32."""
    return CASES[f"{name}/gt"], CASES[f"{name}/pred"]


def filled(gt):
    """Every missing pixel at 100 m."""
    return np.where(gt > 0, gt, np.float32(100))


def unpacked(name, key):
    shape = CASES[f"{name}/gt"].shape
    return np.unpackbits(CASES[f"{name}/{key}"])[: shape[0] * shape[1]].reshape(shape).astype(bool)


def scene(seed, shape=(40, 90), boxes=6):
    """A road-like ramp with boxes before it, metres."""
    rng = np.random.default_rng(seed)
    depth = np.repeat(np.linspace(60, 6, shape[0])[:, None], shape[1], axis=1)
    for _ in range(boxes):
        top, left = rng.integers(0, shape[0] - 8), rng.integers(0, shape[1] - 12)
        box = np.s_[top : top + rng.integers(4, 20), left : left + rng.integers(4, 20)]
        depth[box] = np.minimum(depth[box], rng.uniform(4, 40))
    return depth.astype(np.float32)
