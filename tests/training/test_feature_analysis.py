"""`adubench analyze features` on small random networks."""

import json
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from adubench.recipes.recipe import load_recipe  # noqa: E402
from adubench.training.build import build_network, stage_objective  # noqa: E402
from adubench.training.checkpoint import load_network  # noqa: E402
from tests.checkpoints import make_checkpoint  # noqa: E402
from tests.conftest import assert_one_sentence  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pairs of images of two drives in KITTI's layout, a student, its teacher and its adapters."""
    root = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(0)
    lines = []
    for drive in ("2011_09_26_drive_0001_sync", "2011_09_26_drive_0002_sync"):
        for camera in ("image_02", "image_03"):
            for k in range(4):
                path = root / "data" / "2011_09_26" / drive / camera / "data" / f"{k:010d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 255, (64, 96, 3), dtype=np.uint8)).save(path)
        lines += [f"2011_09_26/{drive} {k} l" for k in range(4)]
    (root / "list.txt").write_text("\n".join(lines) + "\n")
    recipe = load_recipe("smoke", ["data.kb_crop=false"])
    values = json.loads(recipe.model_dump_json(by_alias=True))
    (root / "run").mkdir()
    student = root / "run" / "student.safetensors"
    make_checkpoint(root / "teacher.safetensors", build_network(recipe, "teacher", None).config, seed=1)
    teacher, _ = load_network(root / "teacher.safetensors")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        objective = stage_objective(recipe, "student", teacher)
    config = objective.network.config
    make_checkpoint(student, config, seed=2, recipe=values)
    save_file(objective.extras.state_dict(), root / "run" / "adapters-last.safetensors")
    return root


@pytest.fixture
def run_cli(capsys, monkeypatch, tmp_path):
    """The command line in this process: torch is loaded once."""
    from adubench.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, ended.value.code or 0, out, err)

    return run


def _analyse(run_cli, folder, *more):
    return run_cli(
        "analyze", "features", folder / "run" / "student.safetensors", folder / "teacher.safetensors",
        "--split", folder / "list.txt", "--data-root", folder / "data", "--tokens", 400, "--perm", 50,
        "--device", "cpu", *more,
    )  # fmt: skip


def test_levels_before_and_after(run_cli, folder, tmp_path):
    done = _analyse(run_cli, folder, "--format", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found["levels"]) == ["e4", "e8", "e16", "e32", "d4", "d8", "d16", "d32"]
    assert found["n_images"] == 8
    assert found["n_clusters"] == 2
    assert found["adapters"].endswith("adapters-last.safetensors")
    level = found["levels"]["e4"]
    assert level["fd_before"] > level["fd_floor"] >= 0
    assert 0 <= level["cka_before"] <= 1
    assert 0 < level["mmd_p_before"] <= 1
    assert {"fd_after", "cka_after", "mse_after", "closed", "closed_ci"} <= level.keys()
    assert level["fd_before"] == pytest.approx(level["fd_mean_before"] + level["fd_cov_before"])
    table = _analyse(run_cli, folder, "--levels", "e4,d32", "--format", "markdown", "-o", "table.md")
    assert table.returncode == 0, table.stderr
    text = (tmp_path / "table.md").read_text()
    assert "| e4 |" in text
    assert "| d32 |" in text
    assert "e16" not in text


def test_a_student_against_itself_has_no_gap_when_paired(run_cli, folder):
    student = folder / "alone" / "student.safetensors"  # no adapters beside it
    student.parent.mkdir()
    shutil.copy(folder / "run" / "student.safetensors", student)
    done = run_cli(
        "analyze", "features", student, student, "--split", folder / "list.txt", "--data-root", folder / "data",
        "--sampling", "paired", "--tokens", 400, "--levels", "e4", "--device", "cpu", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    level = json.loads(done.stdout)["levels"]["e4"]
    assert level["fd_before"] == pytest.approx(0, abs=1e-5)
    assert level["mmd_before"] == pytest.approx(0, abs=1e-9)
    assert level["cka_before"] == pytest.approx(1)
    assert level["mse_before"] == 0


def test_bad_input_is_one_sentence(run_cli, folder, tmp_path):
    assert_one_sentence(_analyse(run_cli, folder, "--levels", "e5"), 2, "e5", "e4")
    assert_one_sentence(_analyse(run_cli, folder, "--images", 2), 2, "4 images")
    assert_one_sentence(_analyse(run_cli, folder, "--adapters", "nowhere.safetensors"), 1, "nowhere.safetensors")
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    assert_one_sentence(_analyse(run_cli, folder, "--adapters", tmp_path / "other.safetensors"), 1, "not the adapters")
    arguments = ("--split", folder / "list.txt", "--data-root", folder / "data")
    swapped = run_cli(
        "analyze", "features", folder / "teacher.safetensors", folder / "run" / "student.safetensors", *arguments
    )
    assert_one_sentence(swapped, 1, "stereo")
    assert_one_sentence(
        run_cli("analyze", "features", "a.safetensors", "b.safetensors", *arguments), 1, "a.safetensors"
    )
    bad = folder / "run" / "nan.safetensors"
    with torch.no_grad():
        network, info = load_network(folder / "run" / "student.safetensors")
        next(iter(network.encoder.parameters())).fill_(float("nan"))
    from adubench.training.checkpoint import save_checkpoint

    save_checkpoint(bad, network, info=info)
    done = run_cli("analyze", "features", bad, folder / "teacher.safetensors", *arguments, "--tokens", 400)
    assert_one_sentence(done, 1, "level e4, student", "NaN")
