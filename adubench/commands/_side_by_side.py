"""Commands of adubench side by side, each in a process with one thread; their lines pass through as they come."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from typing import IO, TYPE_CHECKING

import click

from adubench.errors import TrainingError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_PATIENCE = 5.0


def run_together(commands: Sequence[Sequence[str]]) -> None:
    """Run commands at the same time, as many as there are cores, and wait for all of them.

    One thread each: small networks gain little from a second one, and lose much where another program has the core.
    Their results do not depend on the number of cores either.

    Args:
        commands: arguments of `adubench`.

    Raises:
        UsageError: one of them refused its arguments; its own sentence.
        TrainingError: one of them failed; likewise. The others are asked to stop, which they do after saving.
        KeyboardInterrupt: Ctrl-C; all of them have saved and stopped.
        SystemExit: SIGTERM, with status 143; likewise.
    """
    count = max(1, min(len(commands), os.cpu_count() or 1))
    for first in range(0, len(commands), count):
        _run(commands[first : first + count])


def _run(commands: Sequence[Sequence[str]]) -> None:
    environment = os.environ | dict.fromkeys(_THREADS, "1")
    with contextlib.ExitStack() as stack:
        children: list[subprocess.Popen[str]] = []
        stack.enter_context(_stopped_with_us(children))
        children += (stack.enter_context(_child(command, environment)) for command in commands)
        last: list[str] = [""] * len(children)
        readers = [
            threading.Thread(target=_pass_on, args=(child.stderr, last, i), daemon=True)
            for i, child in enumerate(children)
        ]
        for reader in readers:
            reader.start()
        failed = _wait(children)
        for reader in readers:
            reader.join()
        if failed is not None:
            status = children[failed].returncode
            why = last[failed].removeprefix("error: ") if last[failed].startswith("error: ") else ""
            words = f"adubench {' '.join(commands[failed])}"
            raise (UsageError if status == 2 else TrainingError)(why or f"{words}: ended with status {status}.")


@contextlib.contextmanager
def _child(command: Sequence[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Start a command; whatever happens here, it is not left behind."""
    child = subprocess.Popen(
        [sys.executable, "-m", "adubench", *command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    try:
        yield child
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=_PATIENCE)  # Ctrl-C reaches it as well: it saves, then ends
        if child.poll() is None:
            child.terminate()  # likewise
        child.wait()


@contextlib.contextmanager
def _stopped_with_us(children: Sequence[subprocess.Popen[str]]) -> Iterator[None]:
    """Pass SIGTERM on to commands and end with its status once they have saved; unlike Ctrl-C it reaches us alone.

    Outside the main thread, where Python takes no signals, nothing is watched.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # once is enough; the commands need a moment to save
        for child in children:
            child.terminate()
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _pass_on(lines: IO[str] | None, last: list[str], index: int) -> None:
    """Print lines as they come and remember the last one; faults and written files are told in another way."""
    assert lines is not None
    for line in lines:
        last[index] = line.strip()
        if not line.startswith(("written: ", "error: ")):
            click.echo(line, nl=False, err=True)


def _wait(children: Sequence[subprocess.Popen[str]]) -> int | None:
    """Wait until all have ended; returns the first that failed, after asking the others to stop."""
    running = set(range(len(children)))
    failed: int | None = None
    while running:
        for i in sorted(running):
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = children[i].wait(timeout=0.2)
                running.discard(i)
                if status != 0 and failed is None:
                    failed = i
                    for other in running:
                        children[other].terminate()
    return failed
