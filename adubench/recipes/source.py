"""Recipe files as trees of plain values that remember where each value was written.

A file may stand on another one (`base:`) and change some of its keys, nested or dotted; `--set a.b=c` does the same on
the command line. Every value keeps its file and line, so that an error can name them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from adubench.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FOLDER = Path(__file__).resolve().parent
SUFFIXES = (".yaml", ".yml")
NOT_INHERITED = ("name", "about", "expected")
_MAX_DEPTH = 12

Key = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was written: a file and its line, or an option of the command line."""

    text: str
    line: int | None = None

    def __str__(self) -> str:
        return self.text if self.line is None else f"{self.text}, line {self.line}"


@dataclass(frozen=True, slots=True)
class Tree:
    """Plain values of a recipe and the origin of each key.

    Attributes:
        values: nested dictionaries with string keys; lists are leaves.
        origins: path of keys -> where it was written.
        name: file stem.
    """

    values: dict[str, Any]
    origins: dict[Key, Origin]
    name: str

    def origin(self, path: Sequence[str | int]) -> Origin:
        """Return where a value was written; for a value that nobody wrote, where its section was."""
        for end in range(len(path), 0, -1):
            found = self.origins.get(tuple(path[:end]))
            if found is not None:
                return found
        return self.origins[()]


class _Loader(yaml.SafeLoader):
    """Scalars as in YAML 1.2 (`1e-3` is a number, `off` is a word); no aliases, which recipes do not need."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not used in recipes", event.start_mark)
        return super().compose_node(parent, index)


_FIRST_OF_NUMBER = list("-+0123456789.")
_FLOAT = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(0|[1-9][0-9]*)", _FIRST_OF_NUMBER),
    ("float", _FLOAT, _FIRST_OF_NUMBER),
):  # fmt: skip
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


def parse_value(text: str) -> Any:
    """Read one YAML value, as it stands behind `--set a.b=`.

    Raises:
        ValueError: not valid YAML, or nested too deeply.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(_reason(error)) from None


def read_tree(path: Path) -> Tree:
    """Read one recipe file, without its base.

    Raises:
        UsageError: unreadable, not valid YAML, a key twice; with file and line.
    """
    return Tree(*_values_of(path, _compose(path)), path.stem)


def _values_of(path: Path, node: Any) -> tuple[dict[str, Any], dict[Key, Origin]]:
    if node is None:
        return {}, {(): Origin(str(path), 1)}
    if not isinstance(node, yaml.MappingNode):
        raise UsageError(f"{path}, line 1: expected keys and values (`data:` ...), found something else.")
    values: dict[str, Any] = {}
    origins: dict[Key, Origin] = {(): Origin(str(path), 1)}
    _fill(values, origins, node, (), path)
    return values, origins


def _compose(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not a text file in UTF-8, so no recipe.") from None
    except OSError as error:
        raise UsageError(f"recipe {path}: cannot be read ({error.strerror or error}).") from None
    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_node()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise UsageError(f"{path}{where}: not valid YAML: {_reason(error)}.") from None
    except RecursionError:
        raise UsageError(f"{path}: nested too deeply for a recipe.") from None
    finally:
        if loader is not None:
            loader.dispose()


def _reason(error: Exception) -> str:
    text = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error) or "nested too deeply"
    return " ".join(str(text).split())


def _fill(values: dict[str, Any], origins: dict[Key, Origin], node: yaml.MappingNode, at: Key, path: Path) -> None:
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise UsageError(f"{path}, line {line}: a key must be a word.")
        steps = tuple(key_node.value.split("."))
        full: Key = (*at, *steps)
        if len(full) > _MAX_DEPTH:
            raise UsageError(f"{path}, line {line}: nested too deeply for a recipe.")
        if full in origins:
            raise UsageError(
                f"{path}, line {line}: '{'.'.join(map(str, full))}' stands twice, first in line {origins[full].line}."
            )
        for end in range(len(at) + 1, len(full)):
            origins.setdefault(full[:end], Origin(str(path), line))
        origins[full] = Origin(str(path), line)
        holder = _descend(values, full[:-1], Origin(str(path), line))
        if isinstance(value_node, yaml.MappingNode):
            holder.setdefault(steps[-1], {})
            _fill(values, origins, value_node, full, path)
        else:
            _note_lines(value_node, full, origins, path)
            holder[steps[-1]] = _construct(value_node, path)


def _note_lines(node: Any, at: Key, origins: dict[Key, Origin], path: Path) -> None:
    """Remember the lines of list items, and of keys within them."""
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            origins[(*at, index)] = Origin(str(path), child.start_mark.line + 1)
            _note_lines(child, (*at, index), origins, path)
    elif isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                origins[(*at, key_node.value)] = Origin(str(path), key_node.start_mark.line + 1)
                _note_lines(value_node, (*at, key_node.value), origins, path)


def _construct(node: Any, path: Path) -> Any:
    loader = _Loader("")
    try:
        return loader.construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}, line {node.start_mark.line + 1}: {_reason(error)}.") from None
    finally:
        loader.dispose()


def _descend(values: dict[str, Any], path: Key, origin: Origin) -> dict[str, Any]:
    holder = values
    for step in path:
        child = holder.setdefault(str(step), {})
        if not isinstance(child, dict):
            raise UsageError(
                f"{origin}: '{'.'.join(map(str, path))}' is a value, not a section; it has no keys below it."
            )
        holder = child
    return holder


def overlay(base: Tree, top: Tree) -> Tree:
    """Put the keys of `top` over those of `base`; sections merge, everything else is replaced."""
    values = _merge(base.values, top.values)
    origins = {path: origin for path, origin in base.origins.items() if not _replaced(path, top)}
    return Tree(values, origins | top.origins, top.name)


def _replaced(path: Key, top: Tree) -> bool:
    """Whether a path of the base lies in something that `top` replaces as a whole."""
    value: Any = top.values
    for step in path:
        if not isinstance(value, dict):
            return True
        if step not in value:
            return False
        value = value[step]
    return False


def _merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def resolve_path(name: str | Path, *, beside: Path | None = None) -> Path:
    """Find the file of a recipe: a name of ours, or a path (of a base: relative to the file that names it).

    Raises:
        UsageError: no such recipe, with the close matches, or no such file.
    """
    text = str(name)
    if not text.endswith(SUFFIXES) and "/" not in text and not Path(text).is_file():
        known = recipe_files()
        if text not in known:
            raise unknown_name("recipe", text, known, hint="A recipe of your own is given as a path to its YAML file.")
        return known[text]
    path = Path(text)
    if beside is not None and not path.is_absolute():
        path = beside / path
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(f"recipe {path}: {what}. `adubench list recipes` names those that come with adubench.")
    return path


def recipe_files() -> dict[str, Path]:
    """Return name -> file of the recipes that come with adubench."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"), key=lambda p: p.stem)}


def load_tree(path: Path, _seen: tuple[Path, ...] = ()) -> Tree:
    """Read a recipe file with its bases.

    Raises:
        UsageError: as `read_tree`; a base that does not exist or that stands on itself.
    """
    tree = read_tree(path)
    values = dict(tree.values)
    base = values.pop("base", None)
    values.setdefault("name", tree.name)
    tree = Tree(values, tree.origins, tree.name)
    if base is None:
        return tree
    origin = tree.origin(("base",))
    if not isinstance(base, str):
        raise UsageError(f"{origin}: base: expected the name of a recipe or a path, got {base!r}.")
    seen = (*_seen, path.resolve())
    try:
        below = resolve_path(base, beside=path.parent)
    except UsageError as error:
        raise UsageError(f"{origin}: base: {error}") from None
    if below.resolve() in seen:
        circle = " -> ".join([*(p.stem for p in seen), below.stem])
        raise UsageError(f"{origin}: base: the recipes stand on each other in a circle ({circle}).")
    parent = load_tree(below, seen)
    kept = {key: value for key, value in parent.values.items() if key not in NOT_INHERITED}
    return overlay(Tree(kept, parent.origins, parent.name), tree)


def apply_overrides(tree: Tree, overrides: Sequence[str]) -> Tree:
    """Apply `a.b=value` texts in order.

    Raises:
        UsageError: not of that form.
    """
    for text in overrides:
        key, sign, value = text.partition("=")
        steps = tuple(key.strip().split("."))
        if not sign or not all(steps):
            raise UsageError(f"--set {text}: expected KEY=VALUE, for instance --set train.epochs=5.")
        try:
            parsed = parse_value(value)
        except ValueError as error:
            raise UsageError(f"--set {text}: the value is not valid YAML ({error}).") from None
        tree = put(tree, steps, parsed, Origin(f"--set {text}"))
    return tree


def put(tree: Tree, steps: Sequence[str], value: Any, origin: Origin) -> Tree:
    """Return the tree with one value (or section) put over it."""
    nested: Any = value
    for step in reversed(steps):
        nested = {step: nested}
    assert isinstance(nested, dict)
    origins: dict[Key, Origin] = {tuple(steps[:end]): origin for end in range(1, len(steps) + 1)}
    _below(value, tuple(steps), origin, origins)
    kept = {path: found for path, found in tree.origins.items() if path not in origins or path == ()}
    top = Tree(nested, origins, tree.name)
    return overlay(Tree(tree.values, kept, tree.name), top)


def _below(value: Any, at: Key, origin: Origin, origins: dict[Key, Origin]) -> None:
    if isinstance(value, dict):
        for key, child in value.items():
            origins[(*at, str(key))] = origin
            _below(child, (*at, str(key)), origin, origins)
