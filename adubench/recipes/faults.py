"""Turn a fault in a recipe into one sentence: where, what, and what was expected."""

from __future__ import annotations

import types
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from adubench.errors import UsageError
from adubench.recipes.schema import Recipe
from adubench.recipes.section import Section

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from adubench.recipes.source import Tree

_TYPES = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "string": "text",
    "tuple": "a list", "dict": "a section with keys", "model": "a section with keys",
}  # fmt: skip
_LIMITS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def first_fault(error: ValidationError, tree: Tree, root: type[Section] = Recipe) -> UsageError:
    """Make the error for the first fault; the others are counted.

    Args:
        error: what pydantic found.
        tree: the values with their origins.
        root: what the whole file is.
    """
    faults: dict[tuple[str | int, ...], list[ErrorDetails]] = {}
    for fault in error.errors(include_url=False):
        faults.setdefault(_written_path(fault["loc"], tree.values), []).append(fault)
    # An unknown key explains others (a misspelt key leaves a required one missing), so it comes first.
    path, group = min(faults.items(), key=lambda item: item[1][0]["type"] != "extra_forbidden")
    text = f"{tree.origin(path)}: {_sentence(path, group, root)}"
    others = len(faults) - 1
    return UsageError(text + (f" ({others} more fault{'s' if others > 1 else ''} after this one)" if others else ""))


def _written_path(loc: Sequence[str | int], values: Mapping[str, Any]) -> tuple[str | int, ...]:
    """Drop what pydantic adds to a location (the tried member of a union), keep keys and list positions."""
    path: list[str | int] = []
    value: Any = values
    for i, step in enumerate(loc):
        if isinstance(value, dict) and isinstance(step, str):
            if step not in value and i < len(loc) - 1:
                break
            path.append(step)
            value = value.get(step)
        elif isinstance(value, (list, tuple)) and isinstance(step, int):
            path.append(step)
            value = value[step] if step < len(value) else None
        elif path and isinstance(value, (dict, list, tuple)):
            continue
        else:
            break
    return tuple(path)


def _sentence(path: Sequence[str | int], faults: Sequence[ErrorDetails], root: type[Section]) -> str:
    fault = faults[0]
    name = ".".join(str(step) for step in path)
    if fault["type"] == "extra_forbidden":
        return _unknown_key(path, root)
    if fault["type"] == "missing" and isinstance(path[-1], str):
        return f"'{name}' is missing; a recipe needs it."
    if fault["type"] == "value_error":
        return f"{name}: {fault['ctx']['error']}."
    choices = [str(choice) for entry in faults for choice in _choices(entry)]
    shown = _shown(fault["input"])
    if choices and isinstance(fault["input"], str) and all(_choices(entry) for entry in faults):
        return f"{name}: unknown value {shown}{_close(str(fault['input']), choices)} Expected {_either(choices)}."
    return f"{name}: expected {_either(list(dict.fromkeys(_expected(entry) for entry in faults)))}, got {shown}."


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _unknown_key(path: Sequence[str | int], root: type[Section]) -> str:
    known = keys_of(path[:-1], root)
    section = ".".join(str(step) for step in path[:-1])
    where = f" in '{section}'" if section else ""
    return f"unknown key '{path[-1]}'{where}{_close(str(path[-1]), known)} Known: {', '.join(sorted(known))}."


def _close(word: str, known: Sequence[str]) -> str:
    close = get_close_matches(word, known, n=2, cutoff=0.5)
    return f": did you mean {_either([repr(c) for c in close])}?" if close else "."


def _either(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} or {texts[-1]}"


def _choices(fault: ErrorDetails) -> list[str]:
    """Return the values of a Literal."""
    if fault["type"] != "literal_error":
        return []
    return [choice.strip("'") for choice in _literals(fault)]


def _literals(fault: ErrorDetails) -> list[str]:
    """Return the values of a Literal as they are written: texts in quotation marks, numbers without."""
    return [choice.strip() for choice in str(fault["ctx"]["expected"]).replace(" or ", ", ").split(", ")]


def _expected(fault: ErrorDetails) -> str:
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "literal_error":
        return _either(_literals(fault))
    for end, sign in (
        ("greater_than_equal", "ge"),
        ("greater_than", "gt"),
        ("less_than_equal", "le"),
        ("less_than", "lt"),
    ):
        if kind == end:
            return f"a number {_LIMITS[sign]} {context[sign]:g}"
    if kind == "finite_number":
        return "a finite number"
    if kind == "string_pattern_mismatch":
        words = str(context["pattern"]).strip("^()$").replace(".+", "FILE").split("|")
        return _either(words)
    if kind in ("too_short", "too_long", "missing"):
        return "a list of another length"
    return _TYPES.get(kind.split("_")[0], fault["msg"].lower())


def keys_of(path: Sequence[str | int], root: type[Section] = Recipe) -> list[str]:
    """Return the keys that a section may have, by their names in YAML; nothing for a path that is no section."""
    section: type[Section] | None = root
    for step in path:
        if isinstance(step, int):
            continue  # a list of sections
        if section is None:
            return []
        found = {info.alias or name: info.annotation for name, info in section.model_fields.items()}
        # A table of sections by free names (`scales`) has no such key: its section stays.
        section = _section_in(found[str(step)]) if str(step) in found else section
    return [] if section is None else [info.alias or name for name, info in section.model_fields.items()]


def _section_in(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType, Annotated, tuple, dict):
        return next((s for s in map(_section_in, get_args(annotation)) if s is not None), None)
    return None
