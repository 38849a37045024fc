import numpy as np
import pytest

from adubench.models.classical import RowMean, StereoMatcher


def test_row_mean_is_the_geometric_mean_of_each_row():
    maps = [
        np.array([[0, 2], [5, 0], [0, 0], [9, 9]], np.float32),
        np.array([[8, 0], [5, 5], [0, 0], [9, 0]], np.float32),
    ]
    model = RowMean.fit(maps)
    assert model.depth_m[[0, 1, 3]] == pytest.approx([4.0, 5.0, 9.0], rel=1e-6)
    assert 5.0 < model.depth_m[2] < 9.0  # a row without measurements lies between its neighbours
    assert model.predict(np.zeros((4, 7, 3), np.uint8)).shape == (4, 7)


def test_row_mean_refuses_what_it_cannot_fit():
    with pytest.raises(ValueError, match="at least one map"):
        RowMean.fit([np.zeros((4, 4), np.float32)])
    with pytest.raises(ValueError, match="4 rows"):
        RowMean(np.ones(4, np.float32)).predict(np.zeros((5, 5, 3), np.uint8))


def test_stereo_matcher_finds_the_shift_of_a_textured_plane_and_of_a_box_before_it():
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 255, (64, 160, 3)).astype(np.uint8)
    left, right = texture[:, 20:140].copy(), texture[:, 24:144].copy()  # disparity 4
    left[20:44, 50:90] = box = rng.integers(0, 255, (24, 40, 3)).astype(np.uint8)
    right[20:44, 40:80] = box  # disparity 10
    depth = StereoMatcher(focal_baseline=40.0, min_depth=2.0).predict(left, right)
    assert np.median(depth[26:38, 58:82]) == pytest.approx(4.0, rel=0.05)
    assert np.median(depth[5:15, 20:110]) == pytest.approx(10.0, rel=0.05)
    assert np.isfinite(depth).all()
    assert (depth > 0).all()
