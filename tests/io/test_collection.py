import contextlib
import pickle
import zipfile

import numpy as np
import pytest
from PIL import Image

from adubench.errors import DataError
from adubench.io.collection import open_maps

MAPS = {f"drive_{i % 2}/{i:04d}": np.full((4, 6), 256 * (i + 1), np.uint16) for i in range(3)}


def _folder(root, suffix=".png"):
    for name, codes in MAPS.items():
        path = root / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(codes).save(path) if suffix == ".png" else np.save(path, codes / np.float32(256))
    return root


def _check(collection):
    assert collection.names == tuple(sorted(MAPS))
    for copy in (collection, pickle.loads(pickle.dumps(collection))):
        for name, codes in MAPS.items():
            assert np.array_equal(copy.read(name).quantity(), codes / np.float32(256))


def test_folders_of_png_and_npy(tmp_path):
    _check(open_maps(_folder(tmp_path / "png")))
    _check(open_maps(_folder(tmp_path / "npy", ".npy")))


def test_hidden_files_and_system_folders_are_no_maps(tmp_path):
    _folder(tmp_path / "a")
    (tmp_path / "a/__MACOSX").mkdir()
    (tmp_path / "a/__MACOSX/x.png").write_bytes(b"")
    (tmp_path / "a/._0000.png").write_bytes(b"")
    _check(open_maps(tmp_path / "a"))


def test_links_are_followed_once(tmp_path):
    _folder(tmp_path / "real")
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    _check(open_maps(tmp_path / "linked"))
    (tmp_path / "real/loop").symlink_to(tmp_path / "real")
    _check(open_maps(tmp_path / "real"))


def test_zip_npz_and_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    folder = _folder(tmp_path / "png")
    with zipfile.ZipFile(tmp_path / "maps.zip", "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            archive.write(path, path.relative_to(folder).as_posix())
    _check(open_maps(tmp_path / "maps.zip"))
    metres = {name: codes / np.float32(256) for name, codes in MAPS.items()}
    np.savez_compressed(tmp_path / "maps.npz", **metres)
    _check(open_maps(tmp_path / "maps.npz"))
    with h5py.File(tmp_path / "maps.h5", "w") as file:
        for name, values in metres.items():
            file.create_dataset(name, data=values, compression="gzip")
    _check(open_maps(tmp_path / "maps.h5"))


@pytest.mark.parametrize("suffix", ["npy", "npz", "h5"])
def test_a_stack_is_known_by_position(tmp_path, suffix):
    stack = np.stack([codes / np.float32(256) for codes in MAPS.values()])
    path = tmp_path / f"stack.{suffix}"
    if suffix == "npy":
        np.save(path, stack)
    elif suffix == "npz":
        np.savez(path, pred=stack)
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            file["pred"] = stack
    collection = open_maps(path)
    assert collection.stacked
    assert len(collection.names) == 3
    for i, name in enumerate(collection.names):
        assert np.array_equal(collection.read(name).quantity(), stack[i])


def test_arrays_beside_the_map_are_passed_over(tmp_path):
    """Files such as (depth, intrinsics, valid) hold one map."""
    np.savez(tmp_path / "one.npz", depth=np.ones((4, 6), np.float32), intr=np.ones(4), valid=np.ones((4, 6), bool))
    collection = open_maps(tmp_path / "one.npz")
    assert collection.names == ("depth",)
    assert collection.single


def _two_files(tmp_path):
    _folder(tmp_path / "x")
    np.save(tmp_path / "x/drive_0/0000.npy", np.ones((4, 6)))
    return tmp_path / "x", r"0000\.npy and .*0000\.png"


def _only_a_pack(tmp_path):
    (tmp_path / "x").mkdir()
    np.savez(tmp_path / "x/maps.npz", a=np.ones((2, 2)))
    return tmp_path / "x", "pass that file itself"


def _no_maps(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.ones(3))
    return tmp_path / "x.npz", r"expected numeric arrays"


def _not_a_zip(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 but not really")
    return tmp_path / "x.zip", "not a readable zip"


def _strange(tmp_path):
    (tmp_path / "x.mat").write_bytes(b"MATLAB")
    return tmp_path / "x.mat", r"expected a folder, \.zip"


@pytest.mark.parametrize("make", [_two_files, _only_a_pack, _no_maps, _not_a_zip, _strange])
def test_what_cannot_be_opened_is_a_sentence(tmp_path, make):
    path, words = make(tmp_path)
    with pytest.raises(DataError, match=words):
        open_maps(path)


def test_members_that_are_no_maps(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.png", b"no png")
        archive.writestr("b.npy", b"no npy")
    collection = open_maps(tmp_path / "x.zip")
    for name in ("a", "b"):
        with pytest.raises(DataError, match=rf"x\.zip:{name}\."):
            collection.read(name)


def test_mutated_archives_are_sentences(tmp_path):
    """1,000 archives with changed bytes: a map or a DataError, never anything else."""
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, codes in MAPS.items():
            np.save(tmp_path / "a.npy", codes)
            archive.write(tmp_path / "a.npy", f"{name}.npy")
    clean, rng = path.read_bytes(), np.random.default_rng(0)
    good = 0
    for _ in range(1000):
        data = bytearray(clean)
        for position in rng.integers(0, len(data), rng.integers(1, 6)):
            data[position] = rng.integers(0, 256)
        path.write_bytes(data[: rng.integers(1, len(data) + 1)] if rng.random() < 0.1 else data)
        with contextlib.suppress(DataError):
            collection = open_maps(path)
            for name in collection.names:
                collection.read(name)
            good += 1
    assert good < 1000
