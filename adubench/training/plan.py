"""What a training would do, worked out before the first step: frames, steps, networks, memory, files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from adubench.errors import AdubenchError, UsageError, unknown_name
from adubench.recipes.recipe import needs_teacher, recipe_warnings
from adubench.recipes.tie_kd_sections import MAP_METHODS
from adubench.training import run_folder
from adubench.training.build import train_section
from adubench.training.estimate import Estimate, Role, estimate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from adubench.datasets.training_frames import TrainingFrames
    from adubench.recipes.schema import Recipe, TrainSection
    from adubench.training.self_supervised_build import TripletFrames

STAGES = ("teacher", "student")


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage.

    Attributes:
        stage: `teacher` or `student`.
        learns: what the loss looks at.
        frames: frames found, None where the data set was not given or not found.
        listed: frames of the list before any was dropped.
        dropped: sentences about dropped frames, by reason.
        steps: optimiser steps; for all listed frames where none was found, None where their number is not known.
        epochs: passes over the data, a fraction where `steps` decides.
        train: its optimisation.
        estimate: parameters, arithmetic, memory.
        files: what will be written.
    """

    stage: str
    learns: str
    frames: int | None
    listed: int | None
    dropped: tuple[str, ...]
    steps: int | None
    epochs: float | None
    train: TrainSection
    estimate: Estimate
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """All stages of a run.

    Attributes:
        recipe: what is trained.
        device: where it would run.
        stages: in order.
        notes: sentences a user should read before training.
        problem: why training could not start as things are, or "".
    """

    recipe: Recipe
    device: str
    stages: tuple[StagePlan, ...]
    notes: tuple[str, ...] = field(default=())
    problem: str = ""


def choose_stages(recipe: Recipe, wanted: str, *, teacher: Path | None = None) -> tuple[str, ...]:
    """Decide which stages run.

    Args:
        recipe: the recipe.
        wanted: "teacher", "student" or "all".
        teacher: a checkpoint that takes the place of the teacher stage.

    Raises:
        UsageError: a stage that the recipe does not have, or nothing left to do.
    """
    if wanted not in (*STAGES, "all"):
        raise unknown_name("stage", wanted, (*STAGES, "all"))
    from adubench.training import run

    recipe, teacher = run.named_teacher(recipe, teacher)
    stages = run.choose_stages(recipe, () if wanted == "all" else (wanted,), teacher)
    if not stages:
        raise UsageError(f"--teacher {teacher}: recipe {recipe.name} trains a teacher only, so nothing is left to do.")
    return stages


def plan_training(
    recipe: Recipe,
    *,
    output: Path,
    data_root: Path | None,
    stages: Sequence[str],
    teacher: Path | None = None,
    device: str = "auto",
) -> TrainingPlan:
    """Work out what `train` would do with the same arguments. Nothing is written, no weight is loaded.

    Raises:
        UsageError: an unknown split or a network that cannot be built.
    """
    found: list[StagePlan] = []
    notes, problem = list(recipe_warnings(recipe)), ""
    chosen = _device(device)
    for stage in stages:
        frames, trouble = _frames(recipe, stage, data_root)
        problem = problem or trouble
        found.append(_stage(recipe, stage, frames, output, chosen))
    notes += _overlap(recipe, data_root)
    if "student" in stages and "teacher" not in stages and needs_teacher(recipe) and teacher is None:
        notes.append("The student needs a teacher: give --teacher CHECKPOINT, or a folder (-o) with a trained one.")
    return TrainingPlan(recipe, chosen, tuple(found), tuple(notes), problem)


def _device(device: str) -> str:
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _half(train: TrainSection, device: str) -> bool:
    if train.precision == "auto":
        return device.startswith("cuda")
    return train.precision in ("bf16", "fp16")


def _frames(recipe: Recipe, stage: str, data_root: Path | None) -> tuple[TrainingFrames | TripletFrames | None, str]:
    """Find the frames of a stage, or say why they cannot be found."""
    from adubench.training.build import find_frames
    from adubench.training.self_supervised_build import find_triplets
    from adubench.training.tie_kd_build import find_teacher_maps

    pairs = stage == "teacher" or needs_teacher(recipe)
    try:
        if recipe.self_supervision:
            return find_triplets(recipe, data_root), ""
        frames = find_frames(recipe, data_root, stereo=pairs)
    except AdubenchError as error:
        return None, str(error)
    try:
        if recipe.method in MAP_METHODS:
            find_teacher_maps(recipe, frames, data_root)
    except AdubenchError as error:
        return frames, str(error)
    return frames, ""


def _stage(
    recipe: Recipe, stage: str, frames: TrainingFrames | TripletFrames | None, output: Path, device: str
) -> StagePlan:
    train = train_section(recipe, stage)
    role: Role = "teacher" if stage == "teacher" else "student"
    count = len(frames) if frames is not None else None
    listed = frames.listed if frames is not None else _published_count(recipe.data.train)
    steps, epochs = _length(train, count if count is not None else listed, whole_batches=recipe.self_supervision)
    written: tuple[str, ...] = (run_folder.LAST, run_folder.RECIPE, run_folder.LOG)
    if recipe.self_supervision:
        written = (*written, run_folder.POSE)
    return StagePlan(
        stage=stage,
        learns=_learns(recipe, stage),
        frames=count,
        listed=listed,
        dropped=frames.left_out if frames is not None else (),
        steps=steps,
        epochs=epochs,
        train=train,
        estimate=estimate(recipe, role, half=_half(train, device)),
        files=tuple(output / stage / name for name in written),
    )


def _learns(recipe: Recipe, stage: str) -> str:
    """Say what a stage's loss looks at."""
    if recipe.method in MAP_METHODS:
        return f"a teacher's maps ({recipe.teacher_maps.path or 'not given'})"
    taught = stage == "student" and needs_teacher(recipe)
    if recipe.self_supervision:
        sources = [f"{frame:+d}" for frame in recipe.self_supervised.frame_ids[1:]]
        sources += ["the other camera"] * recipe.self_supervised.use_stereo
        return f"images: frame 0 from {', '.join(sources)}" + (", and the teacher" if taught else "")
    if stage == "teacher":
        return "ground truth, from pairs"
    return "ground truth and the teacher" if taught else "ground truth"


def _length(train: TrainSection, frames: int | None, *, whole_batches: bool = False) -> tuple[int | None, float | None]:
    """Return optimiser steps and epochs; the last, smaller batch of an epoch counts unless batches are whole."""
    if frames is None:
        return train.steps, None if train.steps is not None else float(train.epochs)
    per_epoch = max(1, frames // train.batch_size) if whole_batches else -(-frames // train.batch_size)
    if train.steps is not None:
        return train.steps, train.steps / per_epoch
    return per_epoch * train.epochs, float(train.epochs)


def _published_count(split: str) -> int | None:
    from adubench.datasets.splits import SPLITS, looks_like_list, resolve_name

    return None if looks_like_list(split) or split == "folder" else SPLITS[resolve_name(split)].count


def _overlap(recipe: Recipe, data_root: Path | None) -> list[str]:
    """Say where validation and test images are training images, or the images that the best checkpoint is chosen on."""
    from adubench.datasets.leakage import overlap, training_set
    from adubench.datasets.splits import load_split

    validation, test = recipe.validate_.split, recipe.test.split
    notes = []
    for first, second, what in (
        (recipe.data.train, validation, "validation"),
        (recipe.data.train, test, "test"),
        (validation if recipe.checkpoint.best else None, test, "choice of the best checkpoint"),
    ):
        if first is None or second is None or first == second:
            continue
        try:
            found = overlap(training_set(first, data_root), load_split(second, data_root))
        except AdubenchError:
            continue  # the lists of these sets lie with their data, which is not here
        notes += [f"{what}: {sentence}." for sentence in found.messages()]
    return notes
