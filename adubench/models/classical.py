"""Two predictors without a network: a lower and an upper reference for everything that learns.

`RowMean` knows the height in the image alone: what a camera on a car sees at a row is mostly road at one distance.
`BlockMatcher` has what a monocular network lacks, the second image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    FloatMap = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RowMean:
    """Depth as a function of the image row alone.

    Attributes:
        depth_m: float32 [H], metres per row.
    """

    depth_m: NDArray[np.float32]

    @classmethod
    def fit(cls, maps: Iterable[FloatMap]) -> RowMean:
        """Fit on ground truth: the geometric mean of the given depths of each row.

        Args:
            maps: float32 [H, W] in metres, 0 = no measurement, all of one height.

        Raises:
            ValueError: no map, or none with a measurement.
        """
        log_sum: NDArray[np.float64] | None = None
        count: NDArray[np.float64] | None = None
        for depth in maps:
            valid = depth > 0
            logs = np.log(depth, where=valid, out=np.zeros(depth.shape, np.float64))
            rows, given = logs.sum(axis=1), valid.sum(axis=1).astype(np.float64)
            log_sum = rows if log_sum is None else log_sum + rows
            count = given if count is None else count + given
        if log_sum is None or count is None or not count.any():
            raise ValueError("RowMean.fit needs at least one map with measurements")
        rows_known = np.flatnonzero(count)
        profile = np.interp(np.arange(count.size), rows_known, log_sum[rows_known] / count[rows_known])
        return cls(np.exp(profile).astype(np.float32))

    def predict(self, image: NDArray[np.uint8]) -> FloatMap:
        """Return float32 [H, W] in metres for an image [H, W, 3]; only its size matters.

        Raises:
            ValueError: the image has another height than the maps of the fit.
        """
        if image.shape[0] != self.depth_m.size:
            raise ValueError(f"fitted for {self.depth_m.size} rows, got an image of {image.shape[0]}")
        return np.repeat(self.depth_m[:, None], image.shape[1], axis=1)


@dataclass(frozen=True, slots=True)
class StereoMatcher:
    """Semi-global matching (Hirschmueller, PAMI 2008) with four paths: needs the right image, learns nothing.

    The cost is the truncated absolute difference of grey value and gradients in a small window; a left-right check and
    the farther neighbour fill what only one camera sees.

    Attributes:
        focal_baseline: focal length in pixels times baseline in metres.
        min_depth: nearest depth searched, metres.
        max_depth: where the disparity runs out, metres.
        window: side of the matching window in pixels, odd.
        small_penalty: price of a disparity step of one pixel between neighbours.
        large_penalty: price of a larger step.
    """

    focal_baseline: float
    min_depth: float = 2.5
    max_depth: float = 80.0
    window: int = 3
    small_penalty: float = 0.3
    large_penalty: float = 2.0

    def predict(self, left: NDArray[np.uint8], right: NDArray[np.uint8]) -> FloatMap:
        """Return float32 [H, W] in metres for a rectified pair of images [H, W, 3]."""
        from scipy import ndimage

        costs = self._aggregated(self._costs(_features(left), _features(right)))
        best = costs.argmin(axis=0)
        disparity = best + _parabola(costs, best)
        reverse = _right_view(costs).argmin(axis=0)
        columns = np.clip(np.arange(best.shape[1]) - best, 0, None)
        consistent = np.abs(np.take_along_axis(reverse, columns, axis=1) - best) <= 1
        disparity = _fill(np.where(consistent, disparity, np.nan))
        disparity = ndimage.median_filter(disparity, size=3, mode="nearest")
        depth = self.focal_baseline / np.maximum(disparity, self.focal_baseline / self.max_depth)
        result: FloatMap = depth.astype(np.float32)
        return result

    def _costs(self, left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
        """Matching cost [D, H, W] for disparities 0 .. D-1; columns without partner cost the most."""
        from scipy import ndimage

        height, width = left.shape[:2]
        levels = min(int(np.ceil(self.focal_baseline / self.min_depth)) + 1, width - 1)
        costs = np.empty((levels, height, width), np.float32)
        for d in range(levels):
            difference = np.full((height, width), _NO_PARTNER, np.float32)
            difference[:, d:] = np.minimum(np.abs(left[:, d:] - right[:, : width - d]), 0.3).sum(axis=2)
            ndimage.uniform_filter(difference, self.window, output=costs[d], mode="nearest")
        return costs

    def _aggregated(self, costs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sum the costs of the cheapest paths that arrive from left, right, above and below."""
        total = np.zeros_like(costs)
        for axis in (1, 2):
            moved, out = np.moveaxis(costs, axis, 0), np.moveaxis(total, axis, 0)
            for order in (slice(None), slice(None, None, -1)):
                self._add_paths(moved[order], out[order])
        return total

    def _add_paths(self, costs: NDArray[np.float32], total: NDArray[np.float32]) -> None:
        """Follow the paths along the first axis; `costs` and `total` are [length, D, others]."""
        path = costs[0].copy()
        total[0] += path
        for step in range(1, costs.shape[0]):
            least = path.min(axis=0)
            reach = np.minimum(path, least + np.float32(self.large_penalty))
            np.minimum(reach[1:], path[:-1] + np.float32(self.small_penalty), out=reach[1:])
            np.minimum(reach[:-1], path[1:] + np.float32(self.small_penalty), out=reach[:-1])
            path = costs[step] + reach - least
            total[step] += path


_CONTRAST = 0.12
_NO_PARTNER = 0.12  # about a fair match: where only the left camera sees, the neighbours decide


def _features(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Grey value and gradients in units of the image's own contrast, [H, W, 3] float32."""
    grey = image.astype(np.float32).mean(axis=2) / 255.0
    rows, columns = np.gradient(grey)
    # Weak light has weak gradients; what counts is how large a difference is against what the image has.
    contrast = np.float32(_CONTRAST / max(float(np.abs(columns).mean() + np.abs(rows).mean()), 1e-3))
    features: NDArray[np.float32] = contrast * np.stack([0.25 * grey, columns, rows], axis=2).astype(np.float32)
    return features


def _parabola(costs: NDArray[np.float32], best: NDArray[np.intp]) -> NDArray[np.float32]:
    """Sub-pixel offset in [-0.5, 0.5] from the costs beside the best one."""
    inner = np.clip(best, 1, costs.shape[0] - 2)
    before, centre, after = (np.take_along_axis(costs, (inner + o)[None], axis=0)[0] for o in (-1, 0, 1))
    bend = before - 2 * centre + after
    offset = np.where(bend > 1e-6, 0.5 * (before - after) / np.maximum(bend, 1e-6), 0.0)
    return np.where(inner == best, np.clip(offset, -0.5, 0.5), 0.0).astype(np.float32)


def _right_view(costs: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same costs seen from the right image: its pixel x at disparity d is the left pixel x + d."""
    out = np.full_like(costs, np.inf)
    width = costs.shape[2]
    for d in range(costs.shape[0]):
        out[d, :, : width - d] = costs[d, :, d:]
    return out


def _fill(disparity: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fill gaps along rows with the smaller (farther) neighbour: what is hidden in one view lies behind."""
    height, width = disparity.shape
    known = np.isfinite(disparity)
    columns = np.broadcast_to(np.arange(width), (height, width))
    left = np.maximum.accumulate(np.where(known, columns, -1), axis=1)
    right = np.minimum.accumulate(np.where(known, columns, width)[:, ::-1], axis=1)[:, ::-1]
    rows = np.arange(height)[:, None]
    from_left = np.where(left >= 0, disparity[rows, np.maximum(left, 0)], np.inf)
    from_right = np.where(right < width, disparity[rows, np.minimum(right, width - 1)], np.inf)
    filled = np.where(known, disparity, np.minimum(from_left, from_right))
    empty = ~np.isfinite(filled).any(axis=1)
    if empty.all():
        return np.ones_like(filled)
    given = np.flatnonzero(~empty)
    nearest = given[np.abs(np.arange(height)[:, None] - given[None, :]).argmin(axis=1)]
    result: NDArray[np.float64] = filled[nearest]
    return result
