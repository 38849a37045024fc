"""Rows beside the regions: by predicted distance, by groups of images, intervals, both aggregations, the list."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from adubench.evaluators.region_intervals import region_intervals
from tests.conftest import assert_one_sentence


def _load(path):
    return json.loads(path.read_text())


def _scaled(pred, target, factor):
    for path in pred.rglob("*.png"):
        file = target / path.relative_to(pred)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((np.asarray(Image.open(path)) * factor).astype(np.uint16)).save(file)


def test_only_the_rows_by_predicted_distance_depend_on_the_prediction(run_cli, pairs, tmp_path):
    pred, gt = pairs(n=12, drives=3)
    _scaled(pred, tmp_path / "near", 0.5)
    for name, source in (("a", pred), ("b", tmp_path / "near")):
        done = run_cli("eval", source, "--gt", gt, "--regions=depth,edge", "--bin-by", "pred", "-o", f"{name}.json")
        assert done.returncode == 0, done.stderr
        assert "the model's own pixels" in done.stdout
    a, b = (_load(tmp_path / f"{k}.json") for k in "ab")
    sizes = [{n: r["regions"][n]["n_pixels"] for n in r["regions"]} for r in (a, b)]
    for name in sizes[0].keys() & sizes[1].keys():
        if not name.startswith("pred_"):
            assert sizes[0][name] == sizes[1][name], name
    assert sizes[0]["pred_depth0"] < sizes[1]["pred_depth0"]
    for found in sizes:
        assert sum(n for name, n in found.items() if name.startswith("pred_")) == found["all"]
    # They are no columns of a comparison: neither stored with the sums nor compared.
    assert not any(name.startswith("pred") for name in np.load(tmp_path / "a.npz")["0_regions"])
    done = run_cli("compare", "a.json", "b.json", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert not any(name.startswith("pred") for name in json.loads(done.stdout)["comparisons"][0]["regions"])


def test_groups_of_images(run_cli, pairs, tmp_path):
    pred, gt = pairs(n=12, drives=3)
    common = ("eval", pred, "--gt", gt, "--regions=depth")
    assert run_cli(*common, "--group-by", "drive", "-o", "r.json").returncode == 0
    result = _load(tmp_path / "r.json")
    groups, table = result["regions"]["all"]["groups"], result["per_image"]
    assert list(groups) == sorted(set(table["drive"]))
    for name, entry in groups.items():
        rows = [v for v, d in zip(table["abs_rel"], table["drive"], strict=True) if d == name]
        assert entry["abs_rel"] == pytest.approx(np.mean(rows), rel=1e-12)
        assert entry["n_images"] == len(rows)
    far = result["regions"]["depth3"]["groups"]
    assert sum(entry["n_pixels"] for entry in far.values()) == result["regions"]["depth3"]["n_pixels"]
    lines = [f"{frame},{'fog' if i % 2 else 'sun'}" for i, frame in enumerate(table["frame"][:-1])]
    (tmp_path / "weather.csv").write_text("image,group\n" + "\n".join(lines))
    done = run_cli(*common, "--group-by", "weather.csv", "-o", "w.json")
    assert done.returncode == 0, done.stderr
    assert list(_load(tmp_path / "w.json")["regions"]["all"]["groups"]) == ["fog", "sun"]
    assert "1 of 12 images are in no group" in done.stderr
    (tmp_path / "weather.csv").write_text("elsewhere,fog\n")
    assert_one_sentence(run_cli(*common, "--group-by", "weather.csv"), 1, "none of the 12 images")
    assert_one_sentence(run_cli(*common, "--group-by", "nowhere.csv"), 1, "nowhere.csv")
    assert_one_sentence(run_cli(*common, "--group-by", "light"), 2, "--regions")
    for option in (("--group-by", "drive"), ("--bin-by", "pred"), ("--region-agg", "both")):
        assert_one_sentence(run_cli("eval", pred, "--gt", gt, *option), 2, "--regions")


def test_aggregations_intervals_and_coverage_in_tables(run_cli, pairs, tmp_path):
    pred, gt = pairs(n=12, drives=3)
    shown = {}
    for how in ("pooled", "image-mean", "both"):
        done = run_cli("eval", pred, "--gt", gt, "--regions=depth,edge", "--region-agg", how, "-o", f"{how}.json")
        assert done.returncode == 0, done.stderr
        shown[how] = done.stdout
    files = [_load(tmp_path / f"{how}.json") for how in shown]
    assert files[0]["regions"] == files[1]["regions"] == files[2]["regions"]
    entry = files[0]["regions"]["depth1"]
    assert f"{entry['abs_rel']:.3f}" in shown["pooled"]
    low, high = entry["intervals"]["abs_rel"]
    assert low <= entry["abs_rel"] <= high
    assert f"[{low:.3f}, {high:.3f}]" in shown["pooled"]
    low, high = entry["image_mean_intervals"]["abs_rel"]
    assert low <= entry["image_mean"]["abs_rel"] <= high
    assert f"[{low:.3f}, {high:.3f}]" in shown["image-mean"]
    assert "mean over images" in shown["both"]
    assert 0 < files[0]["regions"]["edge0"]["gt_share"] <= 1
    assert "with GT" in shown["pooled"]


def test_intervals_resample_drives():
    rng = np.random.default_rng(0)
    values = rng.uniform(1, 2, (12, 3, 15))
    values[:, 0, 0] = 100
    values[:, 1, 0] = 100
    values[:, 2] = 0
    drives = [f"d{i // 3}" for i in range(12)]
    found = region_intervals(values, ("all", "depth0", "depth1"), drives, 50)
    # Four equal drives: a drive's mean is the smallest and largest that a draw can have.
    means = (values[:, 1, 3] / values[:, 1, 0]).reshape(4, 3).mean(axis=1)
    low, high = found["depth0"]["intervals"]["abs_rel"]
    assert means.min() <= low < values[:, 1, 3].mean() / 100 < high <= means.max()
    assert all(math.isnan(v) for v in found["depth1"]["intervals"]["abs_rel"])  # empty everywhere
    alone = region_intervals(values, ("all", "depth0", "depth1"), ["d"] * 12, 50)
    assert all(math.isnan(v) for v in alone["depth0"]["intervals"]["rmse"])  # one drive has no interval


def test_list_of_regions(run_cli):
    done = run_cli("list", "regions", "--json")
    assert done.returncode == 0, done.stderr
    known = {entry["name"]: entry for entry in json.loads(done.stdout)}
    assert known["depth3"]["bounds"] == [60, 80]
    assert known["edge3"]["bounds"] == [10, None]
    assert known["light0"]["needs"] == "image"
    assert known["ground"]["needs"] == "intrinsics"
    assert known["repeated"]["default"]
    assert not known["extedge0"]["default"]
    assert all(entry["definition"] for entry in known.values())
    assert "light0" in run_cli("list", "regions").stdout
