"""Results of a checkpoint that are stored beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adubench.errors import ResultError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


def stored_result(path: Path, protocol: str | None = None) -> Path:
    """Return the result file of a checkpoint; any other path as it is.

    Results are looked for beside the checkpoint and in a folder `results` there or one level up; what counts is the
    hash of the weights that a result names, not its file name.

    Args:
        path: what the user named.
        protocol: name of the protocol wanted, where several results are stored.

    Raises:
        ResultError: the checkpoint is missing, or has no stored result.
        UsageError: it has several.
    """
    if path.suffix.lower() != ".safetensors":
        return path
    if not path.is_file():
        raise ResultError(f"checkpoint not found: {path}.")
    digest = _sha256(path)
    found, others = [], []
    for file in _candidates(path):
        entries = _entries(file)
        if any(entry["sha256"] == digest and protocol in (None, entry["protocol"]) for entry in entries):
            found.append(file)
        elif entries and file.stem == path.stem and all(entry["sha256"] != digest for entry in entries):
            others.append(file)
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(str(file) for file in found)
        raise UsageError(f"{path}: several results are stored beside it ({names}); name one, or give --protocol.")
    wanted = f" under {protocol}" if protocol else ""
    stale = f" {others[0]} is the result of other weights." if others else ""
    raise ResultError(
        f"{path}: no result{wanted} is stored beside it.{stale} Make one: adubench eval {path} --split NAME "
        f"-o {path.with_suffix('.json')}."
    )


def _candidates(path: Path) -> Iterator[Path]:
    for folder in (path.parent, path.parent / "results", path.parent.parent / "results"):
        if folder.is_dir():
            yield from sorted(folder.glob("*.json"))


def _entries(file: Path) -> list[dict[str, Any]]:
    """Return protocol and hash of the weights of every result in a file; nothing for files that are no results."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        results = document.get("results", [document])
        return [{"protocol": r["protocol"]["name"], "sha256": r["provenance"]["predictor"]["sha256"]} for r in results]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def _sha256(path: Path) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
