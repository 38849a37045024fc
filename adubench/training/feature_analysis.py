"""The feature gap of two checkpoints: `adubench analyze features`.

Both networks run in evaluation mode over held-out images; adapters are rebuilt from the recipe that the student's
checkpoint carries. The distances are those of `adubench.evaluators.feature_report`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adubench.errors import CheckpointError, DataError, UsageError
from adubench.evaluators.feature_report import GapOptions, level_gap
from adubench.training.feature_gaps import PARTS, TOKENS, Pair, adapter_of, draw_tokens
from adubench.training.run_folder import ADAPTERS

if TYPE_CHECKING:
    import torch

    from adubench.models.interface import DepthNetwork
    from adubench.recipes.schema import Recipe

LEVELS = ("e4", "e8", "e16", "e32", "d4", "d8", "d16", "d32")


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureRequest:
    """What to compare, and on which images.

    Attributes:
        student: checkpoint of the student.
        teacher: checkpoint of the teacher, stereo or not.
        adapters: the adapters' weights; None for those beside the student, if there are any.
        split: whose images are taken; none of them should have been trained on.
        data_root: where it lies.
        images: at most so many, evenly spread.
        tokens: places per level in all.
        levels: names out of `LEVELS`.
        device: where the networks run.
        options: of the distances.
    """

    student: Path
    teacher: Path
    split: str
    adapters: Path | None = None
    data_root: Path | None = None
    images: int = 300
    tokens: int = TOKENS
    levels: tuple[str, ...] = LEVELS
    device: str = "auto"
    options: GapOptions = field(default_factory=GapOptions)


def analyse_features(request: FeatureRequest) -> dict[str, Any]:
    """Measure every level.

    Returns:
        `levels` {name: numbers of `level_gap`}, `n_images`, `n_clusters`, `split`, `student`, `teacher`, `adapters`,
        `sampling`, `standardise`, `seed`, `notes`.

    Raises:
        CheckpointError: not checkpoints of networks with features, or adapters that do not belong to the student.
        UsageError: unknown levels, too few images.
        DataError: images missing, or features that are not finite.
    """
    from adubench.training.prediction_inputs import list_split

    unknown = [level for level in request.levels if level not in LEVELS]
    if unknown or not request.levels:
        raise UsageError(f"--levels {','.join(request.levels)}: expected some of {', '.join(LEVELS)}.")
    if request.images < 4 or request.tokens < request.images:
        raise UsageError("feature gaps need at least 4 images (--images) and one token per image (--tokens).")
    pair, adapters, notes = _open(request)
    stereo = pair.teacher.input_rule.channels == 6
    jobs = list_split(request.split, request.data_root, stereo=stereo)
    if len(jobs) > request.images:
        jobs = [jobs[i * len(jobs) // request.images] for i in range(request.images)]
    drawn, names = _draw(pair, jobs, request)
    if len(names) < 4:
        raise DataError(f"split {request.split}: {len(names)} readable images; feature gaps need at least 4.")
    if len(names) < len(jobs):
        notes.append(f"{len(jobs) - len(names)} of {len(jobs)} images could not be read and were left out")
    drives = [_drive(name) for name in names]
    if len(names) < 300:
        notes.append(f"{len(names)} images; 300 or more are recommended")
    found = {}
    for name in request.levels:
        rows = drawn[_key(name)]
        images = [image for image, row in zip(names, rows, strict=True) for _ in row[0]]
        of_drive = [drive for drive, row in zip(drives, rows, strict=True) for _ in row[0]]
        after = [row[2] for row in rows if row[2] is not None]
        found[name] = level_gap(
            np.concatenate([row[0] for row in rows]),
            np.concatenate([row[1] for row in rows]),
            np.concatenate(after) if after else None,
            images,
            of_drive,
            request.options,
            name=f"level {name}",
        )
    return {
        "student": str(request.student),
        "teacher": str(request.teacher),
        "adapters": adapters,
        "split": request.split,
        "n_images": len(names),
        "n_clusters": len(set(drives)),
        "sampling": request.options.sampling,
        "standardise": request.options.standardise,
        "seed": request.options.seed,
        "levels": found,
        "notes": notes,
    }


def _key(name: str) -> tuple[str, int]:
    return PARTS[0 if name[0] == "e" else 1], {"4": 0, "8": 1, "16": 2, "32": 3}[name[1:]]


def _drive(name: str) -> str:
    from adubench.datasets.frames import parse_kitti

    frame = parse_kitti(name)
    return frame.drive if frame is not None else str(Path(name).parent)


def _draw(pair: Pair, jobs: Any, request: FeatureRequest) -> Any:
    import torch

    with torch.no_grad():
        return draw_tokens(pair, jobs, request.tokens, request.options.seed)


def _open(request: FeatureRequest) -> tuple[Pair, str | None, list[str]]:
    """Load both networks, and the adapters where there are some."""
    from adubench.training.checkpoint import load_network
    from adubench.training.network_predictor import resolve_device

    place = resolve_device(request.device)
    student, info = load_network(request.student, place)
    teacher, _ = load_network(request.teacher, place)
    for where, network in ((request.student, student), (request.teacher, teacher)):
        if network.family != "newcrfs":
            raise CheckpointError(f"{where}: a {network.family} network; feature gaps are those of NeWCRFs' levels.")
    if student.input_rule.channels != 3:
        raise CheckpointError(f"{request.student}: takes a stereo pair; name the student first, then the teacher.")
    beside = request.student.parent / ADAPTERS
    path = request.adapters or (beside if beside.exists() else None)
    recipe = _recipe(info.recipe)
    identity = recipe is not None and recipe.method == "adu-depth" and recipe.distill.adapter.kind == "identity"
    levels: dict[str, Any] = {part: range(4) for part in PARTS}
    window = recipe.data.kb_crop if recipe is not None else True
    notes: list[str] = []
    if path is None and not identity:
        notes.append("no adapters: the table shows the gap of the student as it is")
        return Pair(teacher, student, None, levels, window, place), None, notes
    if recipe is None:
        raise CheckpointError(f"{request.student}: carries no recipe, from which its adapters could be built.")
    levels = {part: getattr(recipe.distill.features, part) for part in PARTS}
    adapt = _adapters(recipe, student, teacher, path, place)
    return Pair(teacher, student, adapt, levels, window, place), str(path) if path else "identity", notes


def _recipe(values: Any) -> Recipe | None:
    if not values:
        return None
    from adubench.recipes.schema import Recipe

    try:
        return Recipe.model_validate(dict(values))
    except ValueError as error:
        raise CheckpointError(f"the student's recipe is not one of this version: {error}") from None


def _adapters(
    recipe: Recipe, student: DepthNetwork, teacher: DepthNetwork, path: Path | None, place: torch.device
) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from adubench.training.build import stage_objective

    started = recipe.model_copy(update={"student": recipe.student.model_copy(update={"init": "random"})})
    objective: Any = stage_objective(started, "student", teacher)
    objective.network = student
    if path is not None:
        try:
            objective.extras.load_state_dict(load_file(path))
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"{path}: not the adapters of this student ({reason}).") from None
    objective.to(place).eval()
    return adapter_of(objective)
