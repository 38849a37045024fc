"""`adubench compare`: parse, compare, print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adubench.evaluators.comparison import Comparison
    from adubench.evaluators.result import EvaluationResult

FORMATS = ("rich", "markdown", "latex", "csv", "json")
EPILOG = """
\b
Examples:
  adubench compare ours.json baseline.json --baseline baseline
  adubench compare a.json b.json c.json --metric abs_rel --metric rmse --format markdown
  adubench compare ours.json --published --style leaderboard
  adubench compare --published --protocol kitti-eigen --format latex -o table.tex
  adubench compare --method ours=s0.json,s1.json,s2.json --method base=b0.json,b1.json,b2.json --published
"""


@click.command("compare", epilog=EPILOG)
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="RESULT.json...")
@click.option("--baseline", help="Name (or file) of the result that others are compared with. Default: the first.")
@click.option("--metric", "metrics", multiple=True, help="Metric key, several times. Default: the protocol's metrics.")
@click.option("--region", "regions", multiple=True, help="Region name, several times. Default: all that are shared.")
@click.option(
    "--protocol", help="Which protocol's results to take from files with several, or to list with --published."
)
@click.option("--published", is_flag=True, help="Add published results of the same protocol and split.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="rich", show_default=True)
@click.option("--style", type=click.Choice(["paper", "leaderboard", "full"]), default="paper", show_default=True)
@click.option(
    "--cluster", default="auto", show_default=True, help="auto, drive, image, block:N, or a CSV with frame,cluster."
)
@click.option("--resamples", default=10_000, show_default=True, help="Bootstrap resamples.")
@click.option("--confidence", default=0.95, show_default=True, help="Of all intervals.")
@click.option(
    "--interval",
    default="auto",
    show_default=True,
    help="auto, percentile, basic, bca or inversion (of the swap test).",
)
@click.option("--boot", type=click.Choice(["counts", "bayes"]), default="counts", show_default=True)
@click.option("--adjust", type=click.Choice(["holm", "bh"]), default="holm", show_default=True)
@click.option("--primary", default="abs_rel@all", show_default=True, help="The metric@region reported unadjusted.")
@click.option("--seed", default=0, show_default=True, help="Of the random numbers; same seed, same bytes.")
@click.option(
    "--test",
    type=click.Choice(["swap", "wilcoxon", "t"]),
    default="swap",
    show_default=True,
    help="Where p-values come from: exchanging models within drives, or a test on drive means.",
)
@click.option("--equiv", type=float, metavar="MARGIN", help="Also test equivalence: 90 % interval within ±MARGIN.")
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="NAME=FILE,FILE,...",
    help="Compare methods by several runs each (seeds); twice or more, instead of files.",
)
@click.option("--paired-seeds", is_flag=True, help="Run i of every method has the same seed and data order.")
@click.option("--force", is_flag=True, help="Compare results of different protocols all the same, and say so.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write to a file instead of stdout.")
def command(
    files: tuple[Path, ...],
    form: str,
    style: str,
    published: bool,
    protocol: str | None,
    output: Path | None,
    methods: tuple[str, ...],
    paired_seeds: bool,
    **rest: Any,
) -> int:
    """Compare results of `adubench eval` on their common images, with statistics clustered by drive.

    A checkpoint stands for the result that is stored beside it (adubench eval CKPT -o CKPT.json). Differences are
    a - b with b the baseline. Exit status: 0 good, 1 the results cannot be compared, 2 usage.
    """
    if methods:
        return _by_method(methods, files, paired_seeds, protocol, rest, (form, style, output), published=published)
    if paired_seeds:
        from adubench.errors import UsageError

        raise UsageError("--paired-seeds: goes with --method NAME=FILE,FILE,...")
    if not files:
        return _published_only(published, protocol, form, style, output)
    from adubench.commands._options import refuse_input_as_output
    from adubench.evaluators.comparison import compare

    refuse_input_as_output(output, *files)
    results = load_named(files, protocol)
    comparison = compare(results, **_arguments(rest, results, style))
    for warning in comparison.warnings if form in ("csv", "json") else ():  # the others print them below the table
        click.echo(f"warning: {warning}", err=True)
    _emit(_render(comparison, form, style, published, output), output)
    return 0


def _by_method(
    methods: Sequence[str],
    files: Sequence[Path],
    paired: bool,
    protocol: str | None,
    rest: dict[str, Any],
    out: tuple[str, str, Path | None],
    *,
    published: bool,
) -> int:
    """Compare methods by their runs."""
    from adubench.commands._options import refuse_input_as_output, render_tables
    from adubench.errors import UsageError
    from adubench.evaluators.comparison_model import Options
    from adubench.evaluators.methods import compare_methods
    from adubench.reports.methods import methods_tables
    from adubench.reports.published import add_published

    form, style, output = out
    if files or rest["force"] or rest["equiv"] is not None or rest["test"] != "swap":
        raise UsageError("--method: goes without result files, --force, --equiv and --test.")
    named = _methods(methods)
    paths = [path for runs in named.values() for path in runs]
    refuse_input_as_output(output, *paths)
    loaded = iter(load_named(paths, protocol))
    runs = {name: [next(loaded) for _ in given] for name, given in named.items()}
    options = Options(
        cluster=rest["cluster"], resamples=rest["resamples"], confidence=rest["confidence"], seed=rest["seed"],
        bayes=rest["boot"] == "bayes",
    )  # fmt: skip
    comparison = compare_methods(
        runs, baseline=rest["baseline"], metrics=rest["metrics"] or None, regions=rest["regions"] or None,
        options=options, paired=paired,
    )  # fmt: skip
    if form == "json":
        extra = _published_json(comparison.protocol, comparison.split) if published else {}
        _emit(_json(comparison.to_dict() | extra), output)
        return 0
    values, differences = methods_tables(comparison, style)
    first, *others = add_published(values, comparison, style) if published else [values]
    _emit(render_tables([first, differences, *others], form, output), output)
    return 0


def _published_json(protocol: dict[str, Any], split: str | None) -> dict[str, Any]:
    from adubench.reports.published import published_json, select

    return published_json(select(str(protocol["name"]), split) if split else [])


def _methods(methods: Sequence[str]) -> dict[str, list[Path]]:
    from adubench.errors import UsageError

    named: dict[str, list[Path]] = {}
    for text in methods:
        name, sign, listed = text.partition("=")
        runs = [Path(part) for part in listed.split(",") if part]
        if not (name and sign and runs):
            raise UsageError(f"--method {text}: expected NAME=FILE,FILE,... with the results of that method's runs.")
        if name in named:
            raise UsageError(f"--method {name}: given twice; put all its files into one list.")
        named[name] = runs
    return named


def _published_only(published: bool, protocol: str | None, form: str, style: str, output: Path | None) -> int:
    from adubench.errors import UsageError

    if not (published and protocol):
        raise UsageError(
            "nothing to compare: give results of adubench eval, or --published --protocol NAME to list published ones."
        )
    from adubench.commands._options import render_tables
    from adubench.reports.published import published_json, published_tables, select_protocol

    rows = select_protocol(protocol)
    if form == "json":
        _emit(
            _json({"protocol": {"name": protocol}, "baseline": None, "comparisons": []} | published_json(rows)), output
        )
    else:
        _emit(render_tables(published_tables(rows, f"Published results, {protocol}", style), form, output), output)
    return 0


def load_named(files: Sequence[Path], protocol: str | None) -> list[EvaluationResult]:
    """Load the files, take one result of each, and give every result a name of its own."""
    from adubench.commands._stored import stored_result
    from adubench.errors import ResultError, UsageError
    from adubench.evaluators.result import load_results

    files = [stored_result(file, protocol) for file in files]
    places = [file.resolve() for file in files]
    for i, place in enumerate(places):
        if place in places[:i]:
            raise UsageError(f"{files[i]}: given twice; a result compared with itself says nothing.")
    results = []
    for file in files:
        found = load_results(file)
        if protocol is not None:
            names = [r.protocol["name"] for r in found]
            found = [r for r in found if r.protocol["name"] == protocol]
            if not found:
                raise ResultError(f"{file}: no result under protocol '{protocol}', only {', '.join(names)}.")
        if len(found) > 1:
            names = [r.protocol["name"] for r in found]
            raise UsageError(f"{file}: holds results under {', '.join(names)}; choose one with --protocol.")
        results.append(found[0])
    _name(results, files)
    return results


def _name(results: Sequence[EvaluationResult], files: Sequence[Path]) -> None:
    """Call results by their labels; where labels repeat, by file names; where these repeat, by paths."""
    for names in (
        [r.label or file.stem for r, file in zip(results, files, strict=True)],
        [file.stem for file in files],
        [f"{file.resolve().parent.name}/{file.stem}" for file in files],
        [str(file) for file in files],
    ):
        if len(set(names)) == len(names):
            break
    for result, name in zip(results, names, strict=True):
        result.label = name


def _arguments(options: dict[str, Any], results: Sequence[EvaluationResult], style: str) -> dict[str, Any]:
    """Turn command-line options into arguments of `compare`."""
    from adubench.reports.tables import LEADERBOARD

    arguments = dict(options)
    arguments["bayes"] = arguments.pop("boot") == "bayes"
    metrics, regions = arguments["metrics"], arguments["regions"]
    if style == "leaderboard" and not metrics:
        metrics = LEADERBOARD
    arguments["metrics"], arguments["regions"] = metrics or None, regions or None
    baseline = arguments["baseline"]
    for result in results:
        if (
            baseline is not None
            and result.path is not None
            and baseline in (str(result.path), result.path.name, result.path.stem)
        ):
            arguments["baseline"] = result.label
    if baseline in [r.label for r in results]:
        arguments["baseline"] = baseline
    return arguments


def _render(comparison: Comparison, form: str, style: str, published: bool, output: Path | None) -> str:
    from adubench.commands._options import render_tables
    from adubench.reports.published import add_published
    from adubench.reports.tables import differences_table, results_table

    if form == "json":
        beside = published and not comparison.mixed
        extra = _published_json(comparison.protocol, comparison.split) if beside else {}
        return _json(comparison.to_dict() | extra)
    tables = [results_table(comparison, style)]
    if published:
        tables = add_published(tables[0], comparison, style)
    details = differences_table(comparison, style)
    if details is not None:
        tables.insert(1, details)
    return render_tables(tables, form, output)


def _json(data: dict[str, Any]) -> str:
    import json

    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _emit(text: str, output: Path | None) -> None:
    if output is None:
        click.echo(text, nl=False)
        return
    from adubench.io.atomic import write_text

    write_text(output, text)
    click.echo(f"written: {output}", err=True)
