"""From region rows to numbers: pooled and per-image metrics, sizes, and which rows have too few pixels to print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import DataError
from adubench.evaluators.metrics import metrics_from_moments

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from adubench.evaluators.region_params import Region

FloatArray = NDArray[np.float64]

#: Images with fewer pixels in a region do not enter its mean over images: concave metrics shrink with few pixels.
LEAST_PER_IMAGE = 50
#: A row with fewer pixels or images is printed as n/a.
LEAST_PIXELS, LEAST_IMAGES = 500, 10
_LIGHT_STEPS = 1000


def pooled(rows: NDArray[Any]) -> dict[str, float]:
    """Metrics of the sums over images: every pixel counts once.

    Args:
        rows: float64 [N, 15] of one region.

    Returns:
        metric -> value; NaN without pixels.
    """
    return {key: float(v) for key, v in metrics_from_moments(np.sum(rows, axis=0)).items()}


def image_mean(rows: NDArray[Any], least: int = 1) -> dict[str, float]:
    """Mean over the images with at least `least` pixels in the region: every such image counts once.

    Args:
        rows: float64 [N, 15] of one region.
        least: pixels that an image must have, at least 1.

    Returns:
        metric -> value; NaN when no image qualifies.
    """
    enough = rows[rows[:, 0] >= max(1, least)]
    if enough.shape[0] == 0:
        return dict.fromkeys(metrics_from_moments(np.zeros(15)), float("nan"))
    return {key: float(np.mean(column)) for key, column in metrics_from_moments(enough).items()}


def region_summary(
    values: NDArray[Any],
    names: Sequence[str],
    *,
    least_per_image: int = LEAST_PER_IMAGE,
    least_pixels: int = LEAST_PIXELS,
    least_images: int = LEAST_IMAGES,
) -> dict[str, dict[str, Any]]:
    """Summarise a moment table by region.

    Args:
        values: float64 [N, R, 15], one of the regions is `all`.
        names: the R names.
        least_per_image: for the mean over images; the row `all` takes every image with a pixel.
        least_pixels: fewer pixels make a row too small to print.
        least_images: fewer images with a pixel do.

    Returns:
        region -> the pooled metrics, `image_mean` (metric -> value), `n_pixels`, `n_images` (with at least one pixel),
        `n_images_mean` (that enter the mean), `share` of all evaluated pixels in 0..1, and `too_few` (bool).
    """
    counts = values[:, :, 0]
    total = float(counts[:, list(names).index("all")].sum()) if "all" in names else 0.0
    out: dict[str, dict[str, Any]] = {}
    for position, name in enumerate(names):
        rows, count = values[:, position], counts[:, position]
        least = 1 if name == "all" else least_per_image
        pixels, images = int(count.sum()), int((count > 0).sum())
        out[name] = {
            **pooled(rows),
            "image_mean": image_mean(rows, least),
            "n_pixels": pixels,
            "n_images": images,
            "n_images_mean": int((count >= max(1, least)).sum()),
            "share": pixels / total if total else 0.0,
            "too_few": name != "all" and (pixels < least_pixels or images < least_images),
        }
    return out


def shown_regions(table: Iterable[Region], values: NDArray[Any], names: Sequence[str]) -> tuple[str, ...]:
    """Names of the rows to keep: rows for pixels in no ordinary bin only when there are such pixels.

    Args:
        table: `region_params.regions(parameters)`.
        values: float64 [N, R, 15].
        names: the R names.
    """
    filled = dict(zip(names, values[:, :, 0].sum(axis=0), strict=True))
    return tuple(r.name for r in table if r.name in filled and (not r.only_if_filled or filled[r.name] > 0))


def group_rows(values: NDArray[Any], frames: Sequence[str], groups: dict[str, str]) -> dict[str, FloatArray]:
    """Split the rows of one region by groups of images (`--group-by`).

    Args:
        values: float64 [N, 15].
        frames: the N names.
        groups: image -> group, from `io.groups.read_groups`; images without group are left out.

    Returns:
        group -> float64 [n, 15], groups in the order of their names.

    Raises:
        DataError: no image has a group.
    """
    label = [groups.get(frame) for frame in frames]
    found = sorted({g for g in label if g is not None})
    if frames and not found:
        raise DataError(
            f"--group-by: none of the {len(frames)} images is in the file; it has e.g. '{next(iter(groups), '')}', "
            f"the result '{frames[0]}'."
        )
    mark = np.array([found.index(g) if g is not None else -1 for g in label])
    return {name: values[mark == k] for k, name in enumerate(found)}


# ---- quantiles of lightness ------------------------------------------------------------------------------------------


def light_histogram(values: NDArray[Any]) -> NDArray[np.int64]:
    """Count L* values in 1000 steps of 0..100, int64 [1000]; add the histograms of all images."""
    step = np.clip((np.asarray(values, np.float64) * (_LIGHT_STEPS / 100.0)).astype(np.int64), 0, _LIGHT_STEPS - 1)
    return np.bincount(step.reshape(-1), minlength=_LIGHT_STEPS).astype(np.int64)


def light_bounds(histogram: NDArray[np.int64], quantiles: Sequence[float]) -> tuple[float, ...]:
    """L* values below which the given shares of pixels lie, to 0.1.

    Raises:
        DataError: the histogram is empty.
    """
    running = np.cumsum(histogram)
    if running[-1] == 0:
        raise DataError("--light-quantiles: no evaluated pixel has an image.")
    steps = np.searchsorted(running, np.asarray(quantiles) * running[-1]) + 1
    return tuple(float(s) * 100.0 / _LIGHT_STEPS for s in steps)
