"""The optional fast tier: igzip inflate and compiled kernels, imported on first use, never required.

Everything here answers None when the `fast` extra is missing, broken, or switched off with `ADUBENCH_FAST=0`; callers
then take the path that needs nothing but the core dependencies and gives the same numbers.
"""

from __future__ import annotations

import functools
import logging
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)


def enabled() -> bool:
    """Whether the fast tier may be used; the environment variable is read at every call so that tests can switch it."""
    return os.environ.get("ADUBENCH_FAST", "1") not in ("0", "off", "false")


def igzip() -> Any | None:
    """Return the `isal.isal_zlib` module, or None."""
    return _load_igzip() if enabled() else None


def unfilter16() -> Callable[..., int] | None:
    """Return the compiled row unfilter for 16-bit grey PNG streams, or None.

    Its signature is `(stream uint8 [H * (1 + 2 W)], out uint16 [H, W]) -> int`; the stream is overwritten. The result
    is -1, or the number of the first row whose filter type is none of PNG's five.
    """
    return _load_unfilter16() if enabled() else None


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
    import numpy as np

    return compile_kernel(_unfilter16, np.zeros(3, np.uint8), np.zeros((1, 1), np.uint16))


def _unfilter16(stream: Any, out: Any) -> int:
    """Undo the five row filters (PNG specification, section 9.2) with two bytes per pixel; see `unfilter16`."""
    height, width = out.shape
    size = 2 * width
    for y in range(height):
        row = y * (size + 1) + 1
        up = row - size - 1  # first byte of the row above; not read when y == 0
        kind = stream[row - 1]
        if kind == 1:
            for i in range(2, size):
                stream[row + i] += stream[row + i - 2]
        elif kind == 2:
            if y > 0:
                for i in range(size):
                    stream[row + i] += stream[up + i]
        elif kind == 3:
            for i in range(size):
                a = int(stream[row + i - 2]) if i >= 2 else 0
                b = int(stream[up + i]) if y > 0 else 0
                stream[row + i] += (a + b) >> 1
        elif kind == 4:
            # Two interleaved byte lanes, each carrying its left and upper-left neighbour in registers.
            a0, a1, c0, c1 = 0, 0, 0, 0
            for x in range(width):
                i = row + 2 * x
                b0 = int(stream[up + 2 * x]) if y > 0 else 0
                b1 = int(stream[up + 2 * x + 1]) if y > 0 else 0
                pa, pb, pc = abs(b0 - c0), abs(a0 - c0), abs(a0 + b0 - 2 * c0)
                pred = a0 if (pa <= pb and pa <= pc) else (b0 if pb <= pc else c0)
                a0 = (int(stream[i]) + pred) & 255
                stream[i] = a0
                c0 = b0
                pa, pb, pc = abs(b1 - c1), abs(a1 - c1), abs(a1 + b1 - 2 * c1)
                pred = a1 if (pa <= pb and pa <= pc) else (b1 if pb <= pc else c1)
                a1 = (int(stream[i + 1]) + pred) & 255
                stream[i + 1] = a1
                c1 = b1
        elif kind != 0:
            return y
        for x in range(width):
            out[y, x] = (int(stream[row + 2 * x]) << 8) | int(stream[row + 2 * x + 1])
    return -1
