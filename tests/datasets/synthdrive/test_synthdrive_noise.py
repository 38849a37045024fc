from __future__ import annotations

import numpy as np

from adubench.datasets.synthdrive.noise import band, clouds, grain, hash_u32, hash_unit, smooth, stripes


def test_hash_is_the_same_everywhere() -> None:
    assert hash_u32(np.array([0, 1, -1, 123456]), seed=7).tolist() == [3235910819, 4095569166, 399463722, 3316172045]


def test_hash_is_uniform() -> None:
    values = hash_unit(np.arange(50_000), seed=1)
    assert values.min() >= 0
    assert values.max() < 1
    counts = np.histogram(values, 10, (0, 1))[0]
    assert abs(counts - 5000).max() < 350
    assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.02


def test_tiles_repeat_and_average_to_a_half() -> None:
    u, v = (hash_unit(np.arange(500), seed=k) * 4 - 2 for k in (1, 2))
    for tile in (clouds(), grain()):
        np.testing.assert_allclose(tile.sample(u, v), tile.sample(u + 3, v - 2), atol=2e-3)
        far = tile.sample(u, v, np.full_like(u, 1.5))
        assert np.abs(far - 0.5).max() < 0.02


def test_stripes_are_box_filtered() -> None:
    x = np.linspace(-3, 3, 41, dtype=np.float32)
    for width in (0.05, 0.4, 2.7):
        fine = x[:, None] + (np.arange(4000) + 0.5) / 4000 * width - width / 2
        exact = (np.mod(fine, 1.3) < 0.4).mean(1)
        got = stripes(x, 1.3, 0.4, np.full_like(x, width))
        np.testing.assert_allclose(got, exact, atol=2e-3)
        exact = ((fine >= -0.5) & (fine <= 1.0)).mean(1)
        np.testing.assert_allclose(band(x, -0.5, 1.0, np.full_like(x, width)), exact, atol=2e-3)


def test_smooth_step_goes_both_ways() -> None:
    x = np.array([0.0, 0.5, 1.0], np.float32)
    assert smooth(x, 0, 1).tolist() == [0, 0.5, 1]
    assert smooth(x, 1, 0).tolist() == [1, 0.5, 0]
