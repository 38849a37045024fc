"""The errors a user can cause. The command line prints them as one line; everything else stays a traceback."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class AdubenchError(Exception):
    """Base of all errors caused by input. The message is one sentence: what is wrong, where, what to do."""

    exit_status = 1


class UsageError(AdubenchError):
    """Options that contradict each other or name something unknown (exit status 2)."""

    exit_status = 2


class DataError(AdubenchError):
    """A file or folder is missing, unreadable, or not what it should be."""


class ProtocolError(AdubenchError):
    """A prediction or ground truth does not fit the protocol."""


class ResultError(AdubenchError):
    """A stored result cannot be read, or results cannot be put side by side."""


class CheckpointError(AdubenchError):
    """A checkpoint cannot be loaded."""


class TrainingError(AdubenchError):
    """A training cannot start or go on."""


class SubmissionError(AdubenchError):
    """A submission cannot be written or read."""


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return "1 map", "2 maps"; `plural` where an s does not make it."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def unknown_name(kind: str, name: str, known: Iterable[str], *, hint: str = "") -> UsageError:
    """Build the error for a name that is not in a table, with the close matches.

    Args:
        kind: what the name should be, e.g. "protocol".
        name: what the user wrote.
        known: all names that exist.
        hint: a sentence to add, e.g. how to list the names.
    """
    names = sorted(known)
    close = get_close_matches(name, names, n=3, cutoff=0.5)
    tail = f"did you mean {' or '.join(repr(c) for c in close)}?" if close else f"known: {', '.join(names)}."
    return UsageError(f"unknown {kind} '{name}': {tail}" + (f" {hint}" if hint else ""))
