"""Averaging the output for an image with the one for its mirror image: part of the predictor, not of a protocol."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FLIPS: tuple[str, ...] = ("none", "blend", "mean", "blend_stereo")


def _ramp(width: int) -> NDArray[np.float64]:
    """Weight of the left border, [width]: 1 in the leftmost 5 % of columns, 0 beyond 10 %, linear between."""
    place = np.linspace(0.0, 1.0, width)
    return 1.0 - np.clip(20.0 * (place - 0.05), 0.0, 1.0)


def blend(out: NDArray[Any], out_flipped: NDArray[Any]) -> NDArray[np.float64]:
    """Monodepth's post-processing: each border comes from the pass that could see beyond it, the middle is the mean.

    NeWCRFs applies it to depth, Monodepth2 to scaled disparity before resizing.

    Args:
        out: [H, W], output for the image.
        out_flipped: [H, W], output for the mirrored image, still mirrored.

    Returns:
        float64 [H, W]: the mirrored pass on the left border, the plain pass on the right one.
    """
    plain, mirrored = _pair(out, out_flipped)
    left = _ramp(plain.shape[-1])
    right = left[::-1]
    middle = 1.0 - left - right
    return right * plain + left * mirrored + middle * (0.5 * (plain + mirrored))


def blend_stereo(out: NDArray[Any], out_flipped: NDArray[Any]) -> NDArray[np.float64]:
    """As `blend` with the two borders exchanged, as monodepth_benchmark computes it (contrary to its own comment)."""
    plain, mirrored = _pair(out, out_flipped)
    left = _ramp(plain.shape[-1])
    right = left[::-1]
    middle = 1.0 - left - right
    return left * plain + right * mirrored + middle * (0.5 * (plain + mirrored))


def mean(out: NDArray[Any], out_flipped: NDArray[Any]) -> NDArray[np.float64]:
    """Plain average (Toolbox, TIE-KD, AdaBins); arguments as `blend`."""
    plain, mirrored = _pair(out, out_flipped)
    return 0.5 * (plain + mirrored)


def _pair(out: NDArray[Any], out_flipped: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.asarray(out, np.float64), np.asarray(out_flipped, np.float64)[..., ::-1]
