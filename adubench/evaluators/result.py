"""The result of an evaluation: numbers, the protocol that made them, and where they came from.

On disk a result is one JSON (`schema_version` 1) and the moment table as `<result>.npz` beside it, named in the JSON
with its hash. Non-finite numbers are null in the JSON and NaN in memory.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adubench.errors import ResultError
from adubench.io.atomic import atomic_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SCHEMA_VERSION = 1
_TABLE_MARK = "adubench moment table"


@dataclass(frozen=True, slots=True)
class MomentTable:
    """Float64 sums over pixels: all that summaries, intervals and comparisons need.

    Attributes:
        frames: N frame names.
        drives: N cluster names for statistics.
        regions: R region names; the first is `all`, the whole image.
        values: [N, R, 15] float64, columns as `evaluators.moments.MOMENTS`.
        parameters: what the regions depend on (empty for `all` alone).
    """

    frames: tuple[str, ...]
    drives: tuple[str, ...]
    regions: tuple[str, ...]
    values: NDArray[np.float64]
    parameters: dict[str, Any] = field(default_factory=dict)

    def region(self, name: str) -> NDArray[np.float64]:
        """Return the rows [N, 15] of one region.

        Raises:
            ResultError: the table has no such region.
        """
        if name not in self.regions:
            raise ResultError(f"no region '{name}' in the moment table: it has {', '.join(self.regions)}.")
        rows: NDArray[np.float64] = self.values[:, self.regions.index(name)]
        return rows

    def digest(self) -> str:
        """SHA-256 over names, parameters and values."""
        head = json.dumps([self.frames, self.drives, self.regions, self.parameters], sort_keys=True)
        values = np.ascontiguousarray(self.values, dtype="<f8")
        return hashlib.sha256(head.encode() + values.tobytes()).hexdigest()


@dataclass(slots=True)
class EvaluationResult:
    """One prediction source scored under one protocol.

    Attributes:
        protocol: the protocol's fields with `name`, `version`, `fingerprint`.
        split: name of the split, or None for an explicit ground-truth folder.
        counts: `expected`, `evaluated`, `missing_prediction`, `empty_ground_truth`, `invalid_values`, `n_pixels`.
        provenance: versions, source hash, data fingerprint, command, paths.
        summary: metric -> value under the protocol's own aggregation.
        aggregates: `image_mean` and `pooled`, each metric -> value.
        per_image: columns of equal length: `frame`, `drive`, `n_pixels`, then the metrics.
        regions: region -> its metrics (pooled; `all`: the protocol's aggregation) and sizes.
        uncertainty: scores and curves of uncertainty maps; empty without them.
        boundaries: scores of object boundaries and what they depend on; empty without them.
        moments: the moment table, None when its file is not beside the JSON.
        issues: names behind the counts (`missing_prediction`, `empty_ground_truth`, `invalid_values`, ...).
        warnings: sentences that a reader of the numbers must see.
        label: how tables call this result.
        path: the file it was loaded from.
    """

    protocol: dict[str, Any]
    split: str | None
    counts: dict[str, int]
    provenance: dict[str, Any]
    summary: dict[str, float]
    aggregates: dict[str, dict[str, float]]
    per_image: dict[str, list[Any]]
    regions: dict[str, dict[str, Any]] = field(default_factory=dict)
    uncertainty: dict[str, Any] = field(default_factory=dict)
    boundaries: dict[str, Any] = field(default_factory=dict)
    moments: MomentTable | None = None
    issues: dict[str, list[str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    label: str = ""
    path: Path | None = None

    @property
    def partial(self) -> bool:
        """True when fewer images were scored than the split has."""
        return bool(self.provenance.get("partial", False))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object (without the moment table's file entry)."""
        sections = {"uncertainty": self.uncertainty, "boundaries": self.boundaries}
        measured = {name: section for name, section in sections.items() if section}
        return {
            "label": self.label,
            "protocol": self.protocol,
            "split": self.split,
            "counts": self.counts,
            "summary": self.summary,
            "aggregates": self.aggregates,
            "regions": self.regions,
            "region_parameters": self.moments.parameters if self.moments else {},
            **measured,
            "issues": self.issues,
            "warnings": self.warnings,
            "provenance": self.provenance,
            "per_image": self.per_image,
        }


def to_json(results: Sequence[EvaluationResult], table_file: str | None = None) -> str:
    """Render one or several results as the JSON text of the contract.

    Args:
        results: one result gives the plain object, several give `{"schema_version", "results"}`.
        table_file: name of the `.npz` that holds the moment tables, to be named in the JSON with their hashes.
    """
    objects = []
    for position, result in enumerate(results):
        entry = result.to_dict()
        if table_file is not None and result.moments is not None:
            entry["moment_table"] = {"file": table_file, "index": position, "sha256": result.moments.digest()}
        objects.append(entry)
    root: dict[str, Any] = {"schema_version": SCHEMA_VERSION}
    root |= objects[0] if len(objects) == 1 else {"results": objects}
    return json.dumps(_finite(root), indent=1, allow_nan=False) + "\n"


def save_results(results: Sequence[EvaluationResult], path: str | Path) -> None:
    """Write results to `path` (JSON) and their moment tables to `<path stem>.npz`: both files or neither.

    Raises:
        ResultError: one of the files exists and is something else (it might be the predictions).
        DataError: the folder cannot be written.
    """
    target = Path(path)
    table_path = table_path_of(target)
    with atomic_path(table_path) as table, atomic_path(target) as text:
        table.write_bytes(_pack_tables([r.moments for r in results]))
        text.write_bytes(to_json(results, table_path.name).encode("utf-8"))


def table_path_of(path: str | Path) -> Path:
    """Name the moment table's file of a result, refusing to overwrite anything but an earlier result.

    Raises:
        ResultError: a file of one of the two names exists and is something else.
    """
    target = Path(path)
    if target.exists() and not target.is_dir() and not _is_json(target):
        raise ResultError(f"{target}: exists and is no result, which -o would replace. Choose another name with -o.")
    table = target.with_suffix(".npz")
    if table == target:
        raise ResultError(f"{target}: a result is a JSON file; name it {target.with_suffix('.json')}.")
    if table.exists() and not _is_table(table):
        raise ResultError(
            f"{table}: exists and is not a moment table, and the table of {target.name} would replace it. "
            "Choose another name with -o."
        )
    return table


def load_result(path: str | Path) -> EvaluationResult:
    """Load a file that holds one result.

    Raises:
        ResultError: unreadable, not a result, or more than one result.
    """
    results = load_results(path)
    if len(results) != 1:
        names = ", ".join(r.protocol["name"] for r in results)
        raise ResultError(f"{path}: holds {len(results)} results ({names}); expected one. Use load_results.")
    return results[0]


def load_results(path: str | Path) -> list[EvaluationResult]:
    """Load all results of a file; the moment tables are attached when their file is there and its hash agrees.

    Raises:
        ResultError: the file is missing, not JSON, not a result, of a newer schema, or its table was changed.
    """
    source = Path(path)
    try:
        root = json.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResultError(f"{source}: no such result file. Make one with adubench eval ... -o {source.name}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ResultError(f"{source}: cannot be read as text ({error}). Expected a result of adubench eval.") from None
    except json.JSONDecodeError as error:
        raise ResultError(
            f"{source}:{error.lineno}: not JSON ({error.msg}). Expected a result of adubench eval."
        ) from None
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, endless nesting
        raise ResultError(f"{source}: not a result of adubench eval ({error}).") from None
    from adubench.evaluators.result_schema import validate_results

    results = []
    tables: dict[str, list[MomentTable | None]] = {}
    for model in validate_results(root, str(source)):
        result = EvaluationResult(
            **model.model_dump(include=_RESULT_FIELDS), label=model.label or source.stem, path=source
        )
        _restore_nan(result)
        if model.moment_table is not None:
            result.moments = _attach_table(source, model.moment_table.model_dump(), tables)
        results.append(result)
    return results


_RESULT_FIELDS = {
    "protocol", "split", "counts", "provenance", "summary", "aggregates", "per_image", "regions", "issues", "warnings",
    "uncertainty", "boundaries",
}  # fmt: skip


def _attach_table(
    source: Path, entry: dict[str, Any], tables: dict[str, list[MomentTable | None]]
) -> MomentTable | None:
    name = Path(entry["file"]).name
    file = source.parent / name
    if not file.exists():
        return None
    if name not in tables:
        tables[name] = _unpack_tables(file)
    index = entry["index"]
    table: MomentTable | None = tables[name][index] if index < len(tables[name]) else None
    if table is None or table.digest() != entry["sha256"]:
        raise ResultError(f"{file}: does not belong to {source.name} (hash differs). Evaluate again.")
    return table


def _restore_nan(result: EvaluationResult) -> None:
    """Turn the JSON's null back into NaN where a number is expected."""
    for column in (result.summary, *result.aggregates.values(), *result.regions.values()):
        for key, value in column.items():
            if value is None:
                column[key] = math.nan
    for key, values in result.per_image.items():
        if key not in ("frame", "drive"):
            result.per_image[key] = [math.nan if v is None else v for v in values]


def _finite(value: Any) -> Any:
    """Replace non-finite floats by None, recursively; numpy scalars become Python numbers."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _pack_tables(tables: Sequence[MomentTable | None]) -> bytes:
    arrays: dict[str, NDArray[Any]] = {"mark": np.array(_TABLE_MARK)}
    for i, table in enumerate(tables):
        if table is None:
            continue
        for name in ("frames", "drives", "regions"):
            arrays[f"{i}_{name}"] = np.array(getattr(table, name), dtype=np.str_)
        arrays[f"{i}_values"] = table.values
        arrays[f"{i}_parameters"] = np.array(json.dumps(table.parameters, sort_keys=True))
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _is_json(path: Path) -> bool:
    """Say whether a file is empty or begins like a result; devices and pipes are not asked."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(64).lstrip()[:1] in (b"", b"{")
    except OSError:
        return False


def _is_table(path: Path) -> bool:
    try:
        with np.load(path, allow_pickle=False) as data:
            return "mark" in data.files and str(data["mark"]) == _TABLE_MARK
    except Exception:  # a damaged archive can raise anything
        return False


def _unpack_tables(path: Path) -> list[MomentTable | None]:
    try:
        with np.load(path, allow_pickle=False) as data:
            last = max((int(k.split("_")[0]) for k in data.files if k.endswith("_values")), default=-1)
            return [_unpack_one(data, i) for i in range(last + 1)]
    except Exception as error:  # a damaged archive can raise anything
        raise ResultError(f"{path}: not a readable moment table ({error}). Evaluate again.") from None


def _unpack_one(data: Any, i: int) -> MomentTable | None:
    if f"{i}_values" not in data.files:
        return None
    frames, drives, regions = (tuple(str(s) for s in data[f"{i}_{name}"]) for name in ("frames", "drives", "regions"))
    return MomentTable(frames, drives, regions, data[f"{i}_values"], json.loads(str(data[f"{i}_parameters"])))
