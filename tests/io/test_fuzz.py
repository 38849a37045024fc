"""Mutated bytes of valid files give a result or one of our errors, never anything else.

Seeded loops for bulk (more than 5,000 cases), hypothesis for inputs that nobody thought of.
"""

import io
import random
import struct
import zipfile
import zlib

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from adubench.errors import AdubenchError
from adubench.io.arrays import open_npz, read_npy
from adubench.io.depth_png import read_depth_header, read_depth_map
from adubench.io.disparity import read_disparity_png
from adubench.io.images import image_size, read_rgb
from adubench.io.kitti_calib import read_calib_file, read_calibration, read_driving_stereo_calibration
from adubench.io.maps import DepthMap, SparseDepth
from adubench.io.packed import PackWriter, is_pack, open_hdf5_maps, open_pack
from adubench.io.png import decode_grey16
from adubench.io.velodyne import project_scan, read_scan

from .helpers import chunk, ihdr, png, smooth_map
from .test_velodyne import DATA, camera

INTERESTING = (0, 1, 2, 4, 8, 0x7F, 0x80, 0xFE, 0xFF, ord("("), ord("9"), ord("-"), ord("\n"))
LONGS = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x10000)


def mutate(data, rng):
    """Change a file in one to four places: bits, bytes, words, cuts, repeats, insertions."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if not out:
            break
        i = rng.randrange(len(out)) if rng.random() < 0.5 else rng.randrange(min(len(out), 200))
        match rng.randrange(7):
            case 0:
                out[i] ^= 1 << rng.randrange(8)
            case 1:
                out[i] = rng.choice(INTERESTING)
            case 2:
                out[i : i + 4] = struct.pack(rng.choice("<>") + "I", rng.choice(LONGS))
            case 3:
                del out[i:]
            case 4:
                del out[i : i + rng.randint(1, 40)]
            case 5:
                out[i:i] = out[rng.randrange(len(out)) :][: rng.randint(1, 60)]
            case 6:
                out[i:i] = rng.randbytes(rng.randint(1, 20))
    return bytes(out)


def repair(data):
    """Give every chunk of a PNG its right checksum, so that mutations reach what lies behind it."""
    out, position = bytearray(data), 8
    while position + 12 <= len(out):
        stop = position + 8 + int.from_bytes(out[position : position + 4], "big")
        if stop + 4 > len(out):
            break
        out[stop : stop + 4] = struct.pack(">I", zlib.crc32(out[position + 4 : stop]))
        position = stop + 4
    return bytes(out)


def survives(function, *args):
    """Call; our errors are fine, as one line without a traceback."""
    try:
        return function(*args)
    except AdubenchError as error:
        message = str(error)
    assert message
    assert "\n" not in message
    assert "Traceback" not in message
    return None


@pytest.fixture(params=["0", "1"], ids=["required", "fast"])
def tier(request, monkeypatch):
    monkeypatch.setenv("ADUBENCH_FAST", request.param)


PNGS = [png(smooth_map(9, 7), kinds, pieces=2) for kinds in ((0,), (1, 2, 3, 4), (2,))]


def test_png(tier):
    rng = random.Random(1)
    for i in range(600):
        data = mutate(PNGS[i % 3], rng)
        for candidate in (data, repair(data)):
            found = survives(decode_grey16, candidate, "x.png")
            assert found is None or (found.dtype == np.uint16 and found.ndim == 2)


def test_png_streams_of_any_length(tier):
    rng = random.Random(2)
    for _ in range(200):
        stream = zlib.compress(bytes(rng.randrange(6) for _ in range(rng.randrange(200))), rng.randrange(10))
        survives(
            decode_grey16, png(smooth_map(9, 7), stream=mutate(stream, rng) if rng.random() < 0.5 else stream), "x"
        )


def test_image_files(tmp_path):
    rng = random.Random(3)
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8))
    seeds = [PNGS[1]]
    for kind in ("PNG", "JPEG", "BMP", "WEBP", "PPM"):
        out = io.BytesIO()
        rgb.save(out, kind)
        seeds.append(out.getvalue())
    path = tmp_path / "x.png"
    for i in range(300):
        data = mutate(seeds[i % len(seeds)], rng)
        path.write_bytes(repair(data) if i % 2 and data[:4] == b"\x89PNG" else data)
        for read in (read_rgb, image_size, read_depth_map, read_depth_header, read_disparity_png):
            survives(read, path)


@pytest.mark.parametrize("mmap", [False, True])
def test_npy(tmp_path, mmap):
    rng = random.Random(4)
    seeds = []
    for array in (smooth_map(5, 6), np.ones((2, 3, 4), np.float32), np.array([None, {}], object), np.array(["a"])):
        out = io.BytesIO()
        np.save(out, array)
        seeds.append(out.getvalue())
    path = tmp_path / "x.npy"
    for i in range(250):
        path.write_bytes(mutate(seeds[i % 4], rng))
        found = survives(lambda: read_npy(path, mmap=mmap))
        assert found is None or found.dtype.kind in "buif"
        del found


def test_npz(tmp_path):
    rng = random.Random(5)
    seeds = []
    for save in (np.savez, np.savez_compressed):
        out = io.BytesIO()
        save(out, a=smooth_map(5, 6), b=np.ones((2, 3, 4)), c=np.array(["x"]))
        seeds.append(out.getvalue())
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        out = io.BytesIO()
        member = io.BytesIO()
        np.save(member, smooth_map(5, 6))
        with zipfile.ZipFile(out, "w", method) as archive:
            archive.writestr("a.npy", member.getvalue())
        seeds.append(out.getvalue())
    path = tmp_path / "x.npz"
    for i in range(400):
        path.write_bytes(mutate(seeds[i % 4], rng))
        archive = survives(open_npz, path)
        for name in archive or ():
            survives(archive.shape, name)
            survives(archive.__getitem__, name)
        if archive is not None:
            archive.close()


def test_calibration(tmp_path):
    rng = random.Random(6)
    source = DATA / "synthetic_rig"
    names = ("calib_cam_to_cam.txt", "calib_velo_to_cam.txt")
    for i in range(300):
        for name in names:
            data = (source / name).read_bytes()
            (tmp_path / name).write_bytes(mutate(data, rng) if name == names[i % 2] else data)
        calib = survives(read_calibration, tmp_path)
        if calib is not None:
            assert np.isfinite(calib.fx)
        survives(read_calib_file, tmp_path / names[0])
        survives(read_driving_stereo_calibration, tmp_path / names[0])


def test_scans(tmp_path):
    rng = random.Random(7)
    data = (DATA / "synthetic_exact" / "velodyne.bin").read_bytes()[:1600]
    path = tmp_path / "x.bin"
    for i in range(200):
        broken = mutate(data, rng)
        path.write_bytes(broken[: len(broken) // 16 * 16] if i % 2 else broken)
        scan = survives(read_scan, path)
        if scan is not None:
            sparse = project_scan(scan, camera(), 2, bool(i % 3))
            assert (sparse.values > 0).all()


def hdf5_seeds(folder):
    depth = DepthMap(smooth_map(12, 9), 256.0)
    for kind, item in (("prediction", depth), ("ground_truth", SparseDepth.from_map(depth))):
        for archival in (False, True):
            path = folder / f"{kind}{archival}.h5"
            with PackWriter(path, kind, archival=archival) as writer:
                writer.add("a", item)
                writer.add("b", item)
            yield path
    path = folder / "foreign.h5"
    with h5py.File(path, "w") as file:
        file["g/a"] = smooth_map(12, 9)
        file["stack"] = np.ones((2, 12, 9), np.float32)
    yield path


def read_hdf5(path):
    is_pack(path)
    for opened in (survives(open_pack, path), survives(open_hdf5_maps, path)):
        if opened is None:
            continue
        for name in list(getattr(opened, "names", opened))[:9]:
            found = survives(opened.read if hasattr(opened, "names") else opened.__getitem__, name)
            if hasattr(found, "__len__") and not isinstance(found, np.ndarray):
                survives(found.__getitem__, 0)
        opened.close()


def test_hdf5_cut_off_and_overwritten_values(tmp_path):
    """Cuts anywhere; other changes in the stored values and tables only.

    HDF5's own metadata is left to the library: a changed pointer there can end the process, which no reader can catch.
    """
    rng = random.Random(8)
    path = tmp_path / "x.h5"
    for seed in hdf5_seeds(tmp_path):
        data = seed.read_bytes()
        for _ in range(30):
            path.write_bytes(data[: rng.randrange(len(data))])
            read_hdf5(path)
        for _ in range(20):
            path.write_bytes(data)
            with h5py.File(path, "r+") as file:
                tables = [k for k in file if isinstance(file[k], h5py.Dataset) and file[k].ndim == 1 and file[k].size]
                for name in rng.sample(tables, min(2, len(tables))):
                    i = rng.randrange(len(file[name]))
                    kind = file[name].dtype
                    file[name][i] = (
                        rng.choice([0, 1, 65535, np.iinfo(kind).max if kind.kind in "ui" else np.nan]) % 2**31
                        if kind.itemsize > 2
                        else rng.randrange(256)
                    )
                for name in rng.sample(list(file.attrs), min(1, len(file.attrs))):
                    file.attrs[name] = rng.choice(["", "x", 7, -1.5, np.nan, np.arange(3)])
            read_hdf5(path)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_as_png(data, with_header):
    body = b"\x89PNG\r\n\x1a\n" + ihdr(5, 4) + chunk(b"IDAT", data) + chunk(b"IEND", b"") if with_header else data
    survives(decode_grey16, body, "x")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text(max_size=300) | st.from_regex(r"([A-Z]_\w{2,7}_0[0-3]: ([0-9.e+-]{1,6} ){0,12}\n){0,6}", fullmatch=True))
def test_any_text_as_calibration(tmp_path_factory, text):
    folder = tmp_path_factory.getbasetemp() / "calib"
    folder.mkdir(exist_ok=True)
    for name in ("calib_cam_to_cam.txt", "calib_velo_to_cam.txt"):
        (folder / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    survives(read_calibration, folder)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\x93NUMPY\x01\x00v\x00", b"\x93NUMPY\x02\x00", b"PK\x03\x04", b"PK\x05\x06"]),
)
def test_any_bytes_as_arrays(tmp_path_factory, data, magic):
    path = tmp_path_factory.getbasetemp() / "any.npy"
    path.write_bytes(magic + data)
    survives(read_npy, path)
    archive = survives(open_npz, path)
    for name in archive or ():
        survives(archive.__getitem__, name)
