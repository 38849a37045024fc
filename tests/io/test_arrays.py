import io
import pickle
import zipfile

import numpy as np
import pytest

from adubench.errors import DataError
from adubench.io.arrays import open_npz, read_npy


@pytest.mark.parametrize(
    "array", [np.arange(12.0).reshape(3, 4), np.ones((2, 3, 4), ">u2"), np.zeros((0, 3), np.float32)]
)
@pytest.mark.parametrize("mmap", [False, True])
def test_npy(tmp_path, array, mmap):
    np.save(tmp_path / "a.npy", np.asfortranarray(array))
    found = read_npy(tmp_path / "a.npy", mmap=mmap)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    assert isinstance(found, np.memmap) == (mmap and array.size > 0)


def test_npy_refused(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.array([{"a": 1}, None], object))
    with pytest.raises(DataError, match="never unpickles"):
        read_npy(path)
    np.save(path, np.array(["text"]))
    with pytest.raises(DataError, match="expected numbers"):
        read_npy(path)
    np.save(path, np.zeros(1, [("a", "f4")]))
    with pytest.raises(DataError, match="expected numbers"):
        read_npy(path)
    np.save(path, np.ones((50, 50)))
    whole = path.read_bytes()
    for size in (0, 5, 40, 200, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"a\.npy"):
            read_npy(path)
    path.write_bytes(whole.replace(b"(50, 50)", b"(9**9,)."))
    with pytest.raises(DataError):
        read_npy(path)
    path.write_bytes(whole.replace(b"'shape': (50, 50), }       ", b"'shape': (99999999, 50), } "))
    with pytest.raises(DataError, match="promises"):
        read_npy(path)
    path.write_bytes(b"PK\x03\x04zip")
    with pytest.raises(DataError, match="not a NumPy array"):
        read_npy(path)
    with pytest.raises(DataError, match="no such file"):
        read_npy(tmp_path / "gone.npy")
    with pytest.raises(DataError, match="cannot be read"):
        read_npy(tmp_path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    arrays = {
        "a/b": np.ones((2, 3), np.float32),
        "stack": np.arange(24.0).reshape(2, 3, 4),
        "names": np.array(["x", "yy"]),
    }
    save(tmp_path / "a.npz", **arrays)
    archive = pickle.loads(pickle.dumps(open_npz(tmp_path / "a.npz")))
    assert sorted(archive) == sorted(arrays)
    assert len(archive) == 3
    assert "a/b" in archive
    for name, array in arrays.items():
        np.testing.assert_array_equal(archive[name], array)
        assert archive.shape(name) == (array.shape if array.dtype.kind == "f" else None)
    assert archive["stack"] is archive["stack"]
    with pytest.raises(KeyError):
        archive["gone"]
    with pytest.raises(DataError, match="no such array"):
        archive.shape("gone")
    archive.close()
    np.testing.assert_array_equal(archive["a/b"], 1)


def test_npz_of_objects_is_never_unpickled(tmp_path):
    np.savez(tmp_path / "gt_depths.npz", data=np.array([np.ones(2), np.ones(3)], object), good=np.ones(3))
    archive = open_npz(tmp_path / "gt_depths.npz")
    with pytest.raises(DataError, match="Point --gt to the PNG maps"):
        archive["data"]
    np.testing.assert_array_equal(archive["good"], 1)


def _member(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def test_hostile_archives(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../evil.npy", _member(np.ones(3)))
        archive.writestr("short.npy", _member(np.ones(300))[:-8])
        archive.writestr("long.npy", _member(np.ones(300)) + b"xx")
        archive.writestr("text.npy", b"hello")
        archive.writestr("lies.npy", _member(np.ones(4)).replace(b"(4,), }            ", b"(999999999999,), } "))
    archive = open_npz(path)
    np.testing.assert_array_equal(archive["../../evil"], 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz"]
    for name in ("short", "long", "lies"):
        with pytest.raises(DataError, match="promises"):
            archive[name]
    for read in (archive.__getitem__, archive.shape):
        with pytest.raises(DataError, match=r"'text' of .*not a NumPy array"):
            read("text")


def test_archive_that_is_none(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a readable"):
        open_npz(path)
    with pytest.raises(DataError, match="no such file"):
        open_npz(tmp_path / "gone.npz")
