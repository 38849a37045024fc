"""Learning-rate schedules: pure functions of the step, so that a resumed run needs no state for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from adubench.errors import unknown_name

if TYPE_CHECKING:
    from adubench.recipes.schema import TrainSection

ONECYCLE_WARM = 0.3
ONECYCLE_START = 1 / 25
STEP_FACTOR = 0.1
POLY_END = 0.1


def poly(train: TrainSection, step: int, total: int, steps_per_epoch: int) -> float:
    """Polynomial decay from 1 to `end_lr / lr` (a tenth unless given): NeWCRFs, train.py, with power 0.9.

    The first step runs at the full rate; the last one is one step short of the end.
    """
    end = POLY_END if train.end_lr is None else train.end_lr / train.lr
    return float((1 - end) * (1 - min(step, total) / total) ** train.power + end)


def stepwise(train: TrainSection, step: int, total: int, steps_per_epoch: int) -> float:
    """A tenth every `step_epochs` epochs (Monodepth2, trainer.py: StepLR)."""
    return float(STEP_FACTOR ** (step // steps_per_epoch // train.step_epochs))


def onecycle(train: TrainSection, step: int, total: int, steps_per_epoch: int) -> float:
    """Cosine up to 1 over the first 30 % of the steps, cosine down to almost 0 (torch's OneCycleLR, div_factor 25)."""
    top = max(ONECYCLE_WARM * total - 1, 1e-9)
    if step <= top:
        return _cosine(ONECYCLE_START, 1.0, step / top)
    return _cosine(1.0, ONECYCLE_START / train.final_div, min((step - top) / max(total - 1 - top, 1e-9), 1.0))


def first_beta(train: TrainSection, step: int, total: int) -> float:
    """Adam's first beta in a step: with `momentum` it runs against the one-cycle rate, as in torch's OneCycleLR."""
    if train.momentum is None or train.schedule != "onecycle":
        return train.betas[0]
    low, high = train.momentum
    top = max(ONECYCLE_WARM * total - 1, 1e-9)
    if step <= top:
        return _cosine(high, low, step / top)
    return _cosine(low, high, min((step - top) / max(total - 1 - top, 1e-9), 1.0))


def constant(train: TrainSection, step: int, total: int, steps_per_epoch: int) -> float:
    """One, always."""
    return 1.0


Schedule = Callable[["TrainSection", int, int, int], float]
SCHEDULES: Mapping[str, Schedule] = {"poly": poly, "step": stepwise, "onecycle": onecycle, "constant": constant}


def lr_factor(train: TrainSection, step: int, total: int, steps_per_epoch: int) -> float:
    """Return what a group's peak rate is multiplied by in optimiser step `step` (counted from 0).

    Args:
        train: the section with `schedule`, `lr`, `end_lr`, `power`, `step_epochs`.
        step: optimiser steps done before this one.
        total: optimiser steps of the whole run.
        steps_per_epoch: optimiser steps of one pass over the data.

    Raises:
        UsageError: unknown schedule.
    """
    if train.schedule not in SCHEDULES:
        raise unknown_name("schedule", train.schedule, SCHEDULES)
    return SCHEDULES[train.schedule](train, step, max(total, 1), max(steps_per_epoch, 1))


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * part))
