"""Read the options of `adubench eval --regions`: text in, checked values out."""

from __future__ import annotations

import itertools
import math

from adubench.errors import UsageError, unknown_name
from adubench.evaluators.region_params import DEFAULT_FAMILIES, FAMILIES, PARTITIONS, check_bounds


def parse_families(text: str) -> tuple[str, ...]:
    """Read `--regions`: "all", "none", "" (the usual ones), or a list of families with commas.

    Raises:
        UsageError: an unknown family.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or words == ["default"]:
        return DEFAULT_FAMILIES
    if words == ["all"]:
        return tuple(FAMILIES)
    if words == ["none"]:
        return ()
    for word in words:
        if word not in FAMILIES:
            raise unknown_name("region family", word, (*FAMILIES, "all", "none"))
    return tuple(dict.fromkeys(words))


def parse_bounds(text: str, option: str) -> tuple[float, ...]:
    """Read ascending numbers with commas; `inf` is a number.

    Raises:
        UsageError: not numbers, not ascending, negative, or fewer than two.
    """
    try:
        bounds = tuple(float(word) for word in text.split(","))
    except ValueError:
        raise UsageError(f"{option} {text}: expected numbers with commas, e.g. 0,20,40,inf.") from None
    check_bounds(bounds, option)
    return bounds


def parse_depth_bins(text: str, min_depth: float = 0.0, max_depth: float | None = None) -> tuple[float, ...]:
    """Read `--depth-bins`: bounds in metres, or `log:K` for K equal log steps between the protocol's depth limits.

    Raises:
        UsageError: malformed, or `log:K` without two positive limits.
    """
    if not text.startswith("log:"):
        return parse_bounds(text, "--depth-bins")
    steps = text[4:]
    if not steps.isdecimal() or not 1 <= int(steps) <= 100:
        raise UsageError(f"--depth-bins {text}: K in log:K must be a whole number from 1 to 100.")
    if max_depth is None or not 0 < min_depth < max_depth < math.inf:
        raise UsageError(
            f"--depth-bins {text}: log steps need a lower depth limit above 0 and an upper one; the protocol has "
            f"{min_depth:g} to {'none' if max_depth is None else f'{max_depth:g}'} m. Give the bounds themselves."
        )
    import numpy as np

    return tuple(float(b) for b in np.geomspace(min_depth, max_depth, int(steps) + 1))


def parse_bands(text: str) -> tuple[float, ...]:
    """Read `--edge-bands`: bounds from 0; the last band always reaches to infinity.

    Raises:
        UsageError: malformed or not from 0.
    """
    bounds = parse_bounds(text, "--edge-bands")
    if bounds[0] != 0:
        raise UsageError(f"--edge-bands {text}: the first bound must be 0.")
    return bounds if math.isinf(bounds[-1]) else (*bounds, math.inf)


def parse_gap(text: str) -> tuple[int, int]:
    """Read `--edge-gap GX,GY`: pixels; GY may be 0 (no vertical pairs).

    Raises:
        UsageError: not two whole numbers.
    """
    words = [word.strip() for word in text.split(",")]
    if len(words) != 2 or not all(word.isdecimal() for word in words) or max(map(int, words)) > 1000:
        raise UsageError(f"--edge-gap {text}: expected two whole numbers of pixels, e.g. 5,0.")
    return int(words[0]), int(words[1])


def parse_kappa(text: str) -> float | None:
    """Read `--edge-kappa`: a number >= 0, or "none".

    Raises:
        UsageError: something else.
    """
    if text.strip().lower() == "none":
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise UsageError(f"--edge-kappa {text}: expected a number from 0, or none.")
    return value


def parse_quantiles(text: str) -> tuple[float, ...]:
    """Read `--light-quantiles`: ascending shares between 0 and 1.

    Raises:
        UsageError: malformed.
    """
    try:
        shares = tuple(float(word) for word in text.split(","))
    except ValueError:
        shares = ()
    if not shares or shares[0] <= 0 or not shares[-1] < 1 or any(b <= a for a, b in itertools.pairwise(shares)):
        raise UsageError(f"--light-quantiles {text}: expected ascending shares between 0 and 1, e.g. 0.1,0.25,0.75.")
    return shares


def parse_cross(text: str) -> tuple[str, str]:
    """Read `--cross A,B`: two different families of bins.

    Raises:
        UsageError: not two of them.
    """
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in PARTITIONS:
            raise unknown_name("family of bins", word, PARTITIONS)
    if len(words) != 2 or words[0] == words[1]:
        raise UsageError(f"--cross {text}: expected two different families of bins, e.g. depth,edge.")
    return words[0], words[1]
