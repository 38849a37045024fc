"""A teacher's maps in an evaluation (`--teacher-maps`): similarity to them, and a second target for uncertainty."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from adubench.errors import DataError
from adubench.evaluators import crops
from adubench.evaluators.final_pixels import dense_prediction
from adubench.evaluators.predicted_values import Prediction, predicted_at
from adubench.evaluators.teacher_similarity import KEYS, KITTI_IGNORED_ROWS, teacher_similarity
from adubench.evaluators.valid_pixels import ValidPixels

if TYPE_CHECKING:
    from adubench.evaluators.final_pixels import FinalPixels
    from adubench.evaluators.protocols import Protocol
    from adubench.evaluators.result import EvaluationResult
    from adubench.io.collection import MapCollection
    from adubench.io.maps import SparseDepth


@dataclass(frozen=True, slots=True)
class FrameTeacher:
    """What the teacher says about one frame.

    Attributes:
        similarity: TIE-KD's metrics of the prediction against the teacher's map.
        target: float32 [n] the teacher's depth at the scored pixels, 0 where it has none.
    """

    similarity: dict[str, float]
    target: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TeacherMaps:
    """The teacher's depth maps of a run, in metres; picklable.

    Attributes:
        maps: the collection.
        keys: frame -> name in it.
    """

    maps: MapCollection
    keys: Mapping[str, str]

    def measure(
        self, protocol: Protocol, gt: SparseDepth, prediction: Prediction, final: FinalPixels, frame: str
    ) -> FrameTeacher:
        """Compare one frame under one protocol.

        TIE-KD compares the window of KITTI from its row 110 on. Where the frame holds the window, it is cut out of maps
        of the whole frame; elsewhere all rows count.

        Raises:
            ProtocolError: a teacher's map whose size fits neither the frame nor the window.
        """
        theirs = Prediction(self.maps.read(self.keys[frame]))
        whole = ValidPixels(np.arange(gt.shape[0] * gt.shape[1]), np.empty(0, np.float32), 1.0, slice(None))
        teacher = np.asarray(predicted_at(protocol, gt, theirs, whole, frame=frame), np.float32).reshape(gt.shape)
        teacher = np.where(np.isfinite(teacher) & (teacher > 0), teacher, np.float32(0))
        mine, _ = dense_prediction(protocol, gt, prediction, final, frame=frame)
        rows = 0
        window: tuple[slice, slice] = (slice(None), slice(None))
        if protocol.kitti_window and crops.fits_window(gt.shape):
            top, left = crops.kb_window(*gt.shape)
            window = slice(top, top + crops.KB_HEIGHT), slice(left, left + crops.KB_WIDTH)
            rows = KITTI_IGNORED_ROWS
        found = teacher_similarity(
            np.ascontiguousarray(mine[window]), np.ascontiguousarray(teacher[window]), ignore_top_rows=rows, where=frame
        )
        return FrameTeacher(found, teacher.reshape(-1).take(final.index))


def open_teacher_of(maps: MapCollection, keys: Mapping[str, str], frames: Sequence[str]) -> TeacherMaps:
    """Join the maps to the frames of a track.

    Raises:
        DataError: frames without a map.
    """
    missing = [frame for frame in frames if frame not in keys]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(frames)} teacher maps missing in {maps.root}, first: {', '.join(missing[:3])}. "
            "Predict them with the teacher, one map per frame."
        )
    return TeacherMaps(maps, keys)


def add_teacher(result: EvaluationResult, frames: Sequence[FrameTeacher], maps: TeacherMaps) -> None:
    """Put the similarity into the per-image columns and the summary; means over images."""
    for key in KEYS:
        column = [frame.similarity.get(key, math.nan) for frame in frames]
        result.per_image[key] = column
        result.summary[key] = float(np.mean(column)) if column else math.nan
    result.provenance["teacher_maps"] = str(maps.maps.root)
