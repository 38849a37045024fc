"""Per-image records, the pixel pool, data-set values and their intervals."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle

import numpy as np
import pytest

from adubench.errors import DataError, ProtocolError, UsageError
from adubench.evaluators import calibration, statistics
from adubench.evaluators import sparsification as S
from adubench.evaluators.pixel_pool import POOL_PIXELS, PixelPool, starting_rate
from adubench.evaluators.rank_correlation import spearman
from adubench.evaluators.uncertainty import UncertaintyOptions, measure_image
from adubench.evaluators.uncertainty_summary import fit_recalibration, per_image_columns, summarise
from adubench.evaluators.uncertainty_values import Resampling
from tests.evaluators.uncertainty_cases import scene

QUICK = Resampling(resamples=300)
REGIONS = ("depth3", "edge0")


def evaluate(options, images, pool=None, n=1500):
    records = []
    for i in images:
        gt, pred, sigma = scene(i, n + 10 * i)
        masks = {"depth3": gt >= 60, "edge0": np.arange(gt.size) % 3 == 0}
        values = {"log_sigma": np.log(sigma), "sigma": sigma, "score": -1 / sigma}[options.kind]
        record = measure_image(options, gt, pred, values, frame=f"d{i // 3}/{i}", masks=masks)
        if pool is not None:
            pool.add(record.pool, record.priorities)
        records.append(record.without_pool())
    return records


def drives_of(records):
    return [r.frame.split("/")[0] for r in records]


@pytest.fixture(scope="module")
def options():
    return UncertaintyOptions("log_sigma", regions=REGIONS)


@pytest.fixture(scope="module")
def measured(options):
    pool = PixelPool()
    records = evaluate(options, range(24), pool)
    return records, pool


@pytest.fixture(scope="module")
def summary(options, measured):
    records, pool = measured
    return summarise(records, drives_of(records), options, pool=pool, resampling=QUICK)


def pixels(images=range(24), n=1500):
    parts = [scene(i, n + 10 * i) for i in images]
    return tuple(np.concatenate([p[k] for p in parts]) for k in range(3))


def test_values_against_a_plain_evaluation(summary):
    gt, pred, sigma = pixels()
    residual = pred - gt
    assert summary["nll_laplace"] == pytest.approx(calibration.nll_laplace(residual, np.log(sigma)).mean())
    assert summary["crps"] == pytest.approx(calibration.crps_laplace(residual, sigma).mean())
    assert summary["sharpness"] == pytest.approx(np.sqrt((sigma**2).mean()))
    assert summary["cv_sigma"] == pytest.approx(calibration.variation(sigma))
    curve = calibration.coverage(residual, sigma, calibration.LEVELS, "laplace")
    assert summary["ece"] == summary["ece_laplace"] == pytest.approx(np.abs(curve - calibration.LEVELS).mean())
    np.testing.assert_allclose(summary["curves"]["calibration"]["laplace"], curve)
    in_19 = calibration.coverage(residual, sigma, calibration.LEVELS_19, "laplace")
    assert summary["ece19"] == pytest.approx(np.abs(in_19 - calibration.LEVELS_19).mean())
    assert summary["coverage_90"] == pytest.approx(calibration.coverage(residual, sigma, np.array([0.9]), "laplace")[0])
    assert summary["ence"] == pytest.approx(calibration.ence(sigma, residual).value)
    assert summary["pooled_spearman"] == pytest.approx(spearman(sigma, np.abs(residual)))
    per_image = [S.sparsify(S.pixel_errors(g, p), s) for g, p, s in (scene(i, 1500 + 10 * i) for i in range(24))]
    assert summary["ause_rmse"] == pytest.approx(np.mean([f.ause[1] for f in per_image]))
    assert summary["nause_abs_rel"] == pytest.approx(np.mean([f.nause[0] for f in per_image]))
    np.testing.assert_allclose(
        summary["curves"]["sparsification"]["model"]["abs_rel"], np.mean([f.curve[0] for f in per_image], axis=0)
    )


def test_intervals_hold_the_values(summary):
    for name in ("nause_abs_rel", "spearman", "spearman_partial", "nll", "ece", "ece19", "coverage_90", "cv_sigma"):
        low, high = summary["intervals"][name]
        assert low < summary[name] < high, name
    assert summary["n_clusters"] == 8


def test_interval_of_ece_is_that_of_summed_counts(summary, measured):
    records, _ = measured
    form = calibration.FORMS.index("laplace")
    rows = np.array([[r.n, *r.density.counts[form, :100]] for r in records], np.float64)
    labels, names = statistics.label_clusters(drives_of(records))
    drawn = statistics.bootstrap_sums(statistics.sum_by_cluster(rows, labels, len(names)), 300)
    eces = np.abs(drawn[:, 1:] / drawn[:, :1] - calibration.LEVELS).mean(axis=1)
    np.testing.assert_allclose(summary["intervals"]["ece"], statistics.percentile_interval(eces))


def test_claim_against_the_depth_baseline(summary):
    claim = summary["claims"]["nause_rmse_below_depth"]
    assert claim["delta"] == pytest.approx(summary["nause_rmse"] - summary["baselines"]["depth"]["nause_rmse"])
    assert claim["delta"] < 0
    assert claim["interval"] == "inversion"
    assert claim["ci"][0] < claim["delta"] < claim["ci"][1] < 0
    assert claim["p"] == pytest.approx(2 / 2**8)


def test_regions_and_their_share(summary):
    regions = summary["regions"]
    assert list(regions) == list(REGIONS)
    gt, pred, sigma = pixels()
    assert regions["depth3"]["share"] == pytest.approx((gt >= 60).mean())
    assert regions["depth3"]["verdict"] == "higher, justified"
    assert regions["edge0"]["verdict"] == "n.s."
    assert regions["depth3"]["z_ratio_inside"] == pytest.approx(
        np.sqrt(((pred - gt)[gt >= 60] ** 2).sum() / (sigma[gt >= 60] ** 2).sum())
    )
    inside = calibration.coverage((pred - gt)[gt >= 60], sigma[gt >= 60], calibration.LEVELS, "laplace")
    np.testing.assert_allclose(regions["depth3"]["coverage"], inside)
    assert regions["depth3"]["auroc"]["mean"] > 0.8
    assert regions["depth3"]["depth_auroc"] > 0.9  # the trivial sigma passes as well


def test_json_and_order(summary, options, measured):
    json.dumps(summary)
    records, pool = measured
    again = summarise(records[::-1], drives_of(records[::-1]), options, pool=pool, resampling=QUICK)
    assert again["intervals"]["nll"] == pytest.approx(summary["intervals"]["nll"])
    assert pickle.loads(pickle.dumps(records[0])).n == records[0].n
    assert records[0].pool is None


def test_recalibration_on_other_images(options):
    pool = PixelPool()
    fitted = fit_recalibration(evaluate(options, range(100, 124), pool), pool, options)
    assert fitted.temperature.value == pytest.approx(1.3, rel=0.02)  # planted
    assert fitted.conformal["coverage_90"] == pytest.approx(1.3, rel=0.05)
    after_options = dataclasses.replace(options, temperature=fitted.temperature)
    test_pool = PixelPool()
    records = evaluate(after_options, range(24), test_pool)
    found = summarise(
        records, drives_of(records), after_options, pool=test_pool, recalibration=fitted, resampling=QUICK
    )
    before, after = found, found["recalibration"]["after"]
    assert after["ece"] < 0.01 < before["ece"]
    assert after["nll_laplace"] < before["nll_laplace"]
    assert after["ence"] < 0.1 < before["ence"]
    assert found["recalibration"]["temperature"] == fitted.temperature.value
    assert found["recalibration"]["ece_quantile_isotonic"] < before["ece_quantile"]
    plain = summarise(evaluate(options, range(24)), drives_of(records), options, resampling=QUICK)
    assert plain["nause_abs_rel"] == before["nause_abs_rel"]  # a common factor changes no ranking


def test_score_only_ranks(measured):
    records = evaluate(UncertaintyOptions("score"), range(6))
    found = summarise(records, drives_of(records), UncertaintyOptions("score"), resampling=QUICK)
    other, _ = measured
    assert found["ause_rmse"] == pytest.approx(np.mean([r.areas["model"][0, 1] for r in other[:6]]))
    assert "nll" not in found
    assert "ece" not in found
    pool = PixelPool()
    records = evaluate(UncertaintyOptions("score"), range(3), pool)
    with pytest.raises(ProtocolError, match="a score has none"):
        fit_recalibration(records, pool, UncertaintyOptions("score"))
    assert "ence" not in summarise(records, ["a"] * 3, UncertaintyOptions("score"), pool=pool, resampling=QUICK)


def test_undeclared_family_names_the_better_one():
    options = UncertaintyOptions("sigma")
    records = evaluate(options, range(3))
    found = summarise(records, ["a", "a", "b"], options, resampling=QUICK)
    assert (found["family"], found["better_family"]) == ("gaussian", "laplace")
    assert found["ece"] == found["ece_gaussian"]
    declared = UncertaintyOptions("sigma", family="laplace")
    assert "better_family" not in summarise(evaluate(declared, range(2)), ["a", "b"], declared, resampling=QUICK)


def test_left_out_and_undefined_images(options):
    gt, pred, sigma = scene(0, 200)
    plain = UncertaintyOptions("sigma")
    assert measure_image(plain, gt[:1], pred[:1], sigma[:1]) is None
    exact = measure_image(plain, gt, gt, sigma, frame="exact")
    constant = measure_image(plain, gt, pred, np.full(200, 2.0), frame="constant")
    usual = measure_image(plain, gt, pred, sigma, frame="usual")
    found = summarise([exact, None, constant, usual], ["a", "a", "b", "b"], plain, resampling=QUICK)
    assert (found["n_images"], found["n_images_left_out"]) == (3, 1)
    assert found["undefined_images"]["spearman"] == 2
    assert found["undefined_images"]["nause_abs_rel"] == 1
    assert found["spearman"] == pytest.approx(usual.correlations[0])
    assert found["ause_rmse"] == pytest.approx(np.mean([r.areas["model"][0, 1] for r in (exact, constant, usual)]))
    columns = per_image_columns([exact, None, constant, usual])
    assert math.isnan(columns["unc_spearman"][0])
    assert math.isnan(columns["unc_ause_rmse"][1])
    assert columns["unc_ause_rmse"][0] == 0
    assert columns["unc_spearman"][3] == found["spearman"]
    assert "unc_kendall" not in columns
    assert not any(name.startswith("unc_depth_") for name in columns)


def test_nothing_to_evaluate(options):
    with pytest.raises(ProtocolError, match="no image has two valid pixels"):
        summarise([None], ["a"], options)
    with pytest.raises(ProtocolError, match="1 records do not fit 2 drives"):
        summarise([None], ["a", "b"], options)


def test_one_drive_gives_values_without_intervals():
    records = evaluate(UncertaintyOptions("sigma"), range(3))
    found = summarise(records, ["a"] * 3, UncertaintyOptions("sigma"), resampling=QUICK)
    assert np.isnan(found["intervals"]["ece"]).all()
    assert np.isnan(found["claims"]["nause_rmse_below_depth"]["p"])
    assert found["ece"] > 0


def test_floor_is_counted():
    gt, pred, sigma = scene(0, 400)
    sigma[:10] = -1.0
    sigma[10:20] = 0.0
    options = UncertaintyOptions("sigma")
    record = measure_image(options, gt, pred, sigma, frame="f")
    found = summarise([record], ["a"], options, resampling=QUICK)
    assert found["n_floored"] == 20
    assert found["floored_share"] == 0.05
    assert np.isfinite(found["nll"])


def test_huge_log_sigma_has_finite_scores():
    gt, pred, sigma = scene(0, 400)
    s = np.log(sigma)
    s[0] = 900.0
    with np.errstate(over="raise", invalid="raise"):
        record = measure_image(UncertaintyOptions("log_sigma"), gt, pred, s)
    assert np.isfinite(record.density.sums).all()
    assert np.isfinite(record.correlations).all()


def test_alignment_scale_and_space():
    gt, pred, sigma = scene(0, 500)
    plain = measure_image(UncertaintyOptions("sigma"), gt, pred, sigma)
    scaled = measure_image(UncertaintyOptions("sigma"), 2 * gt, 2 * pred, sigma, scale=2.0)
    assert scaled.density.counts.tolist() == plain.density.counts.tolist()
    log = measure_image(UncertaintyOptions("sigma", space="log"), gt, pred, sigma / gt)
    assert log.density.sums[-1] == pytest.approx((np.log(pred / gt) ** 2).sum())


def test_curves_inside_regions():
    options = UncertaintyOptions("sigma", regions=REGIONS, region_curves=True)
    gt, pred, sigma = scene(0, 3000)
    masks = {"depth3": gt >= 60, "edge0": np.arange(3000) < 499}
    record = measure_image(options, gt, pred, sigma, masks=masks)
    want = S.sparsify(S.pixel_errors(gt[gt >= 60], pred[gt >= 60]), sigma[gt >= 60])
    np.testing.assert_allclose(record.region_areas[0], [want.ause, want.aurg])
    assert np.isnan(record.region_areas[1]).all()  # too few pixels
    found = summarise([record], ["a"], options, resampling=QUICK)
    assert found["regions"]["depth3"]["ause_rmse"] == pytest.approx(want.ause[1])
    assert "ause_rmse" not in found["regions"]["edge0"]


def test_region_empty_everywhere():
    options = UncertaintyOptions("sigma", regions=("edge0",))
    gt, pred, sigma = scene(0, 300)
    record = measure_image(options, gt, pred, sigma, masks={"edge0": np.zeros(300, bool)})
    entry = summarise([record], ["a"], options, resampling=QUICK)["regions"]["edge0"]
    assert (entry["verdict"], entry["n_images"], entry["share"]) == ("n/a", 0, 0.0)
    assert math.isnan(entry["z_ratio_inside"])


def test_bad_vectors():
    gt, pred, sigma = scene(0, 300)
    options = UncertaintyOptions("sigma", regions=("edge0",))
    with pytest.raises(ProtocolError, match=r"'uncertainty' of f has the shape \(299,\)"):
        measure_image(options, gt, pred, sigma[1:], frame="f")
    with pytest.raises(ProtocolError, match="no mask of the region 'edge0'"):
        measure_image(options, gt, pred, sigma, frame="f")
    sigma[3] = np.nan
    with pytest.raises(DataError, match="in f is NaN"):
        measure_image(UncertaintyOptions("sigma"), gt, pred, sigma, frame="f")
    with pytest.raises(UsageError, match="uncertainty kind"):
        UncertaintyOptions("entropy")
    with pytest.raises(UsageError, match="uncertainty family"):
        UncertaintyOptions("sigma", family="cauchy")
    with pytest.raises(ProtocolError, match="at least 2 steps"):
        UncertaintyOptions("sigma", steps=1)


def test_pool_is_the_same_for_any_start_and_order_of_thinning():
    options = UncertaintyOptions("sigma")
    late, early = PixelPool(budget=4000), PixelPool(budget=4000, rate=0.5)
    evaluate(options, range(8), late)
    evaluate(dataclasses.replace(options, pool_rate=0.5), range(8), early)
    assert late.rate == early.rate == 0.25
    np.testing.assert_array_equal(late.pixels, early.pixels)
    assert 2500 < late.pixels.shape[1] <= 4000
    everything = PixelPool()
    evaluate(options, range(8), everything)
    assert everything.pixels.shape[1] == sum(1500 + 10 * i for i in range(8))
    off = PixelPool()
    evaluate(dataclasses.replace(options, pool_rate=0.0), range(2), off)
    assert off.pixels.shape == (4, 0)


def test_starting_rate():
    assert starting_rate(10, 1000) == 1.0
    rate = starting_rate(652, 120_000)
    assert POOL_PIXELS < rate * 652 * 120_000 <= 2 * POOL_PIXELS


def test_kendall_and_pooled_curves_on_request():
    options = UncertaintyOptions("sigma", kendall=True)
    pool = PixelPool()
    records = evaluate(options, range(2), pool, n=300)
    found = summarise(records, ["a", "b"], options, pool=pool, pooled_curves=True, resampling=QUICK)
    assert 0 < found["kendall"] < found["spearman"]
    gt, pred, sigma = pixels(range(2), 300)
    want = S.sparsify(S.pixel_errors(gt, pred), sigma)
    assert found["pooled_ause_rmse"] == pytest.approx(want.ause[1])
    assert "unc_kendall" in per_image_columns(records)
