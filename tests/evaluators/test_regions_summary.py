"""Summaries of region rows, overlays, groups and quantiles of lightness."""

import math

import numpy as np
import pytest

from adubench.errors import DataError
from adubench.evaluators.moments import frame_moments
from adubench.evaluators.region_overlay import overlay, overlay_bins, write_overlays
from adubench.evaluators.region_params import RegionParameters, region_names, regions
from adubench.evaluators.region_summary import (
    group_rows,
    image_mean,
    light_bounds,
    light_histogram,
    pooled,
    region_summary,
    shown_regions,
)
from adubench.evaluators.regions import region_masks


def _rows(counts, seed=0):
    rng = np.random.default_rng(seed)
    out = []
    for n in counts:
        gt = rng.uniform(5, 70, n).astype(np.float32)
        out.append(frame_moments(gt, (gt * np.exp(rng.normal(0, 0.1, n))).astype(np.float32)))
    return np.array(out)


def test_the_two_aggregations():
    rows = _rows((3, 60, 0, 200))
    assert pooled(rows)["abs_rel"] == pytest.approx(rows[:, 3].sum() / 263)
    assert image_mean(rows, 50)["abs_rel"] == pytest.approx((rows[1, 3] / 60 + rows[3, 3] / 200) / 2)
    assert image_mean(rows)["abs_rel"] == pytest.approx((rows[0, 3] / 3 + rows[1, 3] / 60 + rows[3, 3] / 200) / 3)
    assert math.isnan(image_mean(rows, 1000)["silog"])
    assert math.isnan(pooled(rows[2:3])["rmse"])


def test_sizes_shares_and_rows_too_small_to_print():
    every = _rows((100,) * 12)
    few = _rows((45,) * 9 + (0,) * 3)
    small = _rows((40,) * 12)
    summary = region_summary(np.stack([every, few, small], axis=1), ("all", "few", "small"))
    assert summary["all"]["n_pixels"] == 1200
    assert summary["all"]["share"] == 1.0
    assert summary["few"]["n_images"] == 9
    assert summary["few"]["too_few"]  # 405 pixels, 9 images
    assert summary["small"]["n_images_mean"] == 0
    assert math.isnan(summary["small"]["image_mean"]["d1"])
    assert summary["small"]["share"] == pytest.approx(0.4)
    assert summary["small"]["too_few"]  # 480 pixels
    assert not region_summary(np.stack([every, small], axis=1), ("all", "s"), least_pixels=480)["s"]["too_few"]
    assert not summary["all"]["too_few"]


def test_an_empty_table_has_no_share():
    summary = region_summary(np.zeros((2, 1, 15)), ("all",))
    assert summary["all"]["share"] == 0.0
    assert summary["all"]["n_images"] == 0


def test_rows_for_pixels_in_no_bin_show_only_when_filled():
    parameters = RegionParameters(families=("depth",), edge_preset="dense")
    names = region_names(parameters)
    values = np.zeros((1, len(names), 15))
    assert shown_regions(regions(parameters), values, names) == ("all", "depth0", "depth1", "depth2", "depth3")
    values[0, names.index("depth4"), 0] = 1
    assert "depth4" in shown_regions(regions(parameters), values, names)


def test_groups():
    rows = _rows((5, 6, 7))
    groups = group_rows(rows, ("a", "b", "c"), {"a": "night", "c": "night", "b": "day", "z": "fog"})
    assert list(groups) == ["day", "night"]
    np.testing.assert_array_equal(groups["night"], rows[[0, 2]])
    with pytest.raises(DataError, match="none of the 3 images"):
        group_rows(rows, ("a", "b", "c"), {"x": "night"})


def test_quantiles_of_lightness():
    values = np.random.default_rng(0).uniform(0, 100, 100_000)
    bounds = light_bounds(light_histogram(values), (0.1, 0.5))
    assert bounds == pytest.approx((10, 50), abs=0.5)
    assert light_histogram(np.array([0.0, 100.0]))[[0, 999]].tolist() == [1, 1]
    with pytest.raises(DataError, match="no evaluated pixel"):
        light_bounds(light_histogram(np.empty(0)), (0.5,))


def test_overlays():
    rgb = np.full((4, 6, 3), 100, np.uint8)
    mask = np.zeros((4, 6), bool)
    mask[1:3] = True
    out = overlay(rgb, mask)
    assert out.dtype == np.uint8
    assert out.shape == (4, 6, 3)
    assert (out[0] == 70).all()
    assert (out[1, :, 0] > out[1, :, 2]).all()
    depth = np.linspace(0, 80, 24).reshape(4, 6)
    depth[0, 0] = np.nan
    assert overlay(depth, mask).max() > 100
    label = np.full((4, 6), -1)
    label[0], label[3] = 0, 9
    bins = overlay_bins(rgb, label)
    assert (bins[1] == 70).all()
    assert not (bins[0] == bins[3]).all()
    with pytest.raises(ValueError, match="size"):
        overlay(rgb, mask[:2])


def test_overlays_are_written_for_what_is_there(tmp_path):
    gt = np.full((8, 12), 10.0, np.float32)
    gt[:, 6:] = 30.0
    masks = region_masks(gt, parameters=RegionParameters(edge_preset="dense"))
    written = write_overlays(tmp_path, "drive/0001", masks)
    found = {path.relative_to(tmp_path).as_posix() for path in written}
    flags = ("boundary", "interior", "edge_fg", "edge_bg", "seethrough")
    assert found == {f"{key}/drive/0001.png" for key in ("depth", "edge", *flags)}
    from adubench.io.images import read_rgb

    picture = read_rgb(tmp_path / "depth/drive/0001.png")
    assert picture.shape == (8, 12, 3)
    assert (picture[0, 0] != picture[0, 11]).any()
