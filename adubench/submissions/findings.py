"""What a check or an export found, as records that a program and a person can read."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

LEVELS = ("error", "warning", "info")

# code -> (usual level, what it means in a few words). docs/submission.md says the cure of each.
CODES: dict[str, tuple[str, str]] = {
    "S01": ("error", "not a readable archive"),
    "S02": ("error", "files inside a folder"),
    "S03": ("error", "files missing"),
    "S04": ("error", "unexpected entries"),
    "S05": ("error", "wrong file name"),
    "S06": ("error", "duplicate entry"),
    "S07": ("error", "encrypted or unsupported compression"),
    "S08": ("error", "too large"),
    "S09": ("error", "not a PNG"),
    "S10": ("error", "colour image"),
    "S11": ("error", "palette image"),
    "S12": ("error", "alpha channel"),
    "S13": ("error", "not 16 bit"),
    "S14": ("error", "wrong size"),
    "S15": ("error", "cannot be decoded"),
    "S16": ("error", "empty map"),
    "S17": ("error", "empty rows that the server cannot fill"),
    "S18": ("warning", "missing pixels"),
    "S19": ("warning", "saturated"),
    "S20": ("error", "wrapped around 65536"),
    "S21": ("error", "bytes swapped"),
    "S22": ("error", "implausible scale"),
    "S23": ("warning", "near and far exchanged"),
    "S24": ("warning", "identical or constant maps"),
    "S25": ("warning", "capped depth"),
    "S26": ("info", "1 m steps"),
    "G01": ("warning", "names differ from the ground truth's"),
    "G02": ("error", "the evaluation would end without a result"),
    "G03": ("error", "a score is not a number"),
    "G04": ("warning", "training split"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One observation.

    Attributes:
        code: key of `CODES`.
        level: "error", "warning" or "info".
        message: one sentence that names the file.
        file: the file it is about; None when it is about the whole package.
        hostile: the entry was refused because reading or unpacking it could do harm.
    """

    code: str
    level: str
    message: str
    file: str | None = None
    hostile: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "code": self.code,
            "level": self.level,
            "title": CODES[self.code][1],
            "file": self.file,
            "message": self.message,
            "hostile": self.hostile,
        }


def finding(
    code: str, message: str, file: str | None = None, *, level: str | None = None, hostile: bool = False
) -> Finding:
    """Build a finding with the usual level of its code."""
    return Finding(code, level or CODES[code][0], message, file, hostile)


@dataclass(frozen=True, slots=True)
class SubmissionReport:
    """Outcome of a check or an export.

    Attributes:
        path: the archive or folder.
        kind: key of `TARGETS`.
        files: number of maps found or written.
        total_bytes: unpacked size of all entries.
        findings: all of them, by code and file.
        strict: warnings count as faults.
        statistics: numbers over the set (median depth, largest depth, ...).
        scores: what the server would print, when ground truth was given (see `server.ServerScores.to_dict`).
        manifest: path of the manifest (export only).
        reminder: what remains to be done by hand.
    """

    path: str
    kind: str
    files: int
    total_bytes: int
    findings: tuple[Finding, ...] = ()
    strict: bool = False
    statistics: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] | None = None
    manifest: str | None = None
    reminder: str = ""

    def count(self, level: str) -> int:
        """Count the findings of a level."""
        return sum(f.level == level for f in self.findings)

    @property
    def codes(self) -> frozenset[str]:
        """The codes found."""
        return frozenset(f.code for f in self.findings)

    @property
    def ok(self) -> bool:
        """No error (and, when strict, no warning)."""
        return not self.count("error") and not (self.strict and self.count("warning"))

    @property
    def refused(self) -> bool:
        """Something in the archive is hostile."""
        return any(f.hostile for f in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object that `--json` prints."""
        return {
            "path": self.path,
            "kind": self.kind,
            "ok": self.ok,
            "refused": self.refused,
            "files": self.files,
            "total_bytes": self.total_bytes,
            "counts": {level: self.count(level) for level in LEVELS},
            "findings": [f.to_dict() for f in self.findings],
            "statistics": self.statistics,
            "scores": self.scores,
            "manifest": self.manifest,
            "reminder": self.reminder,
        }


def sort_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Order by level, then code, then file; equal findings once."""
    unique = dict.fromkeys(findings)
    return tuple(sorted(unique, key=lambda f: (LEVELS.index(f.level), f.code, f.file or "")))


def shown(name: str, length: int = 120) -> str:
    """Make a name from an untrusted archive safe to print: no control characters, bounded length."""
    safe = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
    return safe if len(safe) <= length else safe[: length - 3] + "..."


def name_list(names: Iterable[str], first: int = 5) -> str:
    """List the first names and count the rest."""
    every = [shown(n) for n in names]
    tail = f" and {len(every) - first} more" if len(every) > first else ""
    return ", ".join(every[:first]) + tail


def name_ranges(names: Iterable[str]) -> str:
    """List all names, runs of consecutive ten-digit ones as `first .. last`."""
    parts: list[list[str]] = []
    for name in sorted(names):
        last = parts[-1][-1] if parts else ""
        if _number(last) is not None and _number(name) == (_number(last) or 0) + 1:
            parts[-1].append(name)
        else:
            parts.append([name])
    return ", ".join(shown(p[0]) if len(p) == 1 else f"{p[0]} .. {p[-1]}" for p in parts)


def _number(name: str) -> int | None:
    match = re.match(r"\d{10}(?=\.|$)", name, re.ASCII)
    return int(match[0]) if match else None
