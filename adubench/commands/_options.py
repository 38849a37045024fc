"""Small things that several commands need."""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from adubench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def parse_size(text: str) -> tuple[int, int]:
    """Parse `HxW`.

    Raises:
        UsageError: another form.
    """
    match = re.fullmatch(r"(\d+)[xX](\d+)", text.strip())
    if match is None:
        raise UsageError(f"--size {text}: expected HEIGHTxWIDTH, for instance 375x1242.")
    return int(match[1]), int(match[2])


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
    import os
    import shutil

    if not sys.stdout.isatty():
        return {"width": None, "color": False}
    return {"width": shutil.get_terminal_size().columns, "color": "NO_COLOR" not in os.environ}
