"""`adubench protocols`: list, show and compare evaluation protocols."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from adubench.evaluators.protocols import Protocol

_HIDDEN = ("name", "version", "title", "source", "remark")


@click.group(
    "protocols",
    invoke_without_command=True,
    epilog="Examples: adubench protocols; adubench protocols show kitti-eigen; "
    "adubench protocols diff kitti-eigen kitti-eigen-full",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List, show and compare evaluation protocols."""
    if ctx.invoked_subcommand is None:
        _list(as_json)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_command(as_json: bool) -> None:
    """List all protocols."""
    _list(as_json)


@command.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show_command(name: str, as_json: bool) -> None:
    """Show every field of protocol NAME; overrides in brackets are read, e.g. 'kitti-eigen[cap=50]'."""
    from adubench.evaluators.protocols import TOPICS, get_protocol, in_words

    protocol = get_protocol(name)
    if as_json:
        click.echo(json.dumps(protocol.to_dict() | {"fingerprint": protocol.fingerprint}, indent=2))
        return
    rows = [("version", str(protocol.version)), ("what", protocol.title)]
    if protocol.source:
        rows.append(("computed so by", protocol.source))
    rows += [(topic, in_words(protocol, field)) for field, topic in TOPICS.items() if _matters(protocol, field)]
    if protocol.remark:
        rows.append(("mind", protocol.remark))
    rows.append(("fingerprint", protocol.fingerprint))
    _table(protocol.name, ("field", "value"), rows)


@command.command("diff")
@click.argument("a")
@click.argument("b")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def diff_command(a: str, b: str, as_json: bool) -> None:
    """Say in words how protocols A and B differ, and what that does to a comparison."""
    from adubench.evaluators.protocols import diff, general_pitfalls, get_protocol

    first, second = get_protocol(a), get_protocol(b)
    found = diff(first, second)
    general = general_pitfalls(first, second) if found else ()
    if as_json:
        data: dict[str, Any] = {
            "a": first.name,
            "b": second.name,
            "differences": [difference.to_dict() for difference in found],
            "pitfalls": list(general),
        }
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
        return
    if not found:
        click.echo(f"{first.name} and {second.name} do the same.")
        return
    rows = [(difference.topic, difference.a, difference.b) for difference in found]
    _table(f"{first.name} against {second.name}", ("", first.name, second.name), rows)
    for sentence in dict.fromkeys(p for difference in found for p in difference.pitfalls):
        click.echo(f"- {sentence}")
    for sentence in general:
        click.echo(f"- {sentence}")


def _matters(protocol: Protocol, field: str) -> bool:
    """Leave out what only another protocol has."""
    quiet = {"kitti_window": False, "outside": 0.0, "pad_after_clamp": False, "positive_only": False}
    return field not in _HIDDEN and getattr(protocol, field) != quiet.get(field, ...)


def _list(as_json: bool) -> None:
    from adubench.evaluators.protocols import PROTOCOLS

    if as_json:
        data = [record.to_dict() | {"fingerprint": record.fingerprint} for record in PROTOCOLS.values()]
        click.echo(json.dumps(data, indent=2))
        return
    rows = [(r.name, r.images, r.alignment, r.title) for r in PROTOCOLS.values()]
    _table("evaluation protocols", ("name", "images", "alignment", "what"), rows)
    click.echo("adubench protocols show NAME prints all fields; diff A B says what differs.")


def _table(title: str, columns: tuple[str, ...], rows: list[Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from adubench.commands._options import stdout_console

    table = Table(title=Text(title), title_justify="left")
    for position, column in enumerate(columns):
        table.add_column(Text(column), no_wrap=position == 0, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    stdout_console().print(table)
