"""Small things that several commands need."""

from __future__ import annotations

import os
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from adubench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from adubench.reports.tables import Table


PIPE_WIDTH = 200


def parse_size(text: str, option: str = "--size") -> tuple[int, int]:
    """Parse `HxW`, the value of an option.

    Raises:
        UsageError: another form.
    """
    match = re.fullmatch(r"(\d+)[xX](\d+)", text.strip())
    if match is None:
        raise UsageError(f"{option} {text}: expected HEIGHTxWIDTH, for instance 96x320.")
    return int(match[1]), int(match[2])


def refuse_input_as_output(output: str | Path | None, *inputs: str | Path | None) -> None:
    """Refuse to write onto a file or folder that the command reads.

    Raises:
        UsageError: `output` is one of `inputs`, by whatever path.
    """
    if output is None or not os.path.exists(output):
        return
    for given in inputs:
        if given is not None and os.path.exists(given) and os.path.samefile(output, given):
            raise UsageError(f"{output}: is read by this command and would be replaced; choose another name with -o.")


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show a progress bar on stderr while the block runs, only where stderr is a terminal.

    Yields a function to be called with (done, total), or None.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def terminal() -> dict[str, Any]:
    """Return `width` and `color` for a table on stdout: the terminal's where there is one, else as wide as needed."""
    import shutil

    if not sys.stdout.isatty():
        return {"width": None, "color": False}
    return {"width": shutil.get_terminal_size().columns, "color": "NO_COLOR" not in os.environ}


def stdout_console(**settings: Any) -> Any:
    """Return a rich console on stdout whose reader may go away (`| head`): that ends the command with status 0.

    Into a pipe or a file, where there is no terminal to fill, tables are `PIPE_WIDTH` wide unless COLUMNS says it.
    """
    from rich.console import Console

    if not sys.stdout.isatty() and not os.environ.get("COLUMNS"):
        settings.setdefault("width", PIPE_WIDTH)

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Piped(**settings)


def render_tables(tables: Sequence[Table], form: str, output: Path | None) -> str:
    """Render tables in a format; `rich` takes the terminal's width and colours unless it goes to a file."""
    from adubench.reports.formats import RENDERERS, render_rich

    if form != "rich":
        return RENDERERS[form](tables)
    return render_rich(tables) if output is not None else render_rich(tables, **terminal())
