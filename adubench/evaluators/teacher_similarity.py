"""How close a student's maps are to its teacher's: TIE-KD's metrics with the suffix `_T`.

TIE-KD (arXiv 2402.14340), `core/evaluation/metrics.py`: the usual formulas with the teacher's map as reference, over
all pixels from row 110 of KITTI's window on (all rows of NYU), without any validity mask.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import ProtocolError
from adubench.evaluators.metrics import metrics_from_moments
from adubench.evaluators.moments import plain_moments

KITTI_IGNORED_ROWS = 110
#: TIE-KD's name -> ours.
KEYS = {
    "a1_T": "d1",
    "a2_T": "d2",
    "a3_T": "d3",
    "abs_rel_T": "abs_rel",
    "sq_rel_T": "sq_rel",
    "rmse_T": "rmse",
    "rmse_log_T": "rmse_log",
}
# The smallest depth the evaluation knows; truncated teacher codes of nearer pixels are 0, which no ratio takes.
_MIN_DEPTH = 1e-3


def teacher_similarity(
    pred: NDArray[Any], teacher: NDArray[Any], *, ignore_top_rows: int = KITTI_IGNORED_ROWS, where: str = "prediction"
) -> dict[str, float]:
    """Compare one student map with its teacher's.

    Args:
        pred: [H, W] metres, > 0.
        teacher: [H, W] metres; 0 counts as 1 mm.
        ignore_top_rows: 110 for KITTI's window, 0 for NYU.
        where: the frame, for messages.

    Returns:
        The seven metrics of `KEYS`, in float64.

    Raises:
        ProtocolError: maps of different sizes, no row left, or predictions that are not finite and positive.
    """
    if pred.shape != teacher.shape:
        raise ProtocolError(
            f"{where}: the map has {pred.shape[0]}x{pred.shape[1]} pixels, its teacher's {teacher.shape[0]}x"
            f"{teacher.shape[1]}. Compare maps of one window."
        )
    if ignore_top_rows >= pred.shape[0]:
        raise ProtocolError(f"{where}: no row is left of {pred.shape[0]} after {ignore_top_rows}. Set it to 0.")
    student = np.asarray(pred, np.float32)[ignore_top_rows:].reshape(-1)
    reference = np.asarray(teacher, np.float32)[ignore_top_rows:].reshape(-1)
    if not np.all(np.isfinite(student) & (student > 0)):
        raise ProtocolError(f"{where}: the prediction has values that are not finite and positive. Clamp it first.")
    row = plain_moments(np.maximum(reference, np.float32(_MIN_DEPTH)), student)
    values = metrics_from_moments(row[None], list(KEYS.values()))
    return {name: float(values[key][0]) for name, key in KEYS.items()}
