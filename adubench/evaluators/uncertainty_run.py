"""Uncertainty in an evaluation: maps read beside the predictions, measured per frame, summarised in the result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import DataError, ProtocolError, UsageError
from adubench.evaluators import crops
from adubench.evaluators.pixel_pool import PixelPool, starting_rate
from adubench.evaluators.resize import bilinear_take
from adubench.evaluators.scoring import Prediction, ValidPixels, predicted_at
from adubench.evaluators.sparsification import STEPS
from adubench.evaluators.uncertainty import ImageUncertainty, UncertaintyOptions, measure_image
from adubench.evaluators.uncertainty_kinds import DEFAULT_FLOOR, canonical_kind, to_resizable
from adubench.evaluators.uncertainty_summary import per_image_columns, summarise
from adubench.io.maps import DepthMap

if TYPE_CHECKING:
    from adubench.evaluators.final_pixels import FinalPixels
    from adubench.evaluators.protocols import Protocol
    from adubench.evaluators.result import EvaluationResult
    from adubench.io.collection import MapCollection
    from adubench.io.maps import SparseDepth

_SPARE = 1.5  # images differ in their number of valid pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class UncertaintyRequest:
    """The options of `--uncertainty`.

    Attributes:
        maps: where the maps lie: anything that predictions may be; None: they are predicted with the depth.
        kind: their declared meaning.
        space: space of the residual.
        family: density, None for that of the kind.
        floor: smallest sigma.
        steps: of sparsification.
    """

    maps: Path | None
    kind: str
    space: str = "depth"
    family: str | None = None
    floor: float = DEFAULT_FLOOR
    steps: int = STEPS

    def __post_init__(self) -> None:
        if not 0 < self.floor < math.inf:
            raise UsageError(f"--sigma-floor {self.floor:g}: expected a number above 0.")
        if not 2 <= self.steps <= 1000:
            raise UsageError(f"--ause-steps {self.steps}: expected a number from 2 to 1000.")
        self.options()

    def options(self, regions: tuple[str, ...] = (), pool_rate: float = 1.0) -> UncertaintyOptions:
        """Make the options of the measurement.

        Raises:
            UsageError: an unknown kind, space or family.
        """
        return UncertaintyOptions(
            kind=self.kind,
            space=self.space,
            family=self.family,
            steps=self.steps,
            floor=self.floor,
            regions=regions,
            pool_rate=pool_rate,
        )


@dataclass(frozen=True, slots=True)
class UncertaintyMaps:
    """The maps of a run and how to measure them; picklable.

    Attributes:
        maps: the collection.
        keys: frame -> name in the collection.
        options: of the measurement.
    """

    maps: MapCollection
    keys: Mapping[str, str]
    options: UncertaintyOptions

    def measure(
        self,
        protocol: Protocol,
        gt: SparseDepth,
        prediction: Prediction,
        final: FinalPixels,
        masks: Mapping[str, NDArray[np.bool_]],
        frame: str,
    ) -> ImageUncertainty | None:
        """Measure one frame under one protocol.

        Raises:
            DataError: a broken map, NaN, or a negative variance.
            ProtocolError: a map of another size than the prediction, or an alignment with a shift.
        """
        if final.solution.get("shift"):
            raise ProtocolError(
                f"frame {frame}: alignment {protocol.alignment} shifts the prediction, and no sigma follows a shift. "
                "Use --alignment none or median."
            )
        values, kind = self._values(protocol, gt, prediction, final, frame)
        options = self.options if kind == self.options.kind else self._of_kind(kind)
        return measure_image(
            options,
            final.gt,
            final.pred,
            values,
            frame=frame,
            scale=final.solution.get("scale", 1.0),
            masks=masks,
        )

    def _of_kind(self, kind: str) -> UncertaintyOptions:
        """The same options for a map that was turned into sigma; its density stays that of the declared kind."""
        import dataclasses

        family = self.options.interval_family if kind != "score" else self.options.family
        return dataclasses.replace(self.options, kind=kind, family=family)

    def _values(
        self, protocol: Protocol, gt: SparseDepth, prediction: Prediction, final: FinalPixels, frame: str
    ) -> tuple[NDArray[Any], str]:
        """Return the outputs at the scored pixels, and their kind."""
        found, kind = self.maps.read(self.keys[frame]), self.options.kind
        shapes = [m.values.shape for m in (found, prediction.map)]
        if shapes[0] != shapes[1] or len(shapes[0]) != 2:
            sizes = ["x".join(map(str, shape)) for shape in shapes]
            raise ProtocolError(
                f"frame {frame}: the uncertainty map {self.maps.where(self.keys[frame])} is {sizes[0]}, the prediction "
                f"{sizes[1]}; both must be maps of one size."
            )
        if shapes[0] == gt.shape:
            return _taken(found, final.index), kind
        if protocol.kitti_window and shapes[0] == crops.KB_WINDOW and crops.fits_window(gt.shape):
            at = ValidPixels(final.index, np.empty(0, np.float32), 1.0, slice(None))
            return predicted_at(protocol, gt, Prediction(DepthMap(found.quantity())), at, frame=frame), kind
        sigma, kind = to_resizable(found.quantity(), kind, self.maps.where(self.keys[frame]))
        return bilinear_take(sigma.astype(np.float32), gt.shape, final.index), kind


def _taken(found: DepthMap, index: NDArray[Any]) -> NDArray[Any]:
    """Gather values in the precision they are stored in: equal and nearly equal values decide rankings."""
    if not np.issubdtype(found.values.dtype, np.floating):
        return found.take(index)
    values: NDArray[Any] = found.values.reshape(-1).take(index)
    return values if found.scale == 1.0 else values / found.scale


def open_maps_of(
    request: UncertaintyRequest,
    maps: MapCollection,
    keys: Mapping[str, str],
    frames: Sequence[str],
    pixels: int,
    regions: tuple[str, ...],
) -> UncertaintyMaps:
    """Join the maps to the frames of a track.

    Args:
        request: the options.
        maps: the open collection.
        keys: frame -> name in it.
        frames: the frames to be scored.
        pixels: valid pixels of a typical image.
        regions: regions to test.

    Raises:
        DataError: frames without a map.
    """
    missing = [frame for frame in frames if frame not in keys]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(frames)} uncertainty maps missing in {maps.root}, first: "
            f"{', '.join(missing[:3])}. Write one map per predicted frame."
        )
    rate = starting_rate(len(frames), int(_SPARE * pixels) + 1)
    return UncertaintyMaps(maps, keys, request.options(regions, rate))


def add_uncertainty(
    result: EvaluationResult, records: Sequence[ImageUncertainty | None], options: UncertaintyOptions
) -> None:
    """Put the summary and the per-image columns into a result.

    Args:
        result: assembled from the same frames.
        records: one per frame, with their shares of the pixel pool.
        options: they were measured with.
    """
    pool = PixelPool(rate=options.pool_rate)
    kept: list[ImageUncertainty | None] = []
    for record in records:
        if record is not None:
            pool.add(record.pool, record.priorities)
        kept.append(record.without_pool() if record is not None else None)
    if not any(kept):
        result.warnings.append("uncertainty: no image has two valid pixels; there is nothing to measure.")
        return
    result.uncertainty = summarise(kept, result.per_image["drive"], options, pool=pool)
    result.per_image |= per_image_columns(kept)
    about = result.uncertainty
    if about["floored_share"] > 0.01 and canonical_kind(options.kind) != "score":
        result.warnings.append(
            f"uncertainty: {about['floored_share']:.1%} of the sigmas lie at or below the floor of {options.floor:g} "
            "and were raised to it; check --uncertainty-kind."
        )
