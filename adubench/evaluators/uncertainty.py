"""One image's uncertainty as a record: small, additive where possible, independent of all other images.

`measure_image` turns the vectors at the valid pixels into an `ImageUncertainty`. Records are collected in frame order,
from any number of worker processes; `uncertainty_summary` makes data-set values and intervals of them. Values that need
pixels of all images at once (ENCE, pooled correlations and curves) come from a `pixel_pool.PixelPool`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import ProtocolError, unknown_name
from adubench.evaluators import calibration, rank_correlation, sparsification, uncertainty_kinds, uncertainty_regions
from adubench.evaluators.pixel_pool import draw_pixels
from adubench.evaluators.recalibration import Temperature, temperature_sums
from adubench.evaluators.uncertainty_kinds import Uncertainty

FloatArray = NDArray[np.float64]

SUMS: tuple[str, ...] = (
    "nll_gaussian",
    "nll_laplace",
    "crps_gaussian",
    "crps_laplace",
    "sigma",
    "sigma2",
    "error2",
)
"""Per-pixel scores whose sums a record keeps."""
REGION_CURVE_PIXELS = 500
"""Curves inside a region need this many pixels in the image."""


@dataclass(frozen=True, slots=True)
class UncertaintyOptions:
    """How uncertainties are read and measured; picklable, the same for all images.

    Attributes:
        kind: declared meaning of the maps, see `uncertainty_kinds.KINDS`.
        space: space of the residual: "depth", "log" or "inv".
        family: density of the intervals per region; None: that of the kind, Gaussian where the kind has none.
        steps: sparsification steps.
        floor: smallest sigma.
        regions: names of the region masks, in their order.
        region_curves: also sparsify inside regions with at least 500 pixels (one more sort per region).
        kendall: also compute Kendall's tau (slow).
        seed: of the random baseline and the pixel pool.
        temperature: recalibration fitted on another split; adds the scores after it.
        pool_rate: share of pixels handed to the pool; 0 for no pool.
    """

    kind: str
    space: str = "depth"
    family: str | None = None
    steps: int = sparsification.STEPS
    floor: float = uncertainty_kinds.DEFAULT_FLOOR
    regions: tuple[str, ...] = ()
    region_curves: bool = False
    kendall: bool = False
    seed: int = 0
    temperature: Temperature | None = None
    pool_rate: float = 1.0

    def __post_init__(self) -> None:
        uncertainty_kinds.canonical_kind(self.kind)
        uncertainty_kinds.check_space(self.space)
        if self.family is not None and self.family not in uncertainty_kinds.FAMILIES:
            raise unknown_name("uncertainty family", self.family, uncertainty_kinds.FAMILIES)
        if self.steps < 2:
            raise ProtocolError(f"sparsification needs at least 2 steps, got {self.steps}.")

    @property
    def interval_family(self) -> str:
        """The density whose intervals are counted per region."""
        return self.family or uncertainty_kinds.family_of(self.kind) or "gaussian"


@dataclass(frozen=True, slots=True)
class DensityScores:
    """Additive scores of sigma as a density, of one image.

    Attributes:
        sums: [7] in the order of `SUMS`.
        counts: int64 [3, 123] pixels inside each of `calibration.ALL_LEVELS`, for each of `calibration.FORMS`.
        region_counts: uint32 [R, 100] pixels inside the intervals at `calibration.LEVELS` of the declared
            family; [0, 100] after recalibration.
        temperature_sums: [5, 3] for a fit, see `recalibration.temperature_sums`.
    """

    sums: FloatArray
    counts: NDArray[np.int64]
    region_counts: NDArray[np.uint32]
    temperature_sums: FloatArray


@dataclass(frozen=True, slots=True)
class ImageUncertainty:
    """All that is kept of one image.

    Attributes:
        frame: its name.
        n: valid pixels.
        floored: pixels with sigma at the floor.
        full: [3] errors over all pixels, in the order of `sparsification.ERRORS`.
        oracle: [3, steps + 1].
        curves: ordering ("model", "depth", "edge", "random", "constant") to curve [3, steps + 1].
        correlations: [5] in the order of `rank_correlation.CORRELATIONS`, of the model.
        depth_correlations: the same of predicted distance used as uncertainty.
        kendall: tau, NaN unless asked for.
        density: scores of sigma; None for kind `score`.
        recalibrated: the same after the temperature.
        region_rows: [R, 13], see `uncertainty_regions.COLUMNS`.
        region_areas: [R, 2, 3] AUSE and AURG inside regions, NaN below 500 pixels; None unless asked for.
        pool: float64 [4, k] ground truth, prediction, score, sigma of the pixels handed to the pool.
        priorities: [k] their random priorities.
    """

    frame: str
    n: int
    floored: int
    full: FloatArray
    oracle: FloatArray
    curves: dict[str, FloatArray]
    correlations: FloatArray
    depth_correlations: FloatArray
    kendall: float
    density: DensityScores | None
    recalibrated: DensityScores | None
    region_rows: FloatArray
    region_areas: FloatArray | None = None
    pool: FloatArray | None = None
    priorities: FloatArray | None = None

    @property
    def areas(self) -> dict[str, FloatArray]:
        """Ordering to [2, 3]: AUSE and AURG."""
        best = sparsification.area(self.oracle)
        found = {name: sparsification.area(curve) for name, curve in self.curves.items()}
        return {name: np.stack([a - best, self.full - a]) for name, a in found.items()}

    def without_pool(self) -> ImageUncertainty:
        """The same without pixels, to be kept for every image."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return ImageUncertainty(**(values | {"pool": None, "priorities": None}))


def measure_image(
    options: UncertaintyOptions,
    gt: NDArray[Any],
    pred: NDArray[Any],
    values: NDArray[Any],
    *,
    frame: str = "",
    scale: float = 1.0,
    masks: Mapping[str, NDArray[np.bool_]] | None = None,
    edge_distance: NDArray[Any] | None = None,
    flip: NDArray[Any] | None = None,
) -> ImageUncertainty | None:
    """Measure the uncertainty of one image.

    Args:
        options: the same for all images.
        gt: [n] metres at the valid pixels (or the teacher's depth there).
        pred: [n] metres, after alignment and clamp.
        values: [n] the network's outputs of the declared kind, at the resolution of the ground truth.
        frame: name, for messages and for the frame's own random numbers.
        scale: factor by which the prediction was aligned.
        masks: region name to bool [n]; all names of `options.regions`.
        edge_distance: [n] pixels to the nearest edge of the image, for the edge baseline.
        flip: [n] difference to the prediction for the mirrored image, for the flip baseline.

    Returns:
        The record, or None where the image has fewer than 2 pixels and is left out.

    Raises:
        DataError: uncertainty that is NaN or infinite, or a negative variance.
        ProtocolError: vectors of different lengths, missing masks, values that are not positive and finite.
    """
    g, p = np.asarray(gt, np.float64), np.asarray(pred, np.float64)
    _check_lengths(g, p, values, masks, edge_distance, frame)
    if g.size < 2:
        return None
    u = uncertainty_kinds.convert(
        values, options.kind, space=options.space, scale=scale, floor=options.floor, where=frame
    )
    residual = uncertainty_kinds.residuals(g, p, options.space, frame)
    regions = _mask_rows(options.regions, masks, g.size, frame)
    score, error, depth = (rank_correlation.rank(v) for v in (u.score, np.abs(residual), p))
    errors = sparsification.pixel_errors(g, p, options.steps)
    curves = {"model": sparsification.sparsify(errors, u.score, score.order)}
    curves |= sparsification.baseline_curves(
        errors, p, order=depth.order, edge_distance=edge_distance, flip=flip, frame=frame, seed=options.seed
    )
    after = u if options.temperature is None or u.sigma is None else u.times(options.temperature.factor(p))
    pool, priorities = draw_pixels(g, p, u, frame, rate=options.pool_rate, seed=options.seed)
    return ImageUncertainty(
        frame=frame,
        n=int(g.size),
        floored=u.floored,
        full=errors.full,
        oracle=errors.oracle,
        curves={name: s.curve for name, s in curves.items()},
        correlations=rank_correlation.correlations(score, error, depth, g, u.sigma),
        depth_correlations=rank_correlation.correlations(depth, error, depth, g),
        kendall=rank_correlation.kendall(u.score, error.values) if options.kendall else float("nan"),
        density=_density(u, residual, p, regions, options.interval_family),
        recalibrated=None if after is u else _density(after, residual, p, regions[:0], options.interval_family),
        region_rows=uncertainty_regions.region_rows(regions, score, error, depth, sigma=u.sigma, log_sigma=u.log_sigma),
        region_areas=_region_areas(options, g, p, u, regions) if options.region_curves else None,
        pool=pool,
        priorities=priorities,
    )


def _check_lengths(
    g: FloatArray,
    p: FloatArray,
    values: NDArray[Any],
    masks: Mapping[str, NDArray[np.bool_]] | None,
    edge_distance: NDArray[Any] | None,
    frame: str,
) -> None:
    lengths = {"prediction": p, "uncertainty": values} | dict(masks or {})
    if edge_distance is not None:
        lengths["edge distance"] = edge_distance
    for name, v in lengths.items():
        if np.shape(v) != g.shape:
            at = f" of {frame}" if frame else ""
            raise ProtocolError(f"'{name}'{at} has the shape {np.shape(v)}, the {g.size} valid pixels need {g.shape}.")


def _mask_rows(
    names: tuple[str, ...], masks: Mapping[str, NDArray[np.bool_]] | None, n: int, frame: str
) -> NDArray[np.bool_]:
    missing = [name for name in names if name not in (masks or {})]
    if missing:
        raise ProtocolError(f"{frame or 'an image'} has no mask of the region '{missing[0]}'.")
    if masks is None or not names:
        return np.zeros((0, n), np.bool_)
    return np.stack([np.asarray(masks[name], np.bool_) for name in names])


def _density(
    u: Uncertainty, residual: FloatArray, pred: FloatArray, regions: NDArray[np.bool_], family: str
) -> DensityScores | None:
    if u.sigma is None or u.log_sigma is None:
        return None
    scores = (
        calibration.nll_gaussian(residual, u.log_sigma),
        calibration.nll_laplace(residual, u.log_sigma),
        calibration.crps_gaussian(residual, u.sigma),
        calibration.crps_laplace(residual, u.sigma),
        u.sigma,
        u.sigma * u.sigma,
        residual * residual,
    )
    counts = np.zeros((len(regions), calibration.N_LEVELS), np.uint32)
    if len(regions):
        level = calibration.level_index(residual, u.sigma, family)
        for row, mask in zip(counts, regions, strict=True):
            row[:] = np.cumsum(np.bincount(level[mask], minlength=calibration.N_LEVELS))
    return DensityScores(
        np.array([s.sum() for s in scores]),
        calibration.coverage_counts(residual, u.sigma),
        counts,
        temperature_sums(residual, u.sigma, pred),
    )


def _region_areas(
    options: UncertaintyOptions, g: FloatArray, p: FloatArray, u: Uncertainty, regions: NDArray[np.bool_]
) -> FloatArray:
    out = np.full((len(regions), 2, 3), np.nan)
    for row, mask in zip(out, regions, strict=True):
        if np.count_nonzero(mask) >= REGION_CURVE_PIXELS:
            inside = sparsification.sparsify(
                sparsification.pixel_errors(g[mask], p[mask], options.steps), u.score[mask]
            )
            row[:] = inside.ause, inside.aurg
    return out
