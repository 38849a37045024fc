"""One image under one protocol: ground truth and prediction in, a row of sums out.

Only the pixels that count are touched: the ground truth is a list of pixels, cut down by range and rectangle, and the
prediction is gathered there. Full maps are converted to floating point only where a whole map is needed.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from adubench.evaluators import devkit
from adubench.evaluators.alignment import SCALE_FREE, align
from adubench.evaluators.metrics import metrics_from_moments
from adubench.evaluators.moments import N_MOMENTS, code_moments, frame_moments, plain_moments
from adubench.evaluators.predicted_values import Prediction, check_length, predicted_at
from adubench.evaluators.protocols import Protocol
from adubench.evaluators.valid_pixels import FloatArray, ValidPixels, fail, valid_pixels
from adubench.io.maps import DepthMap, SparseDepth

Sample = tuple[FloatArray, FloatArray]
_EMPTY = np.empty(0, np.float32)
_SAMPLE = 400  # pixels kept for the plausibility checks


@dataclass(frozen=True, slots=True)
class FrameScore:
    """One image under one protocol.

    Attributes:
        moments: float64 [15], see `moments.MOMENTS`.
        extra: scores beside the moments: `ratio`, `scale`, `shift`, the float32 columns of `kitti-official`.
        n_invalid: valid pixels whose prediction was NaN, infinite or not positive before any clamp (under
            `kitti-official`: pixels without prediction before the filling).
        ratio: factor found by an alignment that solves for one; None otherwise.
        sample: ground truth and prediction (before alignment and clamp) at some hundred valid pixels.
        flags: what a reader must know, e.g. "missing-after-fill".
    """

    moments: NDArray[np.float64]
    extra: dict[str, float] = field(default_factory=dict)
    n_invalid: int = 0
    ratio: float | None = None
    sample: Sample = (_EMPTY, _EMPTY)
    flags: tuple[str, ...] = ()

    def without_sample(self) -> FrameScore:
        """The same score, light enough to keep for every image."""
        return dataclasses.replace(self, sample=(_EMPTY, _EMPTY))


def score_frame(
    protocol: Protocol,
    gt: SparseDepth,
    prediction: Prediction,
    *,
    frame: str = "",
    compat: bool = False,
    pixels: ValidPixels | None = None,
) -> FrameScore:
    """Score one image.

    Args:
        protocol: the rules.
        gt: ground truth of the full image (or of the KB window alone, which then is the frame).
        prediction: full map, KB window (KITTI protocols), or values at the ground truth's pixels.
        frame: name for error messages.
        compat: keep invalid predictions where the protocol has no rule for them, as the references do.
        pixels: `valid_pixels(protocol, gt)`, where they are known already.

    Returns:
        The sums; all zero when no pixel is valid.

    Raises:
        ProtocolError: wrong size, disparity without scale, or invalid predictions that the protocol does not clamp.
    """
    pixels = valid_pixels(protocol, gt, frame=frame) if pixels is None else pixels
    if protocol.missing == "fill":
        return _score_filled(protocol, gt, pixels, prediction, frame, compat)
    codes = _predicted_codes(protocol, gt, prediction, pixels, frame)
    if codes is not None:
        return _score_codes(protocol, pixels, codes, prediction.map.scale)
    pred = predicted_at(protocol, gt, prediction, pixels, frame=frame)
    return score_vectors(protocol, pixels.gt, pred, frame=frame, compat=compat)


def _score_codes(protocol: Protocol, pixels: ValidPixels, codes: NDArray[np.uint16], scale: float) -> FrameScore:
    """Clamp and sum 16-bit codes without a detour through float32 vectors; the numbers are the same."""
    assert protocol.clamp is not None
    n_invalid = int(codes.size - np.count_nonzero(codes))
    step = max(1, codes.size // _SAMPLE)
    sample = (
        DepthMap(pixels.values[::step], pixels.scale).quantity(),
        DepthMap(codes[::step], scale).quantity(),
    )
    row = code_moments(pixels.values, codes, (pixels.scale, scale), protocol.clamp)
    return FrameScore(row, {}, n_invalid, None, sample)


def _predicted_codes(
    protocol: Protocol, gt: SparseDepth, prediction: Prediction, pixels: ValidPixels, frame: str
) -> NDArray[np.uint16] | None:
    """Gather 16-bit codes where both maps hold them and nothing but a clamp stands before the sums; else None."""
    values, scale = prediction.map.values, prediction.map.scale
    if (
        protocol.clamp is None
        or protocol.alignment != "none"
        or protocol.positive_only
        or protocol.pad_after_clamp
        or prediction.kind != "depth"
        or not (values.dtype == pixels.values.dtype == np.uint16)
        or not (_power_of_two(scale) and _power_of_two(pixels.scale))
    ):
        return None
    if values.ndim == 1:
        check_length(values, gt, frame)
        codes: NDArray[np.uint16] = values[pixels.at]
        return codes
    return values.reshape(-1).take(pixels.index) if prediction.map.shape == gt.shape else None


def _power_of_two(scale: float) -> bool:
    return math.frexp(scale)[0] == 0.5


def score_vectors(
    protocol: Protocol, gt: FloatArray, pred: FloatArray, *, frame: str = "", compat: bool = False
) -> FrameScore:
    """Align, clamp and sum.

    Args:
        protocol: the rules.
        gt: float32 [n], valid ground truth in metres.
        pred: float32 [n], predicted depth at the same pixels, before alignment and clamp.
        frame: name for error messages.
        compat: as in `score_frame`.

    Raises:
        ProtocolError: invalid predictions that the protocol does not clamp.
    """
    if protocol.positive_only:
        keep = pred > 0
        gt, pred = gt[keep], pred[keep]
    n_invalid = count_invalid(pred)
    if n_invalid and not compat:
        _refuse_invalid(protocol, pred, n_invalid, frame)
    step = max(1, gt.size // _SAMPLE)
    sample = (gt[::step], pred[::step])
    aligned, info = aligned_prediction(protocol, gt, pred, n_invalid)
    final = clamp(protocol, aligned)
    if compat and n_invalid and protocol.clamp is None:
        row = plain_moments(gt, final, signed_ratio=True)
    else:
        row = frame_moments(gt, final)
    extra = dict(info) if protocol.alignment in SCALE_FREE else {}
    if compat and protocol.compat_silog_zero and gt.size:
        silog = float(metrics_from_moments(row)["silog"])
        extra["silog"] = 0.0 if np.isnan(silog) else silog
    return FrameScore(row, extra, n_invalid, info.get("ratio"), sample)


def aligned_prediction(
    protocol: Protocol, gt: FloatArray, pred: FloatArray, n_invalid: int
) -> tuple[FloatArray, dict[str, float]]:
    """Align as the protocol says; returns float32 [n] and the solution (`scale`, `shift`, `ratio`)."""
    if protocol.alignment == "none":
        return pred, {}
    # Where the clamp deals with NaN, NaN must not decide the scale; where NaN stays, it does, as in the references.
    usable = ~np.isnan(pred) if n_invalid and protocol.nan == "low" else None
    return align(protocol.alignment, gt, pred, usable=usable)


def clamp(protocol: Protocol, pred: FloatArray) -> FloatArray:
    """Apply the protocol's clamp in float32: p < lo -> lo, p > hi -> hi, NaN -> lo where the protocol says so."""
    if protocol.clamp is None:
        return pred
    low, high = (np.float32(bound) for bound in protocol.clamp)
    out: FloatArray = np.clip(pred, low, high)
    if protocol.nan == "low":
        np.copyto(out, low, where=np.isnan(out))
    if protocol.pad_after_clamp:
        out[pred == np.float32(protocol.outside)] = np.float32(protocol.outside)
    return out


def count_invalid(pred: FloatArray) -> int:
    """Number of values that are NaN, infinite or not positive."""
    if pred.size == 0 or (pred.min() > 0 and pred.max() < np.inf):
        return 0
    with np.errstate(invalid="ignore"):
        return int(pred.size - np.count_nonzero((pred > 0) & (pred < np.inf)))


def _refuse_invalid(protocol: Protocol, pred: FloatArray, n_invalid: int, frame: str) -> None:
    """Raise where the protocol has no rule for the invalid values at hand."""
    if protocol.clamp is not None and not protocol.pad_after_clamp:
        if protocol.nan == "low":
            return
        n_invalid = int(np.count_nonzero(np.isnan(pred)))
        what = "NaN"
    else:
        what = "NaN, infinite or not positive"
    if n_invalid:
        fail(
            frame,
            f"the prediction is {what} at {n_invalid} of {pred.size} valid pixels, and {protocol.name} does not clamp "
            "them. Repair the prediction, or use --compat for the reference implementation's own behaviour",
        )


# ---- KITTI's devkit --------------------------------------------------------------------------------------------------


def _score_filled(
    protocol: Protocol, gt: SparseDepth, pixels: ValidPixels, prediction: Prediction, frame: str, compat: bool
) -> FrameScore:
    """Fill the prediction, then float32 sums as the devkit's beside the float64 row."""
    if prediction.kind != "depth" or prediction.map.values.ndim != 2:
        fail(frame, f"{protocol.name} takes dense depth maps only, as the server does; this is {prediction.kind}")
    shape = prediction.map.shape
    if shape != gt.shape:
        size = f"{gt.shape[0]}x{gt.shape[1]}"
        fail(frame, f"the prediction is {shape[0]}x{shape[1]}, {protocol.name} needs {size} (height x width)")
    if pixels.values.size == 0:
        return FrameScore(np.zeros(N_MOMENTS))
    n_bad = 0 if compat else devkit.count_unwritable(prediction.map)
    if n_bad:
        fail(
            frame,
            f"the prediction is NaN, infinite or negative at {n_bad} pixels, which no submitted PNG can hold (0 means "
            "missing, and is filled). Repair it, or use --compat to treat these pixels as missing",
        )
    gt_m = pixels.gt
    pred, n_missing = devkit.filled_at(prediction.map, pixels.index)
    if protocol.alignment != "none":
        aligned, _ = align(protocol.alignment, gt_m, pred, usable=pred > 0)
        pred = np.where(pred > 0, aligned, pred)
    if protocol.clamp is not None:
        pred = np.where(pred > 0, clamp(protocol, pred), pred)
    order = devkit.column_major(pixels.index, gt.shape)
    errors = devkit.float32_errors(gt_m[order], pred[order])
    still_missing = bool((pred < 0).any())
    step = max(1, pred.size // _SAMPLE)
    return FrameScore(
        frame_moments(gt_m, pred),
        devkit.in_our_units(errors),
        n_missing,
        None,
        (gt_m[::step], pred[::step]),
        ("missing-after-fill",) if still_missing else (),
    )
