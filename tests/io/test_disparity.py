import numpy as np
import pytest

from adubench.errors import DataError
from adubench.io.disparity import depth_from_disparity, depth_uncertainty, read_disparity_png, scaled_from_sigmoid

from .helpers import png, smooth_map


def test_sigmoid_spans_the_depth_range():
    scaled = scaled_from_sigmoid(np.array([0.0, 0.5, 1.0]))
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, [0.01, 5.005, 10.0], rtol=1e-6)
    np.testing.assert_allclose(depth_from_disparity(scaled), [100, 1 / 5.005, 0.1], rtol=1e-6)


def test_pixel_disparity_and_missing():
    depth = depth_from_disparity(np.array([[0.0, -1.0, np.nan], [10.0, 20.0, 40.0]]), 720 * 0.5)
    np.testing.assert_array_equal(depth, np.array([[0, 0, 0], [36, 18, 9]], np.float32))


def test_uncertainty_of_depth_is_the_first_order_of_the_mapping():
    disparity, step = np.array([0.02, 0.3, 5.0]), 1e-7
    depth = depth_from_disparity(disparity, 5.4)
    change = (5.4 / disparity - 5.4 / (disparity + step)) / step
    np.testing.assert_allclose(depth_uncertainty(depth, np.ones(3), 5.4), change, rtol=1e-4)


def test_png_scale(tmp_path):
    path = tmp_path / "d.png"
    path.write_bytes(png(smooth_map()))
    full, half = read_disparity_png(path, 128).quantity(), read_disparity_png(path).quantity()
    np.testing.assert_array_equal(full, 2 * half)
    with pytest.raises(DataError, match="disparity map"):
        read_disparity_png(tmp_path / "gone.png")


def test_empty_range():
    with pytest.raises(DataError, match="min < max"):
        scaled_from_sigmoid(np.zeros(3), 10, 1)
