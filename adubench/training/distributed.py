"""Several processes that train one network: seeds, and sums over processes that gradients pass through."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

if TYPE_CHECKING:
    from torch import Tensor


def world_size() -> int:
    """Return the number of processes of this training, 1 without any."""
    if distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_world_size())
    return 1


def rank() -> int:
    """Return the number of this process, 0 without others."""
    if distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    return 0


def derive_seed(*parts: object) -> int:
    """Make a seed below 2^63 of anything that names a purpose, e.g. (seed, "student", "weights")."""
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def all_sum(values: Tensor) -> Tensor:
    """Sum a tensor over all processes; gradients flow back to every process. The identity for one process.

    Every process has the same sum and, from it, the same loss. Backward sums the processes' gradients, so that after
    DDP's mean over processes each weight has the gradient of that one loss.
    """
    if world_size() == 1:
        return values
    total: Tensor = _AllSum.apply(values)
    return total


def all_mean(values: Tensor) -> Tensor:
    """Average over processes that hold batches of one size; gradients as for `all_sum`."""
    return all_sum(values) / world_size()


def all_max(values: Tensor) -> Tensor:
    """Return the element-wise largest values over all processes, without gradients."""
    if world_size() > 1:
        values = values.detach().clone()
        distributed.all_reduce(values, op=distributed.ReduceOp.MAX)
    return values


def gather_objects(own: Any) -> list[Any]:
    """Collect an object of every process, by rank, on every process."""
    if world_size() == 1:
        return [own]
    gathered: list[Any] = [None] * world_size()
    distributed.all_gather_object(gathered, own)
    return gathered


class _AllSum(torch.autograd.Function):
    """all_reduce(sum) whose backward is all_reduce(sum)."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        total = values.detach().clone().contiguous()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        total = gradient.detach().clone().contiguous()
        distributed.all_reduce(total)
        return total
