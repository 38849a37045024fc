"""Metrics on back-projected points. Nearest neighbours come from scipy's k-d tree, imported where it is used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.evaluators.alignment import anchored_scale, weighted_scale

Points = NDArray[np.float64]

_NOTHING = 0.001  # monodepth_benchmark, slowtv: below this both shares count as "nothing matches"
_SLOWTV_EPSILON = 1e-5


def back_project(depth: NDArray[Any], index: NDArray[Any], width: int, K: NDArray[Any]) -> Points:
    """Points K^-1 [x, y, 1] times depth, x and y 0-based integers.

    Args:
        depth: [n] metres.
        index: [n] flat row-major positions.
        width: of the map.
        K: [3, 3] intrinsics in pixels of that map (P_rect_0x; monodepth_benchmark used the unrectified K_0x).

    Returns:
        float64 [n, 3].
    """
    position = np.asarray(index, np.int64)
    row, column = position // width, position % width
    rays = np.stack([column, row, np.ones_like(row)], axis=1) @ np.linalg.inv(np.asarray(K, np.float64)).T
    out: Points = rays * np.asarray(depth, np.float64)[:, None]
    return out


def nearest(source: NDArray[Any], target: NDArray[Any]) -> NDArray[np.float64]:
    """Distance from every source point [n, 3] to the nearest target point [m, 3]."""
    from scipy.spatial import cKDTree

    distance, _ = cKDTree(np.asarray(target, np.float64)).query(np.asarray(source, np.float64))
    return np.asarray(distance, np.float64)


def pointcloud_metrics(
    gt_points: NDArray[Any], pred_points: NDArray[Any], thresholds: Sequence[float] = (0.10, 0.20)
) -> dict[str, float]:
    """F-score, IoU and Chamfer distance (monodepth_benchmark).

    Args:
        gt_points: [n, 3] metres.
        pred_points: [n, 3] metres, the same pixels.
        thresholds: metres; the first one gives `fscore` and `iou`, the others carry their size in the name.

    Returns:
        `chamfer` in metres (a sum of two means); `fscore`, `iou`, `fscore_20cm`, `iou_20cm` in percent. NaN without
        points.
    """
    if len(gt_points) == 0:
        return {"chamfer": float("nan")} | {k: float("nan") for t in thresholds for k in _names(t, thresholds[0])}
    forward, backward = nearest(pred_points, gt_points), nearest(gt_points, pred_points)
    out = {"chamfer": float(forward.mean() + backward.mean())}
    for threshold in thresholds:
        precision, recall = float((forward < threshold).mean()), float((backward < threshold).mean())
        if precision < _NOTHING and recall < _NOTHING:
            score = iou = precision
        else:
            score = 2 * precision * recall / (precision + recall)
            iou = precision * recall / (precision + recall - precision * recall)
        out |= dict(zip(_names(threshold, thresholds[0]), (100 * score, 100 * iou), strict=True))
    return out


def _names(threshold: float, main: float) -> tuple[str, str]:
    tail = "" if threshold == main else f"_{round(threshold * 100)}cm"
    return f"fscore{tail}", f"iou{tail}"


def slowtv_pointcloud(
    gt_points: NDArray[Any], pred_points: NDArray[Any], thresholds: Sequence[float] = (0.05, 0.10, 0.20)
) -> dict[str, float]:
    """The same scores as slowtv_monodepth computes them.

    Every second point is a query, 1e-5 stands in both denominators, and nothing matching gives 0.

    Returns:
        `chamfer` in metres; `fscore_5cm`, `iou_5cm`, ... in percent.
    """
    forward, backward = nearest(pred_points[::2], gt_points), nearest(gt_points[::2], pred_points)
    out = {"chamfer": float(forward.mean() + backward.mean())}
    for threshold in thresholds:
        precision, recall = float((forward < threshold).mean()), float((backward < threshold).mean())
        score = iou = 0.0
        if not (precision < _NOTHING and recall < _NOTHING):
            score = 2 * precision * recall / (precision + recall + _SLOWTV_EPSILON)
            iou = precision * recall / (precision + recall - precision * recall + _SLOWTV_EPSILON)
        size = round(threshold * 100)
        out |= {f"fscore_{size}cm": 100 * score, f"iou_{size}cm": 100 * iou}
    return out


def unidepth_thresholds(min_depth: float = 0.05, max_depth: float = 80.0, number: int = 100) -> NDArray[np.float64]:
    """UniDepth's thresholds: log-spaced from the least depth to a twentieth of the largest."""
    return np.geomspace(min_depth, max_depth / 20.0, number)


def unidepth_3d(
    gt_points: NDArray[Any], pred_points: NDArray[Any], thresholds: NDArray[Any] | None = None
) -> dict[str, float]:
    """UniDepth's `F1`, `chamfer` and `MSE_3d`.

    Its thresholds are compared with squared distances, its `MSE` is a mean distance, its Chamfer distance is halved.

    Args:
        gt_points: [n, 3] metres.
        pred_points: [n, 3] metres, the same pixels.
        thresholds: ascending; default `unidepth_thresholds()`.

    Returns:
        `f1_3d`, `chamfer_3d`, `mse_3d`.
    """
    limits = unidepth_thresholds() if thresholds is None else np.asarray(thresholds, np.float64)
    forward, backward = nearest(pred_points, gt_points), nearest(gt_points, pred_points)
    precision = np.array([(forward**2 < limit).mean() for limit in limits])
    recall = np.array([(backward**2 < limit).mean() for limit in limits])
    with np.errstate(invalid="ignore"):
        score = np.where(precision + recall > 0, 2 * precision * recall / (precision + recall), 0.0)
    difference = np.asarray(pred_points, np.float64) - np.asarray(gt_points, np.float64)
    return {
        "f1_3d": float(np.sum((score[1:] + score[:-1]) / 2) / len(limits)),
        "chamfer_3d": float(((forward + backward) / 2).mean()),
        "mse_3d": float(np.linalg.norm(difference, axis=1).mean()),
    }


def moge_points(gt_points: NDArray[Any], pred_points: NDArray[Any]) -> dict[str, float]:
    """MoGe's point errors.

    Args:
        gt_points: [n, 3] metres.
        pred_points: [n, 3] metres, after alignment.

    Returns:
        `moge_point_rel` = mean(|P - G| / (|G| + 1e-6)), `moge_point_delta1` = share(|P - G| < 0.25 min(|G|, |P|)).
    """
    g, p = np.asarray(gt_points, np.float64), np.asarray(pred_points, np.float64)
    distance, size_g, size_p = (np.linalg.norm(v, axis=1) for v in (p - g, g, p))
    return {
        "moge_point_rel": float((distance / (size_g + 1e-6)).mean()),
        "moge_point_delta1": float((distance < 0.25 * np.minimum(size_g, size_p)).mean()),
    }


def align_points_scale(gt_points: NDArray[Any], pred_points: NDArray[Any]) -> tuple[Points, float]:
    """Scale minimising the summed |a P - G| of all coordinates, weights 1 / |G| (MoGe).

    Returns:
        Aligned points float64 [n, 3] and the scale.
    """
    g, p = np.asarray(gt_points, np.float64), np.asarray(pred_points, np.float64)
    weight = np.repeat(1.0 / np.linalg.norm(g, axis=1), g.shape[1])
    scale = weighted_scale(g.ravel(), p.ravel(), weight)
    return scale * p, scale


def align_points_affine(gt_points: NDArray[Any], pred_points: NDArray[Any]) -> tuple[Points, float, Points]:
    """Scale and shift in three axes with the same objective, through one of the points (MoGe).

    Returns:
        Aligned points float64 [n, 3], the scale, the shift [3].
    """
    g, p = np.asarray(gt_points, np.float64), np.asarray(pred_points, np.float64)
    scale, shift = anchored_scale(g, p, 1.0 / np.linalg.norm(g, axis=1))
    return scale * p + shift, scale, shift
