"""All boundary scores of one image under their names, and their summary over images.

The score functions live in `boundaries` (distances between edges), `boundary_f1` and `boundary_pairs` (F1 of ratios
between pixels). Scores are grouped by what is computed together; a group is what a user asks for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import ProtocolError, UsageError, unknown_name
from adubench.evaluators import boundaries, boundary_f1
from adubench.evaluators.boundary_pairs import PairCounts, pool_counts, sparse_boundary_counts
from adubench.evaluators.canny import log_depth_edges


@dataclass(frozen=True, slots=True)
class Score:
    """What a name means.

    Attributes:
        group: computed with the others of this group.
        title: for tables.
        unit: "px", "%", "m" or "" for shares 0..1.
        higher_is_better: the direction.
        pooled: the summary divides counts that are summed over images; else it is the mean over images.
    """

    group: str
    title: str
    unit: str = ""
    higher_is_better: bool = True
    pooled: bool = False


SCORES: dict[str, Score] = {
    "dbe_acc": Score("dbe", "edge accuracy (SYNS form)", "px", False),
    "dbe_comp": Score("dbe", "edge completeness (SYNS form)", "px", False),
    "dbe_dir": Score("dbe", "same side of a plane at 10 m, valid pixels", "%"),
    "dbe_dir_near": Score("dbe", "predicted before the plane, truly behind it", "%", False),
    "dbe_dir_far": Score("dbe", "predicted behind the plane, truly before it", "%", False),
    "dbe_ibims_acc": Score("dbe-ibims", "edge accuracy (iBims-1 form)", "px", False),
    "dbe_ibims_comp": Score("dbe-ibims", "edge completeness (iBims-1 form)", "px", False),
    "f1_depthpro": Score("depthpro", "boundary F1 (Depth Pro)"),
    "f1_self": Score("depthpro", "boundary F1 (Depth Pro) of the ground truth itself"),
    "f1_depthpro_rel": Score("depthpro", "f1_depthpro / f1_self"),
    "f1_moge_r1": Score("moge", "boundary F1 (MoGe), radius 1"),
    "f1_moge_r2": Score("moge", "boundary F1 (MoGe), radius 2"),
    "f1_moge_r3": Score("moge", "boundary F1 (MoGe), radius 3"),
    "sbf1": Score("sbf1", "sparse boundary F1", pooled=True),
    "recall_depthpro": Score("recall", "recall of object outlines (Depth Pro)"),
    "fscore": Score("fscore", "point-cloud F-score at 0.1 m", "%"),
    "iou": Score("fscore", "point-cloud IoU at 0.1 m", "%"),
    "fscore_20cm": Score("fscore", "point-cloud F-score at 0.2 m", "%"),
    "iou_20cm": Score("fscore", "point-cloud IoU at 0.2 m", "%"),
    "chamfer": Score("fscore", "Chamfer distance, both directions added", "m", False),
    "ext_acc": Score("external", "accuracy against annotated edges", "px", False),
    "ext_comp": Score("external", "completeness against annotated edges", "px", False),
    "ext_precision": Score("external", "precision of edge pixels against annotated edges", pooled=True),
    "ext_recall": Score("external", "recall of annotated edge pixels", pooled=True),
    "ext_f1": Score("external", "F1 of edge pixels against annotated edges", pooled=True),
}
"""Key -> meaning, in the order of columns."""

GROUPS: dict[str, str] = {
    "dbe": "dense ground truth",
    "dbe-ibims": "dense ground truth",
    "depthpro": "dense ground truth",
    "moge": "dense ground truth",
    "sbf1": "ground truth",
    "recall": "object masks",
    "fscore": "intrinsics",
    "external": "annotated edges",
}
"""Group -> what it needs."""


@dataclass(frozen=True, slots=True)
class Options:
    """Parameters of the scores.

    Attributes:
        groups: which, keys of `GROUPS`.
        gaps: largest gaps of a pair along the row and the column, pixels: (1, 1) dense, (5, 5) improved, (5, 0) raw.
        kappa: factor of the slant check or None.
        tolerance: of matching annotated edges, pixels; None: 0.002 of the diagonal.
        matching: see `boundaries.match_edges`.
        reference_quirks: no masks where the references have none.
    """

    groups: tuple[str, ...] = ("sbf1",)
    gaps: tuple[int, int] = (1, 1)
    kappa: float | None = 0.5
    tolerance: float | None = None
    matching: boundaries.Matching = "one-to-one"
    reference_quirks: bool = False

    def __post_init__(self) -> None:
        for group in self.groups:
            if group not in GROUPS:
                raise unknown_name("boundary metric", group, GROUPS)


@dataclass(frozen=True, slots=True)
class FrameBoundaries:
    """Scores of one image.

    Attributes:
        values: key of `SCORES` -> value, NaN where undefined.
        pairs: counts of the sparse boundary F1.
        match: counts of matched edge pixels.
    """

    values: dict[str, float] = field(default_factory=dict)
    pairs: PairCounts | None = None
    match: boundaries.EdgeMatch | None = None


def default_groups(preset: str, *, masks: bool = False, edges: bool = False) -> tuple[str, ...]:
    """Groups worth printing for a kind of ground truth ("dense", "improved" or "raw").

    Distances between edges need every silhouette in the ground truth, so LiDAR gets them from annotated edges only.
    """
    chosen = ["dbe", "depthpro", "sbf1"] if preset == "dense" else ["sbf1"]
    return (*chosen, *(["recall"] if masks else []), *(["external"] if edges else []))


def score_boundaries(
    gt: NDArray[Any],
    pred: NDArray[Any],
    options: Options,
    *,
    edges: NDArray[Any] | None = None,
    mask: NDArray[Any] | None = None,
    K: NDArray[Any] | None = None,
    frame: str = "",
) -> FrameBoundaries:
    """Score one image.

    Args:
        gt: [H, W] metres, 0 = no measurement.
        pred: [H, W] metres on the same grid, aligned and clamped as for the whole-image metrics.
        options: what to compute.
        edges: [H, W] annotated edges, for `external`.
        mask: [H, W] objects, for `recall`.
        K: [3, 3] intrinsics, for `fscore`.
        frame: for messages.

    Returns:
        Values of the chosen groups in the order of `SCORES`.

    Raises:
        UsageError: a chosen group lacks its input.
        ProtocolError: maps of different sizes.
    """
    for group, given in (("external", edges), ("recall", mask), ("fscore", K)):
        if group in options.groups and given is None:
            raise UsageError(f"boundary metric '{group}' needs {GROUPS[group]}, none given. Leave it out or give them.")
    truth, other = np.asarray(gt, np.float32), np.asarray(pred, np.float32)
    _same_grid(truth.shape, {"prediction": other, "edge map": edges, "object mask": mask}, frame)
    values: dict[str, float] = {}
    pairs = match = None
    found = log_depth_edges(other) if {"dbe", "external"} & set(options.groups) else None
    if "dbe" in options.groups or "dbe-ibims" in options.groups:
        values |= _distances(truth, other, options, found)
    if "depthpro" in options.groups:
        f1 = boundary_f1.depthpro_f1(truth, other, reference_quirks=options.reference_quirks)
        values |= {"f1_depthpro": f1.f1, "f1_self": f1.f1_self, "f1_depthpro_rel": f1.relative}
    if "moge" in options.groups:
        values |= {f"f1_moge_r{radius}": value for radius, value in boundary_f1.moge_f1(truth, other).items()}
    if "sbf1" in options.groups:
        gap_x, gap_y = options.gaps
        pairs = sparse_boundary_counts(truth, other, gap_x=gap_x, gap_y=gap_y, kappa=options.kappa)
        values["sbf1"] = pairs.micro()
    if mask is not None and "recall" in options.groups:
        values["recall_depthpro"] = boundary_f1.depthpro_recall(other, mask)
    if K is not None and "fscore" in options.groups:
        values |= boundaries.pointcloud_scores(truth, other, K)
    if edges is not None and found is not None and "external" in options.groups:
        error = boundaries.edge_error(other, edges, pred_edges=found)
        match = boundaries.match_edges(found, edges, options.tolerance, matching=options.matching)
        values |= {"ext_acc": error.accuracy, "ext_comp": error.completeness} | _match_values(match)
    return FrameBoundaries({key: values[key] for key in SCORES if key in values}, pairs, match)


def summarise(frames: Iterable[FrameBoundaries]) -> tuple[dict[str, float], dict[str, int]]:
    """Summary over images: means over the images where a score is defined; pooled scores from summed counts.

    Returns:
        Key -> value (NaN where no image defines it), and key -> number of images that do.
    """
    items = list(frames)
    columns = {key: [item.values[key] for item in items if key in item.values] for key in SCORES}
    summary, images = {}, {}
    for key, column in columns.items():
        if column:
            defined = [value for value in column if math.isfinite(value)]
            images[key] = len(defined)
            summary[key] = float(np.mean(defined)) if defined else math.nan
    pairs = [item.pairs for item in items if item.pairs is not None]
    if pairs:
        summary["sbf1"] = pool_counts(pairs).micro()
    matches = [item.match for item in items if item.match is not None]
    if matches:
        summary |= _match_values(_total(matches))
    return summary, images


def _same_grid(shape: tuple[int, ...], others: dict[str, NDArray[Any] | None], frame: str) -> None:
    for what, values in others.items():
        if values is not None and values.shape != shape:
            where = f"{frame}: " if frame else ""
            raise ProtocolError(
                f"{where}the {what} has shape {values.shape}, the ground truth {shape}. "
                "Boundary scores need both on the grid of the ground truth."
            )


def _distances(
    gt: NDArray[np.float32], pred: NDArray[np.float32], options: Options, found: NDArray[np.bool_] | None
) -> dict[str, float]:
    """Both forms of the depth boundary error, against the edges of dense ground truth."""
    true = boundaries.gt_edges(gt)
    values: dict[str, float] = {}
    if "dbe" in options.groups:
        error = boundaries.edge_error(pred, true, pred_edges=found)
        side = boundaries.directed_error(gt, pred, reference_quirks=options.reference_quirks)
        values |= {"dbe_acc": error.accuracy, "dbe_comp": error.completeness}
        values |= {"dbe_dir": side.correct, "dbe_dir_near": side.too_near, "dbe_dir_far": side.too_far}
    if "dbe-ibims" in options.groups:
        error = boundaries.edge_error_ibims(pred, true)
        values |= {"dbe_ibims_acc": error.accuracy, "dbe_ibims_comp": error.completeness}
    return values


def _match_values(match: boundaries.EdgeMatch) -> dict[str, float]:
    return {"ext_precision": match.precision, "ext_recall": match.recall, "ext_f1": match.f1}


def _total(matches: Sequence[boundaries.EdgeMatch]) -> boundaries.EdgeMatch:
    return sum(matches[1:], matches[0])
