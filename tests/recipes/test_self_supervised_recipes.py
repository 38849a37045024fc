"""Recipes of Monodepth2, HR-Depth, DIFFNet and SUB-Depth: published numbers, switches, faults, schedule."""

import pytest

from adubench.errors import UsageError
from adubench.recipes.recipe import RECIPES, load_recipe, needs_teacher, recipe_digest, stages_to_run

# The poster of SUB-Depth: method, and the table of objective weights.
POSTER = {
    "monodepth2-m": (0.115, 0.903, 4.863, 0.193, 0.877, 0.959, 0.981),
    "sub-depth-monodepth2": (0.110, 0.821, 4.648, 0.185, 0.884, 0.962, 0.983),
    "hr-depth-m": (0.109, 0.792, 4.632, 0.185, 0.884, 0.962, 0.983),
    "sub-depth-hr-depth": (0.106, 0.770, 4.545, 0.182, 0.888, 0.963, 0.983),
    "diffnet-m": (0.102, 0.764, 4.483, 0.180, 0.896, 0.965, 0.983),
    "sub-depth-diffnet": (0.099, 0.695, 4.326, 0.175, 0.900, 0.966, 0.984),
}
WEIGHTS = {
    (0.0, 1.0): (0.112, 0.884, 4.740, 0.189, 0.881, 0.961, 0.982),
    (0.2, 0.8): (0.110, 0.855, 4.724, 0.188, 0.881, 0.961, 0.982),
    (0.4, 0.6): (0.112, 0.866, 4.736, 0.189, 0.881, 0.961, 0.982),
    (0.5, 0.5): (0.112, 0.888, 4.766, 0.189, 0.882, 0.961, 0.981),
    (0.6, 0.4): (0.113, 0.876, 4.774, 0.189, 0.884, 0.962, 0.983),
    (0.8, 0.2): (0.113, 0.885, 4.799, 0.190, 0.882, 0.961, 0.981),
    (1.0, 0.0): (0.115, 0.903, 4.863, 0.193, 0.877, 0.959, 0.981),
}
METRICS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "d1", "d2", "d3")
OURS = [name for name in RECIPES if load_recipe(name).self_supervision]


@pytest.mark.parametrize("name", POSTER)
def test_every_row_of_the_poster_has_a_recipe_with_its_numbers(name):
    recipe = load_recipe(name)
    assert recipe.expected == dict(zip(METRICS, POSTER[name], strict=True))
    assert (recipe.test.split, recipe.test.protocol) == ("eigen", "kitti-eigen-raw")
    assert recipe.data.train == "eigen_zhou.train"
    assert (recipe.self_supervised.height, recipe.self_supervised.width) == (192, 640)
    expected = ("teacher", "student") if name.startswith("sub-depth") else ("student",)
    assert stages_to_run(recipe) == expected


@pytest.mark.parametrize("weights", WEIGHTS)
def test_every_pair_of_fixed_weights_has_a_recipe(weights):
    recipe = load_recipe("sub-depth-weights-{:02.0f}-{:02.0f}".format(*(10 * w for w in weights)))
    assert recipe.expected == dict(zip(METRICS, WEIGHTS[weights], strict=True))
    assert recipe.sub_depth.loss_mode == "weighted"
    assert (recipe.sub_depth.w_pho, recipe.sub_depth.w_reg) == weights
    assert needs_teacher(recipe) == (weights[1] > 0)


@pytest.mark.parametrize(
    ("name", "frames", "stereo", "train", "alignment"),
    [
        ("monodepth2-m", (0, -1, 1), False, "eigen_zhou.train", ""),
        ("monodepth2-ms", (0, -1, 1), True, "eigen_zhou.train", "[alignment=fixed:5.4]"),
        ("monodepth2-s", (0,), True, "eigen_full.train", "[alignment=fixed:5.4]"),
    ],
)
def test_sources_split_and_scale_of_the_three_supervisions(name, frames, stereo, train, alignment):
    """A mono network is scaled by medians, a stereo network by the baseline: 0.54 m stand for 0.1."""
    from adubench.evaluators.protocols import get_protocol

    recipe = load_recipe(name)
    section = recipe.self_supervised
    assert (section.frame_ids, section.use_stereo, recipe.data.train) == (frames, stereo, train)
    assert recipe.test.protocol == f"kitti-eigen-raw{alignment}"
    assert get_protocol(recipe.test.protocol).alignment == (alignment[11:-1] or "median")


@pytest.mark.parametrize("name", ["monodepth2-m", "sub-depth-monodepth2", "hr-depth-ms", "diffnet-m"])
def test_adam_has_its_own_defaults_and_nothing_beside_it(name):
    train = load_recipe(name).train
    assert (train.optimizer, train.betas, train.eps) == ("adam", (0.9, 0.999), 1e-8)
    assert (train.weight_decay, train.clip_norm, train.precision) == (0, None, "fp32")


@pytest.mark.parametrize("base", ["monodepth2-m", "hr-depth-m"])
def test_larger_images_go_on_from_the_smaller_network(base):
    small, large = load_recipe(base), load_recipe(f"{base}-1024x320")
    assert (large.self_supervised.height, large.self_supervised.width) == (320, 1024)
    assert large.self_supervised.init == f"checkpoint:{base}.safetensors"
    train = {"epochs": 5, "lr": 1e-5, "schedule": "constant"}
    assert large.train == small.train.model_copy(update=train)
    changed = {"init": large.self_supervised.init, "height": 320, "width": 1024}
    assert large.self_supervised == small.self_supervised.model_copy(update=changed)
    assert (large.data, large.validate_, large.test) == (small.data, small.validate_, small.test)


def test_diffnet_trains_large_images_from_the_start():
    """Its best epoch at that size comes right after the drop of the rate, so there is one."""
    small, large = load_recipe("diffnet-m"), load_recipe("diffnet-m-1024x320")
    assert large.train == small.train.model_copy(update={"batch_size": 8})
    assert large.self_supervised == small.self_supervised.model_copy(update={"height": 320, "width": 1024})


def test_the_rate_drops_by_the_index_of_the_epoch():
    """Epochs 0 to 14 at the full rate, 15 to 19 at a tenth: not one epoch early, as the same code on newer torch."""
    pytest.importorskip("torch")
    from adubench.training.schedules import lr_factor

    for name, last in (("monodepth2-m", 14), ("diffnet-m", 13)):
        train = load_recipe(name).train
        factors = [lr_factor(train, epoch * 100 + 99, 2000, 100) for epoch in range(20)]
        assert factors == pytest.approx([1.0] * (last + 1) + [0.1] * (19 - last))
        assert lr_factor(train, (last + 1) * 100, 2000, 100) == pytest.approx(0.1)


@pytest.mark.parametrize("name", OURS)
def test_a_written_recipe_is_read_again_as_it_was(name, tmp_path):
    import yaml

    recipe = load_recipe(name)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.plain(), sort_keys=False))
    again = load_recipe(path)
    assert again == recipe
    assert recipe_digest(again) == recipe_digest(recipe)
    assert "distill" not in recipe.plain()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("self_supervised.height=100", r"100 must be a multiple of 32 and at least 64.*96 and 128"),
        ("self_supervised.height=32", r"at least 64.*64 and 96"),
        ("self_supervised.familly=diffnet", r"did you mean 'family'"),
        ("self_supervised.family=md2", r"Expected monodepth2, hr-depth, hr-depth-lite or diffnet"),
        ("self_supervised.num_layers=20", r"expected 18, 34, 50, 101 or 152, got 20"),
        ("self_supervised.frame_ids=[0]", r"no source to compare with.*use_stereo"),
        ("self_supervised.frame_ids=[-1, 0]", r"expected 0 and then different offsets"),
        ("self_supervised.scales=[1, 2]", r"ascending order with 0"),
        ("self_supervised.predictive_mask=true", r"automask: false"),
        ("self_supervised.min_depth=200", r"must be below max_depth 100"),
        ("sub_depth.sigma_min=1", r"expected a number < 1"),
        ("sub_depth.w_reg=0.5", r"loss_mode: weighted only"),
        ("distill.focal.gamma=1", r"method sub-depth does not read this section"),
        ("method=adu-depth", r"method adu-depth does not read this section"),
    ],
)
def test_faults_name_the_key_and_what_was_expected(change, words):
    with pytest.raises(UsageError, match=words):
        load_recipe("sub-depth-monodepth2", [change] + ["self_supervised.width=320"] * (change == "method=adu-depth"))


@pytest.mark.parametrize(
    ("family", "change", "words"),
    [
        ("diffnet", "self_supervised.pose_model_type=shared", "features of a ResNet"),
        ("diffnet", "self_supervised.num_layers=50", "has its own encoder"),
        ("hr-depth", "self_supervised.scales=[0]", "always predicts"),
        ("hr-depth-lite", "self_supervised.init=imagenet", "no ImageNet weights for hr-depth-lite"),
    ],
)
def test_networks_without_a_part_say_so(family, change, words):
    with pytest.raises(UsageError, match=words):
        load_recipe("monodepth2-m", [f"self_supervised.family={family}", change])


def test_both_weights_zero_learn_nothing():
    with pytest.raises(UsageError, match="nothing is learned"):
        load_recipe("sub-depth-weights-10-00", ["sub_depth.w_pho=0"])


def test_sections_of_other_methods_do_not_change_a_digest():
    """Recipes of ADU-Depth keep the digests they had before there was self-supervision."""
    assert not {"self_supervised", "sub_depth"} & load_recipe("demo").plain().keys()
