"""Depth boundary errors: how far the edges of a predicted map lie from true ones, and the per-image set of scores.

Two protocols bear the name DBE and are not comparable: the SYNS form (Canny on log depth) and the original iBims-1 form
(Canny on depth scaled to 0..1). Against edges drawn by people (KITTI-DE, DDAD-DE) the SYNS form is used, together with
precision and recall of edge pixels within a tolerance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from adubench.evaluators.boundary_pairs import Mask, measured
from adubench.evaluators.canny import canny, distance_to, log_depth_edges
from adubench.evaluators.pointcloud import back_project, pointcloud_metrics, slowtv_pointcloud

NEAR_PX = 10.0
"""Predicted edges farther than this from every true one do not enter the accuracy; also the value without any."""

PLANE_M = 10.0
"""Depth of the plane whose two sides the directed error distinguishes, metres."""

DEFAULT_TOLERANCE = 0.002
"""Largest distance between matching edge pixels as a share of the image diagonal (Mind The Edge, CVPR 2024)."""

Matching = Literal["one-to-one", "distance"]

_NAN = math.nan


@dataclass(frozen=True, slots=True)
class EdgeError:
    """Distances between predicted and true edges of one image.

    Attributes:
        accuracy: mean distance of the near predicted edge pixels to the nearest true one, px; 0 is perfect.
        completeness: px; 0 is perfect. SYNS form: mean distance of the true edge pixels to the nearest predicted one,
            not truncated. iBims-1 form: both directions truncated at 10 px and averaged over all edge pixels.
        n_gt: true edge pixels.
        n_pred: predicted edge pixels.
        n_near: predicted edge pixels less than 10 px from a true one. Without any both distances are 10; without a
            true edge both are NaN and the image is left out of means.
    """

    accuracy: float
    completeness: float
    n_gt: int
    n_pred: int
    n_near: int


@dataclass(frozen=True, slots=True)
class DirectedError:
    """Sides of a plane at 10 m, in percent; NaN without pixels.

    Attributes:
        correct: pixels on the same side in both maps.
        too_near: predicted in front of the plane, true behind it: `Dir (-)`.
        too_far: the reverse: `Dir (+)`.
    """

    correct: float
    too_near: float
    too_far: float


@dataclass(frozen=True, slots=True)
class EdgeMatch:
    """Edge pixels that find a partner.

    Attributes:
        hits_pred: predicted edge pixels with a partner.
        n_pred: predicted edge pixels.
        hits_gt: true edge pixels with a partner.
        n_gt: true edge pixels.
    """

    hits_pred: int
    n_pred: int
    hits_gt: int
    n_gt: int

    @property
    def precision(self) -> float:
        """Share of predicted edge pixels that are right; NaN without any."""
        return self.hits_pred / self.n_pred if self.n_pred else _NAN

    @property
    def recall(self) -> float:
        """Share of true edge pixels that are found; NaN without any."""
        return self.hits_gt / self.n_gt if self.n_gt else _NAN

    @property
    def f1(self) -> float:
        """Harmonic mean; 0 when nothing matches, NaN without true edge pixels."""
        if not self.n_gt:
            return _NAN
        if not self.hits_pred or not self.hits_gt:
            return 0.0
        return 2 * self.precision * self.recall / (self.precision + self.recall)

    def __add__(self, other: EdgeMatch) -> EdgeMatch:
        """Add the counts of another image."""
        return EdgeMatch(
            self.hits_pred + other.hits_pred,
            self.n_pred + other.n_pred,
            self.hits_gt + other.hits_gt,
            self.n_gt + other.n_gt,
        )


def gt_edges(gt: NDArray[Any], fill: float = 100.0) -> Mask:
    """Edges of dense ground truth: Canny on its logarithm, on valid pixels.

    Args:
        gt: [H, W] metres, missing measurements as 0 or non-finite.
        fill: depth of missing pixels, metres: sky is far away, so its outline is an edge of what stands before it.

    Returns:
        bool [H, W]. Only sensible for dense maps: the holes of LiDAR would all be outlined.
    """
    valid = measured(np.asarray(gt))
    return np.asarray(log_depth_edges(np.where(valid, gt, fill)) & valid)


def edge_error(pred: NDArray[Any], edges: NDArray[Any], *, pred_edges: Mask | None = None) -> EdgeError:
    """Depth boundary error in the SYNS form (monodepth_benchmark, `metrics_ibims`).

    Args:
        pred: [H, W] depth in any unit.
        edges: [H, W] true edges. The reference passes edges AND valid pixels.
        pred_edges: edges of the prediction when known already; default `log_depth_edges(pred)`.

    Returns:
        The distances.
    """
    true = np.asarray(edges, np.bool_)
    found = log_depth_edges(pred) if pred_edges is None else pred_edges
    n_gt, n_pred = int(np.count_nonzero(true)), int(np.count_nonzero(found))
    if not n_gt:
        return EdgeError(_NAN, _NAN, 0, n_pred, 0)
    distance = distance_to(true)[found]
    near = distance[distance < NEAR_PX]
    if not near.size:
        return EdgeError(NEAR_PX, NEAR_PX, n_gt, n_pred, 0)
    return EdgeError(float(near.mean()), float(distance_to(found)[true].mean()), n_gt, n_pred, int(near.size))


def edge_error_ibims(pred: NDArray[Any], edges: NDArray[Any]) -> EdgeError:
    """Depth boundary error of the original iBims-1 protocol (port in wavelet-monodepth, `NYUv2/utils.py`).

    On road scenes the linear scaling to 0..1 makes far edges vanish: a perfect map does not reach 0.

    Args:
        pred: [H, W] metres; 0 counts as missing, and no edge is found around it.
        edges: [H, W] true edges.

    Returns:
        The distances.
    """
    true = np.asarray(edges, np.bool_)
    n_gt = int(np.count_nonzero(true))
    found = canny(_unit_range(pred), math.sqrt(2.0), 0.15, 0.30)
    n_pred = int(np.count_nonzero(found))
    if not n_gt:
        return EdgeError(_NAN, _NAN, 0, n_pred, 0)
    distance = distance_to(true)[found]
    near = distance[distance < NEAR_PX]
    if not near.size:
        return EdgeError(NEAR_PX, NEAR_PX, n_gt, n_pred, 0)
    back = distance_to(found)[true]
    total = np.minimum(distance, NEAR_PX).sum() + np.minimum(back, NEAR_PX).sum()
    return EdgeError(float(near.mean()), float(total / (n_pred + n_gt)), n_gt, n_pred, int(near.size))


def directed_error(
    gt: NDArray[Any], pred: NDArray[Any], *, plane: float = PLANE_M, reference_quirks: bool = False
) -> DirectedError:
    """Directed depth error: on which side of a plane are the pixels (`dir_masked`).

    Args:
        gt: [H, W] metres, 0 = no measurement.
        pred: [H, W] metres, on the scale of the ground truth.
        plane: metres; a depth of exactly this is in front.
        reference_quirks: count every pixel, a missing measurement as near, as monodepth_benchmark does (sky is then an
            error of a correct map).

    Returns:
        Percentages of the valid (or of all) pixels.
    """
    truth, other = np.asarray(gt), np.asarray(pred)
    chosen = np.ones(truth.shape, np.bool_) if reference_quirks else measured(truth)
    with np.errstate(invalid="ignore"):
        near_gt, near_pred = truth[chosen] <= plane, other[chosen] <= plane
    if not near_gt.size:
        return DirectedError(_NAN, _NAN, _NAN)
    shares = (near_gt == near_pred, near_pred & ~near_gt, ~near_pred & near_gt)
    return DirectedError(*(100.0 * float(np.mean(share)) for share in shares))


def match_edges(
    pred: NDArray[Any], gt: NDArray[Any], tolerance: float | None = None, *, matching: Matching = "one-to-one"
) -> EdgeMatch:
    """Edge pixels that have a partner in the other map within a tolerance.

    `one-to-one` is a largest bipartite matching (Hopcroft-Karp): each pixel has at most one partner, so an edge of
    double thickness costs precision. The BSDS benchmark's assignment also minimises the distances; its number of pairs
    can be a little smaller. `distance` asks for any pixel within reach (distance transform): quicker and more lenient.

    Args:
        pred: [H, W] predicted edges.
        gt: [H, W] true edges.
        tolerance: largest distance in pixels; default 0.002 of the diagonal, 2.7 px at 1280 x 384.
        matching: how partners are found.

    Returns:
        The counts, to be divided or added up over images.
    """
    found, true = np.asarray(pred, np.bool_), np.asarray(gt, np.bool_)
    reach = DEFAULT_TOLERANCE * math.hypot(*true.shape) if tolerance is None else tolerance
    n_pred, n_gt = int(np.count_nonzero(found)), int(np.count_nonzero(true))
    if matching == "distance":
        right = int(np.count_nonzero(distance_to(true)[found] <= reach))
        return EdgeMatch(right, n_pred, int(np.count_nonzero(distance_to(found)[true] <= reach)), n_gt)
    pairs = _largest_matching(found, true, reach) if n_pred and n_gt else 0
    return EdgeMatch(pairs, n_pred, pairs, n_gt)


def pointcloud_scores(
    gt: NDArray[Any],
    pred: NDArray[Any],
    K: NDArray[Any],
    *,
    valid: Mask | None = None,
    form: Literal["monodepth_benchmark", "slowtv"] = "monodepth_benchmark",
) -> dict[str, float]:
    """F-score, IoU and Chamfer distance of the back-projected valid pixels.

    Args:
        gt: [H, W] metres.
        pred: [H, W] metres.
        K: [3, 3] intrinsics in pixels of this grid.
        valid: pixels to use; default: those with a measurement.
        form: whose computation; see `pointcloud.pointcloud_metrics` and `pointcloud.slowtv_pointcloud`.

    Returns:
        Their keys, shares in percent, `chamfer` in metres; NaN without valid pixels.
    """
    truth, other = np.asarray(gt), np.asarray(pred)
    index = np.flatnonzero(measured(truth) if valid is None else valid)
    width = truth.shape[1]
    clouds = [back_project(depth.reshape(-1)[index], index, width, K) for depth in (truth, other)]
    if form == "slowtv":
        if not index.size:
            sizes = (5, 10, 20)
            return {"chamfer": _NAN} | {f"{name}_{size}cm": _NAN for size in sizes for name in ("fscore", "iou")}
        return slowtv_pointcloud(clouds[0], clouds[1])
    return pointcloud_metrics(clouds[0], clouds[1])


def _unit_range(depth: NDArray[Any]) -> NDArray[np.float32]:
    """Depth minus its minimum, divided by the new maximum; zeros and all of a constant map become NaN."""
    values = np.array(depth, np.float32)
    values[(values == 0) | ~np.isfinite(values)] = np.nan
    if np.isnan(values).all():
        return values
    values -= np.nanmin(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(values / np.nanmax(values), np.float32)


def _largest_matching(pred: Mask, gt: Mask, reach: float) -> int:
    """Size of the largest set of pairs (predicted, true) within reach in which no pixel occurs twice."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    margin = int(reach)
    number = np.full((gt.shape[0] + 2 * margin, gt.shape[1] + 2 * margin), -1, np.int32)
    inner = number[margin : margin + gt.shape[0], margin : margin + gt.shape[1]]
    n_gt = int(np.count_nonzero(gt))
    inner[gt] = np.arange(n_gt, dtype=np.int32)
    row, column = np.nonzero(pred)
    span = range(-margin, margin + 1)
    steps = sorted(((y, x) for y in span for x in span if math.hypot(y, x) <= reach), key=lambda s: math.hypot(*s))
    partners = np.stack([number[row + margin + y, column + margin + x] for y, x in steps], axis=1)
    linked = partners >= 0
    start = np.r_[0, np.cumsum(linked.sum(axis=1))].astype(np.int32)
    graph = csr_array((np.ones(int(start[-1]), np.int8), partners[linked], start), shape=(len(row), n_gt))
    return int(np.count_nonzero(maximum_bipartite_matching(graph, perm_type="column") >= 0))
