"""The stereo teacher: patch kernels for six channels, and the four ways to join two views."""

import pytest

torch = pytest.importorskip("torch")

from adubench.errors import CheckpointError  # noqa: E402
from adubench.models.fusion import FUSIONS, EpipolarFusion, correlation  # noqa: E402
from adubench.models.teacher_init import load_compatible, mono_kernel, stereo_kernel  # noqa: E402
from adubench.models.zoo import build  # noqa: E402
from tests.models.newcrfs_golden import golden, redraw  # noqa: E402

MINI = {"family": "newcrfs", "variant": "mini"}
SIAMESE = [name for name in FUSIONS if name != "concat6"]


def _views(seed=0, size=(64, 96)):
    return torch.randn(2, 1, 3, *size, generator=torch.Generator().manual_seed(seed)).unbind(0)


@pytest.mark.parametrize("init", ["half_repeat", "left_only", "repeat"])
def test_patch_kernels_are_the_golden_ones(init):
    arrays = golden("teacher_patch_embed")
    kernel = stereo_kernel(arrays["w3"], init)
    assert torch.equal(kernel, arrays[f"w6_{init}"])
    pair = torch.cat([arrays["left"], arrays["right"]], 1)
    y = torch.nn.functional.conv2d(pair, kernel, arrays["bias"], stride=4)
    torch.testing.assert_close(y, arrays[f"y_{init}"], rtol=1e-9, atol=1e-12)
    same = torch.cat([arrays["left"], arrays["left"]], 1)
    y = torch.nn.functional.conv2d(same, kernel, arrays["bias"], stride=4)
    equals_mono = torch.allclose(y, arrays["y_mono_left"], rtol=1e-9, atol=1e-12)
    assert equals_mono == (init != "repeat")


def test_a_random_kernel_has_torchs_default_spread_and_its_generator_decides():
    w = torch.zeros(64, 3, 4, 4)
    a, b = (stereo_kernel(w, "random", generator=torch.Generator().manual_seed(s)) for s in (1, 1))
    assert torch.equal(a, b)
    bound = torch.nn.Conv2d(6, 64, 4).weight.detach().abs().max()
    assert a.abs().max() <= 96**-0.5
    assert a.abs().max() == pytest.approx(float(bound), rel=0.01)


@pytest.mark.parametrize("init", ["half_repeat", "left_only", "repeat"])
def test_the_mono_kernel_undoes_all_but_repeat(init):
    w = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    factor = 2 if init == "repeat" else 1
    assert torch.equal(mono_kernel(stereo_kernel(w, init)), factor * w)


def test_half_repeat_with_equal_views_equals_the_mono_network():
    student = redraw(build(MINI)).eval()
    teacher = build(MINI | {"in_channels": 6}).eval()
    load_compatible(teacher, student.state_dict(), patch_init="half_repeat")
    left, right = _views()
    with torch.no_grad():
        mono = student(left).depth
        torch.testing.assert_close(teacher(torch.cat([left, left], 1)).depth, mono, rtol=0, atol=1e-3)
        assert (teacher(torch.cat([left, right], 1)).depth - mono).abs().max() > 0.1


def test_left_only_ignores_the_right_view_at_the_start():
    student = redraw(build(MINI)).eval()
    teacher = build(MINI | {"in_channels": 6}).eval()
    load_compatible(teacher, student.state_dict(), patch_init="left_only")
    left, right = _views()
    with torch.no_grad():
        pair = teacher(torch.cat([left, right], 1)).depth
        torch.testing.assert_close(pair, student(left).depth, rtol=0, atol=1e-3)


@pytest.mark.parametrize("fusion", SIAMESE)
def test_two_encoders_start_as_the_mono_network(fusion):
    student = redraw(build(MINI)).eval()
    teacher = build(MINI | {"in_channels": 6, "fusion": fusion}).eval()
    load_compatible(teacher, student.state_dict())
    left, right = _views()
    with torch.no_grad():
        pair = teacher(torch.cat([left, right], 1))
        mono = student(left)
    torch.testing.assert_close(pair.depth, mono.depth, rtol=0, atol=1e-3)
    assert [f.shape for f in pair.encoder] == [f.shape for f in mono.encoder]


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_right_view_learns_and_changes_the_output(fusion):
    teacher = redraw(build(MINI | {"in_channels": 6, "fusion": fusion, "drop_path": 0.0}))
    assert teacher.input_rule.channels == 6
    assert teacher.flip == "none"
    left, right = _views(size=(50, 70))
    right.requires_grad_()
    out = teacher(torch.cat([left, right], 1))
    assert out.depth.shape == (1, 1, 50, 70)
    out.depth.mean().backward()
    assert right.grad.abs().max() > 0
    assert all(p.grad is not None for p in teacher.parameters())


def test_correlation_finds_the_disparity():
    generator = torch.Generator().manual_seed(0)
    right = torch.randn(1, 16, 3, 40, generator=generator)
    left = torch.zeros_like(right)
    left[..., 5:] = right[..., :-5]  # a point at x in the left view is at x - 5 in the right one
    cosines = correlation(left, right, 12)
    assert cosines.shape == (1, 12, 3, 40)
    assert torch.equal(cosines[..., 5:].argmax(1), torch.full((1, 3, 35), 5))
    torch.testing.assert_close(cosines[:, 5, :, 5:], torch.ones(1, 3, 35))
    assert torch.equal(cosines[:, 7, :, :7], torch.zeros(1, 3, 7)), "nothing is compared beyond the border"


def test_epipolar_attention_stays_on_its_row():
    fusion = EpipolarFusion(64)
    assert fusion.heads == 2
    torch.nn.init.normal_(fusion.out.weight, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    left, right = torch.randn(2, 1, 64, 4, 9, generator=generator)
    changed = right.clone()
    changed[:, :, 2] += 1
    with torch.no_grad():
        moved = (fusion(left, changed) - fusion(left, right)).abs().amax((0, 1, 3))
    assert (moved > 1e-4).tolist() == [False, False, True, False]


def test_a_student_starts_from_its_teacher():
    teacher = redraw(build(MINI | {"in_channels": 6}))
    student = build(MINI | {"uncertainty": {}})
    load_compatible(student, teacher.state_dict())
    kernel = teacher.encoder.patch_projection.weight
    assert torch.equal(student.encoder.patch_projection.weight, kernel[:, :3] + kernel[:, 3:])
    assert torch.equal(student.crf0.norm_crf.weight, teacher.crf0.norm_crf.weight)
    assert student.uncertainty_head.conv.weight.abs().max() == 0


def test_a_trained_students_weights_load_strictly_into_the_plain_student():
    trained = redraw(build(MINI | {"uncertainty": {}}))
    again = build(trained.config)
    again.load_state_dict(trained.state_dict(), strict=True)
    plain = build(MINI)
    load_compatible(plain, trained.state_dict())
    assert all(torch.equal(value, trained.state_dict()[key]) for key, value in plain.state_dict().items())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("crf1.norm_crf.bias"), "lack 'crf1.norm_crf.bias'"),
        (lambda s: s.update(extra=torch.zeros(1)), "'extra' besides"),
        (lambda s: s.update({"disp_head1.conv1.bias": torch.zeros(2)}), "choose the encoder"),
    ],
)
def test_weights_of_another_network_are_refused(change, words):
    state = dict(build(MINI).state_dict())
    change(state)
    with pytest.raises(CheckpointError, match=words):
        load_compatible(build(MINI), state)
