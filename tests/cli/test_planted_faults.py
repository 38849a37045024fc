"""Real frames with a known fault: it shows in the region it was put into, and nowhere else."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adubench.evaluators.canny import distance_to
from adubench.evaluators.depth_edges import depth_edges
from adubench.evaluators.image_regions import lightness, texture
from adubench.io.maps import DepthMap, SparseDepth

REAL = Path(__file__).resolve().parents[3] / "shared" / "real"


def _regions(path):
    return json.loads(path.read_text())["regions"]


def _need(*paths):
    for path in paths:
        if not path.exists():
            pytest.skip(f"{path.name}: the real frames are not here")


def _frame(name):
    folder = REAL / "kitti_de"
    depth = np.asarray(Image.open(folder / "depth" / name)).astype(np.float32) / np.float32(256)
    image = np.asarray(Image.open(folder / "rgb" / name).convert("RGB"))
    drawn = np.asarray(Image.open(folder / "gt" / name)) != 0
    return depth, image, drawn


def _near_side(depth):
    edges = depth_edges(SparseDepth.from_map(DepthMap(depth)), (5, 5), 0.1, 0.5)
    out = np.zeros(depth.shape, bool)
    out.reshape(-1)[edges.index[edges.near & ~edges.far]] = True
    return out


# Fault -> where it is put, the regions that see it, and the families whose other regions must not.
FAULTS = {
    "far": (lambda d, i, e: d >= 40, ("depth2", "depth3"), ("depth",)),
    "dark": (lambda d, i, e: lightness(i) < 15, ("light0",), ("light",)),
    "drawn edges": (lambda d, i, e: distance_to(e) < 2, ("extedge0",), ("extedge",)),
    "near side": (lambda d, i, e: _near_side(d), ("edge_fg", "edge0", "boundary"), ("edge", "side")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_all_frames_of_kitti_with_drawn_edges(run_cli, tmp_path, fault):
    folder = REAL / "kitti_de"
    _need(folder)
    where, seen, families = FAULTS[fault]
    (tmp_path / "pred").mkdir()
    for path in sorted((folder / "depth").glob("*.png")):
        depth, image, drawn = _frame(path.name)
        pred = np.where(depth > 0, depth, np.float32(10))
        pred[where(depth, image, drawn)] *= np.float32(1.3)
        np.save(tmp_path / "pred" / path.stem, pred)
    done = run_cli(
        "eval", "pred", "--gt", folder / "depth", f"--regions={','.join(families)}", "--images", folder / "rgb",
        "--ext-edges", folder / "gt", "--edge-preset", "improved", "--max-depth", 90, "-o", "r.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    regions = _regions(tmp_path / "r.json")
    assert regions["all"]["n_images"] == 26
    for name, entry in regions.items():
        if name == "all" or entry["n_pixels"] == 0:
            continue
        if name in ("edge0", "boundary"):
            assert entry["abs_rel"] > 0.01, name  # the near side is a part of the band
        elif name in seen:
            assert entry["abs_rel"] == pytest.approx(0.3, abs=1e-6), name
            assert entry["log_bias"] == pytest.approx(np.log(1.3), abs=1e-6), name
        elif name == "depth4" and fault == "far":  # beyond the bins
            assert entry["abs_rel"] == pytest.approx(0.3, abs=1e-6)
        elif name != "seethrough":
            assert entry["abs_rel"] == 0, name


@pytest.mark.parametrize("fault", ["plain", "edge"])
def test_a_real_prediction_of_a_dense_frame(run_cli, tmp_path, fault):
    folder = REAL / "sintel_temple_2"
    _need(folder)
    gt = np.nan_to_num(np.load(folder / "gt_depth.npz")["depth"])
    pred = np.load(folder / "depthpro_gt_focal.npz")["depth"]
    image = np.asarray(Image.open(folder / "rgb.png").convert("RGB"))
    if fault == "plain":
        where, seen = texture(image) < 0.01, {"texture0"}
    else:
        edges = depth_edges(SparseDepth.from_map(DepthMap(gt)), (1, 1), 0.1, 0.5)
        mask = np.zeros(gt.shape, bool)
        mask.reshape(-1)[edges.index[edges.near | edges.far]] = True
        where, seen = distance_to(mask) < 2, {"edge0", "boundary"}
    for name, values in (("gt", gt), ("good", pred), ("bad", np.where(where, pred * np.float32(1.5), pred))):
        np.save(tmp_path / f"{name}.npy", values)
    Image.fromarray(image).save(tmp_path / "rgb.png")
    found = []
    for name in ("good", "bad"):
        done = run_cli(
            "eval", f"{name}.npy", "--gt", "gt.npy", "--regions=edge,texture", "--edge-preset", "dense",
            "--images", "rgb.png", "-o", f"{name}.json",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.append(_regions(tmp_path / f"{name}.json"))
    families = ("edge", "boundary", "interior") if fault == "edge" else ("texture",)
    for name in found[0]:
        if name.startswith(families) and found[0][name]["n_pixels"]:
            assert (found[0][name]["abs_rel"] != found[1][name]["abs_rel"]) == (name in seen), name
            assert found[0][name]["n_pixels"] == found[1][name]["n_pixels"]
