"""What a person sees while a network is trained: a live line on a terminal, plain lines elsewhere. Always on stderr."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from typing import Any, Self

import torch

_PLAIN_PARTS = 6


class Progress:
    """Reports the steps of a stage.

    Args:
        title: of the stage.
        total: optimiser steps.
        every: steps between two plain lines.
        quiet: say nothing (all processes but the first).
    """

    def __init__(self, title: str, total: int, *, every: int = 50, quiet: bool = False) -> None:
        self.title, self.total, self.every, self.quiet = title, total, every, quiet
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Live

            self._bar = Live(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn("{task.fields[status]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, status="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def start_at(self, step: int) -> None:
        """Continue at a step."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def step(self, step: int, values: Mapping[str, float], *, rate: float, lr: float) -> None:
        """Report a finished step: the loss and its parts, samples per second, memory."""
        if self.quiet:
            return
        status = self._status(values, rate)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, status=status)
        elif step % self.every == 0 or step == self.total:
            left = _duration((self.total - step) * values.get("seconds", 0.0))
            self._line(f"{self.title}: step {step}/{self.total}  {status}  lr {lr:.2e}  {left} left")

    def say(self, text: str) -> None:
        """Say a sentence beside the steps."""
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            self._line(text)

    def _status(self, values: Mapping[str, float], rate: float) -> str:
        shown = [name for name in values if name not in ("seconds", "n_valid", "ramp", "grad_norm")]
        parts = "  ".join(f"{name} {values[name]:.4g}" for name in shown[:_PLAIN_PARTS])
        return f"{parts}  {rate:.3g} samples/s  {memory_bytes() / 2**30:.2f} GiB"

    @staticmethod
    def _line(text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def memory_bytes() -> int:
    """Return the most memory used so far: of the GPU where there is one, else of the process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
