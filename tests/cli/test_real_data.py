"""Real maps and scans through the command line. The files cannot ship with the project: tests skip without them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT

SHARED = ROOT.parent / "shared"
REAL = SHARED / "real"


def _need(*paths: Path):
    absent = [p.name for p in paths if not p.exists()]
    if absent:
        pytest.skip(f"sample data not there: {', '.join(absent)}")


def _row(path, position=0):
    result = json.loads(path.read_text())
    return result, {key: values[position] for key, values in result["per_image"].items()}


@pytest.fixture
def sintel():
    folder = REAL / "sintel_temple_2"
    _need(folder)
    return folder / "depthpro_gt_focal.npz", folder / "gt_depth.npz"


def test_a_real_prediction_in_another_unit_is_called_out(run_cli, sintel, tmp_path):
    done = run_cli("eval", sintel[0], "--gt", sintel[1], "--protocol", "full-frame", "-o", "r.json")
    assert done.returncode == 0, done.stderr
    assert "not metric" in done.stderr
    result, row = _row(tmp_path / "r.json")
    assert any("not metric" in warning for warning in result["warnings"])
    g, p = np.load(sintel[1])["depth"], np.load(sintel[0])["depth"]
    valid = np.isfinite(g) & (g > 0)
    g, p = g[valid].astype(np.float64), p[valid].astype(np.float64)
    assert row["n_pixels"] == valid.sum()
    assert row["abs_rel"] == pytest.approx(np.mean(np.abs(p - g) / g), rel=1e-6)


def test_a_real_prediction_is_meaningful_when_aligned(run_cli, sintel, tmp_path):
    g, p = np.load(sintel[1])["depth"], np.load(sintel[0])["depth"]
    valid = np.isfinite(g) & (g > 0)
    g, p = g[valid].astype(np.float64), p[valid].astype(np.float64)
    scaled = p * np.median(g) / np.median(p)
    done = run_cli("eval", *(sintel[0], "--gt", sintel[1]), "--alignment", "median", "-o", "m.json")
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    _, row = _row(tmp_path / "m.json")
    assert row["abs_rel"] == pytest.approx(np.mean(np.abs(scaled - g) / g), rel=1e-5)
    assert row["abs_rel"] < 0.3
    done = run_cli("eval", *(sintel[0], "--gt", sintel[1]), "--alignment", "lstsq", "-o", "l.json")
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    result, row = _row(tmp_path / "l.json")
    assert "alignment=lstsq" in result["protocol"]["name"]
    assert row["rmse"] < _row(tmp_path / "m.json")[1]["rmse"]
    assert row["d1"] > 0.55


def test_real_lidar_truth_gives_the_fault_that_was_put_in(run_cli, tmp_path):
    folder = REAL / "kitti_de/depth"
    _need(folder)
    (tmp_path / "pred").mkdir()
    for path in sorted(folder.glob("*.png")):
        depth = np.asarray(Image.open(path)).astype(np.float32) / 256
        np.save(tmp_path / "pred" / path.stem, depth * np.float32(1.1) + (depth == 0))
    done = run_cli(
        "eval", "pred", "--gt", folder, "--protocol", "full-frame", "--protocol", "kitti-eigen",
        "--protocol", "kitti-official", "-o", "r.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = {r["protocol"]["name"]: r for r in json.loads((tmp_path / "r.json").read_text())["results"]}
    assert results["full-frame"]["counts"]["evaluated"] == 26
    summary = results["full-frame"]["summary"]
    assert summary["abs_rel"] == pytest.approx(0.1, abs=1e-6)
    assert summary["silog"] == pytest.approx(0, abs=1e-3)
    assert summary["d1"] == 1
    assert summary["log10"] == pytest.approx(np.log10(1.1), abs=1e-6)
    assert results["kitti-eigen"]["summary"]["abs_rel"] == pytest.approx(0.1, abs=1e-3)  # 80 m clamp
    assert results["kitti-eigen"]["regions"]["all"]["n_pixels"] < results["full-frame"]["regions"]["all"]["n_pixels"]
    official = results["kitti-official"]["per_image"]
    assert max(official["silog_f64"]) < 1e-3
    assert max(official["silog"]) < 1.5  # the devkit sums in float32


def test_a_real_scan_projects_to_the_reference_map_and_can_be_scored(run_cli, tmp_path):
    folder, golden = REAL / "kitti_000008", SHARED / "golden/velodyne/real_kitti_000008.npz"
    _need(folder, golden)
    done = run_cli("data", "pack", "--gt", "raw", "--scan", folder / "velodyne.bin", "-o", "truth.npy")
    assert done.returncode == 0, done.stderr
    truth = np.load(tmp_path / "truth.npy")
    want = np.load(golden)
    height, width = want["shape"]
    flat = np.zeros(height * width, np.float32)
    flat[want["cam2_veldepth_index"]] = want["cam2_veldepth_depth"]
    np.testing.assert_array_equal(truth, flat.reshape(height, width))
    rng = np.random.default_rng(0)
    pred = np.where(truth > 0, truth, 10) * np.exp(rng.normal(0, 0.1, truth.shape))
    np.save(tmp_path / "pred.npy", pred.astype(np.float32))
    done = run_cli("eval", "pred.npy", "--gt", "truth.npy", "--protocol", "kitti-eigen-raw", "-o", "r.json")
    assert done.returncode == 0, done.stderr
    _, row = _row(tmp_path / "r.json")
    inside = np.zeros(truth.shape, bool)
    rows = (int(0.40810811 * height), int(0.99189189 * height))
    columns = (int(0.03594771 * width), int(0.96405229 * width))
    inside[slice(*rows), slice(*columns)] = True
    valid = inside & (truth > 1e-3) & (truth < 80)
    g, p = truth[valid].astype(np.float64), pred.astype(np.float32)[valid].astype(np.float64)
    p = np.clip(p * np.median(g) / np.median(p), 1e-3, 80)
    assert row["n_pixels"] == valid.sum()
    assert row["abs_rel"] == pytest.approx(np.mean(np.abs(p - g) / g), rel=1e-6)
    assert row["rmse"] == pytest.approx(np.sqrt(np.mean((p - g) ** 2)), rel=1e-6)
