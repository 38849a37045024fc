"""Baseline P, "plain evaluation": what an evaluation script does when nobody thought about time.

Ground truth through Pillow, prediction through OpenCV, both to float32; clamps as four masked full-frame assignments;
a float64 mask frame for the Garg crop; nine float32 metrics, each from its own array expressions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

METRICS = ("silog", "abs_rel", "log10", "rmse", "sq_rel", "rmse_log", "d1", "d2", "d3")


def decode(gt_path: Path, pred_path: Path) -> tuple[np.ndarray, np.ndarray]:
    import cv2

    gt = np.array(Image.open(gt_path), dtype=np.float32) / np.float32(256)
    pred = cv2.imread(str(pred_path), cv2.IMREAD_UNCHANGED).astype(np.float32) / np.float32(256)
    return gt, pred


def score(gt: np.ndarray, pred: np.ndarray) -> tuple[float, ...]:
    pred[pred < 0.001] = 0.001
    pred[pred > 80] = 80
    pred[np.isinf(pred)] = 80
    pred[np.isnan(pred)] = 0.001
    valid = np.logical_and(gt > 0.001, gt < 80)
    height, width = gt.shape
    crop = np.zeros(gt.shape)
    crop[int(0.40810811 * height) : int(0.99189189 * height), int(0.03594771 * width) : int(0.96405229 * width)] = 1
    valid = np.logical_and(valid, crop)
    g, p = gt[valid], pred[valid]
    ratio = np.maximum(g / p, p / g)
    d1, d2, d3 = (float((ratio < 1.25**k).mean()) for k in (1, 2, 3))
    rmse = float(np.sqrt(((g - p) ** 2).mean()))
    rmse_log = float(np.sqrt(((np.log(g) - np.log(p)) ** 2).mean()))
    error = np.log(p) - np.log(g)
    silog = float(np.sqrt(np.mean(error**2) - np.mean(error) ** 2) * 100)
    log10 = float(np.abs(np.log10(p) - np.log10(g)).mean())
    abs_rel = float(np.mean(np.abs(g - p) / g))
    sq_rel = float(np.mean(((g - p) ** 2) / g))
    return silog, abs_rel, log10, rmse, sq_rel, rmse_log, d1, d2, d3


def evaluate(gt_root: Path, pred_root: Path, names: tuple[str, ...]) -> dict[str, float]:
    rows = [score(*decode(gt_root / f"{name}.png", pred_root / f"{name}.png")) for name in names]
    return dict(zip(METRICS, np.mean(rows, axis=0).tolist(), strict=True))
