"""Check a submission the way a careful colleague would: everything at once, by name, before the server sees it."""

from __future__ import annotations

import math
import re
from statistics import median
from typing import TYPE_CHECKING, Any

from adubench.errors import SubmissionError, UsageError
from adubench.submissions.archive import Entry, Package, is_devkit_output, is_system_file
from adubench.submissions.findings import Finding, SubmissionReport, finding, name_list, shown, sort_findings
from adubench.submissions.kitti import (
    CHECKED_KINDS,
    INDEX_NAME,
    LIMITS,
    Limits,
    Target,
    get_target,
    index_name,
    is_selection_name,
)
from adubench.submissions.png_scan import MapStatistics, digest_of, scan_codes, scan_png

if TYPE_CHECKING:
    from pathlib import Path


def check_submission(
    path: str | Path,
    *,
    kind: str = "prediction",
    gt: str | Path | None = None,
    strict: bool = False,
    compat: str | None = None,
    count: int | None = None,
    size: tuple[int, int] | None = None,
    limits: Limits = LIMITS,
) -> SubmissionReport:
    """Check a zip or folder of depth maps; nothing is unpacked to disk and one map is in memory at a time.

    Args:
        path: the archive or folder.
        kind: "prediction", "completion", "rvc" or "rehearsal".
        gt: folder of ground-truth PNGs; the package is then also scored like the server scores.
        strict: warnings count as faults.
        compat: "devkit" reacts to malformed files as the public evaluator does instead of guarding against them.
        count: expected number of files, instead of the kind's.
        size: expected (height, width), instead of the kind's.
        limits: thresholds.

    Returns:
        The report; `ok` says whether the package may be uploaded.

    Raises:
        SubmissionError: the package does not exist or cannot be opened.
        UsageError: unknown kind or compatibility mode.
    """
    target = get_target(kind)
    if kind not in CHECKED_KINDS:
        raise UsageError(f"check-submission cannot check --kind {kind}; it checks {', '.join(CHECKED_KINDS)}.")
    if compat not in (None, "devkit"):
        raise UsageError(f"unknown compatibility mode '{compat}': known: devkit.")
    expected = size or target.size
    scores = None
    with Package(path, limits) as package:
        maps, found = _names(package, target, count or target.count)
        found += package.findings
        statistics = []
        for entry in maps:
            messages, numbers = _scan(package, entry, expected, limits)
            found += messages
            if numbers is not None:
                statistics.append(numbers)
        found += set_findings(statistics, target, limits)
        if gt is not None:
            from adubench.submissions.server import score_package

            scored = score_package(package, maps, gt, compat=compat, limits=limits)
            found += scored.findings
            scores = scored.to_dict()
    return SubmissionReport(
        path=str(path),
        kind=kind,
        files=len(maps),
        total_bytes=package.total_bytes,
        findings=sort_findings(found),
        strict=strict,
        statistics=summarise(statistics),
        scores=scores,
        reminder=target.reminder,
    )


def set_findings(statistics: list[MapStatistics], target: Target, limits: Limits) -> list[Finding]:
    """Check what only the whole set shows: scale, orientation, identical files, a depth cap (S22 to S25).

    Args:
        statistics: numbers of the maps that could be read.
        target: for rehearsals, an implausible scale is a warning.
        limits: the thresholds.
    """
    if not statistics:
        return []
    found = []
    twins: dict[str, str] = {}
    for one in statistics:
        if one.digest and one.digest in twins:
            found.append(finding("S24", f"{twins[one.digest]} and {one.name} are identical", one.name))
        twins.setdefault(one.digest, one.name)
    flipped = sum(one.lower > one.upper for one in statistics) > limits.upside_down * len(statistics)
    if flipped:
        found.append(finding("S23", "maps look like disparity (near = large) or are flipped vertically"))
    lower = [one.lower for one in statistics if math.isfinite(one.lower)]
    largest = max(one.maximum for one in statistics)
    if lower:
        middle = median(lower)
        hint = _scale_hint(middle, largest, flipped, limits)
        if hint:
            message = f"median depth {middle:.1f} m is implausible; {hint}"
            level = "warning" if target.kind == "rehearsal" else "error"
            found.append(finding("S22", message, level=level))
    if largest < limits.low_cap or all(one.maximum == limits.exact_cap for one in statistics):
        message = f"prediction is capped at {largest:.1f} m; GT on the server is not capped"
        found.append(finding("S25", message))
    return found


def summarise(statistics: list[MapStatistics]) -> dict[str, Any]:
    """Return the numbers over the set that explain the findings."""
    if not statistics:
        return {}
    lower = [one.lower for one in statistics if math.isfinite(one.lower)]
    return {
        "maps_read": len(statistics),
        "median_lower_half_m": median(lower) if lower else None,
        "min_m": min(one.minimum for one in statistics),
        "max_m": max(one.maximum for one in statistics),
        "missing_pixels": sum(one.zeros for one in statistics),
        "pixels": sum(one.pixels for one in statistics),
    }


def _scale_hint(middle: float, largest: float, flipped: bool, limits: Limits) -> str:
    if largest * 256 <= 255:
        return "saved metres without x256?"
    if limits.median_low <= middle <= limits.median_high:
        return ""
    if middle < limits.median_tiny:
        return "normalised depth or inverse depth?"
    if middle < limits.median_low:
        return "scale 100, or another factor below 256?"
    return "disparity instead of depth?" if flipped else "scale 1000 instead of 256?"


def _names(package: Package, target: Target, count: int | None) -> tuple[list[Entry], list[Finding]]:
    """Check the names (S03, S04, S05); return the entries that are meant as maps, sorted as the server lists them."""
    maps, found, odd, system, wrong = [], [], [], [], []
    for entry in package.entries:
        if is_system_file(entry.name):
            system.append(entry.name)
        elif is_devkit_output(entry.name) or not entry.base.lower().endswith(".png"):
            odd.append(entry.name)
        else:
            maps.append(entry)
    selection = target.kind != "prediction" and target.kind != "rvc"
    selection = selection and bool(maps) and all(is_selection_name(e.base) for e in maps)
    indices: set[int] = set()
    for entry in maps:
        if INDEX_NAME.fullmatch(entry.base):
            indices.add(int(entry.base[:10]))
        elif not selection:
            wrong.append(entry)
    total = count if count is not None else (max(indices) + 1 if indices and target.kind != "rehearsal" else len(maps))
    for entry in wrong:
        last = index_name(max(total - 1, 0))
        label = shown(entry.base)
        found.append(finding("S05", f"'{label}' must be named 0000000000.png .. {last}", label))
    if odd:
        found += [finding("S04", f"unexpected entries: {shown(n)}{_entry_hint(n)}", shown(n)) for n in odd]
    if system:
        message = (
            f"unexpected entries: {name_list(system)} (macOS or Windows metadata; zip with adubench export-submission, "
            'or zip -X out.zip *.png, or remove them: zip -d out.zip "__MACOSX/*" ".DS_Store")'
        )
        found += [finding("S04", message, ", ".join(shown(n) for n in system[:3]))]
    if selection:
        if len(maps) < total:
            found.append(finding("S03", f"{total - len(maps)} of {total} files missing (val_selection names)"))
        elif len(maps) > total:
            found.append(finding("S04", f"unexpected entries: {len(maps)} maps, expected {total}"))
        return sorted(maps, key=lambda e: e.name), found
    return sorted(maps, key=lambda e: e.name), found + (_index_findings(indices, total) if package.listed else [])


def _index_findings(indices: set[int], total: int) -> list[Finding]:
    found = []
    missing = [i for i in range(min(total, 100_000)) if i not in indices]
    if missing or not total:
        what = name_list(index_name(i) for i in missing)
        text = f"{len(missing)} of {total} files missing, first: {what}" if total else "no PNG file in the package"
        found.append(finding("S03", text))
    above = sorted(i for i in indices if i >= total)
    if above:
        message = f"unexpected entries: {name_list(map(index_name, above))} (expected {total} files; another --kind?)"
        found.append(finding("S04", message, index_name(above[0])))
    return found


def _entry_hint(name: str) -> str:
    if is_devkit_output(name):
        return " (left by the devkit's evaluator; zip the PNGs only)"
    if re.search(r"\.(zip|tar|gz|tgz|7z|rar)$", name, re.IGNORECASE):
        return " (an archive inside the package; it is not opened)"
    return ""


def _scan(
    package: Package, entry: Entry, expected: tuple[int, int] | None, limits: Limits
) -> tuple[list[Finding], MapStatistics | None]:
    """Read and check one map; refused entries have their finding already."""
    if not entry.readable:
        return [], None
    name = shown(entry.base)
    try:
        data = package.read(entry)
    except SubmissionError as error:
        label = package.path.name
        return [finding("S01", f"{label}: not a valid zip archive ({name}: {error})", name)], None
    found, codes = scan_png(data, name, expected, limits)
    if codes is None:
        return found, None
    messages, numbers = scan_codes(codes, name, limits, digest_of(data))
    return found + messages, numbers
