"""The table of `adubench eval --boundary-metrics`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from adubench.evaluators.boundary_scores import SCORES
from adubench.reports.tables import Cell, Column, Group, Row, Table

if TYPE_CHECKING:
    from adubench.evaluators.result import EvaluationResult

_COLUMNS = (Column("key", "key"), Column("value", "value", decimals=3), Column("images", "images", decimals=0))
_DOWN, _UP = "\N{DOWNWARDS ARROW}", "\N{UPWARDS ARROW}"


def boundary_tables(result: EvaluationResult) -> list[Table]:
    """Build the table of a result, one row per score; none without boundary scores."""
    section = result.boundaries
    if not section:
        return []
    rows = []
    for key, value in section["scores"].items():
        score = SCORES[key]
        unit = f" [{score.unit}]" if score.unit else ""
        shown = Cell("n/a") if value is None or not math.isfinite(value) else Cell(_COLUMNS[1].text(value), value)
        images = section["n_images"].get(key, 0)
        title = f"{score.title}{unit} {_UP if score.higher_is_better else _DOWN}"
        rows.append(Row(title, (Cell(key), shown, Cell(str(images), float(images))), ranked=False))
    gaps = ", ".join(str(g) for g in section["gaps"])
    note = f"Edge preset {section['preset']} (gaps {gaps}); scores of other presets are another scale."
    title = f"{result.protocol['name']}, boundaries"
    return [Table("boundaries", title, "score", _COLUMNS, (Group("", tuple(rows)),), (note,))]
