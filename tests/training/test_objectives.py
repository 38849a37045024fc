"""What a step computes: teachers stay as they are, students export alone, each switch changes its own term."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from adubench.errors import UsageError  # noqa: E402
from adubench.training.build import (  # noqa: E402
    build_network,
    build_optimizer,
    network_config,
    stage_objective,
)
from adubench.training.checkpoint import CheckpointInfo, load_network, save_checkpoint  # noqa: E402
from adubench.training.objectives import needs_pairs  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(3)
    gt = torch.rand(2, 1, 64, 96, generator=generator) * 60 + 2
    gt = torch.where(torch.rand(gt.shape, generator=generator) < 0.3, gt, 0.0)
    views = torch.randn(2, 2, 3, 64, 96, generator=generator)
    return {"image": views[0], "right": views[1], "gt": gt, "frames": ["a", "b"]}


def build(recipe, stage="student"):
    teacher = build_network(recipe, "teacher") if stage == "student" else None
    return stage_objective(recipe, stage, teacher)


def losses(objective, batch, step=0):
    return {k: float(v.detach()) for k, v in objective(batch, step).items()}


def test_the_teacher_is_no_part_of_what_is_trained(recipe, batch):
    objective = build(recipe("student.drop_path=0.0"))
    teacher = objective.teacher
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    names = [name for name, _ in objective.named_parameters()]
    assert not any(p is q for p in objective.parameters() for q in teacher.parameters())
    assert {name.split(".")[0] for name in names} == {"network", "extras"}
    objective.train()
    assert not teacher.training
    optimizer = build_optimizer(objective, recipe().train)
    objective(batch, 0)["loss"].backward()
    optimizer.step()
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())


def test_every_trained_parameter_gets_a_gradient(recipe, batch):
    """Or DDP, which is told that nothing is unused, would stop."""
    cases = (
        ("distill.warmup_steps=5",),
        ("method=response",),
        ("method=supervised",),
        ("distill.uem.enabled=false",),
        ("distill.lambda.umr=0", "distill.lambda.focal=0"),
        ("distill.features.encoder=[1]", "distill.features.decoder=[]"),
        ("distill.uem.g=film", "distill.adapter.kind=conv3x3x2"),
        ("distill.response.resolution=quarter",),
    )
    for changes in cases:
        objective = build(recipe("student.drop_path=0.0", *changes)).train()
        objective(batch, 0)["loss"].backward()
        without = [name for name, p in objective.named_parameters() if p.grad is None]
        assert not without, (changes, without[:3])


def test_the_student_exports_alone(recipe, batch, tmp_path):
    objective = build(recipe())
    path = save_checkpoint(
        tmp_path / "student.safetensors", objective.network, info=CheckpointInfo(model=objective.network.config)
    )
    alone, info = load_network(path)
    assert info.family == "newcrfs"
    assert alone.input_rule.channels == 3
    network = objective.network.eval()
    with torch.no_grad():
        assert torch.equal(alone(batch["image"]).depth, network(batch["image"]).depth)


def test_one_seed_gives_one_start(recipe):
    def values(*changes):
        objective = build(recipe(*changes))
        return objective.network.state_dict() | objective.extras.state_dict()

    torch.rand(3)
    one = values()
    torch.rand(5)
    assert all(torch.equal(v, one[k]) for k, v in values().items())
    # Without adapters the student begins with the same weights: rows of an ablation differ in what they ablate.
    plain = values("method=supervised")
    assert all(torch.equal(v, one[k]) for k, v in plain.items())
    assert not all(torch.equal(v, one[k]) for k, v in values("seed=1").items())


@pytest.mark.parametrize(
    ("change", "terms"),
    [
        ("distill.lambda.focal=0", set()),
        ("distill.uem.enabled=false", {"response", "feature_encoder", "feature_decoder"}),
        ("distill.features.encoder=[]", {"feature_encoder"}),
        ("distill.focal.gamma=1", {"focal"}),
        ("distill.response.space=log", {"response"}),
        ("data.min_gt=20", {"base"}),
    ],
)
def test_a_switch_changes_its_own_term(recipe, batch, change, terms):
    still = ("student.drop_path=0.0", "distill.adapter.zero_init=true")
    before, after = (losses(build(recipe(*still, *more)), batch) for more in ((), (change,)))
    parts = ("base", "response", "feature_encoder", "feature_decoder", "focal")
    assert {name for name in parts if before[name] != after[name]} == terms
    assert before["loss"] != after["loss"]


def test_plain_response_distillation(recipe, batch):
    found = losses(build(recipe("method=response", "distill.lambda.umr=0.5")), batch)
    assert found["feature_encoder"] == found["feature_decoder"] == 0
    assert found["loss"] == pytest.approx(found["base"] + 0.5 * found["response"], rel=1e-6)


def test_warm_up_follows_the_step(recipe, batch):
    objective = build(recipe("distill.warmup_steps=10", "student.drop_path=0.0"))
    start, late = losses(objective, batch, 0), losses(objective, batch, 10)
    assert start["loss"] == pytest.approx(start["base"])
    assert late["loss"] > late["base"]


def test_a_resized_image_is_compared_at_the_size_of_its_ground_truth(recipe, batch):
    gt = nn.functional.interpolate(batch["gt"], scale_factor=1.5)
    for method in ("adu-depth", "supervised"):
        objective = build(recipe(f"method={method}", "input.mode=resize"))
        found = losses(objective, batch | {"gt": gt})
        assert found["n_valid"] == float((gt > recipe().data.min_gt).sum())


def test_who_needs_pairs(recipe):
    assert needs_pairs(recipe(), "student")
    assert needs_pairs(recipe("method=supervised"), "teacher")
    assert not needs_pairs(recipe("method=supervised"), "student")
    assert not needs_pairs(recipe("distill.enabled=false"), "student")


def test_pictures_leave_no_trace(recipe, batch):
    objective = build(recipe()).train()
    before = {k: v.clone() for k, v in objective.state_dict().items()}
    maps = objective.pictures(batch)
    assert {"depth", "teacher", "uncertainty"} <= maps.keys()
    assert all(m.shape == (2, 1, 64, 96) for m in maps.values())
    assert objective.network.training
    assert all(torch.equal(v, before[k]) for k, v in objective.state_dict().items())


def test_groups_of_the_optimiser(recipe):
    objective = build(recipe())
    (only,) = build_optimizer(objective, recipe().train).param_groups
    assert len(only["params"]) == len(list(objective.parameters()))
    train = recipe("train.optimizer=adamw", "train.encoder_lr=1.0e-5", "train.weight_decay=0.1").train
    encoder, rest = build_optimizer(objective, train).param_groups
    assert len(encoder["params"]) == len(list(objective.network.encoder.parameters()))
    assert (encoder["peak_lr"], rest["peak_lr"]) == (1e-5, train.lr)
    assert encoder["weight_decay"] == rest["weight_decay"] == 0.1
    assert len(encoder["params"]) + len(rest["params"]) == len(only["params"])


def test_a_student_that_starts_as_the_teacher(recipe):
    chosen = recipe("student.init=teacher")
    teacher = build_network(chosen, "teacher")
    student = build_network(chosen, "student", teacher)
    patch = "encoder.backbone.patch_embed.proj.weight"
    both, one = teacher.state_dict()[patch], student.state_dict()[patch]
    assert torch.equal(one, both[:, :3] + both[:, 3:])
    with pytest.raises(UsageError, match=r"student\.init=teacher needs a teacher"):
        build_network(chosen, "student")


def test_configuration_of_the_networks(recipe):
    assert network_config(recipe(), "teacher")["in_channels"] == 6
    assert "uncertainty" not in network_config(recipe("method=supervised"), "student")
    assert network_config(recipe("distill.uem.s_max=2"), "student")["uncertainty"]["s_max"] == 2
    assert "uncertainty" not in network_config(recipe("method=response"), "student")


def test_a_method_without_training(recipe):
    for method in ("supervised", "adu-depth", "response"):
        assert build(recipe(f"method={method}")) is not None


def test_activation_checkpointing_changes_memory_not_numbers(recipe, batch):
    found = []
    for change in ("student.activation_checkpointing=false", "student.activation_checkpointing=true"):
        objective = build(recipe("student.drop_path=0.2", change)).train()
        torch.manual_seed(4)
        loss = objective(batch, 0)["loss"]
        loss.backward()
        found.append((loss.detach(), [p.grad for p in objective.parameters()]))
    (plain, one), (saved, other) = found
    torch.testing.assert_close(saved, plain)
    torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


def test_the_network_compiles_without_a_new_name(recipe, batch):
    """Traced and run as it is; generating machine code takes minutes."""
    objective = build(recipe("student.drop_path=0.0")).train()
    expected, names = objective(batch, 0)["loss"], list(objective.state_dict())
    objective.network.compile(backend="eager")
    loss = objective(batch, 0)["loss"]
    loss.backward()
    torch.testing.assert_close(loss, expected)
    assert list(objective.state_dict()) == names
