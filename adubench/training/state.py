"""The state of a training: everything that the next step depends on, in one file that is either old or complete.

It is separate from the checkpoints, which hold a network and nothing else. The file is torch's own format and is read
with `weights_only=True`: tensors, numbers and text, never code.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import torch

from adubench.errors import CheckpointError, DataError
from adubench.io.atomic import atomic_path, write_error

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = 1
_NAME = re.compile(r"state-(\d+)\.pt")


def state_path(folder: Path, step: int) -> Path:
    """Name the file of the state after `step` optimiser steps."""
    return folder / f"state-{step:08d}.pt"


def states(folder: Path) -> list[tuple[int, Path]]:
    """List the states of a run folder, oldest first, as (step, file)."""
    found = [(int(m[1]), p) for p in folder.glob("state-*.pt") if (m := _NAME.fullmatch(p.name))]
    return sorted(found)


def save_state(folder: Path, step: int, content: Mapping[str, Any], *, keep: int = 2) -> Path:
    """Write a state, then delete all but the newest `keep`.

    The file reaches the disk before it gets its name, and nothing is deleted before that: a full disk or a killed
    process leaves the states that were there.

    Raises:
        DataError: the file cannot be written; the older states are untouched.
    """
    path = state_path(folder, step)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        recorder = _Recorder(file)
        try:
            torch.save({"format": FORMAT, "step": step, **content}, cast("IO[bytes]", recorder))
        except RuntimeError:
            # torch's writer reports what the file could not do as a RuntimeError of its own.
            if recorder.error is not None:
                raise write_error(path, recorder.error) from None
            raise
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(folder)
    for _, old in [entry for entry in states(folder) if entry[0] <= step][:-keep]:
        old.unlink(missing_ok=True)
    return path


def load_state(folder: Path) -> dict[str, Any] | None:
    """Read the newest state that can be read; None where there is none.

    States are complete once they have their name; one that was damaged later (disk, copy) is passed over for the one
    before it.

    Raises:
        CheckpointError: there are states, but none can be read.
    """
    found = states(folder)
    problems = []
    for _, path in reversed(found):
        try:
            return read_state(path)
        except CheckpointError as error:
            problems.append(str(error))
    if problems:
        raise CheckpointError(f"{problems[0]} No older state is left: start again in another folder.")
    return None


def read_state(path: Path) -> dict[str, Any]:
    """Read one state.

    Raises:
        CheckpointError: missing, cut off, of another layout, or with anything in it but tensors and plain values.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling a damaged file raises whatever its bytes ask for
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"training state {path}: cannot be read ({reason[:200]}).") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"training state {path}: not written by this version of adubench.")
    return content


def random_state() -> dict[str, Any]:
    """Read the state of torch's random numbers in this process, CUDA's included."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Set what `random_state` read."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


class _Recorder:
    """A file for torch.save that remembers why it could not write."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"cannot open folder {folder}: {error.strerror or error}.") from None
    try:
        os.fsync(handle)
    except OSError:
        pass  # some file systems cannot; the file itself is on the disk
    finally:
        os.close(handle)
