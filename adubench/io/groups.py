"""Read a CSV that assigns images to groups, e.g. weather or night."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from adubench.errors import DataError


def read_groups(path: str | Path) -> dict[str, str]:
    """Read lines "image,group"; a first line of just these words, empty lines and lines from "#" are skipped.

    Returns:
        image -> group, in the order of the file.

    Raises:
        DataError: missing, not text, a line without two fields, or an image in two groups (naming the line).
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DataError(f"cannot read groups {path}: {reason}. Expected a CSV with lines image,group.") from None
    groups: dict[str, str] = {}
    try:
        rows = list(csv.reader(io.StringIO(text)))
    except csv.Error as error:
        raise DataError(f"groups {path}: {error}. Expected a CSV with lines image,group.") from None
    for number, row in enumerate(rows, start=1):
        fields = [field.strip() for field in row]
        if not any(fields) or fields[0].startswith("#") or (number == 1 and fields == ["image", "group"]):
            continue
        if len(fields) != 2 or not all(fields):
            raise DataError(f"groups {path}, line {number}: expected image,group, got '{','.join(row)[:80]}'.")
        image, group = fields
        if groups.setdefault(image, group) != group:
            raise DataError(
                f"groups {path}, line {number}: '{image}' is in two groups, '{groups[image]}' and '{group}'."
            )
    if not groups:
        raise DataError(f"groups {path}: no lines. Expected a CSV with lines image,group.")
    return groups
