"""What a result file must look like, as pydantic models. Imported only when a file is read."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from adubench.errors import ResultError

NEWEST = 1


class ProtocolEntry(BaseModel):
    """The protocol of a result: at least its name, version and fingerprint."""

    model_config = ConfigDict(extra="allow")

    name: str
    version: int
    fingerprint: str

    @model_validator(mode="after")
    def _metrics_are_names(self) -> ProtocolEntry:
        metrics = (self.model_extra or {}).get("metrics", [])
        if not isinstance(metrics, list) or not all(isinstance(name, str) for name in metrics):
            raise ValueError("metrics is no list of names")
        return self


class TableEntry(BaseModel):
    """Where the moment table lies and what it hashes to."""

    file: str
    index: int = 0
    sha256: str


class ResultEntry(BaseModel):
    """One result. Unknown fields of newer versions are kept out, not refused."""

    model_config = ConfigDict(extra="ignore")

    label: str = ""
    protocol: ProtocolEntry
    split: str | None = None
    counts: dict[str, int]
    provenance: dict[str, Any] = {}
    summary: dict[str, float | None]
    aggregates: dict[str, dict[str, float | None]] = {}
    per_image: dict[str, list[Any]]
    regions: dict[str, dict[str, Any]] = {}
    uncertainty: dict[str, Any] = {}
    boundaries: dict[str, Any] = {}
    issues: dict[str, list[str]] = {}
    warnings: list[str] = []
    moment_table: TableEntry | None = None

    @model_validator(mode="after")
    def _columns_agree(self) -> ResultEntry:
        lengths = {key: len(column) for key, column in self.per_image.items()}
        if "frame" not in lengths:
            raise ValueError("per_image has no column 'frame'")
        if len(set(lengths.values())) > 1:
            raise ValueError(f"per_image columns differ in length: {lengths}")
        return self


def validate_results(root: Any, file: str) -> list[ResultEntry]:
    """Check the parsed JSON of a result file and return its results.

    Raises:
        ResultError: not a result of adubench, a schema newer than this version knows, or a broken field.
    """
    if not isinstance(root, dict) or "schema_version" not in root:
        raise ResultError(f"{file}: not a result of adubench eval (no schema_version). Pass files written with -o.")
    version = root["schema_version"]
    if not isinstance(version, int) or not 1 <= version <= NEWEST:
        raise ResultError(f"{file}: schema version {version!r}, this adubench reads 1 to {NEWEST}. Update adubench.")
    entries = root.get("results", [root])
    if not isinstance(entries, list) or not entries:
        raise ResultError(f"{file}: holds no results. Evaluate again.")
    try:
        return [ResultEntry.model_validate(entry) for entry in entries]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "top level"
        raise ResultError(f"{file}: broken result at '{where}': {first['msg']}. Evaluate again.") from None
