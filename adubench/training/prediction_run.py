"""Predict a list of images and write what comes out; one image's fault does not cost the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adubench import __version__
from adubench.errors import AdubenchError, DataError, UsageError
from adubench.training.prediction_files import FolderWriter, open_writer, write_record, written_path
from adubench.training.prediction_inputs import ImageJob, Loaded, load_batches, with_neighbours
from adubench.training.predictor import Prediction, carries_uncertainty, depth_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from adubench.training.prediction_files import Writer
    from adubench.training.predictor import Predictor

UNCERTAINTY_SUFFIX = "_uncertainty"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """What is written.

    Attributes:
        root: folder of the maps.
        form: `npy`, `png` (metres x 256, 16 bit), `npz` or `hdf5`.
        output: "depth" in metres at the size of the image, or "disparity": scaled disparity at the network's own size.
        color: write a colour picture (`.jpg`) beside each map.
        uncertainty: write uncertainty maps to the folder `<root>_uncertainty`.
        skip_existing: leave maps that are there.
    """

    root: Path
    form: str = "npy"
    output: str = "depth"
    color: bool = False
    uncertainty: bool = False
    skip_existing: bool = False

    @property
    def uncertainty_root(self) -> Path:
        """Folder of the uncertainty maps."""
        return self.root.with_name(self.root.name + UNCERTAINTY_SUFFIX)


@dataclass(slots=True)
class PredictionReport:
    """What happened.

    Attributes:
        written: names of the maps.
        skipped: names that were there.
        failed: sentences, one per image without a map.
    """

    written: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def predict_images(
    predictor: Predictor,
    jobs: Sequence[ImageJob],
    options: OutputOptions,
    *,
    progress: Callable[[int, int], None] | None = None,
    writer: AbstractContextManager[Writer] | None = None,
) -> PredictionReport:
    """Predict and write.

    Args:
        predictor: what predicts.
        jobs: the images.
        options: what is written.
        progress: called with maps done and maps wanted.
        writer: takes the maps in place of `options.form`.

    Raises:
        UsageError: the predictor does not make what is to be written, or an image would be replaced.
        DataError: nothing could be predicted at all, or the output cannot be written.
    """
    _check(predictor, jobs, options)
    report = PredictionReport()
    jobs = with_neighbours(_without_existing(jobs, options, report), predictor)
    with writer or open_writer(options.root, options.form) as maps:
        beside = FolderWriter(options.uncertainty_root, "npy") if options.uncertainty else None
        for batch in load_batches(jobs, predictor.batch_size):
            for loaded, prediction in predict_batch(predictor, batch, report):
                result = _output(prediction, loaded, options, _window(predictor))
                if not np.isfinite(result.values).any():
                    report.failed.append(
                        f"{loaded.job.image}: the prediction holds no finite value; nothing is written."
                    )
                    continue
                maps.write(loaded.job.name, result.values)
                uncertainty = (result if options.output == "depth" else prediction).uncertainty
                if beside is not None and uncertainty is not None:
                    beside.write(loaded.job.name, uncertainty)
                if options.color:
                    _picture(options, loaded.job.name, result)
                report.written.append(loaded.job.name)
            if progress is not None:
                progress(len(report.written) + len(report.failed), len(jobs))
        if jobs and not report.written:
            raise DataError(f"nothing was predicted: {report.failed[0]}")
    write_record(options.root, _record(predictor, options, report))
    return report


def _check(predictor: Predictor, jobs: Sequence[ImageJob], options: OutputOptions) -> None:
    if options.output == "disparity" and predictor.kind in ("depth", "relative-depth"):
        raise UsageError(f"--output disparity: {predictor.label} predicts depth; leave --output out.")
    if options.output == "disparity" and options.form == "png":
        raise UsageError("--output disparity: a 16-bit PNG holds metres; use --format npy, npz or hdf5.")
    if options.form == "png" and predictor.kind != "depth" and predictor.depth_scale == 1.0:
        raise UsageError(
            f"--format png holds metres, and {predictor.label} predicts {predictor.kind}, which has no scale; use npy."
        )
    if options.uncertainty and predictor.uncertainty_kind is None:
        raise UsageError(f"--uncertainty: {predictor.label} predicts no uncertainty.")
    carried = carries_uncertainty(predictor.kind, predictor.uncertainty_kind)
    if options.uncertainty and options.output == "depth" and not carried:
        raise UsageError(
            "--uncertainty: the map belongs to the disparity that the network predicts; add --output disparity."
        )
    if options.skip_existing and options.form in ("npz", "hdf5"):
        raise UsageError(f"--skip-existing: {options.form} is one file, written as a whole; use npy or png.")
    if predictor.stereo and any(job.right is None for job in jobs):
        raise UsageError(f"{predictor.label}: is a stereo network and needs the right image too; give it with --right.")
    sources = {job.image.resolve() for job in jobs} | {job.right.resolve() for job in jobs if job.right is not None}
    for job in jobs:
        for target in (written_path(options.root, options.form, job.name), _picture_path(options.root, job.name)):
            if target.resolve() in sources:
                raise UsageError(f"{target}: is an image to be predicted and would be replaced; choose another -o.")


def _without_existing(jobs: Sequence[ImageJob], options: OutputOptions, report: PredictionReport) -> Sequence[ImageJob]:
    if not options.skip_existing:
        return jobs
    left = []
    for job in jobs:
        if written_path(options.root, options.form, job.name).is_file():
            report.skipped.append(job.name)
        else:
            left.append(job)
    return left


def predict_batch(
    predictor: Predictor, batch: Sequence[Loaded], report: PredictionReport
) -> list[tuple[Loaded, Prediction]]:
    """Predict what could be read; where a batch fails for its data, image by image."""
    report.failed += [loaded.error for loaded in batch if loaded.error]
    good = [loaded for loaded in batch if not loaded.error]
    if not good:
        return []
    try:
        return list(zip(good, predict_loaded(predictor, good), strict=True))
    except UsageError:
        raise
    except AdubenchError as error:
        if len(good) == 1:
            report.failed.append(f"{good[0].job.image}: {error}")
            return []
    return [pair for loaded in good for pair in predict_batch(predictor, [loaded], report)]


def predict_loaded(predictor: Predictor, batch: Sequence[Loaded]) -> list[Prediction]:
    """Predict images that are in memory."""
    images = [loaded.image for loaded in batch if loaded.image is not None]
    rights = [loaded.right for loaded in batch if loaded.right is not None]
    return predictor.predict(images, rights if predictor.stereo else None, [loaded.job.focal for loaded in batch])


def _window(predictor: Predictor) -> bool:
    return bool(predictor.describe().get("kb_crop"))


def _output(prediction: Prediction, loaded: Loaded, options: OutputOptions, window: bool) -> Prediction:
    """Turn what the network says into what is to be written."""
    if options.output == "disparity":
        if prediction.kind != "sigmoid-disparity":
            return prediction
        from adubench.io.disparity import scaled_from_sigmoid

        return Prediction(scaled_from_sigmoid(prediction.values), "scaled-disparity")
    assert loaded.image is not None
    from adubench.evaluators.crops import KB_WINDOW

    height, width = loaded.image.shape[:2]
    return depth_of(prediction, KB_WINDOW if window else (int(height), int(width)))


def _picture_path(root: Path, name: str) -> Path:
    return root / f"{name}.jpg"


def _picture(options: OutputOptions, name: str, result: Prediction) -> None:
    from adubench.io.color_map import write_color_jpeg

    write_color_jpeg(_picture_path(options.root, name), result.values, invert=options.output == "depth")


def _record(predictor: Predictor, options: OutputOptions, report: PredictionReport) -> dict[str, Any]:
    kind = "depth" if options.output == "depth" and predictor.kind != "relative-depth" else predictor.kind
    return {
        "adubench": __version__,
        **predictor.describe(),
        "kind": kind,
        "network_kind": predictor.kind,
        "format": options.form,
        "uncertainty_kind": predictor.uncertainty_kind if options.uncertainty else None,
        "maps": len(report.written) + len(report.skipped),
        "failed": report.failed,
    }
