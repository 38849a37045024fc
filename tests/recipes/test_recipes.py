"""Recipes: all load, every fault is a sentence with file and line, deltas change what they name and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from adubench.errors import UsageError
from adubench.recipes.experiments import flat
from adubench.recipes.recipe import (
    RECIPES,
    load_recipe,
    needs_teacher,
    recipe_digest,
    recipe_table,
    recipe_warnings,
    stages_to_run,
)
from adubench.recipes.schema import Recipe

FREE = {"name", "about", "source"}


def write(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def fault(folder: Path, text: str) -> str:
    path = write(folder, text)
    with pytest.raises(UsageError) as caught:
        load_recipe(path)
    message = str(caught.value)
    assert message.startswith(str(path)), message
    return message.removeprefix(str(path))


def changed(name: str, base: str) -> dict[str, object]:
    own, other = (flat(load_recipe(n).plain()) for n in (name, base))
    keys = own.keys() | other.keys()
    return {k: own.get(k) for k in keys if own.get(k) != other.get(k) and k.split(".")[0] not in FREE | {"expected"}}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_loads_and_says_what_it_is(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.about
    assert recipe.source
    assert Recipe.model_validate(recipe.plain()) == recipe
    assert recipe_warnings(recipe) == ()


def test_defaults_are_those_of_the_paper() -> None:
    recipe = load_recipe("adu-kitti-eigen")
    weights = recipe.distill.lambda_
    assert (weights.umr, weights.umf, weights.focal) == (0.9, 0.6, 0.8)
    assert (recipe.train.epochs, recipe.train.batch_size, recipe.train.lr) == (40, 4, 2e-5)
    assert (recipe.input.height, recipe.input.width, recipe.input.mode) == (352, 1120, "crop")
    assert (recipe.student.encoder, recipe.teacher.encoder) == ("large07", "large07")
    assert recipe.expected["sq_rel"] == 0.147


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("adu-kitti-eigen-baseline", {"distill.enabled": False}),
        ("adu-kitti-eigen-no-focal", {"distill.lambda.focal": 0.0}),
        ("adu-kitti-eigen-no-uem", {"distill.uem.enabled": False}),
        ("adu-kitti-eigen-no-attention", {"distill.adapter.kind": "identity"}),
        ("adu-kitti-eigen-no-features", {"distill.features.encoder": [], "distill.features.decoder": []}),
        ("adu-kitti-eigen-teacher", {"stages": ["teacher"]}),
    ],
)
def test_an_ablation_changes_exactly_its_own_keys(name: str, keys: dict[str, object]) -> None:
    assert changed(name, "adu-kitti-eigen") == keys


def test_newcrfs_config_is_the_code_with_what_the_code_ignores() -> None:
    assert changed("newcrfs-config", "newcrfs-code") == {
        "train.optimizer": "adamw", "train.weight_decay": 0.01, "train.eps": 0.001
    }  # fmt: skip


def test_a_baseline_needs_no_teacher() -> None:
    assert stages_to_run(load_recipe("demo-baseline")) == ("student",)
    assert not needs_teacher(load_recipe("newcrfs-code"))
    assert stages_to_run(load_recipe("demo")) == ("teacher", "student")


def test_the_digest_is_of_what_decides_the_weights() -> None:
    digest = recipe_digest(load_recipe("demo"))
    for same in ("name=other", "train.workers=7", "data.root=/somewhere", "log.every=1", "test.split=null"):
        assert recipe_digest(load_recipe("demo", [same])) == digest
    for other in ("train.lr=1e-4", "seed=1", "distill.lambda.umr=0.1", "data.min_gt=1.0"):
        assert recipe_digest(load_recipe("demo", [other])) != digest


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("base: demo\ntrian: {lr: 1}\n", 2, "unknown key 'trian': did you mean 'train'"),
        ("base: demo\ndistill:\n  lamda:\n    umr: 1.0\n", 3, "'lamda' in 'distill': did you mean 'lambda'"),
        ("base: demo\ntrain:\n  lr: fast\n", 3, "train.lr: expected a number, got 'fast'"),
        ("base: demo\ntrain.epochs: 1.5\n", 2, "train.epochs: expected a whole number, got 1.5"),
        ("base: demo\ntrain: {lr: -1}\n", 2, "train.lr: expected a number > 0, got -1"),
        ("base: demo\ntrain: 5\n", 2, "train: expected a section with keys, got 5"),
        ("base: demo\n\nstudent:\n  encoder: large7\n", 4, "unknown value 'large7': did you mean 'large07'"),
        ("base: demo\nstudent.init: imagnet\n", 2, "expected imagenet, random, teacher or checkpoint:FILE"),
        ("base: demo\ndistill.enabled: off\n", 2, "distill.enabled: expected true or false, got 'off'"),
        ("base: demo\ndistill:\n  features:\n    encoder: [0, 7]\n", 4, "expected a number <= 3, got 7"),
        ("base: demo\nstages: [student, teacher]\n", 2, "the order is [teacher, student]"),
        ("base: demo\ninput.height: 100\n", 2, "100 is no multiple of 32"),
        ("base: demo\ntrain.accumulate: 3\n", 2, "cannot be split into 3 equal micro-batches"),
        ("base: demo\nstudent: {encoder: mini, init: teacher}\n", 2, "cannot take the weights of a teacher"),
        ("base: demo\nstudent.init: imagenet\n", 2, "there are no ImageNet weights for encoder micro"),
        ("base: demo\ndistill.adapter.kind: identity\nstudent.encoder: mini\n", 2, "identity needs equal channels"),
        ("base: demo\ndistill.uem.s_min: 9.0\n", 2, "s_min 9.0 must be below s_max 4.0"),
        ("base: demo\ntrain.betas: [0.9]\n", 2, "expected a list of another length"),
        ("base: demo\naugment.gamma: [2.0, 1.0]\n", 2, "expected two factors [low, high]"),
        ("base: demo\ndata.min_gt: 90.0\n", 2, "leaves nothing below max_depth"),
        ("base: demo\ntrain.lr: .inf\n", 2, "expected a finite number"),
        ("about: x\n", 1, "'data' is missing"),
        ("base: demo\nseed: 1\nseed: 2\n", 3, "'seed' stands twice, first in line 2"),
        ("base: demo\ntrain: {lr: [}\n", 2, "not valid YAML"),
        ("base: demo\ntrain: &x {lr: 1.0}\nteacher_train: *x\n", 3, "aliases"),
        ("- a\n- b\n", 1, "expected keys and values"),
        ("about: x\nbase: dmo\n", 2, "unknown recipe 'dmo': did you mean 'demo'"),
        ("base: 5\n", 1, "base: expected the name of a recipe"),
    ],
)  # fmt: skip
def test_a_fault_names_line_and_what_was_expected(tmp_path: Path, text: str, line: int, words: str) -> None:
    message = fault(tmp_path, text)
    assert message.startswith(f", line {line}:"), message
    assert words in message


def test_the_fault_of_an_inherited_value_names_the_base(tmp_path: Path) -> None:
    base = write(tmp_path, "base: demo\ntrain.lr: nothing\n", "base.yaml")
    top = write(tmp_path, "base: base.yaml\nseed: 3\n")
    with pytest.raises(UsageError) as caught:
        load_recipe(top)
    assert str(caught.value).startswith(f"{base}, line 2: train.lr: expected a number")


def test_recipes_that_stand_on_each_other(tmp_path: Path) -> None:
    write(tmp_path, "base: b.yaml\n", "a.yaml")
    write(tmp_path, "base: a.yaml\n", "b.yaml")
    with pytest.raises(UsageError, match=r"circle \(a -> b -> a\)"):
        load_recipe(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.lr", "expected KEY=VALUE"),
        ("lr=1", "--set lr=1: unknown key 'lr'"),
        ("train.lr=x", "--set train.lr=x: train.lr: expected a number, got 'x'"),
        ("train.lr=[", "not valid YAML"),
        ("student.encoder=larg07", "did you mean 'large07'"),
    ],
)
def test_a_wrong_override_is_named(override: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe("demo", [override])
    assert words in str(caught.value)


def test_overrides_win_and_are_yaml() -> None:
    recipe = load_recipe(
        "demo", ["train.steps=null", "train.lr=1e-3", "distill.features.encoder=[0, 1]", "train.lr=2e-3"]
    )
    assert recipe.train.steps is None
    assert recipe.train.lr == 2e-3
    assert recipe.distill.features.encoder == (0, 1)


def test_nested_and_dotted_keys_are_the_same(tmp_path: Path) -> None:
    a = load_recipe(write(tmp_path, "base: demo\ndistill.lambda.umr: 0.5\n"))
    b = load_recipe(write(tmp_path, "base: demo\ndistill:\n  lambda: {umr: 0.5}\n"))
    assert a == b
    assert a.distill.lambda_.umr == 0.5


def test_teacher_train_says_what_differs_from_train() -> None:
    recipe = load_recipe("demo", ["teacher_train.steps=7"])
    assert recipe.teacher_train is not None
    assert recipe.teacher_train.steps == 7
    assert recipe.teacher_train.lr == recipe.train.lr


def test_paper_literal_is_what_the_paper_prints_unless_said_otherwise() -> None:
    adapter = load_recipe("demo", ["distill.preset=paper-literal"]).distill.adapter
    assert (adapter.heads, adapter.scale, adapter.residual, adapter.zero_init) == (1, "none", False, False)
    assert adapter.attention == "full"
    mixed = load_recipe("demo", ["distill.preset=paper-literal", "distill.adapter.residual=true"])
    assert mixed.distill.adapter.residual
    assert any("30,720 times" in text for text in recipe_warnings(mixed))


def test_unknown_recipes_and_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'adu-kitti-eigen'"):
        load_recipe("adu-kitti-eigne")
    with pytest.raises(UsageError, match="does not exist"):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not a text file"):
        load_recipe(tmp_path / "binary.yaml")


def test_a_checkpoint_chosen_on_the_test_split_is_warned_about() -> None:
    found = recipe_warnings(load_recipe("demo", ["validate.split=synthdrive"]))
    assert any("validation and test split are both 'synthdrive'" in text for text in found)


def test_the_table_of_recipes_needs_no_torch() -> None:
    code = "import sys; from adubench.recipes.recipe import recipe_table; recipe_table(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert {row.name for row in recipe_table()} == set(RECIPES)
