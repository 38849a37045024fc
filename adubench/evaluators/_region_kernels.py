"""Compiled form of the moment sums by code. Imported late, and only where numba is installed (the `fast` extra)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_LN10 = math.log(10.0)


@njit(cache=True, nogil=True, error_model="numpy")
def coded_sums(codes: NDArray[Any], count: int, gt: NDArray[np.float32], pred: NDArray[np.float32]) -> Any:
    """Return float64 [count, 15] as `region_moments.coded_moments`; every depth must be finite and positive."""
    out = np.zeros((count, 16))
    for i in range(gt.size):
        g, p = np.float64(gt[i]), np.float64(pred[i])
        row = out[codes[i]]
        e = p - g
        size = abs(e)
        relative = size / g
        inverse = relative / p
        log = math.log(p / g)
        high, low = max(p, g), min(p, g)
        row[0] += 1.0
        row[1] += size
        row[2] += e * e
        row[3] += relative
        row[4] += relative * size
        row[5] += relative * relative
        row[6] += log
        row[7] += log * log
        row[8] += abs(log)
        row[9] += inverse
        row[10] += inverse * inverse
        # Products of float32 values with these constants are exact in float64.
        row[11] += np.float64(high < 1.25 * low)
        row[12] += np.float64(high < 1.5625 * low)
        row[13] += np.float64(high < 1.953125 * low)
        row[14] += e
    out[:, 8] /= _LN10
    return out[:, :15]
