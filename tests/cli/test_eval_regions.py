"""`adubench eval --regions` as a user runs it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adubench.io.depth_png import read_depth_map
from adubench.io.maps import SparseDepth
from adubench.io.packed import PackWriter
from tests.conftest import assert_one_sentence

DATA = Path(__file__).resolve().parents[1] / "data" / "regions"
EXPECTED = json.loads((DATA / "expected.json").read_text())
FAMILIES = "depth,edge,side,light,texture,repeat,imgedge,semedge,horizon,sky,ground"


def _load(path):
    return json.loads(path.read_text())


def _case(folder, name):
    """Write one golden case as the files that a user has."""
    with np.load(DATA / "cases.npz") as arrays:
        case = {key.split("/")[1]: arrays[key] for key in arrays.files if key.startswith(name + "/")}
    for kind in ("gt", "pred", "rgb", "labels"):
        (folder / kind / "drive").mkdir(parents=True, exist_ok=True)
    np.save(folder / "gt" / "drive" / f"{name}.npy", case["gt"])
    np.save(folder / "pred" / "drive" / f"{name}.npy", case["pred"])
    Image.fromarray(case["rgb"]).save(folder / "rgb" / "drive" / f"{name}.png")
    Image.fromarray(case["labels"]).save(folder / "labels" / "drive" / f"{name}.png")
    return case


def _arguments(case, name):
    K = case["K"]
    camera = ",".join(repr(float(K[at])) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return (
        "eval", "pred", "--gt", "gt", "--max-depth", 80, f"--regions={FAMILIES}", "--images", "rgb",
        "--semantic", "labels", "--intrinsics", camera,
        "--edge-preset", EXPECTED["cases"][name]["mode"], "-o", "r.json",
    )  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED["cases"])
def test_golden_moments_through_the_command_line(run_cli, tmp_path, name):
    case = _case(tmp_path, name)
    done = run_cli(*_arguments(case, name))
    assert done.returncode == 0, done.stderr
    result, table = _load(tmp_path / "r.json"), np.load(tmp_path / "r.npz")
    rows = dict(zip(table["0_regions"], table["0_values"][0], strict=True))
    for region, moments in zip(EXPECTED["region_order"], case["moments"], strict=True):
        if region in rows:  # families without a mask in the only image have no row
            np.testing.assert_allclose(rows[region], moments, rtol=1e-9, atol=1e-12, err_msg=region)
            entry = result["regions"][region]
            assert entry["n_pixels"] == moments[0]
            assert region == "all" or entry["too_few"] == (moments[0] < 500)  # one image is all there is
        else:
            assert moments[0] == 0, region
    assert sum(result["regions"][f"depth{k}"]["share"] for k in range(4)) == pytest.approx(1)


@pytest.fixture
def scenes(pairs, tmp_path):
    """Forty-by-sixty frames with images, more than a cache needs."""

    def make(n=34):
        pred, gt = pairs(n=n, drives=2)
        rng = np.random.default_rng(1)
        for path in gt.rglob("*.png"):
            target = tmp_path / "rgb" / path.relative_to(gt)
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(target)
        return pred, gt

    return make


def test_summary_is_identical_with_and_without_regions(run_cli, scenes, tmp_path):
    pred, gt = scenes()
    for protocol in ("full-frame", "kitti-eigen-raw"):
        common = ("eval", pred, "--gt", gt, "--protocol", protocol)
        plain = run_cli(*common, "-o", "a.json")
        assert plain.returncode == 0, plain.stderr
        done = run_cli(*common, "--regions", "--images", "rgb", "--workers", 2, "-o", "b.json")
        assert done.returncode == 0, done.stderr
        a, b = _load(tmp_path / "a.json"), _load(tmp_path / "b.json")
        for key in ("summary", "aggregates", "per_image", "counts", "protocol"):
            assert a[key] == b[key]
        assert a["regions"]["all"] == b["regions"]["all"]
        tables = [np.load(tmp_path / f"{k}.npz") for k in "ab"]
        assert tables[1]["0_regions"][0] == "all"
        np.testing.assert_array_equal(tables[0]["0_values"][:, 0], tables[1]["0_values"][:, 0])
        # Bins add up to the whole image.
        names, values = list(tables[1]["0_regions"]), tables[1]["0_values"]
        for stem in ("depth", "edge", "light", "texture"):
            bins = [k for k, name in enumerate(names) if name.rstrip("0123456789") == stem]
            np.testing.assert_allclose(values[:, bins].sum(axis=1), values[:, 0], rtol=1e-9, atol=1e-9)


def test_cache_workers_and_packs_change_nothing(run_cli, scenes, tmp_path):
    pred, gt = scenes()
    with PackWriter(tmp_path / "gt.h5", "ground_truth") as writer:
        for path in sorted(gt.rglob("*.png")):
            name = path.relative_to(gt).with_suffix("").as_posix()
            writer.add(name, SparseDepth.from_map(read_depth_map(path)))
    runs = {
        "plain": (gt, "--cache", "off"),
        "first": (gt, "--cache-regions", "masks", "--workers", 2),
        "again": (gt, "--cache-regions", "masks"),
        "pack": ("gt.h5", "--workers", 2),
    }
    tables = {}
    for name, (truth, *more) in runs.items():
        done = run_cli("eval", pred, "--gt", truth, "--regions", "--images", "rgb", *more, "-o", f"{name}.json")
        assert done.returncode == 0, done.stderr
        tables[name] = np.load(tmp_path / f"{name}.npz")["0_values"]
        regions = _load(tmp_path / f"{name}.json")["regions"]
        assert regions == _load(tmp_path / "plain.json")["regions"]
    for values in tables.values():
        np.testing.assert_array_equal(values, tables["plain"])
    assert len(list((tmp_path / "masks").iterdir())) == 1


def test_parameters_tables_and_missing_inputs(run_cli, scenes, tmp_path):
    pred, gt = scenes(n=12)
    done = run_cli(
        "eval", pred, "--gt", gt, "--regions=depth,edge,light,ground", "--depth-bins", "0,10,30,inf",
        "--edge-bands", "0,3", "--edge-preset", "raw", "--cross", "depth,edge", "--region-min-px", 200,
        "--drop-seethrough", "-o", "r.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = _load(tmp_path / "r.json")
    assert list(result["regions"]) == [
        "all", "depth0", "depth1", "depth2", "edge0", "edge1", "boundary", "interior", "seethrough",
        *(f"depth{i}_edge{k}" for i in range(3) for k in range(2)),
    ]  # fmt: skip
    parameters = result["region_parameters"]
    assert parameters["bounds"]["depth2"] == [30, "inf"]
    assert parameters["edge_gap"] == [5, 0]
    assert parameters["drop_seethrough"] is True
    assert len(parameters["digest"]) == 16
    assert "ground: no intrinsics in 12 of 12 images" in done.stderr
    assert "light: no image in 12 of 12 images" in done.stderr
    assert "depth1 [10,30) m" in done.stdout
    entry = result["regions"]["edge0"]
    assert {"n_pixels", "n_images", "share", "image_mean", "abs_rel", "log_bias", "d1"} <= entry.keys()
    assert result["provenance"]["regions"]["least_per_image"] == 200
    table = np.load(tmp_path / "r.npz")
    assert json.loads(str(table["0_parameters"]))["digest"] == parameters["digest"]


def test_compare_by_region_and_refuse_other_parameters(run_cli, scenes, tmp_path):
    pred, gt = scenes(n=12)
    other = tmp_path / "other"
    for path in pred.rglob("*.png"):
        target = other / path.relative_to(pred)
        target.parent.mkdir(parents=True, exist_ok=True)
        values = np.asarray(Image.open(path)) * 1.02
        Image.fromarray(values.astype(np.uint16)).save(target)
    for name, source, more in (("a", pred, ()), ("b", other, ()), ("c", other, ("--edge-t", 0.2))):
        done = run_cli("eval", source, "--gt", gt, "--regions=depth,edge", *more, "-o", f"{name}.json")
        assert done.returncode == 0, done.stderr
    assert run_cli("eval", other, "--gt", gt, "-o", "plain.json").returncode == 0
    done = run_cli("compare", "b.json", "a.json", "--baseline", "a.json", "--format", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["comparisons"][0]["regions"]
    assert {"all", "depth0", "depth3", "edge0", "boundary"} <= found.keys()
    assert {"delta", "ci", "p", "p_holm", "n_clusters", "deff"} <= found["edge0"]["abs_rel"].keys()
    assert run_cli("compare", "plain.json", "a.json").returncode == 0
    assert_one_sentence(run_cli("compare", "c.json", "a.json"), 1, "region parameters")


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        (("--regions=fog",), 2, ("fog",)),
        (("--regions", "--depth-bins", "3,1"), 2, ("--depth-bins",)),
        (("--regions", "--cross", "depth"), 2, ("--cross",)),
        (("--regions=depth", "--cross", "depth,edge"), 2, ("edge", "--regions")),
        (("--regions", "--images", "nowhere"), 1, ("nowhere",)),
        (("--regions", "--images", "strange"), 1, ("belongs to a frame",)),
        (("--regions", "--images", "broken"), 1, ("drive_0/0000",)),
        (("--regions=sky", "--semantic", "labels"), 1, ("77", "drive_0/0000")),
        (("--regions", "--intrinsics", "1,2"), 2, ("--intrinsics",)),
        (("--regions", "--region-min-px", "0"), 2, ("--region-min-px",)),
        (("--depth-bins", "0,10,20"), 2, ("--regions",)),
    ],
)
def test_bad_input_is_one_sentence(run_cli, pairs, tmp_path, more, status, words):
    pred, gt = pairs(n=2)
    for folder, name, array in (
        ("strange", "x", np.zeros((40, 60, 3), np.uint8)),
        ("labels", "drive_0/0000", np.full((40, 60), 77, np.uint8)),
    ):
        path = tmp_path / folder / f"{name}.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(array).save(path)
    (tmp_path / "broken" / "drive_0").mkdir(parents=True)
    (tmp_path / "broken" / "drive_0" / "0000.png").write_bytes(b"no picture")
    assert_one_sentence(run_cli("eval", pred, "--gt", gt, *more), status, *words)


def test_a_split_finds_images_and_calibration_itself(run_cli, tmp_path):
    done = run_cli("data", "synth", "data", "--drives", 3, "--frames", 12, "--size", "64x160")
    assert done.returncode == 0, done.stderr
    root = tmp_path / "data"
    for path in root.glob("*/*/proj_depth/groundtruth/image_02/*.png"):
        target = tmp_path / "pred" / path.parts[-5] / "image_02" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        codes = np.asarray(Image.open(path)).astype(np.uint16)
        Image.fromarray(np.where(codes > 0, codes, 2560).astype(np.uint16)).save(target)
    done = run_cli(
        "eval",
        "pred",
        "--split",
        "synthdrive",
        "--data-root",
        root,
        "--regions",
        "--save-masks",
        "masks",
        "-o",
        "r.json",
    )
    assert done.returncode == 0, done.stderr
    regions = _load(tmp_path / "r.json")["regions"]
    assert {"light1", "texture0", "repeated", "ground", "obstacle"} <= regions.keys()
    assert regions["ground"]["n_pixels"] > 0
    frame = _load(tmp_path / "r.json")["per_image"]["frame"][0]
    assert Image.open(tmp_path / "masks" / "ground" / f"{frame}.png").size == (160, 64)
