import io
import os
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from adubench.errors import DataError
from adubench.io import _fast
from adubench.io import png as module
from adubench.io.png import MAX_PIXELS, decode_grey16, encode_grey16, looks_like, read_header

from .helpers import SIGNATURE, chunk, filtered, ihdr, png, smooth_map


@pytest.fixture(params=["required", "fast"])
def tier(request, monkeypatch):
    monkeypatch.setenv("ADUBENCH_FAST", "0" if request.param == "required" else "1")
    if request.param == "fast" and (_fast.igzip() is None or _fast.unfilter16() is None):
        pytest.skip("the fast extra is not installed")
    return request.param


MAPS = {
    "smooth": smooth_map(),
    "noise": np.random.default_rng(1).integers(0, 65536, (23, 31), dtype=np.uint16),
    "sparse": np.where(np.random.default_rng(2).random((40, 30)) < 0.1, smooth_map(40, 30), 0).astype(np.uint16),
    "one pixel": np.array([[513]], np.uint16),
    "one row": smooth_map(1, 17),
    "one column": smooth_map(17, 1),
    "zero": np.zeros((9, 11), np.uint16),
    "full": np.full((9, 11), 65535, np.uint16),
}


@pytest.mark.parametrize("kinds", [(0,), (1,), (2,), (3,), (4,), (0, 1, 2, 3, 4), (4, 2, 1), (2, 2, 2, 2, 4)])
@pytest.mark.parametrize("name", MAPS)
def test_every_filter_decodes_to_the_same_bits(tier, name, kinds):
    found = decode_grey16(png(MAPS[name], kinds, pieces=3), "x")
    assert found.dtype == np.uint16
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, MAPS[name])


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("level", [0, 1, 6])
def test_round_trip(tier, name, level):
    np.testing.assert_array_equal(decode_grey16(encode_grey16(MAPS[name], level), "x"), MAPS[name])


def test_other_decoders_read_what_is_encoded(tier):
    data = encode_grey16(MAPS["smooth"])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), MAPS["smooth"])


@pytest.mark.parametrize("level", [0, 1, 3, 6, 9])
def test_files_of_opencv(tier, level):
    cv2 = pytest.importorskip("cv2")
    for codes in MAPS.values():
        data = cv2.imencode(".png", codes, [cv2.IMWRITE_PNG_COMPRESSION, level])[1].tobytes()
        np.testing.assert_array_equal(decode_grey16(data, "x"), codes)
        again = cv2.imdecode(np.frombuffer(encode_grey16(codes, level), np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(again.reshape(codes.shape), codes)


def test_interlaced_maps_decode(tier):
    codes = smooth_map(13, 11)
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    raw = b"".join(filtered(codes[y::dy, x::dx], (0,)) for x, y, dx, dy in passes)
    body = ihdr(11, 13, interlace=1) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(decode_grey16(SIGNATURE + body, "x"), codes)
    short = ihdr(11, 13, interlace=1) + chunk(b"IDAT", zlib.compress(raw[:-30])) + chunk(b"IEND", b"")
    with pytest.raises(DataError, match="end early"):
        decode_grey16(SIGNATURE + short, "x")


def test_bytes_do_not_depend_on_the_call_and_portable_not_on_the_extra(monkeypatch):
    codes = MAPS["smooth"]
    assert encode_grey16(codes) == encode_grey16(codes.copy(order="F"))
    portable = encode_grey16(codes, portable=True)
    monkeypatch.setenv("ADUBENCH_FAST", "0")
    assert encode_grey16(codes) == portable == encode_grey16(codes, portable=True)


def test_input_is_left_alone():
    codes = MAPS["smooth"].copy()
    encode_grey16(codes)
    np.testing.assert_array_equal(codes, MAPS["smooth"])


@pytest.mark.parametrize("bad", [np.zeros((3, 3), np.uint8), np.zeros(3, np.uint16), np.zeros((0, 3), np.uint16)])
def test_encode_refuses_other_arrays(bad):
    with pytest.raises(DataError, match="expected uint16"):
        encode_grey16(bad)


def _pil(mode, array=None):
    out = io.BytesIO()
    image = Image.new(mode, (7, 5)) if array is None else Image.fromarray(array)
    image.save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (_pil("L"), "got 8-bit single channel"),
        (_pil("RGB"), "expected 16-bit single channel, got 8-bit RGB. KITTI depth maps are 16-bit"),
        (_pil("RGBA"), "8-bit RGBA"),
        (_pil("LA"), "8-bit grey with alpha"),
        (_pil("P"), "palette"),
        (_pil("1"), "1-bit"),
        (SIGNATURE + ihdr(4, 4, 16, 2), "16-bit RGB"),
        (b"", "empty file"),
        (b"hello world, I am text\n", "looks like text"),
        (b"\xff\xd8\xff\xe0" + bytes(40), "looks like JPEG"),
        (SIGNATURE, "truncated PNG"),
        (SIGNATURE + ihdr(4, 4)[:-6], "truncated PNG"),
        (SIGNATURE + ihdr(0, 4), "0x4"),
        (SIGNATURE + ihdr(4, 0), "4x0"),
        (SIGNATURE + ihdr(2**31 - 1, 2**31 - 1), "more than the limit of 64 Mpixel"),
        (SIGNATURE + ihdr(8193, 8192), "8193x8192"),
        (SIGNATURE + ihdr(4, 4, 5, 0), "corrupt PNG header"),
        (SIGNATURE + ihdr(4, 4, 16, 7), "corrupt PNG header"),
        (SIGNATURE + ihdr(4, 4, 16, 0, 2), "corrupt PNG header"),
        (SIGNATURE + chunk(b"IEND", b"") + bytes(30), "first chunk is not a header"),
        (SIGNATURE + ihdr(4, 4)[:-1] + b"\x00" + bytes(20), "checksum error in chunk IHDR"),
        (SIGNATURE + ihdr(4, 4) + chunk(b"IEND", b""), "no image data"),
        (SIGNATURE + ihdr(4, 4) + chunk(b"IDAT", b"xx", crc=1) + chunk(b"IEND", b""), "checksum error in chunk IDAT"),
        (SIGNATURE + ihdr(4, 4) + chunk(b"IDAT", b"not zlib") + chunk(b"IEND", b""), "cannot decode"),
        (png(smooth_map(8, 8)) + b"surplus", "7 bytes after its end"),
        (png(smooth_map(8, 8), stream=zlib.compress(bytes(17 * 7))), "cannot decode"),
        (png(smooth_map(8, 8), stream=zlib.compress(bytes(17 * 7 + 4))), "cannot decode"),
        (png(smooth_map(8, 8), stream=zlib.compress(bytes([2, *bytes(16)]) * 7)), "end early"),
        (png(smooth_map(8, 8), stream=zlib.compress(bytes([9, *bytes(16)]) * 8)), "cannot decode"),
        (png(smooth_map(8, 8), stream=zlib.compress(bytes([2, *bytes(16)]) * 9)), "more data"),
    ],
)
def test_refused_with_a_sentence_that_names_the_file(tier, data, words):
    with pytest.raises(DataError) as caught:
        decode_grey16(data, "depth map a/b.png")
    message = str(caught.value)
    assert message.startswith("depth map a/b.png: ")
    assert words in message
    assert "\n" not in message


def test_no_prefix_of_a_file_decodes(tier):
    data = png(smooth_map(12, 9), (4, 1), pieces=2)
    for size in range(len(data)):
        with pytest.raises(DataError):
            decode_grey16(data[:size], "x")


def test_no_single_changed_byte_goes_unnoticed(tier):
    codes = smooth_map(6, 5)
    data = png(codes, (1, 2))
    for i in range(len(data)):
        broken = bytearray(data)
        broken[i] ^= 0x41
        with pytest.raises(DataError):
            decode_grey16(bytes(broken), "x")


def test_partial_decoding_of_other_libraries_has_no_effect(tier, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = png(smooth_map(8, 8), (4,), stream=zlib.compress(filtered(smooth_map(8, 8), (4,)))[:-12])
    with pytest.raises(DataError):
        decode_grey16(data, "x")


def test_header():
    header = read_header(png(smooth_map(3, 8))[:33], "x")
    assert (header.width, header.height, header.bit_depth, header.color_type, header.interlace) == (8, 3, 16, 0, 0)
    assert header.description == "16-bit single channel"
    assert MAX_PIXELS == 64 * 2**20


def test_looks_like():
    assert looks_like(b"RIFF1234WEBP") == "WebP"
    assert looks_like(b"\x00\x01\x02") == "unknown binary data"


def test_without_compiler_igzip_alone_is_not_used(monkeypatch):
    monkeypatch.setattr(_fast, "unfilter16", lambda: None)
    np.testing.assert_array_equal(decode_grey16(png(MAPS["smooth"], (4,)), "x"), MAPS["smooth"])


def test_kernels_survive_a_cache_folder_that_cannot_be_written(tmp_path):
    pytest.importorskip("numba")
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    code = (
        "from adubench.io import _fast; import numpy as np; k = _fast.unfilter16(); out = np.zeros((1, 1), np.uint16);"
        "assert k is not None and k(np.array([0, 1, 2], np.uint8), out) == -1 and out[0, 0] == 258"
    )
    env = os.environ | {"NUMBA_CACHE_DIR": str(blocked / "x"), "ADUBENCH_FAST": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=100)
    assert done.returncode == 0, done.stderr


def test_the_compiler_is_loaded_only_when_many_maps_are_decoded():
    pytest.importorskip("numba")
    pytest.importorskip("isal")
    code = (
        "import sys; from adubench.io.png import *; import numpy as np;"
        "data = encode_grey16(np.ones((3, 4), np.uint16));"
        "[decode_grey16(data, 'x') for _ in range(64)]; assert 'numba' not in sys.modules;"
        "assert (decode_grey16(data, 'x') == 1).all(); assert 'numba' in sys.modules"
    )
    env = {k: v for k, v in os.environ.items() if k != "ADUBENCH_FAST"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=100)
    assert done.returncode == 0, done.stderr


def test_import_does_not_load_the_extras():
    code = "import sys, adubench.io.png, adubench.io.depth_png; assert not {'numba', 'isal', 'PIL'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
    assert module.MAX_PIXELS
