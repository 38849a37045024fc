"""What the two submission commands print."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from adubench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from adubench.submissions.findings import Finding, SubmissionReport

_LINES_PER_CODE = 20
_ROWS = 20
_STYLE: dict[str, dict[str, Any]] = {"error": {"fg": "red"}, "warning": {"fg": "yellow"}, "info": {"fg": "cyan"}}


def resolve_kind(kind: str | None, rehearsal: bool) -> str:
    """Combine `--kind` and `--rehearsal`."""
    if rehearsal and kind not in (None, "rehearsal"):
        raise UsageError(f"--rehearsal and --kind {kind} contradict each other; give one of them.")
    return "rehearsal" if rehearsal else kind or "prediction"


def show_progress() -> Callable[[int, int], None] | None:
    """Return a counter on stderr, or nothing when nobody watches."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        click.echo(f"\rmap {done} of {total}" + ("\n" if done == total else ""), nl=False, err=True)

    return show


def echo_report(report: SubmissionReport, *, as_json: bool, verb: str) -> None:
    """Print a report for a person, or as JSON."""
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=1, allow_nan=False))
        return
    from adubench.submissions.kitti import MEGABYTE, get_target

    title = get_target(report.kind).title
    maps = f"{report.files} map{'s' * (report.files != 1)}"
    click.echo(f"{verb} {report.path}: {title}; {maps}, {report.total_bytes / MEGABYTE:.1f} MB")
    _echo_findings(report.findings)
    if report.scores is not None:
        _echo_scores(report.scores)
    numbers = report.statistics
    if numbers.get("maps_read") and numbers["median_lower_half_m"] is not None:
        click.echo(
            f"depth {numbers['min_m']:.2f} .. {numbers['max_m']:.2f} m, "
            f"median of the lower halves {numbers['median_lower_half_m']:.2f} m"
        )
    if report.manifest:
        click.echo(f"manifest {report.manifest}")
    errors, warnings = report.count("error"), report.count("warning")
    verdict = "refused" if report.refused else "not acceptable" if not report.ok else "good"
    counted = f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"
    click.echo(f"{verdict}: {counted}" + (" (strict)" if report.strict else ""))
    if report.reminder and report.ok:
        click.echo(report.reminder, err=True)


def _echo_findings(findings: tuple[Finding, ...]) -> None:
    """Print every finding; of many alike, the first ones in full and the others by name."""
    from adubench.submissions.findings import name_ranges

    groups: dict[tuple[str, str], list[Finding]] = {}
    for one in findings:
        groups.setdefault((one.level, one.code), []).append(one)
    for (level, code), group in groups.items():
        label = click.style(f"{level} {code}", **_STYLE[level])
        for one in group[:_LINES_PER_CODE]:
            click.echo(f"{label} {one.message}")
        rest = [one.file for one in group[_LINES_PER_CODE:] if one.file]
        if rest:
            click.echo(f"{label} the same in {len(rest)} more files: {name_ranges(rest)}")


def _echo_scores(scores: dict[str, Any]) -> None:
    """Print the leaderboard's columns and the table of files."""
    if scores["stopped"]:
        click.echo(f"no score: {scores['stopped']}")
    else:
        click.echo(f"score of {scores['files']} files, as the server computes it (kitti-official, float32):")
        for name, value in scores["leaderboard"].items():
            click.echo(f"  {name:<12} {_number(value, 2):>10}  {scores['units'][name]}")
        click.echo(f"  {'':<20} {'mean':>12} {'min':>12} {'max':>12}")
        for name, row in scores["statistics"].items():
            click.echo(f"  {name:<20} " + " ".join(f"{_number(row[k], 6):>12}" for k in ("mean", "min", "max")))
    if not scores["per_file"]:
        return
    width = max(len(row["file"]) for row in scores["per_file"][:_ROWS])
    click.echo(f"  {'file':<{width}} " + " ".join(f"{name:>19}" for name in scores["errors"]))
    for row in scores["per_file"][:_ROWS]:
        click.echo(f"  {row['file']:<{width}} " + " ".join(f"{_number(v, 6):>19}" for v in row["errors"]))
    if len(scores["per_file"]) > _ROWS:
        click.echo(f"  ({len(scores['per_file']) - _ROWS} more files: --json)")


def _number(value: float | None, digits: int) -> str:
    return "nan" if value is None else f"{value:.{digits}f}"
