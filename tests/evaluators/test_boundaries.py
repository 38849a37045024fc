from __future__ import annotations

import math

import numpy as np
import pytest

from adubench.errors import ProtocolError, UsageError
from adubench.evaluators import boundaries
from adubench.evaluators.boundaries import (
    EdgeMatch,
    directed_error,
    edge_error,
    edge_error_ibims,
    gt_edges,
    match_edges,
    pointcloud_scores,
)
from adubench.evaluators.boundary_scores import GROUPS, SCORES, Options, default_groups, score_boundaries, summarise
from adubench.evaluators.canny import log_depth_edges
from adubench.io.depth_png import read_depth_map
from adubench.io.edges import read_edges
from tests.evaluators.boundary_cases import CASES, NAMES, REAL, WANT, maps, scene, unpacked

FSCORES = {"chamfer": "Chamfer", "fscore": "F-Score", "iou": "IoU", "fscore_20cm": "F-Score-20", "iou_20cm": "IoU-20"}


@pytest.mark.parametrize("name", NAMES)
def test_syns_form(name):
    gt, pred = maps(name)
    want, edges = WANT[name], gt_edges(gt)
    assert np.array_equal(edges, unpacked(name, "edges_gt") & (gt > 0))
    error = edge_error(pred, edges)
    assert (error.n_gt, error.n_pred) == (want["n_gt_edge_px"], want["n_pred_edge_px"])
    assert error.accuracy == pytest.approx(want["ibims"]["EdgeAcc"], abs=1e-6)
    assert error.completeness == pytest.approx(want["ibims"]["EdgeComp"], abs=1e-6)
    side = directed_error(gt, pred, reference_quirks=True)
    assert side.correct == pytest.approx(want["ibims"]["DirAcc"], abs=1e-9)
    assert side.too_near == pytest.approx(want["ibims"]["Dir (-)"], abs=1e-9)
    assert side.too_far == pytest.approx(want["ibims"]["Dir (+)"], abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_original_form(name):
    gt, pred = maps(name)
    want = WANT[name]["ibims_original_protocol"]
    error = edge_error_ibims(pred, gt_edges(gt))
    assert error.n_pred == want["n_pred_edge_px"]
    assert error.accuracy == pytest.approx(want["dbe_acc"], abs=1e-6)
    assert error.completeness == pytest.approx(want["dbe_com"], abs=1e-6)
    found = boundaries.canny(boundaries._unit_range(pred), math.sqrt(2), 0.15, 0.3)
    assert np.array_equal(found, unpacked(name, "edges_pred_original"))


@pytest.mark.parametrize("name", NAMES)
def test_point_clouds(name):
    gt, pred = maps(name)
    K = CASES[f"{name}/K"]
    want = WANT[name]["pointcloud_monodepth_benchmark"]
    found = pointcloud_scores(gt, pred, K)
    for key, title in FSCORES.items():
        assert found[key] == pytest.approx(want[title], rel=1e-4)
    want = WANT[name]["pointcloud_slowtv"]
    found = pointcloud_scores(gt, pred, K, form="slowtv")
    assert found["chamfer"] == pytest.approx(want["Chamfer"], rel=1e-4)
    for size in (5, 10, 20):
        assert found[f"fscore_{size}cm"] == pytest.approx(want[f"F-Score ({size})"], rel=1e-4)
        assert found[f"iou_{size}cm"] == pytest.approx(want[f"IoU ({size})"], rel=1e-4)


def test_perfect_map():
    gt = scene(3)
    error = edge_error(gt, gt_edges(gt))
    assert (error.accuracy, error.completeness) == (0.0, 0.0)
    assert edge_error(gt * 8, gt_edges(gt)) == error
    assert edge_error_ibims(gt, gt_edges(gt)).completeness > 0  # the linear range hides far edges


def test_masked_sides_leave_missing_pixels_out():
    gt = scene(3)
    holed = gt.copy()
    holed[:15] = 0
    assert directed_error(holed, gt).correct == 100.0
    assert directed_error(holed, gt, reference_quirks=True).correct < 80.0
    shares = directed_error(holed, gt * 2)
    assert shares.correct + shares.too_near + shares.too_far == pytest.approx(100)
    assert shares.too_far > 0 == shares.too_near


@pytest.mark.parametrize("form", [edge_error, edge_error_ibims])
def test_edges_that_are_missing(form):
    gt = scene(4)
    nothing = form(gt, np.zeros(gt.shape, bool))
    assert math.isnan(nothing.accuracy)
    assert math.isnan(nothing.completeness)
    flat = form(np.full(gt.shape, 5.0), gt_edges(gt))
    assert (flat.accuracy, flat.completeness, flat.n_pred) == (10.0, 10.0, 0)
    far = np.zeros(gt.shape, bool)
    far[0, 0] = True
    step = np.where(np.arange(gt.shape[1]) > 60, 40.0, 5.0) * np.ones(gt.shape)
    assert (form(step, far).accuracy, form(step, far).n_near) == (10.0, 0)


def test_matching_one_to_one():
    gt = np.zeros((30, 40), bool)
    gt[5:25, 20] = True
    double = gt.copy()
    double[5:25, 21] = True
    assert match_edges(gt, gt, 0) == EdgeMatch(20, 20, 20, 20)
    thick = match_edges(double, gt, 2)
    assert (thick.precision, thick.recall) == (0.5, 1.0)
    assert match_edges(double, gt, 2, matching="distance").precision == 1.0
    shifted = np.roll(gt, 2, axis=1)
    assert match_edges(shifted, gt, 1.9).f1 == 0.0
    assert match_edges(shifted, gt, 2).f1 == 1.0
    corner = np.zeros((30, 40), bool)
    corner[0, 0] = corner[29, 39] = True  # the search leaves the image
    assert match_edges(corner, corner, 5).f1 == 1.0


def test_matching_is_the_largest():
    """Brute force over all assignments of small maps."""
    import itertools

    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = (rng.random((5, 5)) < 0.2 for _ in range(2))
        p, q = np.argwhere(a), np.argwhere(b)
        if len(p) > len(q):
            a, b, p, q = b, a, q, p
        if len(q) > 6:
            continue
        best = max(
            (
                sum(math.dist(x, q[j]) <= 1.5 for x, j in zip(p, order, strict=False))
                for order in itertools.permutations(range(len(q)))
            ),
            default=0,
        )
        assert match_edges(a, b, 1.5).hits_gt == best


def test_matches_add_up():
    total = EdgeMatch(1, 2, 1, 4) + EdgeMatch(3, 4, 3, 4)
    assert (total.precision, total.recall) == (4 / 6, 0.5)
    assert math.isnan(EdgeMatch(0, 5, 0, 0).f1)
    assert EdgeMatch(0, 0, 0, 5).f1 == 0.0


def test_every_score_has_a_name():
    gt = scene(5)
    pred = np.roll(gt, 1, axis=1)
    K = np.array([[300, 0, 45], [0, 300, 20], [0, 0, 1.0]])
    inputs = {"edges": gt_edges(gt), "mask": gt < 15, "K": K}
    found = score_boundaries(gt, pred, Options(tuple(GROUPS)), **inputs)
    assert list(found.values) == list(SCORES)
    assert {score.group for score in SCORES.values()} == set(GROUPS)
    assert all(math.isfinite(value) for value in found.values.values())
    other = score_boundaries(gt, gt, Options(tuple(GROUPS)), **inputs)
    summary, images = summarise([found, other])
    assert set(images.values()) == {2}
    assert summary["dbe_acc"] == pytest.approx(found.values["dbe_acc"] / 2)
    total = found.match + other.match
    assert summary["ext_f1"] == total.f1
    hit, positives = (
        (found.pairs.counts + other.pairs.counts)[..., 0],
        (found.pairs.counts + other.pairs.counts)[..., 1:],
    )
    parts = 2 * hit.sum(axis=1) / positives.sum(axis=(1, 2))
    assert summary["sbf1"] == pytest.approx(np.sum(parts * found.pairs.weights))


def test_summary_leaves_undefined_images_out():
    gt = scene(6)
    options = Options(("dbe", "sbf1"))
    empty = score_boundaries(np.zeros_like(gt), gt, options)
    summary, images = summarise([empty, score_boundaries(gt, gt, options)])
    assert (summary["dbe_acc"], images["dbe_acc"], summary["sbf1"]) == (0.0, 1, 1.0)
    assert math.isnan(summarise([empty])[0]["sbf1"])
    assert summarise([]) == ({}, {})


def test_what_is_missing_is_said():
    gt = scene(7)
    with pytest.raises(UsageError, match=r"unknown boundary metric 'sbf'.*sbf1"):
        Options(("sbf",))
    with pytest.raises(UsageError, match="'fscore' needs intrinsics"):
        score_boundaries(gt, gt, Options(("fscore",)))
    with pytest.raises(ProtocolError, match="0007: the prediction has shape"):
        score_boundaries(gt, gt[1:], Options(), frame="0007")
    with pytest.raises(ProtocolError, match="the edge map has shape"):
        score_boundaries(gt, gt, Options(("external",)), edges=gt[:, 1:] > 0)


def test_default_groups():
    assert default_groups("raw") == ("sbf1",)
    assert default_groups("improved", edges=True) == ("sbf1", "external")
    assert default_groups("dense", masks=True) == ("dbe", "depthpro", "sbf1", "recall")


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (1, 12), (5, 8)])
def test_empty_cases(shape):
    gt = np.zeros(shape, np.float32)
    inputs = {"edges": gt > 0, "mask": gt, "K": np.eye(3)}
    found = score_boundaries(gt, gt + 3, Options(tuple(GROUPS)), **inputs)
    assert all(math.isnan(value) for key, value in found.values.items() if key not in ("ext_precision",))
    assert math.isnan(pointcloud_scores(gt, gt, np.eye(3), form="slowtv")["chamfer"])


def test_real_annotated_edges():
    folder = REAL / "kitti_de"
    if not folder.is_dir():
        pytest.skip("the annotated KITTI frames are not here")
    from scipy import ndimage

    frames = []
    for name in (folder / "frames.txt").read_text().split()[:4]:
        depth = read_depth_map(folder / "depth" / f"{name.removesuffix('.png')}.png").quantity()
        edges = read_edges(folder / "gt" / f"{name.removesuffix('.png')}.png", depth.shape)
        assert 0.002 < edges.mean() < 0.05
        rows, columns = ndimage.distance_transform_edt(depth == 0, return_distances=False, return_indices=True)
        frames.append((depth[rows, columns], edges))
    options = Options(("external",))

    def score(change):
        return summarise(score_boundaries(d, change(d, e), options, edges=e) for d, e in frames)[0]

    drawn = score(lambda d, e: np.where(e, 10.0, 20.0))  # a prediction whose silhouettes are the drawn ones
    moved = score(lambda d, e: np.where(np.roll(e, 40, axis=1), 10.0, 20.0))
    assert drawn["ext_recall"] > 0.9
    assert drawn["ext_acc"] < 1.5
    assert moved["ext_f1"] < 0.4 * drawn["ext_f1"]
    filled = score(lambda d, e: d)  # LiDAR filled by the nearest value: full of false edges
    assert score(lambda d, e: np.roll(d, 60, axis=1))["ext_f1"] < filled["ext_f1"] < 0.3
    assert log_depth_edges(frames[0][0]).any()


def test_the_documented_numbers():
    """The table of docs/boundaries.md, recomputed; its key table names every score."""
    from pathlib import Path

    text = (Path(__file__).resolve().parents[2] / "docs" / "boundaries.md").read_text()
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| `") and line.count("|") == 7]
    assert len(rows) > 10
    options = Options(("dbe", "dbe-ibims", "depthpro", "moge", "sbf1", "recall", "fscore"))
    for column, name in enumerate(("dense_perfect", "dense_blur", "dense_blurnoise", "dense_shift", "flat_pred"), 2):
        found = score_boundaries(*maps(name), options, mask=CASES[f"{name}/mask"], K=CASES[f"{name}/K"]).values
        for row in rows:
            assert float(row[column]) == pytest.approx(found[row[1].strip(" `")], abs=6e-4)
    for key in SCORES:
        assert key.replace("_20cm", "").replace("f1_moge", "") in text
