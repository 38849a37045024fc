"""Means over a batch that may be spread over processes, in at least float32.

A loss hands its sums and counts to `all_reduce` before it divides. With one process that is the identity. With several,
it adds the vectors of all processes, forward and backward (`torch.distributed.nn.functional.all_reduce`): every process
then holds the loss of the whole batch, and gradients averaged over the processes are those of that loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

AllReduce = Callable[["Tensor"], "Tensor"]


def one_process(stats: Tensor) -> Tensor:
    """The sums of a batch that is not spread over processes: themselves."""
    return stats


def at_least_float32(values: Tensor) -> Tensor:
    """Half-precision tensors as float32, float32 and float64 unchanged."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def count_of(values: Tensor) -> Tensor:
    """Number of elements, as a scalar that can be stacked with sums of `values`."""
    return values.new_tensor(float(values.numel()))


def mean_over_processes(total: Tensor, count: Tensor, all_reduce: AllReduce) -> Tensor:
    """The sum of all processes over the count of all processes; 0 (with a graph) where nothing was counted.

    Args:
        total: scalar or (K,) sums.
        count: counts of the same shape, >= 0.
        all_reduce: adds a tensor over processes, differentiably.
    """
    stats = all_reduce(torch.stack((total, count.to(total))))
    return stats[0] / stats[1].clamp(min=1)
