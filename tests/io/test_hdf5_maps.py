import pickle

import h5py
import numpy as np
import pytest

from adubench.errors import DataError
from adubench.io.maps import DepthMap, SparseDepth
from adubench.io.packed import PackWriter, open_hdf5_maps

from .helpers import smooth_map


def test_a_dataset_per_frame(tmp_path):
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file["drive/image_02/0000000005"] = smooth_map()
        file.create_dataset("b", data=smooth_map().astype(np.float64), compression="gzip", chunks=(5, 5))
        file["text"] = "hello"
        file["vector"] = np.ones(4)
        file["empty"] = h5py.Empty("f4")
        file["loop"] = file["/"]
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/x")
        file["dangling"] = h5py.SoftLink("/nothing")
    maps = pickle.loads(pickle.dumps(open_hdf5_maps(path)))
    assert sorted(maps) == ["b", "drive/image_02/0000000005"]
    assert maps.shape("b") == smooth_map().shape
    np.testing.assert_array_equal(maps["drive/image_02/0000000005"], smooth_map())
    assert maps["b"].dtype == np.float64
    with pytest.raises(KeyError):
        maps["gone"]
    maps.close()
    np.testing.assert_array_equal(maps["b"], smooth_map())


def test_one_stack(tmp_path):
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file["pred"] = np.stack([smooth_map(seed=i) for i in range(3)])
    stack = open_hdf5_maps(path)["pred"]
    assert len(stack) == 3
    np.testing.assert_array_equal(stack[2], smooth_map(seed=2))
    with pytest.raises(IndexError):
        stack[3]


def test_packs_are_maps_too(tmp_path):
    depth = DepthMap(np.where(smooth_map() % 3, 0, smooth_map()), 256.0)
    with PackWriter(tmp_path / "p.h5", "prediction") as writer:
        writer.add("a", depth)
    with PackWriter(tmp_path / "g.h5", "ground_truth") as writer:
        writer.add("a", SparseDepth.from_map(depth))
    for name in ("p.h5", "g.h5"):
        maps = open_hdf5_maps(tmp_path / name)
        assert (list(maps), len(maps), "a" in maps, maps.shape("a")) == (["a"], 1, True, depth.shape)
        np.testing.assert_array_equal(maps["a"].quantity(), depth.quantity())
        with pytest.raises(KeyError):
            maps["b"]
        maps.close()


def test_declared_sizes_are_not_believed(tmp_path):
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("huge", (10**6, 10**6), "f4", chunks=(1024, 1024), fillvalue=1)
    with pytest.raises(DataError, match=r"'huge' of .* too large"):
        open_hdf5_maps(path)["huge"]


def test_no_hdf5(tmp_path):
    path = tmp_path / "f.h5"
    path.write_text("text")
    with pytest.raises(DataError, match=r"f\.h5: not an HDF5 file"):
        open_hdf5_maps(path)
    with pytest.raises(DataError, match="no such file"):
        open_hdf5_maps(tmp_path / "gone.h5")
