"""`--calib-split`: fit the recalibration of sigma on another split, before the evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adubench.errors import DataError, UsageError
from adubench.evaluators.recalibration import check_calibration_split
from adubench.evaluators.uncertainty_run import Fitted

if TYPE_CHECKING:
    from adubench.evaluators.eval_options import EvalOptions


def recalibrated(
    evaluate: Callable[..., Any],
    load_split: Callable[..., Any],
    source: Any,
    split: str | None,
    protocol: str | Sequence[str] | None,
    gt: str | Path | None,
    data_root: str | Path | None,
    options: EvalOptions,
) -> EvalOptions:
    """Evaluate the calibration split and return options that carry what it says.

    Args:
        evaluate: `evaluator.evaluate`.
        load_split: (name, root) -> split.
        source: predictions of the evaluated split; those of the calibration split are looked for there, too, unless
            the request names others.
        split: the evaluated one.
        protocol: of the evaluation; one.
        gt: root of the ground truth of both splits, None for the data root.
        data_root: where both splits lie.
        options: of the evaluation.

    Raises:
        UsageError: no split, several protocols, the same split, or a drive in both.
        DataError: nothing to fit on.
    """
    request = options.uncertainty
    assert request is not None
    assert request.calibration is not None
    if split is None:
        raise UsageError("--calib-split needs --split: drives of explicit ground truth cannot be kept apart.")
    if protocol == "all" or (protocol is not None and not isinstance(protocol, str) and len(protocol) > 1):
        raise UsageError("--calib-split fits under one protocol: give one --protocol.")
    root = Path(data_root) if data_root is not None else None
    if root is None and gt is not None and Path(gt).is_dir():
        root = Path(gt)
    one, other = load_split(split, root), load_split(request.calibration, root)
    drives = [frozenset(frame.drive for frame in s.frames) for s in (other, one)]
    check_calibration_split(other.name, one.name, *drives)
    found: list[Fitted] = []

    def collect(recalibration: Any, result: Any) -> None:
        drives = frozenset(result.per_image["drive"])
        found.append(Fitted(recalibration, other.name, result.counts["evaluated"], drives))

    alone = dataclasses.replace(
        request,
        calibration=None,
        collect=collect,
        maps=request.calibration_maps or request.maps,
        flipped=None if request.maps is not None else request.flipped,
        flip=request.flip and request.maps is None,
    )
    evaluate(
        request.calibration_predictions or source,
        split=request.calibration,
        gt=gt,
        protocol=protocol or one.default_protocol,
        data_root=data_root,
        options=dataclasses.replace(
            options, uncertainty=alone, regions=None, boundaries=None, teacher_maps=None, label=None
        ),
    )
    if not found:
        raise DataError(f"--calib-split {request.calibration}: no image has two valid pixels to fit on.")
    return dataclasses.replace(options, uncertainty=dataclasses.replace(request, calibration=None, fitted=found[0]))
