"""A submission straight from a checkpoint: the images are predicted into a temporary folder first."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class PredictedMaps:
    """What was predicted.

    Attributes:
        folder: of the maps, named like the images.
        checkpoint: file whose hash belongs into the manifest, None for what is no file.
        trained_on: split the network was trained on, where its checkpoint says so.
    """

    folder: Path
    checkpoint: str | None
    trained_on: str | None


@contextlib.contextmanager
def predicted_maps(
    source: str,
    images: str | None,
    output: Path,
    how: dict[str, Any],
    *,
    kind: str,
    input_kind: str = "depth",
    disparity_scale: float | None = None,
) -> Iterator[PredictedMaps]:
    """Predict the test images, whole, and hand out the maps while the block runs.

    Args:
        source: what predicts.
        images: folder of the test images.
        output: the archive; uncertainty maps go to `<its stem>_uncertainty` beside it.
        how: `right`, `uncertainty`, and the fields of `PredictOptions`.
        kind: what the server expects; a wrong set of images is refused before any is predicted.
        input_kind: named by the user; "depth" for none.
        disparity_scale: depth = scale / disparity, for networks that predict scaled disparity.

    Raises:
        UsageError: no images, or a network whose maps have no scale.
        DataError: an image cannot be predicted.
    """
    from adubench.commands._options import progress_bar
    from adubench.errors import DataError, UsageError
    from adubench.submissions.kitti import get_target
    from adubench.submissions.planning import image_names
    from adubench.training.prediction_inputs import list_images
    from adubench.training.prediction_run import OutputOptions, predict_images
    from adubench.training.predictor import PredictOptions, open_predictor

    if images is None:
        raise UsageError(f"{source} predicts: give the test images with --images DIR.")
    if input_kind != "depth":
        raise UsageError(f"--input {input_kind}: {source} says itself what it predicts; leave --input out.")
    image_names(Path(images), get_target(kind))
    right, uncertainty = how.pop("right"), how.pop("uncertainty")
    predictor = open_predictor(source, PredictOptions(**how))
    if predictor.kind.startswith("relative"):
        raise UsageError(f"{source}: predicts {predictor.kind}; the server wants metres.")
    if predictor.kind != "depth":
        if disparity_scale is None and predictor.depth_scale == 1.0:
            raise UsageError(
                f"{source}: predicts {predictor.kind} without a scale; give --disparity-scale (Monodepth2 stereo: 5.4)."
            )
        predictor.depth_scale = disparity_scale or predictor.depth_scale
    jobs = list_images([images], right=right)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.stem}.", dir=output.parent) as temporary:
        root = Path(temporary) / "maps"
        options = OutputOptions(root=root, uncertainty=uncertainty)
        with progress_bar("predicting") as progress:
            report = predict_images(predictor, jobs, options, progress=progress)
        if report.failed:
            raise DataError(f"{len(report.failed)} of {len(jobs)} images could not be predicted: {report.failed[0]}")
        if uncertainty:
            _keep(options.uncertainty_root, output, str(predictor.uncertainty_kind))
        yield PredictedMaps(root, source if Path(source).is_file() else None, predictor.trained_on)


def _keep(maps: Path, output: Path, kind: str) -> None:
    """Move the uncertainty maps beside the archive, replacing those of an earlier export."""
    import shutil

    target = output.with_name(f"{output.stem}_uncertainty")
    if target.exists():
        shutil.rmtree(target)
    shutil.move(maps, target)
    click.echo(f"uncertainty ({kind}): {target}", err=True)
