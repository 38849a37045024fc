"""`compare`: numbers, refusals, and what weakens a conclusion."""

from __future__ import annotations

import json

import numpy as np
import pytest

from adubench.errors import ResultError, UsageError
from adubench.evaluators import statistics as stats
from adubench.evaluators.comparability import assign_clusters, protocol_differences
from adubench.evaluators.comparison import compare
from adubench.evaluators.metrics import metrics_from_moments
from tests.evaluators.results_for_comparison import make_result

FAST = {"resamples": 500}


def difference(comparison, metric="abs_rel", region="all", pair=0):
    return comparison.pairs[pair].regions[region][metric]


def test_delta_is_a_minus_baseline_on_image_means():
    a, b = make_result("a", 1), make_result("b", 2, bias=0.05)
    d = difference(compare([b, a], **FAST))
    assert d.delta == pytest.approx(a.summary["abs_rel"] - b.summary["abs_rel"], rel=1e-12)
    assert d.relative == pytest.approx(d.delta / b.summary["abs_rel"])
    assert d.ci[0] < d.delta < d.ci[1] < 0
    assert d.better
    assert d.separated
    assert d.n_clusters == 8
    assert d.exact


def test_baseline_is_the_first_file_unless_named():
    results = [make_result("a", 1), make_result("b", 2), make_result("c", 3)]
    assert [(p.a, p.b) for p in compare(results, **FAST).pairs] == [("b", "a"), ("c", "a")]
    assert [(p.a, p.b) for p in compare(results, baseline="c", **FAST).pairs] == [("a", "c"), ("b", "c")]
    with pytest.raises(UsageError, match="unknown baseline 'd'"):
        compare(results, baseline="d", **FAST)


def test_a_model_against_itself_differs_by_nothing():
    twin = make_result("twin", 1)
    for d in compare([make_result("a", 1), twin], **FAST).pairs[0].regions["all"].values():
        assert (d.delta, d.p, d.ci) == (0.0, 1.0, (0.0, 0.0))
        assert not d.separated
        assert d.wins_images == 0.5


@pytest.mark.parametrize("drives", [8, 21])
def test_swapping_the_models_mirrors_the_numbers(drives):
    one = compare([make_result("a", 1, drives=drives), make_result("b", 2, bias=0.03, drives=drives)], **FAST)
    two = compare([make_result("b", 2, bias=0.03, drives=drives), make_result("a", 1, drives=drives)], **FAST)
    for metric in one.metrics:
        x, y = difference(one, metric), difference(two, metric)
        assert x.delta == -y.delta
        assert x.p == y.p
        assert x.ci == pytest.approx((-y.ci[1], -y.ci[0]), rel=1e-9, abs=1e-15)
        assert x.wins_images == pytest.approx(1 - y.wins_images)
        assert x.deff == pytest.approx(y.deff)


def test_order_of_images_does_not_matter():
    a, b = make_result("a", 1), make_result("b", 2)
    order = np.random.default_rng(0).permutation(len(b.per_image["frame"]))
    shuffled = make_result("b", 2)
    shuffled.per_image = {k: [v[i] for i in order] for k, v in b.per_image.items()}
    assert compare([a, b], **FAST).to_dict() == compare([a, shuffled], **FAST).to_dict()


def test_same_seed_same_numbers_other_seed_other_interval():
    results = [make_result("a", 1, drives=21), make_result("b", 2, drives=21)]
    one, again, other = (compare(results, seed=s, **FAST).to_dict() for s in (0, 0, 1))
    assert json.dumps(one) == json.dumps(again)
    assert one != other


def test_regions_are_pooled_over_pixels():
    regions = ("all", "depth3")
    a, b = make_result("a", 1, regions=regions), make_result("b", 2, bias=0.05, regions=regions)
    comparison = compare([b, a], **FAST)
    far = [metrics_from_moments(r.moments.region("depth3").sum(axis=0)) for r in (a, b)]
    for metric in ("rmse", "abs_rel", "silog"):
        assert difference(comparison, metric, "depth3").delta == pytest.approx(float(far[0][metric] - far[1][metric]))
    assert difference(comparison, "abs_rel", "depth3").interval == "inversion"  # a mean over pixels
    assert difference(comparison, "rmse", "depth3").interval == "percentile"
    assert set(compare([a, b], regions=["depth3"], **FAST).to_dict()["comparisons"][0]["regions"]) == {"depth3"}


def test_json_has_the_fields_of_the_contract():
    data = compare([make_result("a", 1), make_result("b", 2)], metrics=["abs_rel"], **FAST).to_dict()
    assert set(data) == {"protocol", "baseline", "comparisons"}
    assert data["protocol"]["name"] == "kitti-eigen"
    assert data["baseline"] == "a"
    (pair,) = data["comparisons"]
    assert set(pair) == {"a", "b", "regions"}
    assert set(pair["regions"]["all"]["abs_rel"]) == {"delta", "ci", "p", "p_holm", "n_clusters", "deff"}
    json.dumps(data, allow_nan=False)


def test_adjustment_leaves_out_the_primary_metric():
    comparison = compare([make_result("a", 1), make_result("b", 2, bias=0.02)], **FAST)
    cells = comparison.pairs[0].regions["all"]
    assert cells["abs_rel"].p_holm == cells["abs_rel"].p
    others = [m for m in cells if m != "abs_rel"]
    assert comparison.family == len(others)
    want = stats.holm(np.array([cells[m].p for m in others]))
    assert [cells[m].p_holm for m in others] == pytest.approx(list(want))


def test_other_protocols_are_refused_and_named():
    a, b = make_result("ours", 1), make_result("theirs", 1, protocol="kitti-eigen-full")
    with pytest.raises(
        ResultError, match=r"theirs was scored under kitti-eigen-full v1, ours under kitti-eigen v1: .*frame"
    ):
        compare([a, b], **FAST)
    forced = compare([a, b], force=True, **FAST)
    assert forced.mixed
    assert forced.protocol["name"] == "mixed"
    assert "protocol kitti-eigen-full v1" in forced.marks["theirs"]
    assert "protocol kitti-eigen v1" in forced.marks["ours"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"split": "eigen_benchmark"}, "split eigen_benchmark"),
        ({"split": None}, "a folder of ground truth"),
        ({"gt_seed": 5}, "ours"),
    ],
)
def test_other_images_or_ground_truth_are_refused(change, words):
    other = make_result("theirs", 1, **change)
    if "gt_seed" in change:
        other.provenance["ground_truth_kind"] = "raw scans"
    with pytest.raises(ResultError, match=words):
        compare([make_result("ours", 1), other], **FAST)


def test_other_pixels_in_a_frame_are_refused():
    other = make_result("theirs", 1)
    other.per_image["n_pixels"][3] += 1
    frame = other.per_image["frame"][3]
    with pytest.raises(ResultError, match=rf"valid pixels in {frame}"):
        compare([make_result("ours", 1), other], **FAST)
    assert compare([make_result("ours", 1), other], force=True, **FAST).mixed


def test_unequal_image_sets_use_the_intersection_and_say_so():
    a, b = make_result("a", 1), make_result("b", 2, drop=(0, 5))
    comparison = compare([a, b], **FAST)
    assert comparison.n_images == 30
    assert any("a has 2 images that others lack" in w for w in comparison.warnings)
    assert comparison.marks["b"] == ("partial: 30 of 32 images",)
    assert comparison.marks["a"] == ("on 30 common images",)
    kept = [v for i, v in enumerate(a.per_image["abs_rel"]) if i not in (0, 5)]
    assert comparison.estimates["a"]["all"]["abs_rel"].value == pytest.approx(np.mean(kept))


def test_no_common_image_is_an_error():
    a, b = make_result("a", 1), make_result("b", 1)
    b.per_image["frame"] = [f"other/{f}" for f in b.per_image["frame"]]
    with pytest.raises(ResultError, match=r"no image is common to a \(32 images"):
        compare([a, b], **FAST)


def test_an_image_without_value_in_one_model_is_left_out_of_all():
    a, b = make_result("a", 1), make_result("b", 2)
    b.per_image["silog"][4] = float("nan")
    comparison = compare([a, b], **FAST)
    assert difference(comparison, "silog").n_images == 31
    assert difference(comparison, "abs_rel").n_images == 32
    assert any(w.startswith("silog: 1 image without a finite value") for w in comparison.warnings)


@pytest.mark.parametrize(("drives", "too_few"), [(1, True), (2, True), (5, True), (6, False)])
def test_few_drives_give_no_verdict(drives, too_few):
    results = [make_result(n, s, bias=0.2 * s, drives=drives, per_drive=5) for s, n in enumerate("ab")]
    comparison = compare(results, **FAST)
    d = difference(comparison)
    assert d.too_few is too_few
    assert not (too_few and d.separated)
    assert any("few" in w or "one cluster" in w for w in comparison.warnings)
    if drives == 1:
        assert d.ci is None
        assert comparison.to_dict()["comparisons"][0]["regions"]["all"]["abs_rel"]["ci"] == [None, None]


def test_image_clusters_carry_a_warning_and_use_bca():
    comparison = compare([make_result("a", 1), make_result("b", 2, bias=0.02)], cluster="image", **FAST)
    assert comparison.n_clusters == 32
    assert difference(comparison).interval == "BCa"
    assert any("far too small" in w for w in comparison.warnings)


@pytest.mark.parametrize("interval", ["percentile", "basic", "bca", "inversion"])
def test_every_kind_of_interval(interval):
    d = difference(compare([make_result("a", 1), make_result("b", 2, bias=0.03)], interval=interval, **FAST))
    assert d.interval.lower() == interval
    assert d.ci[0] < d.delta < d.ci[1]


def test_cluster_rules(tmp_path):
    frames = [f"seq/{i:03d}" for i in range(5)] + ["other/000"]
    assert assign_clusters(frames, [""] * 6) == (["seq"] * 5 + ["other"], "directories")
    assert assign_clusters(frames, ["x"] * 5 + ["y"])[1] == "drives"
    blocks, name = assign_clusters(frames, [""] * 6, "block:2")
    assert name == "blocks of 2 frames"
    assert [blocks.count(b) for b in dict.fromkeys(blocks)] == [2, 2, 1, 1]
    table = tmp_path / "c.csv"
    table.write_text("frame,cluster\n" + "".join(f"{f},k{i % 2}\n" for i, f in enumerate(frames)))
    assert assign_clusters(frames, [""] * 6, str(table))[0] == ["k0", "k1"] * 3
    table.write_text("frame,cluster\nseq/000,k\n")
    with pytest.raises(ResultError, match="5 images have no cluster, first seq/001"):
        assign_clusters(frames, [""] * 6, str(table))
    with pytest.raises(ResultError, match="do not name drives"):
        assign_clusters(frames, [""] * 6, "drive")
    for rule in ("block:x", "block:0", "street"):
        with pytest.raises(UsageError, match="--cluster"):
            assign_clusters(frames, [""] * 6, rule)


def test_one_result_has_intervals_and_no_pairs():
    comparison = compare([make_result("a", 1)], **FAST)
    assert comparison.pairs == ()
    assert comparison.estimates["a"]["all"]["abs_rel"].ci is not None


def test_three_models_are_ranked_and_grouped():
    results = [make_result("best", 1), make_result("same", 1), make_result("worse", 2, bias=0.2)]
    comparison = compare(results, **FAST)
    assert comparison.letters == {"best": "a", "same": "a", "worse": "b"}
    assert comparison.ranks.mean_rank[2] == 3
    np.testing.assert_allclose(comparison.ranks.p_rank.sum(axis=1), 1)


def test_bad_options_are_usage_errors():
    results = [make_result("a", 1), make_result("b", 2)]
    for options in ({"resamples": 1}, {"confidence": 2.0}, {"interval": "magic"}, {"adjust": "none"}, {"seed": -1}):
        with pytest.raises(UsageError):
            compare(results, **options)
    for options in ({"metrics": ["abs_rell"]}, {"regions": ["depth9"]}):
        with pytest.raises(UsageError, match="unknown"):
            compare(results, **FAST, **options)
    with pytest.raises(UsageError, match="at least one"):
        compare([])
    with pytest.raises(UsageError, match="two results are called 'a'"):
        compare([results[0], make_result("a", 3)])


@pytest.mark.parametrize("value", ["0.1", None, [1.0], {}, True])
def test_a_column_that_was_edited_is_refused(value):
    other = make_result("b", 2)
    other.per_image["rmse"][2] = value
    with pytest.raises(ResultError, match=r"b: per_image 'rmse' of .*0000000002: expected a number"):
        compare([make_result("a", 1), other], **FAST)


def test_a_frame_that_stands_twice_is_refused():
    other = make_result("b", 2)
    other.per_image["frame"][1] = other.per_image["frame"][0]
    with pytest.raises(ResultError, match="names a frame twice"):
        compare([make_result("a", 1), other], **FAST)


def test_other_flip_averaging_is_said():
    other = make_result("b", 2)
    other.provenance["flip"] = "mean"
    warnings = compare([make_result("a", 1), other], **FAST).warnings
    assert any("flip averaging differs (a: not set, b: mean)" in w for w in warnings)


def test_protocol_differences_are_words():
    assert protocol_differences({"crop": "garg", "gt_max": 80}, {"crop": "none", "gt_max": 80}) == [
        "crop: garg instead of none"
    ]
