"""What an evaluation measures besides the whole image: opened once per track, measured per frame, put into results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adubench.evaluators.analysis import FrameAnalysis
from adubench.evaluators.boundary_run import BoundaryScorer, add_boundaries
from adubench.evaluators.region_run import TrackRegions, add_regions
from adubench.evaluators.uncertainty_run import UncertaintyMaps, add_uncertainty

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
    """

    regions: TrackRegions | None = None
    uncertainty: UncertaintyMaps | None = None
    boundaries: BoundaryScorer | None = None

    def of_frames(self) -> FrameAnalysis:
        """Return the part that workers need."""
        if self.regions is None:
            return FrameAnalysis(uncertainty=self.uncertainty, boundaries=self.boundaries)
        return FrameAnalysis(
            self.regions.source, self.regions.names, self.uncertainty, self.boundaries, self.regions.pred_bins
        )

    def add_to(self, result: EvaluationResult, details: Sequence[FrameDetails]) -> None:
        """Put what was measured, one entry per frame, into the result of one protocol."""
        if self.regions is not None:
            add_regions(result, details, self.regions)
        if self.uncertainty is not None:
            add_uncertainty(result, [d.uncertainty for d in details], self.uncertainty.options)
            result.provenance["uncertainty_maps"] = str(self.uncertainty.maps.root)
        if self.boundaries is not None:
            add_boundaries(result, [d.boundaries for d in details if d.boundaries is not None], self.boundaries)
