from __future__ import annotations

import math

import numpy as np
import pytest

from adubench.evaluators.canny import canny, distance_to, log_depth_edges
from tests.evaluators.boundary_cases import NAMES, filled, maps, unpacked


@pytest.mark.parametrize("name", NAMES)
def test_every_pixel_equals_the_reference(name):
    gt, pred = maps(name)
    assert np.array_equal(log_depth_edges(filled(gt)), unpacked(name, "edges_gt"))
    assert np.array_equal(log_depth_edges(pred), unpacked(name, "edges_pred"))


@pytest.mark.parametrize("name", NAMES)
def test_scale_and_mirroring_keep_the_edges(name):
    _, pred = maps(name)
    edges = log_depth_edges(pred)
    assert np.mean(log_depth_edges(pred * np.float32(4)) != edges) < 0.002
    assert np.mean(log_depth_edges(pred[:, ::-1])[:, ::-1] != edges) < 0.002  # ties fall to the other side


def test_a_step_is_one_thin_line():
    image = np.zeros((20, 30), np.float32)
    image[:, 15:] = 1
    edges = canny(image)
    columns = np.flatnonzero(edges.any(axis=0))
    assert set(columns) <= {14, 15}
    assert edges[1:-1].any(axis=1).all()
    assert not edges[[0, -1]].any()


def test_weak_edges_need_a_strong_one():
    rows = np.linspace(0.12, 0.03, 40)  # the height of a step, falling slowly: magnitude about 0.38 to 0.1
    fading = np.where(np.arange(60) >= 20, rows[:, None], 0.0)
    kept = canny(fading, 1.0, 0.05, 0.2)
    assert kept[35, 18:22].any()
    assert not canny(fading[25:], 1.0, 0.05, 0.2).any()
    assert not canny(fading, 1.0, 0.2, 0.2)[35].any()


@pytest.mark.parametrize("shape", [(0, 0), (1, 7), (2, 2), (3, 3), (9, 4)])
def test_small_and_constant_images_have_no_edges(shape):
    assert not canny(np.full(shape, 3.0)).any()
    assert not log_depth_edges(np.zeros(shape)).any()
    assert log_depth_edges(np.full(shape, np.nan)).shape == shape


def test_nan_stays_local():
    image = np.zeros((40, 60))
    image[:, 30:] = 1
    edges = canny(image)
    image[5, 30] = np.nan
    holed = canny(image)
    assert not holed[3:8, 29:32].any()
    assert np.array_equal(holed[15:], edges[15:])


def test_integers_are_taken_as_they_are():
    image = np.zeros((12, 12), np.uint8)
    image[:, 6:] = 1
    assert np.array_equal(canny(image), canny(image.astype(np.float64)))


def test_distance():
    mask = np.zeros((5, 6), bool)
    mask[1, 1] = True
    assert distance_to(mask)[4, 5] == 5.0
    assert distance_to(mask)[1, 1] == 0.0
    assert (distance_to(np.zeros((2, 3))) == math.inf).all()
