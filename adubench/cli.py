"""The command group. It imports click alone; a command's module is imported when the command runs."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from importlib import import_module
from typing import Any

import click

from adubench import __version__
from adubench.errors import AdubenchError

# name -> (module below adubench.commands, what --help says). The help text lives here so that
# `adubench --help` does not import the commands.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "The whole path on the embedded dataset, in some minutes."),
    "data": ("data", "Make, check, pack and list datasets and splits."),
    "train": ("train", "Train a recipe: teacher, then student."),
    "experiment": ("experiment", "Run an experiment: variants x seeds, one table with statistics."),
    "eval": ("eval", "Score predictions under a named protocol."),
    "predict": ("predict", "Predict depth for images: a checkpoint, a Python file, or hf:NAME."),
    "import-weights": ("import_weights", "Turn official weights into a checkpoint, and back."),
    "compare": ("compare", "Compare results, with statistics clustered by drive."),
    "analyze": ("analyze", "Look inside checkpoints: the gap between the features of student and teacher."),
    "report": ("report", "One page that shows everything about results."),
    "bench": ("bench", "Measure speed: a network, a loader, an evaluation."),
    "sensitivity": ("sensitivity", "Show which metrics notice which fault."),
    "protocols": ("protocols", "List, show and compare evaluation protocols."),
    "list": ("list", "List the metrics, regions, recipes and networks that adubench knows."),
    "export-submission": ("export_submission", "Write the archive that KITTI's server takes."),
    "check-submission": ("check_submission", "Check an archive before KITTI's server does."),
    "env": ("env", "Print versions and devices."),
}


class _ReaderGoneError(Exception):
    """The reader of standard output went away; click would end with status 1 before `main` hears of it."""


class LazyGroup(click.Group):
    """A click group that imports a command's module only when that command is used."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command, telling a closed pipe from other faults."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise _ReaderGoneError from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order a new user meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"adubench.commands.{COMMANDS[cmd_name][0]}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name close matches when a command does not exist."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            close = get_close_matches(args[0], COMMANDS, n=2)
            tail = f" Did you mean {' or '.join(close)}?" if close else " See adubench --help."
            ctx.fail(f"no such command '{args[0]}'.{tail}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Print the command list from the table, without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: adubench eval predictions/ --split eigen --data-root KITTI -o result.json",
)
@click.version_option(__version__, prog_name="adubench")
def cli() -> None:
    """Depth maps in; numbers out that name their protocol, can be compared, and can be submitted."""


def main(args: list[str] | None = None) -> None:
    """Run the command line and turn user errors into one line on stderr.

    Exit status: 0 good, 1 the check or evaluation found a fault, 2 usage, 130 interrupted.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # arrows and file names that the terminal's encoding lacks
    try:
        status = cli.main(args=args, prog_name="adubench", standalone_mode=False)
    except AdubenchError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_status)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted: nothing half-written was left behind.", err=True)
        sys.exit(130)
    except (BrokenPipeError, _ReaderGoneError):
        # The reader of our output (head, less) went away: that is its right.
        _drop_output()
        sys.exit(0)
    except OSError as error:
        # What no reader or writer met by name: a path too long, no permission, standard output on a full disk.
        if error.filename is None:
            _drop_output()
        where = f"{error.filename}: " if error.filename is not None else ""
        click.echo(f"error: {where}{error.strerror or error}. Check the path, its permissions and the disk.", err=True)
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)


def _drop_output() -> None:
    """Let nothing more be written to standard output, not even what is still buffered when Python ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
