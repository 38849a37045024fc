"""Training packs: the samples of loose files bit for bit, and a sentence when they cannot serve."""

from __future__ import annotations

import os
import pickle
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from adubench.commands.data import command
from adubench.datasets.stereo_pairs import make_sample
from adubench.datasets.synthdrive import write_dataset
from adubench.datasets.training_frames import training_frames
from adubench.datasets.training_packing import pack_frames, packed_frames
from adubench.datasets.transforms import Augmentation
from adubench.errors import DataError, UsageError
from adubench.io.training_pack import TrainingPack

SETTINGS = Augmentation((48, 96))
D = "2011_09_26_drive_0001"


@pytest.fixture(scope="module")
def synth(tmp_path_factory):
    root = tmp_path_factory.mktemp("synth")
    write_dataset(root, drives=1, frames=12, size=(64, 128))
    return root


@pytest.fixture(scope="module")
def loose(synth):
    return training_frames("synthdrive.train", synth, stereo=True)


@pytest.fixture
def packed(loose, tmp_path):
    pack_frames(loose, tmp_path / "train.h5")
    return tmp_path / "train.h5"


def equal(one, other):
    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.codes, other.codes)
    np.testing.assert_array_equal(one.table, other.table)
    assert (one.right is None) == (other.right is None)
    if one.right is not None:
        np.testing.assert_array_equal(one.right, other.right)


def test_samples_are_those_of_loose_files(loose, packed):
    found = packed_frames(packed, split="synthdrive.train", stereo=True)
    assert (found.names, found.sha256, found.flip) == (loose.names, loose.sha256, loose.flip)
    assert found.dropped.counts == loose.dropped.counts
    assert found.describe() == loose.describe()
    flips = 0
    for a, b in zip(loose.frames, found.frames, strict=True):
        for epoch in range(6):
            one, other = (make_sample(f, SETTINGS, epoch=epoch) for f in (a, b))
            equal(one, other)
            flips += not np.array_equal(one.image, make_sample(a, replace(SETTINGS, flip=0.0), epoch=epoch).image)
    assert flips > 2


def test_single_images_and_rules_from_a_pack_of_pairs(synth, packed):
    single = packed_frames(packed)
    assert (single.stereo, single.flip) == (False, "single")
    for a, b in zip(training_frames("synthdrive.train", synth).frames, single.frames, strict=True):
        equal(make_sample(a, SETTINGS), make_sample(b, SETTINGS))
    assert packed_frames(packed, stereo=True, flip_rule="joint").flip == "joint"
    assert packed_frames(packed, stereo=True, flip_rule="none").flip == "none"


def test_a_pack_can_be_sent_to_workers(packed):
    frame = packed_frames(packed).frames[0]
    before = frame.image().copy()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(frame)).image(), before)


def test_samples_in_workers(loose, packed):
    pytest.importorskip("torch")
    from adubench.training.data import TrainingSet, make_loader
    from adubench.training.sampler import EpochSampler

    found = packed_frames(packed, stereo=True)
    batches = [
        next(iter(make_loader(TrainingSet(frames.frames, SETTINGS), EpochSampler(2, 0, 2), workers=workers)))
        for frames, workers in ((loose, 0), (found, 1))
    ]
    assert all((batches[0][key] == batches[1][key]).all() for key in ("image", "right", "gt"))


def kitti(root, shape=(375, 1242)):
    rng = np.random.default_rng(0)
    image = root / "2011_09_26" / f"{D}_sync" / "image_02" / "data" / "0000000005.png"
    truth = root / f"{D}_sync" / "proj_depth" / "groundtruth" / "image_02" / "0000000005.png"
    for path, values in (
        (image, rng.integers(0, 256, (*shape, 3)).astype(np.uint8)),
        (truth, rng.integers(0, 9000, shape).astype(np.uint16)),
    ):
        path.parent.mkdir(parents=True)
        Image.fromarray(values).save(path, compress_level=0)
    (root / "list.txt").write_text(f"2011_09_26/{D}_sync 5 l\n")
    return training_frames(str(root / "list.txt"), root)


def test_kitti_windows_and_full_frames(tmp_path):
    frames = kitti(tmp_path)
    settings = Augmentation()
    for window, size in ((True, (352, 1216)), (False, (375, 1242))):
        out = tmp_path / f"{window}.h5"
        pack_frames(frames, out, window=window)
        found = packed_frames(out)
        assert found.frames[0].image().shape[:2] == size
        with pytest.raises(DataError, match=r"not other\.txt"):
            packed_frames(out, split="other.txt")
        equal(make_sample(frames.frames[0], settings), make_sample(found.frames[0], settings))
    with pytest.raises(DataError, match=r"holds KITTI's windows, but data\.kb_crop is off"):
        packed_frames(tmp_path / "True.h5", use_window=False)
    whole = replace(settings, kb_crop=False)
    found = packed_frames(tmp_path / "False.h5", split="/another/machine/list.txt", use_window=False)
    equal(make_sample(frames.frames[0], whole), make_sample(found.frames[0], whole))


def test_up_to_date_and_stale(synth, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(synth, root)
    frames = training_frames("synthdrive.train", root)
    out = tmp_path / "train.h5"
    assert pack_frames(frames, out).written
    assert not pack_frames(frames, out).written
    assert pack_frames(frames, out, force=True).written
    source = frames.frames[0].image_path
    os.utime(source, ns=(1, 1))
    assert packed_frames(out), "another time with the same content is not stale"
    Image.fromarray(np.zeros((64, 128, 3), np.uint8)).save(source)
    with pytest.raises(DataError, match=rf"1 source files changed since, first .*{source.name}; make it again with"):
        packed_frames(out)
    assert "source files changed" in pack_frames(frames, out).reason
    assert packed_frames(out).frames[0].image().max() == 0
    shutil.rmtree(root)
    assert len(packed_frames(out)) == 2, "a pack serves where its sources are not"


def test_packs_that_cannot_serve(loose, packed, tmp_path):
    with pytest.raises(DataError, match=r"holds synthdrive\.train, not eigen_train; make it again"):
        packed_frames(packed, split="eigen_train")
    single = tmp_path / "single.h5"
    pack_frames(training_frames("synthdrive.train", loose.frames[0].image_path.parents[4]), single)
    with pytest.raises(DataError, match=r"no right images, which stereo training needs; .* --stereo"):
        packed_frames(single, stereo=True)
    with pytest.raises(DataError, match="no such file"):
        packed_frames(tmp_path / "nothing.h5")
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["maps"] = np.zeros((2, 3))
    with pytest.raises(DataError, match="no training pack; make one with"):
        packed_frames(other)
    with pytest.raises(DataError, match="exists and is no training pack"):
        pack_frames(loose, other)
    with pytest.raises(UsageError, match="unknown flip rule"):
        packed_frames(packed, flip_rule="mirror")


@pytest.mark.parametrize("keep", [0.2, 0.6, 0.99])
def test_a_cut_off_pack_is_refused(packed, keep):
    data = packed.read_bytes()
    packed.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(DataError, match="training pack"):
        packed_frames(packed)


def test_images_are_stored_contiguous_and_uncompressed(packed):
    pack = TrainingPack(packed)
    with h5py.File(packed) as file:
        assert file["image"].chunks is None
        assert file["image"].dtype == np.uint8
        assert file["codes"].dtype == np.uint16
    assert not pack.read(0, "image").flags.owndata


def test_maps_of_another_size_stop_packing(tmp_path):
    frames = kitti(tmp_path, (40, 64))
    Image.fromarray(np.ones((41, 64), np.uint16)).save(frames.frames[0].codes_path)
    with pytest.raises(DataError, match="its codes has 41x64 pixels, its image 40x64"):
        pack_frames(frames, tmp_path / "train.h5")
    assert not (tmp_path / "train.h5").exists()
    assert not list(tmp_path.glob(".*.part"))


def invoke(*arguments):
    done = CliRunner().invoke(command, [str(a) for a in arguments], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done


def test_command(synth, tmp_path):
    out = tmp_path / "train.h5"
    arguments = ("pack", "--training", "synthdrive.train", "--stereo", "--data-root", synth, "-o", out)
    done = invoke(*arguments)
    assert f"written: {out} (2 pairs)" in done.output
    assert "note: 10 frames left out" in done.output
    assert "up to date" in invoke(*arguments).output
    assert packed_frames(out, stereo=True).flip == "swap"
    dense = tmp_path / "dense.h5"
    invoke("pack", "--training", "synthdrive.train", "--ground-truth", "depth", "--data-root", synth, "-o", dense)
    assert len(packed_frames(dense)) == 12


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (("--archival",), "--archival does not go with --training"),
        (("--split", "eigen"), "--split does not go with --training"),
        (("somewhere",), "SOURCE somewhere does not go with"),
        (("-o", "train.npz"), "a training pack is an HDF5 file"),
    ],
)
def test_command_with_options_of_other_packs(synth, extra, words):
    with pytest.raises(UsageError, match=words):
        invoke("pack", "--training", "synthdrive.train", "--data-root", synth, "-o", "train.h5", *extra)
