"""Notice predictions that are not what they are said to be, from a small sample of pixels of every image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

RATIO_RANGE = (0.8, 1.25)
_UNITS = (
    (0.01, "centimetres"),
    (0.001, "millimetres"),
    (1 / 256, "PNG codes that were not divided by 256"),
    (256.0, "values divided by 256 twice, or metres written without the factor 256"),
)


@dataclass(frozen=True, slots=True)
class FrameSample:
    """What one image tells about the prediction's scale and order.

    Attributes:
        ratio: median(gt) / median(pred) of the sampled pixels, before alignment and clamp; NaN without pixels.
        rank_correlation: Spearman correlation of gt and pred over the sample; NaN when undefined.
        largest: the largest finite sampled prediction.
    """

    ratio: float
    rank_correlation: float
    largest: float


NO_SAMPLE = FrameSample(float("nan"), float("nan"), float("nan"))


def sample_frame(gt: NDArray[np.float32], pred: NDArray[np.float32], *, ranks: bool = True) -> FrameSample:
    """Summarise a sample of pixels of one image (a few hundred suffice).

    Args:
        gt: depth in metres.
        pred: prediction before alignment and clamp, at the same pixels.
        ranks: compute the rank correlation, which costs two sorts.
    """
    good = np.isfinite(gt) & np.isfinite(pred) & (pred > 0)
    gt, pred = gt[good], pred[good]
    if gt.size == 0:
        return FrameSample(np.nan, np.nan, np.nan)
    ratio = float(np.sort(gt)[gt.size // 2] / np.sort(pred)[gt.size // 2])  # a look, not a metric: the upper median
    return FrameSample(ratio, _spearman(gt, pred) if ranks else float("nan"), float(pred.max()))


def _spearman(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    if a.size < 20 or a.min() == a.max() or b.min() == b.max():
        return float("nan")
    ranks = [np.argsort(np.argsort(x)) - (a.size - 1) / 2 for x in (a, b)]
    return float(ranks[0] @ ranks[1] / np.sqrt((ranks[0] @ ranks[0]) * (ranks[1] @ ranks[1])))


def scale_warnings(samples: Sequence[FrameSample], *, aligned: bool, kind: str) -> list[str]:
    """Say what looks wrong about a set of predictions.

    Args:
        samples: one per scored image.
        aligned: the protocol aligns the scale, so a wrong scale alone is no fault.
        kind: the declared kind of the predictions (`depth`, `scaled-disparity`, ...).

    Returns:
        Sentences; empty when nothing looks wrong.
    """
    ratios = np.array([s.ratio for s in samples if np.isfinite(s.ratio) and s.ratio > 0])
    correlations = np.array([s.rank_correlation for s in samples if np.isfinite(s.rank_correlation)])
    warnings = []
    if correlations.size and np.median(correlations) < -0.3:
        warnings.append(
            f"predictions fall where ground truth rises (rank correlation {np.median(correlations):.2f}): "
            + (
                "they look like disparity passed as depth; declare it with --kind scaled-disparity."
                if kind == "depth"
                else f"they were declared as {kind}; they look like depth (--kind depth)."
            )
        )
    elif ratios.size and not aligned:
        middle = float(np.median(ratios))
        if not RATIO_RANGE[0] <= middle <= RATIO_RANGE[1]:
            unit = next((name for factor, name in _UNITS if 0.7 < middle / factor < 1.4), "")
            warnings.append(
                f"the median ratio of ground truth to prediction is {middle:.4g}, outside "
                f"[{RATIO_RANGE[0]}, {RATIO_RANGE[1]}]: the predictions are not metric"
                + (f" (they look like {unit})" if unit else "")
                + "; check their unit, or state an alignment with --alignment median."
            )
    return warnings
