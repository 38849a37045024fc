"""Checks between keys of a recipe, and what a user should know before training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adubench.errors import UsageError
from adubench.recipes.model_section import check_model
from adubench.recipes.self_supervised_sections import check_self_supervised
from adubench.recipes.tie_kd_sections import check_tie_kd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adubench.recipes.schema import Recipe, TrainSection
    from adubench.recipes.source import Tree

KB_SIZE = (352, 1216)
STRIDE = 32
_SHARED_DECODER = ("tiny07", "base07", "large07")

Fault = tuple[str, str]


def check_recipe(recipe: Recipe, tree: Tree) -> None:
    """Check what no single key can tell.

    Raises:
        UsageError: the first fault, with the file and line of the key to change.
    """
    for checks in (
        _stages,
        _networks,
        _adapters,
        check_model,
        check_tie_kd,
        check_self_supervised,
        _sizes,
        _ranges,
        _batches,
        _depths,
    ):
        for key, text in checks(recipe):
            raise UsageError(f"{tree.origin(key.split('.'))}: {key}: {text}")


def _stages(recipe: Recipe) -> Iterator[Fault]:
    if not recipe.stages:
        yield "stages", "no stage; expected [teacher, student] or one of them."
    if len(set(recipe.stages)) < len(recipe.stages):
        yield "stages", "a stage stands twice."
    if recipe.stages == ("student", "teacher"):
        yield "stages", "the student learns from the teacher, so the order is [teacher, student]."


def _networks(recipe: Recipe) -> Iterator[Fault]:
    teacher, student = recipe.teacher, recipe.student
    if teacher.init == "teacher":
        yield "teacher.init", "the teacher cannot start from itself; expected imagenet, random or checkpoint:FILE."
    if student.init == "teacher":
        if student.encoder != teacher.encoder:
            yield (
                "student.init",
                f"a student of encoder {student.encoder} cannot take the weights of a teacher of encoder "
                f"{teacher.encoder}; make the encoders equal or choose another start.",
            )
        if teacher.fusion != "concat6":
            yield (
                "student.init",
                f"a teacher with fusion {teacher.fusion} has no six-channel patch kernel to sum; expected fusion "
                "concat6 or another start.",
            )
    for name, network in (("teacher", teacher), ("student", student)):
        if network.init == "imagenet" and network.encoder in ("small", "micro", "mini"):
            yield (
                f"{name}.init",
                f"there are no ImageNet weights for encoder {network.encoder}; expected random or checkpoint:FILE.",
            )


def _adapters(recipe: Recipe) -> Iterator[Fault]:
    distill, teacher, student = recipe.distill, recipe.teacher.encoder, recipe.student.encoder
    if not distill.enabled or recipe.method != "adu-depth":
        return
    for name, levels in (("encoder", distill.features.encoder), ("decoder", distill.features.decoder)):
        if len(set(levels)) < len(levels):
            yield f"distill.features.{name}", "a level stands twice."
    same_decoder = student == teacher or (student in _SHARED_DECODER and teacher in _SHARED_DECODER)
    wanted = (distill.features.encoder and student != teacher) or (distill.features.decoder and not same_decoder)
    if distill.adapter.kind == "identity" and wanted:
        yield (
            "distill.adapter.kind",
            f"identity needs equal channels, but encoder {student} learns from {teacher}; choose another adapter or "
            "leave those features out.",
        )


def _sizes(recipe: Recipe) -> Iterator[Fault]:
    for name in ("height", "width"):
        value = getattr(recipe.input, name)
        if value % STRIDE:
            yield (
                f"input.{name}",
                f"{value} is no multiple of {STRIDE}, the coarsest stride; the next ones are "
                f"{value // STRIDE * STRIDE or STRIDE} and {(value // STRIDE + 1) * STRIDE}.",
            )
    if recipe.input.mode == "crop" and recipe.data.kb_crop:
        for name, limit in zip(("height", "width"), KB_SIZE, strict=True):
            if getattr(recipe.input, name) > limit:
                yield (
                    f"input.{name}",
                    f"{getattr(recipe.input, name)} is more than the {limit} of the KB window that it is cut from; "
                    "choose a smaller crop or set data.kb_crop: false.",
                )


def _ranges(recipe: Recipe) -> Iterator[Fault]:
    for name in ("gamma", "brightness", "color"):
        low, high = getattr(recipe.augment, name)
        if not 0 < low <= high:
            yield f"augment.{name}", f"expected two factors [low, high] with 0 < low <= high, got [{low:g}, {high:g}]."


def _batches(recipe: Recipe) -> Iterator[Fault]:
    for section, train in (("train", recipe.train), ("teacher_train", recipe.teacher_train)):
        if train is not None:
            yield from _one_train(section, train)


def _one_train(section: str, train: TrainSection) -> Iterator[Fault]:
    if train.batch_size % train.accumulate:
        yield (
            f"{section}.accumulate",
            f"{train.batch_size} samples ({section}.batch_size) cannot be split into {train.accumulate} equal "
            "micro-batches; choose a divisor.",
        )
    if train.end_lr is not None and train.end_lr > train.lr:
        yield f"{section}.end_lr", f"{train.end_lr:g} is above the peak learning rate {train.lr:g}."
    if max(train.betas) >= 1:
        yield f"{section}.betas", "expected two numbers below 1."
    if train.momentum is not None and not train.momentum[0] <= train.momentum[1] < 1:
        yield f"{section}.momentum", "expected two numbers below 1, the lower one first."


def _depths(recipe: Recipe) -> Iterator[Fault]:
    if recipe.data.min_gt >= recipe.data.max_depth:
        yield "data.min_gt", f"{recipe.data.min_gt:g} m leaves nothing below max_depth {recipe.data.max_depth:g} m."


def recipe_warnings(recipe: Recipe) -> tuple[str, ...]:
    """Return sentences about choices that are allowed but make numbers mean less."""
    out = []
    validation, test, train = recipe.validate_.split, recipe.test.split, recipe.data.train
    if validation is not None and validation == test:
        out.append(
            f"validation and test split are both '{test}': a checkpoint that is chosen as best was chosen on the test "
            "images; report the last checkpoint, or validate on another split."
        )
    if validation is not None and validation == train:
        out.append(f"validation runs on the training split '{train}': its numbers say nothing about new images.")
    if test is not None and test == train:
        out.append(f"the test split is the training split '{train}': its numbers say nothing about new images.")
    if recipe.distill.enabled and recipe.distill.response.reduction == "sum" and recipe.distill.lambda_.umr > 0:
        pixels = recipe.input.height * recipe.input.width
        out.append(
            f"distill.response.reduction: sum (ADU-Depth eq. 6 as printed) makes the response term {pixels:,} times "
            "larger than the mean; with weights of order one nothing else is learned."
        )
    return tuple(out)
