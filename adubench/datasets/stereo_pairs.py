"""One training sample: a frame's images and ground truth under one shared draw, with the flip rules of stereo pairs.

Both views share window, angle, crop and colours, so a pair stays rectified. A horizontal flip mirrors the sign of
disparity unless the views change places: rule `swap` makes the mirrored right view the new left one and supervises with
the mirrored right ground truth; `joint` mirrors both and keeps the order (and so the wrong sign); `none` never flips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from adubench.datasets.photometry import apply_table, colour_table
from adubench.datasets.transforms import (
    Augmentation,
    Codes,
    Image8,
    centre_window,
    draw_sample,
    kb_crop,
    kb_window,
    sample_rng,
    transform_codes,
    transform_image,
)
from adubench.errors import DataError

Flip = Literal["single", "swap", "joint", "none"]


class FrameFiles(Protocol):
    """What a sample is read from: loose files or a pack.

    Attributes:
        name: of the frame.
        flip: rule of this frame: "single" for one view, "swap", "joint" or "none" for pairs.
        stereo: whether the right view belongs to the sample.
        kitti: whether KITTI's window applies.
        scale: metres = code / scale.
        window: size that all frames are cut to around the middle before they are resized, or None.
    """

    name: str
    flip: Flip
    stereo: bool
    kitti: bool
    scale: float
    window: tuple[int, int] | None

    def image(self) -> Image8:
        """Read the image, uint8 [H, W, 3]."""
        ...

    def right(self) -> Image8:
        """Read the right image."""
        ...

    def codes(self) -> Codes:
        """Read the ground truth, uint16 [H, W]."""
        ...

    def right_codes(self) -> Codes:
        """Read the right view's ground truth."""
        ...


@dataclass(frozen=True, slots=True)
class RawSample:
    """A sample before colours and scaling are applied.

    Attributes:
        name: of the frame.
        image: uint8 [h, w, 3].
        right: the same of the right view, or None.
        codes: uint16 [h, w] (the source's own size in mode "resize"), 0 = none.
        scale: metres = code / scale.
        table: float32 [3, 256], see `photometry.colour_table`.
    """

    name: str
    image: Image8
    right: Image8 | None
    codes: Codes
    scale: float
    table: NDArray[np.float32]

    def normalised(self) -> NDArray[np.float32]:
        """Return the image as the network sees it, float32 [3, h, w]."""
        return apply_table(self.image, self.table)

    def normalised_right(self) -> NDArray[np.float32] | None:
        """Return the right image likewise, or None."""
        return apply_table(self.right, self.table) if self.right is not None else None

    def metres(self) -> NDArray[np.float32]:
        """Return the ground truth, float32 [1, h, w] metres, 0 = none."""
        return np.divide(self.codes[None], np.float32(self.scale), dtype=np.float32)


def make_sample(files: FrameFiles, settings: Augmentation, *, seed: int = 0, epoch: int = 0) -> RawSample:
    """Read a frame and augment it: a pure function of (seed, epoch, frame).

    Args:
        files: what to read.
        settings: how samples are made.
        seed: of the run.
        epoch: changes every random number.

    Raises:
        DataError: a file is missing or damaged, sizes differ, or the image is smaller than the crop.
    """
    draw = draw_sample(sample_rng(seed, epoch, files.name), settings)
    flip = draw.flip and files.flip != "none"
    swap = flip and files.flip == "swap"
    images: list[Image8] = [files.right() if swap else files.image()]
    if files.stereo:
        images.append(files.image() if swap else files.right())
    codes = files.right_codes() if swap else files.codes()
    _same_sizes(files.name, codes.shape, *(image.shape[:2] for image in images))
    if settings.kb_crop and files.kitti and kb_window(codes.shape[0], codes.shape[1]):
        images, codes = [kb_crop(image) for image in images], kb_crop(codes)
    elif settings.mode == "resize" and files.window is not None:
        images, codes = [centre_window(i, files.window) for i in images], centre_window(codes, files.window)
    done = [transform_image(image, draw, settings, flip=flip, name=files.name) for image in images]
    codes = transform_codes(codes, draw, settings, flip=flip, name=files.name)
    right = done[1] if files.stereo else None
    table = colour_table(draw.colours, settings.mean, settings.std)
    return RawSample(files.name, done[0], right, codes, files.scale, table)


def _same_sizes(name: str, *sizes: tuple[int, ...]) -> None:
    if len(set(sizes)) > 1:
        shown = ", ".join(f"{h}x{w}" for h, w in dict.fromkeys(sizes))
        raise DataError(
            f"{name}: image, right image and ground truth have different sizes ({shown}, height x width); one of them "
            "was resized or belongs to another resolution."
        )
