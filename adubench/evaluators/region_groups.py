"""Groups of images (`--group-by`): by drive, by how bright the image is, or by a file, e.g. weather and night."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from adubench.errors import UsageError
from adubench.evaluators.region_summary import group_rows, image_mean, pooled

if TYPE_CHECKING:
    from adubench.evaluators.result import EvaluationResult, MomentTable


def add_groups(result: EvaluationResult, asked: str, least_per_image: int) -> None:
    """Put `groups` into every region's entry: group -> its metrics and sizes.

    The row `all` has the mean over the group's images (whole images are the unit there), other regions the sums over
    pixels, as in their own rows; both have `image_mean` beside it.

    Args:
        result: with its regions and moment table.
        asked: "drive", "light", or the path of a CSV with lines image,group.
        least_per_image: pixels that an image needs in a region to enter a mean over images.

    Raises:
        UsageError: "light" without the family of that name.
        DataError: a broken file, or none of its images is in the result.
    """
    table = result.moments
    assert table is not None
    groups = _groups(table, asked)
    for position, name in enumerate(table.regions):
        least = 1 if name == "all" else max(1, least_per_image)
        found: dict[str, Any] = {}
        for group, rows in group_rows(table.values[:, position], table.frames, groups).items():
            mean = image_mean(rows, least)
            sizes = {"n_pixels": int(rows[:, 0].sum()), "n_images": int((rows[:, 0] > 0).sum())}
            found[group] = {**(mean if name == "all" else pooled(rows)), "image_mean": mean, **sizes}
        result.regions[name] = result.regions[name] | {"groups": found}
    without = sum(frame not in groups for frame in table.frames)
    if without:
        result.warnings.append(f"--group-by: {without} of {len(table.frames)} images are in no group.")


def _groups(table: MomentTable, asked: str) -> dict[str, str]:
    if asked == "drive":
        return dict(zip(table.frames, table.drives, strict=True))
    if asked == "light":
        return _by_light(table)
    from adubench.io.groups import read_groups

    return read_groups(asked)


def _by_light(table: MomentTable) -> dict[str, str]:
    """Put an image into the bin of `light` that holds its median evaluated pixel."""
    bins = [k for k, name in enumerate(table.regions) if name.startswith("light") and name[5:].isdecimal()]
    if not bins:
        raise UsageError("--group-by light: add the family 'light' to --regions (it needs camera images).")
    counts = table.values[:, bins, 0]
    half = counts.sum(axis=1, keepdims=True) / 2
    chosen = (np.cumsum(counts, axis=1) >= half).argmax(axis=1)
    lit = counts.sum(axis=1) > 0
    return {frame: table.regions[bins[k]] for frame, k, ok in zip(table.frames, chosen, lit, strict=True) if ok}
