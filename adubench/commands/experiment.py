"""`adubench experiment`: expand, run or join, print the table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adubench.errors import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adubench.recipes.experiments import Expansion, Experiment
    from adubench.recipes.schema import Recipe
    from adubench.reports.tables import Table
    from adubench.training.experiment_details import Detail
    from adubench.training.experiment_runs import Place
    from adubench.training.experiment_tables import ExperimentTable

EPILOG = """
\b
Examples:
  adubench experiment table4 --scale synth --data-root SYNTH -o runs/table4
  adubench experiment E8 --scale smoke --seeds 1 --data-root SYNTH -o runs/e8 --format markdown
  adubench experiment E3 --scale dev --data-root KITTI -o /shared/e3 --workers-shared /shared/e3.log
  adubench experiment E3 --scale dev --data-root KITTI --test-root drivingstereo=DRIVINGSTEREO -o runs/e3
  adubench experiment E3 --scale full --best-of /shared/e3 --data-root KITTI -o runs/e3-full
  adubench experiment E7 --scale dev --data-root KITTI --test-root drivingstereo=DRIVINGSTEREO -o runs/e7
  adubench experiment table4 --scale full --dry-run
"""
_PATH = click.Path(path_type=Path)


@click.command("experiment", epilog=EPILOG)
@click.argument("name")
@click.option("--scale", default="smoke", show_default=True, help="full, dev, synth or smoke.")
@click.option("-o", "--output", type=_PATH, help="Folder of the experiment. Default: runs/NAME-SCALE.")
@click.option("--data-root", type=_PATH, envvar="ADUBENCH_DATA_ROOT", help="Where the data set lies.")
@click.option("--gt", type=_PATH, help="Where the ground truth lies, if not below --data-root.")
@click.option(
    "--test-root", "test_roots", multiple=True, metavar="NAME=DIR", help="Root of a further data set (E3, E7)."
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key of every run's recipe.")
@click.option("--seeds", type=click.IntRange(min=1), help="Runs per row. Default: the experiment's.")
@click.option("--row", "rows", multiple=True, help="Only this row; repeatable.")
@click.option(
    "--workers-shared", metavar="STORAGE", help="Take runs from a shared study: a journal file or a database URL."
)
@click.option("--best-of", type=_PATH, metavar="DIR", help="Run the best rows of a finished search (E3 at scale full).")
@click.option("--table-only", is_flag=True, help="Print the table of what is finished; run nothing.")
@click.option("--dry-run", is_flag=True, help="Print the runs and stop.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
@click.option(
    "--format", "form", type=click.Choice(["rich", "markdown", "csv", "json"]), default="rich", show_default=True
)
def command(name: str, scale: str, output: Path | None, dry_run: bool, form: str, **options: Any) -> int:
    """Run experiment NAME (E1 to E8, table4, or a YAML file): rows times seeds, then one table.

    Start it again to continue: finished runs are kept. `runs.json` in the output folder lists every run. With
    --workers-shared any number of workers, on any number of machines, do the runs of one experiment together. Exit
    status: 0 good, 1 a fault in the data or a run that failed, 2 usage.
    """
    from adubench.recipes.experiments import load_experiment

    experiment, _ = load_experiment(name)
    expansion = _expand(experiment, scale, options)
    if dry_run:
        _print_runs(expansion)
        return 0
    from adubench.commands._training import need_training

    need_training("adubench experiment")
    from adubench.training.experiment_runs import Place

    place = Place(
        output or Path("runs") / f"{experiment.id}-{scale}", options["data_root"], _test_roots(options["test_roots"]),
        options["device"],
    )  # fmt: skip
    expansion = _run(expansion, place, options)
    return _show(expansion, place, form)


def _expand(experiment: Experiment, scale: str, options: dict[str, Any]) -> Expansion:
    import json

    from adubench.errors import UsageError, unknown_name
    from adubench.recipes.experiments import ScaleChange, expand, variants

    only: list[str] | None = list(options["rows"]) or None
    for row in only or ():
        known = [variant.name for variant in variants(experiment)]
        if row not in known:
            raise unknown_name("row", row, known)
    change = next((c for name, c in experiment.scales.items() if name == scale), ScaleChange())
    if options["best_of"] is not None:
        if change.rerun_best is None:
            raise UsageError(f"--best-of: experiment {experiment.id} re-runs no best rows at scale {scale}.")
        only = _best(options["best_of"], experiment, change.rerun_best)
    elif change.rerun_best is not None and only is None:
        raise UsageError(
            f"experiment {experiment.id} at scale {scale} re-runs the best {change.rerun_best} rows of a search: run "
            "it at scale dev first, then give --best-of DIR with its folder."
        )
    if only is not None and experiment.baseline is not None and experiment.baseline not in only:
        only = [experiment.baseline, *only]
    overrides = list(options["overrides"])
    if options["gt"] is not None:
        overrides.append(f"data.gt_root={json.dumps(str(options['gt']))}")
    return expand(experiment, scale, seeds=options["seeds"], overrides=overrides, only=only)


def _best(folder: Path, experiment: Experiment, count: int) -> list[str]:
    """Return the best rows of a search, of each data set."""
    from adubench.errors import DataError
    from adubench.training.experiment_runs import best_rows, read_all_records

    records = read_all_records(folder)
    names: list[str] = []
    for data_set in dict.fromkeys(record.data_set for record in records):
        names += best_rows(records, experiment.best_metric, count, data_set=data_set)
    if not names:
        raise DataError(f"--best-of {folder}: no run there is finished.")
    return list(dict.fromkeys(names))


def _test_roots(texts: Sequence[str]) -> dict[str, Path]:
    from adubench.errors import UsageError

    roots = {}
    for text in texts:
        name, sign, folder = text.partition("=")
        if not (name and sign and folder):
            raise UsageError(f"--test-root {text}: expected NAME=DIR, for instance drivingstereo=/data/DrivingStereo.")
        if not Path(folder).is_dir():
            raise UsageError(f"--test-root {text}: {folder} is no folder.")
        roots[name] = Path(folder)
    return roots


def _run(expansion: Expansion, place: Place, options: dict[str, Any]) -> Expansion:
    """Do what is left, rows that wait for the best one last; returns the expansion with those."""
    from adubench.training.experiment_runs import run_here, write_index

    def say(text: str) -> None:
        click.echo(text, err=True)

    def run(part: Expansion) -> None:
        if options["table_only"]:
            return
        if options["workers_shared"] is not None:
            from adubench.training.experiment_study import run_shared

            run_shared(part, place, options["workers_shared"], say)
        else:
            run_here(part, place, say)

    if not options["table_only"]:
        _check_places(expansion, place)
    run(expansion)
    complete = _with_later(expansion, place, options)
    if complete is not expansion:
        run(complete)
    elif not options["table_only"]:
        write_index(expansion, place)
    return complete


def _check_places(expansion: Expansion, place: Place) -> None:
    """Refuse an experiment whose later rows would lack their data or maps, before the first one is trained.

    Raises:
        UsageError: rows learn from a teacher's maps, and none are given.
        DataError: maps or data set are not where they should be.
    """
    from adubench.errors import DataError, UsageError
    from adubench.recipes.tie_kd_sections import MAP_METHODS
    from adubench.training.experiment_runs import read_record

    for spec in expansion.runs:
        recipe, root = spec.recipe, place.data_of(spec)
        if read_record(place, spec) is not None:
            continue
        if root is not None and not root.is_dir():
            raise DataError(f"data root not found: {root}; check --data-root and --test-root.")
        if recipe.method in MAP_METHODS and recipe.teacher_maps.path is None:
            raise UsageError(
                f"experiment {expansion.experiment.id}: row '{spec.variant}' learns from a teacher's stored maps; "
                f"write them with adubench predict TEACHER --layout tie-kd --split {recipe.data.train} -o MAPS, and "
                "give --set teacher_maps.path=MAPS."
            )
        if recipe.method in MAP_METHODS and not Path(str(recipe.teacher_maps.path)).exists():
            raise DataError(
                f"experiment {expansion.experiment.id}: the teacher maps of row '{spec.variant}' are not at "
                f"{recipe.teacher_maps.path}; write them there with adubench predict TEACHER --layout tie-kd --split "
                f"{recipe.data.train}, or leave the row out with --row."
            )


def _with_later(expansion: Expansion, place: Place, options: dict[str, Any]) -> Expansion:
    """Add the rows that start from the best one, once all others are finished."""
    from dataclasses import replace

    from adubench.recipes.experiments import later_runs
    from adubench.training.experiment_runs import best_rows, records_of

    if not expansion.later:
        return expansion
    records = records_of(expansion, place)
    if len(records) < len(expansion.runs):
        return expansion
    (best,) = best_rows(records, expansion.experiment.best_metric)
    runs = later_runs(expansion, best, overrides=options["overrides"])
    return replace(expansion, runs=(*expansion.runs, *runs), later=())


def _print_runs(expansion: Expansion) -> None:
    from rich.table import Table as RichTable
    from rich.text import Text

    from adubench.commands._options import stdout_console
    from adubench.recipes.recipe import stages_to_run

    title = f"{expansion.experiment.id} at scale {expansion.scale}: {counted(len(expansion.runs), 'run')}"
    table = RichTable(title=title, title_justify="left")
    for column in ("run", "row", "changes", "stages", "network", "length"):
        table.add_column(column, overflow="fold")
    for spec in expansion.runs:
        train = spec.recipe.train
        length = counted(train.steps, "step") if train.steps is not None else counted(train.epochs, "epoch")
        changes = ", ".join(f"{key}={value}" for key, value in spec.set.items()) or "-"
        cells = (
            spec.id,
            spec.variant,
            changes,
            " ".join(stages_to_run(spec.recipe)),
            _network_name(spec.recipe),
            length,
        )
        table.add_row(*(Text(cell) for cell in cells))
    console = stdout_console(highlight=False)
    console.print(table)
    for name, reason in expansion.absent.items():
        console.print(f"n/a: {name}: {reason}", markup=False)
    for variant in expansion.later:
        console.print(f"later: {variant.name}: when all others are finished, from the best of them", markup=False)


def _network_name(recipe: Recipe) -> str:
    """What a recipe trains, in the words of its own section."""
    if recipe.self_supervision:
        return recipe.self_supervised.family
    if recipe.model is not None:
        encoder = recipe.model.keys.get("encoder")
        return f"{recipe.model.family}:{encoder}" if encoder else recipe.model.family
    return recipe.student.encoder


def _show(expansion: Expansion, place: Place, form: str) -> int:
    """Print the table and write it into the folder."""
    import json

    from adubench.io.atomic import write_text
    from adubench.reports.formats import RENDERERS, render_rich
    from adubench.training.experiment_runs import records_of
    from adubench.training.experiment_tables import build_table

    records = records_of(expansion, place)
    built = build_table(expansion, records, place)
    tables = experiment_tables(built)
    document = json.dumps(_plain(built.to_dict()), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(place.root / "table.md", RENDERERS["markdown"](tables))
    write_text(place.root / "table.json", document)
    if form == "json":
        click.echo(document, nl=False)
    elif form == "rich":
        from adubench.commands._options import terminal

        click.echo(render_rich(tables, **terminal()), nl=False)
    else:
        click.echo(RENDERERS[form](tables), nl=False)
    click.echo(f"written: {place.root / 'table.md'}, {place.root / 'table.json'}, {place.root / 'runs.json'}", err=True)
    return 0 if len(records) == len(expansion.runs) else 1


def _plain(value: Any) -> Any:
    import math

    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def experiment_tables(built: ExperimentTable) -> list[Table]:
    """Turn the table of an experiment into those that reports render."""
    from adubench.reports.methods import methods_tables
    from adubench.reports.tables import Cell, Column, Group, Row, Table

    columns = tuple(
        Column(column.title, column.title, arrow=_arrow(column.higher_is_better)) for column in built.columns
    )
    groups = []
    for data_set in dict.fromkeys(row.data_set for row in built.rows):
        rows: list[Row] = []
        for row in (r for r in built.rows if r.data_set == data_set):
            cells = tuple(Cell(_text(cell), cell.mean) for cell in row.cells)
            rows.append(Row(row.name, cells, remarks=(row.remark,) if row.remark else (), ranked=False))
            if any(cell.delta is not None for cell in row.cells):
                deltas = tuple(Cell("" if c.delta is None else f"{c.delta:+.4g}", c.delta) for c in row.cells)
                rows.append(Row("  - baseline", deltas, "difference", ranked=False))
            if row.published:
                printed = tuple(
                    Cell(f"{row.published[c.key]:g}" if c.key in row.published else "") for c in built.columns
                )
                rows.append(Row("  published", printed, "published", remarks=("KITTI",), ranked=False))
        groups.append(Group(data_set, tuple(rows)))
    tables = [Table("experiment", built.title, "row", columns, tuple(groups), built.notes)]
    for name, metrics in built.searches.items():
        tables += [_search_table(name, metrics)] if metrics else []
    tables += [_detail_table(detail) for detail in built.details]
    for comparison in built.comparisons.values():
        tables.append(methods_tables(comparison)[1])
    return tables


def _detail_table(detail: Detail) -> Table:
    from adubench.reports.tables import Cell, Column, Group, Row, Table

    columns = tuple(Column(title, title) for title in detail.columns)
    rows = tuple(
        Row(name, tuple(Cell("n/a" if v is None else f"{v:.4g}", v) for v in values), ranked=False)
        for name, values in detail.rows
    )
    return Table(detail.name, detail.title, detail.first, columns, (Group("", rows),))


def _arrow(higher: bool | None) -> str:
    return {True: "↑", False: "↓", None: ""}[higher]


def _text(cell: Any) -> str:
    if cell.mean is None:
        return str(cell.text)
    if abs(cell.mean) >= 1e5:
        return f"{cell.mean / 1e6:.2f} M"
    spread = f" ± {cell.spread:.2g}" if cell.spread is not None else ""
    return f"{cell.mean:.4g}{spread}"


def _search_table(name: str, metrics: dict[str, dict[str, float]]) -> Table:
    from adubench.reports.tables import Cell, Column, Group, Row, Table

    keys = list(next(iter(metrics.values())))
    columns = tuple(Column(key, key.rsplit(".", 1)[-1]) for key in keys)
    rows = tuple(
        Row(metric, tuple(Cell(f"{values[key]:+.2f}", values[key]) for key in keys), ranked=False)
        for metric, values in metrics.items()
    )
    return Table("search", f"Spearman correlation with each weight, {name}", "metric", columns, (Group("", rows),))
