"""The order of samples: seeded per epoch, resumable in the middle of one, independent of the number of processes."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from adubench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What the data set is asked for: (epoch, index of the frame).
Position = tuple[int, int]


def epoch_order(n: int, seed: int, epoch: int) -> list[int]:
    """Shuffle n frames: a pure function of (n, seed, epoch)."""
    digest = hashlib.sha256(f"adubench-order/{seed}/{epoch}".encode()).digest()
    order: list[int] = np.random.default_rng(int.from_bytes(digest[:16], "little")).permutation(n).tolist()
    return order


class EpochSampler:
    """Batches of one epoch, for `DataLoader(batch_sampler=...)`; yields lists of (epoch, index).

    Process r of w takes every w-th sample of a global batch, starting with r: the union over the processes is the same
    batch for any w. The last, smaller batch of an epoch is kept unless `drop_last`.

    Args:
        n: frames.
        seed: of the run.
        batch: samples per step over all processes.
        epoch: to begin with; `set_epoch` moves on.
        start_step: steps of that epoch that are done already.
        rank: of this process.
        world: number of processes.
        drop_last: leave out the last batch when it is smaller.
        shuffle: False keeps the order of the list.

    Raises:
        UsageError: an empty epoch, or a batch with fewer samples than processes.
    """

    def __init__(
        self,
        n: int,
        seed: int = 0,
        batch: int = 1,
        epoch: int = 0,
        start_step: int = 0,
        rank: int = 0,
        world: int = 1,
        *,
        drop_last: bool = False,
        shuffle: bool = True,
    ) -> None:
        self.n, self.seed, self.batch, self.rank, self.world = n, seed, batch, rank, world
        self.drop_last, self.shuffle = drop_last, shuffle
        self.steps = n // batch if drop_last else -(-n // batch)
        self._check()
        self.set_epoch(epoch, start_step)

    def _check(self) -> None:
        if not 0 <= self.rank < self.world:
            raise UsageError(f"process {self.rank} of {self.world} does not exist.")
        if not self.steps:
            raise UsageError(
                f"an epoch of {self.n} frames has no batch of {self.batch}: choose a smaller train.batch_size."
            )
        last = self.batch if self.drop_last else self.n - (self.steps - 1) * self.batch
        if min(self.batch, last) < self.world:
            raise UsageError(
                f"{self.world} processes, but the {'batches have' if self.batch < self.world else 'last batch has'} "
                f"{min(self.batch, last)} samples ({self.n} frames, train.batch_size {self.batch}): every process "
                "needs one; choose another batch size or fewer processes."
            )

    def set_epoch(self, epoch: int, start_step: int = 0) -> None:
        """Choose the epoch of the next iteration, and how many of its steps are done already."""
        if not 0 <= start_step <= self.steps:
            raise UsageError(f"step {start_step} of an epoch of {self.steps} steps does not exist.")
        self.epoch, self.start_step = epoch, start_step

    def __len__(self) -> int:
        """Steps that the next iteration has."""
        return self.steps - self.start_step

    def __iter__(self) -> Iterator[list[Position]]:
        epoch = self.epoch
        order = epoch_order(self.n, self.seed, epoch) if self.shuffle else list(range(self.n))
        for step in range(self.start_step, self.steps):
            whole = order[step * self.batch : (step + 1) * self.batch]
            yield [(epoch, index) for index in whole[self.rank :: self.world]]
