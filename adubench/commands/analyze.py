"""`adubench analyze`: what checkpoints hold besides their depth."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

EPILOG = """
\b
Example:
  adubench analyze features run/student/checkpoint-last.safetensors run/teacher/checkpoint-last.safetensors \\
      --split eigen --data-root KITTI
"""
_PATH = click.Path(path_type=Path)


@click.group("analyze", epilog=EPILOG)
def command() -> None:
    """Look inside checkpoints."""


@command.command("features", epilog=EPILOG)
@click.argument("student", type=_PATH)
@click.argument("teacher", type=_PATH)
@click.option("--adapters", type=_PATH, help="Weights of the adapters. Default: adapters-last.safetensors by STUDENT.")
@click.option("--split", required=True, help="Whose images; not those of the training.")
@click.option("--data-root", type=_PATH, help="Where the data set lies [env ADUBENCH_DATA_ROOT].")
@click.option("--images", default=300, show_default=True, help="At most so many, evenly spread.")
@click.option("--tokens", default=20_000, show_default=True, help="Places per level, over all images.")
@click.option("--levels", help="Some of e4,e8,e16,e32,d4,d8,d16,d32 (encoder and decoder by stride).")
@click.option(
    "--sampling",
    type=click.Choice(["halves", "paired"]),
    default="halves",
    show_default=True,
    help="Teacher and student from disjoint halves of the images, or at the same places.",
)
@click.option(
    "--standardise", type=click.Choice(["teacher", "none"]), default="teacher", show_default=True, help="Channels by."
)
@click.option("--mmd-rows", default=2048, show_default=True, help="Tokens per side of the MMD.")
@click.option("--perm", "permutations", default=1000, show_default=True, help="Relabellings of the MMD's test.")
@click.option("--seed", default=0, show_default=True, help="Of places, rows and relabellings.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N.")
@click.option("--format", "form", type=click.Choice(["rich", "markdown", "latex", "csv", "json"]), default="rich")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("-o", "--output", type=_PATH, help="Write to a file instead of stdout.")
def features_command(
    student: Path,
    teacher: Path,
    levels: str | None,
    data_root: Path | None,
    sampling: str,
    standardise: str,
    mmd_rows: int,
    permutations: int,
    seed: int,
    form: str,
    as_json: bool,
    output: Path | None,
    **rest: Any,
) -> None:
    """Measure how far a student's features are from its teacher's, before and after adaptation.

    Frechet distance with its noise floor, MMD with a test, CKA and mean squared error, level by level, on held-out
    images. Needs the extra `train`.
    """
    from adubench.commands._options import refuse_input_as_output
    from adubench.errors import UsageError
    from adubench.evaluators.feature_report import GapOptions

    refuse_input_as_output(output, student, teacher)
    options = GapOptions(
        sampling=sampling, standardise=standardise, mmd_rows=mmd_rows, permutations=permutations, seed=seed
    )
    try:
        from adubench.training.feature_analysis import LEVELS, FeatureRequest, analyse_features
    except ImportError:
        raise UsageError("analyze features needs torch: pip install 'adubench[train]'.") from None
    wanted = tuple(word.strip() for word in levels.split(",") if word.strip()) if levels is not None else LEVELS
    root = data_root or (Path(value) if (value := os.environ.get("ADUBENCH_DATA_ROOT")) else None)
    request = FeatureRequest(student=student, teacher=teacher, data_root=root, levels=wanted, options=options, **rest)
    text = _render(analyse_features(request), "json" if as_json else form, output)
    if output is None:
        click.echo(text, nl=False)
        return
    from adubench.io.atomic import write_text

    write_text(output, text)
    click.echo(f"written: {output}", err=True)


def _render(found: dict[str, Any], form: str, output: Path | None) -> str:
    import json

    from adubench.commands._options import render_tables
    from adubench.reports.features import feature_tables

    if form == "json":
        return json.dumps(_finite(found), indent=1, allow_nan=False) + "\n"
    tables = feature_tables(found)
    return render_tables(tables, form, output)


def _finite(value: Any) -> Any:
    """Replace numbers that do not exist by null."""
    import math

    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
