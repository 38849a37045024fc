"""Checks of the numbers that several families' configurations share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adubench.errors import UsageError
from adubench.models.config import number

if TYPE_CHECKING:
    from collections.abc import Mapping


def depth_limits(options: Mapping[str, Any], where: str) -> dict[str, float]:
    """Read `min_depth` and `max_depth` in metres.

    Args:
        options: a configuration with both keys.
        where: what to call it in an error.

    Raises:
        UsageError: not numbers, or not 0 <= min_depth < max_depth.
    """
    low, high = (number(options, key, where=where) for key in ("min_depth", "max_depth"))
    if not 0 <= low < high:
        raise UsageError(
            f"the {where} has min_depth {low:g} and max_depth {high:g}: it takes 0 <= min_depth < max_depth in metres."
        )
    return {"min_depth": low, "max_depth": high}


def whole_number(options: Mapping[str, Any], key: str, *, least: int, multiple: int = 1, where: str) -> int:
    """Read an integer.

    Raises:
        UsageError: not an integer, too small, or not a multiple of `multiple`.
    """
    value = options[key]
    if not isinstance(value, int) or isinstance(value, bool) or value < least or value % multiple:
        rule = f"an integer of at least {least}" if multiple == 1 else f"a multiple of {multiple} from {least}"
        raise UsageError(f"'{key}' of the {where} is {value!r}: it takes {rule}.")
    return value
