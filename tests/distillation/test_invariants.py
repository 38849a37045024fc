"""What must hold for networks under distillation: NeWCRFs at its smallest, one step of training."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from adubench.distillation.adapters import AdaptationSet  # noqa: E402
from adubench.distillation.adu_config import DistillationConfig  # noqa: E402
from adubench.distillation.adu_depth import TERMS, adu_losses  # noqa: E402
from adubench.models import zoo  # noqa: E402
from adubench.models.newcrfs import level_channels  # noqa: E402
from adubench.models.teacher_init import load_compatible  # noqa: E402
from tests.distillation.adu_cases import first_not_finite, random_gt  # noqa: E402

SIZE = (64, 96)
UNCERTAIN = {"scaling": "affine", "s_min": -4.0, "s_max": 4.0, "laplace_form": "printed"}


def network(**config):
    return zoo.build({"family": "newcrfs", "variant": "mini", "drop_path": 0.1, **config})


def pair(seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(2, 6, *SIZE, generator=g)


@pytest.fixture(scope="module")
def trained():
    """Student, teacher and adapters after one step, and what was before."""
    torch.manual_seed(0)
    student, teacher = network(uncertainty=UNCERTAIN), network(in_channels=6)
    teacher.eval().requires_grad_(False)
    config = DistillationConfig()
    adapters = AdaptationSet(level_channels(student), level_channels(teacher), config)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    start = {name: value.clone() for name, value in student.state_dict().items()}
    optimizer = torch.optim.Adam([*student.parameters(), *adapters.parameters()], 1e-3)
    student.train()
    views = pair()
    with torch.no_grad():
        theirs = teacher(views)
    parts = adu_losses(student(views[:, :3]), theirs, random_gt(1, size=SIZE), adapters, config)
    parts["loss"].backward()
    optimizer.step()
    return {
        "student": student.eval(),
        "teacher": teacher,
        "adapters": adapters,
        "teacher before": before,
        "student before": start,
        "parts": parts,
    }


def test_a_teacher_that_sees_one_view_twice_is_the_mono_network():
    torch.manual_seed(1)
    mono, stereo = network().eval(), network(in_channels=6).eval()
    load_compatible(stereo, mono.state_dict(), patch_init="half_repeat")
    left = pair()[:, :3]
    with torch.no_grad():
        a, b = mono(left), stereo(torch.cat([left, left], 1))
    torch.testing.assert_close(a.depth, b.depth, rtol=1e-5, atol=1e-4)
    for x, y in zip(a.encoder + a.decoder, b.encoder + b.decoder, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4)


def test_adapters_start_as_the_identity_on_real_features():
    torch.manual_seed(2)
    student = network(uncertainty=UNCERTAIN).eval()
    adapters = AdaptationSet(level_channels(student), level_channels(student))
    with torch.no_grad():
        out = student(pair()[:, :3])
        encoder, decoder = adapters(out.encoder, out.decoder)
    for a, b in zip(encoder + decoder, out.encoder + out.decoder, strict=True):
        assert torch.equal(a, b)
    assert float(out.s.abs().max()) == 0, "the uncertainty head starts at s = 0"


def test_the_teacher_has_no_gradient_and_the_same_bits_after_a_step(trained):
    assert all(p.grad is None for p in trained["teacher"].parameters())
    for name, value in trained["teacher"].state_dict().items():
        assert torch.equal(value, trained["teacher before"][name]), name


def test_the_step_moved_student_uncertainty_head_and_adapters(trained):
    after = trained["student"].state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, trained["student before"][name])}
    assert any(name.startswith("encoder.") for name in changed)
    assert any(name.startswith("uncertainty_head.") for name in changed)
    assert all(float(a.output.weight.detach().abs().max()) > 0 for a in trained["adapters"].encoder.values())
    assert first_not_finite(trained["parts"]) is None
    assert all(float(trained["parts"][name].detach()) != 0 for name in TERMS)


def test_inference_of_the_student_knows_no_adapters(trained):
    student = trained["student"]
    left = pair(5)[:, :3]
    plain = zoo.build(student.config).eval()
    plain.load_state_dict(student.state_dict())
    with torch.no_grad():
        trained["adapters"](*[getattr(student(left), part) for part in ("encoder", "decoder")])
        assert torch.equal(student.infer(left).depth, plain.infer(left).depth)
    assert not any("adapt" in name for name in student.state_dict())


def test_a_checkpoint_of_the_student_loads_strictly(trained, tmp_path):
    from safetensors.torch import load_file, save_file

    student = trained["student"]
    save_file(
        {name: value.contiguous() for name, value in student.state_dict().items()}, tmp_path / "student.safetensors"
    )
    state = load_file(tmp_path / "student.safetensors")
    zoo.build(student.config).load_state_dict(state, strict=True)
    without_head = zoo.build(student.config | {"uncertainty": None})
    load_compatible(without_head, state)
    left = pair(6)[:, :3]
    with torch.no_grad():
        assert torch.equal(without_head.eval()(left).depth, student(left).depth)


def test_sizes_that_the_network_pads(trained):
    """Features of the padded image are compared as they are; depth, uncertainty and truth have the image's size."""
    config = DistillationConfig.from_mapping({"response": {"resolution": "quarter", "mask": "valid"}})
    student, teacher = trained["student"], trained["teacher"]
    views = torch.randn(1, 6, 50, 70, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        parts = adu_losses(
            student(views[:, :3]), teacher(views), random_gt(2, 1, (50, 70)), trained["adapters"], config
        )
    assert first_not_finite(parts) is None


def test_a_student_of_another_width_learns_from_a_wider_teacher():
    torch.manual_seed(3)
    wide = {"embed_dim": 16, "depths": [2, 2, 2, 2], "heads": [1, 2, 4, 8], "crf_widths": [16, 24, 32, 48],
            "crf_heads": [2, 2, 4, 4], "psp_width": 16}  # fmt: skip
    student, teacher = network(uncertainty=UNCERTAIN), network(variant=wide, in_channels=6).eval()
    config = DistillationConfig()
    adapters = AdaptationSet(level_channels(student), level_channels(teacher), config)
    views = pair()
    with torch.no_grad():
        theirs = teacher(views)
    parts = adu_losses(student(views[:, :3]), theirs, random_gt(1, size=SIZE), adapters, config)
    parts["loss"].backward()
    assert first_not_finite(parts) is None
