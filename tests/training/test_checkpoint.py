"""Checkpoints: equal bytes for equal networks, and one sentence for everything that is none of ours."""

import errno
import json
import os
import pickle
import struct
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

import adubench  # noqa: E402
from adubench.errors import CheckpointError, DataError  # noqa: E402
from adubench.training import checkpoint  # noqa: E402
from adubench.training.checkpoint import CheckpointInfo, load_network, read_info, save_checkpoint  # noqa: E402
from tests.checkpoints import NEWCRFS, make_checkpoint  # noqa: E402


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("ckpt") / "net.safetensors"
    network = make_checkpoint(
        path,
        role="student",
        recipe={"name": "demo", "train": {"steps": 3}},
        step=7,
        metrics={"abs_rel": 0.1, "silog": float("nan")},
        data={"split": "eigen_train", "fingerprint": "ab"},
    )
    return path, network


def _rewritten(path, target, change):
    """Copy a checkpoint with another description."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    document = json.loads(header["__metadata__"]["adubench"])
    change(document, header)
    if isinstance(header["__metadata__"], dict):
        header["__metadata__"]["adubench"] = json.dumps(document)
    text = json.dumps(header).encode()
    target.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    return target


def test_a_network_comes_back_with_equal_weights_and_its_description(made):
    path, network = made
    state = torch.get_rng_state()
    loaded, info = load_network(path)
    assert torch.equal(state, torch.get_rng_state())
    assert not loaded.training
    own = network.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in loaded.state_dict().items())
    assert (info.family, info.role, info.step, info.code) == ("newcrfs", "student", 7, adubench.__version__)
    assert info.recipe == {"name": "demo", "train": {"steps": 3}}
    assert info.metrics == {"abs_rel": 0.1, "silog": None}
    assert info.data["split"] == "eigen_train"
    assert adubench.load_model(path).family == "newcrfs"


def test_equal_networks_make_equal_bytes(made, tmp_path):
    path, network = made
    save_checkpoint(tmp_path / "again.safetensors", network, info=read_info(path))
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_the_description_is_read_without_torch(made):
    code = (
        "import sys; from adubench.training.checkpoint import read_info; "
        f"assert read_info({str(made[0])!r}).step == 7; assert not {{'torch', 'safetensors'}} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_stored_network_never_asks_for_pretrained_weights(made, tmp_path):
    info = CheckpointInfo(model={**NEWCRFS, "pretrained": True})
    assert json.loads(info.to_json())["model"]["pretrained"] is False
    hostile = _rewritten(made[0], tmp_path / "x.safetensors", lambda d, h: d["model"].update(pretrained="/etc/passwd"))
    assert read_info(hostile).model["pretrained"] is False


@pytest.mark.parametrize("keep", [0, 4, 8, 60, 5000, -4])
def test_a_checkpoint_that_was_cut_off_is_named(made, tmp_path, keep):
    data = made[0].read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(data[:keep])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors"):
        load_network(path)


class _Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def test_a_pickle_is_refused_and_not_run(tmp_path):
    fired = tmp_path / "fired"
    for name, save in (("a", lambda p: p.write_bytes(pickle.dumps(_Bomb(fired)))), ("b", lambda p: torch.save({}, p))):
        path = tmp_path / f"{name}.safetensors"
        save(path)
        with pytest.raises(CheckpointError, match="import-weights"):
            load_network(path)
    assert not fired.exists()


def test_safetensors_of_others_are_told_from_ours(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(3)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="import-weights auto"):
        read_info(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d, h: d["model"].update(family="newcrf"), "newcrfs"),
        (lambda d, h: d["model"].update(variant="giant"), "variant"),
        (lambda d, h: d["model"].update(in_channels=6), "belongs to another network"),
        (lambda d, h: d.update(format=99), "Update adubench"),
        (lambda d, h: d.update(kind="state"), "not a network"),
        (lambda d, h: d.update(model=[]), "damaged"),
        (lambda d, h: d.update(metrics=3), "damaged"),
        (lambda d, h: h.update(extra={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}), "unknown to it"),
        (lambda d, h: h.update(extra={"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}), "damaged header"),
        (lambda d, h: h.update(__metadata__=3), "damaged header"),
    ],
)
def test_what_does_not_fit_is_one_sentence(made, tmp_path, change, words):
    path = _rewritten(made[0], tmp_path / "x.safetensors", change)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_network(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"\xff" * 64, struct.pack("<Q", 1 << 60) + b"{}", struct.pack("<Q", 4000) + b"[" * 4000],
    ids=["empty", "text", "noise", "huge", "deep"],
)
def test_what_is_no_safetensors_file_is_refused(tmp_path, data):
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError):
        read_info(tmp_path / "x.safetensors")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="not found"):
        read_info(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match=r"a folder, .*adubench import-weights auto"):
        read_info(tmp_path)


def test_a_full_disk_leaves_the_last_good_checkpoint(made, tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    path.write_bytes(made[0].read_bytes())

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(DataError, match="No space left"):
        save_checkpoint(path, made[1])
    assert path.read_bytes() == made[0].read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]
