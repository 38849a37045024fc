"""A sample of the pixels of a whole data set, for values that need them all at once, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from adubench.evaluators.sparsification import frame_generator
from adubench.evaluators.uncertainty_kinds import Uncertainty

FloatArray = NDArray[np.float64]

POOL_PIXELS = 2_000_000
"""Enough for three digits of ENCE; sorting them takes about two seconds."""


def starting_rate(images: int, pixels_per_image: int, budget: int = POOL_PIXELS) -> float:
    """The largest power of two that keeps at most twice the budget, so that workers send little of what is dropped.

    Give an upper bound of the pixels that an image can have; use the rate for `draw_pixels` and the pool alike.
    """
    rate, total = 1.0, images * pixels_per_image
    while rate * total > 2 * budget:
        rate /= 2
    return rate


def draw_pixels(
    gt: FloatArray, pred: FloatArray, uncertainty: Uncertainty, frame: str, *, rate: float = 1.0, seed: int = 0
) -> tuple[FloatArray | None, FloatArray | None]:
    """Draw the pixels of one image whose random priority is below the rate.

    Priorities depend on the frame and the seed only, so a lower rate keeps a subset.

    Returns:
        float64 [4, k] ground truth, prediction, score and sigma (NaN for scores), and their priorities [k]; None for
        a rate of 0.
    """
    if rate <= 0:
        return None, None
    priorities = frame_generator(frame, seed + 1).random(gt.size)
    keep = np.flatnonzero(priorities < rate)
    sigma = np.full(gt.size, np.nan) if uncertainty.sigma is None else uncertainty.sigma
    return np.stack([gt, pred, uncertainty.score, sigma])[:, keep], priorities[keep]


@dataclass(slots=True)
class PixelPool:
    """A seeded sample of the pixels of a data set, in bounded memory.

    Every pixel has a random priority, fixed by its frame and the seed, and stays while it is below the rate. The rate
    halves until the sample fits, so the sample does not depend on the number of workers; with few images it is
    everything. Add images in frame order.

    Attributes:
        budget: largest number of pixels kept.
        rate: share of the pixels that is kept.
    """

    budget: int = POOL_PIXELS
    rate: float = 1.0
    _parts: list[tuple[FloatArray, FloatArray]] = field(default_factory=list)
    _size: int = 0

    def add(self, pixels: FloatArray | None, priorities: FloatArray | None) -> None:
        """Take over what `draw_pixels` drew from one image."""
        if pixels is None or priorities is None:
            return
        self._append(pixels, priorities)
        while self._size > self.budget:
            self.rate /= 2
            parts, self._parts, self._size = self._parts, [], 0
            for part in parts:
                self._append(*part)

    def _append(self, pixels: FloatArray, priorities: FloatArray) -> None:
        keep = priorities < self.rate
        if not keep.all():
            pixels, priorities = pixels[:, keep], priorities[keep]
        self._parts.append((pixels, priorities))
        self._size += priorities.size

    @property
    def pixels(self) -> FloatArray:
        """Float64 [4, k]: ground truth, prediction, score, sigma."""
        return np.concatenate([p for p, _ in self._parts], axis=1) if self._parts else np.empty((4, 0))
