"""`adubench export-submission`: predictions in, or a checkpoint and images; the server's archive out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from adubench.commands._live import predicts
from adubench.commands.predict import predictor_options

_EPILOG = """
\b
Example: adubench export-submission maps/ --images test_depth_prediction_anonymous/image -o kitti.zip
         adubench export-submission student.safetensors --images test_depth_prediction_anonymous/image -o kitti.zip
"""


@click.command(
    "export-submission",
    epilog=_EPILOG,
)
@click.argument("source", type=click.Path())
@click.option("--images", type=click.Path(), help="Folder of the test images: gives names and sizes.")
@click.option("-o", "--output", type=click.Path(), default="submission.zip", show_default=True, help="The archive.")
@click.option(
    "--kind",
    type=click.Choice(["prediction", "completion", "rehearsal", "mdec", "rvc"]),
    default=None,
    help="What the server expects: prediction 500 maps (default), completion 1000 (also val_selection), rehearsal any.",
)
@click.option("--rehearsal", is_flag=True, help="Same as --kind rehearsal: any number and size of maps.")
@click.option(
    "--on-invalid",
    type=click.Choice(["error", "min", "zero"]),
    default="error",
    show_default=True,
    help="NaN, inf, 0 and negatives: refuse, write 1/256 m, or write 0 (missing; the server fills it).",
)
@click.option(
    "--quantize",
    type=click.Choice(["round", "trunc"]),
    default="round",
    show_default=True,
    help="trunc gives the codes of the public exporters.",
)
@click.option("--png-scale", type=float, default=256.0, show_default=True, help="Metres = code / scale in PNG input.")
@click.option(
    "--input",
    "input_kind",
    type=click.Choice(["depth", "scaled-disparity", "sigmoid-disparity"]),
    default="depth",
    show_default=True,
    help="What the predictions are.",
)
@click.option("--disparity-scale", type=float, help="Depth = scale / disparity (Monodepth2 stereo: 5.4).")
@click.option("--checkpoint", type=click.Path(), help="Checkpoint whose hash goes into the manifest.")
@click.option("--trained-on", help="Split the model was trained on; anything but kitti_official.train is warned about.")
@click.option("--right", type=click.Path(), help="Folder of the right images, for a stereo checkpoint.")
@click.option("--uncertainty", is_flag=True, help="Keep the checkpoint's uncertainty maps (.npy) beside the archive.")
@click.option("--focal", type=float, help="Focal length in pixels, for BTS. Default: 715.0873.")
@predictor_options
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    source: str,
    images: str | None,
    output: str,
    kind: str | None,
    rehearsal: bool,
    on_invalid: str,
    quantize: str,
    png_scale: float,
    input_kind: str,
    disparity_scale: float | None,
    checkpoint: str | None,
    trained_on: str | None,
    as_json: bool,
    **how: Any,
) -> int:
    """Write the archive that KITTI's depth server takes, and a manifest beside it.

    SOURCE is a folder or zip of predictions (16-bit PNG or .npy, named like the images), an .npz or HDF5 file with an
    array per name, or one array (N, H, W) in the order of the images. Or a checkpoint (a Python file, hf:NAME), which
    predicts the whole images of --images first; the server takes no crops.
    """
    import contextlib

    from adubench.commands._options import refuse_input_as_output
    from adubench.commands._predicted import PredictedMaps, predicted_maps
    from adubench.commands._submission import echo_report, resolve_kind, show_progress
    from adubench.submissions.export import export_submission

    refuse_input_as_output(output, source)
    live = predicts(source)
    if not live:
        _refuse(how)
    kind = resolve_kind(kind, rehearsal)
    own: dict[str, Any] = {"kind": kind, "input_kind": input_kind, "disparity_scale": disparity_scale}
    made: PredictedMaps | None
    with predicted_maps(source, images, Path(output), how, **own) if live else contextlib.nullcontext() as made:
        if made is not None:
            checkpoint, trained_on = checkpoint or made.checkpoint, trained_on or made.trained_on
            disparity_scale = None  # the maps are metres already
        report = export_submission(
            source if made is None else made.folder,
            images=images,
            output=output,
            kind=kind,
            on_invalid=on_invalid,
            quantize=quantize,
            png_scale=png_scale,
            input_kind=input_kind,
            disparity_scale=disparity_scale,
            checkpoint=checkpoint,
            trained_on=trained_on,
            progress=show_progress(),
        )
    echo_report(report, as_json=as_json, verb="wrote")
    return 0


def _refuse(how: dict[str, Any]) -> None:
    """Refuse options about predicting where SOURCE holds predictions."""
    from adubench.errors import UsageError

    for name, unused in {"device": "auto", "amp": False, "uncertainty": False}.items():
        if how.pop(name) != unused:
            raise UsageError(f"--{name} belongs to a checkpoint; SOURCE holds predictions.")
    for name, value in how.items():
        if value is not None:
            raise UsageError(f"--{name.replace('_', '-')} belongs to a checkpoint; SOURCE holds predictions.")
