"""What a model says about an image, and its values at the pixels that count, as depth in metres."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import unknown_name
from adubench.evaluators import crops
from adubench.evaluators.alignment import SCALE_FREE
from adubench.evaluators.protocols import Protocol
from adubench.evaluators.resize import bilinear_take
from adubench.evaluators.valid_pixels import FloatArray, ValidPixels, fail, pixel_bounds
from adubench.io.disparity import scaled_from_sigmoid
from adubench.io.maps import DepthMap, SparseDepth

KINDS: tuple[str, ...] = ("depth", "scaled-disparity", "sigmoid-disparity", "pixel-disparity")
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


def predicted_at(
    protocol: Protocol, gt: SparseDepth, prediction: Prediction, pixels: ValidPixels, *, frame: str = ""
) -> FloatArray:
    """Predicted depth at valid pixels, float32 [n], before alignment and clamp.

    Raises:
        ProtocolError: the map's size does not fit, or pixel disparity cannot be turned into metres.
    """
    values = prediction.map.values
    if values.ndim == 1:
        check_length(values, gt, frame)
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
        fail(frame, f"the prediction is {shape[0]}x{shape[1]}, {protocol.name} needs {expected} (height x width)")
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
            fail(
                frame,
                f"pixel disparity needs focal length times baseline to become metres, and {protocol.name} does not "
                "align the scale. Point --data-root at the calibration, or use --alignment median",
            )
    with np.errstate(all="ignore"):
        if protocol.inversion == "guarded":
            out: FloatArray = np.where(raw > 0, factor / np.maximum(raw, _SMALLEST), np.float32(0))
            return out
        return factor / raw


def check_length(values: NDArray[Any], gt: SparseDepth, frame: str) -> None:
    """Refuse lists of predicted values that are not as long as the ground truth's."""
    if values.size != gt.values.size:
        fail(frame, f"{values.size} predicted values for {gt.values.size} pixels of the ground truth")
