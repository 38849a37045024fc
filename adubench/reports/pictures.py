"""Pictures of single frames for the report: image, truth, prediction, error, uncertainty, regions; small JPEGs.

Measured points are painted larger than they are, so that a sparse map can be seen; no number is computed from them.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from adubench.evaluators.depth_edges import depth_edges
from adubench.evaluators.region_overlay import overlay_bins
from adubench.io.color_map import palette

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from adubench.io.maps import SparseDepth

    Rgb = NDArray[np.uint8]
    FloatMap = NDArray[np.float32]

WIDTH = 560
QUALITY = 72
DISTANCE_BINS = (20.0, 40.0, 60.0)
EDGE_GAPS = (5, 5)
# The ten classes of the KITTI devkit's logarithmic error picture: upper bound in units of (3 m or 5 %), colour.
ERROR_CLASSES: tuple[tuple[float, tuple[int, int, int]], ...] = (
    (0.0625, (49, 54, 149)), (0.125, (69, 117, 180)), (0.25, (116, 173, 209)), (0.5, (171, 217, 233)),
    (1.0, (224, 243, 248)), (2.0, (254, 224, 144)), (4.0, (253, 174, 97)), (8.0, (244, 109, 67)),
    (16.0, (215, 48, 39)), (float("inf"), (165, 0, 38)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture: what it is, and a data URI."""

    title: str
    source: str


@dataclass(frozen=True, slots=True)
class FrameView:
    """A frame with its pictures.

    Attributes:
        frame: its name.
        why: why it is shown.
        facts: numbers beside it, name -> text.
        panels: pictures.
    """

    frame: str
    why: str
    facts: tuple[tuple[str, str], ...]
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class FrameMaps:
    """What can be painted of a frame.

    Attributes:
        truth: ground truth, None where it was not found.
        image: uint8 [h, w, 3] or None.
        predictions: label -> depth [H, W] metres.
        uncertainty: label -> map [H, W].
    """

    truth: SparseDepth | None
    image: Rgb | None = None
    predictions: Mapping[str, FloatMap] = field(default_factory=dict)
    uncertainty: Mapping[str, FloatMap] = field(default_factory=dict)


def panels(maps: FrameMaps, labels: Sequence[str]) -> tuple[Panel, ...]:
    """Paint everything there is of a frame, the models in the order of their labels."""
    out: list[Panel] = []
    truth = None if maps.truth is None else maps.truth.dense()
    span = _span([truth] if truth is not None else list(maps.predictions.values()))
    if maps.image is not None:
        out.append(Panel("image", jpeg(maps.image)))
    if maps.truth is not None and truth is not None:
        out.append(Panel("ground truth", jpeg(grown(depth_picture(truth, span), truth > 0))))
        out.append(Panel("distance bins and depth edges", jpeg(region_picture(maps.truth, maps.image))))
    for label in labels:
        if label not in maps.predictions:
            continue
        prediction = maps.predictions[label]
        out.append(Panel(f"{label}: prediction", jpeg(depth_picture(prediction, span))))
        if truth is not None and truth.shape == prediction.shape:
            out.append(Panel(f"{label}: error", jpeg(error_picture(truth, prediction))))
        if label in maps.uncertainty:
            out.append(Panel(f"{label}: uncertainty", jpeg(spread_picture(maps.uncertainty[label]))))
    return tuple(out)


def jpeg(picture: Rgb, width: int = WIDTH, quality: int = QUALITY) -> str:
    """Shrink a picture uint8 [H, W, 3] to a width and return it as a JPEG data URI."""
    from PIL import Image

    drawn = Image.fromarray(np.ascontiguousarray(picture))
    if drawn.width > width:
        drawn = drawn.resize((width, max(1, round(drawn.height * width / drawn.width))), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    drawn.save(stream, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _span(maps: Sequence[FloatMap]) -> tuple[float, float]:
    """Range of inverse depth that all depth pictures of a frame share: 2nd to 98th percentile."""
    values = [1.0 / m[(m > 0) & np.isfinite(m)].astype(np.float64) for m in maps]
    pool = np.concatenate(values) if values else np.empty(0)
    if not pool.size:
        return 0.0, 1.0
    low, high = np.percentile(pool, [2, 98])
    return (float(low), float(high)) if high > low else (float(low) * 0.5, float(low) * 1.5)


def depth_picture(depth: FloatMap, span: tuple[float, float]) -> Rgb:
    """Colour depth [H, W] by its inverse within a given span; near is bright, nothing is black."""
    values = np.asarray(depth, np.float64)
    valid = np.isfinite(values) & (values > 0)
    out = np.zeros((*values.shape, 3), np.uint8)
    level = np.clip((1.0 / values[valid] - span[0]) / (span[1] - span[0]), 0, 1)
    out[valid] = palette()[np.rint(level * 255).astype(np.intp)]
    return out


def spread_picture(values: FloatMap) -> Rgb:
    """Colour an uncertainty map [H, W] between its 2nd and 98th percentile; uncertain is bright."""
    from adubench.io.color_map import colorize

    numbers = np.asarray(values, np.float64)
    finite = np.isfinite(numbers)
    shifted = np.where(finite, numbers - (numbers[finite].min() if finite.any() else 0) + 1e-6, 0)
    return colorize(shifted, invert=False)


def error_picture(truth: FloatMap, prediction: FloatMap) -> Rgb:
    """Paint errors in the classes of KITTI's devkit: the smaller of |e| / 3 m and |e| / (5 % of the depth)."""
    valid = (truth > 0) & np.isfinite(truth)
    error = np.abs(prediction.astype(np.float64) - truth)
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.minimum(error / 3.0, error / truth / 0.05)
    out = np.zeros((*truth.shape, 3), np.uint8)
    bounds = np.array([bound for bound, _ in ERROR_CLASSES[:-1]])
    colours = np.array([colour for _, colour in ERROR_CLASSES], np.uint8)
    size = np.where(np.isfinite(size), size, np.inf)
    out[valid] = colours[np.searchsorted(bounds, size[valid], side="left")]
    return grown(out, valid)


def region_picture(truth: SparseDepth, image: Rgb | None) -> Rgb:
    """Tint measured pixels by distance bin over the grey image, depth edges in white."""
    depth = truth.dense()
    valid = depth > 0
    label = np.where(valid, np.digitize(depth, DISTANCE_BINS), -1)
    base: Any = np.zeros((*depth.shape, 3), np.uint8)
    if image is not None and image.shape[:2] == depth.shape:
        base = image
    painted = grown(overlay_bins(base, label), valid)
    edges = depth_edges(truth, EDGE_GAPS)
    flat = painted.reshape(-1, 3)
    flat[edges.index[edges.near]] = 255
    return painted


def grown(picture: Rgb, valid: NDArray[np.bool_]) -> Rgb:
    """Paint the four neighbours of measured pixels in their colour where nothing was measured."""
    if valid.mean() > 0.5:
        return picture
    out, taken = picture.copy(), valid.copy()
    for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
        moved = np.roll(valid, step, axis)
        colours = np.roll(picture, step, axis)
        edge = [slice(None), slice(None)]
        edge[axis] = slice(0, 1) if step == 1 else slice(-1, None)
        moved[tuple(edge)] = False
        free = moved & ~taken
        out[free] = colours[free]
        taken |= free
    return out
