"""The optional fast tier: igzip inflate and compiled kernels, imported on first use, never required.

Everything here answers None when the `fast` extra is missing, broken, or switched off with `ADUBENCH_FAST=0`; callers
then take the path that needs nothing but the core dependencies and gives the same numbers.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)
_PATIENCE = 64
_calls = 0


def enabled() -> bool:
    """Whether the fast tier may be used; the environment variable is read at every call so that tests can switch it."""
    return os.environ.get("ADUBENCH_FAST") != "0"


def igzip() -> Any | None:
    """Return the `isal.isal_zlib` module, or None."""
    return _load_igzip() if enabled() else None


def unfilter16() -> Callable[..., int] | None:
    """Return the compiled row unfilter for 16-bit grey PNG streams, or None.

    Its signature is `(stream uint8 [H * (1 + 2 W)], out uint16 [H, W]) -> int`. The result is -1, or the number of the
    first row whose filter type is none of PNG's five.

    Loading the compiler's runtime costs as much time as the kernel saves on some hundred maps. Unless it is loaded
    already, the first calls in a process therefore answer None; `ADUBENCH_FAST=1` skips the waiting.
    """
    global _calls
    if not enabled():
        return None
    _calls += 1
    if _calls <= _PATIENCE and "numba" not in sys.modules and os.environ.get("ADUBENCH_FAST") != "1":
        return None
    return _load_unfilter16()


def compile_kernel(function: Callable[..., Any], *example: Any) -> Callable[..., Any] | None:
    """Compile a function with numba, keeping the machine code on disk where that is possible.

    Args:
        function: a module-level function in numba's subset of Python.
        *example: small arguments; the kernel is called once with them, so that every failure shows here.

    Returns:
        The kernel, or None when numba is missing or refuses. A cache folder that cannot be written costs one
        compilation per process, nothing else.
    """
    if not enabled():
        return None
    try:
        import numba
    except Exception:  # a broken binary package raises whatever it likes
        return None
    for cache in (True, False):
        try:
            kernel: Callable[..., Any] = numba.njit(cache=cache, nogil=True)(function)
            kernel(*example)
        except Exception as error:
            _log.debug("cannot compile %s (cache=%s): %s", function.__name__, cache, error)
        else:
            return kernel
    return None


@functools.cache
def _load_igzip() -> Any | None:
    try:
        from isal import isal_zlib
    except Exception:
        return None
    return isal_zlib


@functools.cache
def _load_unfilter16() -> Callable[..., int] | None:
    return compile_kernel(_unfilter16, np.frombuffer(bytes(3), np.uint8), np.zeros((1, 1), np.uint16))


def _unfilter16(stream: Any, out: Any) -> int:
    """Undo the five row filters (PNG specification, section 9.2) with two bytes per pixel; see `unfilter16`.

    Both byte lanes carry their left (a) and upper-left (c) neighbours in registers; the row above is read from `out`.
    """
    height, width = out.shape
    for y in range(height):
        row = y * (2 * width + 1) + 1
        kind = stream[row - 1]
        # Unsigned positions and plain views spare the check for negative ones, so that loops vectorise.
        high, low = stream[row : row + 2 * width : 2], stream[row + 1 : row + 2 * width : 2]
        this, prev = out[y], out[max(y - 1, 0)]
        if kind == 0 or (kind == 2 and y == 0):
            for x in range(width):
                i = np.uint64(row + 2 * x)
                this[x] = (np.uint16(stream[i]) << 8) | stream[i + np.uint64(1)]
        elif kind == 1:
            a0, a1 = np.uint8(0), np.uint8(0)
            for x in range(width):
                i = np.uint64(row + 2 * x)
                a0 = np.uint8(a0 + stream[i])
                a1 = np.uint8(a1 + stream[i + np.uint64(1)])
                this[x] = (np.uint16(a0) << 8) | a1
        elif kind == 2:
            for x in range(width):
                i = np.uint64(row + 2 * x)
                b0 = np.uint8(stream[i] + (prev[x] >> 8))
                b1 = np.uint8(stream[i + np.uint64(1)] + (prev[x] & 255))
                this[x] = (np.uint16(b0) << 8) | b1
        elif kind == 3:
            i0, i1 = 0, 0
            for x in range(width):
                above = int(prev[x]) if y > 0 else 0
                i0 = (int(high[x]) + ((i0 + (above >> 8)) >> 1)) & 255
                i1 = (int(low[x]) + ((i1 + (above & 255)) >> 1)) & 255
                this[x] = (i0 << 8) | i1
        elif kind == 4:
            i0, i1, c0, c1 = 0, 0, 0, 0
            for x in range(width):
                above = int(prev[x]) if y > 0 else 0
                # With p = a + b - c: |p - a| = |b - c|, |p - b| = |a - c|, |p - c| = |(b - c) + (a - c)|.
                u, v, b = (above >> 8) - c0, i0 - c0, above >> 8
                near = b if abs(v) <= abs(u + v) else c0
                i0 = (int(high[x]) + (i0 if abs(u) <= abs(v) and abs(u) <= abs(u + v) else near)) & 255
                c0 = b
                u, v, b = (above & 255) - c1, i1 - c1, above & 255
                near = b if abs(v) <= abs(u + v) else c1
                i1 = (int(low[x]) + (i1 if abs(u) <= abs(v) and abs(u) <= abs(u + v) else near)) & 255
                c1 = b
                this[x] = (i0 << 8) | i1
        else:
            return y
    return -1
