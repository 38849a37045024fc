"""`adubench train`: parse, plan or train."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adubench.recipes.schema import Recipe
    from adubench.training.plan import StagePlan, TrainingPlan

EPILOG = """
\b
Examples:
  adubench data synth SYNTH && adubench train demo --data-root SYNTH -o runs/demo
  adubench train adu-kitti-eigen --data-root KITTI --gt data_depth_annotated --dry-run
  adubench train adu-kitti-eigen --data-root KITTI --set train.batch_size=8 --set student.encoder=base07 -o runs/base
  adubench train adu-kitti-eigen --stage student --teacher runs/teacher.safetensors --data-root KITTI -o runs/student
  adubench train runs/base/student/recipe.yaml --data-root KITTI -o runs/base --resume
"""
_PATH = click.Path(path_type=Path)


@click.command("train", epilog=EPILOG)
@click.argument("recipe_name", metavar="RECIPE")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key of the recipe; repeatable.")
@click.option("-o", "--output", type=_PATH, help="Folder of the run. Default: runs/RECIPE.")
@click.option("--data-root", type=_PATH, help="Where the data set lies [env ADUBENCH_DATA_ROOT].")
@click.option("--gt", type=_PATH, help="Where the ground truth lies, if not below --data-root.")
@click.option("--stage", default="all", show_default=True, help="teacher, student or all.")
@click.option("--teacher", type=_PATH, help="Trained teacher, instead of the teacher stage.")
@click.option("--teacher-maps", type=_PATH, help="Stored maps of a teacher (predict --layout tie-kd), for TIE-KD.")
@click.option("--resume", is_flag=True, help="Continue the run in the output folder.")
@click.option("--dry-run", is_flag=True, help="Print what would run (frames, steps, parameters, memory) and stop.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--seed", type=int, help="The same as --set seed=N.")
@click.option("--workers", type=int, help="The same as --set train.workers=N: processes that read data.")
def command(recipe_name: str, overrides: tuple[str, ...], dry_run: bool, **options: Any) -> int:
    """Train RECIPE: a name of `adubench list recipes`, or a YAML file.

    A recipe with two stages trains the teacher first, then the student. The folder of a stage holds its checkpoints,
    the recipe as it was resolved, and the log. Exit status: 0 good, 1 a fault in the data, 2 usage.
    """
    from adubench.commands._training import need_training
    from adubench.recipes.recipe import load_recipe, recipe_warnings

    recipe = load_recipe(recipe_name, [*overrides, *_short_options(options)])
    need_training("adubench train")
    from adubench.training.build import data_root_of
    from adubench.training.plan import choose_stages

    output = options["output"] or Path("runs") / recipe.name
    root = data_root_of(recipe, options["data_root"])
    stages = choose_stages(recipe, options["stage"], teacher=options["teacher"])
    if dry_run:
        return _dry_run(recipe, output, root, stages, options)
    for warning in recipe_warnings(recipe):
        click.echo(f"warning: {warning}", err=True)
    from adubench.training.run import train

    written = train(
        recipe, output=output, data_root=root, stages=stages, teacher=options["teacher"], resume=options["resume"],
        device=options["device"],
    )  # fmt: skip
    if os.environ.get("RANK", "0") == "0":  # one of the processes of a launch speaks for all
        for path in written:
            click.echo(f"written: {path}", err=True)
    return 0


def _short_options(options: dict[str, Any]) -> list[str]:
    """Turn options that stand for a key into overrides."""
    import json

    keys = {"seed": "seed", "workers": "train.workers", "gt": "data.gt_root", "teacher_maps": "teacher_maps.path"}
    found = [(key, options[name]) for name, key in keys.items() if options[name] is not None]
    return [f"{key}={json.dumps(str(value)) if isinstance(value, Path) else value}" for key, value in found]


def _dry_run(recipe: Recipe, output: Path, root: Path | None, stages: Sequence[str], options: dict[str, Any]) -> int:
    from adubench.commands._options import stdout_console
    from adubench.training.plan import plan_training

    plan = plan_training(
        recipe, output=output, data_root=root, stages=stages, teacher=options["teacher"], device=options["device"]
    )
    console = stdout_console(highlight=False, soft_wrap=True)
    console.print(_plan_table(plan))
    for note in plan.notes:
        console.print(f"note: {note}", markup=False)
    if plan.problem:
        click.echo(f"error: training could not start: {plan.problem}", err=True)
    return 1 if plan.problem else 0


def _plan_table(plan: TrainingPlan) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{plan.recipe.name}: what would run", title_justify="left", show_lines=False)
    table.add_column("")
    for stage in plan.stages:
        table.add_column(stage.stage, overflow="fold")
    rows = [_stage_rows(stage, plan) for stage in plan.stages]
    for i, (head, _) in enumerate(rows[0]):
        table.add_row(Text(head, style="bold"), *(Text(column[i][1]) for column in rows))
    return table


def _stage_rows(stage: StagePlan, plan: TrainingPlan) -> list[tuple[str, str]]:
    recipe, train, cost = plan.recipe, stage.train, stage.estimate
    seen = recipe.self_supervised if recipe.self_supervision else recipe.input
    size = f"{seen.height}x{seen.width} ({'resize' if recipe.self_supervision else recipe.input.mode})"
    accumulated = f" in {train.accumulate} micro-batches" if train.accumulate > 1 else ""
    listed = f" of {stage.listed:,}" if stage.listed is not None else ""
    guessed = stage.frames is None and train.steps is None
    step_flop = cost.step_gflop * train.batch_size / 1000
    return [
        ("network", _network(recipe, stage.stage)),
        ("learns from", stage.learns),
        ("frames", f"{stage.frames:,}{listed}" if stage.frames is not None else f"not found{listed}"),
        ("left out", "\n".join(stage.dropped) or "none"),
        ("input", size),
        ("batch", f"{train.batch_size}{accumulated}"),
        (
            "steps",
            f"{'about ' if guessed else ''}{stage.steps:,}" if stage.steps is not None else "depends on the frames",
        ),
        ("epochs", f"{stage.epochs:.3g}" if stage.epochs is not None else "depends on the frames"),
        ("optimiser", f"{train.optimizer}, lr {train.lr:g}, {train.schedule}"),
        ("parameters", _sum(cost.parameters, lambda n: f"{n / 1e6:.2f} M") or _unknown(stage)),
        ("GFLOP per sample", _sum(cost.gflop, lambda g: f"{g:,.1f}") or _unknown(stage)),
        ("per step", _flop(step_flop) if cost.gflop else _unknown(stage)),
        ("whole stage", _flop(step_flop * stage.steps) if stage.steps and cost.gflop else "-"),
        ("memory, about", "\n".join((_sum(cost.memory, _bytes), *cost.remarks)) if cost.memory else _unknown(stage)),
        ("device", f"{plan.device}, precision {train.precision}"),
        ("files", "\n".join(map(str, stage.files))),
    ]


def _network(recipe: Recipe, stage: str) -> str:
    if recipe.model is not None:
        kind = recipe.model.keys.get("encoder") or recipe.model.keys.get("layout", "")
        return f"{recipe.model.family} {kind}".rstrip() + f", start: {recipe.model.init}"
    if recipe.self_supervision:
        return _disparity_network(recipe, stage)
    network = recipe.teacher if stage == "teacher" else recipe.student
    return f"newcrfs {network.encoder}, start: {network.init}"


def _disparity_network(recipe: Recipe, stage: str) -> str:
    from adubench.recipes.recipe import needs_teacher

    section, sub = recipe.self_supervised, recipe.sub_depth
    distils = stage == "student" and needs_teacher(recipe)
    start = "teacher" if distils and sub.student_init == "teacher" else section.init
    extra = " with uncertainty" if distils and sub.loss_mode == "uncertainty" else ""
    pose = f", pose {section.pose_model_type} ({section.pose_model_input})" if len(section.frame_ids) > 1 else ""
    return f"{section.family}{extra}{pose}, start: {start}"


def _flop(tera: float) -> str:
    """Print an amount of arithmetic given in TFLOP."""
    if tera < 1:
        return f"{tera * 1000:.3g} GFLOP"
    for unit in ("TFLOP", "PFLOP"):
        if tera < 1000:
            return f"{tera:.3g} {unit}"
        tera /= 1000
    return f"{tera:.3g} EFLOP"


def _bytes(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _unknown(stage: StagePlan) -> str:
    return "; ".join(stage.estimate.remarks) or "-"


def _sum(parts: dict[str, Any], say: Any) -> str:
    """Print a total and what it consists of."""
    if not parts:
        return ""
    total: str = say(sum(parts.values()))
    return total if len(parts) == 1 else total + "\n" + "\n".join(f"  {name} {say(n)}" for name, n in parts.items())
