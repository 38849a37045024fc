"""Published results, as printed, and which of them may stand beside a user's result.

A row belongs to a group (dataset, protocol family, ground truth, cap, alignment, scale); rows of different groups are
shown apart and never ranked against each other. What a source does not state is its own value of the group, not a
wildcard.
"""

from __future__ import annotations

import csv
import re
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from adubench.errors import UsageError
from adubench.reports.tables import (
    LEADERBOARD,
    Cell,
    Column,
    Group,
    Row,
    Table,
    metric_columns,
    rank_rows,
    server_column,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from adubench.evaluators.comparison import Comparison
    from adubench.evaluators.methods import MethodComparison

_FILES = ("adu_depth", "sub_depth", "tie_kd", "supervised_readmes", "selfsup_readmes")
_BENCHMARK_FILE = "spencer_benchmark_kitti"
_BENCHMARK_SOURCE = "jspenmar/slowtv_monodepth (commit 70fb69d)"
_METRICS = (
    "abs_rel",
    "sq_rel",
    "rmse",
    "rmse_log",
    "log10",
    "silog",
    "irmse",
    "mae",
    "imae",
    "log_mae",
    "d1",
    "d2",
    "d3",
)
_ALIGNMENTS = {"factor 5.4": "fixed:5.4", "stereo": "fixed:5.4", "metric": "none"}
_EIGEN, _VAL = "eigen_test", "kitti_official.val_selection"
DRIVINGSTEREO_REMARK = "unpublished subset and protocol"

# dataset, ground truth, cap: the group of a result under an unchanged protocol.
_OWN_GROUP = {
    "kitti-eigen": ("KITTI", "improved", "80"),
    "kitti-eigen-full": ("KITTI", "improved", "80"),
    "kitti-eigen-toolbox": ("KITTI", "improved", "80"),
    "kitti-eigen-raw": ("KITTI", "raw LiDAR", "80"),
    "kitti-eigen-benchmark": ("KITTI", "improved", ""),
    "kitti-mdb": ("KITTI", "improved", "100"),
    "kitti-official": ("KITTI", "improved", ""),
    "drivingstereo": ("DrivingStereo", "depth PNG", "80"),
}
# The 652 images are the Eigen test images that have improved ground truth, under either name.
_SAME_IMAGES = {"eigen_benchmark": _EIGEN, "eigen": _EIGEN, "official": _VAL}


@dataclass(frozen=True, slots=True)
class GroupKey:
    """What must be equal for two numbers to be ranked; empty = the source does not state it."""

    dataset: str
    family: str
    gt: str
    cap_m: str
    alignment: str
    scale: str

    @property
    def title(self) -> str:
        """The group in words."""

        def say(name: str, value: str) -> str:
            return f"{name} {value or 'not stated'}"

        cap = f"cap {self.cap_m} m" if self.cap_m else "no cap stated"
        unit = "KITTI-server units" if self.scale == "percent" else "fractions"
        return f"{self.dataset}, {self.family}, {say('gt', self.gt)}, {cap}, {say('alignment', self.alignment)}, {unit}"


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One published result.

    Attributes:
        method: as printed.
        key: its group; `family` is our protocol's name, or the source's wording where no protocol of ours applies.
        protocol: our protocol's name, None where no protocol of ours applies.
        split: our split's name, None likewise.
        values: our metric key -> digits as printed.
        source: where it stands, with table and venue.
        note: what the transcription says about it.
        stereo: it sees two images at test time, so it is no rival of monocular rows.
    """

    method: str
    key: GroupKey
    protocol: str | None
    split: str | None
    values: dict[str, str]
    source: str
    note: str
    stereo: bool = False

    @property
    def group(self) -> str:
        """Title of the rows it may be ranked with: its key and its images."""
        return f"{self.key.title}, split {self.split or 'not ours'}"


def protocol_of(dataset: str, wording: str) -> tuple[str | None, str | None]:
    """Translate a source's wording into our protocol and split; (None, None) where none applies."""
    if dataset == "DrivingStereo":
        return "drivingstereo", "drivingstereo.adu_test"
    if dataset != "KITTI":
        return None, None
    if wording == "official val":
        return "kitti-official", _VAL
    if wording == "official online test":
        return "kitti-official", "kitti_official.test"
    if wording.startswith("eigen (Monodepth2)"):
        return "kitti-eigen-raw", _EIGEN
    if wording.startswith("eigen (toolbox"):
        return "kitti-eigen-toolbox", _EIGEN
    if "(eval_with_pngs)" in wording:
        return "kitti-eigen-full", _EIGEN
    known = ("eigen, cap 80", "eigen, cap 80 (as NeWCRFs)", "eigen, cap 80, kb crop + garg, flip average")
    return ("kitti-eigen", _EIGEN) if wording in known else (None, None)


_BENCHMARK_SPLITS = {
    "kitti_eigen": ("kitti-eigen-raw", _EIGEN, "raw LiDAR", "80"),
    "kitti_eigen_benchmark": ("kitti-mdb", _EIGEN, "improved", "100"),
    "kitti_eigen_zhou": ("kitti-mdb", "eigen_zhou.test_700", "improved", "100"),
}


@cache
def published_rows() -> tuple[PublishedRow, ...]:
    """Load every published row that prints at least one metric, in file order."""
    rows = [row for name in _FILES for row in map(_common_row, _read(name)) if row.values]
    rows += [row for row in map(_benchmark_row, _read(_BENCHMARK_FILE)) if row.values]
    return tuple(rows)


def _read(name: str) -> Iterator[dict[str, str]]:
    text = resources.files("adubench.reports").joinpath(f"published_results/{name}.csv").read_text(encoding="utf-8")
    return iter(csv.DictReader(text.splitlines()))


def _values(row: dict[str, str]) -> dict[str, str]:
    found = {key: row[key] for key in _METRICS if row.get(key)}
    if row["scale"] == "percent" and "sq_rel" in found:
        found["sq_rel_gt2"] = found.pop("sq_rel")  # server tables divide by the squared depth
    return found


def _common_row(row: dict[str, str]) -> PublishedRow:
    protocol, split = protocol_of(row["dataset"], row["protocol"])
    alignment = _ALIGNMENTS.get(row["alignment"], row["alignment"])
    key = GroupKey(row["dataset"], protocol or row["protocol"], row["gt"], row["cap_m"], alignment, row["scale"])
    note = row["note"]
    if row["dataset"] == "DrivingStereo":
        note = "; ".join(filter(None, (DRIVINGSTEREO_REMARK, note)))
    source = ", ".join(filter(None, (row["source"], row["table"])))
    return PublishedRow(
        _method(row), key, protocol, split, _values(row), source, note, stereo="stereo input" in row["method"]
    )


def _method(row: dict[str, str]) -> str:
    supervision = row["supervision"] if len(row["supervision"]) < 4 else ""  # the codes M, S, MS, ...
    details = [row["backbone"], row["input_size"], row["loss"], supervision]
    shown = [detail for detail in details if detail and detail not in row["method"]]
    return f"{row['method']} ({', '.join(shown)})" if shown else row["method"]


def _benchmark_row(row: dict[str, str]) -> PublishedRow:
    protocol, split, gt, cap = _BENCHMARK_SPLITS[row["split"]]
    alignment = _ALIGNMENTS.get(row["alignment"], row["alignment"])
    key = GroupKey("KITTI", protocol, gt, cap, alignment, row["scale"])
    seeds = f"mean of {row['n_seeds']} seeds" if row["n_seeds"] not in ("", "1") else "one seed"
    method = f"{row['method']} ({row['group']})"
    return PublishedRow(method, key, protocol, split, _values(row), _BENCHMARK_SOURCE, seeds)


def base_protocol(name: str) -> str:
    """Name of a protocol without the options that changed it (`kitti-eigen-raw[alignment=none]`)."""
    return re.split(r"[\[+:@ ]", name, maxsplit=1)[0]


def select(protocol: str, split: str | None = None) -> list[PublishedRow]:
    """Rows of the same protocol family and, when given, the same split; empty if there are none."""
    base = base_protocol(protocol)
    rows = [row for row in published_rows() if row.protocol == base]
    wanted = _SAME_IMAGES.get(split, split) if split else None
    if wanted is None or wanted.startswith("drivingstereo"):
        return rows
    return [row for row in rows if row.split == wanted]


def select_protocol(protocol: str) -> list[PublishedRow]:
    """All rows of a protocol.

    Raises:
        UsageError: there are none; the sentence lists the protocols that have some.
    """
    rows = select(protocol)
    if not rows:
        known = sorted({row.protocol for row in published_rows() if row.protocol})
        raise UsageError(f"no published results under protocol '{protocol}'; there are some under {', '.join(known)}.")
    return rows


def published_json(rows: Sequence[PublishedRow]) -> dict[str, Any]:
    """Return published rows for JSON: numbers as printed, with group, source and note."""
    return {
        "published": [
            {"method": row.method, "group": asdict(row.key), "split": row.split, "values": row.values,
             "source": row.source, "note": row.note}
            for row in rows
        ]
    }  # fmt: skip


def own_key(protocol: dict[str, object], style: str) -> GroupKey:
    """Return the group of a user's result; a changed protocol is a family of its own."""
    name = str(protocol["name"])
    base = base_protocol(name)
    dataset, gt, cap = _OWN_GROUP.get(base, ("", "", ""))
    alignment = str(protocol.get("alignment") or "none")
    changes = [part for part in name.removeprefix(base).strip("[]").split(",") if part]
    only_aligned = all(part.startswith("alignment=") for part in changes)
    scale = "percent" if style == "leaderboard" else "fraction"
    return GroupKey(dataset, base if only_aligned else name, gt, cap, alignment, scale)


def _published_row(row: PublishedRow, columns: Sequence[Column]) -> Row:
    cells = []
    for column in columns:
        text = row.values.get(column.key, "")
        cells.append(Cell(text or "-", float(text) if text else None))
    remarks = ("published", row.note) if row.note else ("published",)
    return Row(row.method, tuple(cells), "published", remarks, row.source, ranked=not row.stereo)


def _columns(rows: Sequence[PublishedRow], style: str) -> tuple[Column, ...]:
    order = (*LEADERBOARD, *_METRICS) if rows[0].key.scale == "percent" else _METRICS
    keys = [k for k in dict.fromkeys(order) if any(k in row.values for row in rows)]
    if rows[0].key.scale != "percent":
        return metric_columns(keys, "full" if style == "full" else "paper")
    return tuple(_percent_column(key) for key in keys)


def _percent_column(key: str) -> Column:
    """Server units; log errors of the benchmark's tables are printed times 100 as well."""
    column = server_column(key)
    if key in ("rmse_log", "log_mae"):
        return replace(column, unit="×100", factor=100.0)
    return column


def published_tables(rows: Sequence[PublishedRow], title: str, style: str = "paper") -> list[Table]:
    """Show published rows alone: one table per scale, one group per key."""
    tables = []
    for scale in dict.fromkeys(row.key.scale for row in rows):
        part = [row for row in rows if row.key.scale == scale]
        columns = _columns(part, style)
        groups = tuple(
            Group(title, rank_rows([_published_row(r, columns) for r in part if r.group == title], columns))
            for title in dict.fromkeys(row.group for row in part)
        )
        notes = ("published numbers, digits as printed; groups must not be ranked against each other.",)
        tables.append(Table("published", title, "method", columns, groups, notes))
    return tables


def add_published(table: Table, comparison: Comparison | MethodComparison, style: str) -> list[Table]:
    """Put published rows beside a results table.

    Rows of exactly the result's group join its rows and are ranked with them (a partial result is not ranked); other
    groups follow apart.

    Returns:
        The extended table, then tables of the other groups. Without a row for the split, the table with a note.
    """
    own = own_key(comparison.protocol, style)
    rows = []
    if not comparison.mixed and comparison.split is not None:
        rows = select(str(comparison.protocol["name"]), comparison.split)
    if not rows:
        why = "not beside results that differ" if comparison.mixed else "none for this protocol and split"
        return [_replace(table, table.groups, (*table.notes, f"published results: {why}."))]
    same = [row for row in rows if row.key == own]
    first, *others = table.groups
    shown = [_unranked(row) if _incomplete(row) else row for row in first.rows]
    merged = rank_rows([*shown, *(_published_row(row, table.columns) for row in same)], table.columns)
    note = f"{len(same)} published rows of the results' own group ({own.title}), digits as printed."
    notes = (
        (*table.notes, note) if same else (*table.notes, f"no published row is of the results' group ({own.title}).")
    )
    notes = (*notes, *_coarse(first.rows, merged, table.columns))
    tables = [_replace(table, (Group(first.title, merged), *others), notes)]
    rest = [row for row in rows if row.key != own]
    title = f"Published, not to be ranked with the results above: {comparison.protocol['name']}"
    return tables + (published_tables(rest, title, style) if rest else [])


def _coarse(own: Sequence[Row], merged: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    """Say where a published number's last digit is coarser than its distance to one of ours."""
    found = []
    for position, column in enumerate(columns):
        names = []
        for row in merged:
            cell = row.cells[position]
            if row.kind != "published" or cell.value is None:
                continue
            half = 0.5 * 10.0 ** -len(cell.text.partition(".")[2])
            ours = [r.cells[position].value for r in own if r.kind == "result"]
            if any(value is not None and abs(value - cell.value) <= half for value in ours):
                names.append(f"{row.label} (±{half:g})")
        if names:
            found.append(f"warning: {column.key}: no difference to {', '.join(names)} beyond the rounding in print.")
    return found


def _incomplete(row: Row) -> bool:
    return any(remark.startswith(("partial", "on ")) for remark in row.remarks)


def _unranked(row: Row) -> Row:
    cells = tuple(replace(cell, rank=0) for cell in row.cells)
    return replace(row, ranked=False, cells=cells)


def _replace(table: Table, groups: tuple[Group, ...], notes: tuple[str, ...]) -> Table:
    return replace(table, groups=groups, notes=notes)
