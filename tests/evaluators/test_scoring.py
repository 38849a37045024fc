"""Every reference evaluator of the golden data, expressed as a protocol record plus public functions."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from adubench.errors import ProtocolError
from adubench.evaluators import alignment, crops, extended, flip, pointcloud
from adubench.evaluators.metrics import metrics_from_moments
from adubench.evaluators.predicted_values import Prediction, predicted_at
from adubench.evaluators.protocols import PROTOCOLS, get_protocol
from adubench.evaluators.resize import bilinear
from adubench.evaluators.scoring import clamp, score_frame
from adubench.evaluators.valid_pixels import code_range, valid_pixels
from adubench.io.maps import DepthMap, SparseDepth
from tests.evaluators.metric_cases import CASES, RESULTS, WINDOW, assert_close, case, number, with_key

SILOG_ABS = 1e-5


def metrics_of(score) -> dict[str, float]:
    return {k: float(v) for k, v in metrics_from_moments(score.moments).items()} | score.extra


def check(score, want: dict, rel: float, what: str, *, counts_may_move: bool = False, scale=None, zero: float = 1e-12):
    """Compare one image's score with a golden entry."""
    got = metrics_of(score)
    assert score.moments[0] == want["n_valid"], what
    for key, value in want["f64"].items():
        factor = (scale or {}).get(key, 1.0)
        absolute = SILOG_ABS if key == "silog" else zero
        if counts_may_move and key.startswith("d") and want["n_valid"]:
            absolute = 2 / want["n_valid"]
        assert_close(got[key] * factor, value, rel, f"{what} {key}", absolute)


def check_sums(protocol, c, prediction, want, rel=1e-9):
    pixels = valid_pixels(protocol, c.gt)
    assert_close(float(pixels.gt.sum(dtype=np.float64)), want["gt_sum"], 1e-12, "gt_sum")
    pred = clamp(protocol, predicted_at(protocol, c.gt, prediction, pixels))
    assert_close(float(pred.sum(dtype=np.float64)), want["pred_sum"], rel, "pred_sum")


WINDOWED = {"newcrfs": "kitti-eigen", "bts_eval": "kitti-eigen-full", "toolbox": "kitti-eigen-toolbox"}


@pytest.mark.parametrize(
    ("name", "key"), [pair for family in WINDOWED for pair in with_key(f"{family}/")], ids=lambda v: v
)
def test_window_predictions(name, key):
    family, _, crop = key.partition("/")
    c, protocol = case(name), get_protocol(WINDOWED[family]).with_options(crop=crop)
    want, prediction = c.expected(key), Prediction(DepthMap(c.pred))
    check(score_frame(protocol, c.gt, prediction, frame=name, compat=family == "toolbox"), want, 1e-9, f"{name} {key}")
    if "gt_sum" in want:
        check_sums(protocol, c, prediction, want)


@pytest.mark.parametrize(("name", "key"), with_key("toolbox_max88/"), ids=lambda v: v)
def test_toolbox_with_88_m(name, key):
    c, protocol = case(name), get_protocol("kitti-eigen-toolbox").with_options(cap=88)
    check(score_frame(protocol, c.gt, Prediction(DepthMap(c.pred)), compat=True), c.expected(key), 1e-9, name)


@pytest.mark.parametrize(("name", "key"), with_key("bts_eval_with_pngs/"), ids=lambda v: v)
def test_clamp_before_padding(name, key):
    c = case(name)
    protocol = get_protocol("kitti-eigen-full").with_options(crop=key.partition("/")[2])
    protocol = dataclasses.replace(protocol, pad_after_clamp=True)
    prediction = Prediction(DepthMap(c.pred))
    check(score_frame(protocol, c.gt, prediction, compat=True), c.expected(key), 1e-9, f"{name} {key}")
    check_sums(protocol, c, prediction, c.expected(key))


@pytest.mark.parametrize(("name", "key"), with_key("newcrfs+flip/"), ids=lambda v: v)
def test_flip_blend_of_depth(name, key):
    c, protocol = case(name), get_protocol("kitti-eigen")
    depth = flip.blend(c.pred, c.decoded("pred_flip", 16)).astype(np.float32)
    prediction = Prediction(DepthMap(depth))
    check(score_frame(protocol, c.gt, prediction), c.expected(key), 1e-6, name)
    check_sums(protocol, c, prediction, c.expected(key), 1e-6)


@pytest.mark.parametrize(("name", "key"), with_key("adabins_"), ids=lambda v: v)
def test_adabins_half_resolution(name, key):
    c, protocol = case(name), get_protocol("kitti-eigen")
    half, half_flip = c.decoded("half", 16), c.decoded("half_flip", 16)
    if key.startswith("adabins_evaluate"):
        half = flip.mean(clamp(protocol, half), clamp(protocol, half_flip)).astype(np.float32)
    prediction = Prediction(DepthMap(bilinear(half, WINDOW, align_corners=True)))
    check(score_frame(protocol, c.gt, prediction), c.expected(key), 1e-5, name, counts_may_move=True)
    check_sums(protocol, c, prediction, c.expected(key), 1e-5)


@pytest.mark.parametrize(("name", "key"), with_key("tiekd/"), ids=lambda v: v)
def test_tiekd_with_teacher(name, key):
    c, protocol = case(name), get_protocol("kitti-eigen-toolbox")
    score = score_frame(protocol, c.gt, Prediction(DepthMap(c.pred)))
    assert score.moments[0] == c.expected(key)["n_valid"]
    teacher = extended.decode_teacher(c.arrays["teacher_png"])
    got = metrics_of(score) | extended.teacher_agreement(teacher, c.pred)
    for metric, value in c.expected(key)["f64"].items():
        assert_close(got[metric], value, 1e-6, f"{name} {metric}", SILOG_ABS if metric == "silog" else 1e-12)


MONODEPTH2 = {"eigen": "kitti-eigen-raw", "eigen_benchmark": "kitti-eigen-benchmark"}
SCALING = {"mono": "median", "stereo": "fixed:5.4", "unscaled": "none"}


@pytest.mark.parametrize(("name", "key"), with_key("monodepth2/"), ids=lambda v: v)
def test_monodepth2(name, key):
    _, config, mode = key.split("/")
    c = case(name)
    protocol = get_protocol(MONODEPTH2[config]).with_options(alignment=SCALING[mode])
    score = score_frame(protocol, c.gt, Prediction(DepthMap(c.disp), kind="scaled-disparity"), compat=True)
    want = c.expected(key)
    check(score, want, 1e-5, f"{name} {key}", counts_may_move=True, zero=1e-6)
    if mode == "mono" and want["n_valid"]:
        assert_close(score.ratio, want["ratio"], 1e-5, "ratio")
    else:
        assert (score.ratio is None) == (mode != "mono")


def mdb_protocol(config: str):
    if config == "benchmark":
        return get_protocol("kitti-mdb")
    return dataclasses.replace(get_protocol("kitti-eigen-raw"), inversion="guarded")


# The `benchmark` family prints logarithms x 100 and percents; its squared relative error is divided by g^2.
MDB_SCALE = {"log_mae": 100.0, "rmse_log": 100.0, "abs_rel": 100.0}


def check_families(score, want: dict, what: str):
    check(score, want["eigen"], 1e-5, what, counts_may_move=True, zero=1e-6)
    family = {k: v for k, v in want["benchmark"]["f64"].items() if k != "sq_rel"}
    check(score, {**want["benchmark"], "f64": family}, 1e-5, what, scale=MDB_SCALE, zero=1e-4)
    got = metrics_of(score)["sq_rel_gt2"] * 100
    assert_close(got, want["benchmark"]["f64"]["sq_rel"], 1e-5, what, 1e-6)


@pytest.mark.parametrize(("name", "key"), with_key("monodepth_benchmark/"), ids=lambda v: v)
def test_monodepth_benchmark(name, key):
    _, config, mode = key.split("/")
    c, want = case(name), case(name).expected(key)
    protocol = mdb_protocol(config).with_options(alignment=SCALING[mode])
    prediction = Prediction(DepthMap(c.disp), kind="scaled-disparity")
    score = score_frame(protocol, c.gt, prediction, compat=True)
    if want.get("skipped"):
        assert score.moments[0] == 0
        return
    check_families(score, want, f"{name} {key}")
    if mode == "mono":
        assert_close(score.ratio, want["ratio"], 1e-5, "ratio")
    pixels = valid_pixels(protocol, c.gt)
    raw = predicted_at(protocol, c.gt, prediction, pixels)
    final = clamp(protocol, alignment.align(protocol.alignment, pixels.gt, raw)[0])
    assert_close(float(pixels.gt.sum(dtype=np.float64)), want["benchmark"]["gt_sum"], 1e-12, "gt_sum")
    assert_close(float(final.sum(dtype=np.float64)), want["benchmark"]["pred_sum"], 1e-5, "pred_sum")


@pytest.mark.parametrize("mode", ["mono", "stereo"])
def test_monodepth_benchmark_point_clouds(mode):
    c = case("a_375x1242_5pct")
    want = c.expected(f"monodepth_benchmark/benchmark/{mode}")["benchmark"]["f32"]
    protocol = get_protocol("kitti-mdb").with_options(alignment=SCALING[mode])
    pixels = valid_pixels(protocol, c.gt)
    raw = predicted_at(protocol, c.gt, Prediction(DepthMap(c.disp), kind="scaled-disparity"), pixels)
    pred = clamp(protocol, alignment.align(protocol.alignment, pixels.gt, raw)[0])
    K = np.array([[721.5377, 0, 609.5593], [0, 721.5377, 172.854], [0, 0, 1]])
    width = c.gt.shape[1]
    got = pointcloud.pointcloud_metrics(
        pointcloud.back_project(pixels.gt, pixels.index, width, K),
        pointcloud.back_project(pred, pixels.index, width, K),
    )
    names = {"fscore": "fscore_10cm", "iou": "iou_10cm"}
    for key, value in got.items():
        assert_close(value, want[names.get(key, key)], 5e-4, key)


@pytest.mark.parametrize(("name", "key"), with_key("slowtv/"), ids=lambda v: v)
def test_slowtv(name, key):
    mode = key.partition("/")[2]
    named = mode if mode in ("median", "lsqr") else f"fixed:{mode}"
    c, want = case(name), case(name).expected(key)
    protocol = dataclasses.replace(get_protocol("kitti-mdb").with_options(alignment=named), positive_only=True)
    prediction = Prediction(DepthMap(c.disp), kind="scaled-disparity")
    score = score_frame(protocol, c.gt, prediction, compat=True)
    eigen = {k: v for k, v in want["eigen"]["f64"].items() if not k.startswith("d")}
    # A line through a single pixel leaves float32 rounding only.
    zero = 2e-5 if mode == "lsqr" and want["eigen"]["n_valid"] == 1 else 1e-6
    check(score, {**want["eigen"], "f64": eigen}, 1e-5, key, zero=zero)
    family = {k: v for k, v in want["benchmark"]["f64"].items() if k != "sq_rel"}
    check(score, {**want["benchmark"], "f64": family}, 1e-5, key, scale=MDB_SCALE, zero=1e-4)
    pixels = valid_pixels(protocol, c.gt)
    raw = predicted_at(protocol, c.gt, prediction, pixels)
    g, raw = pixels.gt[raw > 0], raw[raw > 0]
    aligned, info = alignment.align(named, g, raw)
    assert_close(info["scale"], want["scale"], 1e-3, "scale")
    assert_close(info.get("shift", 0.0), want["shift"], 1e-3, "shift", 1e-9)
    final = clamp(protocol, aligned)
    for metric, threshold in {"d_1.05": 1.05, "d_1.10": 1.10, "d1": 1.25, "d2": 1.25**2, "d3": 1.25**3}.items():
        value = 100 * extended.accuracy(g, final, threshold)
        assert_close(value, want["eigen"]["f64"][metric], 1e-5, metric, 200 / max(g.size, 1))


SETS = [
    ("newcrfs/garg", "kitti-eigen", "depth", None),
    ("bts_eval/garg", "kitti-eigen-full", "depth", None),
    ("toolbox/garg", "kitti-eigen-toolbox", "depth", None),
    ("monodepth2/eigen/mono", "kitti-eigen-raw", "scaled-disparity", None),
    ("monodepth2/eigen_benchmark/mono", "kitti-eigen-benchmark", "scaled-disparity", None),
    ("monodepth2/eigen/stereo", "kitti-eigen-raw", "scaled-disparity", "fixed:5.4"),
    ("monodepth2/eigen_benchmark/stereo", "kitti-eigen-benchmark", "scaled-disparity", "fixed:5.4"),
]


@pytest.mark.parametrize(("key", "protocol", "kind", "aligned"), SETS, ids=lambda v: str(v))
def test_mean_over_a_split(key, protocol, kind, aligned):
    record = get_protocol(protocol).with_options(alignment=aligned)
    entry = RESULTS["sets"]["normal"]
    scores = []
    for name in entry["cases"]:
        c = case(name)
        values = c.pred if kind == "depth" else c.disp
        scores.append(score_frame(record, c.gt, Prediction(DepthMap(values), kind=kind)))
    want = entry["results"][key]
    got = metrics_from_moments(np.array([s.moments for s in scores]))
    for metric, value in want.items():
        if metric.startswith("ratio"):
            continue
        assert_close(float(got[metric].mean()), value, 2e-5, f"{key} {metric}")
    if "ratio_med" in want:
        ratios = np.array([s.ratio for s in scores])
        assert_close(float(np.median(ratios)), want["ratio_med"], 1e-5, "ratio_med")
        assert_close(float(np.std(ratios / np.median(ratios))), want["ratio_std"], 1e-4, "ratio_std")


# ---- the same numbers from other forms of the same prediction --------------------------------------------------------


@pytest.fixture(scope="module")
def coded():
    """One scene as PNG codes: ground truth, full prediction, its window."""
    rng = np.random.default_rng(7)
    gt = np.where(rng.random((375, 1242)) < 0.2, rng.integers(1, 65536, (375, 1242)), 0).astype(np.uint16)
    pred = np.clip(np.where(gt > 0, gt, 5000) * np.exp(rng.normal(0, 0.1, gt.shape)), 0, 65535).astype(np.uint16)
    return gt, pred


@pytest.mark.parametrize("name", [n for n in PROTOCOLS if n not in ("nyu", "kitti-official")])
def test_codes_and_metres_are_the_same(coded, name):
    gt, pred = coded
    protocol = PROTOCOLS[name]
    codes = score_frame(
        protocol, SparseDepth.from_map(DepthMap(gt, 256.0)), Prediction(DepthMap(pred, 256.0)), compat=True
    )
    metres = DepthMap(gt.astype(np.float32) / 256), DepthMap(pred.astype(np.float32) / 256)
    floats = score_frame(protocol, SparseDepth.from_map(metres[0]), Prediction(metres[1]), compat=True)
    np.testing.assert_array_equal(codes.moments, floats.moments)
    assert codes.moments[0] > 1000


@pytest.mark.parametrize("name", [n for n, p in PROTOCOLS.items() if p.kitti_window and p.crop != "none"])
def test_a_window_prediction_scores_as_the_full_one(coded, name):
    gt, pred = coded
    sparse = SparseDepth.from_map(DepthMap(gt, 256.0))
    top, left = crops.kb_window(*gt.shape)
    window = np.ascontiguousarray(pred[top : top + 352, left : left + 1216])
    full = score_frame(PROTOCOLS[name], sparse, Prediction(DepthMap(pred, 256.0)), compat=True)
    cut = score_frame(PROTOCOLS[name], sparse, Prediction(DepthMap(window, 256.0)), compat=True)
    np.testing.assert_array_equal(full.moments, cut.moments)


def test_ground_truth_that_is_the_window_itself(coded):
    gt, pred = coded
    top, left = crops.kb_window(*gt.shape)
    window = SparseDepth.from_map(DepthMap(np.ascontiguousarray(gt[top : top + 352, left : left + 1216]), 256.0))
    small = Prediction(DepthMap(np.ascontiguousarray(pred[top : top + 352, left : left + 1216]), 256.0))
    full = SparseDepth.from_map(DepthMap(gt, 256.0))
    for name in ("kitti-eigen", "kitti-eigen-toolbox"):
        a = score_frame(PROTOCOLS[name], full, small, compat=True)
        np.testing.assert_array_equal(a.moments, score_frame(PROTOCOLS[name], window, small, compat=True).moments)


@pytest.mark.parametrize("name", ["kitti-eigen", "kitti-eigen-raw", "full-frame"])
def test_values_at_ground_truth_pixels(coded, name):
    gt, pred = coded
    sparse = SparseDepth.from_map(DepthMap(gt, 256.0))
    dense = score_frame(PROTOCOLS[name], sparse, Prediction(DepthMap(pred, 256.0)), compat=True)
    listed = SimpleNamespace(values=pred.reshape(-1)[sparse.index], scale=256.0)
    np.testing.assert_array_equal(
        dense.moments, score_frame(PROTOCOLS[name], sparse, Prediction(listed), compat=True).moments
    )
    short = SimpleNamespace(values=listed.values[:-1], scale=256.0)
    with pytest.raises(ProtocolError, match=r"frame x: .* predicted values"):
        score_frame(PROTOCOLS[name], sparse, Prediction(short), frame="x")


def test_range_on_codes_is_the_range_in_metres():
    assert code_range(256.0, 1e-3, 80.0) == (1, 20479)
    assert code_range(256.0, 0.0, None) == (1, 65535)
    assert code_range(256.0, 0.0, float("inf")) == (1, 65535)
    assert code_range(1000.0, 1e-3, 10.0) == (2, 9999)  # 1/1000 in float32 is not > 1e-3 in float32


# ---- disparity -------------------------------------------------------------------------------------------------------


def test_sigmoid_disparity_is_scaled_before_it_is_resized():
    c, protocol = case("a_375x1242_5pct"), get_protocol("kitti-eigen-raw")
    sigmoid = np.random.default_rng(1).random((192, 640)).astype(np.float32)
    scaled = np.float32(0.01) + np.float32(10 - 0.01) * sigmoid
    a = score_frame(protocol, c.gt, Prediction(DepthMap(sigmoid), kind="sigmoid-disparity"))
    b = score_frame(protocol, c.gt, Prediction(DepthMap(scaled), kind="scaled-disparity"))
    np.testing.assert_allclose(a.moments, b.moments, rtol=1e-6)


def test_pixel_disparity_needs_focal_length_times_baseline(coded):
    gt, _ = coded
    sparse = SparseDepth.from_map(DepthMap(gt, 256.0))
    depth = np.random.default_rng(2).uniform(4, 60, gt.shape).astype(np.float32)
    metric = score_frame(PROTOCOLS["kitti-eigen"], sparse, Prediction(DepthMap(depth)))
    disparity = DepthMap(np.float32(389.0) / depth)
    known = Prediction(disparity, kind="pixel-disparity", focal_baseline=389.0)
    np.testing.assert_allclose(
        score_frame(PROTOCOLS["kitti-eigen"], sparse, known).moments, metric.moments, rtol=1e-5, atol=2
    )
    unknown = Prediction(disparity, kind="pixel-disparity")
    with pytest.raises(ProtocolError, match=r"frame f: pixel disparity needs"):
        score_frame(PROTOCOLS["kitti-eigen"], sparse, unknown, frame="f")
    assert score_frame(PROTOCOLS["kitti-eigen-raw"], sparse, unknown).moments[0] > 0


def test_pixel_disparity_of_a_half_size_map_counts_its_own_pixels():
    gt = SparseDepth.from_map(DepthMap(np.full((40, 80), 10.0, np.float32)))
    half = Prediction(DepthMap(np.full((20, 40), 20.0, np.float32)), kind="pixel-disparity", focal_baseline=400.0)
    score = score_frame(PROTOCOLS["full-frame"], gt, half)
    assert metrics_of(score)["abs_rel"] == 0


# ---- what does not fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "shape"),
    [
        ("kitti-eigen", (375, 1241)),
        ("kitti-eigen", (192, 640)),
        ("kitti-official", (352, 1216)),
        ("full-frame", (352, 1216)),
        ("kitti-eigen-raw", (1242, 375)),
    ],
)
def test_wrong_size_names_frame_and_sizes(coded, protocol, shape):
    sparse = SparseDepth.from_map(DepthMap(coded[0], 256.0))
    with pytest.raises(ProtocolError, match=rf"frame d/7: .*{shape[0]}x{shape[1]}, {protocol} needs 375x1242"):
        score_frame(PROTOCOLS[protocol], sparse, Prediction(DepthMap(np.ones(shape, np.float32))), frame="d/7")


def test_ground_truth_smaller_than_the_window():
    sparse = SparseDepth.from_map(DepthMap(np.ones((96, 320), np.float32)))
    with pytest.raises(ProtocolError, match="frame s: ground truth: a map of 96x320 is smaller"):
        score_frame(PROTOCOLS["kitti-eigen"], sparse, Prediction(DepthMap(np.ones((96, 320), np.float32))), frame="s")
    with pytest.raises(ProtocolError, match="crop nyu belongs to maps of 480x640"):
        score_frame(PROTOCOLS["nyu"], sparse, Prediction(DepthMap(np.ones((96, 320), np.float32))))


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -1.0])
@pytest.mark.parametrize("protocol", ["kitti-eigen-toolbox", "full-frame"])
def test_invalid_prediction_without_clamp_is_refused(coded, protocol, value):
    sparse = SparseDepth.from_map(DepthMap(coded[0], 256.0))
    pred = np.full((375, 1242), 9.0, np.float32)
    pred.reshape(-1)[valid_pixels(PROTOCOLS[protocol], sparse).index[5]] = value
    with pytest.raises(ProtocolError, match=r"frame f: .* 1 of "):
        score_frame(PROTOCOLS[protocol], sparse, Prediction(DepthMap(pred)), frame="f")
    assert score_frame(PROTOCOLS["kitti-eigen"], sparse, Prediction(DepthMap(pred))).n_invalid in (0, 1)


def test_toolbox_compat_turns_a_nan_silog_into_zero():
    c = case("e_370x1226_hard_pred")
    score = score_frame(PROTOCOLS["kitti-eigen-toolbox"], c.gt, Prediction(DepthMap(c.pred)), compat=True)
    assert score.extra["silog"] == 0.0
    assert np.isnan(metrics_from_moments(score.moments)["silog"])
    c = case("a_375x1242_5pct")  # the column is complete: images without NaN keep their own value
    other = score_frame(PROTOCOLS["kitti-eigen-toolbox"], c.gt, Prediction(DepthMap(c.pred)), compat=True)
    assert other.extra["silog"] == metrics_from_moments(other.moments)["silog"]
    c = case("e_370x1226_hard_pred")
    with pytest.raises(ProtocolError, match="does not clamp"):
        score_frame(PROTOCOLS["kitti-eigen-toolbox"], c.gt, Prediction(DepthMap(c.pred)))


def test_nan_is_refused_where_the_clamp_keeps_it(coded):
    sparse = SparseDepth.from_map(DepthMap(coded[0], 256.0))
    pred = np.full((375, 1242), np.nan, np.float32)
    with pytest.raises(ProtocolError, match="is NaN at"):
        score_frame(PROTOCOLS["kitti-eigen-raw"], sparse, Prediction(DepthMap(pred)))
    pred[:] = np.inf  # clamped, after a ratio of 0
    pred[::2] = 3.0
    assert score_frame(PROTOCOLS["kitti-eigen-raw"], sparse, Prediction(DepthMap(pred))).n_invalid > 0


def test_invalid_values_are_counted_only_where_they_matter(coded):
    sparse = SparseDepth.from_map(DepthMap(coded[0], 256.0))
    protocol = PROTOCOLS["kitti-eigen"]
    pred = coded[1].copy()
    pred[:100] = 0  # above the crop
    inside = valid_pixels(protocol, sparse).index[:3]
    pred.reshape(-1)[pred.reshape(-1) == 0] = 0
    zero_before = int((pred.reshape(-1)[valid_pixels(protocol, sparse).index] == 0).sum())
    pred.reshape(-1)[inside] = 0
    assert zero_before == 0
    assert score_frame(protocol, sparse, Prediction(DepthMap(pred, 256.0))).n_invalid == 3


def test_no_valid_pixel_is_no_error():
    gt = SparseDepth.from_map(DepthMap(np.zeros((375, 1242), np.uint16), 256.0))
    pred = Prediction(DepthMap(np.full((375, 1242), 700, np.uint16), 256.0))
    for name, protocol in PROTOCOLS.items():
        if name == "nyu":
            continue
        score = score_frame(protocol, gt, pred)
        assert not score.moments.any()
        assert np.isnan(metrics_from_moments(score.moments)["abs_rel"])
        assert score.without_sample().sample[0].size == 0


def test_every_case_is_used():
    assert len(CASES) == 13
    assert number("inf") == np.inf
