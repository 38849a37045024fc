"""Devices, precision and processes of a stage, through Accelerate."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch

from adubench.errors import UsageError
from adubench.training.distributed import world_size

if TYPE_CHECKING:
    from accelerate import Accelerator

    from adubench.recipes.schema import TrainSection
    from adubench.training.stage import Stage

PATIENCE = timedelta(hours=6)
"""How long processes wait for each other: the first one validates alone."""
_NAMES = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def choose_precision(train: TrainSection, device: torch.device) -> str:
    """Return Accelerate's name of the precision: `auto` is bf16 on CUDA and fp32 elsewhere.

    Raises:
        UsageError: fp16 without CUDA.
    """
    if train.precision == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "no"
    if train.precision == "fp16" and device.type != "cuda":
        raise UsageError(f"train.precision=fp16 needs CUDA, and this runs on {device.type}; use fp32 or bf16.")
    return _NAMES[train.precision]


def check_processes(train: TrainSection, world: int) -> None:
    """Refuse a batch that the processes cannot share.

    Raises:
        UsageError: fewer samples than processes times micro-batches.
    """
    if train.batch_size < world * train.accumulate:
        raise UsageError(
            f"train.batch_size {train.batch_size} is less than {world} processes x {train.accumulate} micro-batches: "
            "raise it, lower train.accumulate, or start fewer processes."
        )


def open_accelerator(stage: Stage, train: TrainSection) -> tuple[Accelerator, torch.device]:
    """Open Accelerate for a stage, trackers included.

    Returns:
        Accelerate, and the device of this process.

    Raises:
        UsageError: a device that is not here, or a precision that it lacks.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

    from adubench.training.network_predictor import resolve_device

    device = resolve_device(stage.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    names: list[Any] = list(stage.recipe.log.trackers)
    # Accelerate keeps its state per process; a second stage may have another precision.
    AcceleratorState._reset_state(reset_partial_state=world_size() == 1)
    GradientState._reset_state()
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        device_placement=False,
        mixed_precision=choose_precision(train, device),
        log_with=names or None,
        project_dir=str(stage.folder),
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=False),
            InitProcessGroupKwargs(timeout=PATIENCE),
        ],
    )
    check_processes(train, world_size())
    if names:
        accelerator.init_trackers("tracking", config=None)
    return accelerator, device
