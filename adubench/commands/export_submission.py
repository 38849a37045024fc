"""`adubench export-submission`: predictions in, the server's archive out."""

from __future__ import annotations

import click


@click.command(
    "export-submission",
    epilog="Example: adubench export-submission maps/ --images test_depth_prediction_anonymous/image -o kitti.zip",
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
) -> int:
    """Write the archive that KITTI's depth server takes, and a manifest beside it.

    SOURCE is a folder or zip of predictions (16-bit PNG or .npy, named like the images), an .npz or HDF5 file with an
    array per name, or one array (N, H, W) in the order of the images.
    """
    from adubench.commands._options import refuse_input_as_output
    from adubench.commands._submission import echo_report, resolve_kind, show_progress
    from adubench.submissions.export import export_submission

    refuse_input_as_output(output, source)
    report = export_submission(
        source,
        images=images,
        output=output,
        kind=resolve_kind(kind, rehearsal),
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
