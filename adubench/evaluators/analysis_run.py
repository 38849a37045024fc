"""What an evaluation measures besides the whole image: opened once per track, measured per frame, put into results."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adubench.evaluators.analysis import FrameAnalysis
from adubench.evaluators.boundary_run import BoundaryScorer, add_boundaries
from adubench.evaluators.region_run import TrackRegions, add_regions
from adubench.evaluators.teacher_run import TeacherMaps, add_teacher
from adubench.evaluators.uncertainty_run import UncertaintyMaps, add_against_teacher, add_uncertainty

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adubench.evaluators.analysis import FrameDetails
    from adubench.evaluators.result import EvaluationResult


@dataclass(frozen=True, slots=True)
class TrackAnalysis:
    """What is measured in one track.

    Attributes:
        regions: opened regions, or None.
        uncertainty: the maps of its frames, or None.
        boundaries: scores boundaries, or None.
        teacher: the teacher's maps, or None.
    """

    regions: TrackRegions | None = None
    uncertainty: UncertaintyMaps | None = None
    boundaries: BoundaryScorer | None = None
    teacher: TeacherMaps | None = None

    def of_frames(self) -> FrameAnalysis:
        """Return the part that workers need."""
        maps = self.uncertainty
        if maps is not None:  # a callback need not travel to other processes
            maps = dataclasses.replace(maps, request=dataclasses.replace(maps.request, collect=None))
        if self.regions is None:
            return FrameAnalysis(uncertainty=maps, boundaries=self.boundaries, teacher=self.teacher)
        return FrameAnalysis(
            self.regions.source,
            self.regions.names,
            maps,
            self.boundaries,
            self.regions.pred_bins,
            self.teacher,
        )

    def add_to(self, result: EvaluationResult, details: Sequence[FrameDetails]) -> None:
        """Put what was measured, one entry per frame, into the result of one protocol."""
        if self.regions is not None:
            add_regions(result, details, self.regions)
        if self.uncertainty is not None:
            maps = self.uncertainty
            add_uncertainty(result, [d.uncertainty for d in details], maps.options, maps.request)
            if self.teacher is not None:
                add_against_teacher(result, [d.against_teacher for d in details], maps.options)
            result.provenance["uncertainty_maps"] = str(self.uncertainty.maps.root)
        if self.teacher is not None:
            add_teacher(result, [d.teacher for d in details if d.teacher is not None], self.teacher)
        if self.boundaries is not None:
            add_boundaries(result, [d.boundaries for d in details if d.boundaries is not None], self.boundaries)
