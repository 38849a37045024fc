"""Geometry of training samples: KITTI window, rotation, random crop, flip, in the order of the NeWCRFs loader.

Order and draws: NeWCRFs, `dataloaders/dataloader.py`, `DataLoadPreprocess`: window, rotation of the 8-bit image
(bilinear) and the integer depth (nearest) by Pillow, random crop, flip, colours, normalisation. Ground truth is never
interpolated. Every number of a sample is drawn before its files are read, and always all of them, so that switching one
step off leaves the others as they were.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from adubench.datasets.photometry import MEAN, STD
from adubench.errors import DataError, UsageError

#: Height and width of the window of KITTI's depth benchmark.
KB_SIZE = (352, 1216)

Image8 = NDArray[np.uint8]
Codes = NDArray[np.uint16]
FlipRule = Literal["auto", "swap", "joint", "none"]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How samples are made.

    Attributes:
        size: (H, W) that the network sees: of the crop, or of the resized image.
        mode: "crop" cuts a window and keeps the focal length in pixels; "resize" scales the whole image (bilinear,
            without antialiasing) and leaves the ground truth at its own size: the output is resized to it in the loss.
        kb_crop: cut KITTI's 352x1216 window first, where the image is at least that large.
        degrees: the angle is uniform in [-degrees, degrees]; 0 switches rotation off.
        flip: probability of a horizontal flip (a sample is flipped when a uniform number exceeds 1 - flip).
        photometric: probability of a change of colours.
        gamma: range of the exponent.
        brightness: range of the factor.
        colour: range of the factor per channel.
        geometry: "pillow" (exact), or "opencv" (one warp; faster, not bit-equal; needs the package).
        enabled: False makes plain samples: the window, nothing random; the whole window in mode "crop".
        mean: of normalisation.
        std: of normalisation.
    """

    size: tuple[int, int] = (352, 1120)
    mode: Literal["crop", "resize"] = "crop"
    kb_crop: bool = True
    degrees: float = 1.0
    flip: float = 0.5
    photometric: float = 0.5
    gamma: tuple[float, float] = (0.9, 1.1)
    brightness: tuple[float, float] = (0.9, 1.1)
    colour: tuple[float, float] = (0.9, 1.1)
    geometry: Literal["pillow", "opencv"] = "pillow"
    enabled: bool = True
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD

    def __post_init__(self) -> None:
        if self.geometry not in ("pillow", "opencv"):
            raise UsageError(f"unknown geometry '{self.geometry}': choose pillow (exact) or opencv (fast).")
        if self.mode not in ("crop", "resize"):
            raise UsageError(f"unknown input mode '{self.mode}': choose crop or resize.")


#: Constants of the NeWCRFs code for its two data sets.
KITTI = Augmentation()
NYU = Augmentation((480, 640), kb_crop=False, degrees=2.5, brightness=(0.75, 1.25))


@dataclass(frozen=True, slots=True)
class Colours:
    """A change of colours: value ** gamma * brightness * factor of the channel, clipped to [0, 1]."""

    gamma: float
    brightness: float
    factors: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Draw:
    """The random numbers of a sample.

    Attributes:
        angle: degrees, counter-clockwise.
        across: position of the crop between the left (0) and the right edge (just below 1).
        down: the same from top to bottom.
        flip: mirror the sample.
        colours: None leaves them as they are.
    """

    angle: float = 0.0
    across: float = 0.0
    down: float = 0.0
    flip: bool = False
    colours: Colours | None = None


def sample_rng(seed: int, epoch: int, name: str) -> np.random.Generator:
    """Make the generator of a sample: a pure function of (seed, epoch, frame name)."""
    digest = hashlib.sha256(f"adubench-sample/{seed}/{epoch}/{name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def draw_sample(rng: np.random.Generator, settings: Augmentation) -> Draw:
    """Draw a sample's numbers: rotation, crop x, crop y, flip, colours."""
    if not settings.enabled:
        return Draw()
    angle = settings.degrees * (2.0 * rng.random() - 1.0)
    across, down = rng.random(), rng.random()
    flip = rng.random() > 1.0 - settings.flip
    photometric = rng.random() > 1.0 - settings.photometric
    gamma, brightness = rng.uniform(*settings.gamma), rng.uniform(*settings.brightness)
    red, green, blue = (float(value) for value in rng.uniform(*settings.colour, 3))
    colours = Colours(gamma, brightness, (red, green, blue)) if photometric else None
    return Draw(angle, across, down, flip, colours)


def kb_window(height: int, width: int) -> tuple[int, int] | None:
    """Return (top, left) of KITTI's window, or None for an image that is smaller."""
    if height < KB_SIZE[0] or width < KB_SIZE[1]:
        return None
    return height - KB_SIZE[0], (width - KB_SIZE[1]) // 2


def kb_crop(array: NDArray[Any]) -> NDArray[Any]:
    """Cut KITTI's window out of [H, W, ...]; smaller images stay as they are."""
    corner = kb_window(*array.shape[:2])
    if corner is None:
        return array
    top, left = corner
    return array[top : top + KB_SIZE[0], left : left + KB_SIZE[1]]


def crop_corner(height: int, width: int, draw: Draw, settings: Augmentation, name: str) -> tuple[int, int, int, int]:
    """Return (top, left, height, width) of the crop inside an image.

    Raises:
        DataError: the image is smaller than the crop.
    """
    if settings.mode == "resize" or not settings.enabled:
        return 0, 0, height, width
    h, w = settings.size
    if height < h or width < w:
        raise DataError(
            f"{name}: the image has {height}x{width} pixels (height x width), less than the crop of {h}x{w}; set a "
            "smaller input.height and input.width."
        )
    # Both ends inclusive, every position equally likely.
    return int(draw.down * (height - h + 1)), int(draw.across * (width - w + 1)), h, w


def transform_image(image: Image8, draw: Draw, settings: Augmentation, *, flip: bool, name: str) -> Image8:
    """Rotate, crop and flip an image, and scale it in mode "resize".

    Args:
        image: uint8 [H, W, 3], after the window.
        draw: the sample's numbers.
        settings: how samples are made.
        flip: mirror it (the flip rule decides, not the draw alone).
        name: of the sample, for messages.

    Returns:
        uint8 [h, w, 3], contiguous.

    Raises:
        DataError: smaller than the crop; or OpenCV is asked for and missing.
    """
    box = crop_corner(image.shape[0], image.shape[1], draw, settings, name)
    if settings.geometry == "opencv":
        from adubench.datasets.warp import warp_image

        return warp_image(image, draw.angle, box, settings.size if settings.mode == "resize" else None, flip)
    top, left, h, w = box
    if draw.angle:
        image = _rotate(image, draw.angle, bilinear=True)
    image = image[top : top + h, left : left + w]
    if settings.mode == "resize":
        image = resize_bilinear(image, settings.size)
    return np.ascontiguousarray(image[:, ::-1] if flip else image)


def transform_codes(codes: Codes, draw: Draw, settings: Augmentation, *, flip: bool, name: str) -> Codes:
    """Rotate, crop and flip ground truth; it is never resized.

    Returns:
        uint16 [h, w], contiguous; 0 where the rotation brought in a border.
    """
    box = crop_corner(codes.shape[0], codes.shape[1], draw, settings, name)
    if settings.geometry == "opencv":
        from adubench.datasets.warp import warp_codes

        return warp_codes(codes, draw.angle, box, flip)
    top, left, h, w = box
    if draw.angle:
        # Pillow's nearest rotation of 32-bit integers is the reference's; 16-bit images take another path in it.
        codes = _rotate(codes.astype(np.int32), draw.angle, bilinear=False)
    codes = codes[top : top + h, left : left + w]
    return np.ascontiguousarray(codes[:, ::-1] if flip else codes, np.uint16)


def _rotate(array: NDArray[Any], angle: float, *, bilinear: bool) -> NDArray[Any]:
    """Rotate about the centre, same size, borders 0 (black, no ground truth)."""
    from PIL import Image

    method = Image.Resampling.BILINEAR if bilinear else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(array).rotate(angle, resample=method))


def resize_bilinear(image: Image8, size: tuple[int, int]) -> Image8:
    """Scale an image bilinearly without antialiasing, pixel centres at half-integers, edges repeated.

    Args:
        image: uint8 [H, W, 3].
        size: (h, w).

    Returns:
        uint8 [h, w, 3], rounded to the nearest level.
    """
    (h, w), (height, width) = size, image.shape[:2]
    if (h, w) == (height, width):
        return image
    rows, row_weight = _positions(h, height)
    columns, column_weight = _positions(w, width)
    values = image.astype(np.float32)
    down = values[rows] + (values[np.minimum(rows + 1, height - 1)] - values[rows]) * row_weight[:, None, None]
    right = down[:, np.minimum(columns + 1, width - 1)]
    out = down[:, columns] + (right - down[:, columns]) * column_weight[None, :, None]
    return np.asarray(np.rint(out), np.uint8)


def _positions(n: int, source: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Left neighbour and weight of the right one, for n samples of `source` pixels."""
    x = np.clip((np.arange(n) + 0.5) * source / n - 0.5, 0, source - 1)
    low = np.floor(x).astype(np.intp)
    return low, (x - low).astype(np.float32)


def centre_window(array: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Cut the middle out of [H, W, ...]: the common part of images whose sizes differ by a few pixels."""
    top, left = (array.shape[0] - size[0]) // 2, (array.shape[1] - size[1]) // 2
    return array[top : top + size[0], left : left + size[1]]
