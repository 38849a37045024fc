"""The pixels that a protocol scores, with the prediction as it is scored: aligned and clamped.

The sums of the whole image come from `scoring.score_frame`, which may take shorter ways to the same numbers. Regions,
uncertainty and boundaries need the pixels themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adubench.evaluators import crops, devkit
from adubench.evaluators.alignment import align
from adubench.evaluators.predicted_values import predicted_at
from adubench.evaluators.scoring import aligned_prediction, clamp, count_invalid
from adubench.evaluators.valid_pixels import ValidPixels, valid_pixels

if TYPE_CHECKING:
    from adubench.evaluators.predicted_values import Prediction
    from adubench.evaluators.protocols import Protocol
    from adubench.io.maps import SparseDepth

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FinalPixels:
    """Scored pixels of one image under one protocol.

    Attributes:
        index: [n] flat positions in the full map.
        gt: float32 [n] metres.
        pred: float32 [n] metres, after alignment and clamp.
        solution: what the alignment found: `scale`, `shift`, `ratio`; empty without one.
        chosen: [n] places of these pixels among the protocol's valid pixels; None for all of them.
        valid: the protocol's valid pixels.
    """

    index: NDArray[np.intp]
    gt: FloatArray
    pred: FloatArray
    solution: dict[str, float]
    chosen: NDArray[np.intp] | None
    valid: ValidPixels


def final_pixels(
    protocol: Protocol, gt: SparseDepth, prediction: Prediction, *, frame: str = "", pixels: ValidPixels | None = None
) -> FinalPixels:
    """Select, align and clamp as `scoring.score_frame` does; call it for images that were scored without an error.

    Args:
        protocol: the rules.
        gt: ground truth of the full image.
        prediction: as for `score_frame`.
        frame: name for error messages.
        pixels: `valid_pixels(protocol, gt)`, where they are known already.

    Raises:
        ProtocolError: as `score_frame`.
    """
    pixels = valid_pixels(protocol, gt, frame=frame) if pixels is None else pixels
    truth = pixels.gt
    if protocol.missing == "fill":
        pred, solution = _filled(protocol, pixels, truth, prediction)
        return FinalPixels(pixels.index, truth, pred, solution, None, pixels)
    pred = predicted_at(protocol, gt, prediction, pixels, frame=frame)
    index, chosen = pixels.index, None
    if protocol.positive_only:
        chosen = np.flatnonzero(pred > 0)
        index, truth, pred = index.take(chosen), truth.take(chosen), pred.take(chosen)
    aligned, solution = aligned_prediction(protocol, truth, pred, count_invalid(pred))
    return FinalPixels(index, truth, clamp(protocol, aligned), solution, chosen, pixels)


def _filled(
    protocol: Protocol, pixels: ValidPixels, truth: FloatArray, prediction: Prediction
) -> tuple[FloatArray, dict[str, float]]:
    if truth.size == 0:
        return np.empty(0, np.float32), {}
    pred, _ = devkit.filled_at(prediction.map, pixels.index)
    solution: dict[str, float] = {}
    if protocol.alignment != "none":
        aligned, solution = align(protocol.alignment, truth, pred, usable=pred > 0)
        pred = np.where(pred > 0, aligned, pred)
    if protocol.clamp is not None:
        pred = np.where(pred > 0, clamp(protocol, pred), pred)
    return pred, solution


def dense_prediction(
    protocol: Protocol, gt: SparseDepth, prediction: Prediction, final: FinalPixels, *, frame: str = ""
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Give the prediction at every pixel of the ground truth's grid, aligned and clamped.

    The alignment is solved on the scored pixels and applied to all.

    Returns:
        float32 [H, W], 0 where there is no finite prediction, and bool [H, W]: where the prediction's map lies (a
        window covers the image in part only).
    """
    height, width = gt.shape
    whole = np.arange(height * width)
    if protocol.missing == "fill":
        pred, _ = devkit.filled_at(prediction.map, whole)
    else:
        pixels = ValidPixels(whole, np.zeros(whole.size, np.float32), 1.0, slice(None))
        pred = predicted_at(protocol, gt, prediction, pixels, frame=frame)
    if protocol.alignment != "none":
        pred = _aligned_everywhere(protocol, final, pred)
    covered = np.ones(gt.shape, np.bool_)
    if protocol.kitti_window and prediction.map.shape == crops.KB_WINDOW != gt.shape:
        top, left = crops.kb_window(height, width)
        covered[:] = False
        covered[top : top + crops.KB_HEIGHT, left : left + crops.KB_WIDTH] = True
    out = clamp(protocol, pred)
    dense: FloatArray = np.where(np.isfinite(out), out, np.float32(0)).reshape(height, width)
    return dense, covered


def _aligned_everywhere(protocol: Protocol, final: FinalPixels, pred: FloatArray) -> FloatArray:
    """Solve on the scored pixels, apply to all: they stand first in one list, marked as the ones to solve on."""
    raw = pred.take(final.index)
    both = np.concatenate([raw, pred])
    truth = np.concatenate([final.gt, np.ones(pred.size, np.float32)])
    usable: NDArray[Any] = np.zeros(both.size, np.bool_)
    usable[: raw.size] = ~np.isnan(raw)
    aligned, _ = align(protocol.alignment, truth, both, usable=usable)
    return np.asarray(aligned[raw.size :], np.float32)
