"""`train`: a recipe's stages, one after the other, each in a folder of its own."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import distributed

from adubench.errors import UsageError, unknown_name
from adubench.recipes.recipe import needs_teacher, stages_to_run
from adubench.recipes.tie_kd_sections import MAP_METHODS
from adubench.training import run_folder
from adubench.training.build import (
    build_network,
    data_root_of,
    load_teacher,
    network_config,
    open_data,
    stage_objective,
)
from adubench.training.checkpoint import read_info
from adubench.training.distributed import rank, world_size
from adubench.training.loop import Trainer
from adubench.training.self_supervised_objectives import teacher_scale
from adubench.training.stage import Stage
from adubench.training.trackers import check_trackers
from adubench.training.validation import open_validation

if TYPE_CHECKING:
    from adubench.recipes.schema import Recipe


def train(
    recipe: Recipe,
    *,
    output: Path,
    data_root: Path | None = None,
    stages: Sequence[str] = (),
    teacher: Path | None = None,
    resume: bool = False,
    device: str = "auto",
) -> list[Path]:
    """Train a recipe.

    Everything that can be wrong with recipe, data, teacher and folder is found before the first step.

    Args:
        recipe: the experiment.
        output: folder of the run; each stage has a folder of its own in it.
        data_root: where the data lies; else the recipe's, else the environment's.
        stages: which stages; empty for the recipe's own. With `teacher`, the student alone.
        teacher: checkpoint of a trained teacher, instead of the one in `output`.
        resume: continue what is in `output`; stages that are finished are left as they are.
        device: `auto` or a name of torch's.

    Returns:
        The last checkpoint of each stage.

    Raises:
        UsageError: options that contradict each other, or a folder that holds another run.
        DataError: data that is missing or broken.
        CheckpointError: a teacher or a start that does not fit.
        TrainingError: a training that cannot go on.
    """
    recipe, teacher = named_teacher(recipe, teacher)
    wanted = choose_stages(recipe, stages, teacher)
    check_trackers(recipe.log.trackers)
    root = data_root_of(recipe, data_root)
    with _processes(device), run_folder.locked(output) if rank() == 0 else nullcontext():
        pending = [s for s in wanted if run_folder.may_start(output / s, recipe, s, resume=resume)]
        known = _known_teacher(recipe, wanted, output, teacher)
        if "student" in pending and known is not None:
            load_teacher(recipe, known)
        if len(pending) == 2:
            # What is wrong with the student must not be found after the teacher's days of training.
            stage_objective(recipe, "student", build_network(recipe, "teacher"))
        prepared = {s: (open_data(recipe, s, root), open_validation(recipe, s, root)) for s in pending}
        _wait()  # until every process has looked at the folder
        for name in pending:
            data, validator = prepared[name]
            stage = _stage(recipe, name, output, data, validator, teacher, device)
            check_teacher(stage.folder, stage.source)
            _begin(stage, resume)
            trainer = Trainer(stage)
            trainer.run(resume=resume)
            if name != pending[-1]:
                trainer.stop_before_next()
    return [output / name / run_folder.LAST for name in wanted]


def named_teacher(recipe: Recipe, teacher: Path | None) -> tuple[Recipe, Path | None]:
    """For methods that learn from stored maps, let `--teacher FILE` say whose maps they have to be.

    Raises:
        CheckpointError: not a checkpoint.
    """
    if teacher is None or recipe.method not in MAP_METHODS:
        return recipe, teacher
    read_info(teacher)
    maps = recipe.teacher_maps.model_copy(update={"weights_sha256": _sha256(teacher)})
    return recipe.model_copy(update={"teacher_maps": maps}), None


def choose_stages(recipe: Recipe, stages: Sequence[str], teacher: Path | None) -> tuple[str, ...]:
    """Return the stages to run, in order.

    Raises:
        UsageError: a stage that the recipe lacks, or a teacher for a student that learns from none.
    """
    own = stages_to_run(recipe)
    for name in stages:
        if name not in recipe.stages:
            raise unknown_name(f"stage of recipe {recipe.name}", name, recipe.stages)
    uses = needs_teacher(recipe) or recipe.student.init == "teacher"
    if teacher is not None and not uses:
        raise UsageError(f"--teacher {teacher}: the student of recipe {recipe.name} learns from no teacher.")
    if teacher is not None and "teacher" in stages:
        raise UsageError("--teacher names a trained teacher and --stage teacher trains one: leave one of them out.")
    wanted = tuple(s for s in ("teacher", "student") if s in (stages or own))
    return tuple(s for s in wanted if s != "teacher") if teacher is not None else wanted


def _known_teacher(recipe: Recipe, wanted: Sequence[str], output: Path, teacher: Path | None) -> Path | None:
    """Return the teacher that exists already; None if it will be trained first, or is not needed."""
    if "student" not in wanted or not (needs_teacher(recipe) or recipe.student.init == "teacher"):
        return None
    own = output / "teacher" / run_folder.LAST
    if teacher is not None or "teacher" not in wanted:
        path = teacher or own
        if not path.is_file():
            raise UsageError(
                f"the student of recipe {recipe.name} learns from a teacher, and there is none at {path}: train it "
                "(leave --stage out), or give --teacher CHECKPOINT."
            )
        return path
    run = run_folder.read_run(output / "teacher")
    return own if run is not None and run.get("status") == "finished" else None


def _stage(
    recipe: Recipe, name: str, output: Path, data: Any, validator: Any, teacher: Path | None, device: str
) -> Stage:
    source: dict[str, Any] = {}
    network, scale = None, ""
    if name == "student" and (needs_teacher(recipe) or recipe.student.init == "teacher"):
        path = teacher or output / "teacher" / run_folder.LAST
        network, info = load_teacher(recipe, path)
        source = {"teacher": path.name, "teacher_sha256": _sha256(path), "teacher_step": info.step}
        if recipe.self_supervision and (scale := teacher_scale(recipe, network)):
            source["teacher_scale"] = scale
    return Stage(
        recipe=recipe,
        name=name,
        folder=output / name,
        objective=stage_objective(recipe, name, network),
        data=data,
        validator=validator,
        device=device,
        source=source,
        notes=(f"{path.name}: {scale}",) if scale else (),
    )


def check_teacher(folder: Path, source: Mapping[str, Any]) -> None:
    """Refuse to continue a student with another teacher than it began with.

    Raises:
        UsageError: the run in the folder began with other weights of the teacher.
    """
    run = run_folder.read_run(folder) or {}
    before, now = run.get("source", {}).get("teacher_sha256"), source.get("teacher_sha256")
    if before is not None and now is not None and before != now:
        raise UsageError(
            f"{folder}: cannot be continued with this teacher ({source['teacher']}, {now[:12]}), it began with another "
            f"one ({run['source']['teacher']}, {before[:12]}). Give that one, or choose another folder with -o."
        )


def _begin(stage: Stage, resume: bool) -> None:
    """Write down what is about to run."""
    if rank() != 0 or (resume and run_folder.read_run(stage.folder) is not None):
        return
    stage.folder.mkdir(parents=True, exist_ok=True)
    run_folder.write_recipe(stage.folder, stage.recipe)
    run_folder.write_run(
        stage.folder,
        status="started",
        recipe=stage.recipe.name,
        stage=stage.name,
        step=0,
        model=network_config(stage.recipe, stage.name),
        source=dict(stage.source),
    )


@contextmanager
def _processes(device: str) -> Iterator[None]:
    """Join the processes of `torchrun` or `accelerate launch` before anything is looked at; nothing for one process."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        yield
        return
    from accelerate import PartialState

    from adubench.training.launch import PATIENCE
    from adubench.training.network_predictor import resolve_device

    PartialState(cpu=resolve_device(device).type == "cpu", timeout=PATIENCE)
    yield
    _wait()
    distributed.destroy_process_group()


def _wait() -> None:
    if world_size() > 1:
        distributed.barrier()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
