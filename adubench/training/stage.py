"""A stage of an experiment that is ready to run, the files it leaves, and its failures as sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from adubench.errors import AdubenchError, DataError, TrainingError, UsageError
from adubench.training import guards
from adubench.training.checkpoint import CheckpointInfo, save_checkpoint
from adubench.training.distributed import world_size

if TYPE_CHECKING:
    from adubench.recipes.schema import Recipe, TrainSection
    from adubench.training.build import AnyData
    from adubench.training.objectives import Objective
    from adubench.training.validation import Validator

MAP_FILES = "teacher_map_files"
"""Key of a run's data under which the files of its teacher maps are recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage that is ready to run: everything that can be wrong has been looked at.

    Attributes:
        recipe: the experiment.
        name: "teacher" or "student".
        folder: of the stage's files.
        objective: what a step computes.
        data: samples.
        validator: None for no validation.
        device: `auto` or a name of torch's.
        source: for the checkpoint's record, e.g. the teacher's hash.
        notes: sentences a user should read before it starts.
    """

    recipe: Recipe
    name: str
    folder: Path
    objective: Objective
    data: AnyData
    validator: Validator | None
    device: str
    source: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def save_network(stage: Stage, name: str, step: int, metrics: Mapping[str, float]) -> None:
    """Write the network of now as checkpoint `name` of the stage's folder.

    Raises:
        DataError: the disk cannot be written.
    """
    network = stage.objective.network
    info = CheckpointInfo(
        model=network.config,
        role="teacher" if stage.name == "teacher" else "student",
        recipe=stage.recipe.plain(),
        step=step,
        metrics=metrics,
        data=stage.data.fingerprint(),
        source=stage.source,
    )
    save_checkpoint(stage.folder / name, network, info=info)


def save_extras(stage: Stage, name: str = "") -> None:
    """Write what was trained beside the network: adapters for the analysis of features, pose networks.

    Raises:
        DataError: the disk cannot be written.
    """
    from safetensors.torch import save

    from adubench.io.atomic import write_bytes

    objective = stage.objective
    state = {k: v.detach().cpu().contiguous().clone() for k, v in objective.extras.state_dict().items()}
    if state:
        write_bytes(stage.folder / (name or objective.extras_file), save(state))


def check_same_data(stage: Stage, began_with: Mapping[str, Any]) -> None:
    """Refuse to continue on other data.

    Raises:
        DataError: the data is not what the run began with.
    """
    data = stage.data.fingerprint()
    if began_with["fingerprint"] != data["fingerprint"]:
        raise DataError(
            f"{stage.folder}: cannot be continued, its run began with {began_with['count']} frames of "
            f"{began_with['split']}, and {data['count']} of {data['split']} are here now. Restore the data, or "
            "start in another folder with -o."
        )
    before, now = began_with.get(MAP_FILES, {}), data.get(MAP_FILES, {})
    if before.get("form") == now.get("form") and before.get("sha256") != now.get("sha256"):
        raise DataError(
            f"{stage.folder}: cannot be continued, teacher maps were changed since it began; {now['newest']} was "
            f"written last, {now['changed']}. Restore them, or start in another folder with -o."
        )


def failure(error: BaseException, stage: Stage, train: TrainSection, *, step: int) -> AdubenchError | None:
    """Say in one sentence what ended a step, None for what nobody foresaw."""
    if guards.is_out_of_memory(error):
        torch.cuda.empty_cache()
        micro = max(1, train.batch_size // world_size() // train.accumulate)
        return guards.memory_error(stage.recipe, train, stage.name, step=step, micro_batch=micro)
    if isinstance(error, TrainingError | UsageError):
        return error
    if isinstance(error, AdubenchError):
        resume = " Everything up to there is saved: repair it, then continue with --resume." if step > 1 else ""
        return DataError(f"step {step}: {error}{resume}")
    if train.compile and type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        return TrainingError(f"train.compile: torch could not compile the network ({reason}); set it to false.")
    if world_size() > 1 and guards.is_lost_process(error):
        return TrainingError(f"step {step}: another process of this run ended; its message says why.")
    return None
