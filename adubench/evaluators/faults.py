"""Known faults: what a dense depth map looks like when it is wrong in one stated way.

A metric that does not change under a fault is blind to it. Every fault takes exact dense depth and returns a map of
the same shape; its strength is a number with a unit, so that a table can say what was done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from adubench.errors import unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    FloatMap = NDArray[np.float32]
    Rule = Callable[[FloatMap, float, np.random.Generator], FloatMap]

EDGE_JUMP = 0.1
EDGE_REACH = 3
FAR_FROM = 40.0
RANGE_M = 80.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to be wrong.

    Attributes:
        name: in tables and options.
        about: what is done to the map.
        unit: of the strength.
        strengths: what is tried when nothing else is asked, weak to strong.
        rule: (depth [H, W] metres with 0 = none, strength, generator) -> depth [H, W].
    """

    name: str
    about: str
    unit: str
    strengths: tuple[float, ...]
    rule: Rule


def edge_mask(depth: FloatMap, jump: float = EDGE_JUMP) -> NDArray[np.bool_]:
    """Mark both pixels of every horizontal or vertical pair whose depths differ by more than a share `jump`."""
    out = np.zeros(depth.shape, bool)
    for axis in (0, 1):
        first = [slice(None), slice(None)]
        second = [slice(None), slice(None)]
        first[axis], second[axis] = slice(None, -1), slice(1, None)
        a, b = depth[tuple(first)], depth[tuple(second)]
        found = (a > 0) & (b > 0) & (np.maximum(a, b) > (1 + jump) * np.minimum(a, b))
        out[tuple(first)] |= found
        out[tuple(second)] |= found
    return out


def _scale(depth: FloatMap, strength: float, rng: np.random.Generator) -> FloatMap:
    return (depth * strength).astype(np.float32)


def _offset(depth: FloatMap, strength: float, rng: np.random.Generator) -> FloatMap:
    return np.where(depth > 0, np.maximum(depth + np.float32(strength), np.float32(1e-3)), 0).astype(np.float32)


def _blurred(depth: FloatMap, sigma: float) -> FloatMap:
    """Blur where depth is known, weighting by what is known."""
    from scipy.ndimage import gaussian_filter

    known = (depth > 0).astype(np.float32)
    weight = gaussian_filter(known, sigma, mode="nearest")
    total = gaussian_filter(depth, sigma, mode="nearest")
    return np.where(depth > 0, total / np.maximum(weight, np.float32(1e-6)), 0).astype(np.float32)


def _blur(depth: FloatMap, strength: float, rng: np.random.Generator) -> FloatMap:
    return _blurred(depth, strength)


def _edge_shift(depth: FloatMap, strength: float, rng: np.random.Generator) -> FloatMap:
    """Move silhouettes sideways: near edges the map comes from `strength` columns to the left."""
    from scipy.ndimage import binary_dilation

    columns = round(strength)
    moved = np.concatenate([np.repeat(depth[:, :1], columns, axis=1), depth[:, :-columns]], axis=1)
    near = binary_dilation(edge_mask(depth) | edge_mask(moved), iterations=columns)
    return np.where(near & (moved > 0) & (depth > 0), moved, depth).astype(np.float32)


def _edge_bleeding(depth: FloatMap, strength: float, rng: np.random.Generator) -> FloatMap:
    from scipy.ndimage import binary_dilation

    near = binary_dilation(edge_mask(depth), iterations=max(1, round(2 * strength)))
    return np.where(near, _blurred(depth, strength), depth).astype(np.float32)


def _waves(depth: FloatMap, strength: float, rng: np.random.Generator) -> FloatMap:
    """Ripples of 16 pixels away from edges: flat surfaces are no longer flat."""
    from scipy.ndimage import binary_dilation

    rows, columns = np.mgrid[: depth.shape[0], : depth.shape[1]]
    ripple = np.sin(2 * np.pi * rows / 16) * np.sin(2 * np.pi * columns / 16)
    flat = ~binary_dilation(edge_mask(depth), iterations=EDGE_REACH)
    return np.asarray(depth * (1 + strength * ripple * flat), np.float32)


def _far_compression(depth: FloatMap, strength: float, rng: np.random.Generator) -> FloatMap:
    far = depth > FAR_FROM
    return np.where(far, FAR_FROM + (depth - FAR_FROM) * (1 - strength), depth).astype(np.float32)


def _thin_dropped(depth: FloatMap, strength: float, rng: np.random.Generator) -> FloatMap:
    """Poles narrower than `strength` pixels vanish: a grey closing puts the background in their place."""
    from scipy.ndimage import grey_closing

    closed = grey_closing(depth, size=(1, round(strength)))
    thin = (closed > (1 + EDGE_JUMP) * depth) & (depth > 0)
    return np.where(thin, closed, depth).astype(np.float32)


def _noise(depth: FloatMap, strength: float, rng: np.random.Generator) -> FloatMap:
    return (depth * np.exp(rng.normal(0, strength, depth.shape))).astype(np.float32)


def _far_noise(depth: FloatMap, strength: float, rng: np.random.Generator) -> FloatMap:
    """Relative noise that grows with distance and reaches `strength` at 80 m."""
    return (depth * np.exp(rng.normal(0, 1, depth.shape) * strength * depth / RANGE_M)).astype(np.float32)


FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault("scale", "all depths times a factor", "factor", (1.01, 1.05, 1.25), _scale),
        Fault("offset", "all depths plus a constant", "m", (0.1, 0.5, 2.0), _offset),
        Fault("noise", "independent log-normal noise at every pixel", "sd", (0.02, 0.05, 0.1), _noise),
        Fault("far-noise", "noise proportional to distance", "sd at 80 m", (0.05, 0.1, 0.3), _far_noise),
        Fault("blur", "Gaussian blur of the whole map", "px", (1.0, 2.0, 4.0), _blur),
        Fault("edge-shift", "silhouettes moved sideways", "px", (1.0, 2.0, 4.0), _edge_shift),
        Fault("edge-bleeding", "blur near depth edges alone", "px", (1.0, 2.0, 4.0), _edge_bleeding),
        Fault("waves", "ripples on surfaces away from edges", "share", (0.01, 0.02, 0.05), _waves),
        Fault("far-compression", "what lies beyond 40 m is pulled in", "share", (0.1, 0.25, 0.5), _far_compression),
        Fault("thin-dropped", "objects narrower than this vanish", "px", (4.0, 8.0, 16.0), _thin_dropped),
    )
}


def apply_fault(name: str, depth: FloatMap, strength: float, seed: int = 0) -> FloatMap:
    """Make a map wrong in one way.

    Args:
        name: a key of `FAULTS`.
        depth: [H, W] metres, dense; 0 where nothing is known.
        strength: in the fault's unit.
        seed: of the faults that draw random numbers.

    Returns:
        float32 [H, W] metres, 0 where the input is 0.

    Raises:
        UsageError: an unknown fault.
    """
    if name not in FAULTS:
        raise unknown_name("fault", name, FAULTS)
    rng = np.random.default_rng(seed)
    wrong = FAULTS[name].rule(np.asarray(depth, np.float32), strength, rng)
    return np.where(depth > 0, wrong, 0).astype(np.float32)
