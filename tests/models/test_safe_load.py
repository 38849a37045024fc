"""Foreign checkpoints are read, never run."""

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from adubench.errors import CheckpointError  # noqa: E402
from adubench.models.weights.safe_load import load_foreign, tensors_of  # noqa: E402


def _checkpoint():
    """What the reference stores: a state, counters, and numpy arrays beside it."""
    return {
        "global_step": 1000,
        "model": {"module.a": torch.arange(3.0)},
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4, "params": [0]}]},
        "best_eval_measures_lower_better": torch.zeros(6),
        "best_eval_steps": np.arange(9, dtype=np.int32),
        "loss": np.float64(0.5),
    }


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_checkpoint_with_numpy_arrays_is_read(tmp_path, legacy):
    path = tmp_path / "official.ckpt"
    torch.save(_checkpoint(), path, _use_new_zipfile_serialization=not legacy)
    before = torch.serialization.get_safe_globals()
    loaded = load_foreign(path)
    assert set(torch.serialization.get_safe_globals()) == set(before), (
        "the list of safe globals is not widened for others"
    )
    assert loaded["global_step"] == 1000
    assert loaded["best_eval_steps"].tolist() == list(range(9))
    assert loaded["loss"] == 0.5
    assert torch.equal(tensors_of(loaded, path)["module.a"], torch.arange(3.0))


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_arrays_written_by_either_numpy_are_read(tmp_path, module):
    path = tmp_path / "official.ckpt"
    torch.save(_checkpoint(), path)
    other = tmp_path / "other.ckpt"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w") as target:
        for item in source.infolist():
            content = source.read(item)
            if item.filename.endswith("data.pkl"):
                assert b"multiarray" in content
                for spelling in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
                    content = content.replace(spelling, module.encode())
            target.writestr(item, content)
    assert load_foreign(other)["best_eval_steps"].tolist() == list(range(9))


class _Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_malicious_checkpoint_is_refused_and_not_run(tmp_path, legacy):
    path, target = tmp_path / "evil.ckpt", tmp_path / "owned"
    torch.save(
        {"model": {"a": torch.zeros(1)}, "x": _Malicious(target)}, path, _use_new_zipfile_serialization=not legacy
    )
    with pytest.raises(CheckpointError, match=r"mkdir.*not safe") as caught:
        load_foreign(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not target.exists()


def test_a_plain_malicious_pickle_is_refused_and_not_run(tmp_path):
    path, target = tmp_path / "evil.pkl", tmp_path / "owned"
    path.write_bytes(pickle.dumps(_Malicious(target)))
    with pytest.raises(CheckpointError):
        load_foreign(path)
    assert not target.exists()


def test_an_object_array_is_refused(tmp_path):
    path, target = tmp_path / "evil.ckpt", tmp_path / "owned"
    torch.save({"x": np.array([_Malicious(target)], dtype=object)}, path)
    with pytest.raises(CheckpointError):
        load_foreign(path)
    assert not target.exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_truncated_checkpoint_is_named(tmp_path, kind, share):
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.ckpt")
    if kind == "safetensors":
        from safetensors.torch import save_file

        save_file({"a": torch.zeros(1000)}, path)
    else:
        torch.save({"a": torch.zeros(1000)}, path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"damaged|empty|not safe") as caught:
        load_foreign(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"hello world\n" * 100, b"\x89PNG\r\n\x1a\n" + bytes(500), bytes(1000), b"\x80"])
def test_what_is_no_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "picture.ckpt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"picture\.ckpt"):
        load_foreign(path)


def test_a_zip_that_is_no_checkpoint_is_named(tmp_path):
    path = tmp_path / "a.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match=r"a\.ckpt"):
        load_foreign(path)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(64 * 2**20))
    with pytest.raises(CheckpointError, match="unpacks"):
        load_foreign(path)


def test_absent_files_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint file"):
        load_foreign(tmp_path / "absent.ckpt")


def test_a_folder_is_no_missing_file_and_torch_does_not_advise(tmp_path):
    with pytest.raises(CheckpointError, match="is a folder, and this family is one file"):
        load_foreign(tmp_path)
    (tmp_path / "a.pth").write_bytes(b"\x93" * 3000)
    with pytest.raises(CheckpointError, match="no checkpoint") as caught:
        load_foreign(tmp_path / "a.pth")
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("content", [3, [torch.zeros(1)], {"epoch": 3}, {"model": {}}, torch.zeros(2)])
def test_a_file_without_a_state_dictionary_is_named(content):
    with pytest.raises(CheckpointError, match="no state dictionary"):
        tensors_of(content, Path("a.ckpt"))
