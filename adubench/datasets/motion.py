"""Does the camera move? Sequences in which it stands still teach a photometric objective nothing.

Zhou's split leaves static KITTI frames out; other lists do not, and a network trained on a standing camera learns holes
of infinite depth. A drive counts as static by how many pixels change between neighbours: noise changes few by more than
a few grey levels, and traffic that passes a standing camera only its own part of the picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from adubench.datasets.triplets import TripletPlaces, source_key
from adubench.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from adubench.datasets.frames import FrameKey

#: Size at which neighbours are compared; averaging takes the noise out.
SIZE = (96, 320)
#: Grey levels by which a pixel has to change.
LEVELS = 4.0
#: Smallest share of changed pixels of a moving camera, in the median over a drive.
SHARE = 0.05


def changed_share(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Share of the pixels that change from one image to the other by more than `LEVELS` grey levels."""
    a, b = _small(first), _small(second)
    return float((np.abs(a - b) > LEVELS).mean())


def static_drives(
    places: TripletPlaces, frames: tuple[FrameKey, ...], *, offset: int = 1, samples: int = 8
) -> dict[str, float]:
    """Find drives whose camera stands still.

    Args:
        places: where the images are.
        frames: the frames of a split, in any order.
        offset: distance of the neighbour in frames.
        samples: frames per drive that are looked at, spread evenly.

    Returns:
        drive -> median share of changed pixels, for the static ones only.
    """
    by_drive: dict[str, list[FrameKey]] = {}
    for frame in sorted(frames):
        if places.has(frame, 0) and places.has(frame, offset):
            by_drive.setdefault(frame.drive, []).append(frame)
    found = {}
    for drive, members in by_drive.items():
        picked = [members[int(k)] for k in np.unique(np.linspace(0, len(members) - 1, samples).astype(int))]
        shares = [changed_share(places.image(frame, 0), places.image(frame, offset)) for frame in picked]
        if np.median(shares) < SHARE:
            found[drive] = float(np.median(shares))
    return found


def check_motion(places: TripletPlaces, frames: tuple[FrameKey, ...], *, offset: int = 1) -> None:
    """Refuse a split with static drives.

    Raises:
        DataError: naming the drives.
    """
    static = static_drives(places, frames, offset=offset)
    if static:
        names = ", ".join(f"{drive} ({share:.1%} of the pixels change)" for drive, share in list(static.items())[:3])
        more = f" and {len(static) - 3} more" if len(static) > 3 else ""
        first = next(frame for frame in sorted(frames) if frame.drive in static)
        raise DataError(
            f"the camera stands still in {names}{more}, e.g. between {first.name} and "
            f"{source_key(first, offset).name}: a photometric objective learns nothing there. Leave these drives out, "
            "or take a split without static frames (eigen_zhou)."
        )


def _small(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    from PIL import Image

    grey = Image.fromarray(np.ascontiguousarray(image)).convert("L")
    return np.asarray(grey.resize((SIZE[1], SIZE[0]), Image.Resampling.BOX), np.float32)
