"""`adubench list`: what adubench knows by name."""

from __future__ import annotations

import json

import click


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
