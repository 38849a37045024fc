"""Steps of TIE-KD, its baselines and its teachers: parts, learning, and what they refuse."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from adubench.datasets.frames import kitti_frame  # noqa: E402
from adubench.datasets.teacher_maps import (  # noqa: E402
    TeacherRecord,
    frames_sha256,
    open_teacher_maps,
    write_record,
    write_teacher_png,
)
from adubench.datasets.tie_kd_transforms import TieKDAugmentation  # noqa: E402
from adubench.distillation.tie_kd import TieKDConfig  # noqa: E402
from adubench.errors import DataError, UsageError  # noqa: E402
from adubench.models import bts, zoo  # noqa: E402
from adubench.models.adabins import AdaBinsOutput  # noqa: E402
from adubench.training.sampler import EpochSampler  # noqa: E402
from adubench.training.teacher_map_data import TeacherMapSet, collate, make_teacher_map_loader  # noqa: E402
from adubench.training.tie_kd_objectives import (  # noqa: E402
    AdaBinsTraining,
    BTSTraining,
    ResponseKD,
    SparseSI,
    TieKD,
)

CONFIG = TieKDConfig(ignore_top_rows=4)


def student(head="dpm"):
    torch.manual_seed(0)
    return zoo.build({"family": "densedepth", "encoder": "resnet18", "head": head, "n_bins": 17})


def batch(h=32, w=48):
    generator = torch.Generator().manual_seed(1)
    rows = torch.linspace(60, 3, h)[:, None].expand(2, 1, h, w).clone()
    gt = torch.where(torch.rand(2, 1, h, w, generator=generator) < 0.2, rows, torch.tensor(0.0))
    mask = torch.ones_like(gt, dtype=torch.bool)
    image = torch.randn(2, 3, h, w, generator=generator)
    return {"image": image, "gt": gt, "teacher": rows, "teacher_mask": mask, "frames": ["a", "b"]}


def steps(objective, data, count=6, lr=1e-4):
    objective.train()
    optimiser = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=lr)
    losses = []
    for step in range(count):
        parts = objective(data, step)
        optimiser.zero_grad()
        parts["loss"].backward()
        optimiser.step()
        losses.append(parts["loss"].item())
    return losses, parts


def test_tie_kd_learns_and_reports_its_parts():
    losses, parts = steps(TieKD(student(), CONFIG), batch(), 3)
    assert losses[-1] < losses[0]
    expected = 10 * (0.1 * parts["l_dpm"] + 0.9 * parts["l_depth"])
    assert torch.allclose(parts["loss"], expected)


def test_two_runs_are_one_run():
    first, second = (steps(TieKD(student(), CONFIG), batch(16, 32), 2)[0] for _ in range(2))
    assert first == second


def test_ground_truth_does_not_enter_tie_kd():
    objective, data = TieKD(student(), CONFIG).eval(), batch()
    with torch.no_grad():
        loss = objective(data, 0)["loss"]
        assert torch.equal(loss, objective({**data, "gt": data["gt"] * 0}, 0)["loss"])
        assert objective.pictures(data).keys() == {"depth", "teacher"}


def test_the_mask_counts_as_intended_and_not_as_released():
    data = batch()
    masked = {**data, "teacher_mask": data["teacher_mask"] & (torch.arange(48) > 9)}
    network = student().eval()
    with torch.no_grad():
        values = {
            rotate: [
                TieKD(network, TieKDConfig(ignore_top_rows=4, rotate_teacher=rotate))(d, 0) for d in (data, masked)
            ]
            for rotate in (True, False)
        }
    assert not torch.equal(values[True][0]["loss"], values[True][1]["loss"])
    assert torch.equal(values[False][0]["loss"], values[False][1]["loss"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mse", "si", "ssim", "ssim+si", "ssim+mse"])
def test_response_baselines_learn(kind):
    losses, _ = steps(ResponseKD(student("regression"), kind), batch(), 3, lr=2e-5)
    assert losses[-1] < losses[0]


def test_baseline_without_a_teacher():
    losses, parts = steps(SparseSI(student("regression"), warm_up=1), batch(), 3)
    assert losses[1] > losses[0]
    assert parts["n_valid"] == (batch()["gt"] > 0).sum()


@pytest.mark.parametrize("layout", ["official", "toolbox"])
def test_adabins_losses(layout):
    with torch.device("meta"):
        network = zoo.build({"family": "adabins", "layout": layout})
    edges = torch.linspace(1, 80, 9).repeat(2, 1).requires_grad_()
    depth = torch.full((2, 1, 16, 24), 20.0, requires_grad=True)
    network.forward = lambda images: AdaBinsOutput(edges, depth)
    parts = AdaBinsTraining(network)(batch(), 0)
    assert torch.allclose(parts["loss"], parts["silog"] + 0.1 * parts["chamfer"])
    parts["loss"].backward()
    assert edges.grad.abs().sum() > 0
    assert depth.grad.abs().sum() > 0


def test_bts_trains_its_decoder_with_the_focal_length():
    torch.manual_seed(0)
    objective = BTSTraining(bts.build({"encoder": "resnet50", "width": 128}))
    data = {**batch(32, 64), "focal": torch.tensor([721.5, 707.0])}
    losses, parts = steps(objective, data, 2, lr=1e-3)
    assert losses[-1] < losses[0]
    assert parts["n_valid"] > 0
    assert objective.network.encoder.base_model.conv1.weight.grad is None


@pytest.mark.parametrize("make", [lambda: TieKD(student("regression"), CONFIG), lambda: ResponseKD(student(), "l1")])
def test_misfits_are_refused(make):
    with pytest.raises(UsageError, match=r"head=dpm|response loss"):
        make()


def test_a_batch_without_teacher_maps_is_refused():
    data = {key: value for key, value in batch().items() if "teacher" not in key}
    with pytest.raises(UsageError, match="teacher maps"):
        TieKD(student(), CONFIG)(data, 0)


class Files:
    """A frame in memory."""

    flip, stereo, kitti, window, scale = "single", False, True, None, 256.0

    def __init__(self, index):
        self.key = kitti_frame("2011_09_26_drive_0002", index)
        self.name = self.key.name

    def image(self):
        return np.random.default_rng(self.key.index).integers(0, 255, (40, 60, 3), np.uint8)

    def codes(self):
        return np.full((40, 60), 2560, np.uint16)


@pytest.fixture
def training_set(tmp_path):
    frames = [Files(i) for i in range(5)]
    record = TeacherRecord("t", 80.0, "demo", frames_sha256(f.name for f in frames), 5)
    for f in frames:
        depth = np.full((40, 60), 10.0 + f.key.index, np.float32)
        drive = "2011_09_26/2011_09_26_drive_0002_sync/image_02/data"
        write_teacher_png(tmp_path, f"{drive}/{f.key.index:010d}.png", depth, record)
    write_record(tmp_path, record)
    maps = open_teacher_maps(tmp_path)
    stems = maps.check_complete({f.name: f.key.aliases() for f in frames})
    return TeacherMapSet(frames, maps, stems, TieKDAugmentation((32, 48)), seed=3)


def test_batches_hold_the_right_maps(training_set):
    sampler = EpochSampler(5, seed=3, batch=2)
    loaded = list(make_teacher_map_loader(training_set, sampler))
    assert loaded
    for found in loaded:
        assert found["image"].shape == (len(found["frames"]), 3, 32, 48)
        assert found["gt"].shape == found["teacher"].shape == found["teacher_mask"].shape
        for name, teacher, mask in zip(found["frames"], found["teacher"], found["teacher_mask"], strict=True):
            assert torch.allclose(teacher[mask], torch.tensor(10.0 + int(name[-10:])), atol=2e-3)


def test_samples_depend_on_seed_epoch_and_frame_only(training_set):
    one, again, other = training_set.sample(0, 1), training_set.sample(0, 1), training_set.sample(1, 1)
    np.testing.assert_array_equal(one.image, again.image)
    assert not np.array_equal(one.image, other.image)


def test_a_damaged_map_is_one_sentence(training_set):
    stem = training_set.stems[training_set.frames[2].name]
    (training_set.maps.root / f"{stem}.png").write_bytes(b"no")
    unreadable = collate([training_set[0, 2]])
    assert stem in unreadable.message
    with pytest.raises(DataError, match=stem):
        list(make_teacher_map_loader(training_set, EpochSampler(5, seed=3, batch=2)))
