"""Colours of training images: gamma, brightness, colour factors, clip and normalisation as one table of 256 entries.

All five act value by value on 8-bit input, so the chain of the NeWCRFs loader (`dataloaders/dataloader.py`,
`augment_image` and `ToTensor`) is a look-up: nothing is approximated, and it may be done on any device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adubench.datasets.transforms import Colours

#: Mean and standard deviation of ImageNet, per RGB channel of values in [0, 1].
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

_LEVELS = np.arange(256, dtype=np.float32) / np.float32(255)


def colour_table(
    colours: Colours | None, mean: Sequence[float] = MEAN, std: Sequence[float] = STD
) -> NDArray[np.float32]:
    """Build the table of a sample.

    Args:
        colours: gamma, brightness and colour factors; None leaves the colours as they are.
        mean: per channel, of values in [0, 1].
        std: per channel.

    Returns:
        float32 [3, 256]: the normalised value of every 8-bit level.
    """
    levels = np.broadcast_to(_LEVELS, (3, 256)).astype(np.float64)
    if colours is not None:
        factors = np.array(colours.factors, np.float64)[:, None]
        levels = np.clip(levels**colours.gamma * colours.brightness * factors, 0.0, 1.0)
    table = (levels - np.array(mean)[:, None]) / np.array(std)[:, None]
    return np.asarray(table, np.float32)


def apply_table(image: NDArray[np.uint8], table: NDArray[np.float32]) -> NDArray[np.float32]:
    """Look every value up.

    Args:
        image: uint8 [H, W, 3].
        table: float32 [3, 256].

    Returns:
        float32 [3, H, W], contiguous.
    """
    out = np.empty((3, *image.shape[:2]), np.float32)
    for channel in range(3):
        # 8-bit positions are always inside; "clip" spares numpy the buffered copy that "raise" makes.
        np.take(table[channel], image[:, :, channel], out=out[channel], mode="clip")
    return out
