"""Depth edges from ground truth that may be sparse: jumps between consecutive valid samples of a row or a column.

Nothing is interpolated. A slant check in inverse depth, where planes are linear, tells a surface seen at a grazing
angle from a silhouette; without it most of the far road would be an edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from adubench.io.maps import SparseDepth

BoolArray = NDArray[np.bool_]
IndexArray = NDArray[np.intp]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Chain:
    """Valid samples along all rows (or all columns), one line after the other.

    Attributes:
        order: intp [n], position of each sample in the list of valid pixels.
        step: int32 [n - 1], pixels to the next sample of the same line.
        linked: bool [n - 1], the next sample lies on the same line and not farther than the largest gap.
    """

    order: IndexArray
    step: NDArray[np.int32]
    linked: BoolArray


@dataclass(frozen=True, slots=True)
class DepthEdges:
    """Edge samples among the valid pixels of a map.

    Attributes:
        index: intp [n] flat positions of the valid pixels, ascending.
        near: bool [n], nearer sample of an edge pair.
        far: bool [n], farther sample of an edge pair.
        seethrough: bool [n], farther sample of edge pairs on both sides (along the row, or along the column).
    """

    index: IndexArray
    near: BoolArray
    far: BoolArray
    seethrough: BoolArray


def density(gt: SparseDepth) -> float:
    """Share of valid pixels in the rows between the first and the last valid row; 0 without any."""
    if gt.index.size == 0:
        return 0.0
    width = gt.shape[1]
    rows = int(gt.index.max()) // width - int(gt.index.min()) // width + 1
    return float(gt.index.size / (rows * width))


def row_chain(index: IndexArray, width: int, gap: int) -> Chain:
    """Samples along rows.

    Args:
        index: intp [n] flat positions, ascending.
        width: of the map.
        gap: largest distance of linked samples in pixels.
    """
    line, place = np.divmod(index.astype(np.int32), np.int32(width))
    return _chain(np.arange(index.size), line, place, gap)


def column_chain(index: IndexArray, width: int, gap: int) -> Chain:
    """Samples along columns, top to bottom."""
    place, line = np.divmod(index.astype(np.int32), np.int32(width))
    # A stable sort of 16-bit keys is a radix sort.
    keys = line.astype(np.uint16) if width <= 1 << 16 else line
    order = np.argsort(keys, kind="stable")
    return _chain(order, line.take(order), place.take(order), gap)


def _chain(order: IndexArray, line: NDArray[np.int32], place: NDArray[np.int32], gap: int) -> Chain:
    step = np.diff(place)
    linked = (np.diff(line) == 0) & (step <= gap)
    return Chain(order, step, linked)


def slanted(q: FloatArray, chain: Chain, pairs: IndexArray, kappa: float | None) -> BoolArray:
    """Tell which pairs a plane explains, bool [len(pairs)]: they are neither edges nor non-edges.

    Args:
        q: float64 [n], inverse depth in the order of the chain.
        chain: the samples.
        pairs: positions in the chain of the pairs' first samples.
        kappa: a pair is explained when a neighbour's slope predicts it to kappa times its jump; None: never.
    """
    if kappa is None or pairs.size == 0:
        return np.zeros(pairs.size, np.bool_)
    last = chain.linked.size - 1
    a, b, gap = q.take(pairs), q.take(pairs + 1), chain.step.take(pairs)
    miss = np.full(pairs.size, np.inf)
    for side, (start, neighbour) in enumerate(((pairs - 1, pairs - 1), (pairs + 1, pairs + 2))):
        inside = (start >= 0) & (start <= last)
        at = np.flatnonzero(inside)
        at = at[chain.linked.take(start[at])]
        c, d = q.take(neighbour[at]), chain.step.take(start[at])
        if side == 0:
            error = np.abs(b[at] - (a[at] + (a[at] - c) / d * gap[at]))
        else:
            error = np.abs(a[at] - (b[at] - (c - b[at]) / d * gap[at]))
        miss[at] = np.minimum(miss[at], error)
    explained: BoolArray = ~(miss > kappa * np.abs(a - b))
    return explained


def depth_edges(gt: SparseDepth, gaps: tuple[int, int], jump: float = 0.10, kappa: float | None = 0.5) -> DepthEdges:
    """Find the edge samples.

    Args:
        gt: ground truth; values that are not finite are left out.
        gaps: largest gaps along the row and along the column, in pixels; 0 for no pairs.
        jump: a pair is a candidate when its depths differ by more than this share (strict).
        kappa: slant factor, None to switch the check off.
    """
    index, depth = gt.index.astype(np.intp), gt.metres().astype(np.float64)
    finite = np.isfinite(depth)
    if not finite.all():
        index, depth = index[finite], depth[finite]
    near, far, through = (np.zeros(index.size, np.bool_) for _ in range(3))
    for gap, make in zip(gaps, (row_chain, column_chain), strict=True):
        if gap <= 0 or index.size < 2:
            continue
        chain = make(index, gt.shape[1], gap)
        first = _edge_pairs(depth, chain, jump, kappa)
        a, b = chain.order.take(first), chain.order.take(first + 1)
        forward = depth.take(b) > depth.take(a)  # the second sample is the farther one
        near[np.where(forward, a, b)] = True
        behind, ahead = b[forward], a[~forward]
        far[behind] = far[ahead] = True
        both = np.zeros(index.size, np.bool_)
        both[behind] = True
        through[ahead[both.take(ahead)]] = True
    return DepthEdges(index, near, far, through)


def _edge_pairs(depth: FloatArray, chain: Chain, jump: float, kappa: float | None) -> IndexArray:
    """Positions in the chain of the first samples of edge pairs."""
    values = depth.take(chain.order)
    a, b = values[:-1], values[1:]
    steep = (np.maximum(a, b) / np.minimum(a, b) > 1 + jump) & chain.linked
    pairs = np.flatnonzero(steep)
    keep = ~slanted(1.0 / values, chain, pairs, kappa)
    return pairs[keep]
