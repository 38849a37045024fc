"""Region masks and moments: golden values, invariants, empty cases."""

import json
from pathlib import Path

import numpy as np
import pytest

from adubench.errors import DataError
from adubench.evaluators import depth_edges, ground_plane, image_regions
from adubench.evaluators.canny import distance_to
from adubench.evaluators.moments import compiled_in_use, frame_moments
from adubench.evaluators.region_layout import Layout, RegionCodes
from adubench.evaluators.region_moments import (
    coded_moments,
    prediction_bin_moments,
    prediction_bin_names,
    region_moments,
)
from adubench.evaluators.region_params import FAMILIES, FLAGS, PARTITIONS, RegionParameters, region_names, regions
from adubench.evaluators.region_summary import region_summary
from adubench.evaluators.regions import region_masks
from adubench.io.maps import DepthMap, SparseDepth

DATA = Path(__file__).resolve().parents[1] / "data" / "regions"
EXPECTED = json.loads((DATA / "expected.json").read_text())
ORDER = EXPECTED["region_order"]
CASES = tuple(EXPECTED["cases"])
SHOWN = tuple(f for f in FAMILIES if f != "extedge")


@pytest.fixture(scope="module")
def golden():
    with np.load(DATA / "cases.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


def _case(golden, name):
    return {key.split("/")[1]: value for key, value in golden.items() if key.startswith(name + "/")}


def _parameters(name, **more):
    return RegionParameters(families=SHOWN, edge_preset=EXPECTED["cases"][name]["mode"], **more)


def _masks(case, parameters, **more):
    return region_masks(case["gt"], case["rgb"], case["labels"], case["K"], None, parameters, **more)


def _evaluated(case, low=0.0, high=80.0):
    gt, pred = case["gt"].reshape(-1), case["pred"].reshape(-1)
    index = np.flatnonzero((gt > low) & (gt < high))
    return index, gt[index], pred[index]


def _sparse(gt):
    return SparseDepth.from_map(DepthMap(gt))


def _bits(packed, shape):
    return np.unpackbits(packed, axis=-1)[..., : shape[0] * shape[1]].astype(bool).reshape(-1, *shape)


# ---- golden values -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_masks_agree_in_every_pixel(golden, name):
    case = _case(golden, name)
    masks, expected = _masks(case, _parameters(name)), _bits(case["masks"], case["gt"].shape)
    for region, mask in zip(ORDER, expected, strict=True):
        np.testing.assert_array_equal(masks.mask(region), mask, err_msg=region)
    assert masks.absent == {}


@pytest.mark.parametrize("name", CASES)
def test_maps_agree(golden, name):
    case = _case(golden, name)
    edges = depth_edges.depth_edges(_sparse(case["gt"]), _parameters(name).gaps)
    for key, marked in (("edge_fg", edges.near), ("edge_bg", edges.far)):
        mask = np.zeros(case["gt"].size, bool)
        mask[edges.index[marked]] = True
        np.testing.assert_array_equal(mask, _bits(case[key], case["gt"].shape)[0].reshape(-1))
    union = np.zeros(case["gt"].shape, bool)
    union.reshape(-1)[edges.index[edges.near | edges.far]] = True
    np.testing.assert_allclose(distance_to(union), case["edge_dist"], rtol=1e-5)
    np.testing.assert_allclose(image_regions.lightness(case["rgb"]), case["lightness"], atol=1e-5)
    np.testing.assert_allclose(image_regions.texture(case["rgb"]), case["texture"], atol=1e-7)
    gt = _sparse(case["gt"])
    x, y = ground_plane.points(gt.index, gt.metres(), gt.shape[1], case["K"])
    plane = ground_plane.fit_ground(x, y, gt.metres().astype(float))
    np.testing.assert_allclose([plane.a, plane.b, plane.c], case["ground_coef"], rtol=1e-9)


@pytest.mark.parametrize("only_valid", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_moments_agree(golden, name, only_valid):
    case = _case(golden, name)
    masks = _masks(case, _parameters(name), only_valid=only_valid)
    rows = region_moments(masks.codes(), masks.layout, *_evaluated(case), ORDER)
    np.testing.assert_allclose(rows, case["moments"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("n_min", "key"), [(1, "nmin_1"), (30, "nmin_30")])
def test_aggregates_agree(golden, n_min, key):
    table = np.stack([golden[f"{name}/moments"] for name in CASES])
    summary = region_summary(table, ORDER, least_per_image=n_min)
    expected = EXPECTED["aggregate"]
    for region in ORDER:
        row = summary[region]
        assert row["n_pixels"] == expected["n_px"][region]
        if region != "all":
            assert row["n_images_mean"] == expected[key]["n_img"][region]
        pairs = [(row[m], values[region]) for m, values in expected["pooled"].items() if m in row]
        pairs += [(row["image_mean"][m], v[region]) for m, v in expected[key]["per_image_mean"].items()]
        assert len(pairs) > 20
        for ours, theirs in pairs:
            assert ours == pytest.approx(np.nan if theirs is None else theirs, rel=1e-9, abs=1e-12, nan_ok=True)


# ---- invariants --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_partitions_add_up_to_all_even_without_a_cap(golden, name):
    case = _case(golden, name)
    parameters = _parameters(name, depth_bins=(3.0, 10.0, 30.0), cross=(("depth", "edge"),))
    masks, (index, gt, pred) = _masks(case, parameters), _evaluated(case, high=1e9)
    names = region_names(parameters)
    rows = region_moments(masks.codes(), masks.layout, index, gt, pred, names)
    table = {r.name: (r.family, row) for r, row in zip(regions(parameters), rows, strict=True)}
    np.testing.assert_array_equal(rows[0], frame_moments(gt, pred))
    for family in [f for f in PARTITIONS if f in SHOWN] + ["cross"]:
        total = sum(row for name, (of, row) in table.items() if of == family and name not in FLAGS)
        np.testing.assert_allclose(total, rows[0], rtol=1e-11, atol=1e-9, err_msg=family)
    assert table["depth_below"][1][0] == (gt < 3).sum()
    assert table["depth2"][1][0] == (gt >= 30).sum()


def test_masks_take_no_prediction():
    import inspect

    assert not {"pred", "prediction"} & set(inspect.signature(region_masks).parameters)


@pytest.mark.parametrize("name", CASES)
def test_moments_of_every_mask_are_those_of_its_pixels(golden, name):
    """The short way through words and histograms equals masking and summing, products and side rows included."""
    case = _case(golden, name)
    parameters = _parameters(name, cross=(("depth", "edge"), ("light", "texture")))
    masks, (index, gt, pred) = _masks(case, parameters), _evaluated(case)
    names = region_names(parameters)
    rows = region_moments(masks.codes(), masks.layout, index, gt, pred, names)
    for region, row in zip(names, rows, strict=True):
        inside = masks.mask(region).reshape(-1)[index]
        np.testing.assert_allclose(row, frame_moments(gt[inside], pred[inside]), rtol=1e-9, atol=1e-9, err_msg=region)
    cross = masks.mask("depth1") & masks.mask("edge0")
    np.testing.assert_array_equal(masks.mask("depth1_edge0"), cross)


@pytest.mark.parametrize("name", CASES)
def test_mirrored_inputs_give_mirrored_masks(golden, name):
    case = _case(golden, name)
    mirrored = {k: np.ascontiguousarray(case[k][:, ::-1]) for k in ("gt", "rgb", "labels")}
    K = case["K"].copy()
    K[0, 2] = case["gt"].shape[1] - 1 - K[0, 2]
    parameters = _parameters(name)
    a, b = _masks(case, parameters), _masks(mirrored | {"K": K}, parameters)
    # A running sum from the other side may move a pixel that lies on a threshold of light or texture.
    for region in region_names(parameters):
        differing = (a.mask(region) != b.mask(region)[:, ::-1]).mean()
        assert differing <= (0.002 if region.startswith(("light", "texture", "imgedge")) else 0), region


def test_edges_beyond_the_cap_count(golden):
    gt = np.full((8, 40), 70.0, np.float32)
    gt[:, 20:] = 95.0
    masks = region_masks(gt, parameters=RegionParameters(families=("depth", "edge", "side"), edge_preset="dense"))
    assert masks.mask("edge_fg")[:, 19].all()
    assert masks.mask("edge_bg")[:, 20].all()
    assert masks.mask("depth4")[:, 20:].all()


def test_far_road_is_no_edge_but_a_wall_on_it_is():
    v = np.arange(185, 245)[:, None]
    road = np.repeat((1.65 * 721 / (v - 172.0)).astype(np.float32), 60, axis=1)
    keep = np.random.default_rng(0).random(road.shape) < 0.25
    sparse = np.where(keep, road, 0)
    plain = depth_edges.depth_edges(_sparse(sparse), (5, 5), kappa=None)
    checked = depth_edges.depth_edges(_sparse(sparse), (5, 5))
    assert plain.near.sum() > 100
    assert checked.near.sum() < 0.1 * plain.near.sum()  # pairs without a neighbour cannot be checked
    sparse[:, 25:35] = np.where(keep[:, 25:35], 4.0, 0)
    wall = depth_edges.depth_edges(_sparse(sparse), (5, 0))
    columns = wall.index[wall.near] % 60
    assert wall.near.sum() > 20
    assert set(columns) <= set(range(25, 35))


def test_raw_preset_ignores_vertical_pairs():
    gt = np.zeros((10, 30), np.float32)
    gt[3], gt[4] = 10, 30
    assert not depth_edges.depth_edges(_sparse(gt), (5, 0)).near.any()
    assert depth_edges.depth_edges(_sparse(gt), (5, 5)).near.sum() == 30


def test_seethrough_is_background_between_near_samples():
    gt = np.zeros((3, 12), np.float32)
    gt[1, ::2] = (10, 10, 30, 10, 10, 10)
    masks = region_masks(gt, parameters=RegionParameters(families=("side",), edge_preset="raw"))
    assert np.argwhere(masks.mask("seethrough")).tolist() == [[1, 4]]


def test_dropping_suspects_takes_them_out_of_every_other_region():
    gt = np.full((5, 40), 10.0, np.float32)
    gt[:, 20] = 30.0
    pred = (gt * 1.1).astype(np.float32).reshape(-1)
    for families in (("depth", "side"), ("depth",)):
        parameters = RegionParameters(families=families, edge_preset="dense", drop_seethrough=True)
        masks = region_masks(gt, parameters=parameters)
        names = region_names(parameters)
        rows = dict(
            zip(
                names,
                region_moments(masks.codes(), masks.layout, np.arange(gt.size), gt.reshape(-1), pred, names),
                strict=True,
            )
        )
        assert rows["all"][0] == gt.size
        assert rows["depth0"][0] == gt.size - 5
        assert rows["depth1"][0] == 0
        assert rows["seethrough"][0] == 5
        assert "edge_bg" not in rows or rows["edge_bg"][0] == 0


def test_bands_in_milliradians(golden):
    case = _case(golden, "dense_a")
    fx = case["K"][0, 0]
    bands = (0.0, *(b * 1000 / fx for b in (2, 5, 10)), np.inf)
    parameters = _parameters("dense_a", edge_bands=bands, edge_bands_unit="mrad")
    a, b = _masks(case, _parameters("dense_a")), _masks(case, parameters)
    for region in ("edge0", "edge3", "imgedge1"):
        assert (a.mask(region) != b.mask(region)).mean() < 0.01  # bounds are rounded
    without = region_masks(case["gt"], parameters=parameters)
    assert without.absent["edge"] == "no intrinsics"
    assert not without.mask("edge3").any()


@pytest.mark.parametrize("name", CASES)
def test_coverage_counts_pixels_with_and_without_truth(golden, name):
    case = _case(golden, name)
    for only_valid in (False, True):
        masks = _masks(case, _parameters(name), only_valid=only_valid)
        full = _masks(case, _parameters(name))
        covered = RegionCodes.from_bytes(masks.codes().to_bytes()).coverage(masks.layout)
        assert set(covered) == {f"{stem}{k}" for stem in ("edge", "imgedge", "semedge") for k in range(4)}
        for region, (valid, area) in covered.items():
            mask = full.mask(region)
            assert area == mask.sum()
            assert valid == (mask & (case["gt"] > 0)).sum() or not only_valid


def test_external_edges_make_bands():
    edges = np.zeros((20, 30), bool)
    edges[:, 10] = True
    gt = np.full((20, 30), 5, np.float32)
    parameters = RegionParameters(families=("extedge",), edge_preset="dense")
    masks = region_masks(gt, external_edges=edges, parameters=parameters)
    assert masks.mask("extedge0").sum() == 20 * 3
    assert masks.mask("extedge3")[:, 20:].all()


def test_bins_of_predictions_are_their_own_rows():
    gt = np.array([5, 25, 45, 70], np.float32)
    pred = np.array([25, 25, 5, 90], np.float32)
    bounds = (0.0, 20.0, 40.0, 80.0)
    rows = prediction_bin_moments(gt, pred, bounds)
    assert prediction_bin_names(bounds) == ("pred_depth0", "pred_depth1", "pred_depth2", "pred_depth_outside")
    assert rows[:, 0].tolist() == [1, 2, 0, 1]
    np.testing.assert_allclose(rows.sum(axis=0), frame_moments(gt, pred))


# ---- missing inputs and empty cases --------------------------------------------------------------------------------


def test_families_without_their_input_are_absent_and_say_so(golden):
    case = _case(golden, "improved_c")
    masks = region_masks(case["gt"], parameters=_parameters("improved_c"))
    assert masks.absent == {
        "light": "no image",
        "texture": "no image",
        "repeat": "no image",
        "imgedge": "no image",
        "semedge": "no labels",
        "sky": "no labels",
        "horizon": "no intrinsics",
        "ground": "no intrinsics",
    }
    for region in ("light0", "semedge3", "horizon", "ground", "skyadj", "repeated"):
        assert not masks.mask(region).any()


def _blank(shape, value=0.0):
    return {
        "gt": np.full(shape, value, np.float32),
        "rgb": np.full((*shape, 3), 90, np.uint8),
        "labels": np.zeros(shape, np.uint8),
        "K": np.array([[700.0, 0, shape[1] / 2], [0, 700, shape[0] / 2], [0, 0, 1]]),
    }


@pytest.mark.parametrize("shape", [(20, 30), (1, 30), (30, 1), (1, 1), (12, 8), (3, 3)])
@pytest.mark.parametrize("valid", ["none", "one", "all"])
@pytest.mark.parametrize("preset", ["dense", "improved", "raw"])
def test_small_and_empty_images(shape, valid, preset):
    case = _blank(shape, 7.0 if valid == "all" else 0.0)
    if valid == "one":
        case["gt"][0, 0] = 7.0
    parameters = RegionParameters(families=SHOWN, edge_preset=preset)
    for only_valid in (False, True):
        masks = _masks(case, parameters, only_valid=only_valid)
        index = np.flatnonzero(case["gt"])
        gt = case["gt"].reshape(-1)[index]
        names = region_names(parameters)
        rows = dict(
            zip(
                names,
                region_moments(RegionCodes.from_bytes(masks.codes().to_bytes()), masks.layout, index, gt, gt, names),
                strict=True,
            )
        )
        assert rows["all"][0] == index.size
        # No edge anywhere: everything is in the last band, and bands add up.
        assert rows["edge3"][0] == rows["imgedge3"][0] == rows["semedge3"][0] == rows["interior"][0] == index.size
        assert rows["texture0"][0] == rows["light2"][0] == index.size
        assert rows["repeated"][0] == rows["edge_fg"][0] == rows["boundary"][0] == 0


def test_too_few_points_make_no_ground(golden):
    masks = _masks(_blank((20, 30), 7.0), RegionParameters(families=("ground",), edge_preset="dense"))
    assert masks.absent == {"ground": "no ground plane found"}
    x = np.full(200, 1.0)
    plane = ground_plane.fit_ground(x, x * 1.6, np.full(200, 10.0))
    assert plane.a == pytest.approx(1.6)
    assert (plane.b, plane.c) == (0, 0)


def test_infinite_depth_is_no_sample():
    gt = np.full((4, 20), 10, np.float32)
    gt[:, 10:] = np.inf
    masks = region_masks(gt, K=_blank((4, 20))["K"], parameters=RegionParameters(edge_preset="dense"))
    assert not masks.mask("edge_fg").any()
    assert masks.mask("depth4")[:, 10:].all()


def test_density_counts_rows_between_the_first_and_last_valid():
    gt = np.zeros((10, 10), np.float32)
    assert depth_edges.density(_sparse(gt)) == 0
    gt[4, :5] = gt[7, 0] = 1
    assert depth_edges.density(_sparse(gt)) == pytest.approx(6 / 40)


# ---- bad input and the compact form --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rgb": np.zeros((5, 5, 3), np.uint8)}, "image is 5x5"),
        ({"rgb": np.zeros((20, 30, 3), np.uint16)}, "8-bit RGB"),
        ({"labels": np.full((20, 30), 77, np.uint8)}, "unknown label ids 77"),
        ({"labels": np.zeros((20, 30), np.float32)}, "whole numbers"),
        ({"K": np.zeros((3, 3))}, "positive focal"),
        ({"K": np.eye(4)}, "3x3"),
    ],
)
def test_inputs_that_do_not_fit_are_a_sentence(change, words):
    case = _blank((20, 30)) | change
    with pytest.raises(DataError, match=words) as caught:
        _masks(case, RegionParameters(edge_preset="dense"), name="drive/0001")
    assert str(caught.value).startswith("frame drive/0001: ")


def test_unresolved_parameters_are_refused():
    with pytest.raises(ValueError, match="auto"):
        region_masks(np.ones((4, 4), np.float32), parameters=RegionParameters())


def test_pixels_of_one_protocol_are_refused():
    whole = _sparse(np.ones((4, 4), np.float32))
    part = SparseDepth(whole.shape, whole.index[:3], whole.values[:3], 1.0, "crop")
    with pytest.raises(ValueError, match="whole ground truth"):
        region_masks(part, parameters=RegionParameters(edge_preset="dense"))


def test_codes_survive_bytes_and_notice_other_ground_truth(golden):
    case = _case(golden, "improved_d")
    masks = _masks(case, _parameters("improved_d"), only_valid=True)
    codes = masks.codes()
    again = RegionCodes.from_bytes(codes.to_bytes())
    index = np.flatnonzero(case["gt"])
    np.testing.assert_array_equal(again.at(index[::3]), codes.at(index)[::3])
    np.testing.assert_array_equal(again.table, codes.table)
    assert again.absent == codes.absent
    np.testing.assert_array_equal(again.index(), index)
    np.testing.assert_array_equal(again.take(slice(3, 9), index.size), again.at(index[3:9]))
    with pytest.raises(DataError, match="other ground truth"):
        again.take(slice(None), index.size - 1)
    with pytest.raises(DataError, match="other ground truth"):
        again.at(np.flatnonzero(case["gt"] == 0)[:5])
    for broken in (b"", b"x" * 100, codes.to_bytes()[:-1], b"\0" * 64):
        with pytest.raises(DataError, match="damaged"):
            RegionCodes.from_bytes(broken)


def test_an_infinite_error_stays_in_its_region():
    gt = np.array([[5.0, 30.0]], np.float32)
    masks = region_masks(gt, parameters=RegionParameters(families=("depth",), edge_preset="dense"))
    with np.errstate(all="ignore"):
        rows = region_moments(
            masks.codes(), masks.layout, np.arange(2), gt[0], np.array([5.5, np.inf], np.float32), ["depth0", "depth1"]
        )
    assert np.isfinite(rows[0]).all()
    assert np.isinf(rows[1, 1])


def test_compiled_sums_are_the_same():
    pytest.importorskip("numba")
    from adubench.evaluators.moments import use_compiled

    rng = np.random.default_rng(0)
    gt = rng.uniform(3, 80, 2000).astype(np.float32)
    pred = (gt * np.exp(rng.normal(0, 0.3, 2000))).astype(np.float32)
    pred[:40] = gt[:40] * np.float32(1.25)
    codes = rng.integers(0, 50, 2000).astype(np.uint16)
    before = compiled_in_use()
    try:
        use_compiled(False)
        plain = coded_moments(codes, 51, gt, pred)
        assert use_compiled(True)
        np.testing.assert_allclose(coded_moments(codes, 51, gt, pred), plain, rtol=1e-12, atol=1e-12)
        pred[3] = np.inf
        assert np.isinf(coded_moments(codes, 51, gt, pred)[codes[3], 1])
    finally:
        use_compiled(before)


def test_layout_holds_all_families_and_refuses_more_bits_than_it_has():
    everything = RegionParameters(families=tuple(FAMILIES), edge_preset="dense")
    assert max(Layout.of(everything).flags.values()) < 64
    many = tuple(float(k) for k in range(201 - 1))
    crowded = RegionParameters(
        families=tuple(FAMILIES), edge_preset="dense", depth_bins=many, edge_bands=(*many[:-1], np.inf),
        light_bins=(*many[:-1], np.inf), texture_bins=(*many[:-1], np.inf),
    )  # fmt: skip
    with pytest.raises(DataError, match="too many"):
        Layout.of(crowded)
