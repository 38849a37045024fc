"""A step's batch cut into micro-batches, the same way whatever the number of processes."""

from __future__ import annotations

from typing import Any

Batch = dict[str, Any]


def micro_batches(batch: Batch, global_size: int, accumulate: int, rank: int, world: int) -> list[tuple[Batch, float]]:
    """Cut this process's share of a batch.

    Process r of w has samples r, r + w, ... of the step's batch. Every process makes the same number of micro-batches,
    also of a last batch that is smaller. A micro-batch's weight is its share of the whole batch's samples over all
    processes, so that means over samples add up to the mean over the batch.

    Args:
        batch: tensors with the samples in front, and lists of the same length.
        global_size: samples of the step over all processes.
        accumulate: micro-batches wanted.
        rank: of this process.
        world: number of processes.

    Returns:
        (micro-batch, weight); the weights add up to 1.
    """
    count = max(1, min(accumulate, global_size // world))
    sizes = [_sizes(len(range(r, global_size, world)), count) for r in range(world)]
    totals = [sum(one[i] for one in sizes) for i in range(count)]
    out, start = [], 0
    for i in range(count):
        end = start + sizes[rank][i]
        out.append(({key: value[start:end] for key, value in batch.items()}, totals[i] / global_size))
        start = end
    return out


def _sizes(n: int, count: int) -> list[int]:
    """Cut n into `count` parts, the first ones one larger where it does not divide."""
    return [n // count + (i < n % count) for i in range(count)]
