"""`adubench import-weights`: official files in, the same predictions out; and back."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from adubench.models.weights import newcrfs as official_newcrfs  # noqa: E402
from adubench.training.checkpoint import read_info  # noqa: E402
from tests.checkpoints import MONODEPTH2, NEWCRFS, make_checkpoint, save_image  # noqa: E402


@pytest.fixture
def official(tmp_path):
    """An official NeWCRFs file, and our network with the same weights."""
    network = make_checkpoint(tmp_path / "own.safetensors", NEWCRFS)
    torch.save(official_newcrfs.export_state(network), tmp_path / "model.ckpt")
    return tmp_path / "model.ckpt"


def _predicted(call, tmp_path, checkpoint, out):
    save_image(tmp_path / "image.png")
    done = call("predict", checkpoint, "image.png", "-o", out, "--format", "npy", "--no-flip")
    assert done.returncode == 0, done.stderr
    return np.load(tmp_path / out / "image.npy")


@pytest.mark.parametrize("family", ["newcrfs", "auto"])
def test_an_official_file_becomes_a_checkpoint_that_predicts_the_same(call, official, tmp_path, family):
    done = call("import-weights", family, official, "-o", "ours.safetensors")
    assert done.returncode == 0, done.stderr
    assert "recognised: newcrfs" in done.stdout
    assert "max_depth: 80" in done.stdout
    assert np.array_equal(
        _predicted(call, tmp_path, "ours.safetensors", "a"), _predicted(call, tmp_path, "own.safetensors", "b")
    )
    info = read_info(tmp_path / "ours.safetensors")
    assert (info.role, info.source["official"]) == ("imported", "model.ckpt")


def test_depth_range_follows_option_and_data_set(call, official, tmp_path):
    for args, expected in ((("--max-depth", "40"), 40), (("--dataset", "nyu"), 10)):
        assert call("import-weights", "newcrfs", official, "-o", "x.safetensors", *args).returncode == 0
        assert read_info(tmp_path / "x.safetensors").model["max_depth"] == expected


def test_the_way_back_gives_the_official_names(call, official, tmp_path):
    done = call("import-weights", "newcrfs", "own.safetensors", "--to-official", "-o", "back.ckpt")
    assert done.returncode == 0, done.stderr
    one, two = (torch.load(tmp_path / name, weights_only=True)["model"] for name in ("model.ckpt", "back.ckpt"))
    assert list(one) == list(two)
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_folders_of_self_supervised_networks_go_both_ways(call, tmp_path):
    make_checkpoint(tmp_path / "md2.safetensors", MONODEPTH2)
    assert call("import-weights", "auto", "md2.safetensors", "--to-official", "-o", "weights_19").returncode == 0
    assert sorted(p.name for p in (tmp_path / "weights_19").iterdir()) == ["depth.pth", "encoder.pth"]
    assert call("import-weights", "monodepth2", "weights_19", "-o", "again.safetensors").returncode == 0
    assert np.array_equal(
        _predicted(call, tmp_path, "md2.safetensors", "a"), _predicted(call, tmp_path, "again.safetensors", "b")
    )


def test_weights_are_not_mixed_and_ours_are_not_imported(call, tmp_path):
    make_checkpoint(tmp_path / "md2.safetensors", MONODEPTH2)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "pose.pth").write_bytes(b"x")
    done = call("import-weights", "auto", "md2.safetensors", "--to-official", "-o", "old")
    assert done.returncode == 2
    assert "holds other weights (pose.pth)" in done.stderr
    assert [p.name for p in (tmp_path / "old").iterdir()] == ["pose.pth"]
    for family in ("auto", "monodepth2"):
        done = call("import-weights", family, "md2.safetensors", "-o", "again.safetensors")
        assert done.returncode == 2
        assert "is a checkpoint of adubench already" in done.stderr


def test_pose_networks_are_kept_beside_the_checkpoint_and_go_back(call, tmp_path):
    from adubench.models.pose import build_pose

    make_checkpoint(tmp_path / "lite.safetensors", {"family": "hr-depth-lite", "height": 64, "width": 96})
    assert call("import-weights", "auto", "lite.safetensors", "--to-official", "-o", "weights_0").returncode == 0
    pose = build_pose({"kind": "posecnn"}).pose.state_dict()
    torch.save(pose, tmp_path / "weights_0" / "pose.pth")
    torch.save({"state": {}, "param_groups": [{"lr": 1e-4}]}, tmp_path / "weights_0" / "adam.pth")
    done = call("import-weights", "auto", "weights_0", "-o", "ours.safetensors")
    assert "for training and export: pose" in done.stdout
    assert call("import-weights", "auto", "ours.safetensors", "--to-official", "-o", "back").returncode == 0
    for name in ("encoder", "depth", "pose"):
        one, two = (
            torch.load(tmp_path / folder / f"{name}.pth", weights_only=True) for folder in ("weights_0", "back")
        )
        assert one.keys() == two.keys()
        assert all(torch.equal(torch.as_tensor(value), torch.as_tensor(two[key])) for key, value in one.items())
    (tmp_path / "weights_0" / "pose.pth").unlink()
    assert call("import-weights", "auto", "weights_0", "-o", "ours.safetensors").returncode == 0
    assert not (tmp_path / "ours-pose.safetensors").exists()  # motion of another import would not fit this depth


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("newcrf", "model.ckpt", "-o", "x.safetensors"), "newcrfs"),
        (("newcrfs", "none.ckpt", "-o", "x.safetensors"), "none.ckpt"),
        (("newcrfs", "cut.ckpt", "-o", "x.safetensors"), "cut.ckpt"),
        (("monodepth2", "model.ckpt", "-o", "x.safetensors"), "encoder.pth"),
        (("newcrfs", "model.ckpt", "-o", "x.pth"), ".safetensors"),
        (("newcrfs", "model.ckpt", "-o", "x.safetensors", "--max-depth", "-1"), "max-depth"),
        (("newcrfs", "own.safetensors", "-o", "own.safetensors"), "would be replaced"),
        (("monodepth2", "own.safetensors", "--to-official", "-o", "x"), "not 'monodepth2'"),
        (("newcrfs", "model.ckpt", "--to-official", "-o", "x"), "PyTorch file"),
    ],
)
def test_wrong_input_is_one_sentence_and_writes_nothing(call, official, tmp_path, args, words):
    (tmp_path / "cut.ckpt").write_bytes(official.read_bytes()[:3000])
    done = call("import-weights", *args)
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x.safetensors").exists()
