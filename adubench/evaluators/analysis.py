"""What is measured at a frame's pixels besides the whole-image sums: regions, uncertainty, boundaries.

It runs where the frame is scored, in the worker process, and gives back rows of numbers only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adubench.evaluators.final_pixels import FinalPixels, final_pixels
from adubench.evaluators.region_moments import moments_by_code, region_moments

if TYPE_CHECKING:
    from adubench.evaluators.protocols import Protocol
    from adubench.evaluators.region_layout import RegionCodes
    from adubench.evaluators.region_source import RegionSource
    from adubench.evaluators.scoring import FrameScore, Prediction
    from adubench.io.maps import SparseDepth

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FrameDetails:
    """What one frame adds under one protocol.

    Attributes:
        rows: float64 [R, 15], one row per region; None without regions.
        absent: family -> why it has no mask in this image.
    """

    rows: FloatArray | None = None
    absent: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FrameAnalysis:
    """What to measure at every frame of a track; picklable.

    Attributes:
        regions: gives the regions of a frame, or None.
        names: the regions to sum over.
    """

    regions: RegionSource | None = None
    names: tuple[str, ...] = ()

    def measure(
        self,
        protocols: tuple[Protocol, ...],
        gt: SparseDepth,
        prediction: Prediction,
        scores: tuple[FrameScore, ...],
        *,
        name: str,
        key: Any,
    ) -> tuple[FrameDetails, ...]:
        """Measure one frame under every protocol of its track.

        Args:
            protocols: the track's protocols.
            gt: ground truth: all pixels, or those of the protocols' common selection.
            prediction: the frame's prediction.
            scores: what `score_frame` found, one per protocol.
            name: the frame's name.
            key: what readers know the frame by.
        """
        codes = self.regions.codes(name, key) if self.regions is not None else None
        out = []
        for protocol, score in zip(protocols, scores, strict=True):
            final = final_pixels(protocol, gt, prediction, frame=name)
            rows = self._rows(codes, gt, final, score) if codes is not None else None
            out.append(FrameDetails(rows, codes.absent if codes is not None else {}))
        return tuple(out)

    def _rows(self, codes: RegionCodes, gt: SparseDepth, final: FinalPixels, score: FrameScore) -> FloatArray:
        assert self.regions is not None
        layout = self.regions.layout
        if gt.selected:
            return region_moments(codes, layout, final.index, final.gt, final.pred, self.names, total=score.moments)
        at: Any = final.valid.at
        listed = codes.take(at, gt.values.size)
        if final.chosen is not None:
            listed = listed.take(final.chosen)
        return moments_by_code(listed, codes.table, layout, final.gt, final.pred, self.names, total=score.moments)
