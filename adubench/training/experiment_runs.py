"""Runs of an experiment: train, measure, record; one after the other, or (`experiment_study`) by many workers.

A run that has a record of its recipe is finished and never done again. Runs with the same teacher recipe and seed share
one teacher. `runs.json` lists all runs with their state, for programs.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from adubench import __version__
from adubench.errors import DataError, TrainingError, UsageError
from adubench.io.atomic import write_text
from adubench.recipes.recipe import needs_teacher
from adubench.training import run_folder
from adubench.training.experiment_measures import Inputs, measure
from adubench.training.guards import TrainingStopped

if TYPE_CHECKING:
    from pathlib import Path

    from adubench.recipes.experiments import Expansion, Experiment, RunSpec
    from adubench.recipes.schema import Recipe

INDEX, RECORD, RUNS, TEACHERS = "runs.json", "record.json", "runs", "teachers"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an experiment lives and what it needs.

    Attributes:
        root: its folder.
        data_root: training and test data.
        test_roots: further data sets by name, to be tested or trained on.
        device: `auto` or a name of torch's.
    """

    root: Path
    data_root: Path | None = None
    test_roots: dict[str, Path] = field(default_factory=dict)
    device: str = "auto"

    def run_folder(self, run: str) -> Path:
        """Folder of a run."""
        return self.root / RUNS / run

    def data_of(self, spec: RunSpec) -> Path | None:
        """Root of the data that a run is trained and tested on: its data set's own, else the common one."""
        return self.test_roots.get(spec.data_set, self.data_root)

    def teacher_folder(self, recipe: Recipe) -> Path:
        """Folder of the teacher that a recipe's student learns from."""
        return self.root / TEACHERS / f"{teacher_digest(recipe)[:12]}-s{recipe.seed}"


@dataclass(frozen=True, slots=True)
class Record:
    """What is known about a finished (or failed) run.

    Attributes:
        id: of the run.
        variant: its row.
        data_set: its data set, "".
        seed: its seed.
        role: whose numbers these are.
        digest: of the recipe.
        state: "finished" or "failed".
        numbers: everything measured.
        results: name -> result file, relative to the run's folder.
        absent: what was not measured -> why.
        set: the row's changes.
        values: the whole recipe, dotted keys.
        checkpoint: relative to the experiment's folder.
        seconds: of training and measuring.
        error: of a failed run.
        code: version of adubench.
    """

    id: str
    variant: str
    data_set: str
    seed: int
    role: str
    digest: str
    state: str
    numbers: dict[str, float] = field(default_factory=dict)
    results: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    set: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    checkpoint: str = ""
    seconds: float = 0.0
    error: str = ""
    code: str = __version__


def teacher_digest(recipe: Recipe) -> str:
    """Return the SHA-256 of all that decides a teacher's weights except the seed."""
    plain = recipe.plain()
    train = plain["teacher_train"] or plain["train"]
    assert isinstance(train, dict)
    sections = ("data", "input", "augment", "stereo", "teacher", "self_supervised", "validate", "checkpoint")
    kept = {key: plain[key] for key in sections if key in plain}
    kept["train"] = {key: value for key, value in train.items() if key != "workers"}
    checkpoint = plain["checkpoint"]
    assert isinstance(checkpoint, dict)
    kept["checkpoint"] = {key: value for key, value in checkpoint.items() if key != "milestones"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def read_record(place: Place, spec: RunSpec) -> Record | None:
    """Read the record of a run; None if it has not finished.

    Raises:
        DataError: the record is damaged.
        UsageError: the folder holds the run of another recipe.
    """
    path = place.run_folder(spec.id) / RECORD
    try:
        record = Record(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Delete it to run again.") from None
    if record.digest != spec.digest:
        raise UsageError(
            f"{path.parent}: holds run {spec.id} of another recipe (other --set or --scale?). Choose another -o."
        )
    return record if record.state == "finished" else None


def run_one(experiment: Experiment, spec: RunSpec, scale: str, place: Place) -> Record:
    """Train, measure and record one run; continues it where it was interrupted.

    Returns:
        The record; `failed` where the training went to NaN or out of memory.

    Raises:
        TrainingStopped: the user stopped it; everything is saved.
        DataError: data that is missing or broken.
    """
    started = time.monotonic()
    folder = place.run_folder(spec.id)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        checkpoint, teacher = _train(spec, place)
        inputs = Inputs(
            spec, checkpoint, teacher, folder, place.teacher_folder(spec.recipe) if teacher else None,
            place.data_of(spec), place.test_roots, place.device, place.root,
        )  # fmt: skip
        found = measure(experiment, inputs, scale)
    except TrainingStopped:
        raise
    except TrainingError as error:
        record = _record(spec, state="failed", error=str(error), seconds=time.monotonic() - started)
    else:
        record = _record(
            spec, state="finished", numbers=found.numbers, results=found.results, absent=found.absent,
            checkpoint=str(checkpoint.relative_to(place.root)), seconds=time.monotonic() - started,
        )  # fmt: skip
    write_text(folder / RECORD, json.dumps(asdict(record), indent=1, sort_keys=True, allow_nan=False) + "\n")
    if record.state == "finished" and teacher is not None:
        _drop_states(teacher.parent)
    if record.state == "finished":
        _drop_states(checkpoint.parent)
    return record


def _drop_states(stage: Path) -> None:
    """Delete training states of a finished stage: nothing continues it, and dozens of runs would fill a disk."""
    from adubench.training.state import states

    for _, path in states(stage):
        path.unlink(missing_ok=True)


def _record(spec: RunSpec, **known: Any) -> Record:
    from adubench.recipes.experiments import flat

    values = flat(spec.recipe.plain())
    return Record(
        spec.id, spec.variant, spec.data_set, spec.seed, spec.role, spec.digest, set=spec.set, values=values, **known
    )


def _train(spec: RunSpec, place: Place) -> tuple[Path, Path | None]:
    """Train what the row needs; returns the checkpoint that counts and the teacher."""
    from adubench.training.run import train

    recipe = spec.recipe
    teacher = None
    if spec.role == "teacher" or needs_teacher(recipe) or recipe.student.init == "teacher":
        teacher = _shared_teacher(spec, place)
    if spec.role == "teacher":
        assert teacher is not None
        return teacher, None
    (checkpoint,) = train(
        recipe, output=place.run_folder(spec.id), data_root=place.data_of(spec), stages=("student",), teacher=teacher,
        resume=True, device=place.device,
    )  # fmt: skip
    return checkpoint, teacher


def _shared_teacher(spec: RunSpec, place: Place) -> Path:
    """Train the teacher, or wait for the worker that does; a finished one is taken as it is."""
    from adubench.training.run import train

    folder = place.teacher_folder(spec.recipe)
    with run_folder.waiting_lock(folder.with_suffix(".lock")):
        stages = {"stages": ("teacher", "student") if "student" in spec.recipe.stages else ("teacher",)}
        recipe = spec.recipe.model_copy(update=stages)
        (path,) = train(
            recipe, output=folder, data_root=place.data_of(spec), stages=("teacher",), resume=True, device=place.device
        )
    return path


def run_here(expansion: Expansion, place: Place, say: Say) -> None:
    """Do all runs that are not finished, in order.

    Raises:
        TrainingStopped: the user stopped it; start again to continue.
        DataError: data that is missing or broken.
        UsageError: the folder holds another experiment.
    """
    total = len(expansion.runs)
    for number, spec in enumerate(expansion.runs, 1):
        if read_record(place, spec) is not None:
            say(f"[{number}/{total}] {spec.id}: finished before")
            continue
        say(f"[{number}/{total}] {spec.id}")
        record = run_one(expansion.experiment, spec, expansion.scale, place)
        write_index(expansion, place)
        if record.state == "failed":
            say(f"[{number}/{total}] {spec.id}: failed: {record.error}")
    write_index(expansion, place)


def records_of(expansion: Expansion, place: Place) -> list[Record]:
    """Read the records of all finished runs, in order."""
    found = (read_record(place, spec) for spec in expansion.runs)
    return [record for record in found if record is not None]


def write_index(expansion: Expansion, place: Place) -> Path:
    """Write `runs.json`: every run with its state, recipe, numbers and files, for programs.

    Paths are relative to the experiment's folder. `numbers` has everything that was measured, `absent` what was not and
    why.
    """
    experiment = expansion.experiment
    index = {
        "format": 1,
        "experiment": experiment.id,
        "question": experiment.question,
        "scale": expansion.scale,
        "code": __version__,
        "baseline": experiment.baseline,
        "measure": list(experiment.measure),
        "columns": dict(experiment.table),
        "cautions": list(experiment.cautions),
        "absent": expansion.absent,
        "later": [variant.name for variant in expansion.later],
        "runs": [_index_row(spec, place) for spec in expansion.runs],
    }
    path = place.root / INDEX
    write_text(path, json.dumps(index, indent=1) + "\n")
    return path


def _index_row(spec: RunSpec, place: Place) -> dict[str, Any]:
    folder = place.run_folder(spec.id)
    path = folder / RECORD
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    row = {
        "id": spec.id,
        "row": spec.variant,
        "data_set": spec.data_set,
        "seed": spec.seed,
        "role": spec.role,
        "set": spec.set,
        "recipe_digest": spec.digest,
        "state": record.get("state", "started" if folder.exists() else "waiting"),
        "error": record.get("error", ""),
        "seconds": record.get("seconds"),
        "code": record.get("code", ""),
        "checkpoint": record.get("checkpoint", ""),
        "teacher": "",
        "milestones": [],
        "log": "",
        "recipe": "",
        "results": {name: f"{RUNS}/{spec.id}/{file}" for name, file in record.get("results", {}).items()},
        "numbers": record.get("numbers", {}),
        "absent": record.get("absent", {}),
    }
    stage = folder / "student"
    if spec.role == "teacher":
        stage = place.teacher_folder(spec.recipe) / "teacher"
    elif needs_teacher(spec.recipe) or spec.recipe.student.init == "teacher":
        row["teacher"] = _relative(place.teacher_folder(spec.recipe) / "teacher" / run_folder.LAST, place)
    row["milestones"] = [_relative(p, place) for p in sorted(stage.glob("milestone-????????.safetensors"))]
    row["log"] = _relative(stage / run_folder.LOG, place)
    row["recipe"] = _relative(stage / run_folder.RECIPE, place)
    return row


def _relative(path: Path, place: Place) -> str:
    return str(path.relative_to(place.root)) if path.exists() else ""


def best_rows(records: list[Record], metric: str, count: int = 1, *, data_set: str | None = None) -> list[str]:
    """Return the rows with the lowest mean of a metric over their seeds."""
    values: dict[str, list[float]] = {}
    for record in records:
        if metric in record.numbers and data_set in (None, record.data_set):
            values.setdefault(record.variant, []).append(record.numbers[metric])
    means = {name: sum(found) / len(found) for name, found in values.items()}
    return sorted(means, key=lambda name: means[name])[:count]


def read_all_records(root: Path) -> list[Record]:
    """Read every finished record of an experiment's folder, whatever it holds.

    Raises:
        DataError: no experiment there, or a damaged record.
    """
    if not (root / INDEX).is_file():
        raise DataError(f"{root}: holds no experiment (no {INDEX}).")
    found = []
    for path in sorted((root / RUNS).glob(f"*/{RECORD}")):
        try:
            record = Record(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{path}: cannot be read ({error}).") from None
        if record.state == "finished":
            found.append(record)
    return found
