"""TIE-KD's augmentation against the reference's pictures, and what a sample depends on."""

from dataclasses import replace

import numpy as np
import pytest

from adubench.datasets.tie_kd_transforms import (
    KITTI,
    NYU,
    TieKDAugmentation,
    TieKDDraw,
    colour_table,
    cut_window,
    draw_tie_kd,
    rotate_image,
    rotate_map,
    tie_kd_sample,
)
from adubench.errors import DataError
from tests.models.tie_kd_golden import assert_near, load

GOLDEN = load("kd_augment.npz")
RELEASED = TieKDAugmentation((30, 40), "none", rotate_teacher=False)


def golden_draw(params):
    """The reference's parameters as a draw: crop positions become fractions, gains are B, G, R."""
    rotate, degrees, flip, y, x, colour, gamma, brightness, blue, green, red = params
    colours = (gamma, brightness, (red, green, blue)) if colour else None
    return TieKDDraw(degrees if rotate else 0.0, bool(flip), (y + 0.5) / 1, (x + 0.5) / 25, colours)


@pytest.mark.parametrize("j", range(6))
def test_sample_as_released(j):
    params = GOLDEN[f"aug{j}_params"]
    draw = golden_draw(params)
    image = GOLDEN["bgr"][..., ::-1]
    sample = tie_kd_sample(image, GOLDEN["teacher"], GOLDEN["gt"], draw, RELEASED, name="x")
    assert_near(sample.image.transpose(1, 2, 0), GOLDEN[f"aug{j}_img_rgb_norm"], 0.018 if params[0] else 1e-4)
    assert (sample.gt != GOLDEN[f"aug{j}_gt"]).mean() <= (0.005 if params[0] else 0)
    np.testing.assert_array_equal(sample.teacher, GOLDEN[f"aug{j}_teacher"][0])
    assert sample.teacher_mask.all()


@pytest.mark.parametrize("j", [2, 3, 5])
def test_rotation_rounds_and_blends_with_black(j):
    expected = GOLDEN[f"aug{j}_rot_bgr"].astype(int)
    got = rotate_image(GOLDEN["bgr"], GOLDEN[f"aug{j}_params"][1]).astype(int)
    assert np.abs(got - expected).max() <= 1
    # An 8-bit filter that truncates would be half a level too dark.
    assert abs((got - expected).mean()) < 0.01


@pytest.mark.parametrize("size", [(375, 1242), (370, 1226), (376, 1241), (374, 1238)])
def test_kitti_window(size):
    top, left, h, w = GOLDEN[f"kb_{size[0]}x{size[1]}"]
    rows, columns = np.indices(size)
    assert (cut_window(rows, "kb")[0, 0], cut_window(columns, "kb")[0, 0]) == (top, left)
    assert cut_window(rows, "kb").shape == (h, w)
    assert cut_window(np.zeros((128, 416)), "kb").shape == (128, 416)


def test_nyu_window():
    assert cut_window(np.zeros((480, 640)), "nyu").shape == (427, 565)
    assert NYU.size == (416, 544)
    assert NYU.brightness == (0.75, 1.25)


def test_gamma_acts_on_0_to_255():
    table = colour_table(TieKDDraw(colours=(0.9, 1.0, (1.0, 1.0, 1.0))))
    assert table[0, 128] * 58.395 + 123.675 == pytest.approx(78.8, abs=0.05)


def test_the_teacher_turns_with_the_image_unless_as_released():
    image = np.zeros((40, 60, 3), np.uint8)
    depth = np.linspace(1, 80, 2400, dtype=np.float32).reshape(40, 60)
    draw = TieKDDraw(degrees=2.5)
    intended = replace(RELEASED, size=(40, 60), rotate_teacher=True)
    turned = tie_kd_sample(image, depth, depth, draw, intended, name="x")
    released = tie_kd_sample(image, depth, depth, draw, replace(intended, rotate_teacher=False), name="x")
    np.testing.assert_array_equal(turned.teacher, turned.gt)
    np.testing.assert_array_equal(released.teacher, depth)
    assert released.teacher_mask.all()
    # What was turned in is masked, and nothing else is.
    assert 0 < (~turned.teacher_mask).sum() < 100
    np.testing.assert_array_equal(turned.teacher == 0, ~turned.teacher_mask)


def test_clockwise_is_positive():
    dot = np.zeros((21, 21), np.float32)
    dot[2, 10] = 1
    row, column = np.argwhere(rotate_map(dot, 30.0))[0]
    assert (row, column) == (3, 14)


def test_a_sample_is_a_function_of_seed_epoch_and_frame():
    first = draw_tie_kd(1, 2, "a", KITTI)
    assert first == draw_tie_kd(1, 2, "a", KITTI)
    others = [draw_tie_kd(2, 2, "a", KITTI), draw_tie_kd(1, 3, "a", KITTI), draw_tie_kd(1, 2, "b", KITTI)]
    assert first not in others
    # Switching one step off leaves the others as they were.
    plain = draw_tie_kd(1, 2, "a", replace(KITTI, rotate=0.0, colour=0.0))
    assert (plain.flip, plain.across, plain.degrees, plain.colours) == (first.flip, first.across, 0.0, None)
    assert draw_tie_kd(1, 2, "a", replace(KITTI, enabled=False)) == TieKDDraw()


def test_draws_have_the_published_ranges():
    draws = [draw_tie_kd(0, 0, str(i), KITTI) for i in range(400)]
    angles = [d.degrees for d in draws if d.degrees]
    colours = [d.colours for d in draws if d.colours]
    for share in (len(angles), len(colours), sum(d.flip for d in draws)):
        assert 160 < share < 240
    assert max(map(abs, angles)) <= 2.5
    assert min(angles) < -2 < 2 < max(angles)
    assert all(0.9 <= v <= 1.1 for gamma, brightness, gains in colours for v in (gamma, brightness, *gains))
    assert {int(d.across * 513) for d in draws} <= set(range(513))


@pytest.mark.parametrize("size", [(375, 1242), (352, 1216)])
def test_teacher_maps_of_the_frame_are_cut_like_the_image(size):
    rows, columns = np.indices((375, 1242)).astype(np.float32)
    image = np.zeros((375, 1242, 3), np.uint8)
    teacher = columns if size == (375, 1242) else cut_window(columns, "kb")
    settings = TieKDAugmentation(enabled=False)
    sample = tie_kd_sample(image, teacher, rows, TieKDDraw(), settings, name="x")
    assert sample.teacher.shape == (352, 1216)
    assert sample.teacher[0, 0] == 13
    assert sample.gt[0, 0] == 23


def test_wrong_sizes_are_named():
    image, good = np.zeros((375, 1242, 3), np.uint8), np.zeros((352, 1216), np.float32)
    with pytest.raises(DataError, match=r"teacher map of drive/7: it has 320x1216.*352x1216"):
        tie_kd_sample(image, good[:320], None, TieKDDraw(), KITTI, name="drive/7")
    small = np.zeros((128, 416), np.float32)
    with pytest.raises(DataError, match=r"drive/7.*128x416.*352x704"):
        tie_kd_sample(np.zeros((128, 416, 3), np.uint8), small, None, TieKDDraw(), KITTI, name="drive/7")
