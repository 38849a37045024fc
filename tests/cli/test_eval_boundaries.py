"""`adubench eval --boundary-metrics` as a user runs it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import assert_one_sentence
from tests.evaluators.boundary_cases import CASES, NAMES, WANT, maps

DATA = Path(__file__).resolve().parents[1] / "data" / "regions"
EXPECTED = json.loads((DATA / "expected.json").read_text())


def _load(path):
    return json.loads(path.read_text())


def _write(folder, name):
    with np.load(DATA / "cases.npz") as arrays:
        case = {key.split("/")[1]: arrays[key] for key in arrays.files if key.startswith(name + "/")}
    for kind in ("gt", "pred"):
        (folder / kind).mkdir(exist_ok=True)
        np.save(folder / kind / f"{name}.npy", case[kind])
    (folder / "labels").mkdir(exist_ok=True)
    Image.fromarray(case["labels"]).save(folder / "labels" / f"{name}.png")
    return case


@pytest.mark.parametrize("name", EXPECTED["cases"])
def test_golden_sparse_boundary_f1(run_cli, tmp_path, name):
    _write(tmp_path, name)
    want = EXPECTED["cases"][name]
    kappa = "none" if want["sbf1_kappa"] is None else want["sbf1_kappa"]
    done = run_cli(
        "eval", "pred", "--gt", "gt", "--boundary-metrics=sbf1", "--edge-kappa", kappa, "--edge-preset", want["mode"],
        "-o", "r.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = _load(tmp_path / "r.json")
    assert result["per_image"]["sbf1"][0] == pytest.approx(want["sbf1_micro"], rel=1e-9)
    assert result["boundaries"]["scores"]["sbf1"] == pytest.approx(want["sbf1_micro"], rel=1e-9)
    assert result["boundaries"]["gaps"] == [want["gap_x"], want["gap_y"]]


def test_golden_scores_of_the_references(run_cli, tmp_path):
    """DBE in both forms, Depth Pro's F1 and recall, MoGe's F1: the programs' own values, quirks included."""
    for name in NAMES:
        for kind, values in zip(("gt", "pred"), maps(name), strict=True):
            (tmp_path / kind).mkdir(exist_ok=True)
            np.save(tmp_path / kind / f"{name}.npy", values)
        (tmp_path / "labels").mkdir(exist_ok=True)
        # Things are cars, the rest is road.
        labels = np.where(CASES[f"{name}/mask"] > 0, 13, 0).astype(np.uint8)
        Image.fromarray(labels).save(tmp_path / "labels" / f"{name}.png")
    done = run_cli(
        "eval", "pred", "--gt", "gt", "--boundary-metrics=dbe,dbe-ibims,depthpro,moge,recall", "--semantic", "labels",
        "--edge-preset", "dense", "--reference-quirks", "-o", "r.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    columns = _load(tmp_path / "r.json")["per_image"]
    for at, name in enumerate(columns["frame"]):
        want = WANT[name]
        expected = {
            "dbe_acc": want["ibims"]["EdgeAcc"],
            "dbe_comp": want["ibims"]["EdgeComp"],
            "dbe_ibims_acc": want["ibims_original_protocol"]["dbe_acc"],
            "dbe_ibims_comp": want["ibims_original_protocol"]["dbe_com"],
            "f1_depthpro": want["depthpro_f1_zeros"]["10"],
            "recall_depthpro": want["depthpro_recall_mask"]["10"],
        } | {f"f1_moge_r{r}": value for r, value in want["moge_f1"].items()}
        for key, value in expected.items():
            if key in columns:
                assert columns[key][at] == pytest.approx(value, abs=1e-6), (name, key)
    assert set(expected) <= columns.keys()


@pytest.mark.parametrize("name", ["dense_blur", "odd_size"])
def test_golden_point_clouds(run_cli, tmp_path, name):
    for kind, values in zip(("gt", "pred"), maps(name), strict=True):
        np.save(tmp_path / f"{kind}.npy", values)
    K = CASES[f"{name}/K"].astype(float)
    camera = ",".join(repr(float(K[at])) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
    arguments = ("eval", "pred.npy", "--gt", "gt.npy", "--boundary-metrics=fscore", "--intrinsics", camera)
    done = run_cli(*arguments, "-o", "r.json")
    assert done.returncode == 0, done.stderr
    scores, want = _load(tmp_path / "r.json")["boundaries"]["scores"], WANT[name]["pointcloud_monodepth_benchmark"]
    for key, title in (("fscore", "F-Score"), ("iou", "IoU"), ("chamfer", "Chamfer")):
        assert scores[key] == pytest.approx(want[title], rel=1e-4), key


def test_all_scores_of_dense_truth(run_cli, tmp_path):
    case = _write(tmp_path, "dense_a")
    K = case["K"]
    camera = ",".join(repr(float(K[at])) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
    common = ("eval", "pred", "--gt", "gt")
    done = run_cli(
        *common, "--boundary-metrics=all", "--semantic", "labels", "--intrinsics", camera, "--regions", "--workers", 2,
        "-o", "r.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = _load(tmp_path / "r.json")
    scores = result["boundaries"]["scores"]
    wanted = {"dbe_acc", "dbe_comp", "dbe_dir", "dbe_ibims_acc", "f1_depthpro", "f1_self", "f1_moge_r1", "sbf1"}
    assert wanted | {"recall_depthpro", "fscore"} <= scores.keys()
    assert result["per_image"]["dbe_acc"] == [scores["dbe_acc"]]
    assert "ground" in result["regions"]
    assert "sparse boundary F1" in done.stdout
    assert run_cli(*common, "-o", "plain.json").returncode == 0
    plain = _load(tmp_path / "plain.json")["summary"]
    assert {key: result["summary"][key] for key in plain} == plain
    # The truth as prediction is perfect.
    np.save(tmp_path / "pred" / "dense_a.npy", np.where(case["gt"] > 0, case["gt"], 1000))
    assert run_cli(*common, "--boundary-metrics", "-o", "best.json").returncode == 0
    assert _load(tmp_path / "best.json")["boundaries"]["scores"]["sbf1"] == 1.0


def test_alignment_reaches_the_whole_map(run_cli, tmp_path):
    case = _write(tmp_path, "dense_a")
    common = ("eval", "pred", "--gt", "gt", "--alignment", "median", "--boundary-metrics=dbe,depthpro")
    assert run_cli(*common, "-o", "a.json").returncode == 0
    np.save(tmp_path / "pred" / "dense_a.npy", case["pred"] * np.float32(4))
    assert run_cli(*common, "-o", "b.json").returncode == 0
    a, b = (_load(tmp_path / f"{k}.json")["boundaries"]["scores"] for k in "ab")
    assert a == pytest.approx(b, rel=1e-6)


def test_bad_input_is_one_sentence(run_cli, tmp_path):
    _write(tmp_path, "improved_c")
    common = ("eval", "pred", "--gt", "gt")
    assert_one_sentence(run_cli(*common, "--boundary-metrics=sbf"), 2, "sbf1")
    assert_one_sentence(run_cli(*common, "--boundary-metrics=external"), 2, "--ext-edges")
    assert_one_sentence(run_cli(*common, "--boundary-metrics=recall"), 2, "--semantic")
    assert_one_sentence(run_cli(*common, "--reference-quirks"), 2, "--boundary-metrics")
    assert_one_sentence(run_cli(*common, "--boundary-metrics", "--edge-preset", "thick"), 2, "thick")
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(tmp_path / "labels" / "improved_c.png")
    done = run_cli(*common, "--boundary-metrics=recall", "--semantic", "labels")
    assert_one_sentence(done, 1, "improved_c", "5x5")
    (tmp_path / "edges").mkdir()
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(tmp_path / "edges" / "improved_c.png")
    done = run_cli(*common, "--boundary-metrics=external", "--ext-edges", "edges")
    assert_one_sentence(done, 1, "improved_c")
    done = run_cli(*common, "--boundary-metrics=fscore,dbe")
    assert done.returncode == 0
    assert "needs intrinsics" in done.stderr
    assert "made for dense ground truth" in done.stderr
