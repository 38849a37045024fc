"""`adubench eval CHECKPOINT`: the numbers of predicting and scoring in two steps, in one process or several."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.checkpoints import MONODEPTH2, NEWCRFS, make_checkpoint, save_image  # noqa: E402
from tests.conftest import assert_one_sentence  # noqa: E402


@pytest.fixture(scope="module")
def place(synth, tmp_path_factory):
    """A SynthDrive and three networks."""
    root = tmp_path_factory.mktemp("place")
    (root / "sd").symlink_to(synth)
    seen = {"split": "synthdrive.test"}
    make_checkpoint(root / "nc.safetensors", {**NEWCRFS, "uncertainty": {}}, data=seen)
    make_checkpoint(root / "teacher.safetensors", {**NEWCRFS, "in_channels": 6}, role="teacher")
    make_checkpoint(root / "md2.safetensors", MONODEPTH2)
    return root


@pytest.fixture
def evaluated(call, place, tmp_path):
    """Evaluate on SynthDrive's test drives and return the stored result."""

    def run(source, *args):
        path = tmp_path / "result.json"
        source = place / source if isinstance(source, str) else source
        done = call("eval", source, "--split", "synthdrive", "--data-root", place / "sd", "-o", path, *args)
        assert done.returncode == 0, done.stderr
        return json.loads(path.read_text()), done

    return run


def test_the_numbers_are_those_of_predicting_first(evaluated, call, place, tmp_path):
    direct, done = evaluated("nc.safetensors", "--uncertainty", "--save-predictions", tmp_path / "kept")
    assert "flip blend" in done.stdout
    facts = direct["provenance"]
    assert (facts["flip"], facts["kb_crop"], facts["predictor"]["family"]) == ("blend", False, "newcrfs")
    assert direct["counts"]["evaluated"] == 3
    assert "torch" in facts["libraries"]
    beside = ("--uncertainty", "--uncertainty-maps", tmp_path / "kept_uncertainty", "--uncertainty-kind", "log_sigma")
    kept, _ = evaluated(tmp_path / "kept", *beside)
    for part in ("summary", "aggregates", "uncertainty", "counts"):
        assert direct[part] == kept[part], part
    args = ("--split", "synthdrive", "--data-root", place / "sd", "-o", "first")
    assert call("predict", place / "nc.safetensors", *args).returncode == 0
    first, _ = evaluated(tmp_path / "first")
    assert first["summary"]["abs_rel"] == pytest.approx(direct["summary"]["abs_rel"], rel=1e-5)


def test_disagreement_with_the_mirrored_image_is_a_baseline(evaluated, call, place):
    with_flip, _ = evaluated("nc.safetensors", "--uncertainty", "--flip-disagreement")
    flip = with_flip["uncertainty"]["baselines"]["flip"]
    assert 0 < flip["nause_abs_rel"] < 2
    without, _ = evaluated("nc.safetensors", "--uncertainty")
    assert not without["uncertainty"]["baselines"].get("flip")
    assert without["summary"] == with_flip["summary"]
    args = ("--split", "synthdrive", "--data-root", place / "sd", "--uncertainty", "--flip-disagreement")
    assert_one_sentence(call("eval", place / "teacher.safetensors", *args), 2, "change places in a mirrored pair")


def test_a_teacher_reads_the_other_camera(evaluated, call, place, tmp_path):
    result, done = evaluated("teacher.safetensors")
    assert "flip off" in done.stdout
    call("predict", place / "teacher.safetensors", "--split", "synthdrive", "--data-root", place / "sd", "-o", "p")
    kept, _ = evaluated(tmp_path / "p")
    assert result["summary"]["rmse"] == pytest.approx(kept["summary"]["rmse"], rel=1e-5)
    assert result["provenance"]["predictor"]["role"] == "teacher"


def test_disparity_is_aligned_by_the_median_and_says_so(evaluated):
    result, _ = evaluated("md2.safetensors")
    assert result["protocol"]["name"] == "synthdrive[alignment=median]"
    assert result["provenance"]["kind"] == "scaled-disparity"
    fixed, _ = evaluated("md2.safetensors", "--alignment", "fixed:5.4", "--flip")
    assert fixed["protocol"]["name"] == "synthdrive[alignment=fixed:5.4]"
    assert fixed["provenance"]["flip"] == "blend"


def test_an_alignment_in_the_name_of_a_protocol_is_the_users(evaluated):
    result, _ = evaluated("md2.safetensors", "--protocol", "synthdrive[alignment=none]", "--protocol", "synthdrive")
    names = [one["protocol"]["name"] for one in result["results"]]
    assert names == ["synthdrive", "synthdrive[alignment=median]"]


def test_testing_on_the_training_split_is_said(evaluated):
    result, done = evaluated("nc.safetensors", "--no-flip")
    assert "not a test of generalisation: 13 of 13 'synthdrive.test' images are" in done.stderr
    assert any("not a test of generalisation" in warning for warning in result["warnings"])
    _, done = evaluated("teacher.safetensors")
    assert "generalisation" not in done.stderr


def test_a_python_file_is_scored_like_a_checkpoint(evaluated, tmp_path):
    path = tmp_path / "flat.py"
    path.write_text(
        "import numpy as np\nKIND='depth'\ndef predict(image):\n    return np.full(image.shape[:2], 20.0)\n"
    )
    result, done = evaluated(path)
    assert result["label"] == "flat"
    assert np.isfinite(result["summary"]["abs_rel"])
    assert "kind depth" in done.stdout


def test_own_images_and_ground_truth(call, place, tmp_path):
    for i in range(2):
        save_image(tmp_path / "rgb" / f"{i}.png", (40, 60), i)
        (tmp_path / "gt").mkdir(exist_ok=True)
        np.save(tmp_path / "gt" / f"{i}.npy", np.full((40, 60), 10, np.float32))
    args = ("eval", place / "nc.safetensors", "--gt", "gt")
    assert call(*args, "--images", "rgb").returncode == 0
    done = call(*args)
    assert done.returncode == 2
    assert "--images" in done.stderr


def _launch(place, tmp_path, world, *args):
    """Run the command in `world` processes that find each other over gloo, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = tmp_path / f"world{world}.json"
    command = [sys.executable, "-m", "adubench", "eval", place / "nc.safetensors", "--split", "synthdrive",
               "--data-root", place / "sd", "-o", out, *args]  # fmt: skip
    started = []
    for rank in range(world):
        env = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank),
                            "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
                            "OMP_NUM_THREADS": "1" if world > 1 else "2"}  # fmt: skip
        started.append(
            subprocess.Popen(
                [str(c) for c in command], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
    return out, [(p.communicate(timeout=120), p.returncode) for p in started]


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(place, tmp_path):
    one, _ = _launch(place, tmp_path, 1, "--uncertainty")
    two, ended = _launch(place, tmp_path, 2, "--uncertainty")
    assert [code for _, code in ended] == [0, 0]
    assert ended[1][0][0] == ""  # one speaks for all
    first, second = (json.loads(path.read_text()) for path in (one, two))
    for part in ("summary", "aggregates", "per_image", "regions", "uncertainty", "counts"):
        assert first[part] == second[part], part


@pytest.mark.slow
def test_a_fault_of_one_process_ends_all_with_its_sentence(place, tmp_path):
    import shutil

    shutil.copytree(place, tmp_path / "copy")
    images = sorted((tmp_path / "copy" / "sd").glob("*/*/image_02/data/0000000006.png"))
    for image in images:
        image.write_bytes(b"\x89PNG broken")
    _, ended = _launch(tmp_path / "copy", tmp_path, 2)
    assert [code for _, code in ended] == [1, 1]
    assert "0000000006.png" in ended[0][0][1]
    assert "Traceback" not in ended[0][0][1] + ended[1][0][1]


def test_compare_takes_checkpoints_with_stored_results(call, place, tmp_path):
    import shutil

    for name in ("nc", "teacher"):
        shutil.copy(place / f"{name}.safetensors", tmp_path)
        args = (f"{name}.safetensors", "--split", "synthdrive", "--data-root", place / "sd")
        assert call("eval", *args, "-o", f"{name}.json").returncode == 0
    done = call("compare", "nc.safetensors", "teacher.safetensors", "--resamples", "100", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["comparisons"][0]["a"] == "teacher"
    make_checkpoint(tmp_path / "nc.safetensors", seed=1)
    done = call("compare", "nc.safetensors", "teacher.safetensors")
    assert done.returncode == 1
    assert "is the result of other weights" in done.stderr
    assert "adubench eval nc.safetensors" in done.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("nc.safetensors", "--kind", "scaled-disparity"), "predicts depth"),
        (("nc.safetensors", "--device", "tpu"), "--device tpu"),
        (("nc.safetensors", "--kb-crop"), "smaller than the 352x1216 window"),
        (("teacher.safetensors", "--flip"), "nothing to average"),
        (("teacher.safetensors", "--uncertainty"), "needs --uncertainty-maps"),
        (("none.safetensors",), "not found"),
        (("sd", "--amp"), "--amp belongs to"),
        (("sd", "--save-predictions", "x"), "--save-predictions belongs to"),
        (("nc.safetensors", "--images", "none"), "image folder not found"),
    ],
)
def test_wrong_input_is_one_sentence(call, place, args, words):
    done = call("eval", place / args[0], "--split", "synthdrive", "--data-root", place / "sd", *args[1:])
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_images_are_counted(call, place, tmp_path):
    import shutil

    shutil.copytree(place / "sd", tmp_path / "sd")
    for image in (tmp_path / "sd").glob("*/*/image_03/data/0000000006.png"):
        image.unlink()
    args = ("--split", "synthdrive", "--data-root", "sd")
    assert call("eval", place / "nc.safetensors", *args).returncode == 0
    done = call("eval", place / "teacher.safetensors", *args)
    assert done.returncode == 1
    assert "1 of 3 images not found" in done.stderr
    assert "right view" in done.stderr
