"""Every command line that the documentation shows can be parsed: names, options and choices exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from adubench.cli import cli
from adubench.evaluators.protocols import PROTOCOLS
from benchmarks.make_examples import split_block

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
IDS = [page.name for page in PAGES]


def command_lines(text: str) -> list[str]:
    """Indented and fenced lines that start with adubench, with or without a prompt; continued lines are joined."""
    joined = text.replace("\\\n", " ")
    fenced = "\n".join(re.findall(r"^```\w*\n(.*?)^```$", joined, re.DOTALL | re.MULTILINE))
    found = re.findall(r"^(?:\$ )?(adubench [^\n]*)$", fenced, re.MULTILINE)
    found += re.findall(r"^    (adubench [^\n]*)$", joined, re.MULTILINE)
    return [re.sub(r"\s+#.*", "", line) for line in found]


def parse(words: list[str]) -> None:
    """Walk down to the command and let it read its options, without running it."""
    group: click.Command = cli
    context = click.Context(cli)
    while isinstance(group, click.Group):
        name, group, words = _next(group, context, words)
        context = click.Context(group, info_name=name, parent=context)
    group.make_context(context.info_name, words, parent=context.parent)


def _next(group: click.Group, context: click.Context, words: list[str]) -> tuple[str | None, click.Command, list[str]]:
    name, command, rest = group.resolve_command(context, words)
    assert command is not None
    return name, command, rest


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_command_lines_parse(page: Path) -> None:
    for line in command_lines(page.read_text(encoding="utf-8")):
        parse(shlex.split(line)[1:])


def test_a_wrong_option_is_noticed() -> None:
    with pytest.raises(click.ClickException):
        parse(["eval", "maps", "--split", "eigen", "--crops", "garg"])


def test_every_command_has_an_example() -> None:
    lines = command_lines((ROOT / "docs" / "cli.md").read_text(encoding="utf-8"))
    names = set()
    for name in cli.list_commands(click.Context(cli)):
        command = cli.get_command(click.Context(cli), name)
        names |= _leaves(command, f"adubench {name}")
    assert [name for name in sorted(names) if not any(line.startswith(name) for line in lines)] == []


def _leaves(command: click.Command | None, name: str) -> set[str]:
    assert command is not None
    if not isinstance(command, click.Group):
        return {name}
    context = click.Context(command)
    return set().union(
        *(_leaves(command.get_command(context, n), f"{name} {n}") for n in command.list_commands(context))
    )


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "protocols.md"], ids=lambda p: p.name)
def test_every_protocol_is_named(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [name for name in PROTOCOLS if f"`{name}`" not in text] == []


def test_console_blocks_are_split_into_commands_and_output() -> None:
    assert split_block("$ a \\\n  b\nout\n$ c\n") == [("a \\\n  b", ["out"]), ("c", [])]
