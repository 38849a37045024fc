"""Experiments: variants of a recipe times seeds, at a scale, with what is measured and what the table shows.

The files lie in `experiments/`. An experiment is expanded to runs, each a complete recipe; nothing is trained here.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError

from adubench.errors import AdubenchError, UsageError, unknown_name
from adubench.recipes import source
from adubench.recipes.faults import first_fault
from adubench.recipes.recipe import recipe_digest, tree_to_recipe
from adubench.recipes.section import Section
from adubench.recipes.source import Origin, Tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from adubench.recipes.schema import Recipe

FOLDER = source.FOLDER / "experiments"
ScaleName = Literal["full", "dev", "synth", "smoke"]
SCALE_NAMES: tuple[ScaleName, ...] = ("full", "dev", "synth", "smoke")
Measure = Literal[
    "metrics", "regions", "calibration", "teacher_metrics", "curve", "cost", "feature_gap", "search", "transfer"
]

#: What a scale does to every experiment: another recipe to start from, and changed keys.
SCALES: dict[ScaleName, tuple[str | None, dict[str, Any], str]] = {
    "full": (None, {}, "as published: large07, 40 epochs"),
    "dev": (
        None,
        {"student.encoder": "tiny07", "teacher.encoder": "tiny07", "train.epochs": 5},
        "tiny07, 5 epochs, the published data",
    ),
    "synth": ("demo", {}, "small networks on SynthDrive, some hundred steps"),
    "smoke": ("smoke", {}, "a tiny network on SynthDrive, 20 steps: shows that it runs, says nothing else"),
}


class Variant(Section):
    """One row of an experiment.

    Attributes:
        name: of the row.
        set: keys of the recipe that differ, nested or dotted.
        role: whose numbers the row shows.
        scales: where the row can run; None for everywhere.
        elsewhere: why it cannot run at the other scales.
        published: the paper's numbers, metric -> value.
        at_best: this row starts from the best finished row of the experiment (by `best_metric`).
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ,.()+=_-]*$")]
    set: dict[str, Any] = Field(default_factory=dict)
    role: Literal["student", "teacher"] = "student"
    scales: tuple[ScaleName, ...] | None = None
    elsewhere: str = ""
    published: dict[str, float] = Field(default_factory=dict)
    at_best: bool = False


class SobolSection(Section):
    """Scrambled Sobol points of a box, as rows."""

    keys: tuple[str, ...]
    low: float
    high: float
    count: Annotated[int, Field(gt=0)]
    seed: Annotated[int, Field(ge=0)] = 0


class ScaleChange(Section):
    """What an experiment does differently at a scale.

    Attributes:
        base: recipe to start from.
        set: keys that differ.
        seeds: number of seeds.
        rerun_best: only so many rows, the best of a search at another scale (`--best-of`).
    """

    base: str | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    seeds: Annotated[int, Field(gt=0)] | None = None
    rerun_best: Annotated[int, Field(gt=0)] | None = None


class DataSet(Section):
    """A data set on which all rows run."""

    name: str
    base: str


class TestSet(Section):
    """A further set on which trained students are scored.

    Attributes:
        name: of the set, also of its root in `--test-root NAME=DIR`.
        split: what is scored.
        protocol: default is the split's own.
        scales: where it makes sense.
        focal: focal length in pixels of its images; None: predictions are not rescaled.
        train_focal: focal length of the training images.
    """

    name: str
    split: str
    protocol: str | None = None
    scales: tuple[ScaleName, ...] | None = None
    focal: float | None = None
    train_focal: float | None = None


class Experiment(Section):
    """An experiment file.

    Attributes:
        id: its name.
        question: what it decides.
        source: paper and table.
        base: recipe of the rows at the scales `full` and `dev`.
        data_sets: several bases; all rows run on each of them.
        baseline: row that the others are compared with.
        vary: rows.
        grid: lists of values per key; every combination is a row.
        sobol: points of a box as rows.
        seeds: runs per row.
        set: keys of all rows' recipes that differ from the base.
        scales: what differs at a scale.
        measure: what is measured.
        test_sets: further sets.
        table: title of a column -> what it shows.
        best_metric: metric by which rows are ranked (lower is better).
        cautions: sentences printed under the table.
    """

    id: str
    question: str
    source: str = ""
    base: str = "adu-kitti-eigen"
    data_sets: tuple[DataSet, ...] = ()
    baseline: str | None = None
    vary: tuple[Variant, ...] = ()
    grid: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    sobol: SobolSection | None = None
    seeds: Annotated[int, Field(gt=0)] = 3
    set: dict[str, Any] = Field(default_factory=dict)
    scales: dict[ScaleName, ScaleChange] = Field(default_factory=dict)
    measure: tuple[Measure, ...] = ("metrics",)
    test_sets: tuple[TestSet, ...] = ()
    table: dict[str, str]
    best_metric: str = "silog"
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One training of an experiment.

    Attributes:
        id: unique within the experiment, good as a folder name.
        variant: name of the row.
        data_set: name of the data set, "" where there is one.
        seed: of the run.
        role: whose numbers count.
        recipe: complete.
        digest: of the recipe.
        set: the row's changes, dotted.
    """

    id: str
    variant: str
    data_set: str
    seed: int
    role: str
    recipe: Recipe
    digest: str
    set: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Expansion:
    """All runs of an experiment at a scale.

    Attributes:
        experiment: the file.
        scale: its name.
        runs: in order: data sets, rows, seeds.
        absent: row -> why it does not run at this scale.
        later: rows that wait for the others (`at_best`).
    """

    experiment: Experiment
    scale: ScaleName
    runs: tuple[RunSpec, ...]
    absent: dict[str, str]
    later: tuple[Variant, ...] = ()


def experiment_files() -> dict[str, Path]:
    """Return name -> file of the experiments that come with adubench."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def load_experiment(name_or_path: str | Path) -> tuple[Experiment, Tree]:
    """Read an experiment.

    Args:
        name_or_path: `E1` ... `E8`, `table4`, or the path of a YAML file.

    Raises:
        UsageError: no such experiment, or a fault in the file, with its line.
    """
    text = str(name_or_path)
    known = experiment_files()
    if not text.endswith(source.SUFFIXES) and "/" not in text:
        folded = {name.lower(): name for name in known}
        if text.lower() not in folded:
            raise unknown_name("experiment", text, known)
        path = known[folded[text.lower()]]
    else:
        path = source.resolve_path(text)
    tree = source.read_tree(path)
    values = _dotted_sections(tree.values)
    values.setdefault("id", path.stem)
    try:
        experiment = Experiment.model_validate(values)
    except ValidationError as error:
        raise first_fault(error, Tree(values, tree.origins, tree.name), Experiment) from None
    _check(experiment, tree)
    return experiment, tree


def _dotted_sections(values: Mapping[str, Any]) -> dict[str, Any]:
    """Undo the nesting of dotted keys where keys of a recipe are keys of a table (`grid`)."""
    out = dict(values)
    if isinstance(out.get("grid"), dict):
        out["grid"] = {key: tuple(v) if isinstance(v, list) else v for key, v in flat(out["grid"]).items()}
    return out


def _check(experiment: Experiment, tree: Tree) -> None:
    rows = [variant.name for variant in variants(experiment)]
    if not rows:
        raise UsageError(f"{tree.origin(())}: no rows: an experiment needs 'vary', 'grid' or 'sobol'.")
    for name in rows:
        if rows.count(name) > 1:
            raise UsageError(f"{tree.origin(('vary',))}: the row '{name}' stands twice.")
    if experiment.baseline is not None and experiment.baseline not in rows:
        error = unknown_name("row", experiment.baseline, rows)
        raise UsageError(f"{tree.origin(('baseline',))}: baseline: {error}")


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested keys as dotted ones."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


def variants(experiment: Experiment) -> list[Variant]:
    """List all rows: those that are named, then grid and Sobol points."""
    rows = [*experiment.vary]
    if experiment.grid:
        keys = list(experiment.grid)
        for values in itertools.product(*experiment.grid.values()):
            name = ", ".join(f"{key.rsplit('.', 1)[-1]} {value}" for key, value in zip(keys, values, strict=True))
            rows.append(Variant(name=name, set=dict(zip(keys, values, strict=True))))
    if experiment.sobol is not None:
        rows += _sobol_rows(experiment.sobol)
    return rows


def _sobol_rows(section: SobolSection) -> Iterator[Variant]:
    from scipy.stats import qmc

    points = qmc.Sobol(d=len(section.keys), scramble=True, seed=section.seed).random(section.count)
    for i, point in enumerate(section.low + (section.high - section.low) * points):
        # Six digits: enough to tell points apart, few enough to be typed again.
        values = {key: round(float(value), 6) for key, value in zip(section.keys, point, strict=True)}
        yield Variant(name=f"sobol {i:02d}", set=values)


def expand(
    experiment: Experiment,
    scale: str,
    *,
    seeds: int | None = None,
    overrides: Sequence[str] = (),
    only: Sequence[str] | None = None,
) -> Expansion:
    """Expand an experiment to its runs.

    Args:
        experiment: of `load_experiment`.
        scale: one of `SCALE_NAMES`.
        seeds: runs per row, instead of the experiment's number.
        overrides: `a.b=value` for every run, after the row's own changes.
        only: names of rows to keep (the best of a search).

    Raises:
        UsageError: an unknown scale, or a row that makes no valid recipe.
    """
    name = _scale(scale)
    change = experiment.scales.get(name, ScaleChange())
    count = seeds or change.seeds or experiment.seeds
    absent: dict[str, str] = {}
    runs: list[RunSpec] = []
    rows: list[Variant] = []
    later: list[Variant] = []
    for variant in variants(experiment):
        if only is not None and variant.name not in only:
            continue
        if variant.scales is not None and name not in variant.scales:
            absent[variant.name] = variant.elsewhere or f"runs at scale {' or '.join(variant.scales)} only"
        else:
            (later if variant.at_best else rows).append(variant)
    for data_set, base in _bases(experiment, name, change):
        runs += [
            make_run(experiment, name, variant, seed, base=base, data_set=data_set, overrides=overrides)
            for variant in rows
            for seed in range(count)
        ]
    return Expansion(experiment, name, tuple(runs), absent, tuple(later))


def _scale(scale: str) -> ScaleName:
    for name in SCALE_NAMES:
        if scale == name:
            return name
    raise unknown_name("scale", scale, SCALE_NAMES)


def _bases(experiment: Experiment, scale: ScaleName, change: ScaleChange) -> list[tuple[str, str]]:
    """Return (data set, recipe); on SynthDrive all data sets are the same one."""
    forced = change.base or SCALES[scale][0]
    if forced is not None:
        return [("", forced)]
    if experiment.data_sets:
        return [(data_set.name, data_set.base) for data_set in experiment.data_sets]
    return [("", experiment.base)]


def make_run(
    experiment: Experiment,
    scale: ScaleName,
    variant: Variant,
    seed: int,
    *,
    base: str,
    data_set: str = "",
    overrides: Sequence[str] = (),
) -> RunSpec:
    """Make the recipe of one run: base, scale, the row's changes, overrides, seed, in this order.

    Raises:
        UsageError: a key or value that the recipe does not have.
    """
    tree = source.load_tree(source.resolve_path(base))
    change = experiment.scales.get(scale, ScaleChange())
    row = flat(variant.set)
    for settings, where in (
        (flat(experiment.set), f"experiment {experiment.id}"),
        (SCALES[scale][1], f"scale {scale}"),
        (flat(change.set), f"experiment {experiment.id}, scale {scale}"),
        (row, f"experiment {experiment.id}, row '{variant.name}'"),
    ):
        for key, value in settings.items():
            tree = source.put(tree, key.split("."), value, Origin(where))
    tree = source.apply_overrides(tree, overrides)
    identity = run_id(variant.name, data_set, seed)
    tree = source.put(tree, ["name"], f"{experiment.id}-{scale}-{identity}", Origin("the run"))
    tree = source.put(tree, ["seed"], seed, Origin("the run"))
    try:
        recipe = tree_to_recipe(tree)
    except AdubenchError as error:
        raise UsageError(f"experiment {experiment.id}, row '{variant.name}': {error}") from None
    return RunSpec(identity, variant.name, data_set, seed, variant.role, recipe, recipe_digest(recipe), row)


def run_id(variant: str, data_set: str, seed: int) -> str:
    """Return the folder name of a run."""
    slug = re.sub(r"[^a-z0-9.]+", "-", f"{data_set} {variant}".strip().lower()).strip("-")
    return f"{slug}-s{seed}"


def later_runs(expansion: Expansion, best: str, *, overrides: Sequence[str] = ()) -> list[RunSpec]:
    """Make the runs of rows that start from the best row of the experiment.

    Args:
        expansion: with rows in `later`.
        best: name of the best row.
        overrides: those of the other runs.
    """
    experiment = expansion.experiment
    change = experiment.scales.get(expansion.scale, ScaleChange())
    start = next(variant for variant in variants(experiment) if variant.name == best)
    seeds = sorted({spec.seed for spec in expansion.runs})
    rows = [variant.model_copy(update={"set": flat(start.set) | flat(variant.set)}) for variant in expansion.later]
    return [
        make_run(experiment, expansion.scale, row, seed, base=base, data_set=data_set, overrides=overrides)
        for data_set, base in _bases(experiment, expansion.scale, change)
        for row in rows
        for seed in seeds
    ]
