"""From any teacher to a table: maps, a student, evaluation, comparison of families; official weights both ways."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from adubench.models import densedepth  # noqa: E402
from tests.checkpoints import MONODEPTH2, NEWCRFS, make_checkpoint, save_image  # noqa: E402
from tests.nyu import nyu_tree  # noqa: E402

TEACHER = """
import numpy as np
KIND = "depth"
def predict(image):
    rows = np.linspace(60, 4, image.shape[0], dtype=np.float32)[:, None]
    return np.repeat(rows, image.shape[1], axis=1)
"""
QUICK = ("input.height=32", "input.width=64", "model.n_bins=17", "train.steps=1", "train.batch_size=2",
         "validate.split=null")  # fmt: skip


@pytest.fixture
def small_student(monkeypatch):
    narrow = replace(densedepth.STUDENTS["resnet18"], widths=(128, 8, 8, 8, 8))
    monkeypatch.setitem(densedepth.STUDENTS, "resnet18", narrow)


def settings(*changes):
    return [part for change in changes for part in ("--set", change)]


def test_any_teacher_to_a_comparison_of_families(call, synth, tmp_path, small_student):
    (tmp_path / "teacher.py").write_text(TEACHER)
    root = ("--data-root", synth)
    done = call("predict", "teacher.py", "--layout", "tie-kd", "--split", "synthdrive.train", *root, "-o", "maps")
    assert done.returncode == 0, done.stderr
    train = ("train", "demo-tie-kd", *root, *settings(*QUICK))
    dry = call(*train, "--teacher-maps", "maps", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "densedepth resnet18" in dry.stdout
    assert "a teacher's maps (maps)" in dry.stdout
    assert "without the loss" in dry.stdout
    missing = call(*train, "--dry-run")
    assert missing.returncode == 1
    assert "write them with adubench predict TEACHER --layout tie-kd --split synthdrive.train" in missing.stderr
    done = call(*train, "--teacher-maps", "maps", "-o", "run", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    make_checkpoint(tmp_path / "newcrfs.safetensors", NEWCRFS)
    make_checkpoint(tmp_path / "md2.safetensors", MONODEPTH2)
    families = {
        "tie-kd": "run/student/checkpoint-last.safetensors", "newcrfs": "newcrfs.safetensors", "md2": "md2.safetensors"
    }  # fmt: skip
    for name, source in families.items():
        done = call("eval", source, "--split", "synthdrive", *root, "-o", f"{name}.json", "--alignment", "median")
        assert done.returncode == 0, done.stderr
    results = [f"{name}.json" for name in families]
    done = call("compare", *results, "--baseline", "newcrfs.json", "--format", "json")
    assert done.returncode == 0, done.stderr
    compared = json.loads(done.stdout)["comparisons"]
    assert len(compared) == 2
    assert all(np.isfinite(entry["regions"]["all"]["abs_rel"]["delta"]) for entry in compared)


def test_nyu_from_teacher_maps_to_a_score(call, tmp_path, small_student):
    """The layout of BTS from end to end: maps of whole frames coded for 10 m, training's crop, the protocol's crop."""
    from adubench.recipes.recipe import load_recipe
    from adubench.training.build import open_data

    root = nyu_tree(tmp_path / "nyu")
    codes = np.full((480, 640), 9000, np.uint16)  # a border that no score may see
    codes[45:471, 41:601] = 2500
    codes[45:471, 41:60] = 10000  # not below 10 m
    codes[100, 100:110] = 1  # not above 1 mm
    Image.fromarray(codes).save(root / "official_splits/test/bath/sync_depth_00000.png")
    (tmp_path / "teacher.py").write_text(TEACHER.replace("60, 4", "2, 2"))
    done = call("eval", "teacher.py", "--split", "nyu", "--data-root", root, "--allow-missing", "-o", "nyu.json")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "nyu.json").read_text())
    assert result["summary"]["abs_rel"] == pytest.approx(0.2)
    assert result["per_image"]["n_pixels"] == [(471 - 45) * (601 - 60) - 10]
    maps = ("predict", "teacher.py", "--layout", "tie-kd", "--split", "nyu_train", "--data-root", root, "-o", "maps")
    assert call(*maps, "--max-depth", "10").returncode == 0
    recipe = load_recipe("tie-kd-nyu-resnet18-bts", ["teacher_maps.path=maps", "model.init=random"])
    sample = open_data(recipe, "student", root).samples.sample(0, 0)
    assert sample.image.shape == (3, 416, 544)
    assert sample.teacher[sample.teacher_mask] == pytest.approx(2.0, abs=10 / 65535)
    dry = call("train", "tie-kd-nyu-resnet18-bts", "--data-root", root, "--teacher-maps", "maps", "--dry-run",
               *settings("model.init=random"))  # fmt: skip
    assert dry.returncode == 0, dry.stderr
    assert call(*maps[:-1], "kitti-coded").returncode == 0
    dry = call("train", "tie-kd-nyu-resnet18-bts", "--data-root", root, "--teacher-maps", "kitti-coded", "--dry-run",
               *settings("model.init=random"))  # fmt: skip
    assert dry.returncode == 1
    assert "max_depth 80 m, the recipe 10 m" in dry.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("tie-kd", {"family": "densedepth", "encoder": "resnet18", "n_bins": 257}),
        ("bts", {"family": "bts", "encoder": "resnet50", "width": 512}),
        ("adabins", {"family": "adabins"}),
    ],
)
def test_official_weights_go_both_ways(call, tmp_path, family, config):
    make_checkpoint(tmp_path / "ours.safetensors", config)
    done = call("import-weights", family, "ours.safetensors", "--to-official", "-o", "official.pth")
    assert done.returncode == 0, done.stderr
    for name in (family, "auto"):
        done = call("import-weights", name, "official.pth", "-o", f"again-{name}.safetensors")
        assert done.returncode == 0, done.stderr
    size = (352, 384) if family == "adabins" else (64, 96)
    save_image(tmp_path / "image.png", size)
    for name in ("ours", "again-auto"):
        done = call("predict", f"{name}.safetensors", "image.png", "-o", name, "--format", "npy", "--no-flip")
        assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(tmp_path / "ours/image.npy"), np.load(tmp_path / "again-auto/image.npy"))
    wrong = call("import-weights", "newcrfs", "ours.safetensors", "--to-official", "-o", "x.pth")
    assert wrong.returncode == 2
    assert f"holds a network of family '{family}', not 'newcrfs'" in wrong.stderr
