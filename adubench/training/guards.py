"""What can go wrong while a network is trained, each as one sentence: no number, no memory, no file, no more time."""

from __future__ import annotations

import math
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from adubench.errors import AdubenchError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from adubench.recipes.schema import Recipe, TrainSection

_SIGNALS = {"SIGINT": 130, "SIGTERM": 143}
_MEMORY_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "bad alloc", "bad_alloc")


class TrainingStopped(AdubenchError):  # noqa: N818 -- the user asked for it
    """Ctrl-C or a termination signal: the step was finished and everything is saved.

    Attributes:
        exit_status: 130 after Ctrl-C, 143 after SIGTERM.
    """

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


class StopRequest:
    """Remembers that the process was asked to stop.

    Attributes:
        signal: name of the signal, None while nobody asked.
    """

    def __init__(self) -> None:
        self.signal: str | None = None

    @property
    def exit_status(self) -> int:
        """Exit status that belongs to the signal, 0 for none."""
        return _SIGNALS.get(self.signal or "", 0)


@contextmanager
def watch_signals() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C or SIGTERM into a request that the loop reads between two steps.

    A second Ctrl-C interrupts at once. Outside the main thread, where Python takes no signals, nothing is watched.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before: dict[int, Any] = {}

    def remember(number: int, frame: Any) -> None:
        if request.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.signal = signal.Signals(number).name

    for name in _SIGNALS:
        number = getattr(signal, name)
        # A process started with Ctrl-C ignored (nohup, a background job of a shell) stays deaf to it.
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, remember)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_finite(parts: Mapping[str, float], *, step: int, frames: Sequence[str], sources: Sequence[str] = ()) -> None:
    """Refuse a step of which any part is no number.

    Args:
        parts: name -> value, the named terms before the total.
        step: of the optimiser, counted from 1.
        frames: of the batch.
        sources: parts that follow from others, in the order in which they do; one is named only when nothing before it
            is at fault.

    Raises:
        TrainingError: naming the terms, the step and the frames.
    """
    wrong = {name: value for name, value in parts.items() if not math.isfinite(value)}
    if not wrong:
        return
    first = [name for name in sources if name in wrong][:1]
    named = {name: value for name, value in wrong.items() if name not in sources} or {n: wrong[n] for n in first}
    terms = ", ".join(f"{name} = {value}" for name, value in named.items())
    listed = ", ".join(frames[:4]) + (f" and {len(frames) - 4} more" if len(frames) > 4 else "")
    raise TrainingError(
        f"step {step}: {terms}; the batch is {listed}. The step was not taken and the state before it is kept. "
        "Look at these frames (adubench data check), or train with a lower train.lr, a train.clip_norm, or "
        "train.precision=fp32."
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory, on whatever device, was not enough."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _MEMORY_SIGNS)


def memory_error(recipe: Recipe, train: TrainSection, stage: str, *, step: int, micro_batch: int) -> TrainingError:
    """Say what takes less memory, in the order in which it should be tried, leaving out what is already on."""
    network = recipe.teacher if stage == "teacher" else recipe.student
    if recipe.self_supervision:
        return _memory_of_disparity(recipe, train, stage, step=step, micro_batch=micro_batch)
    options = []
    if micro_batch > 1:
        options.append(f"train.accumulate={train.accumulate * 2} (batch {micro_batch} becomes {micro_batch // 2})")
    if recipe.model is None and not network.activation_checkpointing:
        options.append(f"{stage}.activation_checkpointing=true")
    if train.precision == "fp32":
        options.append("train.precision=bf16")
    if stage == "student" and recipe.distill.adapter.attention in ("full", "auto") and recipe.method == "adu-depth":
        options.append("distill.adapter.attention=window")
    options += [f"input.height / input.width below {recipe.input.height} x {recipe.input.width}", "a smaller encoder"]
    return TrainingError(
        f"out of memory in step {step} of the {stage}, {micro_batch} samples of {recipe.input.height} x "
        f"{recipe.input.width} at a time. The state before the step is kept. Use --set with one of: "
        f"{'; '.join(options)}."
    )


def _memory_of_disparity(
    recipe: Recipe, train: TrainSection, stage: str, *, step: int, micro_batch: int
) -> TrainingError:
    section, options = recipe.self_supervised, []
    if micro_batch > 1:
        options.append(f"train.accumulate={train.accumulate * 2} (batch {micro_batch} becomes {micro_batch // 2})")
    if train.precision == "fp32":
        options.append("train.precision=bf16")
    options.append(f"self_supervised.height / self_supervised.width below {section.height} x {section.width}")
    return TrainingError(
        f"out of memory in step {step} of the {stage}, {micro_batch} samples of {section.height} x {section.width} at "
        f"a time. The state before the step is kept. Use --set with one of: {'; '.join(options)}."
    )


def is_lost_process(error: BaseException) -> bool:
    """Whether an exception says that another process of the run is gone."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        sign in text for sign in ("connection closed", "connection reset", "gloo", "nccl", "broken pipe")
    )
