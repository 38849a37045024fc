"""`adubench import-weights`: official weights in, a checkpoint of ours out; and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from adubench.training.checkpoint import CheckpointInfo

EPILOG = """
\b
Examples:
  adubench import-weights newcrfs model_kittieigen.ckpt -o newcrfs.safetensors
  adubench import-weights monodepth2 mono_640x192/ -o md2.safetensors
  adubench import-weights auto model.pth -o ours.safetensors --dataset nyu
  adubench import-weights newcrfs ours.safetensors --to-official -o official.ckpt
  adubench import-weights sub-depth runs/sub/student/checkpoint-last.safetensors --to-official -o weights_19/
"""


@click.command("import-weights", epilog=EPILOG)
@click.argument("family")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="The checkpoint to write (.safetensors); with --to-official the file, or the folder of families with several.",
)
@click.option("--max-depth", type=float, help="Metres at which the output saturates. Default: 80 (kitti), 10 (nyu).")
@click.option(
    "--dataset",
    type=click.Choice(["kitti", "nyu"]),
    default="kitti",
    show_default=True,
    help="What the network was trained on.",
)
@click.option("--to-official", is_flag=True, help="The other way: PATH is a checkpoint of ours.")
def command(family: str, path: Path, output: Path, max_depth: float | None, dataset: str, to_official: bool) -> int:
    """Turn official weights of FAMILY into a checkpoint that every command takes.

    FAMILY is newcrfs, monodepth2, hr-depth, hr-depth-lite, diffnet, sub-depth, adabins, bts, tie-kd, or auto. PATH is
    the official file, or its folder where a model is several files. Files are read without executing anything in them.
    Pose and uncertainty networks in a folder go to a second file, OUTPUT-pose.safetensors.
    """
    from adubench.commands._options import refuse_input_as_output
    from adubench.errors import UsageError

    refuse_input_as_output(output, path)
    if to_official:
        from adubench.training.weight_transfer import export_official

        for file in export_official(path, output, family=family):
            click.echo(f"written: {file}", err=True)
        return 0
    from adubench.training.checkpoint import is_checkpoint
    from adubench.training.weight_transfer import import_official

    if not is_checkpoint(output):
        raise UsageError(f"-o {output}: give it a name that ends in .safetensors; commands know checkpoints by it.")
    _say(import_official(family, path, output, max_depth=max_depth, dataset=dataset))
    click.echo(f"written: {output}", err=True)
    return 0


def _say(info: CheckpointInfo) -> None:
    """Print what was recognised."""
    from adubench.models.zoo import MODELS

    entry = MODELS.get(info.family)
    click.echo(f"recognised: {info.family}" + (f" ({entry.source})" if entry is not None else ""))
    for key, value in info.model.items():
        if key != "family":
            click.echo(f"  {key}: {value}")
    for note in info.source["notes"]:
        click.echo(f"note: {note}")
