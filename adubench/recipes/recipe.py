"""Recipes: read, check, change, list. Nothing here needs torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from adubench.recipes import source
from adubench.recipes.checks import check_recipe, recipe_warnings
from adubench.recipes.faults import first_fault
from adubench.recipes.schema import Recipe
from adubench.recipes.tie_kd_sections import ResponseKDSection, TeacherMapsSection, TieKDSection

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from adubench.recipes.source import Tree

__all__ = ["RECIPES", "RecipeInfo", "load_recipe", "recipe_digest", "recipe_table", "recipe_warnings", "stages_to_run"]

#: Name -> file of the recipes that come with adubench.
RECIPES: dict[str, Path] = source.recipe_files()

#: `distill.preset: paper-literal`, ADU-Depth eqs. 1 and 6 as printed: one head, no scale, no residual, attention over
#: all tokens, and eq. 6 as a sum. Keys that a recipe writes itself win.
PAPER_LITERAL: dict[str, dict[str, Any]] = {
    "adapter": {"heads": 1, "scale": "none", "residual": False, "zero_init": False, "attention": "full"},
    "response": {"reduction": "sum"},
}

#: Keys that came later: left out of the digest while they have these values, so that older runs keep theirs.
_LATER: dict[str, Any] = {
    "data.nyu_crop": False, "train.final_div": 1e4, "train.momentum": None, "model": None,
    "teacher_maps": TeacherMapsSection().model_dump(mode="json"),
    "tie_kd": TieKDSection().model_dump(mode="json"),
    "response_kd": ResponseKDSection().model_dump(mode="json"),
}  # fmt: skip
# What describes a recipe, or says how it is logged and loaded, does not change the weights that come out.
_NOT_IN_DIGEST = ("name", "about", "source", "expected", "log", "test")


@dataclass(frozen=True, slots=True)
class RecipeInfo:
    """A line of `adubench list recipes`; `status` says whether its source prints numbers, and what was reproduced."""

    name: str
    about: str
    source: str
    method: str
    stages: tuple[str, ...]
    train: str
    status: str


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe with its bases, apply overrides, check everything.

    Args:
        name_or_path: a name of `adubench list recipes`, or the path of a YAML file.
        overrides: texts `a.b=value`; values are YAML.

    Raises:
        UsageError: no such recipe, or a fault in it, with file, line and what was expected.
    """
    return tree_to_recipe(source.apply_overrides(source.load_tree(source.resolve_path(name_or_path)), overrides))


def tree_to_recipe(tree: Tree) -> Recipe:
    """Check a tree of values and make the recipe.

    Raises:
        UsageError: the first fault, with its file and line.
    """
    values = _with_teacher_train(_with_preset(tree.values))
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise first_fault(error, tree) from None
    check_recipe(recipe, tree)
    return recipe


def _with_preset(values: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(values)
    distill = out.get("distill")
    if isinstance(distill, dict) and distill.get("preset") == "paper-literal":
        out["distill"] = dict(distill)
        for section, fields in PAPER_LITERAL.items():
            written = distill.get(section, {})
            if isinstance(written, dict):
                out["distill"][section] = fields | written
    return out


def _with_teacher_train(values: Mapping[str, Any]) -> dict[str, Any]:
    """Complete `teacher_train`, which says only what differs from `train`."""
    out = dict(values)
    own, shared = out.get("teacher_train"), out.get("train")
    if isinstance(own, dict) and isinstance(shared, dict):
        out["teacher_train"] = shared | own
    return out


def recipe_digest(recipe: Recipe) -> str:
    """Return the SHA-256 of everything that decides the weights.

    Name, texts, published numbers, logging and what is scored afterwards are left out, so that a renamed recipe keeps
    its digest; so are the loader's processes and the place of the data.
    """
    plain = {key: value for key, value in recipe.plain().items() if key not in _NOT_IN_DIGEST}
    _drop_later(plain)
    for section in ("train", "teacher_train"):
        part = plain.get(section)
        if isinstance(part, dict):
            part.pop("workers", None)
    checkpoint, data = plain["checkpoint"], plain["data"]
    assert isinstance(checkpoint, dict)
    assert isinstance(data, dict)
    checkpoint.pop("milestones", None)
    for place in ("root", "gt_root", "right_root", "pack"):
        data.pop(place, None)
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _drop_later(plain: dict[str, Any]) -> None:
    maps = plain.get("teacher_maps")
    if isinstance(maps, dict):
        maps.pop("path")  # a place, like the data's root
    for key, value in _LATER.items():
        section, _, name = key.rpartition(".")
        for at in ("train", "teacher_train") if section == "train" else (section,):
            holder = plain.get(at) if at else plain
            default = {k: v for k, v in value.items() if k != "path"} if name == "teacher_maps" else value
            if isinstance(holder, dict) and holder.get(name) == default:
                del holder[name]


def needs_teacher(recipe: Recipe) -> bool:
    """Whether the student's loss looks at a teacher at all."""
    if recipe.method == "sub-depth":
        sub = recipe.sub_depth
        return sub.loss_mode == "uncertainty" or sub.w_reg > 0 or sub.student_init == "teacher"
    return recipe.method in ("adu-depth", "response") and recipe.distill.enabled


def stages_to_run(recipe: Recipe) -> tuple[str, ...]:
    """Return the recipe's stages without a teacher that nobody looks at (the baseline of an ablation)."""
    if "student" in recipe.stages and recipe.student.init != "teacher" and not needs_teacher(recipe):
        return tuple(stage for stage in recipe.stages if stage != "teacher")
    return tuple(recipe.stages)


def recipe_table() -> list[RecipeInfo]:
    """Return what is known about each recipe of ours, by name."""
    rows = []
    for name in RECIPES:
        recipe = load_recipe(name)
        stages, train = stages_to_run(recipe), recipe.data.train
        rows.append(RecipeInfo(name, recipe.about, recipe.source, recipe.method, stages, train, _status(recipe)))
    return rows


def _status(recipe: Recipe) -> str:
    if recipe.expected:
        return "published numbers known, not reproduced here"
    return "runs here, small" if recipe.data.train.startswith("synthdrive") else "no published numbers"
