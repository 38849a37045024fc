"""Geometry and colours of training samples against the NeWCRFs loader, and what the draws promise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from adubench.datasets import transforms as T
from adubench.datasets.photometry import MEAN, STD, apply_table, colour_table
from adubench.errors import DataError, UsageError
from tests.photometry_reference import change_colours, normalise

GOLDEN = Path(__file__).resolve().parents[1] / "data" / "augment"
PLAIN = replace(T.KITTI, degrees=0.0, flip=0.0, photometric=0.0)


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "augment.npz")


def noise(shape=(40, 64, 3), seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("which", ["", "2"])
def test_rotation_is_the_reference_bit_for_bit(golden, which):
    angle = float(golden[f"rot_angle{which}_deg"])
    settings, draw = replace(T.KITTI, size=(36, 60)), T.Draw(angle=angle)
    image = T.transform_image(golden["rot_rgb"], draw, settings, flip=False, name="x")
    np.testing.assert_array_equal(image, golden[f"rot_rgb_out{which}"])
    codes = T.transform_codes(golden["rot_depth"].astype(np.uint16), draw, settings, flip=False, name="x")
    np.testing.assert_array_equal(codes, golden[f"rot_depth_out{which}"])


def test_step_by_step_colours_are_the_reference(golden):
    """The yardstick of the next test is itself the reference (float input, so no table can be used here)."""
    out = change_colours(
        golden["aug_in"], float(golden["aug_gamma"]), float(golden["aug_brightness"]), golden["aug_colors"]
    )
    np.testing.assert_allclose(out, golden["aug_out"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(normalise(golden["norm_in"]), golden["norm_out"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_table_is_the_chain_of_steps(seed):
    rng = np.random.default_rng(seed)
    colours = T.Colours(rng.uniform(0.9, 1.1), rng.uniform(0.75, 1.25), tuple(rng.uniform(0.9, 1.1, 3)))
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    steps = normalise(
        change_colours(image.astype(np.float32) / 255.0, colours.gamma, colours.brightness, colours.factors)
    )
    np.testing.assert_allclose(apply_table(image, colour_table(colours)), steps, rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        apply_table(image, colour_table(None)), normalise(image / np.float32(255)), rtol=0, atol=1e-6
    )


def test_table_keeps_channels_apart():
    table = colour_table(T.Colours(1.0, 1.0, (0.9, 1.0, 1.1)))
    assert table.shape == (3, 256)
    assert table.dtype == np.float32
    np.testing.assert_allclose(table[:, 255], (np.array([0.9, 1.0, 1.0]) - MEAN) / STD, atol=1e-6)


@pytest.mark.parametrize("i", range(5))
def test_kb_crop_of_every_kitti_size(i):
    golden = np.load(GOLDEN / "kb_crop.npz")
    H, W = (int(v) for v in golden[f"size{i}"])
    y, x = np.mgrid[:H, :W]
    image = np.stack([(7 * y + 3 * x) % 256, (y // 2 + 5 * x + i) % 256, (x * y // 97) % 256], axis=2).astype(np.uint8)
    out = apply_table(T.kb_crop(image), colour_table(None))
    assert out.shape == tuple(golden[f"out_shape{i}"])
    np.testing.assert_allclose(out[:, ::32, ::64], golden[f"sample{i}"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(out.mean(axis=(1, 2), dtype=np.float64), golden[f"mean{i}"], rtol=0, atol=1e-6)


def test_kb_crop_leaves_small_images_alone():
    image = noise((96, 320, 3))
    assert T.kb_crop(image) is image
    assert T.kb_window(352, 1216) == (0, 0)


def test_crop_positions_reach_both_ends_and_nothing_else():
    settings = replace(T.KITTI, size=(10, 20))
    corners = {
        T.crop_corner(12, 22, T.Draw(across=u, down=v), settings, "x")[:2]
        for u in np.linspace(0, 0.999, 9)
        for v in np.linspace(0, 0.999, 9)
    }
    assert corners == {(top, left) for top in range(3) for left in range(3)}


def test_an_image_smaller_than_the_crop_is_one_sentence():
    with pytest.raises(DataError, match=r"frame: the image has 40x64 pixels .* crop of 352x1120; .*input\.height"):
        T.transform_image(noise(), T.Draw(), T.KITTI, flip=False, name="frame")


def test_draws_are_pure_and_ranges_hold():
    draws = [T.draw_sample(T.sample_rng(7, epoch, "a"), T.KITTI) for epoch in range(400)]
    assert draws[3] == T.draw_sample(T.sample_rng(7, 3, "a"), T.KITTI)
    assert draws[3] != T.draw_sample(T.sample_rng(8, 3, "a"), T.KITTI)
    assert draws[3] != T.draw_sample(T.sample_rng(7, 3, "b"), T.KITTI)
    angles = [d.angle for d in draws]
    assert -1 <= min(angles) < -0.9 < 0.9 < max(angles) <= 1
    assert 0.4 < np.mean([d.flip for d in draws]) < 0.6
    coloured = [d.colours for d in draws if d.colours is not None]
    assert 0.4 < len(coloured) / 400 < 0.6
    for values in (
        [c.gamma for c in coloured],
        [c.brightness for c in coloured],
        *np.array([c.factors for c in coloured]).T,
    ):
        assert 0.9 <= min(values) < 0.92
        assert 1.08 < max(values) <= 1.1


def test_switching_one_step_off_leaves_the_others():
    one, other = T.sample_rng(0, 0, "a"), T.sample_rng(0, 0, "a")
    full = T.draw_sample(one, replace(T.KITTI, photometric=1.0))
    bare = T.draw_sample(other, replace(T.KITTI, degrees=0.0, photometric=0.0))
    assert (bare.across, bare.down, bare.flip) == (full.across, full.down, full.flip)
    assert bare.angle == 0
    assert bare.colours is None
    assert full.colours is not None


def test_flip_and_no_augmentation():
    image = noise()
    settings = replace(PLAIN, size=(40, 64))
    flipped = T.transform_image(image, T.Draw(), settings, flip=True, name="x")
    np.testing.assert_array_equal(flipped, image[:, ::-1])
    assert flipped.flags.c_contiguous
    off = replace(T.KITTI, enabled=False)
    assert T.draw_sample(T.sample_rng(0, 0, "a"), off) == T.Draw()
    np.testing.assert_array_equal(T.transform_image(image, T.Draw(), off, flip=False, name="x"), image)


def test_rotated_in_borders_are_black_and_without_ground_truth():
    settings, draw = replace(T.KITTI, size=(40, 64)), T.Draw(angle=5.0)
    image = T.transform_image(np.full((40, 64, 3), 255, np.uint8), draw, settings, flip=False, name="x")
    codes = T.transform_codes(np.full((40, 64), 900, np.uint16), draw, settings, flip=False, name="x")
    assert image[-1, 0].max() == 0
    assert codes[-1, 0] == 0
    assert set(np.unique(codes)) == {0, 900}


def test_resize_mode_scales_the_image_only():
    torch = pytest.importorskip("torch")
    image, codes = noise((50, 88, 3)), np.arange(50 * 88, dtype=np.uint16).reshape(50, 88)
    settings = replace(PLAIN, size=(32, 64), mode="resize")
    out = T.transform_image(image, T.Draw(), settings, flip=False, name="x")
    tensor = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32))[None]
    expected = torch.nn.functional.interpolate(tensor, (32, 64), mode="bilinear", align_corners=False, antialias=False)
    np.testing.assert_allclose(out, expected[0].numpy().transpose(1, 2, 0), atol=0.51)
    np.testing.assert_array_equal(T.transform_codes(codes, T.Draw(), settings, flip=False, name="x"), codes)


@pytest.mark.parametrize("mode", ["crop", "resize"])
@pytest.mark.parametrize("flip", [False, True])
def test_opencv_geometry_is_close_to_pillow(mode, flip):
    pytest.importorskip("cv2")
    y, x = np.mgrid[:60, :120]
    image = np.stack([2 * x, 4 * y, 120 + 100 * np.sin(x / 9 + y / 7)], axis=2).astype(np.uint8)
    codes = np.where((x // 8 + y // 8) % 2, 5000, 0).astype(np.uint16)
    draw = T.Draw(angle=0.8, across=0.4, down=0.3)
    exact = replace(T.KITTI, size=(48, 96), mode=mode)
    fast = replace(exact, geometry="opencv")
    a, b = (T.transform_image(image, draw, s, flip=flip, name="x").astype(int) for s in (exact, fast))
    assert a.shape == b.shape == (48, 96, 3)
    inner = np.s_[3:-3, 3:-3]
    assert np.abs(a[inner] - b[inner]).mean() < 0.6
    assert np.abs(a[inner] - b[inner]).max() <= 3
    a, b = (T.transform_codes(codes, draw, s, flip=flip, name="x") for s in (exact, fast))
    assert a.shape == b.shape
    assert (a != b).mean() < 0.02


def test_opencv_is_optional(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    settings = replace(PLAIN, size=(40, 64), geometry="opencv")
    with pytest.raises(UsageError, match="opencv, but the package is not installed"):
        T.transform_image(noise(), T.Draw(), settings, flip=False, name="x")


@pytest.mark.parametrize("change", [{"geometry": "skimage"}, {"mode": "pad"}])
def test_unknown_choices(change):
    with pytest.raises(UsageError, match="unknown"):
        replace(T.KITTI, **change)
