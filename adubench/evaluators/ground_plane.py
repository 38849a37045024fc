"""The ground plane of a ground-truth map: which points lie on it, and which stand on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_ROUNDS = (0.6, 0.4, 0.3, 0.2, 0.2)  # metres around the plane
_LEAST_POINTS = 100


@dataclass(frozen=True, slots=True)
class GroundPlane:
    """Y = a + b X + c Z in camera coordinates (metres; Y points down)."""

    a: float
    b: float
    c: float


def points(index: NDArray[Any], depth: NDArray[Any], width: int, K: NDArray[Any]) -> tuple[FloatArray, FloatArray]:
    """Back-project pixels: X and Y, float64 [n] metres.

    Args:
        index: [n] flat positions.
        depth: [n] metres.
        width: of the map.
        K: [3, 3] intrinsics in pixels, pixel centres at whole numbers.
    """
    row, column = np.divmod(index.astype(np.intp), width)
    z = depth.astype(np.float64)
    return (column - K[0, 2]) / K[0, 0] * z, (row - K[1, 2]) / K[1, 1] * z


def fit_ground(x: FloatArray, y: FloatArray, z: FloatArray, camera_height: float = 1.65) -> GroundPlane | None:
    """Fit the plane to points near the expected road, five rounds of least squares with shrinking tolerance.

    Returns:
        The plane; None when fewer than 100 points are near it in any round.
    """
    near = (y > 0.5) & (y < 3) & (z < 40) & (np.abs(x) < 10)
    x, y, z = x[near], y[near], z[near]
    plane = GroundPlane(camera_height, 0.0, 0.0)
    for tolerance in _ROUNDS:
        close = np.flatnonzero(np.abs(y - plane.a - plane.b * x - plane.c * z) < tolerance)
        if close.size < _LEAST_POINTS:
            return None
        plane = _least_squares(x.take(close), y.take(close), z.take(close))
    return plane


def _least_squares(x: FloatArray, y: FloatArray, z: FloatArray) -> GroundPlane:
    """Normal equations about the mean; slopes are 0 where the points do not determine them."""
    mx, my, mz = float(x.mean()), float(y.mean()), float(z.mean())
    dx, dy, dz = x - mx, y - my, z - mz
    xx, xz, zz, xy, zy = _dot(dx, dx), _dot(dx, dz), _dot(dz, dz), _dot(dx, dy), _dot(dz, dy)
    determinant = xx * zz - xz * xz
    if determinant <= 1e-12 * xx * zz or determinant <= 0:
        return GroundPlane(my, 0.0, 0.0)
    b, c = (xy * zz - zy * xz) / determinant, (zy * xx - xy * xz) / determinant
    return GroundPlane(my - b * mx - c * mz, b, c)


def _dot(a: FloatArray, b: FloatArray) -> float:
    """Inner product without BLAS, whose result depends on its number of threads."""
    return float(np.einsum("i,i", a, b))


def height_above(plane: GroundPlane, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
    """Height of points above the plane along the camera's vertical axis, metres."""
    return plane.a + plane.b * x + plane.c * z - y
