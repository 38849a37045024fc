"""A teacher's depth maps written for TIE-KD: its names, its 16-bit code, and a record of what made them.

One folder holds the maps of one teacher for one list of frames. The record carries another name until every map is
there, so an interrupted run can be continued, but not by another teacher, and training refuses what is not finished.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from adubench.datasets.frames import parse_kitti
from adubench.datasets.teacher_maps import (
    PACKED_FILE,
    PackedWriter,
    TeacherRecord,
    frames_sha256,
    pack_teacher_maps,
    read_record,
    read_unfinished,
    same_maker,
    teacher_map_name,
    write_record,
    write_teacher_png,
)
from adubench.errors import DataError, UsageError, counted
from adubench.training.prediction_run import OutputOptions, PredictionReport, predict_images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from adubench.training.prediction_files import Writer
    from adubench.training.prediction_inputs import ImageJob
    from adubench.training.predictor import Predictor

FORMATS = ("png", "hdf5")


@dataclass(frozen=True, slots=True)
class _PngWriter:
    root: Path
    record: TeacherRecord

    def write(self, name: str, values: NDArray[np.float32]) -> None:
        write_teacher_png(self.root, f"{name}.png", values, self.record)


@dataclass(frozen=True, slots=True)
class _PackWriter:
    packed: PackedWriter

    def write(self, name: str, values: NDArray[np.float32]) -> None:
        self.packed.write(f"{name}.png", values)


def frame_of(job: ImageJob, *, from_split: bool) -> str:
    """Name of the frame that an image is: of a split's frames their own, else KITTI's name where the path has one."""
    frame = None if from_split else parse_kitti(job.image.resolve().as_posix())
    return frame.name if frame is not None else job.name


def map_stem(frame: str) -> str:
    """Stem of the file of a frame's map: the release's for KITTI frames, else the name with `/` as `_`."""
    kitti = parse_kitti(f"{frame}.png")
    if kitti is not None:
        image = f"{kitti.date}/{kitti.drive}_sync/image_0{kitti.camera}/data/{kitti.index:010d}.png"
        return PurePosixPath(teacher_map_name(image)).stem
    return frame.replace("/", "_")


def wants_window(jobs: Sequence[ImageJob]) -> bool:
    """Whether the images are KITTI's, and large enough for the 352x1216 window that the layout's maps have."""
    from adubench.evaluators.crops import KB_WINDOW
    from adubench.io.images import image_size

    if not jobs or not all(parse_kitti(job.image.resolve().as_posix()) for job in jobs):
        return False
    for job in jobs:
        try:
            height, width = image_size(job.image)
        except DataError:  # named later, when its turn comes
            continue
        return height >= KB_WINDOW[0] and width >= KB_WINDOW[1]
    return False


def predict_teacher_maps(
    predictor: Predictor,
    jobs: Sequence[ImageJob],
    root: Path,
    form: str = "png",
    *,
    split: str | None = None,
    max_depth: float | None = None,
    skip_existing: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> PredictionReport:
    """Predict images and write their maps for TIE-KD. The record comes last, and only when every map is there.

    Args:
        predictor: of metric depth.
        jobs: the images; those of a split under their frames' names.
        root: folder of the maps, or of the HDF5 file.
        form: "png" or "hdf5".
        split: name of the list of images, None for images that were named one by one.
        max_depth: metres of the largest code; None for the network's own range, else 80.
        skip_existing: leave maps that are there; they must be of the same teacher.
        progress: called with maps done and maps wanted.

    Raises:
        UsageError: another format, a predictor without metric scale, or a folder with maps of another teacher.
        DataError: nothing could be predicted, or the output cannot be written.
    """
    if form not in FORMATS:
        raise UsageError(f"--layout tie-kd writes 16-bit codes: --format png or hdf5, not {form}.")
    if predictor.kind != "depth" and predictor.depth_scale == 1.0:
        raise UsageError(
            f"--layout tie-kd holds metres, and {predictor.label} predicts {predictor.kind}, without scale: take a "
            "metric model as teacher."
        )
    frames = [frame_of(job, from_split=split is not None) for job in jobs]
    record = _record(predictor, frames, split or "named images", max_depth)
    renamed = [replace(job, name=map_stem(frame)) for job, frame in zip(jobs, frames, strict=True)]
    if len({job.name for job in renamed}) < len(renamed):
        raise UsageError("two images have one teacher map: predict each frame once.")
    if form == "png":
        _check_folder(root, record, {job.name for job in renamed}, skip_existing)
        write_record(root, record, finished=False)
    options = OutputOptions(root=root, form=form, skip_existing=skip_existing)
    report = predict_images(predictor, renamed, options, progress=progress, writer=_writer(root, form, record))
    if form == "png" and not report.failed:
        write_record(root, record)
    return report


def _check_folder(root: Path, record: TeacherRecord, names: set[str], skip_existing: bool) -> None:
    """Refuse a folder in which maps of another teacher would stay and pass for this one's."""
    there = {path.stem for path in root.glob("*.png")} if root.is_dir() else set()
    kept = there if skip_existing else there - names
    if not kept:
        return
    before = read_unfinished(root) or read_record(root)
    if before is None:
        raise UsageError(f"{root}: holds {len(kept)} maps without a record of their teacher; choose an empty folder.")
    if not same_maker(before, record):
        raise UsageError(
            f"{root}: holds {counted(len(kept), 'map')} of another teacher or another coding ({before.teacher}, "
            f"{before.weights_sha256[:12] or 'unknown weights'}, {before.max_depth:g} m, flip {before.flip}, crop "
            f"{before.crop}), which would be taken for those of {record.teacher}; choose an empty folder."
        )


@contextmanager
def _writer(root: Path, form: str, record: TeacherRecord) -> Iterator[Writer]:
    if form == "png":
        yield _PngWriter(root, record)
        return
    with pack_teacher_maps(root / PACKED_FILE, record) as packed:
        yield _PackWriter(packed)


def _record(predictor: Predictor, frames: list[str], split: str, max_depth: float | None) -> TeacherRecord:
    said = predictor.describe()
    source: dict[str, Any] = said["predictor"]
    network = getattr(predictor, "network", None)
    own = network.config.get("max_depth") if network is not None else getattr(predictor, "max_depth", None)
    return TeacherRecord(
        teacher=predictor.label,
        max_depth=float(max_depth or own or 80.0),
        split=split,
        split_sha256=frames_sha256(frames),
        frames=len(frames),
        weights_sha256=str(source.get("sha256", "")),
        flip="none" if said["flip"] == "off" else str(said["flip"]),
        crop="kb" if said["kb_crop"] else "none",
    )
