"""Model configurations: plain mappings, filled with a family's defaults; unknown keys and values are errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adubench.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


def read_config(
    config: Mapping[str, Any],
    defaults: Mapping[str, Any],
    *,
    choices: Mapping[str, Collection[Any]] | None = None,
    where: str = "model configuration",
) -> dict[str, Any]:
    """Fill a configuration with defaults.

    Args:
        config: what the user or a checkpoint says.
        defaults: every key there is, with its default.
        choices: for keys with a closed set of values, that set.
        where: what to call the mapping in an error.

    Returns:
        A new dictionary with exactly the keys of `defaults`, in their order.

    Raises:
        UsageError: an unknown key, or a value outside its set of choices.
    """
    for key in config:
        if key not in defaults:
            raise unknown_name(f"key of the {where}", str(key), defaults)
    filled = {key: config.get(key, default) for key, default in defaults.items()}
    for key, allowed in (choices or {}).items():
        value = filled[key]
        if not any(value == choice and type(value) is type(choice) for choice in allowed):
            if isinstance(value, str):
                raise unknown_name(f"value of '{key}' in the {where}", value, [str(choice) for choice in allowed])
            known = ", ".join(repr(choice) for choice in allowed)
            raise UsageError(f"'{key}' of the {where} is {value!r}: it takes {known}.")
    return filled


def number(
    config: Mapping[str, Any], key: str, *, above: float | None = None, where: str = "model configuration"
) -> float:
    """Read a finite number.

    Raises:
        UsageError: not a number, not finite, or not above the bound.
    """
    value = config[key]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) < float("inf") or (above is not None and value <= above):
        bound = "" if above is None else f" above {above:g}"
        raise UsageError(f"'{key}' of the {where} is {value!r}: it takes a number{bound}.")
    return float(value)
