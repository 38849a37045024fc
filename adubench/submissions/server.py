"""Score a package like KITTI's server: pairs by sorted order, filled gaps, float32 sums.

Source: KITTI depth devkit, `evaluate_depth.cpp`, `io_depth.h`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adubench.errors import AdubenchError, SubmissionError
from adubench.evaluators.devkit import (
    DEVKIT_METRICS,
    column_major,
    extremes,
    filled_at,
    float32_errors,
    leaderboard,
    mean_over_images,
)
from adubench.io.maps import DepthMap, SparseDepth
from adubench.submissions.findings import Finding, finding, name_list, shown
from adubench.submissions.kitti import DEPTH_SCALE, INDEX_NAME, Limits, frame_identity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from adubench.submissions.archive import Entry, Package

UNITS = {"SILog": "100 log(m)", "sqErrorRel": "%", "absErrorRel": "%", "iRMSE": "1/km"}


@dataclass(slots=True)
class ServerScores:
    """What one run of the evaluator gives.

    Attributes:
        names: predictions scored, in order.
        truths: the ground-truth file each was paired with.
        rows: float32 [N, 9], the errors of each file in the order of `DEVKIT_METRICS`.
        expected: number of ground-truth files.
        stopped: why there is no result; empty when there is one.
        findings: G01 to G03.
    """

    expected: int
    names: list[str] = field(default_factory=list)
    truths: list[str] = field(default_factory=list)
    rows: list[NDArray[np.float32]] = field(default_factory=list)
    stopped: str = ""
    findings: list[Finding] = field(default_factory=list)

    def statistics(self) -> dict[str, dict[str, float]]:
        """Return mean, min and max of every error as the devkit computes them; empty when the run stopped."""
        if self.stopped or not self.rows:
            return {}
        table = np.stack(self.rows)
        low, high = extremes(table)
        columns = zip(DEVKIT_METRICS, mean_over_images(table), low, high, strict=True)
        return {name: {"mean": float(a), "min": float(b), "max": float(c)} for name, a, b, c in columns}

    def leaderboard(self) -> dict[str, float]:
        """Return the four columns of the leaderboard, in its units; empty when the run stopped."""
        if self.stopped or not self.rows:
            return {}
        return leaderboard(mean_over_images(np.stack(self.rows)))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object; NaN is null."""
        return {
            "complete": not self.stopped,
            "stopped": self.stopped or None,
            "files": len(self.rows),
            "expected": self.expected,
            "leaderboard": {k: _json(v) for k, v in self.leaderboard().items()},
            "units": UNITS,
            "statistics": {k: {n: _json(v) for n, v in row.items()} for k, row in self.statistics().items()},
            "errors": list(DEVKIT_METRICS),
            "per_file": [
                {"file": name, "ground_truth": truth, "errors": [_json(float(v)) for v in row]}
                for name, truth, row in zip(self.names, self.truths, self.rows, strict=True)
            ],
        }


def score_package(
    package: Package, maps: Sequence[Entry], gt: str | Path, *, compat: str | None, limits: Limits
) -> ServerScores:
    """Score the maps of a package against a folder of ground truth.

    Args:
        package: the open package.
        maps: its entries that are meant as maps, in any order.
        gt: folder of 16-bit PNGs (searched below, when there is none directly in it).
        compat: "devkit" accepts 8-bit and colour PNGs as the evaluator does and stops at the first fault; None scores
            only what is right and names every fault.
        limits: the thresholds.

    Raises:
        SubmissionError: the folder does not exist or holds no PNG.
    """
    truths = list_truths(Path(gt))
    entries = sorted((e for e in maps if e.base.endswith(".png")), key=lambda e: e.name)
    if compat == "devkit":
        entries = [e for e in entries if e.name == e.base]
    scores = ServerScores(expected=len(truths))
    if len(entries) != len(truths):
        alone = _without_partner([e.base for e in entries], [p.name for p in truths])
        scores.stopped = f"{len(entries)} predictions for {len(truths)} ground-truth files; the server stops here" + (
            f" (without partner: {name_list(alone)})" if alone else ""
        )
        scores.findings.append(finding("G02", scores.stopped))
        return scores
    scores.findings += _name_findings([e.base for e in entries], [p.name for p in truths])
    for entry, path in zip(entries, truths, strict=True):
        name = shown(entry.base)
        try:
            row = _score_file(package, entry, path, compat, limits)
        except AdubenchError as error:
            message = f"{name}: {error}; the server stops here without a result"
            scores.stopped = scores.stopped or message
            scores.findings.append(finding("G02", message, name))
            if compat == "devkit":
                break
            continue
        scores.names.append(name)
        scores.truths.append(shown(path.name))
        scores.rows.append(row)
        if not np.isfinite(row).all():
            broken = ", ".join(e for e, v in zip(DEVKIT_METRICS, row, strict=True) if not math.isfinite(v))
            scores.findings.append(finding("G03", f"{name}: {broken} are not numbers, and so are the means", name))
    return scores


def list_truths(folder: Path) -> list[Path]:
    """List the ground truth as the devkit does: `*.png`, case-sensitive, sorted by name.

    Raises:
        SubmissionError: no such folder, or no PNG in it.
    """
    if not folder.is_dir():
        raise SubmissionError(f"folder of ground truth not found: {folder}. Give --gt DIR with 16-bit PNGs.")
    try:
        truths = sorted((p for p in folder.iterdir() if p.name.endswith(".png") and p.is_file()), key=lambda p: p.name)
        truths = truths or sorted((p for p in folder.rglob("*.png") if p.is_file()), key=lambda p: p.as_posix())
    except OSError as error:
        raise SubmissionError(f"cannot read folder {folder}: {error.strerror or error}.") from None
    if not truths:
        raise SubmissionError(f"{folder}: no .png file in it. Give the folder that holds the ground truth.")
    return truths


def _score_file(package: Package, entry: Entry, path: Path, compat: str | None, limits: Limits) -> NDArray[np.float32]:
    """Return the nine errors of one file, float32.

    Raises:
        AdubenchError: the devkit would stop at this file.
    """
    from adubench.io.depth_png import read_bytes
    from adubench.io.png import decode_grey16

    truth = decode_grey16(read_bytes(path, "ground truth"), f"ground truth {shown(path.name)}")
    if not truth.any():
        raise SubmissionError(f"ground truth {shown(path.name)} has no valid pixel")
    data = package.read(entry)
    if compat == "devkit":
        from adubench.submissions.devkit_png import decode_any

        codes = decode_any(data, limits.pixels)
    else:
        try:
            codes = decode_grey16(data, shown(entry.base))
        except AdubenchError:
            raise SubmissionError("not a readable 16-bit grey PNG") from None
    if codes.shape != truth.shape:
        raise SubmissionError(
            f"wrong file size: {codes.shape[1]}x{codes.shape[0]}, ground truth {truth.shape[1]}x{truth.shape[0]}"
        )
    given = SparseDepth.from_map(DepthMap(truth, DEPTH_SCALE))
    order = column_major(given.index, given.shape)
    predicted, _ = filled_at(DepthMap(codes, DEPTH_SCALE), given.index)
    return float32_errors(given.metres()[order], predicted[order])


def _name_findings(predictions: list[str], truths: list[str]) -> list[Finding]:
    """Report pairs whose names disagree; the server would not notice."""
    comparable, differ = 0, []
    for left, right in zip(predictions, truths, strict=True):
        keys = [_identity(left), _identity(right)]
        comparable += keys[0][0] == keys[1][0]
        if keys[0] != keys[1]:
            differ.append(f"{shown(left)} with {shown(right)}")
    if not differ:
        return []
    level = "warning" if comparable else "info"
    message = f"paired by sorted order like the server does; {len(differ)} pairs differ in name, first: {differ[0]}"
    return [finding("G01", message, level=level)]


def _without_partner(predictions: list[str], truths: list[str]) -> list[str]:
    """Name the files that only one side has; nothing when the two sides are named by different rules."""
    sides = [{_identity(n): n for n in names} for names in (predictions, truths)]
    if not sides[0].keys() & sides[1].keys():
        return []
    return sorted(side[key] for side, other in (sides, sides[::-1]) for key in side.keys() - other.keys())


def _identity(name: str) -> tuple[str, object]:
    if INDEX_NAME.fullmatch(name):
        return "index", int(name[:10])
    frame = frame_identity(name)
    return ("frame", frame) if frame is not None else ("name", name)


def _json(value: float) -> float | None:
    return value if math.isfinite(value) else None
