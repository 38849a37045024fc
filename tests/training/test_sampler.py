"""The order of samples: seeded, resumable, and the same global batches for any number of processes."""

from __future__ import annotations

import pytest

from adubench.errors import UsageError
from adubench.training.sampler import EpochSampler, epoch_order


def batches(**options):
    return list(EpochSampler(23, 5, 4, **options))


def test_an_epoch_has_every_frame_once_and_keeps_the_last_batch():
    found = batches(epoch=2)
    assert [len(batch) for batch in found] == [4] * 5 + [3]
    assert sorted(index for batch in found for _, index in batch) == list(range(23))
    assert {epoch for batch in found for epoch, _ in batch} == {2}
    assert [len(batch) for batch in batches(drop_last=True)] == [4] * 5


def test_the_order_depends_on_seed_and_epoch_only():
    assert batches(epoch=2) == batches(epoch=2)
    orders = {tuple(epoch_order(23, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    assert [i for b in EpochSampler(5, 0, 2, shuffle=False) for _, i in b] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("start", range(7))
def test_resuming_in_the_middle_of_an_epoch(start):
    sampler = EpochSampler(23, 5, 4, 1, start)
    assert len(sampler) == 6 - start
    assert list(sampler) == batches(epoch=1)[start:]
    sampler.set_epoch(2)
    assert list(sampler) == batches(epoch=2)


@pytest.mark.parametrize("world", [2, 3])
def test_global_batches_do_not_depend_on_the_number_of_processes(world):
    parts = [batches(rank=rank, world=world) for rank in range(world)]
    for step, whole in enumerate(batches()):
        union = [parts[rank][step] for rank in range(world)]
        assert sorted(position for part in union for position in part) == sorted(whole)
        assert [batch[0] for batch in union] == whole[:world]


@pytest.mark.parametrize(
    ("n", "batch", "options", "words"),
    [
        (0, 4, {}, "no batch"),
        (3, 4, {"drop_last": True}, "no batch of 4"),
        (8, 1, {"world": 2}, "2 processes, but the batches have 1 samples"),
        (9, 4, {"world": 2}, "2 processes, but the last batch has 1 samples"),
        (9, 4, {"rank": 2, "world": 2}, "does not exist"),
        (9, 4, {"start_step": 4}, "step 4 of an epoch of 3 steps"),
    ],
)
def test_impossible_orders_are_one_sentence(n, batch, options, words):
    with pytest.raises(UsageError, match=words):
        EpochSampler(n, 0, batch, **options)
