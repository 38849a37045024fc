"""Training samples: the same for any number of workers, pairs under one draw, the sign of disparity, damaged files."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from adubench.datasets import stereo_pairs
from adubench.datasets.synthdrive import write_dataset
from adubench.datasets.training_frames import training_frames
from adubench.datasets.transforms import Augmentation
from adubench.errors import DataError

torch = pytest.importorskip("torch")

from adubench.training.data import (  # noqa: E402
    TrainingSet,
    apply_tables,
    make_loader,
    to_device,
)
from adubench.training.sampler import EpochSampler  # noqa: E402

SETTINGS = Augmentation((48, 96))


@pytest.fixture(scope="module")
def synth(tmp_path_factory):
    root = tmp_path_factory.mktemp("synth")
    write_dataset(root, drives=1, frames=11, size=(64, 160))
    return root


@pytest.fixture(scope="module")
def pairs(synth):
    return training_frames("synthdrive.train", synth, stereo=True, gt_kind="depth").frames


def stream(frames, workers=0, form="float", epoch=0, start=0, rank=0, world=1):
    data = TrainingSet(frames, SETTINGS, seed=3)
    loader = make_loader(data, EpochSampler(len(frames), 3, 4, epoch, start, rank, world), workers=workers, form=form)
    return [apply_tables(batch) for batch in loader]


def same(one, other):
    assert one.keys() == other.keys()
    assert one["frames"] == other["frames"]
    return all(torch.equal(one[key], other[key]) for key in ("image", "right", "gt") if key in one)


def test_a_batch(pairs):
    batch = stream(pairs)[0]
    assert set(batch) == {"image", "right", "gt", "frames"}
    assert batch["image"].shape == batch["right"].shape == (4, 3, 48, 96)
    assert batch["gt"].shape == (4, 1, 48, 96)
    assert {batch[key].dtype for key in ("image", "right", "gt")} == {torch.float32}
    assert all(isinstance(name, str) for name in batch["frames"])
    assert 1 < batch["gt"].median() < 80


def test_single_images_have_no_right_view(synth):
    frames = training_frames("synthdrive.train", synth, gt_kind="depth").frames
    assert set(stream(frames)[0]) == {"image", "gt", "frames"}


@pytest.mark.parametrize("form", ["float", "uint8+table"])
def test_workers_and_forms_do_not_change_samples(pairs, form):
    here, there = stream(pairs), stream(pairs, workers=2, form=form)
    assert len(here) == len(there) == 3
    assert all(same(a, b) for a, b in zip(here, there, strict=True))


def test_epochs_differ_and_resuming_continues(pairs):
    whole = stream(pairs, epoch=1)
    assert not any(torch.equal(a["image"], b["image"]) for a, b in zip(whole, stream(pairs), strict=True))
    assert all(same(a, b) for a, b in zip(whole[1:], stream(pairs, epoch=1, start=1), strict=True))


def test_two_processes_have_the_samples_of_one(pairs):
    whole = stream(pairs)
    parts = [stream(pairs, rank=rank, world=2) for rank in (0, 1)]
    for step, batch in enumerate(whole):
        found = {
            name: image for part in parts for name, image in zip(part[step]["frames"], part[step]["image"], strict=True)
        }
        assert set(found) == set(batch["frames"])
        assert all(torch.equal(found[n], i) for n, i in zip(batch["frames"], batch["image"], strict=True))


def test_persistent_workers_follow_the_epoch(pairs):
    sampler = EpochSampler(len(pairs), 3, 4)
    loader = make_loader(TrainingSet(pairs, SETTINGS, seed=3), sampler, workers=1)
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        assert all(same(a, b) for a, b in zip(loader, stream(pairs, epoch=epoch), strict=True))


class Fake:
    """A frame in memory whose two views are equal, so that every difference comes from the augmentation."""

    kitti, scale, window, stereo = False, 256.0, None, True

    def __init__(self, flip):
        self.name, self.flip = "fake", flip
        rng = np.random.default_rng(0)
        self.left = rng.integers(0, 256, (64, 128, 3)).astype(np.uint8)
        self.reads = Counter()

    def image(self):
        self.reads["image"] += 1
        return self.left

    def right(self):
        self.reads["right"] += 1
        return self.left

    def codes(self):
        self.reads["codes"] += 1
        return np.full((64, 128), 1000, np.uint16)

    def right_codes(self):
        self.reads["right_codes"] += 1
        return np.full((64, 128), 2000, np.uint16)


@pytest.mark.parametrize("rule", ["swap", "joint", "none"])
def test_both_views_share_crop_angle_and_colours(rule):
    for epoch in range(12):
        sample = stereo_pairs.make_sample(Fake(rule), SETTINGS, epoch=epoch)
        np.testing.assert_array_equal(sample.image, sample.right)
        np.testing.assert_array_equal(sample.normalised(), sample.normalised_right())


def test_flip_rules_read_what_they_need():
    always = replace(SETTINGS, flip=1.0)
    seen = {}
    for rule in ("swap", "joint", "none"):
        frame = Fake(rule)
        seen[rule] = stereo_pairs.make_sample(frame, always)
        assert frame.reads["right_codes"] == (rule == "swap")
        assert frame.reads["codes"] == (rule != "swap")
    assert set(np.unique(seen["swap"].codes)) <= {0, 2000}
    assert set(np.unique(seen["joint"].codes)) <= {0, 1000}
    np.testing.assert_array_equal(seen["joint"].image[:, ::-1], seen["none"].image)


def test_student_and_teacher_see_the_same_left_view(synth, pairs):
    """Pairs whose flips swap and single images differ where a flip is drawn, and only there."""
    single = training_frames("synthdrive.train", synth, gt_kind="depth").frames
    for a, b in zip(pairs, single, strict=True):
        left, alone = (stereo_pairs.make_sample(f, replace(SETTINGS, flip=0.0)) for f in (a, b))
        np.testing.assert_array_equal(left.image, alone.image)
        np.testing.assert_array_equal(left.codes, alone.codes)


def disparity_agreement(sample, product):
    """Compare the left view with the right one sampled at x - d and at x + d; positive: x - d fits better."""
    depth = sample.metres()[0]
    y, x = np.nonzero(depth > 0)
    d = np.rint(product / depth[y, x]).astype(int)
    inside = (x - d >= 0) & (x + d < depth.shape[1]) & (d > 1)
    y, x, d = y[inside], x[inside], d[inside]
    left, right = (view.astype(float).mean(axis=2) for view in (sample.image, sample.right))
    forward, backward = np.abs(left[y, x] - right[y, x - d]), np.abs(left[y, x] - right[y, x + d])
    return float(backward.mean() - forward.mean())


def test_swap_keeps_the_sign_of_disparity_and_joint_inverts_it(synth, pairs):
    """Invariant of ADU-Depth's stereo teacher: x_left - x_right > 0 in every sample."""
    from adubench.datasets.kitti import KittiRaw

    facts, _ = KittiRaw(synth).intrinsics(pairs[0].key.date)
    product = facts.fx * facts.baseline_m
    calm = replace(SETTINGS, size=(64, 160), degrees=0.0, photometric=0.0)
    for flip in (0.0, 1.0):
        for frame in pairs[:4]:
            assert disparity_agreement(stereo_pairs.make_sample(frame, replace(calm, flip=flip)), product) > 2
    wrong = replace(pairs[0], flip="joint")
    assert disparity_agreement(stereo_pairs.make_sample(wrong, replace(calm, flip=1.0)), product) < -2


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_is_one_sentence(pairs, tmp_path, workers):
    bad = tmp_path / "bad.png"
    bad.write_bytes(pairs[0].image_path.read_bytes()[:2000])
    frames = [*pairs[:6], replace(pairs[6], image_path=bad), *pairs[7:]]
    with pytest.raises(DataError) as found:
        stream(frames, workers=workers)
    assert str(bad) in str(found.value)
    assert "\n" not in str(found.value)
    assert "Traceback" not in str(found.value)


def test_a_dead_worker_is_one_sentence(pairs):
    class Killer(Fake):
        def image(self):
            import os
            import signal

            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(DataError, match="a loader process died"):
        stream([Killer("none")] * 4, workers=1)


def test_maps_of_different_sizes_in_one_batch(pairs):
    frames = [Fake("none"), *pairs[:3]]
    data = TrainingSet(frames, replace(SETTINGS, mode="resize"))
    with pytest.raises(DataError, match=r"ground truth of different sizes .*input\.mode=crop"):
        list(make_loader(data, EpochSampler(4, 0, 4)))


def test_no_ground_truth_at_all_is_a_sample(pairs):
    class Empty(Fake):
        def codes(self):
            return np.zeros((64, 128), np.uint16)

    assert stream([Empty("none")])[0]["gt"].max() == 0


def test_codes_above_32767_survive_the_device_form(pairs):
    class Far(Fake):
        def codes(self):
            return np.full((64, 128), 65535, np.uint16)

    batches = [stream([Far("none")], form=form)[0] for form in ("float", "uint8+table")]
    assert same(*batches)
    assert batches[0]["gt"].max() == 65535 / 256


def test_to_device_applies_tables(pairs):
    data = TrainingSet(pairs, SETTINGS, seed=3)
    batch = next(iter(make_loader(data, EpochSampler(len(pairs), 3, 4), form="uint8+table")))
    assert batch["image_u8"].dtype == torch.uint8
    assert same(to_device(batch, "cpu"), stream(pairs)[0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_tables_on_a_gpu_give_the_same_bits(pairs):
    data = TrainingSet(pairs, SETTINGS, seed=3)
    batch = next(iter(make_loader(data, EpochSampler(len(pairs), 3, 4), form="uint8+table")))
    there = {k: v.cpu() if k != "frames" else v for k, v in to_device(batch, "cuda").items()}
    assert same(there, stream(pairs)[0])


def test_everything_can_be_sent_to_spawned_workers(pairs):
    import pickle

    data = pickle.loads(pickle.dumps(TrainingSet(pairs, SETTINGS, seed=3)))
    here, there = data.sample(0, 1), TrainingSet(pairs, SETTINGS, seed=3).sample(0, 1)
    np.testing.assert_array_equal(here.image, there.image)
    loader = make_loader(data, EpochSampler(len(pairs), 3, 4), workers=1)
    assert pickle.dumps((loader.loader.collate_fn, loader.loader.worker_init_fn))


def test_an_interrupt_from_the_terminal_does_not_kill_workers(pairs):
    import os
    import signal

    data = TrainingSet(pairs, SETTINGS, seed=3)
    loader = make_loader(data, EpochSampler(len(pairs), 3, 2), workers=1, prefetch=1)
    batches = iter(loader)
    next(batches)
    (worker,) = batches.gi_frame.f_locals["batches"]._workers
    os.kill(worker.pid, signal.SIGINT)
    assert len(list(batches)) == 5
