"""Checks of what region masks are computed from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import DataError
from adubench.io.maps import DepthMap, SparseDepth

_VOID = 255
_LAST_LABEL = 18


def check_labels(labels: NDArray[Any], name: str = "") -> None:
    """Refuse label maps that are not Cityscapes train ids.

    Raises:
        DataError: naming the unknown ids.
    """
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{_where(name)}labels are {labels.dtype}; expected whole numbers, Cityscapes train ids.")
    known = (labels >= 0) & (labels <= _LAST_LABEL) | (labels == _VOID)
    if not known.all():
        odd = ", ".join(str(v) for v in np.unique(labels[~known])[:5])
        raise DataError(
            f"{_where(name)}unknown label ids {odd}; expected Cityscapes train ids "
            f"0 to {_LAST_LABEL}, or {_VOID} for void."
        )


def check_sizes(
    shape: tuple[int, int],
    image: NDArray[Any] | None,
    labels: NDArray[Any] | None,
    edges: NDArray[Any] | None,
    K: NDArray[Any] | None,
    name: str,
) -> None:
    """Refuse inputs that do not fit the ground truth, [H, W] = `shape`.

    Raises:
        DataError: another size, an image that is not 8-bit RGB, or intrinsics that are no camera.
    """
    for what, array in (("image", image), ("label map", labels), ("edge map", edges)):
        if array is not None and array.shape[:2] != shape:
            have, want = "x".join(map(str, array.shape[:2])), "x".join(map(str, shape))
            raise DataError(f"{_where(name)}the {what} is {have}, the ground truth {want}; regions need equal sizes.")
    if image is not None and (image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3):
        raise DataError(f"{_where(name)}the image must be 8-bit RGB, got {image.dtype} {image.shape}.")
    if K is not None and not (np.shape(K) == (3, 3) and np.isfinite(K).all() and K[0, 0] > 0 and K[1, 1] > 0):
        raise DataError(f"{_where(name)}intrinsics must be a finite 3x3 matrix with positive focal lengths.")


def as_sparse(gt: SparseDepth | DepthMap | NDArray[Any]) -> SparseDepth:
    """List the valid pixels of a map given in any form.

    Raises:
        ValueError: the pixels passed a protocol's selection; neighbourhoods would have holes.
    """
    if isinstance(gt, SparseDepth):
        if gt.selected:
            raise ValueError("regions need the whole ground truth, not one protocol's pixels")
        return gt
    return SparseDepth.from_map(gt if isinstance(gt, DepthMap) else DepthMap(np.asarray(gt)))


def _where(name: str) -> str:
    return f"frame {name}: " if name else ""


def fit_image(image: NDArray[np.uint8], shape: tuple[int, int]) -> tuple[NDArray[np.uint8], bool]:
    """Bring an image to the ground truth's grid by averaging areas; tell whether it had another size.

    Intrinsics given for the image must be scaled by the same factors.
    """
    if image.shape[:2] == shape:
        return image, False
    from PIL import Image

    size = (shape[1], shape[0])
    channels = [
        Image.fromarray(image[..., c].astype(np.float32)).resize(size, Image.Resampling.BOX) for c in range(3)
    ]  # in floating point: 8-bit resizing rounds after each axis
    return np.rint(np.stack([np.asarray(c) for c in channels], axis=2)).astype(np.uint8), True
