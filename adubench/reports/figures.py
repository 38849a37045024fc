"""The figures of the report: made once with matplotlib, shown inline and written as files alike.

Text and axes carry one marked colour, which inside a page becomes the page's own text colour, so that a figure reads in
light, dark and print.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from adubench.evaluators.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

    from adubench.evaluators.comparison import Comparison
    from adubench.evaluators.result import EvaluationResult

INK = "#123456"  # stands for the page's text colour
GRID = "#8a94a2"
PALETTE = ("#3b7dd8", "#d9822b", "#2e9e6b", "#b5539c", "#8f7a1e", "#5f6fd0", "#c8504a", "#4a9aa8")
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "axes.edgecolor": GRID, "axes.linewidth": 0.8,
    "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": GRID, "grid.alpha": 0.25, "grid.linewidth": 0.7,
    "legend.frameon": False, "legend.fontsize": 8.5, "figure.facecolor": "none", "axes.facecolor": "none",
    "savefig.facecolor": "none", "pdf.fonttype": 42,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    Attributes:
        name: of its file and of its place in the page.
        title: above it.
        caption: below it: what is shown, and what the intervals are.
        group: section of the report.
        draw: makes the matplotlib figure.
    """

    name: str
    title: str
    caption: str
    group: str
    draw: Callable[[], Canvas]


def color_of(position: int) -> str:
    """Colour of the model at a position."""
    return PALETTE[position % len(PALETTE)]


def canvas(width: float = 7.2, height: float = 3.2, columns: int = 1) -> tuple[Canvas, list[Axes]]:
    """Make an empty figure of so many inches with axes side by side, without any global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as MplFigure

    figure = MplFigure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def to_svg(figure: Figure) -> str:
    """Return the figure as an `<svg>` element whose text colour follows the page.

    The same figure gives the same bytes.
    """
    text = _saved(figure, "svg").decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = text.replace(INK, "currentColor")
    # Identifiers must be unique in the page, which holds many figures.
    text = re.sub(r'\bid="([^"]+)"', rf'id="{figure.name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{figure.name}-\1)", text)
    text = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{figure.name}-\1"', text)
    text = re.sub(r' xmlns:xlink="[^"]*"', "", text, count=1)
    return text.strip()


def save_figures(figures: Sequence[Figure], folder: Path) -> list[Path]:
    """Write every figure as SVG and PDF, black on transparent, ready for a paper."""
    from adubench.io.atomic import write_bytes

    paths = []
    for figure in figures:
        for form in ("svg", "pdf"):
            data = _saved(figure, form)
            if form == "svg":
                data = data.replace(INK.encode(), b"#000000")
            path = folder / f"{figure.name}.{form}"
            write_bytes(path, data)
            paths.append(path)
    return paths


def _saved(figure: Figure, form: str) -> bytes:
    import matplotlib as mpl

    stream = io.BytesIO()
    metadata = {"Date": None} if form == "svg" else {"CreationDate": None, "ModDate": None}
    with mpl.rc_context({**_STYLE, "svg.hashsalt": figure.name}):
        drawn = figure.draw()
        if form == "pdf":
            _recolor(drawn, "#000000")
        drawn.savefig(stream, format=form, metadata=metadata)
    return stream.getvalue()


def _recolor(drawn: Canvas, color: str) -> None:
    """Put a real colour in the place of the marked one."""
    artist: Any
    for artist in drawn.findobj(lambda a: hasattr(a, "get_color") and hasattr(a, "set_color")):
        if isinstance(artist.get_color(), str) and artist.get_color() == INK:
            artist.set_color(color)
    for artist in drawn.findobj(lambda a: type(a).__name__ == "LineCollection"):
        artist.set_color(color if _is_ink(artist) else artist.get_color())
    for axes in drawn.axes:
        axes.tick_params(colors=color, which="both")


def _is_ink(lines: Any) -> bool:
    from matplotlib.colors import to_hex

    colors = lines.get_color()
    return len(colors) == 1 and to_hex(colors[0]) == INK


def region_figures(comparison: Comparison, results: Sequence[EvaluationResult]) -> list[Figure]:
    """Bars with intervals per region family, one figure per metric, and curves over distance."""
    titles = _region_titles(results)
    figures = []
    for metric in [m for m in ("abs_rel", "rmse", "silog", "d1") if m in comparison.metrics]:
        names = [r for r in comparison.estimates[comparison.labels[0]] if r != "all" and _has(comparison, r, metric)]
        if not names:
            continue
        figures.append(
            Figure(
                f"regions-{metric}",
                f"{METRICS[metric].key} by region",
                _interval_words(comparison),
                "regions",
                partial(_bars, comparison, metric, names, titles),
            )
        )
        bounds = _distance_bounds(results)
        bins = [name for name in names if name in bounds]
        if len(bins) > 1:
            figures.append(
                Figure(
                    f"distance-{metric}",
                    f"{METRICS[metric].key} over distance",
                    _interval_words(comparison),
                    "distance",
                    partial(_curve, comparison, metric, bins, bounds),
                )
            )
    return figures


def _has(comparison: Comparison, region: str, metric: str) -> bool:
    return any(metric in comparison.estimates[label].get(region, {}) for label in comparison.labels)


def _region_titles(results: Sequence[EvaluationResult]) -> dict[str, str]:
    return {name: str(entry.get("title", name)) for r in results for name, entry in r.regions.items()}


def _distance_bounds(results: Sequence[EvaluationResult]) -> dict[str, tuple[float, float]]:
    for result in results:
        parameters = result.moments.parameters if result.moments is not None else {}
        bounds = {
            name: (float(low), float(high))
            for name, (low, high) in dict(parameters.get("bounds", {})).items()
            if name.startswith("depth") and high != "inf"
        }
        if bounds:
            return bounds
    return {}


def _interval_words(comparison: Comparison) -> str:
    o = comparison.options
    return (
        f"Values are pooled over pixels. Whiskers: {o.confidence:.0%} intervals, bootstrap over "
        f"{comparison.n_clusters} {comparison.cluster_name}, B = {o.resamples}."
    )


def _axis_title(metric: str) -> str:
    record = METRICS[metric]
    unit = "" if record.unit == "1" else f" [{record.unit}]"
    return f"{record.key}{unit} {record.arrow}".strip()


def _bars(comparison: Comparison, metric: str, names: Sequence[str], titles: dict[str, str]) -> Canvas:
    models = len(comparison.labels)
    figure, (axes,) = canvas(7.2, 0.9 + len(names) * (0.15 + 0.13 * models))
    places = np.arange(len(names))[::-1].astype(float)
    thick = 0.78 / models
    for k, label in enumerate(comparison.labels):
        cells = [comparison.estimates[label].get(name, {}).get(metric) for name in names]
        values = [np.nan if cell is None else cell.value for cell in cells]
        low = [0.0 if c is None or c.ci is None else max(0.0, c.value - c.ci[0]) for c in cells]
        high = [0.0 if c is None or c.ci is None else max(0.0, c.ci[1] - c.value) for c in cells]
        at = places + (models - 1) / 2 * thick - k * thick
        axes.barh(at, values, thick * 0.92, color=color_of(k), label=label, alpha=0.9)
        axes.errorbar(values, at, xerr=[low, high], fmt="none", ecolor=INK, elinewidth=0.8, capsize=1.5)
    axes.set_yticks(places, [titles.get(name, name) for name in names])
    axes.set_xlabel(_axis_title(metric))
    axes.grid(visible=False, axis="y")
    axes.set_ylim(-0.7, len(names) - 0.3)
    if models > 1:
        figure.legend(loc="outside upper left", ncols=min(models, 4))
    return figure


def _curve(comparison: Comparison, metric: str, bins: Sequence[str], bounds: dict[str, tuple[float, float]]) -> Canvas:
    figure, (axes,) = canvas(7.2, 3.0)
    for k, label in enumerate(comparison.labels):
        rows = []
        for name in bins:
            cell = comparison.estimates[label].get(name, {}).get(metric)
            if cell is not None:
                low, high = cell.ci if cell.ci is not None else (cell.value, cell.value)
                rows.append((sum(bounds[name]) / 2, cell.value, low, high))
        if rows:
            x, y, low, high = np.array(rows).T
            axes.plot(x, y, "o-", color=color_of(k), label=label, markersize=4, linewidth=1.6)
            axes.fill_between(x, low, high, color=color_of(k), alpha=0.15, linewidth=0)
    axes.set_xticks(sorted({edge for name in bins for edge in bounds[name]}))
    axes.set_xlabel("distance of the ground truth [m]")
    axes.set_ylabel(_axis_title(metric))
    axes.set_ylim(bottom=0 if METRICS[metric].higher_is_better is False else None)
    axes.legend()
    return figure


def drive_figures(comparison: Comparison, results: Sequence[EvaluationResult]) -> list[Figure]:
    """Dots per drive: every model's mean, and the differences to the baseline."""
    figures = []
    for metric in [m for m in ("abs_rel", "rmse", "silog") if m in comparison.metrics][:2]:
        means = {r.label: _drive_means(r, metric) for r in results}
        drives = [d for d in means[comparison.baseline] if all(d in m for m in means.values())]
        if len(drives) < 2:
            continue
        figures.append(
            Figure(
                f"drives-{metric}",
                f"{METRICS[metric].key} by drive",
                "Mean over the images of each drive; drives are sorted by the baseline. One model that is better on "
                "every drive is a stronger finding than a small p-value.",
                "drives",
                partial(_dots, comparison, metric, means, drives),
            )
        )
    return figures


def _drive_means(result: EvaluationResult, metric: str) -> dict[str, tuple[float, int]]:
    values = np.asarray(result.per_image[metric], np.float64)
    names = np.asarray([str(d or "?") for d in result.per_image.get("drive", [""] * len(values))])
    out = {}
    for name in np.unique(names):
        own = values[(names == name) & np.isfinite(values)]
        if len(own):
            out[str(name)] = (float(own.mean()), len(own))
    return out


def _dots(
    comparison: Comparison, metric: str, means: dict[str, dict[str, tuple[float, int]]], drives: Sequence[str]
) -> Canvas:
    base = means[comparison.baseline]
    ordered = sorted(drives, key=lambda d: base[d][0])
    figure, (axes,) = canvas(7.2, 0.9 + 0.19 * len(ordered))
    rows = np.arange(len(ordered))
    for k, label in enumerate(comparison.labels):
        own = means[label]
        x = [own[d][0] for d in ordered]
        axes.scatter(x, rows, s=22, color=color_of(k), label=label, zorder=3)
    for row, drive in enumerate(ordered):
        values = [means[label][drive][0] for label in comparison.labels]
        axes.plot([min(values), max(values)], [row, row], color=GRID, linewidth=0.8, zorder=1)
    axes.set_yticks(rows, [f"{d} ({base[d][1]})" for d in ordered])
    axes.set_xlabel(f"{_axis_title(metric)}  (images per drive in brackets)")
    if len(comparison.labels) > 1:
        figure.legend(loc="outside upper left", ncols=min(len(comparison.labels), 4))
    return figure
