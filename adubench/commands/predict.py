"""`adubench predict`: images in, depth maps out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from adubench.errors import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from adubench.training.prediction_inputs import ImageJob
    from adubench.training.prediction_run import PredictionReport
    from adubench.training.predictor import PredictOptions, Predictor

_PATH = click.Path(path_type=Path)
EPILOG = """
\b
Examples:
  adubench predict student.safetensors street.png -o out
  adubench predict student.safetensors 'drive/**/*.png' -o out --format png --color
  adubench predict teacher.safetensors left.png --right right.png -o out
  adubench predict student.safetensors --split eigen --data-root KITTI --kb-crop -o out
  adubench predict md2.safetensors street.png -o out --output disparity --no-flip
  adubench predict my_model.py images/ -o out
  adubench predict adabins.safetensors --split eigen_train --data-root KITTI --layout tie-kd -o gt_kd_adabins
"""


def _size(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[int, int] | None:
    """Read HEIGHTxWIDTH."""
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise click.BadParameter(f"'{text}' is no HEIGHTxWIDTH in pixels, e.g. 352x1216.")
    return int(height), int(width)


_PREDICTOR_OPTIONS = (
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps."),
    click.option("--batch-size", type=int, help="Images at a time. Default: 8 on a GPU, 1 on the CPU."),
    click.option(
        "--network-size",
        metavar="HxW",
        callback=_size,
        help="Resize images to this for the network, and its depth back; AdaBins and BTS take some sizes only.",
    ),
    click.option("--amp", is_flag=True, help="bfloat16 for the body of the network; CUDA only."),
    click.option(
        "--flip/--no-flip",
        default=None,
        help="Average with the mirrored image. Default: as the network's reference does (NeWCRFs blend, AdaBins and "
        "TIE-KD mean, BTS, Monodepth2 and stereo networks off).",
    ),
)


def predictor_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how to predict."""
    for option in reversed(_PREDICTOR_OPTIONS):
        command = option(command)
    return command


@click.command("predict", epilog=EPILOG)
@click.argument("source")
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@click.option("-o", "--out", "root", type=_PATH, required=True, help="Folder of the maps.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["npy", "png", "npz", "hdf5"]),
    default="npy",
    show_default=True,
    help="npy: float32 metres; png: 16 bit, metres x 256; npz, hdf5: one file with an array per name.",
)
@click.option("--color", is_flag=True, help="Write a colour picture (.jpg) beside each map.")
@click.option("--right", type=_PATH, help="Right image, or folder of right images named like the left ones.")
@click.option(
    "--kb-crop", is_flag=True, help="Predict the 352x1216 window of KITTI's benchmark; the map is the window."
)
@click.option(
    "--output",
    "output",
    type=click.Choice(["depth", "disparity"]),
    default="depth",
    show_default=True,
    help="disparity: scaled disparity of self-supervised networks, at the size the network works at.",
)
@click.option("--focal", type=float, help="Focal length in pixels, for BTS. Default: 715.0873.")
@click.option(
    "--layout",
    type=click.Choice(["flat", "kitti", "tie-kd"]),
    help="Names of the maps: flat as the images are called, kitti by drive, camera and frame, tie-kd as teacher maps.",
)
@click.option(
    "--max-depth",
    type=float,
    help="Metres of the largest code of --layout tie-kd. Default: the network's range, or 80.",
)
@click.option("--split", help="Predict the images of a split (or list file) instead of INPUT.")
@click.option("--data-root", type=_PATH, envvar="ADUBENCH_DATA_ROOT", help="Where the split's data set lies.")
@click.option("--uncertainty", is_flag=True, help="Write uncertainty maps too, to the folder OUT_uncertainty.")
@click.option("--skip-existing", is_flag=True, help="Leave maps that are there: continue an interrupted run.")
@click.option("--kind", help="What a Python file or hf: model predicts, where it does not say so itself.")
@predictor_options
def command(
    source: str,
    inputs: tuple[str, ...],
    root: Path,
    form: str,
    color: bool,
    right: Path | None,
    layout: str | None,
    max_depth: float | None,
    split: str | None,
    data_root: Path | None,
    uncertainty: bool,
    skip_existing: bool,
    output: str,
    **how: Any,
) -> int:
    """Predict depth for images and write one map per image.

    SOURCE is a checkpoint of ours (.safetensors), a Python file with load() and predict(image), or hf:NAME. INPUT are
    images, folders or patterns. The map of `image.png` is `OUT/image.npy`: float32 metres at the image's size; below
    a folder the relative path is kept. An unreadable image is named, the others are written. Exit status: 0 good, 1 an
    image could not be predicted, 2 usage.
    """
    from adubench.commands._options import progress_bar
    from adubench.errors import UsageError
    from adubench.training.prediction_run import OutputOptions, predict_images
    from adubench.training.predictor import PredictOptions, check_use, open_predictor

    if layout == "tie-kd" and (color or uncertainty or output != "depth"):
        raise UsageError("--layout tie-kd: writes depth maps alone; leave --color, --uncertainty and --output out.")
    if max_depth is not None and (layout != "tie-kd" or not 0 < max_depth < float("inf")):
        raise UsageError(f"--max-depth {max_depth:g}: a number of metres above 0, with --layout tie-kd alone.")
    options = PredictOptions(**how)
    jobs = _jobs(inputs, right, split, data_root, layout, stereo=None)
    if layout == "tie-kd":
        options = replace(options, clamp=True, kb_crop=options.kb_crop or _window_of(jobs))
    predictor = open_predictor(source, options)
    for note in check_use(predictor, right=right, focal=options.focal):
        click.echo(f"note: {note}", err=True)
    if layout == "tie-kd" and options.flip is None and not predictor.stereo and predictor.describe()["flip"] == "off":
        # TIE-KD averages every teacher, also those whose own reference does not (BTS).
        predictor = open_predictor(source, replace(options, flip=True))
    if split is not None and predictor.stereo:
        jobs = _jobs(inputs, right, split, data_root, layout, stereo=True)
    _say_focal(predictor, options, jobs)
    if layout == "tie-kd":
        given = click.get_current_context().get_parameter_source("form")
        form = "png" if given is ParameterSource.DEFAULT else form
        return _teacher_maps(predictor, jobs, root, form, split=split, max_depth=max_depth, skip_existing=skip_existing)
    wanted = OutputOptions(
        root=root, form=form, output=output, color=color, uncertainty=uncertainty, skip_existing=skip_existing
    )
    with progress_bar("predicting") as progress:
        report = predict_images(predictor, jobs, wanted, progress=progress)
    return _say(report, wanted.root, predictor, output, uncertainty and str(wanted.uncertainty_root))


def _window_of(jobs: list[ImageJob]) -> bool:
    from adubench.training.teacher_map_run import wants_window

    if not wants_window(jobs):
        return False
    click.echo("note: --layout tie-kd: predicting KITTI's 352x1216 window, as with --kb-crop.", err=True)
    return True


def _teacher_maps(predictor: Predictor, jobs: list[ImageJob], root: Path, form: str, **how: Any) -> int:
    from adubench.commands._options import progress_bar
    from adubench.training.teacher_map_run import predict_teacher_maps

    with progress_bar("predicting") as progress:
        report = predict_teacher_maps(predictor, jobs, root, form, progress=progress, **how)
    return _say(report, root, predictor, "depth", False)


def _jobs(
    inputs: tuple[str, ...],
    right: Path | None,
    split: str | None,
    data_root: Path | None,
    layout: str | None,
    stereo: bool | None,
) -> list[ImageJob]:
    from adubench.errors import UsageError
    from adubench.training.prediction_inputs import by_layout, list_images, list_split

    if bool(inputs) == (split is not None):
        raise UsageError("say what to predict: images, folders or patterns after SOURCE, or --split NAME (not both).")
    if split is not None:
        if right is not None:
            raise UsageError("--right belongs to images that are named; with --split the data set has the right ones.")
        return list_split(split, data_root, stereo=bool(stereo), layout="flat" if layout == "flat" else "kitti")
    return by_layout(list_images(inputs, right=right), layout or "flat")


def _say_focal(predictor: Predictor, options: PredictOptions, jobs: list[ImageJob]) -> None:
    from adubench.training.predictor import DEFAULT_FOCAL, needs_focal

    if needs_focal(predictor) and options.focal is None and any(job.focal is None for job in jobs):
        click.echo(
            f"note: no focal length given; using {DEFAULT_FOCAL:g} pixels. Give the camera's own with --focal.",
            err=True,
        )


def _say(report: PredictionReport, root: Path, predictor: Predictor, output: str, uncertainty: str | bool) -> int:
    for sentence in report.failed:
        click.echo(f"error: {sentence}", err=True)
    metric = predictor.kind == "depth" or predictor.depth_scale != 1.0
    unit = "scaled disparity" if output == "disparity" else "metres" if metric else "no scale"
    skipped = f", {len(report.skipped)} were there" if report.skipped else ""
    click.echo(f"written: {counted(len(report.written), 'map')} in {root} ({unit}){skipped}", err=True)
    if output == "depth" and not metric:
        click.echo(
            "note: depth up to one factor; score it with --alignment median, or write disparity (--output disparity).",
            err=True,
        )
    if uncertainty:
        click.echo(
            f"uncertainty: {uncertainty}; score it with --uncertainty --uncertainty-maps {uncertainty} "
            f"--uncertainty-kind {predictor.uncertainty_kind}.",
            err=True,
        )
    if report.failed:
        click.echo(f"error: {counted(len(report.failed), 'image')} could not be predicted.", err=True)
        return 1
    return 0
