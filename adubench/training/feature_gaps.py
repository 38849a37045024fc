"""Distance between the features of a student and of its teacher, before and after adaptation, level by level.

Tokens are drawn at the same places (image, row, column) of teacher, raw and adapted student; networks are in evaluation
mode, images are not augmented. The distances are those of `adubench.evaluators`: Frechet distance, MMD, CKA.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from adubench.evaluators.cka import cka_linear
from adubench.evaluators.feature_gap import frechet, frechet_floor, principal_axes, standardiser
from adubench.evaluators.mmd import median_sq_distance, mmd_rbf

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from adubench.recipes.schema import Recipe
    from adubench.training.objectives import AduDepth
    from adubench.training.prediction_inputs import Loaded

TOKENS, MMD_TOKENS = 20_000, 2_048
AXES, TOKENS_PER_CHANNEL = 64, 10
PARTS = ("encoder", "decoder")

Tokens = NDArray[np.float32]
Places = dict[tuple[str, int], list[tuple[Tokens, Tokens, Tokens | None]]]


@dataclass(frozen=True, slots=True)
class Pair:
    """A teacher and its student, ready to give features.

    Attributes:
        teacher: network whose output has `encoder` and `decoder`; sees both views if it takes six channels.
        student: likewise.
        adapt: output of the student -> adapted maps of encoder and decoder, one per entry of `levels`; None for none.
        levels: part -> the levels that are adapted.
        kb_crop: images are cut to KITTI's window.
        place: where both run.
    """

    teacher: Any
    student: Any
    adapt: Callable[[Any], tuple[Any, Any]] | None
    levels: dict[str, Sequence[int]]
    kb_crop: bool
    place: torch.device


def feature_gaps(
    recipe: Recipe,
    *,
    student: Path,
    teacher: Path,
    adapters: Path | None,
    data_root: Path | None,
    device: str = "auto",
    images: int = 64,
) -> tuple[dict[str, float], dict[str, str]]:
    """Measure all levels.

    Args:
        recipe: of the run.
        student: its last checkpoint.
        teacher: its teacher.
        adapters: the adapters' file; None where they have no weights.
        data_root: where the test split lies.
        device: where the networks run.
        images: at most so many, evenly spread over the test split.

    Returns:
        Numbers (`fd_before_encoder_0`, and means over the levels as `fd_before_encoder`, ...), and reasons for those
        that do not exist.
    """
    jobs = _jobs(recipe, data_root, images)
    objective, place = _networks(recipe, student, teacher, adapters, device)
    with torch.no_grad():
        # Identity adapters have no weights and so no file.
        adapted = adapters is not None or recipe.distill.adapter.kind == "identity"
        drawn, _ = draw_tokens(_pair(objective, place, recipe, adapted=adapted), jobs)
    numbers: dict[str, float] = {}
    for (part, level), rows in drawn.items():
        theirs, raw = (np.concatenate([row[i] for row in rows]) for i in (0, 1))
        after = np.concatenate([row[2] for row in rows if row[2] is not None]) if rows[0][2] is not None else None
        numbers |= {f"{key}_{part}_{level}": value for key, value in _level(theirs, raw, after).items()}
    return _with_means(numbers), _reasons(numbers, recipe, adapters)


def _jobs(recipe: Recipe, data_root: Path | None, images: int) -> Sequence[Any]:
    from adubench.training.prediction_inputs import list_split

    assert recipe.test.split is not None
    jobs = list_split(recipe.test.split, data_root, stereo=True)
    return [jobs[i * len(jobs) // images] for i in range(images)] if len(jobs) > images else jobs


def _networks(
    recipe: Recipe, student: Path, teacher: Path, adapters: Path | None, device: str
) -> tuple[AduDepth, torch.device]:
    from safetensors.torch import load_file

    from adubench.training.build import load_teacher, stage_objective
    from adubench.training.checkpoint import load_weights
    from adubench.training.network_predictor import resolve_device

    place = resolve_device(device)
    network, _ = load_teacher(recipe, teacher)
    started = recipe.model_copy(update={"student": recipe.student.model_copy(update={"init": "random"})})
    objective = stage_objective(started, "student", network)
    load_weights(objective.network, student)
    if adapters is not None:
        objective.extras.load_state_dict(load_file(adapters))
    objective.to(place).eval()
    network.to(place)
    return objective, place  # type: ignore[return-value]


def _pair(objective: AduDepth, place: torch.device, recipe: Recipe, *, adapted: bool) -> Pair:
    levels = {part: getattr(recipe.distill.features, part) for part in PARTS}
    adapt = adapter_of(objective) if adapted else None
    return Pair(objective.teacher, objective.network, adapt, levels, recipe.data.kb_crop, place)


def adapter_of(objective: AduDepth) -> Callable[[Any], tuple[Any, Any]]:
    """Return what turns a student's output into its adapted maps."""
    return lambda ours: objective.extras(ours.encoder, ours.decoder, *_s_maps(objective, ours))


def draw_tokens(pair: Pair, jobs: Sequence[Any], tokens: int = TOKENS, seed: int = 0) -> tuple[Places, list[str]]:
    """Run the networks image by image and keep tokens of each level, at the same places of all maps.

    Returns:
        (part, level) -> per image the tokens of teacher, student and adapted student; and the images' names.
    """
    from adubench.training.prediction_inputs import load_batches

    rng = np.random.default_rng(seed)
    per_image = -(-tokens // max(1, len(jobs)))
    drawn: Places = {}
    names: list[str] = []
    for (loaded,) in load_batches(jobs, 1):
        if loaded.error:
            continue
        names.append(loaded.job.name)
        image = _tensor(loaded, "image", pair)
        views = [image]
        if pair.teacher.input_rule.channels == 6:
            views.append(_tensor(loaded, "right", pair))
        theirs = pair.teacher(torch.cat(views, dim=1))
        ours = pair.student(image)
        after = pair.adapt(ours) if pair.adapt is not None else None
        for p, part in enumerate(PARTS):
            levels = pair.levels[part]
            for level in range(4):
                maps = [getattr(theirs, part)[level], getattr(ours, part)[level]]
                if after is not None and level in levels:
                    maps.append(after[p][levels.index(level)])
                h, w = maps[0].shape[-2:]
                chosen = rng.choice(h * w, size=min(per_image, h * w), replace=False)
                rows = [_tokens(m, chosen) for m in maps]
                third = rows[2] if len(rows) > 2 else None
                drawn.setdefault((part, level), []).append((rows[0], rows[1], third))
    return drawn, names


def _s_maps(objective: AduDepth, ours: Any) -> tuple[Any, Any]:
    """Return the uncertainty at the size of each distilled level, which a restoration (`uem.g: film`) takes."""
    if ours.s_quarter is None or objective.config.uem.g != "film":
        return None, None
    from torch.nn.functional import adaptive_avg_pool2d

    found = []
    for part in PARTS:
        levels = getattr(objective.config.features, part)
        found.append([adaptive_avg_pool2d(ours.s_quarter, getattr(ours, part)[k].shape[-2:]) for k in levels])
    return found[0], found[1]


def _tensor(loaded: Loaded, name: str, pair: Pair) -> torch.Tensor:
    from adubench.models.interface import IMAGENET_MEAN, IMAGENET_STD
    from adubench.training.predictor import crop_to_window

    image = getattr(loaded, name)
    if pair.kb_crop:
        image = crop_to_window(image)
    mean, std = (np.array(numbers, np.float32) for numbers in (IMAGENET_MEAN, IMAGENET_STD))
    values = (image.astype(np.float32) / np.float32(255) - mean) / std
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))[None].to(pair.place)


def _tokens(features: torch.Tensor, chosen: NDArray[np.int64]) -> Tokens:
    """[1, C, h, w] -> [n, C] at flat places."""
    flat = features[0].flatten(1).float().cpu().numpy()
    return np.ascontiguousarray(flat[:, chosen].T)


def _level(teacher: Tokens, raw: Tokens, adapted: Tokens | None) -> dict[str, float]:
    """Measure one level; everything is standardised by the teacher's sample."""
    scale = standardiser(teacher)
    t = scale(teacher)
    same = raw.shape[1] == teacher.shape[1]
    axes = principal_axes(t, AXES) if len(t) < TOKENS_PER_CHANNEL * t.shape[1] else None

    def seen(values: NDArray[Any]) -> NDArray[Any]:
        return values if axes is None else values @ axes

    out = {"fd_floor": frechet_floor(seen(t)), "cka_before": cka_linear(teacher, raw)}
    sample = np.random.default_rng(0).choice(len(t), size=min(MMD_TOKENS, len(t)), replace=False)
    first = scale(raw) if same else None
    width = None
    if first is not None:
        width = median_sq_distance(t[sample], first[sample])
        out["fd_before"] = frechet(seen(t), seen(first)).distance
        out["mmd_before"] = mmd_rbf(t[sample], first[sample], scale=width, estimator="paired")
    if adapted is not None:
        after = scale(adapted)
        width = width or median_sq_distance(t[sample], after[sample])
        out["fd_after"] = frechet(seen(t), seen(after)).distance
        out["mmd_after"] = mmd_rbf(t[sample], after[sample], scale=width, estimator="paired")
        out["cka_after"] = cka_linear(teacher, adapted)
    return out


def _with_means(numbers: dict[str, float]) -> dict[str, float]:
    """Add means over the levels."""
    groups: dict[str, list[float]] = {}
    for key, value in numbers.items():
        groups.setdefault(key.rsplit("_", 1)[0], []).append(value)
    return numbers | {key: float(np.mean(values)) for key, values in groups.items()}


def _reasons(numbers: dict[str, float], recipe: Recipe, adapters: Path | None) -> dict[str, str]:
    reasons = {}
    for part in PARTS:
        if f"fd_before_{part}_0" not in numbers:
            for key in ("fd_before", "mmd_before"):
                reasons[f"{key}_{part}"] = "student and teacher have other channels, so that only CKA is defined"
        if f"fd_after_{part}_0" not in numbers:
            why = "the run has no adapters with weights" if adapters is None else "no features are distilled there"
            for key in ("fd_after", "mmd_after", "cka_after"):
                reasons[f"{key}_{part}"] = why
    return reasons
