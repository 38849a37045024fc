"""The table of `adubench analyze features`: one row per level, floor and controls beside the gap."""

from __future__ import annotations

import math
from typing import Any

from adubench.errors import counted
from adubench.reports.tables import Cell, Column, Group, Row, Table

_DOWN, _UP = "\N{DOWNWARDS ARROW}", "\N{UPWARDS ARROW}"
_COLUMNS = (
    Column("channels", "d", decimals=0),
    Column("n_tokens", "n", decimals=0),
    Column("fd_before", "FD S-T", "", _DOWN, 3),
    Column("fd_after", "FD A-T", "", _DOWN, 3),
    Column("fd_floor", "floor", decimals=3),
    Column("closed", "closed", "", _UP, 2),
    Column("closed_ci", "95 % CI"),
    Column("mmd_before", "MMD S", "", _DOWN, 4),
    Column("mmd_after", "MMD A", "", _DOWN, 4),
    Column("mmd_p_before", "p S", decimals=3),
    Column("mmd_p_after", "p A", decimals=3),
    Column("cka_before", "CKA S", "", _UP, 3),
    Column("cka_after", "CKA A", "", _UP, 3),
    Column("mse_before", "MSE S", "", _DOWN, 3),
    Column("mse_after", "MSE A", "", _DOWN, 3),
)


def feature_tables(found: dict[str, Any]) -> list[Table]:
    """Build the table of `training.feature_analysis.analyse_features`."""
    levels = found["levels"]
    columns = tuple(c for c in _COLUMNS if any(c.key in entry for entry in levels.values()))
    rows = tuple(Row(name, tuple(_cell(c, entry) for c in columns), ranked=False) for name, entry in levels.items())
    title = f"features of {found['split']}: teacher T, student S" + (", adapted A" if found["adapters"] else "")
    how = (
        "T and S from disjoint halves of the images" if found["sampling"] == "halves" else "T and S at the same places"
    )
    notes = [
        f"{counted(found['n_images'], 'image')}, {counted(found['n_clusters'], 'drive')}; {how}; channels "
        f"standardised: {found['standardise']}; seed {found['seed']}.",
        "FD: Frechet distance; floor: between the halves of T; closed = (S - A) / (S - floor). The adapter was trained "
        "to lower MSE and FD: only CKA and better depth are findings.",
        *(f"{note}." for note in found["notes"]),
    ]
    projected = [name for name, entry in levels.items() if entry.get("axes")]
    if projected:
        notes.append(f"{', '.join(projected)}: FD on the first 64 principal axes of T, as n < 10 d.")
    return [Table("features", title, "level", columns, (Group("", rows),), tuple(notes))]


def _cell(column: Column, entry: dict[str, Any]) -> Cell:
    value = entry.get(column.key)
    if isinstance(value, list):
        known = all(math.isfinite(end) for end in value)
        return Cell(f"[{value[0]:.2f}, {value[1]:.2f}]" if known else "-")
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return Cell("n/a")
    return Cell(column.text(value), value)
