"""Settings of TIE-KD's release, and of AdaBins and BTS, that a well-meaning change would move."""

import pytest

from adubench.recipes.recipe import load_recipe

STUDENTS = ("mobilenetv2", "resnet18", "resnet50")
TEACHERS = ("adabins", "bts", "depthformer")


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("student", STUDENTS)
def test_students_train_as_released(student, teacher):
    recipe = load_recipe(f"tie-kd-{student}-{teacher}")
    train = recipe.train
    assert (train.optimizer, train.lr, tuple(train.betas), train.eps) == ("adamw", 1e-3, (0.95, 0.99), 1e-8)
    # one decay for everything, norms and biases too; the momentum does not follow the rate
    assert (train.weight_decay, train.encoder_weight_decay, train.momentum) == (0.01, None, None)
    assert (train.schedule, train.final_div) == ("onecycle", 100.0)
    assert (train.epochs, train.batch_size, train.clip_norm, train.precision) == (24, 16, 35.0, "fp32")
    assert train.sync_batch_norm == (student == "mobilenetv2")
    assert (recipe.model.family, recipe.model.keys["encoder"], recipe.model.keys["n_bins"]) == (
        "densedepth", student, 257
    )  # fmt: skip
    # one configuration has 1.5 and so minimises similarity: a slip
    assert recipe.tie_kd.alpha == 0.1
    assert recipe.tie_kd.sigma == (0.5 if student == "resnet50" else 0.8)
    assert (recipe.input.height, recipe.input.width, recipe.data.max_depth) == (352, 704, 80.0)


@pytest.mark.parametrize("student", STUDENTS)
def test_the_baseline_learns_from_ground_truth_and_not_from_a_teacher(student):
    recipe = load_recipe(f"tie-kd-{student}-baseline")
    assert recipe.method == "sparse-si"
    assert recipe.teacher_maps.path is None
    assert recipe.data.min_gt == 0.001


@pytest.mark.parametrize("student", STUDENTS)
def test_nyu_has_its_own_bins_width_and_range(student):
    recipe = load_recipe(f"tie-kd-nyu-{student}-adabins")
    assert (recipe.model.keys["n_bins"], recipe.tie_kd.sigma, recipe.tie_kd.dataset) == (49, 0.15, "nyu")
    assert (recipe.input.height, recipe.input.width, recipe.data.max_depth) == (416, 544, 10.0)
    assert tuple(recipe.augment.brightness) == (0.75, 1.25)
    assert (recipe.test.split, recipe.test.protocol) == ("nyu", "nyu")


def test_adabins_has_one_rate_for_both_groups():
    """The code declares a tenth for the encoder and then hands the scheduler one number."""
    train = load_recipe("adabins-kitti").train
    assert (train.lr, train.encoder_lr, train.weight_decay, train.clip_norm) == (3.57e-4, None, 0.1, 0.1)
    assert (tuple(train.momentum), train.final_div, train.epochs) == ((0.85, 0.95), 100.0, 25)


@pytest.mark.parametrize(("name", "least"), [("bts-kitti", 1.0), ("bts-kitti-densenet161", 1.0), ("bts-nyu", 0.1)])
def test_bts_decays_its_encoder_only(name, least):
    recipe = load_recipe(name)
    train = recipe.train
    assert (train.weight_decay, train.encoder_weight_decay) == (0.0, 0.01)
    assert (train.schedule, train.power, train.lr, train.end_lr) == ("poly", 0.9, 1e-4, 1e-5)
    assert (train.batch_size, train.epochs, recipe.data.min_gt) == (4, 50, least)
