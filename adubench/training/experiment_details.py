"""Further tables of an experiment, for what has more than one number per row: levels, times, test sets, epochs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from adubench.recipes.experiments import Expansion
    from adubench.training.experiment_runs import Record

Line = tuple[str, tuple[float | None, ...]]

_GAP = {
    "FD before": "fd_before", "FD after": "fd_after", "FD floor": "fd_floor",
    "MMD2 before": "mmd_before", "MMD2 after": "mmd_after", "CKA before": "cka_before", "CKA after": "cka_after",
}  # fmt: skip
_TRANSFER = {"abs_rel": "abs_rel", "rmse": "rmse", "d1": "d1", "ECE": "ece19", "tau": "tau", "drop %": "drop"}
_SCALINGS = ("none", "focal", "median")
_STRIDES = ("1/4", "1/8", "1/16", "1/32")
_EPOCHS = 8


@dataclass(frozen=True, slots=True)
class Detail:
    """A table of means over seeds.

    Attributes:
        name: for programs.
        title: says what the numbers are.
        first: header of the names.
        columns: headers of the numbers.
        rows: name -> numbers, None where there is none.
    """

    name: str
    title: str
    first: str
    columns: tuple[str, ...]
    rows: tuple[Line, ...]


def details(expansion: Expansion, records: Sequence[Record]) -> tuple[Detail, ...]:
    """Make the further tables of an experiment's finished runs; those without any number are left out."""
    wanted = expansion.experiment.measure
    rows = list(dict.fromkeys((record.data_set, record.variant) for record in records))
    found = []
    makers: dict[str, Callable[[list[tuple[str, Means]]], Detail]] = {"feature_gap": _gaps, "curve": _epochs}
    means = [
        (f"{data_set}: {name}" if data_set else name, _means([r for r in records if (r.data_set, r.variant) == row]))
        for row in rows
        for data_set, name in (row,)
    ]
    for measure, make in makers.items():
        if measure in wanted:
            found.append(make(means))
    if "transfer" in wanted:
        found.append(_transfers(means, [test_set.name for test_set in expansion.experiment.test_sets]))
    return tuple(detail for detail in found if detail.rows)


Means = dict[str, float]


def _means(records: Sequence[Record]) -> Means:
    values: dict[str, list[float]] = {}
    for record in records:
        for key, value in record.numbers.items():
            values.setdefault(key, []).append(value)
    return {key: float(np.mean(found)) for key, found in values.items()}


def _gaps(rows: list[tuple[str, Means]]) -> Detail:
    """Feature gaps by row, time and level."""
    lines: list[Line] = []
    for name, numbers in rows:
        times = sorted({m[1] for key in numbers if (m := re.match(r"gap@([\d.]+):", key))}, key=float)
        for prefix, share in [*((f"gap@{time}", float(time)) for time in times), ("gap", 1.0)]:
            for part in ("encoder", "decoder"):
                for level, stride in enumerate(_STRIDES):
                    values = tuple(numbers.get(f"{prefix}:{key}_{part}_{level}") for key in _GAP.values())
                    if any(value is not None for value in values):
                        lines.append((f"{name}, {share:.0%}, {part} {stride}", values))
    title = "Feature gap by share of training and level (before: raw student, after: adapted; means over seeds)"
    return Detail("feature_gap", title, "row, time, level", tuple(_GAP), tuple(lines))


def _epochs(rows: list[tuple[str, Means]]) -> Detail:
    """Mean score p_d of the focal loss per epoch, at most eight epochs."""
    name = "curve:p_d_epoch_"
    known = sorted({int(key.removeprefix(name)) for _, numbers in rows for key in numbers if key.startswith(name)})
    step = (len(known) - 1) / (_EPOCHS - 1)
    shown = [known[round(i * step)] for i in range(_EPOCHS)] if len(known) > _EPOCHS else known
    lines = [(row, tuple(numbers.get(f"{name}{epoch}") for epoch in shown)) for row, numbers in rows]
    lines = [line for line in lines if any(value is not None for value in line[1])]
    title = "Mean score p_d of the focal term per epoch (logged steps, means over seeds)"
    return Detail("p_d", title, "row", tuple(f"epoch {epoch}" for epoch in shown), tuple(lines))


def _transfers(rows: list[tuple[str, Means]], sets: Sequence[str]) -> Detail:
    """Scores by row, test set and scaling; the run's own test set first."""
    lines: list[Line] = []
    for name, numbers in rows:
        own = {"ece19": "unc:ece19", "tau": "unc:tau"}
        lines.append((f"{name}, in domain", tuple(numbers.get(own.get(key, key)) for key in _TRANSFER.values())))
        for test_set in sets:
            for scaling in _SCALINGS:
                prefix = f"transfer:{test_set}:{scaling}"
                values = tuple(numbers.get(f"{prefix}:{key}") for key in _TRANSFER.values())
                if any(value is not None for value in values):
                    lines.append((f"{name}, {test_set}, {scaling}", values))
    title = "Scores by test set and scaling of depth (means over seeds)"
    return Detail("transfer", title, "row, set, scaling", tuple(_TRANSFER), tuple(lines))
