"""The log of a run: one JSON object per line, each on the disk when the step is over."""

from __future__ import annotations

import json
import math
from typing import IO, TYPE_CHECKING, Any

from adubench.io.atomic import write_bytes, write_error

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class RunLog:
    """Appends lines to a log.

    Opening it for a run that continues drops the lines of steps that will be done again: no step is there twice.
    """

    def __init__(self, path: Path, *, step: int = 0) -> None:
        """Open the log of a run that has done `step` steps; 0 empties it."""
        self.path = path
        write_bytes(path, _lines_until(path, step))
        try:
            self._file: IO[str] = path.open("a", encoding="utf-8")
        except OSError as error:
            raise write_error(path, error) from None

    def write(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        """Write one line; numbers that are none become null.

        Raises:
            DataError: the disk is full, or the folder is gone.
        """
        try:
            self._file.write(json.dumps({"event": event, "step": step, **_finite(values)}) + "\n")
            self._file.flush()
        except OSError as error:
            raise write_error(self.path, error) from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _lines_until(path: Path, step: int) -> bytes:
    if step == 0 or not path.exists():
        return b""
    kept = []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            document = json.loads(line)
        except ValueError:
            continue  # the line that was being written when the process was killed
        if document.get("step", 0) <= step and line.endswith(b"\n"):
            kept.append(line)
    return b"".join(kept)


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
