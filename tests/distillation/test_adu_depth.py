"""The sum of eq. 9: golden values and gradients, invariants, and the one term that each setting changes."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from adubench.distillation.adapters import AdaptationSet  # noqa: E402
from adubench.distillation.adu_config import DistillationConfig  # noqa: E402
from adubench.distillation.adu_depth import TERMS, adu_losses, gradient_shares, term_weights  # noqa: E402
from adubench.errors import UsageError  # noqa: E402
from tests.distillation.adu_cases import (  # noqa: E402
    DECODER,
    ENCODER,
    assert_close,
    first_not_finite,
    golden,
    leaf,
    random_gt,
    random_output,
)

VARIANTS = {
    "full": {},
    "no_focal": {"lambda": {"focal": 0}},
    "no_uem": {"uem": {"enabled": False}},
    "no_uem_no_focal": {"uem": {"enabled": False}, "lambda": {"focal": 0}},
}


def config_of(**values):
    return DistillationConfig.from_mapping(values)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("variant", VARIANTS)
def test_golden_total(variant, dtype):
    case = golden("total_loss", dtype)
    levels = {"features": {"encoder": [0, 1], "decoder": [0, 1]}, "adapter": {"kind": "identity"}}
    config = config_of(**levels, **VARIANTS[variant])
    ds, z, maps = leaf(case["ds"]), leaf(case["z"]), [leaf(case[f"fs{i}"]) for i in range(4)]
    s_quarter = -4 + 8 * torch.sigmoid(z)
    s = torch.nn.functional.interpolate(s_quarter, scale_factor=4, mode="bilinear", align_corners=False)
    student = SimpleNamespace(depth=ds, s=s, s_quarter=s_quarter, encoder=maps[:2], decoder=maps[2:])
    theirs = [case[f"ft{i}"] for i in range(4)]
    teacher = SimpleNamespace(depth=case["dt"], s=None, s_quarter=None, encoder=theirs[:2], decoder=theirs[2:])
    channels = ([m.shape[1] for m in maps[:2]], [m.shape[1] for m in maps[2:]])
    parts = adu_losses(student, teacher, case["gt"], AdaptationSet(channels, channels, config), config)
    parts["loss"].backward()
    want = case[f"{variant}_components"]
    feature = parts["feature_encoder"] + parts["feature_decoder"]
    focal = parts["focal"] if config.lambda_.focal else torch.zeros((), dtype=dtype)
    for found, value in zip((parts["base"], parts["response"], feature, focal, parts["loss"]), want, strict=True):
        assert_close(found, value, dtype)
    assert_close(ds.grad, case[f"{variant}_grad_ds"], dtype)
    for i, m in enumerate(maps):
        assert_close(m.grad, case[f"{variant}_grad_f{i}"], dtype)
    if config.uem.enabled:
        assert_close(z.grad, case[f"{variant}_grad_z"], dtype)
    else:
        assert z.grad is None


def setting(**values):
    """Parts of one seeded batch under a configuration: adapters are not at their start, so that their kind shows."""
    config = config_of(**values)
    torch.manual_seed(0)
    adapters = AdaptationSet((ENCODER, DECODER), (ENCODER, DECODER), config)
    student, teacher = random_output(1), random_output(2, uncertain=False)
    with torch.no_grad():
        return adu_losses(student, teacher, random_gt(3), adapters, config), config


def test_zero_uncertainty_is_half_and_root_two_of_the_plain_terms():
    student, teacher, gt = random_output(1), random_output(2), random_gt(3)
    student = dataclasses.replace(student, s=torch.zeros_like(student.s), s_quarter=torch.zeros_like(student.s_quarter))
    found = {}
    for on in (True, False):
        config = config_of(uem={"enabled": on})
        adapters = AdaptationSet((ENCODER, DECODER), (ENCODER, DECODER), config)
        with torch.no_grad():
            found[on] = adu_losses(student, teacher, gt, adapters, config)
    for part in ("feature_encoder", "feature_decoder"):
        assert float(found[True][part]) == pytest.approx(0.5 * float(found[False][part]), rel=1e-6)
    want = math.sqrt(2) * float(found[False]["response"])
    assert float(found[True]["response"]) == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize(
    ("delta", "changed"),
    [
        ({"lambda": {"focal": 0}}, set()),
        ({"lambda": {"umr": 0.1}}, set()),
        ({"features": {"encoder": [], "decoder": []}}, {"feature_encoder", "feature_decoder"}),
        ({"features": {"encoder": [0]}}, {"feature_encoder"}),
        ({"features": {"decoder": [1, 2]}}, {"feature_decoder"}),
        ({"adapter": {"zero_init": False}}, {"feature_encoder", "feature_decoder"}),
        ({"adapter": {"kind": "conv3x3", "zero_init": False}}, {"feature_encoder", "feature_decoder"}),
        ({"feature": {"channel_reduction": "sum"}}, {"feature_encoder", "feature_decoder"}),
        ({"feature": {"level_reduction": "sum"}}, {"feature_encoder", "feature_decoder"}),
        ({"uem": {"enabled": False}}, {"response", "feature_encoder", "feature_decoder"}),
        ({"uem": {"resize": "nearest"}}, {"feature_encoder", "feature_decoder"}),
        ({"response": {"laplace_form": "log_variance"}}, {"response"}),
        ({"response": {"mask": "valid"}}, {"response"}),
        ({"response": {"resolution": "quarter"}}, {"response"}),
        ({"response": {"space": "log"}}, {"response"}),
        ({"response": {"space": "inverse"}}, {"response"}),
        ({"response": {"reduction": "sum"}}, {"response"}),
        ({"focal": {"gamma": 0.5}}, {"focal"}),
        ({"focal": {"alpha": 0.25}}, {"focal"}),
        ({"focal": {"granularity": "pixel"}}, {"focal"}),
        ({"focal": {"granularity": "batch"}}, {"focal"}),
        ({"focal": {"score": "exp"}}, {"focal"}),
        ({"focal": {"mask": "valid"}}, {"focal"}),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_a_setting_changes_its_own_terms_and_no_other(delta, changed):
    reference, config = setting()
    found, other = setting(**delta)
    assert {name for name in TERMS if not torch.equal(found[name], reference[name])} == changed
    for parts, c in ((reference, config), (found, other)):
        weights = term_weights(c)
        total = sum(weights[name] * float(parts[name]) for name in TERMS)
        assert float(parts["loss"]) == pytest.approx(total, rel=1e-6)
    assert float(found["loss"]) != float(reference["loss"])


def test_the_identity_adapter_is_the_attention_adapter_at_its_start():
    attention, _ = setting()
    identity, _ = setting(adapter={"kind": "identity"})
    for name in TERMS:
        assert torch.equal(attention[name], identity[name])


def test_without_distillation_only_the_base_loss_is_left():
    config = config_of(enabled=False)
    student = random_output(1, uncertain=False)
    parts = adu_losses(student, None, random_gt(3), None, config)
    assert set(parts) == {"loss", "base", "n_valid"}
    assert torch.equal(parts["loss"], parts["base"])


def test_warm_up_scales_the_three_weights_together():
    student, teacher, gt = random_output(1), random_output(2), random_gt(3)
    config = config_of(warmup_steps=4)
    adapters = AdaptationSet((ENCODER, DECODER), (ENCODER, DECODER), config)
    found = [adu_losses(student, teacher, gt, adapters, config, step) for step in (0, 2, 4)]
    first, half, whole = (float((p["loss"] - p["base"]).detach()) for p in found)
    assert first == 0
    assert half == pytest.approx(whole / 2, rel=1e-5)
    assert [float(p["ramp"]) for p in found] == [0, 0.5, 1]


def test_no_gradient_reaches_the_teacher_and_all_parts_of_the_student_have_one():
    student, teacher = random_output(1, grad=True), random_output(2, grad=True)
    config = DistillationConfig()
    adapters = AdaptationSet((ENCODER, DECODER), (ENCODER, DECODER), config)
    adu_losses(student, teacher, random_gt(3), adapters, config)["loss"].backward()
    assert all(t.grad is None for t in (teacher.depth, teacher.s_quarter, *teacher.encoder, *teacher.decoder))
    for t in (student.depth, student.s_quarter, *student.encoder, *student.decoder):
        assert float(t.grad.abs().max()) > 0


def test_a_batch_without_ground_truth_still_distils():
    student, teacher = random_output(1, grad=True), random_output(2)
    gt = torch.zeros(2, 1, 64, 96)
    config = config_of(response={"mask": "valid"}, focal={"mask": "valid"})
    adapters = AdaptationSet((ENCODER, DECODER), (ENCODER, DECODER), config)
    parts = adu_losses(student, teacher, gt, adapters, config)
    parts["loss"].backward()
    assert int(parts["n_valid"]) == 0
    assert [float(parts[k].detach()) for k in ("base", "response", "focal")] == [0, 0, 0]
    assert first_not_finite(parts) is None
    assert torch.isfinite(student.depth.grad).all()


def test_uncertainty_of_a_learned_gain_is_bounded():
    student, teacher = random_output(1), random_output(2)
    wild = dataclasses.replace(student, s=student.s - 1000, s_quarter=student.s_quarter - 1000)
    config = config_of(uem={"scaling": "gain"})
    adapters = AdaptationSet((ENCODER, DECODER), (ENCODER, DECODER), config)
    assert first_not_finite(adu_losses(wild, teacher, random_gt(3), adapters, config)) is None
    unbounded = adu_losses(wild, teacher, random_gt(3), adapters, DistillationConfig())
    assert first_not_finite(unbounded) == "feature_encoder"


def test_losses_are_float32_under_autocast():
    student, teacher, gt = random_output(1), random_output(2), random_gt(3)
    config = DistillationConfig()
    adapters = AdaptationSet((ENCODER, DECODER), (ENCODER, DECODER), config)
    plain = adu_losses(student, teacher, gt, adapters, config)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = adu_losses(student, teacher, gt, adapters, config)
    assert all(mixed[name].dtype == torch.float32 for name in TERMS)
    for name in ("base", "response", "focal"):
        assert torch.equal(mixed[name], plain[name])


def test_what_is_missing_is_said():
    student, teacher, gt = random_output(1, uncertain=False), random_output(2), random_gt(3)
    config = DistillationConfig()
    adapters = AdaptationSet((ENCODER, DECODER), (ENCODER, DECODER), config)
    with pytest.raises(UsageError, match="no uncertainty head"):
        adu_losses(student, teacher, gt, adapters, config)
    with pytest.raises(UsageError, match="needs a teacher"):
        adu_losses(student, None, gt, adapters, config)
    with pytest.raises(UsageError, match="must see the same image size"):
        adu_losses(random_output(1), random_output(2, size=(64, 128)), gt, adapters, config)


def test_gradient_shares_add_up():
    student, teacher = random_output(1, grad=True), random_output(2)
    config = DistillationConfig()
    adapters = AdaptationSet((ENCODER, DECODER), (ENCODER, DECODER), config)
    parts = adu_losses(student, teacher, random_gt(3), adapters, config)
    shares = gradient_shares(parts, config, student.depth)
    assert set(shares) == set(TERMS)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["feature_encoder"] == 0
    assert min(shares["base"], shares["response"], shares["focal"]) > 0
    parts["loss"].backward()


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"focal": {"granularity": "batch"}, "response": {"mask": "valid"}},
        {"focal": {"granularity": "pixel", "mask": "valid"}, "feature": {"level_reduction": "sum"}},
    ],
    ids=str,
)
def test_two_processes_give_the_loss_and_the_gradient_of_one(values):
    """Half a batch each, of unlike numbers of valid pixels; sums over processes are exchanged as with gloo or NCCL."""
    config = config_of(**values)
    adapters = AdaptationSet((ENCODER, DECODER), (ENCODER, DECODER), config)
    whole, teacher, gt = random_output(1, grad=True), random_output(2), random_gt(3)
    gt[1, :, :40] = 0
    expected = adu_losses(whole, teacher, gt, adapters, config)
    expected["loss"].backward()

    def part(output, k):
        return SimpleNamespace(
            depth=output.depth[k : k + 1],
            s=output.s[k : k + 1],
            s_quarter=output.s_quarter[k : k + 1],
            encoder=[m[k : k + 1] for m in output.encoder],
            decoder=[m[k : k + 1] for m in output.decoder],
        )

    split = random_output(1, grad=True)
    recorded: list[list[torch.Tensor]] = [[], []]
    for k in range(2):  # what each process would contribute
        adu_losses(
            part(split, k), part(teacher, k), gt[k : k + 1], adapters, config,
            all_reduce=lambda stats, k=k: recorded[k].append(stats) or stats,
        )  # fmt: skip
    for k in range(2):  # every process sees the same sums; here both graphs are at hand
        sums = iter([a + b for a, b in zip(*recorded, strict=True)])
        found = adu_losses(
            part(split, k), part(teacher, k), gt[k : k + 1], adapters, config, all_reduce=lambda _, it=sums: next(it)
        )
        for name in (*TERMS, "p_d", "s_mean", "n_valid"):
            assert float(found[name].detach()) == pytest.approx(float(expected[name].detach()), rel=1e-5)
    found["loss"].backward()
    torch.testing.assert_close(split.depth.grad, whole.depth.grad, rtol=1e-4, atol=1e-8)
    for a, b in zip(split.encoder + split.decoder, whole.encoder + whole.decoder, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-8)
