"""Augmentation of TIE-KD: image, ground truth and teacher map through the same geometry, in the release's order.

TIE-KD (arXiv 2402.14340), `transforms_kd2.py`: window, rotation, flip, crop, colours, normalisation. Unlike the NeWCRFs
loader the flip comes before the crop, rotation happens half of the time, and gamma acts on 0..255 values, where it is a
strong change of brightness. A sample is a pure function of (seed, epoch, frame).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from adubench.datasets.photometry import MEAN, STD, apply_table
from adubench.datasets.transforms import kb_window, sample_rng
from adubench.errors import DataError

FloatMap = NDArray[np.float32]
Window = Literal["kb", "nyu", "none"]
#: Rows and columns of NYU images that the data set's training keeps: top, bottom, left, right.
NYU_WINDOW = (45, 472, 43, 608)
KB = (352, 1216)
_BORDER = 2


@dataclass(frozen=True, slots=True)
class TieKDAugmentation:
    """How samples are made.

    Attributes:
        size: (H, W) of the random crop.
        window: "kb" cuts KITTI's 352x1216 window (smaller images stay), "nyu" rows 45:472 and columns 43:608.
        rotate: probability of a rotation.
        degrees: its angle is uniform in [-degrees, degrees], clockwise.
        flip: probability of a horizontal flip.
        colour: probability of a change of colours.
        gamma: range of the exponent of 0..255 values.
        brightness: range of the factor.
        gain: range of the factor per channel.
        rotate_teacher: turn the teacher's map too and mask what was turned in. The released code leaves it unrotated.
        enabled: False makes plain samples: the whole window, nothing random.
    """

    size: tuple[int, int] = (352, 704)
    window: Window = "kb"
    rotate: float = 0.5
    degrees: float = 2.5
    flip: float = 0.5
    colour: float = 0.5
    gamma: tuple[float, float] = (0.9, 1.1)
    brightness: tuple[float, float] = (0.9, 1.1)
    gain: tuple[float, float] = (0.9, 1.1)
    rotate_teacher: bool = True
    enabled: bool = True


KITTI = TieKDAugmentation()
NYU = TieKDAugmentation((416, 544), "nyu", brightness=(0.75, 1.25))


@dataclass(frozen=True, slots=True)
class TieKDDraw:
    """The random numbers of a sample.

    Attributes:
        degrees: clockwise, 0 for none.
        flip: mirror the sample.
        down: position of the crop from the top (0) to the bottom (just below 1).
        across: the same from left to right, in the mirrored image.
        colours: gamma, brightness and the gains of R, G, B; None leaves colours as they are.
    """

    degrees: float = 0.0
    flip: bool = False
    down: float = 0.0
    across: float = 0.0
    colours: tuple[float, float, tuple[float, float, float]] | None = None


@dataclass(frozen=True, slots=True)
class TieKDSample:
    """What a training step reads.

    Attributes:
        image: float32 [3, h, w], RGB, normalised.
        teacher: float32 [h, w] metres.
        teacher_mask: bool [h, w], False where rotation brought in a border.
        gt: float32 [h, w] metres, 0 = none; None without ground truth.
    """

    image: FloatMap
    teacher: FloatMap
    teacher_mask: NDArray[np.bool_]
    gt: FloatMap | None = None


def draw_tie_kd(seed: int, epoch: int, name: str, settings: TieKDAugmentation) -> TieKDDraw:
    """Draw a sample's numbers; always all of them, so that switching one step off leaves the others as they were."""
    if not settings.enabled:
        return TieKDDraw()
    rng = sample_rng(seed, epoch, name)
    rotates, angle = rng.random() < settings.rotate, settings.degrees * (2 * rng.random() - 1)
    flip, down, across = rng.random() < settings.flip, rng.random(), rng.random()
    coloured = rng.random() < settings.colour
    gamma, brightness = rng.uniform(*settings.gamma), rng.uniform(*settings.brightness)
    red, green, blue = (float(value) for value in rng.uniform(*settings.gain, 3))
    colours = (float(gamma), float(brightness), (red, green, blue)) if coloured else None
    return TieKDDraw(angle if rotates else 0.0, bool(flip), down, across, colours)


def cut_window(array: NDArray[Any], window: Window) -> NDArray[Any]:
    """Cut the data set's window out of [H, W, ...]; arrays smaller than KITTI's window stay as they are."""
    if window == "nyu":
        top, bottom, left, right = NYU_WINDOW
        return array[top:bottom, left:right]
    corner = kb_window(*array.shape[:2]) if window == "kb" else None
    if corner is None:
        return array
    return array[corner[0] : corner[0] + KB[0], corner[1] : corner[1] + KB[1]]


def window_size(frame: tuple[int, ...], window: Window) -> tuple[int, int]:
    """Height and width of the window of an image of shape `frame`."""
    shape = cut_window(np.empty(frame[:2], np.bool_), window).shape
    return int(shape[0]), int(shape[1])


def tie_kd_sample(
    image: NDArray[np.uint8],
    teacher: FloatMap,
    gt: FloatMap | None,
    draw: TieKDDraw,
    settings: TieKDAugmentation,
    *,
    name: str,
) -> TieKDSample:
    """Make a sample.

    Args:
        image: uint8 [H, W, 3] RGB, the whole frame.
        teacher: float32 metres at the window's size, or at the frame's: then the image's window is cut out of it.
        gt: float32 [H, W] metres of the whole frame, 0 = none, or None.
        draw: the sample's numbers.
        settings: how samples are made.
        name: of the frame, for messages.

    Raises:
        DataError: teacher map or ground truth of another size, or a window smaller than the crop.
    """
    frame = image.shape[:2]
    image = cut_window(image, settings.window)
    teacher = fit_to_window(teacher, frame, settings.window, f"teacher map of {name}")
    gt = None if gt is None else fit_to_window(gt, frame, settings.window, f"ground truth of {name}")
    mask = np.ones(teacher.shape, np.bool_)
    if draw.degrees:
        image = rotate_image(image, draw.degrees)
        gt = None if gt is None else rotate_map(gt, draw.degrees)
        if settings.rotate_teacher:
            teacher, mask = rotate_map(teacher, draw.degrees), rotate_map(mask, draw.degrees)
    box = _crop_box(image.shape[0], image.shape[1], draw, settings, name)
    table = colour_table(draw)

    def cut(array: NDArray[Any]) -> NDArray[Any]:
        mirrored = array[:, ::-1] if draw.flip else array
        return np.ascontiguousarray(mirrored[box[0], box[1]])

    return TieKDSample(apply_table(cut(image), table), cut(teacher), cut(mask), None if gt is None else cut(gt))


def fit_to_window(array: FloatMap, frame: tuple[int, ...], window: Window, what: str) -> FloatMap:
    """Bring a map to the window of an image of shape `frame`.

    Raises:
        DataError: it has neither the frame's nor the window's size.
    """
    expected = window_size(frame, window)
    if array.shape == tuple(frame):
        return cut_window(array, window)
    if array.shape == expected:
        return array
    h, w = array.shape[:2]
    raise DataError(
        f"{what}: it has {h}x{w} pixels, expected {expected[0]}x{expected[1]} (the window) or {frame[0]}x{frame[1]} "
        "(the frame). Predict the maps again from these images."
    )


def colour_table(draw: TieKDDraw) -> FloatMap:
    """Normalised value of every 8-bit level per RGB channel, float32 [3, 256]; gamma acts on 0..255 values."""
    levels = np.broadcast_to(np.arange(256, dtype=np.float64), (3, 256))
    if draw.colours is not None:
        gamma, brightness, gains = draw.colours
        levels = np.clip(levels**gamma * brightness * np.array(gains)[:, None], 0, 255)
    mean, std = (255 * np.array(values)[:, None] for values in (MEAN, STD))
    return np.asarray((levels - mean) / std, np.float32)


def rotate_image(image: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    """Rotate clockwise about the centre of the pixel grid: bilinear, black outside, rounded to 8 bits.

    Pillow's 8-bit filter truncates, its float filter does not; a black border makes edges blend as OpenCV's do.
    """
    from PIL import Image

    border = ((_BORDER, _BORDER), (_BORDER, _BORDER))
    matrix = _matrix(image.shape[0], image.shape[1], degrees, _BORDER)
    channels = []
    for channel in range(image.shape[2]):
        padded = Image.fromarray(np.pad(image[:, :, channel], border).astype(np.float32))
        turned = padded.transform(
            (image.shape[1], image.shape[0]), Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR
        )
        channels.append(np.rint(np.asarray(turned)))
    return np.stack(channels, axis=2).astype(np.uint8)


def rotate_map(values: NDArray[Any], degrees: float) -> NDArray[Any]:
    """Rotate a map [H, W] clockwise about the centre of its grid: nearest, 0 (False) outside."""
    height, width = values.shape
    a, b, c, d, e, f = _matrix(height, width, degrees, 0)
    y, x = np.arange(height)[:, None] + 0.5, np.arange(width)[None] + 0.5
    column = np.floor(a * x + b * y + c).astype(np.intp)
    row = np.floor(d * x + e * y + f).astype(np.intp)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    picked = values[row.clip(0, height - 1), column.clip(0, width - 1)]
    return np.where(inside, picked, np.zeros((), values.dtype))


def _matrix(height: int, width: int, degrees: float, border: int) -> tuple[float, float, float, float, float, float]:
    """Coefficients that map output to input positions, both with pixel centres at halves, as Pillow counts."""
    angle = np.deg2rad(degrees)
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    x, y = width / 2, height / 2
    return (cos, sin, x - cos * x - sin * y + border, -sin, cos, y + sin * x - cos * y + border)


def _crop_box(height: int, width: int, draw: TieKDDraw, settings: TieKDAugmentation, name: str) -> tuple[slice, slice]:
    if not settings.enabled:
        return slice(None), slice(None)
    h, w = settings.size
    if height < h or width < w:
        raise DataError(
            f"{name}: the image has {height}x{width} pixels (height x width), less than the crop of {h}x{w}; set a "
            "smaller input.height and input.width."
        )
    top, left = int(draw.down * (height - h + 1)), int(draw.across * (width - w + 1))
    return slice(top, top + h), slice(left, left + w)
