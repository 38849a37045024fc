import os

import numpy as np
import pytest

from adubench.errors import DataError
from adubench.io.depth_png import encode_depth, read_depth_header, read_depth_map, write_depth_png

from .helpers import png, smooth_map


def test_codes_and_scale(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(smooth_map(), (1, 4)))
    found = read_depth_map(path)
    assert found.scale == 256
    np.testing.assert_array_equal(found.values, smooth_map())
    np.testing.assert_array_equal(
        read_depth_map(path, 1000).quantity(), smooth_map().astype(np.float32) / np.float32(1000)
    )
    assert read_depth_header(path).width == smooth_map().shape[1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_half_to_even_clipping_and_missing(dtype):
    depth = np.array(
        [[0.5 / 256, 1.5 / 256, 2.5 / 256, 80.0], [1e-9, 300.0, 0.0, -3.0], [np.nan, np.inf, -np.inf, 1.0]]
    )
    expected = [[1, 2, 2, 20480], [1, 65535, 0, 0], [0, 0, 0, 256]]
    np.testing.assert_array_equal(encode_depth(depth.astype(dtype)), expected)


def test_scale_that_is_no_power_of_two():
    depth = np.random.default_rng(0).uniform(0.1, 10, (9, 9)).astype(np.float32)
    np.testing.assert_array_equal(encode_depth(depth, 1000), np.rint(depth.astype(np.float64) * 1000))


@pytest.mark.filterwarnings("error")
def test_extreme_values_need_no_warning():
    depth = np.array([3e38, 1e-45, np.nan, -3e38], np.float32)
    np.testing.assert_array_equal(encode_depth(depth), [65535, 1, 0, 0])
    np.testing.assert_array_equal(encode_depth(np.arange(4)), [0, 256, 512, 768])


def test_float32_path_equals_float64():
    depth = np.random.default_rng(0).uniform(0, 256, 200_000).astype(np.float32)
    np.testing.assert_array_equal(encode_depth(depth), encode_depth(depth.astype(np.float64)))


def test_write_and_read_back(tmp_path):
    depth = smooth_map().astype(np.float32) / 256
    before = depth.copy()
    write_depth_png(tmp_path / "new" / "a.png", depth)
    np.testing.assert_array_equal(read_depth_map(tmp_path / "new" / "a.png").quantity(), before)
    np.testing.assert_array_equal(depth, before)
    assert os.listdir(tmp_path / "new") == ["a.png"]


@pytest.mark.parametrize("read", [read_depth_map, read_depth_header])
def test_paths_that_are_no_file(tmp_path, read):
    with pytest.raises(DataError, match=r"depth map .*gone\.png: no such file"):
        read(tmp_path / "gone.png")
    with pytest.raises(DataError, match="folder"):
        read(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        read("a\0b.png")


def test_text_named_png(tmp_path):
    path = tmp_path / "t.png"
    path.write_text("oops")
    with pytest.raises(DataError, match=r"t\.png: not a PNG \(looks like text\)"):
        read_depth_map(path)
