"""`adubench report`: one self-contained page, nothing is loaded from anywhere.

What the tables say comes from the same comparison as `adubench compare`; this module arranges it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adubench import __version__
from adubench.errors import UsageError
from adubench.evaluators.metrics import METRICS
from adubench.reports.figures import color_of, drive_figures, region_figures, to_svg
from adubench.reports.pictures import ERROR_CLASSES
from adubench.reports.tables import comparison_title, differences_table, metric_columns, results_table
from adubench.reports.uncertainty_figures import uncertainty_figures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adubench.evaluators.comparison import Comparison
    from adubench.evaluators.result import EvaluationResult
    from adubench.reports.figures import Figure
    from adubench.reports.pictures import FrameView
    from adubench.reports.tables import Table

_FACTS = (
    "created", "adubench", "command", "source", "data_root", "ground_truth", "ground_truth_kind", "layout", "kind",
    "alignment", "flip", "kernel", "data_fingerprint", "source_sha256",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Page:
    """What a report is made of.

    Attributes:
        title: of the page.
        comparison: of all results.
        results: in the order of the comparison.
        figures: all figures.
        frames: frames with pictures.
        notes: what was left out, and why.
    """

    title: str
    comparison: Comparison
    results: tuple[EvaluationResult, ...]
    figures: tuple[Figure, ...]
    frames: tuple[FrameView, ...] = ()
    notes: tuple[str, ...] = ()


def report_figures(comparison: Comparison, results: Sequence[EvaluationResult]) -> tuple[Figure, ...]:
    """All figures that the results allow."""
    return (
        *region_figures(comparison, results),
        *drive_figures(comparison, results),
        *uncertainty_figures(results),
    )


def chosen_frames(comparison: Comparison, results: Sequence[EvaluationResult], count: int) -> list[tuple[str, str]]:
    """Choose the frames to show: the worst of every model, and those in which a model differs most from the baseline.

    Args:
        comparison: of the results.
        results: its results.
        count: frames per reason.

    Returns:
        (frame, why), each frame once, with all its reasons.
    """
    metric = comparison.options.primary.partition("@")[0]
    if metric not in results[0].per_image:
        metric = comparison.metrics[0]
    sign = -1.0 if METRICS[metric].higher_is_better else 1.0
    tables = {r.label: _column(r, metric) for r in results}
    reasons: dict[str, list[str]] = {}
    for label, values in tables.items():
        worst = sorted((f for f, v in values.items() if math.isfinite(v)), key=lambda f: (-sign * values[f], f))
        for frame in worst[:count]:
            reasons.setdefault(frame, []).append(f"worst {metric} of {label}")
    base = tables[comparison.baseline]
    for label, values in tables.items():
        if label == comparison.baseline:
            continue
        shared = [f for f, v in values.items() if f in base and math.isfinite(v) and math.isfinite(base[f])]
        shared.sort(key=lambda f: (-abs(values[f] - base[f]), f))
        for frame in shared[:count]:
            better = sign * (values[frame] - base[frame]) < 0
            reasons.setdefault(frame, []).append(
                f"{label} {'better' if better else 'worse'} than {comparison.baseline} by most"
            )
    return [(frame, "; ".join(found)) for frame, found in reasons.items()]


def _column(result: EvaluationResult, metric: str) -> dict[str, float]:
    return {
        str(f): float(v) for f, v in zip(result.per_image["frame"], result.per_image[metric], strict=True)
    }  # fmt: skip


def frame_facts(results: Sequence[EvaluationResult], frame: str, metrics: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Numbers of one frame for every model, as texts."""
    out = []
    columns = metric_columns(list(metrics), "paper")
    for result in results:
        texts = [f"{c.key} {c.text(_column(result, c.key).get(frame, math.nan))}" for c in columns]
        out.append((result.label, ", ".join(texts)))
    return tuple(out)


def render_page(page: Page) -> str:
    """Render the page as one HTML document without any reference to the outside.

    Raises:
        UsageError: Jinja2 or matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise UsageError(
            f"adubench report needs {error.name}: install the extra with pip install 'adubench[report]'."
        ) from None
    folder = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    return environment.get_template("report.html").render(_context(page, folder))


def _context(page: Page, folder: Path) -> dict[str, Any]:
    comparison = page.comparison
    groups: dict[str, list[Any]] = {}
    for figure in page.figures:
        groups.setdefault(figure.group, []).append({"figure": figure, "svg": to_svg(figure)})
    values, *_ = [results_table(comparison)]
    differences = differences_table(comparison)
    return {
        "css": (folder / "report.css").read_text(encoding="utf-8"),
        "js": (folder / "report.js").read_text(encoding="utf-8"),
        "version": __version__,
        "title": page.title,
        "headline": comparison_title(comparison),
        "values": _headline(comparison),
        "regions": _table(values, skip_first=True),
        "differences": None if differences is None else _table(differences),
        "notes": [*values.notes, *page.notes],
        "models": [
            {"label": label, "color": color_of(k), "remarks": ", ".join(comparison.marks.get(label, ()))}
            for k, label in enumerate(comparison.labels)
        ],
        "groups": groups,
        "frames": page.frames,
        "error_classes": [(f"{bound:g}", "rgb({},{},{})".format(*colour)) for bound, colour in ERROR_CLASSES],
        "protocol": [(key, _plain(value)) for key, value in comparison.protocol.items()],
        "provenance": [(r.label, _provenance(r)) for r in page.results],
        "warnings": list(dict.fromkeys(w for r in page.results for w in r.warnings)),
        "images": _images(page),
    }


def _headline(comparison: Comparison) -> dict[str, Any]:
    """Models by metrics with intervals, groups and ranks, for the region `all`."""
    table = results_table(comparison)
    rows = [row for row in table.groups[0].rows if row.kind == "result"]
    return {
        "columns": [{"key": c.key, "header": c.header, "arrow": c.arrow} for c in table.columns],
        "rows": [
            {
                "label": row.label,
                "color": color_of(comparison.labels.index(row.label)),
                "group": comparison.letters.get(row.label, ""),
                "cells": [
                    {"text": c.text, "mark": c.mark, "rank": c.rank, "interval": c.interval, "value": _sort(c.value)}
                    for c in row.cells
                ],
            }
            for row in rows
        ],
        "groups": bool(comparison.letters),
    }


def _table(table: Table, *, skip_first: bool = False) -> dict[str, Any]:
    groups = table.groups[1:] if skip_first else table.groups
    return {
        "head": table.head,
        "columns": [{"header": c.header} for c in table.columns],
        "rows": [
            {
                "group": group.title,
                "label": row.label,
                "kind": row.kind,
                "cells": [
                    {"text": c.text, "mark": c.mark, "rank": c.rank, "interval": c.interval, "value": _sort(c.value)}
                    for c in row.cells
                ],
            }
            for group in groups
            for row in group.rows
        ],
    }


def _images(page: Page) -> dict[str, Any]:
    """One row per image: drive, pixels, and every model's headline metrics."""
    first = page.results[0]
    keys = [key for key in ("abs_rel", "rmse", "silog", "d1") if all(key in r.per_image for r in page.results)][:3]
    columns = metric_columns(keys, "paper")
    tables = {(r.label, c.key): _column(r, c.key) for r in page.results for c in columns}
    common = set.intersection(*({str(f) for f in r.per_image["frame"]} for r in page.results))
    drives = first.per_image.get("drive", [""] * len(first.per_image["frame"]))
    pixels = first.per_image.get("n_pixels", [0] * len(drives))
    rows = []
    for frame, drive, n in zip(map(str, first.per_image["frame"]), drives, pixels, strict=True):
        if frame in common:
            numbers = [(c, tables[label, c.key][frame]) for label in page.comparison.labels for c in columns]
            cells = [{"text": c.text(v), "value": _sort(v)} for c, v in numbers]
            rows.append({"frame": frame, "drive": drive or "", "pixels": int(n), "cells": cells})
    heads = [f"{label} {c.header}" for label in page.comparison.labels for c in columns]
    return {"columns": heads, "rows": rows}


def _sort(value: float | None) -> str:
    return "" if value is None or not np.isfinite(value) else repr(float(value))


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(str(v) for v in value)
    return "-" if value is None or value == "" else str(value)


def _provenance(result: EvaluationResult) -> list[tuple[str, str]]:
    facts = [(key, _plain(result.provenance[key])) for key in _FACTS if result.provenance.get(key) is not None]
    counts = ", ".join(f"{key} {value}" for key, value in result.counts.items())
    digest = result.moments.parameters.get("digest") if result.moments is not None else None
    return [("counts", counts), *facts, *([("region parameters", str(digest))] if digest else [])]
