"""`adubench report`: one page that shows everything there is about results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adubench.errors import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adubench.evaluators.result import EvaluationResult
    from adubench.reports.pictures import FrameView

EPILOG = """
\b
Examples:
  adubench report ours.json baseline.json --baseline baseline -o report.html
  adubench report ours.json -o report.html --data-root KITTI --source ours=predictions/
  adubench report ours.json baseline.json -o report.html --figures figures/
"""


@click.command("report", epilog=EPILOG)
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="RESULT.json...")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("report.html"), show_default=True)
@click.option("--title", default="Depth evaluation", show_default=True, help="Of the page.")
@click.option("--baseline", help="Result that others are compared with. Default: the first.")
@click.option("--protocol", help="Which protocol's results to take from files with several.")
@click.option("--region", "regions", multiple=True, help="Only these regions, several times.")
@click.option("--metric", "metrics", multiple=True, help="Only these metrics, several times.")
@click.option("--frames", default=4, show_default=True, help="Frames with pictures per reason; 0 for none.")
@click.option("--data-root", type=click.Path(path_type=Path), help="Where images and truth lie, if not as recorded.")
@click.option(
    "--source", "sources", multiple=True, metavar="NAME=PATH", help="Where predictions lie, if not as recorded."
)
@click.option("--figures", type=click.Path(path_type=Path), help="Also write the figures there, as SVG and PDF.")
@click.option("--cluster", default="auto", show_default=True, help="As for compare.")
@click.option("--resamples", default=10_000, show_default=True, help="Bootstrap resamples.")
@click.option("--seed", default=0, show_default=True, help="Of the random numbers; same seed, same bytes.")
def command(
    files: tuple[Path, ...],
    output: Path,
    title: str,
    baseline: str | None,
    protocol: str | None,
    regions: tuple[str, ...],
    metrics: tuple[str, ...],
    frames: int,
    data_root: Path | None,
    sources: tuple[str, ...],
    figures: Path | None,
    **rest: Any,
) -> int:
    """Write one self-contained page: tables with intervals, figures, frames with pictures, provenance.

    Pictures are found through the paths that the results recorded, or where the options say; what is not found is left
    out, and the page says so.
    """
    from adubench.commands._options import refuse_input_as_output
    from adubench.commands.compare import load_named
    from adubench.errors import UsageError
    from adubench.evaluators.comparison import compare
    from adubench.io.atomic import write_text
    from adubench.reports.figures import save_figures
    from adubench.reports.html import Page, render_page, report_figures

    if not files:
        raise UsageError("nothing to report: give results of adubench eval -o.")
    if frames < 0:
        raise UsageError(f"--frames {frames}: expected a number of frames from 0.")
    refuse_input_as_output(output, *files)
    results = load_named(files, protocol)
    comparison = compare(
        results, baseline=_label(baseline, results), regions=regions or None, metrics=metrics or None, **rest
    )
    named = _sources(sources, [r.label for r in results])
    views, notes = _pictures(comparison, results, frames, data_root, named)
    drawn = report_figures(comparison, results)
    page = Page(title, comparison, tuple(results), drawn, views, notes)
    text = render_page(page)
    write_text(output, text)
    click.echo(
        f"written: {output} ({len(text.encode()) / 1e6:.1f} MB, "
        f"{counted(len(drawn), 'figure')}, {counted(len(views), 'frame')})"
    )
    if figures is not None:
        paths = save_figures(drawn, figures)
        click.echo(f"written: {len(paths)} figures in {figures}")
    for note in notes:
        click.echo(f"note: {note}", err=True)
    return 0


def _label(baseline: str | None, results: Sequence[EvaluationResult]) -> str | None:
    for result in results:
        if baseline is not None and result.path is not None and baseline in (str(result.path), result.path.stem):
            return result.label
    return baseline


def _sources(texts: Sequence[str], labels: Sequence[str]) -> dict[str, Path]:
    from adubench.errors import UsageError, unknown_name

    named = {}
    for text in texts:
        name, sign, path = text.partition("=")
        if not sign and len(labels) == 1:
            name, path = labels[0], text
        elif not (sign and path):
            raise UsageError(f"--source {text}: expected NAME=PATH, where NAME is a result.")
        if name not in labels:
            raise unknown_name("result", name, labels)
        if not Path(path).exists():
            raise UsageError(f"--source {text}: {path} does not exist.")
        named[name] = Path(path)
    return named


def _pictures(
    comparison: Any, results: Sequence[EvaluationResult], count: int, data_root: Path | None, sources: dict[str, Path]
) -> tuple[tuple[FrameView, ...], tuple[str, ...]]:
    if count == 0:
        return (), ("no pictures were asked for (--frames 0).",)
    from adubench.commands._pictures import FrameFinder
    from adubench.reports.html import chosen_frames, frame_facts
    from adubench.reports.pictures import FrameView, panels

    finder = FrameFinder.open(results, data_root, sources)
    metrics = [m for m in ("abs_rel", "rmse", "silog") if m in comparison.metrics]
    views = []
    for frame, why in chosen_frames(comparison, results, count):
        painted = panels(finder.maps(frame), comparison.labels)
        if painted:
            views.append(FrameView(frame, why, frame_facts(results, frame, metrics), painted))
    return tuple(views), tuple(finder.notes)
