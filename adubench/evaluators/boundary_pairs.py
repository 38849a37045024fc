"""Pairs of neighbouring valid pixels and the sparse boundary F1 that is counted on them.

A pair is labelled "a is nearer than b by more than a factor s" in both maps; the labels are compared. The scale of a
map has no effect. On dense maps with direct neighbours the macro form is Depth Pro's boundary F1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.evaluators.depth_edges import column_chain, row_chain, slanted

Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]

RELATIONS = 4
"""x a-near, x b-near, y a-near, y b-near; a left of or above b."""

_LEAST_DEPTH = 1e-6
_IGNORE_FROM = 1.05  # ground-truth pairs above this ratio count only when they pass the slant check


@dataclass(frozen=True, slots=True)
class PairCounts:
    """Counts of labelled pairs of one image, or of several added up.

    Attributes:
        counts: int64 [T, R, 3] per threshold and relation: true positives, positives of the prediction, of the truth.
        weights: float64 [T], sum 1.
        n_pairs: pairs of consecutive valid pixels.
        n_ignored: how many of them the slant check left out.
    """

    counts: Counts
    weights: NDArray[np.float64]
    n_pairs: int = 0
    n_ignored: int = 0

    @property
    def n_gt(self) -> int:
        """Boundary pairs of the truth at the lowest threshold."""
        return int(self.counts[0, :, 2].sum()) if len(self.counts) else 0

    def micro(self) -> float:
        """F1 of the summed relations, weighted over thresholds with positives; NaN without any positive."""
        return self._weighted(*self.counts.sum(axis=1).T)

    def micro_horizontal(self) -> float:
        """`micro` of the pairs in rows alone."""
        return self._weighted(*self.counts[:, :2].sum(axis=1).T)

    def macro(self) -> float:
        """Depth Pro's form: precision and recall are means over the relations; an empty relation counts as 0.

        A perfect map therefore does not get 1 unless every relation occurs. NaN without pairs.
        """
        if self.n_pairs == self.n_ignored:
            return float("nan")
        hit, pred, gt = np.moveaxis(self.counts, 2, 0)
        recall = (hit / np.maximum(gt, 1)).mean(axis=1)
        precision = (hit / np.maximum(pred, 1)).mean(axis=1)
        total = precision + recall
        score = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
        return float(np.sum(self.weights * score))

    def _weighted(self, hit: Counts, pred: Counts, gt: Counts) -> float:
        defined = pred + gt > 0
        if not defined.any():
            return float("nan")
        weights = self.weights[defined]
        return float(np.sum(weights * 2 * hit[defined] / (pred + gt)[defined]) / weights.sum())


def pool_counts(images: Iterable[PairCounts]) -> PairCounts:
    """Add the counts of several images that were made with the same thresholds.

    Raises:
        ValueError: no image.
    """
    items = list(images)
    if not items:
        raise ValueError("no image to add up")
    total = np.sum([item.counts for item in items], axis=0)
    pairs, ignored = sum(item.n_pairs for item in items), sum(item.n_ignored for item in items)
    return PairCounts(total, items[0].weights, pairs, ignored)


def depthpro_thresholds(number: int = 10) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Thresholds from 1.05 to 1.25 and weights proportional to them (ml-depth-pro, `boundary_metrics.py`)."""
    thresholds = np.linspace(1.05, 1.25, number)
    return thresholds, thresholds / thresholds.sum()


def sparse_boundary_counts(
    gt: NDArray[Any],
    pred: NDArray[Any],
    *,
    gap_x: int = 1,
    gap_y: int = 1,
    kappa: float | None = 0.5,
    number: int = 10,
    valid: Mask | None = None,
) -> PairCounts:
    """Counts behind the sparse boundary F1: pairs of consecutive valid pixels in rows and columns.

    Args:
        gt: [H, W] metres; 0, negative and non-finite are no measurement.
        pred: [H, W] any unit, > 0.
        gap_x: largest distance in columns between the two pixels of a pair.
        gap_y: the same in rows; 0: no vertical pairs (single LiDAR sweeps).
        kappa: factor of the slant check, None: every pair counts. A pair whose ground-truth ratio exceeds 1.05 is
            ignored when a slanted plane explains it.
        number: of thresholds.
        valid: [H, W] pixels to use instead of those with a measurement.

    Returns:
        Counts [number, 4, 3]: relations x a-near, x b-near, y a-near, y b-near, a left of or above b. `micro()` is the
        reported score.
    """
    truth, other = np.asarray(gt, np.float32), np.asarray(pred, np.float32)
    usable = measured(truth) if valid is None else np.asarray(valid, np.bool_)
    thresholds, weights = depthpro_thresholds(number)
    q_gt, q_pred = inverse_depth(truth).reshape(-1), inverse_depth(other).reshape(-1)
    counts = np.zeros((number, RELATIONS, 3), np.int64)
    n_pairs = n_ignored = 0
    for axis, gap in ((0, gap_x), (1, gap_y)):
        if gap < 1:
            continue
        first, second, keep = _pairs(truth.reshape(-1), q_gt, usable, axis, gap, kappa)
        n_ignored += int(keep.size - np.count_nonzero(keep))
        n_pairs += int(first.size)
        first, second = first[keep], second[keep]
        for relation, (a, b) in enumerate(((first, second), (second, first))):
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                ratio_gt, ratio_pred = q_gt[a] / q_gt[b], q_pred[a] / q_pred[b]
            counts[:, 2 * axis + relation] = tally(ratio_gt, ratio_pred, thresholds)
    return PairCounts(counts, weights, n_pairs, n_ignored)


def measured(depth: NDArray[Any]) -> Mask:
    """Pixels with a measurement: positive and finite, [H, W]."""
    with np.errstate(invalid="ignore"):
        return np.asarray((depth > 0) & np.isfinite(depth))


def inverse_depth(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1 / max(depth, 1e-6) in float32; NaN stays NaN."""
    with np.errstate(invalid="ignore"):
        return np.asarray(1.0 / np.maximum(depth, np.float32(_LEAST_DEPTH)), np.float32)


def _pairs(
    gt: NDArray[np.float32], q: NDArray[np.float32], valid: Mask, axis: int, gap: int, kappa: float | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], Mask]:
    """Consecutive valid pixels of rows (axis 0) or columns (axis 1), the lower position first.

    Args:
        gt: [H * W] metres.
        q: [H * W] inverse depth.
        valid: [H, W].
        axis: 0 pairs in rows, 1 pairs in columns.
        gap: largest distance.
        kappa: of the slant check or None.

    Returns:
        First and second pixel, flat positions [n], and whether the pair counts.
    """
    index = np.flatnonzero(valid)
    chain = (row_chain if axis == 0 else column_chain)(index, valid.shape[1], gap)
    ordered, at = index.take(chain.order), np.flatnonzero(chain.linked)
    first, second = ordered.take(at), ordered.take(at + 1)
    keep = np.ones(at.size, np.bool_)
    if kappa is None or at.size == 0:
        return first, second, keep
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = q.take(first) / q.take(second)
        jump = np.flatnonzero(np.maximum(ratio, 1 / ratio) > _IGNORE_FROM)
        keep[jump] = ~slanted(1.0 / gt.take(ordered).astype(np.float64), chain, at[jump], kappa)
    return first, second, keep


def tally(ratio_gt: NDArray[Any], ratio_pred: NDArray[Any], thresholds: NDArray[Any]) -> Counts:
    """Count ratios above each threshold (strict): in both, in the prediction, in the truth: int64 [T, 3]."""
    start = thresholds[0] * 0.999  # a coarse filter: hardly any pair is a boundary
    with np.errstate(invalid="ignore"):
        at = np.flatnonzero((ratio_gt > ratio_gt.dtype.type(start)) | (ratio_pred > ratio_pred.dtype.type(start)))
    levels = []
    for ratio in (ratio_gt, ratio_pred):
        some = ratio.reshape(-1)[at].astype(thresholds.dtype)
        levels.append(np.searchsorted(thresholds, np.where(np.isnan(some), 0, some), side="left"))
    truth, other = levels
    out = np.empty((len(thresholds), 3), np.int64)
    for column, level in enumerate((np.minimum(truth, other), other, truth)):
        histogram = np.bincount(level, minlength=len(thresholds) + 1)[1:]
        out[:, column] = np.cumsum(histogram[::-1])[::-1]
    return out
