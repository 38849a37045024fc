"""F1 scores of depth boundaries on dense maps: Depth Pro's (also the recall of a mask's outline) and MoGe's.

The scale of a map has no effect. Scores of different kinds or radii are not comparable: the kind belongs to the name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.evaluators.boundary_pairs import (
    RELATIONS,
    Counts,
    Mask,
    depthpro_thresholds,
    inverse_depth,
    measured,
    sparse_boundary_counts,
    tally,
)


@dataclass(frozen=True, slots=True)
class DepthProF1:
    """Depth Pro's boundary F1 of one image.

    Attributes:
        f1: score of the prediction, 0..1; NaN when no pair of direct neighbours is valid.
        f1_self: score of the ground truth against itself: the best that can be reached, 0 without boundaries.
        n_gt: boundary pairs of the truth at the lowest threshold.
    """

    f1: float
    f1_self: float
    n_gt: int

    @property
    def relative(self) -> float:
        """`f1 / f1_self`: 1 for a perfect map; NaN without boundaries."""
        return self.f1 / self.f1_self if self.f1_self > 0 else float("nan")


def depthpro_f1(
    gt: NDArray[Any], pred: NDArray[Any], *, number: int = 10, valid: Mask | None = None, reference_quirks: bool = False
) -> DepthProF1:
    """Boundary F1 of Depth Pro (ml-depth-pro, `SI_boundary_F1`), on direct neighbours.

    Args:
        gt: [H, W] dense metres; float32 ratios.
        pred: [H, W].
        number: of thresholds, equally spaced from 1.05 to 1.25.
        valid: pixels to use; default: those with a measurement. A pair counts when both pixels are valid.
        reference_quirks: no mask, as in the reference: a missing measurement (0) becomes a boundary.

    Returns:
        Score, the score of a perfect map, and the number of boundary pairs.
    """
    mask = np.ones(np.shape(gt), np.bool_) if reference_quirks else valid
    scores = [
        sparse_boundary_counts(gt, other, kappa=None, number=number, valid=mask) for other in (np.asarray(pred), gt)
    ]
    return DepthProF1(scores[0].macro(), scores[1].macro(), scores[0].n_gt)


def depthpro_recall(pred: NDArray[Any], mask: NDArray[Any], *, number: int = 10) -> float:
    """Recall of an object mask's outline (ml-depth-pro, `SI_boundary_Recall`).

    Args:
        pred: [H, W] depth, any unit.
        mask: [H, W] the objects: values > 0.1 are inside.
        number: of thresholds.

    Returns:
        0..1, the mean over four directions; a direction without outline counts as 0. NaN when the mask has no outline.
    """
    inside = np.asarray(mask) > 0.1
    inverse = inverse_depth(np.asarray(pred, np.float32))
    thresholds, weights = depthpro_thresholds(number)
    recall = np.zeros((number, RELATIONS))
    total = 0
    for axis in (0, 1):
        q, m = (inverse, inside) if axis == 0 else (inverse.T, inside.T)
        for relation, (a, b) in enumerate(((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:, 1:], np.s_[:, :-1]))):
            outline = m[a] & ~m[b]
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                ratio = q[a] / q[b]
            size = int(np.count_nonzero(outline))
            total += size
            for k, threshold in enumerate(thresholds):
                hit = np.count_nonzero(outline.reshape(-1)[_run_peaks(ratio, threshold)])
                recall[k, 2 * axis + relation] = hit / max(size, 1)
    return float(np.sum(weights * recall.mean(axis=1))) if total else float("nan")


def moge_f1(
    gt: NDArray[Any], pred: NDArray[Any], *, radii: Sequence[int] = (1, 2, 3), valid: Mask | None = None
) -> dict[int, float]:
    """Boundary F1 of MoGe (`moge/test/metrics.py`, `boundary_f1`), in shifted views instead of windows.

    Args:
        gt: [H, W] metres.
        pred: [H, W], aligned; a shift changes the score, a scale does not.
        radii: of the neighbourhood, pixels.
        valid: pixels to use; default: those with a measurement.

    Returns:
        Radius -> score 0..1; 0 without boundary (as in the reference), NaN without any valid pair.
    """
    truth, other = np.asarray(gt, np.float32), np.asarray(pred, np.float32)
    usable = measured(truth) if valid is None else np.asarray(valid, np.bool_)
    steps = np.linspace(0.05, 0.25, 10, dtype=np.float32).astype(np.float64)
    limits = (1 + steps).astype(np.float32)
    counts = {radius: np.zeros((len(limits), 3), np.int64) for radius in radii}
    pairs = dict.fromkeys(radii, 0)
    for down, right in _disc(max(radii, default=0)):
        size = down * down + right * right
        least = max(abs(down), abs(right))
        centre, around = _overlap(truth.shape, least, down, right)
        both = usable[centre] & usable[around]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio_gt, ratio_pred = truth[around] / truth[centre], other[around] / other[centre]
            at = np.flatnonzero(((ratio_gt > limits[0]) | (ratio_pred > limits[0])) & both)
        row, column = np.divmod(at, max(both.shape[1], 1))
        for radius in radii:
            if size > radius * radius:
                continue
            rim = radius - least  # the centre keeps `radius` from the border, the views only `least`
            height, width = both.shape
            inner = (row >= rim) & (row < height - rim) & (column >= rim) & (column < width - rim)
            chosen = at[inner]
            counts[radius] += tally(ratio_gt.reshape(-1)[chosen], ratio_pred.reshape(-1)[chosen], limits)
            pairs[radius] += int(both[rim : height - rim or None, rim : width - rim or None].any())
    weights = steps / steps.sum()
    return {r: float(np.sum(weights * _clamped_f1(counts[r]))) if pairs[r] else float("nan") for r in radii}


def _clamped_f1(counts: Counts) -> NDArray[np.float64]:
    hit, pred, gt = counts.T.astype(np.float64)
    precision, recall = hit / np.maximum(pred, 1e-12), hit / np.maximum(gt, 1e-12)
    return np.asarray(2 * precision * recall / np.maximum(precision + recall, 1e-12))


def _disc(radius: int) -> list[tuple[int, int]]:
    span = range(-radius, radius + 1)
    return [(y, x) for y in span for x in span if 0 < y * y + x * x <= radius * radius]


def _overlap(
    shape: tuple[int, ...], rim: int, down: int, right: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Views of the centres that keep `rim` from the border, and of their neighbours."""
    height, width = (max(length, 2 * rim) for length in shape)
    centre = np.s_[rim : height - rim, rim : width - rim]
    return centre, np.s_[rim + down : height - rim + down, rim + right : width - rim + right]


def _run_peaks(ratio: NDArray[Any], threshold: float) -> NDArray[np.int64]:
    """Flat positions of the first largest ratio in each run of neighbours in a row that exceed the threshold."""
    width = ratio.shape[1]
    flat = ratio.reshape(-1)
    at = np.flatnonzero(flat > threshold)
    if at.size == 0:
        return at
    begins = np.r_[True, (np.diff(at) != 1) | (at[1:] % width == 0)]
    starts = np.flatnonzero(begins)
    peak = np.maximum.reduceat(flat[at], starts)
    run = np.cumsum(begins) - 1
    top = np.flatnonzero(flat[at] == peak[run])
    _, first = np.unique(run[top], return_index=True)
    return np.asarray(at[top[first]])
