"""Pictures of region masks, for checking by eye (`--save-masks`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adubench.evaluators.region_params import FLAGS
from adubench.io.atomic import atomic_path

if TYPE_CHECKING:
    from adubench.evaluators.regions import RegionMasks

_COLOUR = (255, 64, 0)
_BINS = (
    (213, 62, 79),
    (252, 141, 89),
    (254, 224, 139),
    (230, 245, 152),
    (153, 213, 148),
    (50, 136, 189),
    (94, 79, 162),
)


def overlay(
    image: NDArray[Any], mask: NDArray[np.bool_], colour: tuple[int, int, int] = _COLOUR, strength: float = 0.6
) -> NDArray[np.uint8]:
    """Tint the pixels of a mask over a darkened grey picture.

    Args:
        image: uint8 [H, W, 3] or a map [H, W] of any range (shown from its smallest to its largest finite value).
        mask: bool [H, W].
        colour: of the tint.
        strength: 0 leaves the picture, 1 paints it over.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: the sizes differ.
    """
    if mask.shape != image.shape[:2]:
        raise ValueError(f"mask {mask.shape} and picture {image.shape[:2]} differ in size")
    base = np.repeat(_grey(image)[..., None] * 0.7, 3, axis=2)
    base[mask] = (1 - strength) * base[mask] + strength * np.array(colour, np.float64)
    return np.rint(base).astype(np.uint8)


def overlay_bins(image: NDArray[Any], label: NDArray[np.integer[Any]], strength: float = 0.6) -> NDArray[np.uint8]:
    """Tint every bin of a partition in a colour of its own.

    Args:
        image: as for `overlay`.
        label: [H, W] bin numbers, negative for none.
        strength: as for `overlay`.

    Returns:
        uint8 [H, W, 3].
    """
    out = overlay(image, np.zeros(label.shape, np.bool_)).astype(np.float64)
    colours = np.array(_BINS, np.float64)
    inside = label >= 0
    out[inside] = (1 - strength) * out[inside] + strength * colours[label[inside] % len(_BINS)]
    return np.rint(out).astype(np.uint8)


def write_overlays(
    folder: str | Path, frame: str, masks: RegionMasks, picture: NDArray[Any] | None = None
) -> tuple[Path, ...]:
    """Write one PNG per family of bins (a colour per bin) and per overlapping region.

    Args:
        folder: written to as `<folder>/<family or region>/<frame>.png`.
        frame: its name, may contain "/".
        masks: of all pixels.
        picture: the image, or a map [H, W]; None for black.

    Returns:
        The files.

    Raises:
        DataError: a file cannot be written.
    """
    from PIL import Image

    shape, layout = masks.shape, masks.layout
    base = np.zeros((*shape, 3), np.uint8) if picture is None else picture
    out: list[Path] = []
    absent = set(masks.absent)
    for key in (*layout.fields, *layout.flags):
        if absent & {key, FLAGS.get(key, key)}:
            continue
        if key in layout.fields:
            painted = overlay_bins(base, layout.label(key, masks.words).reshape(shape))
        else:
            painted = overlay(base, masks.mask(key))
        target = Path(folder) / key / f"{frame}.png"
        with atomic_path(target) as temporary:
            Image.fromarray(painted).save(temporary, format="PNG")
        out.append(target)
    return tuple(out)


def _grey(image: NDArray[Any]) -> NDArray[np.float64]:
    """Picture as float64 [H, W] in 0..255."""
    if image.ndim == 3:
        red, green, blue = (np.asarray(image[..., c], np.float64) for c in range(3))
        return 0.299 * red + 0.587 * green + 0.114 * blue
    values = np.asarray(image, np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape)
    low, high = float(values[finite].min()), float(values[finite].max())
    span = high - low if high > low else 1.0
    return np.where(finite, (np.where(finite, values, low) - low) * (255.0 / span), 0.0)
