import errno
import os
import pickle
import tempfile
import time

import h5py
import numpy as np
import pytest

from adubench.errors import DataError
from adubench.io.maps import DepthMap, SparseDepth
from adubench.io.packed import (
    AtGroundTruthPack,
    GroundTruthPack,
    PackWriter,
    PredictionPack,
    is_pack,
    open_hdf5_maps,
    open_pack,
    stale_sources,
)

from .helpers import smooth_map

SPECIAL = np.array([0x7FC00001, 0xFFC12345, 0x7F800000, 0xFF800000, 0x80000000, 1], np.uint32).view(np.float32)


def sparse(seed, shape=(20, 31), dtype=np.uint16, share=0.2):
    rng = np.random.default_rng(seed)
    index = np.flatnonzero(rng.random(shape[0] * shape[1]) < share).astype(np.uint32)
    values = smooth_map(*shape, seed).reshape(-1)[index].astype(dtype)
    if dtype == np.float32 and len(values) > 6:
        values[:6] = SPECIAL
    return SparseDepth(shape, index, values, 256.0 if dtype == np.uint16 else 1.0)


def same(a, b):
    assert a.dtype == b.dtype
    assert a.tobytes() == b.tobytes()  # bits, so that NaN payloads count


def ground_truth(path, dtype=np.uint16, **options):
    maps = {f"d/{i}": sparse(i, (20 + i, 31), dtype, share) for i, share in enumerate((0.2, 0.0, 1.0, 0.01))}
    with PackWriter(path, "ground_truth", **options) as writer:
        for name, depth in maps.items():
            writer.add(name, depth)
    return maps


@pytest.mark.parametrize("archival", [False, True])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_ground_truth_round_trip(tmp_path, archival, dtype):
    maps = ground_truth(tmp_path / "g.h5", dtype, archival=archival, attrs={"crop": "garg", "n": 3})
    with open_pack(tmp_path / "g.h5") as pack:
        assert isinstance(pack, GroundTruthPack)
        assert pack.names == tuple(maps)
        assert (len(pack), "d/1" in pack, "x" in pack) == (4, True, False)
        assert (pack.attrs["crop"], pack.attrs["n"], pack.attrs["kind"]) == ("garg", 3, "ground_truth")
        for i, (name, depth) in enumerate(maps.items()):
            for found in (pack.read(name), pack.read(i)):
                assert found.shape == depth.shape
                assert found.scale == depth.scale
                same(found.index, depth.index)
                same(found.values, depth.values)
            assert pack.count(i) == len(depth.index)
    np.testing.assert_array_equal(pack.read(0).index, maps["d/0"].index)  # opens itself again


@pytest.mark.parametrize("archival", [False, True])
@pytest.mark.parametrize("shapes", [[(7, 9)] * 3, [(7, 9), (8, 5), (1, 1)]])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_prediction_round_trip(tmp_path, archival, shapes, dtype):
    maps = [DepthMap(smooth_map(*s, i).astype(dtype), 256.0) for i, s in enumerate(shapes)]
    if dtype == np.float32:
        maps[0].values[0, :6] = SPECIAL
    with PackWriter(tmp_path / "p.h5", "prediction", archival=archival) as writer:
        for i, depth in enumerate(maps):
            writer.add(str(i), depth)
    pack = pickle.loads(pickle.dumps(open_pack(tmp_path / "p.h5")))
    assert isinstance(pack, PredictionPack)
    for i, depth in enumerate(maps):
        found = pack.read(i)
        assert found.scale == 256
        assert found.values.flags.writeable
        same(found.values, depth.values)
    if not archival and len(set(shapes)) == 1:  # open to any HDF5 reader, one dense dataset
        with h5py.File(tmp_path / "p.h5") as file:
            assert file["maps"].chunks is None
            same(file["maps"][1], maps[1].values)


def test_values_at_ground_truth(tmp_path):
    maps = ground_truth(tmp_path / "g.h5")
    with open_pack(tmp_path / "g.h5") as truth:
        digest = truth.attrs["index_sha256"]
    with PackWriter(tmp_path / "a.h5", "at_ground_truth", ground_truth_sha256=digest) as writer:
        for i, (name, depth) in enumerate(maps.items()):
            writer.add(name, smooth_map(20 + i, 31).reshape(-1)[depth.index], scale=256.0)
    pack = open_pack(tmp_path / "a.h5")
    assert isinstance(pack, AtGroundTruthPack)
    pack.check_ground_truth(truth)
    for i, (name, depth) in enumerate(maps.items()):
        found = pack.read(name)
        same(found.values, smooth_map(20 + i, 31).reshape(-1)[depth.index])
        np.testing.assert_array_equal(found.metres(), found.values / np.float32(256))
    with PackWriter(tmp_path / "g2.h5", "ground_truth") as writer:
        for name in maps:
            writer.add(name, sparse(9))
    with pytest.raises(DataError, match="another ground truth"):
        pack.check_ground_truth(open_pack(tmp_path / "g2.h5"))
    with pytest.raises(DataError, match="pixels of one ground truth"):
        open_hdf5_maps(tmp_path / "a.h5")


def test_protocol_pixels_first(tmp_path):
    depth = sparse(1)
    mask = np.random.default_rng(0).random(len(depth.index)) < 0.5
    with PackWriter(tmp_path / "g.h5", "ground_truth", first="kitti-eigen") as writer:
        writer.add("a", depth, first_mask=mask)
        writer.add("b", depth, first_mask=~mask)
        with pytest.raises(DataError, match="first_mask"):
            writer.add("c", depth)
    pack = open_pack(tmp_path / "g.h5")
    assert pack.attrs["protocol_first"] == "kitti-eigen"
    same(pack.read("a").index, depth.index)
    same(pack.read("b").values, depth.values)
    same(pack.read_first("a").index, depth.index[mask])
    same(pack.read_first("b").values, depth.values[~mask])
    ground_truth(tmp_path / "plain.h5")
    with pytest.raises(DataError, match="without a protocol"):
        open_pack(tmp_path / "plain.h5").read_first(0)


def test_content_hash_is_about_content(tmp_path):
    digests = set()
    for archival in (False, True):
        ground_truth(tmp_path / "g.h5", archival=archival)
        digests.add(open_pack(tmp_path / "g.h5").attrs["content_sha256"])
    assert len(digests) == 1
    with PackWriter(tmp_path / "g.h5", "ground_truth") as writer:
        writer.add("d/0", sparse(0, (20, 31)))
    assert open_pack(tmp_path / "g.h5").attrs["content_sha256"] not in digests


def test_equal_input_gives_equal_files(tmp_path):
    for name in ("a.h5", "b.h5"):
        ground_truth(tmp_path / name)
        time.sleep(0.01)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_sources(tmp_path):
    for name in ("x.png", "y.png"):
        (tmp_path / name).write_text(name)
    with PackWriter(tmp_path / "g.h5", "ground_truth", root=tmp_path) as writer:
        writer.add("x", sparse(0), sources=[tmp_path / "x.png"])
        writer.add("y", sparse(1), sources=[tmp_path / "y.png"])
        with pytest.raises(DataError, match="gone"):
            writer.add("z", sparse(1), sources=[tmp_path / "gone.png"])
    pack = open_pack(tmp_path / "g.h5")
    assert [(s.name, s.path, s.size) for s in pack.sources] == [("x", "x.png", 5), ("y", "y.png", 5)]
    assert stale_sources(pack, tmp_path) == []
    os.utime(tmp_path / "x.png", (1, 1))  # touched, same content
    assert stale_sources(pack, tmp_path) == []
    (tmp_path / "x.png").write_text("X.png")
    os.utime(tmp_path / "x.png", (1, 1))
    assert stale_sources(pack, tmp_path) == ["x.png"]
    (tmp_path / "y.png").unlink()
    assert stale_sources(pack, tmp_path) == ["x.png", "y.png"]


def test_what_a_pack_refuses(tmp_path):
    path = tmp_path / "g.h5"
    good = sparse(0)
    with PackWriter(path, "ground_truth") as writer:
        writer.add("a", good)
        for name, depth, words in (
            ("a", good, "unique"),
            ("b", DepthMap(smooth_map()), "does not take"),
            ("c", sparse(0, dtype=np.float32), "does not go with"),
            ("d", SparseDepth(good.shape, good.index, good.values, 100.0), "does not go with"),
            ("e", SparseDepth(good.shape, good.index[::-1], good.values, 256.0), "ascending"),
            ("f", SparseDepth((2, 2), good.index, good.values, 256.0), "inside the map"),
            ("g", SparseDepth(good.shape, good.index, good.values.astype(np.int64), 256.0), "expected uint16"),
        ):
            with pytest.raises(DataError, match=words):
                writer.add(name, depth)
    assert open_pack(path).names == ("a",)
    for options in (
        {"kind": "x"},
        {"kind": "ground_truth", "archival": True, "first": "p"},
        {"kind": "at_ground_truth"},
    ):
        with pytest.raises(DataError):
            PackWriter(path, **options)
    pack = open_pack(path)
    for which in ("zz", 1, -2):
        with pytest.raises(DataError, match="no map"):
            pack.read(which)
    same(pack.read(-1).values, good.values)


def test_empty_pack(tmp_path):
    for kind in ("ground_truth", "prediction"):
        with PackWriter(tmp_path / "e.h5", kind):
            pass
        assert open_pack(tmp_path / "e.h5").names == ()


def test_nothing_half_written(tmp_path, monkeypatch):
    path = tmp_path / "g.h5"
    ground_truth(path)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), PackWriter(path, "ground_truth") as writer:  # noqa: PT012
        writer.add("a", sparse(0))
        raise KeyboardInterrupt

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(PackWriter, "_write_data", full)
    with pytest.raises(DataError, match=r"cannot write .*g\.h5: No space left"):
        ground_truth(path)
    monkeypatch.undo()
    monkeypatch.setattr(PackWriter, "_write", full)
    with pytest.raises(DataError, match="No space left"):
        ground_truth(path)
    monkeypatch.undo()
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(DataError, match="No space left"):
        ground_truth(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["g.h5"]


def test_damage_is_a_sentence(tmp_path):
    path = tmp_path / "g.h5"
    ground_truth(path)
    whole = path.read_bytes()
    for size in (0, 4, 100, 600, len(whole) // 2, len(whole) - 9):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"g\.h5"):
            open_pack(path)
    path.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        file["offsets"][-1] = 10**9
    with pytest.raises(DataError, match="contradict"):
        open_pack(path)
    path.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        file["index"][:] = 10**6
    with pytest.raises(DataError, match="outside its size"):
        open_pack(path).read(0)
    path.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        file.attrs["adubench_pack"] = 99
    assert is_pack(path)
    with pytest.raises(DataError, match="version 99"):
        open_pack(path)
    with h5py.File(path, "w") as file:
        file["x"] = 1
    with pytest.raises(DataError, match="not a pack"):
        open_pack(path)
    assert not is_pack(path)
    assert not is_pack(tmp_path / "gone.h5")
    path.write_text("text")
    with pytest.raises(DataError, match="looks like text"):
        open_pack(path)
    pack_file = tmp_path / "late.h5"
    ground_truth(pack_file)
    pack = open_pack(pack_file)
    os.truncate(pack_file, 5000)
    with pytest.raises(DataError, match="ends early"):
        pack.read(2)


def test_damaged_archival_blob(tmp_path):
    path = tmp_path / "g.h5"
    ground_truth(path, archival=True)
    with h5py.File(path, "r+") as file:
        file["values_blobs"][10:30] = 0
    with pytest.raises(DataError, match="damaged"):
        open_pack(path).read(0)


def test_archival_is_smaller(tmp_path):
    size = {}
    for archival in (False, True):
        with PackWriter(tmp_path / "g.h5", "ground_truth", archival=archival) as writer:
            writer.add("a", sparse(0, (100, 300)))
        size[archival] = (tmp_path / "g.h5").stat().st_size
    assert size[True] < 0.5 * size[False]


def test_float64_becomes_float32(tmp_path):
    with PackWriter(tmp_path / "p.h5", "prediction") as writer:
        writer.add("a", DepthMap(np.full((2, 3), 1 / 3)))
    same(open_pack(tmp_path / "p.h5").read("a").values, np.full((2, 3), 1 / 3, np.float32))


def _read_in_child(pack):
    return pack.read("d/0").values.tolist()


def test_other_processes_read(tmp_path):
    import multiprocessing

    maps = ground_truth(tmp_path / "g.h5")
    pack = open_pack(tmp_path / "g.h5")
    pack.read(0)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_read_in_child, (pack,)) == maps["d/0"].values.tolist()


def test_absurd_depths_can_be_packed(tmp_path):
    depth = np.zeros((3, 4), np.float32)
    depth[0, 1] = 1e30
    sparse = SparseDepth.from_map(DepthMap(depth, 1.0))
    with PackWriter(tmp_path / "p.h5", "ground_truth") as writer:
        writer.add("a", sparse)
    with open_pack(tmp_path / "p.h5") as pack:
        assert pack.signature("a") == sparse.signature()
        np.testing.assert_array_equal(pack.read("a").dense(), depth)
