"""Parameters of regions: names, bounds, presets, hashes, option texts."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from adubench.errors import UsageError
from adubench.evaluators import region_options as options
from adubench.evaluators.region_params import (
    DEFAULT_FAMILIES,
    FAMILIES,
    RegionParameters,
    preset_for,
    region_names,
    regions,
)

ORDER = json.loads(
    (Path(__file__).resolve().parents[1] / "data" / "regions" / "expected.json").read_text()
)["region_order"]  # fmt: skip


def test_names_are_those_of_the_golden_files_in_their_order():
    shown = [r.name for r in regions(RegionParameters(families=tuple(FAMILIES))) if not r.only_if_filled]
    own = {"boundary", "interior", *(f"extedge{k}" for k in range(4))}
    assert [name for name in shown if name not in own] == ORDER
    assert own <= set(shown)


def test_names_are_unique_and_follow_the_options():
    parameters = RegionParameters(
        families=tuple(FAMILIES), depth_bins=(1, 10, math.inf), cross=(("depth", "edge"), ("light", "depth"))
    )
    names = region_names(parameters)
    assert len(set(names)) == len(names)
    assert {"depth0", "depth1", "depth_below", "depth1_edge3", "depth_below_edge0", "light4_depth0"} <= set(names)
    assert "depth2" not in names
    assert region_names(RegionParameters(families=())) == ("all",)
    assert "seethrough" in region_names(RegionParameters(families=(), drop_seethrough=True))


def test_plain_data_has_bounds_and_no_infinities():
    plain = RegionParameters(edge_preset="improved", families=tuple(FAMILIES)).to_dict()
    text = json.dumps(plain, allow_nan=False)
    assert json.loads(text) == plain
    assert plain["bounds"]["depth3"] == [60, 80]
    assert plain["bounds"]["depth4"] == [80, "inf"]
    assert plain["bounds"]["edge0"] == [0, 2]
    assert plain["bounds"]["light4"] == [97, "inf"]
    assert plain["edge_gap"] == [5, 5]
    assert plain["digest"] == RegionParameters(edge_preset="improved", families=tuple(FAMILIES)).digest()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("families", ("depth",)),
        ("depth_bins", (0.0, 20.0)),
        ("edge_preset", "raw"),
        ("edge_gap", (1, 2)),
        ("edge_t", 0.2),
        ("edge_kappa", None),
        ("edge_bands", (0.0, 3.0, math.inf)),
        ("edge_bands_unit", "mrad"),
        ("light_bins", (0.0, 3.0, math.inf)),
        ("light_quantiles", (0.5,)),
        ("texture_bins", (0.0, 3.0, math.inf)),
        ("repeat_correlation", 0.8),
        ("repeat_dip", 0.3),
        ("camera_height", 1.7),
        ("cross", (("depth", "edge"),)),
        ("drop_seethrough", True),
    ],
)
def test_every_parameter_enters_the_hash(field, value):
    parameters = RegionParameters()
    assert dataclasses.replace(parameters, **{field: value}).digest() != parameters.digest()


def test_all_fields_are_in_the_test_above():
    marks = test_every_parameter_enters_the_hash.pytestmark
    listed = {row[0] for row in marks[0].args[1]}
    assert listed == {f.name for f in dataclasses.fields(RegionParameters)}


@pytest.mark.parametrize(
    ("density", "preset"),
    [(0.84, "dense"), (0.6, "dense"), (0.59, "improved"), (0.12, "improved"), (0.06, "raw"), (0, "raw")],
)
def test_preset_by_density(density, preset):
    assert preset_for(density) == preset
    assert RegionParameters().with_density(density).edge_preset == preset
    assert RegionParameters(edge_preset="raw").with_density(density).edge_preset == "raw"


def test_resolution():
    auto = RegionParameters(light_quantiles=(0.25, 0.5))
    assert not auto.resolved
    done = auto.with_density(0.2).with_light_bounds((12.5, 30.0))
    assert done.resolved
    assert done.gaps == (5, 5)
    assert done.light_bins == (0.0, 12.5, 30.0, math.inf)
    assert RegionParameters(edge_gap=(3, 0)).gaps == (3, 0)
    with pytest.raises(ValueError, match="auto"):
        _ = RegionParameters().gaps


def test_options_are_read():
    assert options.parse_families("") == DEFAULT_FAMILIES
    assert options.parse_families("all") == tuple(FAMILIES)
    assert options.parse_families("none") == ()
    assert options.parse_families("edge, depth,edge") == ("edge", "depth")
    assert options.parse_depth_bins("0,20,inf") == (0.0, 20.0, math.inf)
    assert options.parse_depth_bins("log:2", 1.0, 100.0) == pytest.approx((1, 10, 100))
    assert options.parse_bands("0,3,6") == (0.0, 3.0, 6.0, math.inf)
    assert options.parse_gap("5, 0") == (5, 0)
    assert options.parse_kappa("none") is None
    assert options.parse_kappa("0.3") == 0.3
    assert options.parse_quantiles("0.1,0.5") == (0.1, 0.5)
    assert options.parse_cross("depth,edge") == ("depth", "edge")


@pytest.mark.parametrize(
    ("read", "text", "word"),
    [
        (options.parse_families, "dept", "depth"),
        (options.parse_depth_bins, "0,20,10", "ascending"),
        (options.parse_depth_bins, "a,b", "numbers"),
        (options.parse_depth_bins, "nan,1", "ascending"),
        (options.parse_depth_bins, "5", "two"),
        (options.parse_depth_bins, "-1,5", "from 0"),
        (options.parse_depth_bins, "log:x", "whole number"),
        (options.parse_depth_bins, "log:3", "lower depth limit"),
        (options.parse_bands, "1,2", "first bound"),
        (options.parse_gap, "5", "two whole"),
        (options.parse_gap, "5,-1", "two whole"),
        (options.parse_kappa, "-1", "number"),
        (options.parse_kappa, "nan", "number"),
        (options.parse_quantiles, "0.5,0.1", "ascending"),
        (options.parse_quantiles, "0,1", "between"),
        (options.parse_quantiles, "x", "between"),
        (options.parse_cross, "depth,depth", "different"),
        (options.parse_cross, "depth,side", "family"),
    ],
)
def test_option_texts_that_make_no_sense_are_a_sentence(read, text, word):
    with pytest.raises(UsageError, match=word):
        read(text)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"edge_preset": "dens"}, "dense"),
        ({"edge_bands_unit": "deg"}, "px"),
        ({"edge_t": 0.0}, "above 0"),
        ({"edge_bands": (0.0, 5.0)}, "inf"),
        ({"families": ("depth",), "cross": (("depth", "edge"),)}, "add the family 'edge'"),
        ({"families": ("sides",)}, "side"),
        ({"depth_bins": tuple(float(k) for k in range(300))}, "too many"),
    ],
)
def test_parameters_that_make_no_sense_are_a_sentence(fields, word):
    with pytest.raises(UsageError, match=word):
        RegionParameters(**fields)
