"""Triplets through a loader into one step of self-supervised training."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from adubench.datasets.frames import kitti_frame  # noqa: E402
from adubench.datasets.triplets import TripletRule  # noqa: E402
from adubench.models import zoo  # noqa: E402
from adubench.models.pose import build_pose  # noqa: E402
from adubench.training.data import Unreadable  # noqa: E402
from adubench.training.photometric import PhotometricConfig, photometric_losses, total_loss  # noqa: E402
from adubench.training.triplet_data import TripletSet, collate_triplets, unpack  # noqa: E402
from tests.self_supervised import DRIVE, write_drive  # noqa: E402

RULE = TripletRule((64, 96), stereo=True)


@pytest.fixture
def data(tmp_path):
    return TripletSet(write_drive(tmp_path), [kitti_frame(DRIVE, k) for k in range(1, 6)], RULE, seed=1)


def test_images_are_rgb_in_0_1_and_each_source_has_its_place(data):
    samples = [data[0, 0], data[0, 1]]
    batch = collate_triplets(samples)
    assert batch["colour/0/0"].dtype == torch.uint8
    found = unpack(batch)
    assert list(found.colour) == [0, -1, 1, "s"]
    assert list(found.temporal) == [0, -1, 1]
    assert found.colour[0][3].shape == (2, 3, 8, 12)
    for source in (0, -1, 1, "s"):
        expected = torch.from_numpy(samples[1].colour[source, 0].copy()).permute(2, 0, 1) / 255
        assert torch.equal(found.colour[source][0][1], expected)
        expected = torch.from_numpy(samples[1].augmented[source].copy()).permute(2, 0, 1) / 255
        assert torch.equal(found.augmented[source][1], expected)
    assert found.cameras[1].K.shape == (2, 4, 4)
    assert batch["frames"] == [sample.frame for sample in samples]


def test_the_same_sample_whatever_the_workers(data):
    positions = [[(2, 3), (2, 0)], [(2, 1), (2, 2)]]
    batches = []
    for workers in (0, 2):
        loader = torch.utils.data.DataLoader(
            data, batch_sampler=positions, num_workers=workers, collate_fn=collate_triplets
        )
        batches.append(list(loader))
    for one, other in zip(*batches, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one if key != "frames")


def test_an_unreadable_sample_is_a_sentence(data):
    bad = data[0, 4]
    assert isinstance(bad, Unreadable)
    assert "neighbour +1" in bad.message
    assert collate_triplets([data[0, 0], bad]) is bad


def test_one_step_with_all_sources_reaches_every_network(data):
    batch = unpack(collate_triplets([data[0, 0], data[0, 1]]))
    network, pose = zoo.build({"family": "hr-depth-lite", "height": 64, "width": 96}), build_pose({"kind": "posecnn"})
    out = network(batch.augmented[0])
    losses = photometric_losses(
        dict(enumerate(out.disparities)), batch.views(pose(batch.temporal)), PhotometricConfig(scale_translations=True)
    )
    total = total_loss(losses)
    total.backward()
    assert torch.isfinite(total)
    assert losses[0].candidates.shape[1] == 6
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in pose.parameters())
