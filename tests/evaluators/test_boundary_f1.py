from __future__ import annotations

import json
import time

import numpy as np
import pytest

from adubench.evaluators.boundary_f1 import depthpro_f1, depthpro_recall, moge_f1
from adubench.evaluators.boundary_pairs import pool_counts, sparse_boundary_counts
from tests.evaluators.boundary_cases import CASES, FOLDER, NAMES, REAL, WANT, filled, maps, scene

REGIONS = FOLDER.parent / "regions"


@pytest.mark.parametrize("name", NAMES)
def test_depthpro(name):
    gt, pred = maps(name)
    want = WANT[name]
    for number, value in want["depthpro_f1_filled"].items():
        assert depthpro_f1(filled(gt), pred, number=int(number)).f1 == pytest.approx(value, abs=1e-9)
    for number, value in want["depthpro_f1_zeros"].items():
        found = depthpro_f1(gt, pred, number=int(number), reference_quirks=True).f1
        assert found == pytest.approx(value, abs=1e-9)
    assert depthpro_f1(filled(gt), pred).f1_self == pytest.approx(want["depthpro_f1_selfgt"], abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_depthpro_counts_per_threshold(name):
    gt, pred = maps(name)
    want = WANT[name]["depthpro_per_threshold"]
    counts = sparse_boundary_counts(filled(gt), pred, kappa=None)
    hit, found, true = np.moveaxis(counts.counts, 2, 0)
    assert np.allclose((hit / np.maximum(true, 1)).mean(axis=1), want["r"], atol=1e-9)
    assert np.allclose((hit / np.maximum(found, 1)).mean(axis=1), want["p"], atol=1e-9)
    assert np.allclose(counts.weights, want["weight"], atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_depthpro_recall(name):
    _, pred = maps(name)
    for number, value in WANT[name]["depthpro_recall_mask"].items():
        assert depthpro_recall(pred, CASES[f"{name}/mask"], number=int(number)) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_moge(name):
    gt, pred = maps(name)
    together = moge_f1(gt, pred)
    for radius, value in WANT[name]["moge_f1"].items():
        assert together[int(radius)] == pytest.approx(value, abs=1e-6)
        assert moge_f1(gt, pred, radii=(int(radius),)) == {int(radius): together[int(radius)]}


def test_real_frame():
    folder = REAL / "sintel_temple_2"
    if not folder.is_dir():
        pytest.skip("the real Sintel frame is not here")
    want = json.loads((FOLDER / "expected_real_sintel.json").read_text())
    gt, pred = np.load(folder / "gt_depth.npz"), np.load(folder / "depthpro_gt_focal.npz")["depth"]
    depth = gt["depth"]
    for number, value in want["depthpro_f1"].items():
        score = depthpro_f1(depth, pred, number=int(number), reference_quirks=True)  # NaN is never a boundary
        assert score.f1 == pytest.approx(value, abs=1e-9)
        assert score.f1_self == pytest.approx(want["depthpro_f1_self"], abs=1e-12)
    scaled = depthpro_f1(depth, pred * np.float32(6.9), reference_quirks=True)
    assert scaled.f1 == pytest.approx(want["depthpro_f1_pred_times_6p9"], abs=1e-9)
    for radius, value in moge_f1(depth, pred, valid=gt["valid"]).items():
        assert value == pytest.approx(want["moge_f1"][str(radius)], abs=1e-6)
    assert depthpro_f1(depth, pred).f1 > scaled.f1  # the mask drops boundaries predicted inside the holes


def test_sparse_counts():
    if not REGIONS.is_dir():
        pytest.skip("no region cases")
    cases = np.load(REGIONS / "cases.npz")
    for name, want in json.loads((REGIONS / "expected.json").read_text())["cases"].items():
        counts = sparse_boundary_counts(
            cases[f"{name}/gt"],
            cases[f"{name}/pred"],
            gap_x=want["gap_x"],
            gap_y=want["gap_y"],
            kappa=want["sbf1_kappa"],
        )
        assert np.array_equal(counts.counts, cases[f"{name}/sbf1_counts"])
        assert counts.micro() == pytest.approx(want["sbf1_micro"], rel=1e-9)
        assert counts.macro() == pytest.approx(want["sbf1_macro"], rel=1e-9)
        assert counts.micro_horizontal() == pytest.approx(want["sbf1_micro_horizontal"], rel=1e-9)
        assert (counts.n_ignored, counts.n_pairs) == (want["sbf1_ignored_pairs"], want["sbf1_pairs"])


@pytest.mark.parametrize("seed", range(3))
def test_invariants(seed):
    gt = scene(seed)
    pred = np.roll(gt, 1, axis=1) * np.float32(1.02)
    sparse = np.where(np.random.default_rng(seed).random(gt.shape) < 0.2, gt, 0)
    options = {"gap_x": 5, "gap_y": 5}
    score, perfect = sparse_boundary_counts(sparse, pred, **options), sparse_boundary_counts(sparse, gt, **options)
    assert perfect.micro() == 1.0
    assert 0 < score.micro() < 1
    assert moge_f1(gt, gt) == pytest.approx({1: 1.0, 2: 1.0, 3: 1.0})
    assert depthpro_f1(gt, gt).relative == 1.0
    # Scale (a power of two is exact), mirroring (left and right relations change places), dense identity.
    assert np.array_equal(sparse_boundary_counts(sparse, pred * 4, **options).counts, score.counts)
    assert moge_f1(gt, pred * 4) == moge_f1(gt, pred)
    mirrored = sparse_boundary_counts(sparse[:, ::-1], pred[:, ::-1], **options)
    assert np.array_equal(mirrored.counts[:, [1, 0, 2, 3]], score.counts)
    assert sparse_boundary_counts(gt, pred, kappa=None).macro() == depthpro_f1(gt, pred).f1


def test_pairs_of_raw_scans_are_horizontal_only():
    counts = sparse_boundary_counts(scene(1), scene(2), gap_x=5, gap_y=0)
    assert counts.counts[:, :2].any()
    assert not counts.counts[:, 2:].any()
    assert counts.micro() == counts.micro_horizontal()


def test_slanted_road_is_no_boundary():
    """Five rows of far road differ by more than half, but lie on a plane."""
    rows = np.arange(200.0, 260.0)
    gt = np.repeat((721 * 1.65 / (rows - 180))[:, None], 8, axis=1)
    gt[(rows.astype(int) % 4) != 0] = 0
    options = {"gap_x": 1, "gap_y": 5}
    assert sparse_boundary_counts(gt, gt, kappa=None, **options).n_gt > 0
    counts = sparse_boundary_counts(gt, gt, **options)
    assert counts.n_gt == 0
    assert counts.n_ignored > 0
    assert np.isnan(counts.micro())


def test_pooling_adds_counts():
    one, two = (sparse_boundary_counts(scene(s), scene(s + 1)) for s in (1, 5))
    pooled = pool_counts([one, two])
    assert np.array_equal(pooled.counts, one.counts + two.counts)
    assert pooled.n_pairs == one.n_pairs + two.n_pairs
    with pytest.raises(ValueError, match="no image"):
        pool_counts([])


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (1, 9), (9, 1), (2, 2), (4, 5)])
def test_empty_cases(shape):
    nothing, flat = np.zeros(shape, np.float32), np.full(shape, 7, np.float32)
    assert np.isnan(sparse_boundary_counts(nothing, flat).micro())
    assert np.isnan(depthpro_f1(nothing, flat).f1)
    assert all(np.isnan(value) for value in moge_f1(nothing, flat).values())
    assert np.isnan(sparse_boundary_counts(flat, flat, gap_x=5, gap_y=5).micro())  # pairs, but no boundary
    assert np.isnan(depthpro_f1(flat, flat).relative)
    assert np.isnan(depthpro_recall(flat, nothing))
    one = nothing.copy()
    one.flat[:1] = 3
    assert np.isnan(sparse_boundary_counts(one, flat).macro())


def test_missing_pixels_are_not_boundaries():
    gt = np.full((20, 30), 8, np.float32)
    gt[::3] = 0
    assert depthpro_f1(gt, gt).n_gt == 0
    assert depthpro_f1(gt, gt, reference_quirks=True).n_gt > 0
    gt[0, 0], gt[5, 5] = np.nan, np.inf
    assert sparse_boundary_counts(gt, gt, gap_x=5, gap_y=5).n_gt == 0


def test_speed_of_a_full_frame():
    """Bounds are several times the usual cost, which is a tenth of that of window tensors."""
    gt = np.tile(scene(0, (94, 207)), (4, 6))[:375, :1242]
    pred = np.roll(gt, 2, axis=1)
    start = time.process_time()
    moge_f1(gt, pred)
    depthpro_f1(gt, pred)
    assert time.process_time() - start < 1.5
