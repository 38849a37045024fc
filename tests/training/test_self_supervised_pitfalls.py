"""What a step of the self-supervised methods must not "mend": which image goes where, what gets a gradient."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from adubench.models import resnet_encoder  # noqa: E402
from adubench.models.hrnet import HRNetEncoder  # noqa: E402
from adubench.recipes.recipe import load_recipe  # noqa: E402
from adubench.training.build import build_network, build_optimizer, stage_objective  # noqa: E402
from adubench.training.self_supervised_build import find_triplets  # noqa: E402
from adubench.training.self_supervised_objectives import reconstruct  # noqa: E402
from adubench.training.triplet_data import collate_triplets  # noqa: E402
from tests.self_supervised import DRIVE, write_drive  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = (
    "self_supervised.family=hr-depth-lite",
    "self_supervised.pose_model_type=posecnn",
    "self_supervised.frame_ids=[0,-1,1]",
    "self_supervised.height=64",
    "self_supervised.width=64",
    "self_supervised.per_drive_intrinsics=false",
    "self_supervised.jitter=1",
    "validate.split=null",
)
RESNET = ("self_supervised.family=monodepth2", "self_supervised.init=random")


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    root = tmp_path_factory.mktemp("kitti")
    write_drive(root)
    (root / "list.txt").write_text("".join(f"{DRIVE[:10]}/{DRIVE}_sync {frame} l\n" for frame in range(1, 5)))
    return root


def load(name, root, *changes):
    return load_recipe(name, [*TINY, f"data.train={root / 'list.txt'}", *changes])


def batch_of(recipe, root):
    samples = find_triplets(recipe, root).samples
    return collate_triplets([samples[0, k] for k in range(2)])


def inputs_of(module):
    """Collect what a module is called with."""
    seen = []
    module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    return seen


def unit(batch, key):
    return batch[key].permute(0, 3, 1, 2).float() / 255


def test_losses_compare_clean_images_and_networks_see_jittered_ones(drive):
    recipe = load("demo-monodepth2", drive, "self_supervised.noise_std=0")
    objective = stage_objective(recipe, "student", None).eval()
    batch = batch_of(recipe, drive)
    assert not torch.equal(batch["augmented/0"], batch["colour/0/0"])
    depth, motion = inputs_of(objective.network.encoder), inputs_of(objective.extras.pose.pose)
    found = reconstruct(objective.network, objective.extras, batch, objective.rule, 0)
    assert torch.equal(depth[0], unit(batch, "augmented/0"))
    assert torch.equal(motion[0], torch.cat([unit(batch, "augmented/-1"), unit(batch, "augmented/0")], 1))
    assert torch.equal(motion[1], torch.cat([unit(batch, "augmented/0"), unit(batch, "augmented/1")], 1))
    dark = {k: torch.zeros_like(v) if k.startswith("augmented") else v for k, v in batch.items()}
    other = reconstruct(objective.network, objective.extras, dark, objective.rule, 0)
    for scale, part in found.losses.items():  # what is not warped depends on no network
        assert torch.equal(part.candidates[:, :2], other.losses[scale].candidates[:, :2])
        assert not torch.equal(part.candidates[:, 2:], other.losses[scale].candidates[:, 2:])


def test_a_shared_encoder_sees_all_frames_in_one_batch_the_stereo_image_too(drive):
    """Its batch statistics depend on that."""
    changes = ("self_supervised.pose_model_type=shared", "self_supervised.use_stereo=true")
    recipe = load("demo-monodepth2", drive, *RESNET, *changes)
    objective = stage_objective(recipe, "student", None)
    batch = batch_of(recipe, drive)
    seen = inputs_of(objective.network.encoder)
    reconstruct(objective.network, objective.extras, batch, objective.rule, 0)
    (stack,) = seen
    assert torch.equal(stack, torch.cat([unit(batch, f"augmented/{f}") for f in (0, -1, 1, "s")]))


def test_masks_have_a_channel_per_source_and_a_file_of_their_own(drive):
    from adubench.models.weights.official_helpers import export_helpers

    changes = ("automask=false", "predictive_mask=true", "use_stereo=true", "scales=[0,2]")
    recipe = load("demo-monodepth2", drive, *RESNET, *(f"self_supervised.{change}" for change in changes))
    objective = stage_objective(recipe, "student", None)
    found = reconstruct(objective.network, objective.extras, batch_of(recipe, drive), objective.rule, 0)
    assert found.losses[0].candidates.shape[1] == 3
    assert found.losses[2].mask_penalty > 0
    objective.train()(batch_of(recipe, drive), 0)["loss"].backward()
    assert all(p.grad is not None for p in objective.extras.mask.parameters())
    trained = {id(p) for group in build_optimizer(objective, recipe.train).param_groups for p in group["params"]}
    assert {id(p) for p in objective.extras.mask.parameters()} <= trained
    files = export_helpers(objective.extras.state_dict())
    assert sorted(files) == ["pose", "predictive_mask"]
    assert files["predictive_mask"]["decoder.10.conv.weight"].shape == (3, 16, 3, 3)


@pytest.fixture(scope="module")
def distilled(drive):
    """One step of SUB-Depth with all frames in one stack for the poses, and a stereo source."""
    changes = ("self_supervised.pose_model_input=all", "self_supervised.use_stereo=true")
    recipe = load("demo-sub-depth", drive, "self_supervised.init=random", *changes)
    objective = stage_objective(recipe, "student", build_network(recipe, "teacher")).train()
    seen = inputs_of(objective.extras.uncertainty.ph_uncert_enc), inputs_of(objective.teacher.encoder)
    batch = batch_of(recipe, drive)
    parts = objective(batch, 0)
    parts["loss"].backward()
    return objective, batch, parts, seen


def test_sigma_pho_comes_from_temporal_pairs_whatever_the_pose_network(distilled):
    """The reference has none with `all`, and none of the stereo source."""
    _, batch, _, (pairs, _) = distilled
    expected = [("-1", "0"), ("0", "1")]
    assert len(pairs) == 2
    for pair, names in zip(pairs, expected, strict=True):
        assert torch.equal(pair, torch.cat([unit(batch, f"augmented/{name}") for name in names], 1))


def test_the_teacher_sees_the_students_jittered_frame_and_learns_nothing(distilled):
    objective, batch, _, (_, seen) = distilled
    (image,) = seen
    assert torch.equal(image, unit(batch, "augmented/0"))
    assert all(p.grad is None for p in objective.teacher.parameters())
    assert not any(key.startswith("teacher") for key in objective.state_dict())


def test_only_the_uncertainty_of_scale_0_learns(distilled):
    heads = [distilled[0].network.depth.convs[f"dispConvScale{scale}"].conv.weight.grad for scale in range(4)]
    assert [bool(grad[1].any()) for grad in heads] == [True, False, False, False]
    assert all(grad[0].any() for grad in heads)


def test_the_log_has_what_can_be_compared_between_runs(distilled):
    """The total becomes negative; un-weighted errors and mean uncertainties stand beside it."""
    _, _, parts, _ = distilled
    names = {"reconstruction", "distillation", "sigma_pho", "sigma_reg", "photometric", "l1_to_teacher"}
    assert names <= parts.keys()
    assert torch.isclose(parts["loss"], parts["reconstruction"] + parts["distillation"])
    assert all(0 < parts[name] < 1 for name in ("sigma_pho", "sigma_reg"))


def test_encoders_start_from_the_weights_of_the_references(monkeypatch):
    """Torchvision's first ImageNet set and the HRNet project's, not timm's default tags."""
    asked = []

    def create(name, **options):
        asked.append((name, options["pretrained"]))
        raise RuntimeError

    monkeypatch.setattr(resnet_encoder, "create_encoder", create)
    for encoder in (lambda: resnet_encoder.ResnetEncoder(50, 1, True), lambda: HRNetEncoder(True)):
        with pytest.raises(RuntimeError):
            encoder()
    assert asked == [("resnet50.tv_in1k", True), ("hrnet_w18.ms_in1k", True)]
