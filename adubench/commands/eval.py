"""`adubench eval`: parse, evaluate, print, store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adubench.commands._analysis import analysis_options, take_requests
from adubench.commands._live import drop_options, live_options, open_live, predicts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adubench.evaluators.result import EvaluationResult

EPILOG = """
\b
Examples:
  adubench eval predictions/ --split eigen --data-root KITTI -o result.json
  adubench eval disps.npy --split eigen --protocol kitti-eigen-raw --kind scaled-disparity
  adubench eval predictions.zip --split eigen --protocol all
  adubench eval my_maps/ --gt my_truth/ --protocol full-frame --max-depth 80
  adubench eval predictions/ --split eigen --data-root KITTI --regions -o result.json
  adubench eval student.safetensors --split eigen --data-root KITTI -o student.json
  accelerate launch -m adubench eval student.safetensors --split eigen --data-root KITTI -o student.json
"""


@click.command("eval", epilog=EPILOG)
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--split", help="Named split (adubench data list) or a list file. Its frames are expected, all of them.")
@click.option(
    "--gt", type=click.Path(path_type=Path), help="Ground truth paired by relative stem; with --split its root."
)
@click.option(
    "--protocol", "protocols", multiple=True, help="Protocol name, several times, or 'all'. Default: the split's."
)
@click.option("--data-root", type=click.Path(path_type=Path), help="Where the data set lies [env ADUBENCH_DATA_ROOT].")
@click.option(
    "--kind", default="depth", show_default=True, help="depth, scaled-disparity, sigmoid-disparity, pixel-disparity."
)
@click.option("--png-scale", default=256.0, show_default=True, help="Metres (or disparity) = PNG code / this.")
@click.option(
    "--alignment", help="none, median, fixed:X or lstsq. Another than the protocol's changes its printed name."
)
@click.option("--crop", help="garg, eigen or none. Another than the protocol's changes its printed name.")
@click.option("--cap", type=float, help="Upper limit of ground truth in metres; changes the printed name.")
@click.option("--min-depth", type=float, help="Lower limit of ground truth in metres; changes the printed name.")
@click.option("--max-depth", type=float, help="The same as --cap; for full-frame.")
@click.option("--allow-missing", is_flag=True, help="Score what there is and mark the result partial.")
@click.option("--allow-empty", is_flag=True, help="Images without valid pixels are no fault.")
@click.option("--compat", is_flag=True, help="Treat NaN as the protocol's reference implementation does.")
@click.option("--workers", default=1, show_default=True, help="Processes; 0 takes every core.")
@click.option("--cache", help="Folder for packed ground truth, or 'off'. Default: the user's cache folder.")
@click.option("--label", help="How tables call this result. Default: the name of SOURCE.")
@live_options
@analysis_options
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Write the result (JSON, moment table beside it)."
)
@click.option("--json", "as_json", is_flag=True, help="Print the JSON instead of the table.")
@click.option("--style", type=click.Choice(["paper", "leaderboard", "full"]), default="paper", show_default=True)
def command(
    source: Path,
    split: str | None,
    gt: Path | None,
    protocols: tuple[str, ...],
    data_root: Path | None,
    output: Path | None,
    as_json: bool,
    style: str,
    **rest: Any,
) -> int:
    """Score the predictions in SOURCE under a named protocol.

    SOURCE is a folder, zip, .npz, .npy or HDF5 file of depth maps (metres; 16-bit PNGs are divided by --png-scale), or
    of disparity with its --kind. Or it predicts while it is scored: a checkpoint (.safetensors), a Python file, hf:NAME
    (see adubench predict). The result names its protocol, version, split and counts. Exit status: 0 good, 1 a fault in
    the data (nothing is written, except for images without valid pixels), 2 usage.
    """
    import logging
    import os

    from adubench.commands._options import progress_bar, terminal
    from adubench.evaluators.evaluator import EvalOptions, evaluate
    from adubench.evaluators.result import save_results, table_path_of, to_json
    from adubench.reports.evaluation import banner, render_evaluation

    if output is not None:
        table_path_of(output)  # refuse before the work, not after it
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(logging.Formatter("warning: %(message)s"))
    subject: Any = source
    uncertainty = None
    if predicts(source):
        live = open_live(source, rest, split=split, protocols=protocols, kind=_given_kind(rest))
        subject, protocols, uncertainty = live.source, live.protocols, live.uncertainty_kind
        rest |= {"kind": live.kind, "alignment": live.alignment, "label": rest["label"] or live.label}
        if rest["uncertainty"] and live.kind.endswith("disparity"):
            rest["unc_space"] = rest["unc_space"] or "inv"  # it came with disparity
    else:
        drop_options(rest)
    options = EvalOptions(**take_requests(rest, predicted=uncertainty), **rest)
    with progress_bar("scoring") as progress:
        results = evaluate(
            subject,
            split=split,
            gt=gt,
            protocol=protocols or None,
            data_root=data_root,
            options=options,
            progress=progress,
        )
    if subject is not source and os.environ.get("RANK", "0") != "0":
        return _status(results, options.allow_empty)  # one process of a launch speaks for all
    if output is not None:
        save_results(results, output)
    if as_json:
        click.echo(to_json(results), nl=False)
        click.echo("\n".join(banner(r) for r in results), err=True)
    else:
        click.echo(render_evaluation(results, style=style, **terminal()), nl=False)
    _say_warnings(results)
    if output is not None:
        click.echo(f"written: {output}", err=True)
    return _status(results, options.allow_empty)


def _given_kind(arguments: dict[str, Any]) -> str | None:
    """Return `--kind` where the user gave one."""
    from click.core import ParameterSource

    given = click.get_current_context().get_parameter_source("kind")
    return None if given is ParameterSource.DEFAULT else str(arguments["kind"])


def _status(results: Sequence[EvaluationResult], allow_empty: bool) -> int:
    status = 0
    for result in results:
        empty = result.issues.get("empty_ground_truth", [])
        if empty and not allow_empty:
            status = 1
            images = f"{len(empty)} image{'s have' if len(empty) > 1 else ' has'}"
            click.echo(
                f"error: {images} no valid pixel under {result.protocol['name']}, first: "
                f"{', '.join(empty[:3])}. They are not averaged; --allow-empty accepts them.",
                err=True,
            )
    return status


def _say_warnings(results: Sequence[EvaluationResult]) -> None:
    seen = dict.fromkeys(w for r in results for w in r.warnings)
    for warning in seen:
        click.echo(f"warning: {warning}", err=True)
