"""The folder of a run: who works in it, what was started there, and whether that can be continued."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from adubench import __version__
from adubench.errors import DataError, UsageError
from adubench.io.atomic import write_error, write_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from adubench.recipes.schema import Recipe

LOCK, RUN, RECIPE, LOG = ".lock", "run.json", "recipe.yaml", "log.jsonl"
LAST, BEST, ADAPTERS = "checkpoint-last.safetensors", "checkpoint-best.safetensors", "adapters-last.safetensors"
POSE = "pose-last.safetensors"
"""What self-supervised training learns beside the depth network: `pose.*`, `mask.*`, `uncertainty.*`."""

# What may differ when a run is continued: it changes no weight. Prefixes of dotted keys.
FREE = (
    "name", "about", "source", "expected", "stages", "test", "log", "checkpoint",
    "data.root", "data.gt_root", "data.right_root", "data.pack", "teacher_maps.path",
    "train.workers", "teacher_train.workers",
)  # fmt: skip
# A teacher knows nothing of the student and of how it will be distilled.
FREE_OF_TEACHER = ("method", "student", "distill", "sub_depth")

_held: set[Path] = set()


def milestone_files(folder: Path, step: int) -> tuple[Path, Path]:
    """Name the files of a milestone: the network and its adapters after `step` optimiser steps."""
    return folder / f"milestone-{step:08d}.safetensors", folder / f"milestone-{step:08d}-adapters.safetensors"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder for this process; the operating system lets go of it however the process ends.

    Folders that are made here and stay empty are taken away again, and so is the record of a run that ended before its
    first step was saved: a refused run leaves nothing, and is started anew with a mended recipe.

    Raises:
        UsageError: another process (or another run of this one) works there.
        DataError: the folder cannot be written.
    """
    path = folder.resolve() / LOCK
    if path in _held:
        raise _busy(folder, f"process {os.getpid()} on {socket.gethostname()}")
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise write_error(folder, error) from None
    try:
        try:
            # Record locks, unlike flock's, do not pass to the loader's processes, which outlive a killed trainer.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            raise _busy(folder, file.read().strip() or "another process") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        file.flush()
        _held.add(path)
        try:
            _forget(folder)
            yield
        finally:
            _forget(folder)
            _held.discard(path)
            path.unlink(missing_ok=True)
            with suppress(OSError):  # somebody's files are in it
                for place in made:
                    place.rmdir()
    finally:
        file.close()


def _forget(folder: Path) -> None:
    """Remove the records of stages that have trained nothing."""
    for stage in (folder / "teacher", folder / "student"):
        with suppress(OSError, DataError):  # what is no record of ours stays
            run = read_run(stage)
            if run is not None and not _trained(stage, run):
                for name in (RUN, RECIPE, LOG):
                    (stage / name).unlink(missing_ok=True)
                stage.rmdir()


def _trained(stage: Path, run: Mapping[str, Any]) -> bool:
    """Whether a training computed anything in the folder of a stage, be it gone by now."""
    return run.get("step", 0) != 0 or any(stage.glob("state-*")) or any(stage.glob("*.safetensors"))


@contextmanager
def waiting_lock(path: Path) -> Iterator[None]:
    """Hold a file lock, waiting for whoever has it; the operating system frees it however a process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(file, fcntl.LOCK_UN)


def read_run(folder: Path) -> dict[str, Any] | None:
    """Read what `write_run` wrote; None where no run was started.

    Raises:
        DataError: the file is damaged.
    """
    path = folder / RUN
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Start in another folder with -o.") from None
    if not isinstance(document, dict):
        raise DataError(f"{path}: not the description of a run. Start in another folder with -o.")
    return document


def write_run(folder: Path, **changes: Any) -> dict[str, Any]:
    """Update the description of the run in a folder and return it."""
    document = (read_run(folder) or {"started": time.strftime("%Y-%m-%dT%H:%M:%S")}) | {"code": __version__} | changes
    write_text(folder / RUN, json.dumps(document, indent=1, sort_keys=True) + "\n")
    return document


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Write the recipe as it was resolved; `adubench train` takes the file."""
    write_text(folder / RECIPE, yaml.safe_dump(recipe.plain(), sort_keys=False, allow_unicode=True))


def may_start(folder: Path, recipe: Recipe, stage: str, *, resume: bool) -> bool:
    """Check that a stage may run in a folder.

    Returns:
        False if the stage is finished there and need not run again.

    Raises:
        UsageError: there is a run and `resume` is off, or its recipe is another one.
    """
    run = read_run(folder)
    if run is None or not _trained(folder, run):
        return True
    if not resume:
        done = "is finished" if run.get("status") == "finished" else f"stopped at step {run.get('step', 0)}"
        raise UsageError(
            f"{folder}: holds a {stage} run of recipe '{run.get('recipe', '?')}' that {done}. "
            "Continue it with --resume, or choose another folder with -o."
        )
    changed = changed_keys(_stored_recipe(folder), recipe.plain(), stage)
    if changed:
        listed = "; ".join(f"{key}: {old!r} there, {new!r} now" for key, (old, new) in list(changed.items())[:5])
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise UsageError(
            f"{folder}: cannot be continued, the recipe was another one ({listed}{more}). Use the old values "
            f"({folder / RECIPE}), or choose another folder with -o."
        )
    return run.get("status") != "finished"


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any], stage: str) -> dict[str, tuple[Any, Any]]:
    """Compare two plain recipes by dotted key, leaving out what changes no weight of a stage."""
    free = FREE + (FREE_OF_TEACHER if stage == "teacher" else ("teacher_train",))
    if stage == "teacher" and new.get("teacher_train") is not None:
        free = (*free, "train")
    before, after = _flat(old), _flat(new)
    keys = [k for k in {**before, **after} if not any(k == f or k.startswith(f + ".") for f in free)]
    return {k: (before.get(k), after.get(k)) for k in keys if before.get(k) != after.get(k)}


def _stored_recipe(folder: Path) -> dict[str, Any]:
    path = folder / RECIPE
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Start in another folder with -o.") from None
    if not isinstance(document, dict):
        raise DataError(f"{path}: not a recipe. Start in another folder with -o.")
    from adubench.recipes.schema import Recipe

    try:  # keys that recipes did not have yet when the run began
        return Recipe.model_validate(document).plain()
    except ValidationError:
        return document


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict) and item:
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = item
    return flat


def _busy(folder: Path, who: str) -> UsageError:
    return UsageError(f"{folder}: is in use by {who}. Wait for it, or choose another folder with -o.")
