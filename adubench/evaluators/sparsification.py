"""Sparsification: how the error falls when the least certain pixels are taken away (AUSE, AURG).

The protocol is that of mono-uncertainty (`evaluate.py`, `compute_aucs`), with its treatment of ties and its appended
zero. The numbers are those of the reference; the work is one sort per order instead of one mask per step.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

ERRORS: tuple[str, ...] = ("abs_rel", "rmse", "a1")
"""Errors of the three curves. `a1` is the share of outliers, ratio >= 1.25, so that all curves fall."""
STEPS = 50
BASELINES: tuple[str, ...] = ("depth", "edge", "flip", "random", "constant")
_OUTLIER = 1.25
_FAR = 1e9  # pixels from the nearest edge where an image has none


@dataclass(frozen=True, slots=True)
class PixelErrors:
    """Per-pixel errors of one image and what is best possible.

    Attributes:
        summands: [3, n] float64: |g - p| / g, (g - p)^2, ratio >= 1.25 as 0 or 1.
        full: [3] errors over all pixels.
        oracle: [3, steps + 1] curves when the pixels with the largest error of that kind go first.
        steps: number of steps.
    """

    summands: FloatArray
    full: FloatArray
    oracle: FloatArray
    steps: int


@dataclass(frozen=True, slots=True)
class Sparsification:
    """Curves and areas of one ordering of one image; the first axis is `ERRORS`.

    Attributes:
        curve: [3, steps + 1]; the last value is the appended 0.
        oracle: [3, steps + 1].
        full: [3] errors over all pixels.
        kept: [steps] number of pixels kept at each step (more than the nominal share where scores tie).
    """

    curve: FloatArray
    oracle: FloatArray
    full: FloatArray
    kept: NDArray[np.int64]

    @property
    def ause(self) -> FloatArray:
        """[3] area between curve and oracle, in the unit of the error; 0 is best."""
        return area(self.curve) - area(self.oracle)

    @property
    def aurg(self) -> FloatArray:
        """[3] area gained over taking pixels away at random; larger is better."""
        return self.full - area(self.curve)

    @property
    def nause(self) -> FloatArray:
        """[3] AUSE divided by the full error; NaN where there is no error."""
        return _normalised(self.ause, self.full)

    @property
    def naurg(self) -> FloatArray:
        """[3] AURG divided by the full error; NaN where there is no error."""
        return _normalised(self.aurg, self.full)


def pixel_errors(gt: NDArray[Any], pred: NDArray[Any], steps: int = STEPS) -> PixelErrors:
    """Compute the errors of n >= 1 pixels and the three oracle curves.

    Args:
        gt: [n] metres, > 0.
        pred: [n] metres, > 0.
        steps: number of steps I; step t keeps the pixels from the percentile 100 t / I on.
    """
    g, p = np.asarray(gt, np.float64), np.asarray(pred, np.float64)
    difference = g - p
    square = difference * difference
    relative = np.abs(difference) / g
    ratio = np.maximum(g / p, p / g)
    summands = np.stack([relative, square, ratio >= _OUTLIER])
    full = _finish(summands.mean(axis=1))
    oracle = np.zeros((3, steps + 1))
    for m, error in enumerate((relative, square, ratio)):
        keys = -error
        keys.sort()
        # the summands in the order of their own oracle are the keys themselves
        values = (keys <= -_OUTLIER).astype(np.float64) if m == 2 else -keys
        first = first_kept(keys, steps)
        oracle[m, :-1] = _suffix_means(values[None], first)[0]
    oracle[1] = np.sqrt(oracle[1])
    return PixelErrors(summands, full, oracle, steps)


def sparsify(errors: PixelErrors, score: NDArray[Any], order: NDArray[np.intp] | None = None) -> Sparsification:
    """Take pixels away in the order of a score [n], largest first.

    Args:
        errors: of the image.
        score: [n], larger where the model trusts itself less.
        order: positions that sort the score, where they are known already.
    """
    keys = -np.asarray(score, np.float64)
    order = np.argsort(keys) if order is None else order[::-1]
    first = first_kept(keys[order], errors.steps)
    curve = np.zeros((3, errors.steps + 1))
    curve[:, :-1] = _finish(_suffix_means(errors.summands[:, order], first))
    return Sparsification(curve, errors.oracle, errors.full, (keys.size - first).astype(np.int64))


def keep_all(errors: PixelErrors) -> Sparsification:
    """The curves of a constant score: ties keep every pixel at every step, and the appended 0 gives 0.5 / steps."""
    curve = np.repeat(errors.full[:, None], errors.steps + 1, axis=1)
    curve[:, -1] = 0.0
    kept = np.full(errors.steps, errors.summands.shape[1], np.int64)
    return Sparsification(curve, errors.oracle, errors.full, kept)


def first_kept(keys: FloatArray, steps: int = STEPS) -> NDArray[np.intp]:
    """For keys [n] in ascending order: index [steps] of the first one that reaches the percentile 100 t / steps.

    The interpolation is that of `numpy.percentile`, to the bit: where neighbours differ by a rounding error the
    threshold decides which pixels stay.
    """
    position = _fractions(steps) * (keys.size - 1)
    low = np.floor(position).astype(np.intp)
    weight = position - low
    a, b = keys[low], keys[np.minimum(low + 1, keys.size - 1)]
    step = b - a
    thresholds = np.where(weight >= 0.5, b - step * (1 - weight), a + step * weight)
    return np.searchsorted(keys, thresholds, side="left")


@lru_cache(maxsize=8)
def _fractions(steps: int) -> FloatArray:
    return np.array([100.0 / steps * t for t in range(steps)]) / 100


def _suffix_means(values: FloatArray, first: NDArray[np.intp]) -> FloatArray:
    """Means [m, steps] of values [m, n] from each index on."""
    n = values.shape[1]
    # sums between neighbouring indices, added from the end: no long running sum, nothing cancels
    starts, where = np.unique(first, return_inverse=True)
    pieces = np.add.reduceat(values, starts, axis=1)
    sums = np.cumsum(pieces[:, ::-1], axis=1)[:, ::-1]
    means: FloatArray = sums[:, where] / (n - first)
    return means


def _finish(means: FloatArray) -> FloatArray:
    means[1] = np.sqrt(means[1])
    return means


def area(curve: FloatArray) -> FloatArray:
    """Trapezoids over the last axis of curves [..., steps + 1] on [0, 1]."""
    inner: FloatArray = curve[..., 1:-1].sum(axis=-1)
    ends: FloatArray = 0.5 * (curve[..., 0] + curve[..., -1])
    areas: FloatArray = (inner + ends) / (curve.shape[-1] - 1)
    return areas


def _normalised(areas: FloatArray, full: FloatArray) -> FloatArray:
    out = np.full(full.shape, np.nan)
    np.divide(areas, full, out=out, where=full > 0)
    return out


def baseline_curves(
    errors: PixelErrors,
    pred: NDArray[Any],
    *,
    order: NDArray[np.intp] | None = None,
    edge_distance: NDArray[Any] | None = None,
    flip: NDArray[Any] | None = None,
    frame: str = "",
    seed: int = 0,
) -> dict[str, Sparsification]:
    """Score the orderings that any claim has to beat.

    Args:
        errors: of the image.
        pred: [n] metres; the `depth` baseline distrusts what is far.
        order: positions that sort `pred`, where they are known already.
        edge_distance: [n] pixels to the nearest edge of the image's brightness; the `edge` baseline distrusts what is
            close to one. Left out where None; an image without edges (infinite distances) is a constant.
        flip: [n] difference to the prediction for the mirrored image, mirrored back; left out where None.
        frame: makes the random order the frame's own, whatever the order of evaluation.
        seed: of the random order.
    """
    out = {"depth": sparsify(errors, pred, order)}
    if edge_distance is not None:
        out["edge"] = sparsify(errors, -np.minimum(edge_distance, _FAR))
    if flip is not None:
        out["flip"] = sparsify(errors, np.asarray(flip, np.float64))
    out["random"] = sparsify(errors, frame_generator(frame, seed).random(errors.summands.shape[1:]))
    out["constant"] = keep_all(errors)
    return out


def frame_generator(frame: str, seed: int = 0) -> np.random.Generator:
    """Random numbers that depend on the frame and the seed only."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(frame.encode())])))
