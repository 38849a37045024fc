"""Compiled form of the moment sums. Imported late, and only where numba is installed (the `fast` extra)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_BLOCK = 512
_SQRT2_MANTISSA = np.int64(0x6A09E667F3BCD)  # the 52 fraction bits of sqrt(2)
_FRACTION = np.int64((1 << 52) - 1)
_ONE = np.int64(1023 << 52)
_LN2 = math.log(2.0)
_LN10 = math.log(10.0)


# Sums may be reassociated (that is what vectorises them); nothing is assumed about NaN or infinity.
@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def moment_sums(
    gt: NDArray[Any], pred: NDArray[Any], gt_unit: float, pred_unit: float, lowest: float, highest: float
) -> Any:
    """Return float64 [15] as `moments.frame_moments`; every value must be finite and positive once it is clamped.

    Compiled for float32 metres (units 1) and for 16-bit codes (units 1 / scale), whose products are exact.
    The logarithm is written out (exponent plus a series in (m - 1)/(m + 1), |error| < 2e-16 relative to 1) because the
    call into the maths library would keep the loop scalar.
    """
    out = np.zeros(15)
    quotient = np.empty(_BLOCK)
    bits = quotient.view(np.int64)
    logs = np.empty(_BLOCK)
    n = gt.size
    for start in range(0, n, _BLOCK):
        m = min(_BLOCK, n - start)
        s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = s9 = s10 = s14 = 0.0
        n1 = n2 = n3 = 0
        for i in range(m):
            g = np.float64(gt[start + i]) * gt_unit
            p = min(max(np.float64(pred[start + i]) * pred_unit, lowest), highest)
            inverse = 1.0 / (g * p)
            quotient[i] = p / g
            e = p - g
            a = abs(e)
            t = a * p * inverse
            v = a * inverse
            s14 += e
            s1 += a
            s2 += a * a
            s3 += t
            s4 += t * a
            s5 += t * t
            s9 += v
            s10 += v * v
            # Products of float32 values with these constants are exact in float64.
            high, low = max(p, g), min(p, g)
            n1 += int(high < 1.25 * low)
            n2 += int(high < 1.5625 * low)
            n3 += int(high < 1.953125 * low)
        for i in range(m):
            raw = bits[i]
            fraction = raw & _FRACTION
            up = np.int64(fraction > _SQRT2_MANTISSA)
            logs[i] = np.float64((raw >> 52) - 1023 + up)
            bits[i] = fraction | (_ONE - (up << 52))
        for i in range(m):
            f = quotient[i] - 1.0
            s = f / (2.0 + f)
            z = s * s
            series = 1 / 23.0
            series = series * z + 1 / 21.0
            series = series * z + 1 / 19.0
            series = series * z + 1 / 17.0
            series = series * z + 1 / 15.0
            series = series * z + 1 / 13.0
            series = series * z + 1 / 11.0
            series = series * z + 1 / 9.0
            series = series * z + 1 / 7.0
            series = series * z + 1 / 5.0
            series = series * z + 1 / 3.0
            d = logs[i] * _LN2 + 2.0 * (s + s * z * series)
            s6 += d
            s7 += d * d
            s8 += abs(d)
        out[1] += s1
        out[2] += s2
        out[3] += s3
        out[4] += s4
        out[5] += s5
        out[6] += s6
        out[7] += s7
        out[8] += s8 / _LN10
        out[9] += s9
        out[10] += s10
        out[11] += n1
        out[12] += n2
        out[13] += n3
        out[14] += s14
    out[0] = n
    return out
