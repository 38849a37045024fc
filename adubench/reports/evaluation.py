"""The table that `adubench eval` prints: one row per protocol, never a number without its protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adubench.evaluators.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adubench.evaluators.result import EvaluationResult


def banner(result: EvaluationResult) -> str:
    """Name protocol, version, split, frames found/expected, ground truth and alignment in one line."""
    counts, protocol, facts = result.counts, result.protocol, result.provenance
    split = result.split or "explicit ground truth"
    partial = " PARTIAL" if result.partial else ""
    return (
        f"{protocol['name']} v{protocol['version']} | {split}"
        f" | images {counts['evaluated']}/{counts['expected']}{partial} | pixels {counts['n_pixels']:,} | gt {facts.get('ground_truth_kind', '?')}"
        f" | kind {facts.get('kind', 'depth')} | alignment {facts.get('alignment', 'none')}"
        + (f" | flip {facts['flip']}" if "flip" in facts else "")
    )


def print_evaluation(results: Sequence[EvaluationResult], *, style: str = "paper") -> None:
    """Print banner lines and one table on stdout."""
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=False)
    for result in results:
        console.print(banner(result), highlight=False, soft_wrap=True, markup=False)
    table = Table(title=f"{results[0].label}: one row per protocol" if len(results) > 1 else results[0].label)
    table.add_column("protocol", no_wrap=True)
    table.add_column("images", justify="right")
    keys = _columns(results)
    for key in keys:
        table.add_column(METRICS[key].header(), justify="right", no_wrap=True)
    for result in results:
        cells = [METRICS[key].format(result.summary.get(key, float("nan")), style) for key in keys]
        table.add_row(result.protocol["name"], str(result.counts["evaluated"]), *cells)
    console.print(table)


def _columns(results: Sequence[EvaluationResult]) -> list[str]:
    """The metrics that the protocols report, in the order of the first protocol that names each."""
    wanted = dict.fromkeys(key for result in results for key in result.protocol.get("metrics", ()))
    return [key for key in wanted if key in METRICS and any(key in r.summary for r in results)]
