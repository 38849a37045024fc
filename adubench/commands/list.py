"""`adubench list`: what adubench knows by name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adubench.recipes.experiments import Experiment


@click.group("list", epilog="Example: adubench list metrics --json")
def command() -> None:
    """List what adubench knows by name."""


@command.command("metrics")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def metrics_command(as_json: bool) -> None:
    """List all metrics: definition, unit, direction, other names."""
    from adubench.evaluators.metrics import METRICS

    if as_json:
        click.echo(json.dumps([metric.to_dict() for metric in METRICS.values()], indent=2))
        return
    from rich.table import Table
    from rich.text import Text

    from adubench.commands._options import stdout_console

    table = Table(title="metrics (stored in the unit shown; never scaled)", title_justify="left")
    for column in ("key", "unit", "better", "definition", "also called"):
        table.add_column(column, no_wrap=column == "key", overflow="fold")
    for metric in METRICS.values():
        better = {True: "higher", False: "lower", None: "-"}[metric.higher_is_better]
        cells = (metric.key, metric.unit, better, metric.definition, ", ".join(metric.aliases))
        table.add_row(*(Text(cell) for cell in cells))
    stdout_console().print(table)


@command.command("regions")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def regions_command(as_json: bool) -> None:
    """List the regions of `eval --regions`: names, bounds, definitions, and what they need."""
    import math

    from adubench.evaluators.region_params import DEFAULT_FAMILIES, DEFINITIONS, FAMILIES, RegionParameters, regions

    every = regions(RegionParameters(families=tuple(FAMILIES), edge_preset="improved"))
    known = [
        {
            "name": region.name,
            "family": region.family,
            "title": region.title,
            "bounds": [None if math.isinf(b) else b for b in region.bounds] if region.bounds is not None else None,
            "definition": DEFINITIONS.get(region.family, "every evaluated pixel of the protocol"),
            "needs": FAMILIES.get(region.family, "") or "ground truth",
            "default": region.name == "all" or region.family in DEFAULT_FAMILIES,
        }
        for region in every
    ]
    if as_json:
        click.echo(json.dumps(known, indent=2))
        return
    rows = [
        (str(r["name"]), str(r["title"]), str(r["needs"]), "yes" if r["default"] else "", str(r["definition"]))
        for r in known
    ]
    columns = ("name", "region", "needs", "by default", "definition of its family")
    _print("regions (eval --regions; bounds are the default ones)", columns, rows)


@command.command("recipes")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def recipes_command(as_json: bool) -> None:
    """List the recipes of `adubench train` and the experiments of `adubench experiment`."""
    from dataclasses import asdict

    from adubench.recipes.experiments import experiment_files, load_experiment
    from adubench.recipes.recipe import recipe_table

    recipes = recipe_table()
    experiments = [load_experiment(name)[0] for name in experiment_files()]
    if as_json:
        known = [{"name": e.id, "question": e.question, "source": e.source, "base": e.base, "status": _status(e)}
                 for e in experiments]  # fmt: skip
        click.echo(json.dumps({"recipes": [asdict(r) for r in recipes], "experiments": known}, indent=2))
        return
    rows = [(r.name, r.about, (f"{', '.join(r.stages)} on {r.train}", r.source, r.status)) for r in recipes]
    _print_entries("recipes (adubench train NAME)", rows)
    asked = [(e.id, e.question, (e.source, _status(e))) for e in experiments]
    _print_entries("experiments (adubench experiment NAME)", asked)


def _status(experiment: Experiment) -> str:
    printed = any(variant.published for variant in experiment.vary)
    known = "published numbers known, not reproduced here" if printed else "no published numbers"
    return f"{known}; small scales run on SynthDrive" if {"synth", "smoke"} & set(experiment.scales) else known


@command.command("models")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def models_command(as_json: bool) -> None:
    """List the networks: sizes, source, and whether they can be trained here."""
    from dataclasses import asdict

    from adubench.models.zoo import MODELS

    if as_json:
        click.echo(json.dumps([asdict(entry) for entry in MODELS.values()], indent=2))
        return
    rows = [
        (m.family, m.about, (*(("sizes: " + ", ".join(m.variants),) if m.variants else ()), m.source, m.status))
        for m in MODELS.values()
    ]
    _print_entries("networks", rows)


def _print_entries(title: str, entries: Sequence[tuple[str, str, Sequence[str]]]) -> None:
    """Print name and about on one line, which `grep` finds whole, and the rest indented below."""
    from rich.text import Text

    from adubench.commands._options import stdout_console

    console = stdout_console(highlight=False)
    console.print(Text(title, "italic"), soft_wrap=True)
    width = max((len(name) for name, _, _ in entries), default=0)
    for name, about, rest in entries:
        console.print(Text.assemble((name.ljust(width), "bold"), "  ", about), soft_wrap=True)
        console.print(Text("    " + "; ".join(rest), "dim"), soft_wrap=True)
    console.print()


def _print(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print a table of text whose first column never wraps."""
    from rich.table import Table
    from rich.text import Text

    from adubench.commands._options import stdout_console

    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, no_wrap=i == 0, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    stdout_console().print(table)
