"""What is measured at a frame's pixels besides the whole-image sums: regions, uncertainty, boundaries.

It runs where the frame is scored, in the worker process, and gives back rows of numbers only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adubench.evaluators.final_pixels import FinalPixels, final_pixels
from adubench.evaluators.region_moments import moments_by_code, prediction_bin_moments

if TYPE_CHECKING:
    from adubench.evaluators.boundary_run import BoundaryScorer
    from adubench.evaluators.boundary_scores import FrameBoundaries
    from adubench.evaluators.predicted_values import Prediction
    from adubench.evaluators.protocols import Protocol
    from adubench.evaluators.region_layout import RegionCodes
    from adubench.evaluators.region_source import RegionSource
    from adubench.evaluators.scoring import FrameScore
    from adubench.evaluators.teacher_run import FrameTeacher, TeacherMaps
    from adubench.evaluators.uncertainty import ImageUncertainty
    from adubench.evaluators.uncertainty_run import UncertaintyMaps
    from adubench.evaluators.valid_pixels import ValidPixels
    from adubench.io.maps import SparseDepth

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FrameDetails:
    """What one frame adds under one protocol.

    Attributes:
        rows: float64 [R, 15], one row per region; None without regions.
        absent: family -> why it has no mask in this image.
        uncertainty: the record; None without uncertainty, or for images with fewer than two pixels.
        boundaries: scores of object boundaries, or None.
        predicted: float64 [B, 15], one row per bin of predicted depth; None unless asked for.
        coverage: band around edges -> its pixels with ground truth, and all of them.
        teacher: similarity to the teacher's map, or None.
        against_teacher: the uncertainty record with the teacher's depth as truth, or None.
    """

    rows: FloatArray | None = None
    absent: dict[str, str] = field(default_factory=dict)
    uncertainty: ImageUncertainty | None = None
    boundaries: FrameBoundaries | None = None
    predicted: FloatArray | None = None
    coverage: dict[str, tuple[int, int]] = field(default_factory=dict)
    teacher: FrameTeacher | None = None
    against_teacher: ImageUncertainty | None = None


@dataclass(frozen=True, slots=True)
class FrameAnalysis:
    """What to measure at every frame of a track; picklable.

    Attributes:
        regions: gives the regions of a frame, or None.
        names: the regions to sum over.
        uncertainty: maps and how to measure them, or None.
        boundaries: scores boundaries, or None.
        pred_bins: bounds of predicted depth to sum over too; the only rows that depend on the prediction.
        teacher: the teacher's maps, or None.
    """

    regions: RegionSource | None = None
    names: tuple[str, ...] = ()
    uncertainty: UncertaintyMaps | None = None
    boundaries: BoundaryScorer | None = None
    pred_bins: tuple[float, ...] = ()
    teacher: TeacherMaps | None = None

    def measure(
        self,
        protocols: tuple[Protocol, ...],
        gt: SparseDepth,
        prediction: Prediction,
        scores: tuple[FrameScore, ...],
        *,
        name: str,
        key: Any,
        pixels: tuple[ValidPixels, ...],
    ) -> tuple[FrameDetails, ...]:
        """Measure one frame under every protocol of its track.

        Args:
            protocols: the track's protocols.
            gt: ground truth: all pixels, or those of the protocols' common selection.
            prediction: the frame's prediction.
            scores: what `score_frame` found, one per protocol.
            name: the frame's name.
            key: what readers know the frame by.
            pixels: what `valid_pixels` found, one per protocol.
        """
        codes = self.regions.codes(name, key) if self.regions is not None else None
        coverage = codes.coverage(self.regions.layout) if self.regions is not None and codes is not None else {}
        out = []
        for protocol, score, valid in zip(protocols, scores, pixels, strict=True):
            final = final_pixels(protocol, gt, prediction, frame=name, pixels=valid)
            rows, masks = None, {}
            if self.regions is not None and codes is not None:
                layout, listed = self.regions.layout, _codes_at(codes, gt, final)
                rows = moments_by_code(
                    listed, codes.table, layout, final.gt, final.pred, self.names, total=score.moments
                )
                tested = self.uncertainty.options.regions if self.uncertainty is not None else ()
                masks = {region: layout.member(region, codes.table).take(listed) for region in tested}
            teacher = None
            if self.teacher is not None:
                teacher = self.teacher.measure(protocol, gt, prediction, final, name)
            record = second = None
            if self.uncertainty is not None:
                measure = self.uncertainty.measure
                record = measure(protocol, gt, prediction, final, masks, name, key)
                if teacher is not None:
                    second = measure(protocol, gt, prediction, final, masks, name, key, teacher.target)
            found = None
            if self.boundaries is not None:
                found = self.boundaries.measure(protocol, prediction, final, name, key)
            predicted = prediction_bin_moments(final.gt, final.pred, self.pred_bins) if self.pred_bins else None
            absent = codes.absent if codes is not None else {}
            out.append(FrameDetails(rows, absent, record, found, predicted, coverage, teacher, second))
        return tuple(out)


def _codes_at(codes: RegionCodes, gt: SparseDepth, final: FinalPixels) -> NDArray[Any]:
    """Look up the regions of the scored pixels."""
    if gt.selected:
        return codes.at(final.index)
    listed = codes.take(final.valid.at, gt.values.size)
    return listed if final.chosen is None else listed.take(final.chosen)
