"""Uncertainty in an evaluation: maps read beside the predictions, measured per frame, summarised in the result."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import DataError, ProtocolError, UsageError
from adubench.evaluators import crops
from adubench.evaluators.canny import canny, distance_to
from adubench.evaluators.image_regions import luma
from adubench.evaluators.pixel_pool import PixelPool, starting_rate
from adubench.evaluators.predicted_values import Prediction, predicted_at
from adubench.evaluators.resize import bilinear_take
from adubench.evaluators.sparsification import STEPS
from adubench.evaluators.uncertainty import ImageUncertainty, UncertaintyOptions, measure_image
from adubench.evaluators.uncertainty_kinds import DEFAULT_FLOOR, canonical_kind, to_resizable
from adubench.evaluators.uncertainty_summary import Recalibration, fit_recalibration, per_image_columns, summarise
from adubench.evaluators.valid_pixels import ValidPixels
from adubench.io.maps import DepthMap

if TYPE_CHECKING:
    from adubench.evaluators.final_pixels import FinalPixels
    from adubench.evaluators.protocols import Protocol
    from adubench.evaluators.region_reader import FrameReader
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
        pooled: sparsify over the pixels of all images too.
        images: folder of camera images for the edge baseline; None for the data set's own.
        flipped: predictions for the mirrored images, as predicted: the flip baseline, or the uncertainty itself where
            there are no maps.
        flip: the same from what predicts.
        calibration: name of the split on which sigma is recalibrated.
        calibration_predictions: its predictions; None for those of the evaluation's own source.
        calibration_maps: its maps; None for `maps`.
        fitted: what the calibration split said.
        collect: called with what a run would say about itself as a calibration split.
    """

    maps: Path | None
    kind: str
    space: str = "depth"
    family: str | None = None
    floor: float = DEFAULT_FLOOR
    steps: int = STEPS
    pooled: bool = False
    images: Path | None = None
    flipped: Path | None = None
    flip: bool = False
    calibration: str | None = None
    calibration_predictions: Path | None = None
    calibration_maps: Path | None = None
    fitted: Fitted | None = None
    collect: Callable[[Recalibration, EvaluationResult], None] | None = None

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
            temperature=self.fitted.recalibration.temperature if self.fitted is not None else None,
        )


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a calibration split said.

    Attributes:
        recalibration: factors and maps.
        split: its name.
        images: how many it has.
        drives: their clusters.
    """

    recalibration: Recalibration
    split: str
    images: int
    drives: frozenset[str]


@dataclass(frozen=True, slots=True)
class UncertaintyMaps:
    """The maps of a run and how to measure them; picklable.

    Attributes:
        maps: the collection.
        keys: frame -> name in the collection.
        options: of the measurement.
        request: what was asked for.
        edges: reads camera images, for the edge baseline; None for none.
        flipped: predictions for the mirrored images, or None.
        flipped_keys: frame -> name in them.
    """

    maps: MapCollection
    keys: Mapping[str, str]
    options: UncertaintyOptions
    request: UncertaintyRequest
    edges: FrameReader | None = None
    flipped: MapCollection | None = None
    flipped_keys: Mapping[str, str] = field(default_factory=dict)

    def measure(
        self,
        protocol: Protocol,
        gt: SparseDepth,
        prediction: Prediction,
        final: FinalPixels,
        masks: Mapping[str, NDArray[np.bool_]],
        frame: str,
        key: Any = None,
        target: NDArray[Any] | None = None,
    ) -> ImageUncertainty | None:
        """Measure one frame under one protocol.

        Args:
            protocol: the rules.
            gt: ground truth.
            prediction: as it is scored.
            final: the scored pixels.
            masks: region -> bool [n].
            frame: its name.
            key: what readers know it by.
            target: [n] metres to measure against instead of the ground truth; 0 where there are none.

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
        edge, flip = self._edge_distance(gt, final, key), self._flip(protocol, gt, prediction, final, frame)
        truth, pred = final.gt, final.pred
        if target is not None:
            known = np.flatnonzero(np.isfinite(target) & (target > 0))
            truth, pred, values = target[known], pred[known], values[known]
            masks = {region: mask[known] for region, mask in masks.items()}
            edge, flip = (None if v is None else v[known] for v in (edge, flip))
            options = dataclasses.replace(options, temperature=None)
        return measure_image(
            options,
            truth,
            pred,
            values,
            frame=frame,
            scale=final.solution.get("scale", 1.0),
            masks=masks,
            edge_distance=edge,
            flip=flip,
        )

    def _edge_distance(self, gt: SparseDepth, final: FinalPixels, key: Any) -> NDArray[Any] | None:
        """Distance to the nearest edge of the camera image, at the scored pixels; infinite in images without any."""
        if self.edges is None:
            return None
        image = self.edges.image(key, gt.shape)
        if image is None:
            return np.full(final.gt.shape, np.inf)
        found: NDArray[Any] = distance_to(canny(luma(image))).reshape(-1).take(final.index)
        return found

    def _flip(
        self, protocol: Protocol, gt: SparseDepth, prediction: Prediction, final: FinalPixels, frame: str
    ) -> NDArray[Any] | None:
        """Difference to the prediction for the mirrored image, at the scored pixels."""
        if self.flipped is None or self.maps is self.flipped:
            return None
        name = self.flipped_keys[frame]
        values = mirror_difference(self.flipped, name, prediction.map, frame)
        if values.shape == gt.shape:
            return values.reshape(-1).take(final.index)
        if protocol.kitti_window and values.shape == crops.KB_WINDOW and crops.fits_window(gt.shape):
            at = ValidPixels(final.index, np.empty(0, np.float32), 1.0, slice(None))
            return predicted_at(protocol, gt, Prediction(DepthMap(values)), at, frame=frame)
        return bilinear_take(values.astype(np.float32), gt.shape, final.index)

    def _of_kind(self, kind: str) -> UncertaintyOptions:
        """The same options for a map that was turned into sigma; its density stays that of the declared kind."""
        family = self.options.interval_family if kind != "score" else self.options.family
        return dataclasses.replace(self.options, kind=kind, family=family)

    def _values(
        self, protocol: Protocol, gt: SparseDepth, prediction: Prediction, final: FinalPixels, frame: str
    ) -> tuple[NDArray[Any], str]:
        """Return the outputs at the scored pixels, and their kind."""
        kind = self.options.kind
        if self.maps is self.flipped:
            found = DepthMap(mirror_difference(self.flipped, self.keys[frame], prediction.map, frame))
        else:
            found = self.maps.read(self.keys[frame])
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


def mirror_difference(flipped: MapCollection, name: str, prediction: DepthMap, frame: str) -> NDArray[np.float64]:
    """|prediction - mirrored prediction for the mirrored image| in the predictions' own unit, float64 [H, W].

    Raises:
        ProtocolError: maps of different sizes.
        DataError: values that are not finite.
    """
    mine, theirs = prediction.quantity(), flipped.read(name).quantity()
    if mine.shape != theirs.shape or mine.ndim != 2:
        sizes = ["x".join(map(str, v.shape)) for v in (theirs, mine)]
        raise ProtocolError(
            f"frame {frame}: the prediction for the mirrored image {flipped.where(name)} is {sizes[0]}, the prediction "
            f"{sizes[1]}; both must be maps of one size."
        )
    out: NDArray[np.float64] = np.abs(mine.astype(np.float64) - theirs.astype(np.float64)[:, ::-1])
    if not np.isfinite(out).all():
        raise DataError(f"frame {frame}: the prediction or {flipped.where(name)} has values that are not finite.")
    return out


def open_maps_of(
    request: UncertaintyRequest,
    maps: MapCollection,
    keys: Mapping[str, str],
    frames: Sequence[str],
    pixels: int,
    regions: tuple[str, ...],
    edges: FrameReader | None = None,
    flipped: tuple[MapCollection, Mapping[str, str]] | None = None,
) -> UncertaintyMaps:
    """Join the maps to the frames of a track.

    Args:
        request: the options.
        maps: the open collection.
        keys: frame -> name in it.
        frames: the frames to be scored.
        pixels: valid pixels of a typical image.
        regions: regions to test.
        edges: reads camera images, None for no edge baseline.
        flipped: predictions for the mirrored images, and frame -> name in them.

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
    others = flipped if flipped is not None else (None, {})
    return UncertaintyMaps(maps, keys, request.options(regions, rate), request, edges, *others)


def add_against_teacher(
    result: EvaluationResult, records: Sequence[ImageUncertainty | None], options: UncertaintyOptions
) -> None:
    """Put the same scores against the teacher's maps into `uncertainty.against_teacher`."""
    pool = PixelPool(rate=options.pool_rate)
    for record in records:
        if record is not None:
            pool.add(record.pool, record.priorities)
    kept = [record.without_pool() if record is not None else None for record in records]
    if result.uncertainty and any(kept):
        options = dataclasses.replace(options, temperature=None)
        result.uncertainty["against_teacher"] = summarise(kept, result.per_image["drive"], options, pool=pool)


def add_uncertainty(
    result: EvaluationResult,
    records: Sequence[ImageUncertainty | None],
    options: UncertaintyOptions,
    request: UncertaintyRequest | None = None,
) -> None:
    """Put the summary and the per-image columns into a result.

    Args:
        result: assembled from the same frames.
        records: one per frame, with their shares of the pixel pool.
        options: they were measured with.
        request: what was asked for.
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
    fitted = request.fitted if request is not None else None
    result.uncertainty = summarise(
        kept,
        result.per_image["drive"],
        options,
        pool=pool,
        recalibration=fitted.recalibration if fitted is not None else None,
        pooled_curves=request is not None and request.pooled,
    )
    if fitted is not None:
        result.uncertainty["recalibration"] |= {"split": fitted.split, "n_images": fitted.images}
    if request is not None and request.collect is not None:
        found = [record for record in kept if record is not None]
        request.collect(fit_recalibration(found, pool, options), result)
    result.per_image |= per_image_columns(kept)
    about = result.uncertainty
    if about["floored_share"] > 0.01 and canonical_kind(options.kind) != "score":
        result.warnings.append(
            f"uncertainty: {about['floored_share']:.1%} of the sigmas lie at or below the floor of {options.floor:g} "
            "and were raised to it; check --uncertainty-kind."
        )
