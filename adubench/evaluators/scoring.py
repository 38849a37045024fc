"""One image under one protocol: ground truth and prediction in, a row of sums out.

Only the pixels that count are touched: the ground truth is a list of pixels, cut down by range and rectangle, and the
prediction is gathered there. Full maps are converted to floating point only where a whole map is needed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from adubench.errors import ProtocolError, unknown_name
from adubench.evaluators import crops, devkit
from adubench.evaluators.alignment import SCALE_FREE, align
from adubench.evaluators.metrics import metrics_from_moments
from adubench.evaluators.moments import N_MOMENTS, code_moments, frame_moments, plain_moments
from adubench.evaluators.protocols import Protocol
from adubench.evaluators.resize import bilinear_take
from adubench.io.disparity import scaled_from_sigmoid
from adubench.io.maps import DepthMap, SparseDepth

KINDS: tuple[str, ...] = ("depth", "scaled-disparity", "sigmoid-disparity", "pixel-disparity")

FloatArray = NDArray[np.float32]
Sample = tuple[FloatArray, FloatArray]
_EMPTY = np.empty(0, np.float32)
_SAMPLE = 400  # pixels kept for the plausibility checks
_CODES = 1 << 16
_SMALLEST = np.float32(2.0**-23)  # floor of the guarded inversion (float32 machine epsilon)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says about one image.

    Attributes:
        map: dense map; or an object with `values` [n] and `scale`: values at the ground truth's pixels, in their order.
        kind: one of `KINDS`.
        uncertainty: [H, W], larger where the model trusts itself less; not used by protocols.
        uncertainty_kind: what it means.
        focal_baseline: focal length (pixels, at the ground truth's width) times baseline (metres), for pixel disparity.
    """

    map: DepthMap | Any
    kind: str = "depth"
    uncertainty: NDArray[Any] | None = None
    uncertainty_kind: str | None = None
    focal_baseline: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown_name("prediction kind", self.kind, KINDS)


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


@dataclass(frozen=True, slots=True)
class ValidPixels:
    """The pixels of one image that count.

    Attributes:
        positions: [n] flat positions in the full map, ascending, of any integer type.
        values: [n] their ground truth as stored.
        scale: metres = values / scale.
        at: positions of these pixels in the ground truth's own list.
    """

    positions: NDArray[Any]
    values: NDArray[Any]
    scale: float
    at: NDArray[np.intp] | slice

    @property
    def index(self) -> NDArray[np.intp]:
        """Positions in numpy's own index type."""
        return self.positions.astype(np.intp, copy=False)

    @property
    def gt(self) -> FloatArray:
        """Ground truth in metres, float32 [n]."""
        return DepthMap(self.values, self.scale).quantity()


def score_frame(
    protocol: Protocol, gt: SparseDepth, prediction: Prediction, *, frame: str = "", compat: bool = False
) -> FrameScore:
    """Score one image.

    Args:
        protocol: the rules.
        gt: ground truth of the full image (or of the KB window alone, which then is the frame).
        prediction: full map, KB window (KITTI protocols), or values at the ground truth's pixels.
        frame: name for error messages.
        compat: keep invalid predictions where the protocol has no rule for them, as the references do.

    Returns:
        The sums; all zero when no pixel is valid.

    Raises:
        ProtocolError: wrong size, disparity without scale, or invalid predictions that the protocol does not clamp.
    """
    pixels = valid_pixels(protocol, gt, frame=frame)
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
        _check_length(values, gt, frame)
        codes: NDArray[np.uint16] = values[pixels.at]
        return codes
    return values.reshape(-1).take(pixels.index) if prediction.map.shape == gt.shape else None


def _check_length(values: NDArray[Any], gt: SparseDepth, frame: str) -> None:
    if values.size != gt.values.size:
        _fail(frame, f"{values.size} predicted values for {gt.values.size} pixels of the ground truth")


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
        _fail(
            frame,
            f"the prediction is {what} at {n_invalid} of {pred.size} valid pixels, and {protocol.name} does not clamp "
            "them. Repair the prediction, or use --compat for the reference implementation's own behaviour",
        )


def _fail(frame: str, sentence: str) -> NoReturn:
    raise ProtocolError((f"frame {frame}: " if frame else "") + sentence + ".")


# ---- which pixels count ----------------------------------------------------------------------------------------------


def valid_pixels(protocol: Protocol, gt: SparseDepth, *, frame: str = "") -> ValidPixels:
    """Select the ground truth's pixels inside the protocol's range and rectangle.

    Raises:
        ProtocolError: the map is smaller than the KB window, or has the wrong size for a crop with fixed bounds.
    """
    if gt.selected and gt.selected == protocol.selection:
        return ValidPixels(gt.index, gt.values, gt.scale, slice(None))
    try:
        bounds = pixel_bounds(protocol, gt.shape)
    except ProtocolError as error:
        _fail(frame, f"ground truth: {str(error).rstrip('.')}")
    width = gt.shape[1]
    first, last = _row_range(gt, bounds)
    # Positions of numpy's own index type: every look-up below would convert them again.
    index, values = gt.index[first:last].astype(np.intp), gt.values[first:last]
    keep = _in_range(values, gt.scale, protocol.gt_min, protocol.gt_max)
    if bounds[2] > 0 or bounds[3] < width:
        inside = _inside(gt.shape, bounds).take(index)
        keep = inside if keep is None else np.logical_and(keep, inside, out=keep)
    if keep is None or keep.all():
        at: NDArray[np.intp] | slice = slice(first, last)
    else:
        # Not by mask: its branches are mispredicted where valid pixels lie scattered.
        chosen = np.flatnonzero(keep)
        index, values = index.take(chosen), values.take(chosen)
        at = chosen + first
    return ValidPixels(index, values, gt.scale, at)


def selection_mask(protocol: Protocol, gt: SparseDepth) -> NDArray[np.bool_]:
    """Mark the pixels of a map that the protocol selects, bool [n]; none where the map does not fit the protocol."""
    mask = np.zeros(gt.index.size, np.bool_)
    with contextlib.suppress(ProtocolError):
        mask[valid_pixels(protocol, gt).at] = True
    return mask


def _row_range(gt: SparseDepth, bounds: crops.Rectangle) -> tuple[int, int]:
    """Positions in the ground truth's list of the first pixel of the rectangle's rows and of the first one below."""
    width = gt.shape[1]
    edges = np.array([bounds[0] * width, bounds[1] * width], gt.index.dtype)
    first, last = np.searchsorted(gt.index, edges)
    return int(first), int(last)


@lru_cache(maxsize=128)
def pixel_bounds(protocol: Protocol, shape: tuple[int, int]) -> crops.Rectangle:
    """The protocol's rectangle in full-map coordinates: rows [r0, r1), columns [c0, c1)."""
    if protocol.frame != "window":
        return crops.rectangle(protocol.crop, *shape)
    top, left = crops.kb_window(*shape)
    r0, r1, c0, c1 = crops.rectangle(protocol.crop, *crops.KB_WINDOW)
    return r0 + top, r1 + top, c0 + left, c1 + left


@lru_cache(maxsize=32)
def _inside(shape: tuple[int, int], bounds: crops.Rectangle) -> NDArray[np.bool_]:
    """Flat mask of a rectangle; a table look-up is cheaper than the remainder of every position."""
    mask = np.zeros(shape, np.bool_)
    mask[bounds[0] : bounds[1], bounds[2] : bounds[3]] = True
    return mask.reshape(-1)


@lru_cache(maxsize=64)
def code_range(scale: float, low: float, high: float | None) -> tuple[int, int]:
    """Smallest and largest 16-bit code whose depth lies in (low, high), compared in float32; (1, 0) for none."""
    depth = DepthMap(np.arange(_CODES, dtype=np.uint16), scale).quantity()
    valid = np.flatnonzero(_float_range(depth, low, high) & (depth > 0))
    return (int(valid[0]), int(valid[-1])) if valid.size else (1, 0)


def _float_range(depth: FloatArray, low: float, high: float | None) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        valid: NDArray[np.bool_] = depth > np.float32(low)
        if high is not None:
            valid &= depth < np.float32(high)
    return valid


def _in_range(values: NDArray[Any], scale: float, low: float, high: float | None) -> NDArray[np.bool_] | None:
    """Mask of the values in (low, high) metres; None when all are, as the ground truth lists only values > 0."""
    if values.dtype != np.uint16:
        return _float_range(DepthMap(values, scale).quantity(), low, high)
    least, most = code_range(scale, low, high)
    if least > most:
        return np.zeros(values.shape, np.bool_)
    if least <= 1 and most >= _CODES - 1:
        return None
    # One comparison: codes below `least` wrap around to large numbers.
    mask: NDArray[np.bool_] = (values - np.uint16(least)) <= np.uint16(most - least)
    return mask


# ---- the prediction at these pixels ----------------------------------------------------------------------------------


def predicted_at(
    protocol: Protocol, gt: SparseDepth, prediction: Prediction, pixels: ValidPixels, *, frame: str = ""
) -> FloatArray:
    """Predicted depth at valid pixels, float32 [n], before alignment and clamp.

    Raises:
        ProtocolError: the map's size does not fit, or pixel disparity cannot be turned into metres.
    """
    values = prediction.map.values
    if values.ndim == 1:
        _check_length(values, gt, frame)
        raw = DepthMap(values[pixels.at], prediction.map.scale).quantity()
        return _as_depth(protocol, prediction, raw, gt.shape[1], gt.shape[1], frame)
    shape = prediction.map.shape
    if shape == gt.shape:
        raw = prediction.map.take(pixels.index)
    elif protocol.kitti_window and shape == crops.KB_WINDOW and crops.fits_window(gt.shape):
        raw = _from_window(protocol, prediction, gt.shape, pixels.index)
        return _as_depth(protocol, prediction, raw, gt.shape[1], gt.shape[1], frame)
    elif prediction.kind != "depth" or protocol.resize == "bilinear":
        return _resized(protocol, gt, prediction, pixels, frame)
    else:
        expected = f"{gt.shape[0]}x{gt.shape[1]}" + (" or 352x1216" if protocol.kitti_window else "")
        _fail(frame, f"the prediction is {shape[0]}x{shape[1]}, {protocol.name} needs {expected} (height x width)")
    return _as_depth(protocol, prediction, raw, shape[1], gt.shape[1], frame)


def _resized(
    protocol: Protocol, gt: SparseDepth, prediction: Prediction, pixels: ValidPixels, frame: str
) -> FloatArray:
    values = prediction.map.quantity()
    if prediction.kind == "sigmoid-disparity":
        values = scaled_from_sigmoid(values)
        prediction = dataclasses.replace(prediction, kind="scaled-disparity")
    raw = bilinear_take(values, gt.shape, pixels.index)
    return _as_depth(protocol, prediction, raw, prediction.map.shape[1], gt.shape[1], frame)


def _from_window(protocol: Protocol, prediction: Prediction, shape: tuple[int, int], index: NDArray[Any]) -> FloatArray:
    """Gather from a KB window by full-map positions; `outside` where a position is not in the window."""
    top, left = crops.kb_window(*shape)
    width = shape[1]
    row = (index.astype(np.uint32) // np.uint32(width)).astype(np.intp)  # 32-bit division is several times faster
    # (row - top) * 1216 + column - left, without the remainder
    place = index - row * (width - crops.KB_WIDTH) - (top * crops.KB_WIDTH + left)
    if protocol.frame == "window" or protocol.crop != "none":
        r0, r1, c0, c1 = pixel_bounds(protocol, shape)
        if r0 >= top and r1 <= top + crops.KB_HEIGHT and c0 >= left and c1 <= left + crops.KB_WIDTH:
            return prediction.map.take(place)
    column = index - row * width
    inside = (row >= top) & (column >= left) & (column < left + crops.KB_WIDTH)
    out = np.full(index.size, protocol.outside, np.float32)
    out[inside] = prediction.map.take(place[inside])
    return out


def _as_depth(
    protocol: Protocol, prediction: Prediction, raw: FloatArray, width: int, gt_width: int, frame: str
) -> FloatArray:
    """Turn gathered values of the prediction's kind into depth."""
    if prediction.kind == "depth":
        return raw
    if prediction.kind == "sigmoid-disparity":
        raw = scaled_from_sigmoid(raw)
    factor = np.float32(1)
    if prediction.kind == "pixel-disparity":
        if prediction.focal_baseline is not None:
            # Disparity is counted in pixels of the map it came from.
            factor = np.float32(prediction.focal_baseline * width / gt_width)
        elif protocol.alignment not in SCALE_FREE:
            _fail(
                frame,
                f"pixel disparity needs focal length times baseline to become metres, and {protocol.name} does not "
                "align the scale. Point --data-root at the calibration, or use --alignment median",
            )
    with np.errstate(all="ignore"):
        if protocol.inversion == "guarded":
            out: FloatArray = np.where(raw > 0, factor / np.maximum(raw, _SMALLEST), np.float32(0))
            return out
        return factor / raw


# ---- KITTI's devkit --------------------------------------------------------------------------------------------------


def _score_filled(
    protocol: Protocol, gt: SparseDepth, pixels: ValidPixels, prediction: Prediction, frame: str, compat: bool
) -> FrameScore:
    """Fill the prediction, then float32 sums as the devkit's beside the float64 row."""
    if prediction.kind != "depth" or prediction.map.values.ndim != 2:
        _fail(frame, f"{protocol.name} takes dense depth maps only, as the server does; this is {prediction.kind}")
    shape = prediction.map.shape
    if shape != gt.shape:
        size = f"{gt.shape[0]}x{gt.shape[1]}"
        _fail(frame, f"the prediction is {shape[0]}x{shape[1]}, {protocol.name} needs {size} (height x width)")
    if pixels.values.size == 0:
        return FrameScore(np.zeros(N_MOMENTS))
    n_bad = 0 if compat else devkit.count_unwritable(prediction.map)
    if n_bad:
        _fail(
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
