"""The tables of `adubench sensitivity`: faults in rows, what notices them in columns."""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING, Any

from adubench.errors import counted
from adubench.evaluators.faults import FAULTS
from adubench.evaluators.sensitivity import BLIND, NOTICED, REFERENCE
from adubench.reports.tables import Cell, Column, Group, Row, Table

if TYPE_CHECKING:
    from adubench.evaluators.sensitivity import Response, Sensitivity


def sensitivity_tables(found: Sensitivity, region_metric: str = "abs_rel") -> list[Table]:
    """Return the table of metrics and, where regions were measured, the table of regions in one metric.

    Args:
        found: the responses.
        region_metric: metric of the second table.
    """
    notes = (
        f"Response = error / error under the reference fault ({REFERENCE[0]} {REFERENCE[1]:g} at every pixel). "
        f"*: noticed (from {NOTICED:g}); blind: below {BLIND:g}. n/a: the reference itself leaves no error.",
        "Error is 1 - value for metrics where higher is better, and the magnitude of a bias; log_bias is in units of "
        "the reference's rmse_log, bias of its rmse.",
    )
    size = f"{found.protocol}, {counted(found.n_images, 'map')}, {found.n_pixels:,} pixels"
    columns = tuple(Column(key, key) for key in found.metrics)
    tables = [_table("metrics", f"Which metric notices which fault: {size}", found, columns, notes, None)]
    names = list(dict.fromkeys(name for response in found.responses for name in response.regions))
    if names and region_metric in found.metrics:
        columns = tuple(Column(name, name) for name in names)
        title = f"Where {region_metric} notices it (response within the region): {size}"
        tables.append(_table("regions", title, found, columns, (), region_metric))
    return tables


def _table(
    name: str, title: str, found: Sensitivity, columns: tuple[Column, ...], notes: tuple[str, ...], metric: str | None
) -> Table:
    groups = []
    for fault, responses in groupby(found.responses, key=lambda r: r.fault):
        record = FAULTS[fault]
        rows = tuple(_row(response, columns, metric) for response in responses)
        groups.append(Group(f"{fault}: {record.about} [{record.unit}]", rows))
    return Table(name, title, "strength", columns, tuple(groups), notes)


def _row(response: Response, columns: tuple[Column, ...], metric: str | None) -> Row:
    values = [
        response.ratios[column.key] if metric is None else response.regions.get(column.key, {}).get(metric, math.nan)
        for column in columns
    ]
    return Row(f"{response.strength:g}", tuple(_cell(value) for value in values), "detail", ranked=False)


def _cell(ratio: float) -> Cell:
    if not math.isfinite(ratio):
        return Cell("n/a")
    if ratio < BLIND:
        return Cell("blind", ratio)
    return Cell(f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}", ratio, mark="*" if ratio >= NOTICED else "")


def to_dict(found: Sensitivity) -> dict[str, Any]:
    """Return plain JSON values; non-finite numbers are None."""

    def clean(values: dict[str, float]) -> dict[str, float | None]:
        return {key: value if math.isfinite(value) else None for key, value in values.items()}

    return {
        "protocol": found.protocol,
        "n_images": found.n_images,
        "n_pixels": found.n_pixels,
        "reference": {"fault": REFERENCE[0], "strength": REFERENCE[1], "errors": clean(found.reference)},
        "responses": [
            {
                "fault": r.fault,
                "strength": r.strength,
                "unit": FAULTS[r.fault].unit,
                "errors": clean(r.errors),
                "ratios": clean(r.ratios),
                "regions": {name: clean(values) for name, values in r.regions.items()},
            }
            for r in found.responses
        ],
    }
