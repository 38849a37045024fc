"""`--split eigen` and `--split official` on trees of KITTI's shape: real names, real sizes, few distinct files."""

import json
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from adubench.datasets.splits import load_split
from tests import reference
from tests.conftest import assert_one_sentence

SIZES = {
    "2011_09_26": (375, 1242), "2011_09_28": (370, 1224), "2011_09_29": (374, 1238), "2011_09_30": (370, 1226),
    "2011_10_03": (376, 1241),
}  # fmt: skip
FX = 721.0


def _maps(date, shape):
    """Truth with 3,000 points, and a prediction that is smooth, so that its file is small."""
    rng = np.random.default_rng(int(date[-2:]) + shape[0])
    rows = np.broadcast_to(np.linspace(70, 4, shape[0])[:, None], shape)
    truth = np.zeros(shape)
    chosen = rng.random(shape) < 3000 / truth.size
    truth[chosen] = rows[chosen] * np.exp(rng.normal(0, 0.1, chosen.sum()))
    return np.rint(truth * 256).astype(np.uint16), np.rint(rows * 1.03 * 256).astype(np.uint16)


def _link(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    os.link(source, target)


@pytest.fixture(scope="module")
def eigen():
    """The 697 frames, in order."""
    return load_split("eigen")


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """One truth and one prediction per date, to be linked."""
    root = tmp_path_factory.mktemp("stock")
    for date, shape in SIZES.items():
        truth, pred = _maps(date, shape)
        Image.fromarray(truth).save(root / f"gt_{date}.png")
        Image.fromarray(pred).save(root / f"pred_{date}.png", compress_level=9)
    return root


@pytest.fixture(scope="module")
def wanted(stock):
    """Date -> metrics under kitti-eigen, by the plain evaluation."""
    read = lambda name: np.asarray(Image.open(stock / name)).astype(np.float32) / 256  # noqa: E731
    return {d: reference.evaluate("kitti-eigen", read(f"gt_{d}.png"), read(f"pred_{d}.png")) for d in SIZES}


def _truth_tree(root, eigen, stock, layout):
    val = set(load_split("kitti_official.val").drives)
    for frame in eigen.frames:
        if frame in eigen.no_gt:
            continue
        folder = {
            "A": f"{'val' if frame.drive in val else 'train'}/{frame.drive}_sync",
            "B": f"{frame.drive}_sync",
            "C": f"{frame.date}/{frame.drive}_sync",
        }[layout]
        _link(
            stock / f"gt_{frame.date}.png",
            root / folder / f"proj_depth/groundtruth/image_02/{frame.index:010d}.png",
        )
    return root


NAMES = {
    "relative": lambda f: f"{f.drive}_sync/image_02/{f.index:010d}",
    "flat": lambda f: f"{f.drive}_sync_{f.index:010d}",
    "flat without sync": lambda f: f"{f.drive}_{f.index:010d}",
    "tie-kd": lambda f: f"{f.date}_{f.drive}_sync_image_02_data_{f.index:010d}",
}


def _predictions(root, eigen, stock, naming="relative", *, scored_only=False):
    for frame in eigen.frames:
        if not (scored_only and frame in eigen.no_gt):
            _link(stock / f"pred_{frame.date}.png", root / f"{NAMES[naming](frame)}.png")
    return root


def _result(path):
    return json.loads(path.read_text())


def _agrees(result, eigen, wanted):
    columns = result["per_image"]
    frames = [f for f in eigen.frames if f not in eigen.no_gt]
    assert columns["frame"] == [f.name for f in frames]
    for key in ("n_pixels", "abs_rel", "rmse", "silog", "d1", "irmse"):
        np.testing.assert_allclose(columns[key], [wanted[f.date][key] for f in frames], rtol=2e-6, atol=2e-5)
        if key != "n_pixels":
            mean = np.mean([wanted[f.date][key] for f in frames])
            assert result["summary"][key] == pytest.approx(mean, rel=2e-6, abs=2e-5)


@pytest.mark.parametrize(
    ("layout", "naming", "container"),
    [("A", "relative", "folder"), ("B", "flat", "zip"), ("C", "tie-kd", "folder")],
)
def test_652_of_697_in_every_layout(run_cli, tmp_path, eigen, stock, wanted, layout, naming, container):
    root = _truth_tree(tmp_path / "my kitti ü", eigen, stock, layout)
    pred = _predictions(tmp_path / "pred", eigen, stock, naming)
    if container == "zip":
        with zipfile.ZipFile(tmp_path / "pred.zip", "w") as archive:
            for path in sorted(pred.rglob("*.png")):
                archive.write(path, path.relative_to(pred).as_posix())
        pred = tmp_path / "pred.zip"
    (tmp_path / "link").symlink_to(root)
    done = run_cli("eval", pred, "--split", "eigen", "-o", "r.json", env={"ADUBENCH_DATA_ROOT": str(tmp_path / "link")})
    assert done.returncode == 0, done.stderr
    assert "images 652/652" in done.stdout
    assert "kitti-eigen v1" in done.stdout
    result = _result(tmp_path / "r.json")
    assert result["counts"]["expected"] == result["counts"]["evaluated"] == 652
    assert result["split"] == "eigen_test"
    assert not result["warnings"]
    assert not result["issues"].get("unknown_prediction")
    _agrees(result, eigen, wanted)


def test_a_wrong_number_of_images_is_an_error_or_partial(run_cli, tmp_path, eigen, stock):
    root = _truth_tree(tmp_path / "kitti", eigen, stock, "A")
    pred = _predictions(tmp_path / "pred", eigen, stock, "flat without sync", scored_only=True)
    arguments = ("eval", pred, "--split", "eigen", "--data-root", root, "-o", "r.json", "--cache", "off")
    victim = next(f for f in eigen.frames if f not in eigen.no_gt)
    (pred / f"{NAMES['flat without sync'](victim)}.png").unlink()
    assert_one_sentence(run_cli(*arguments), 1, "1 of 652 predictions missing", victim.name)
    assert not (tmp_path / "r.json").exists()
    done = run_cli(*arguments, "--allow-missing")
    assert done.returncode == 0, done.stderr
    assert "651/652" in done.stdout
    assert "PARTIAL" in done.stdout
    result = _result(tmp_path / "r.json")
    assert result["provenance"]["partial"] is True
    assert result["counts"]["missing_prediction"] == 1
    assert result["issues"]["missing_prediction"] == [victim.name]
    (tmp_path / "r.json").unlink()

    truth = root / f"train/{victim.drive}_sync"
    truth = truth if truth.exists() else root / f"val/{victim.drive}_sync"
    (truth / f"proj_depth/groundtruth/image_02/{victim.index:010d}.png").unlink()
    assert_one_sentence(run_cli(*arguments), 1, "1 of 652 ground-truth maps missing", f"{victim.index:010d}.png")
    done = run_cli(*arguments, "--allow-missing")
    assert done.returncode == 0, done.stderr
    assert _result(tmp_path / "r.json")["provenance"]["partial"] is True


def test_two_predictions_of_different_names_for_one_frame(run_cli, tmp_path, eigen, stock):
    root = _truth_tree(tmp_path / "kitti", eigen, stock, "B")
    pred = _predictions(tmp_path / "pred", eigen, stock)
    frame = eigen.frames[0]
    _link(stock / f"pred_{frame.date}.png", pred / f"{NAMES['flat'](frame)}.png")
    done = run_cli("eval", pred, "--split", "eigen", "--data-root", root, "-o", "r.json")
    assert_one_sentence(done, 1, "two predictions for frame", f"{NAMES['flat'](frame)}.png")


def _calibration(folder, date):
    height, width = SIZES[date]
    folder.mkdir(parents=True, exist_ok=True)
    p2 = f"{FX} 0 {width / 2} 44.8 0 {FX} {height / 2} 0.2 0 0 1 0.0027"
    (folder / "calib_cam_to_cam.txt").write_text(
        f"calib_time: 09-Jan-2012 13:57:47\nS_rect_02: {width} {height}\nS_rect_03: {width} {height}\n"
        f"R_rect_00: 1 0 0 0 1 0 0 0 1\nP_rect_02: {p2}\nP_rect_03: {p2.replace('44.8', '-339.5')}\n"
    )
    (folder / "calib_velo_to_cam.txt").write_text("R: 0 -1 0 0 0 -1 1 0 0\nT: 0 -0.08 -0.27\n")


def _raw_tree(root, stock, eigen):
    rng = np.random.default_rng(3)
    points = np.column_stack(
        [rng.uniform(4, 90, 900), rng.uniform(-12, 12, 900), rng.uniform(-1.7, 0.5, 900), rng.random(900)]
    ).astype("<f4")
    points.tofile(stock / "scan.bin")
    for frame in eigen.frames:
        _link(stock / "scan.bin", root / frame.date / f"{frame.drive}_sync/velodyne_points/data/{frame.index:010d}.bin")
    for date in SIZES:
        _calibration(root / date, date)
    return root


@pytest.mark.slow
def test_697_disparities_against_raw_scans(run_cli, tmp_path, eigen, stock):
    root = _raw_tree(tmp_path / "raw", stock, eigen)
    stack = np.random.default_rng(4).uniform(0.02, 0.3, (697, 12, 40)).astype(np.float32)
    np.save(tmp_path / "disps.npy", stack)
    arguments = (
        "eval", "disps.npy", "--split", "eigen", "--protocol", "kitti-eigen-raw", "--kind", "scaled-disparity",
        "--data-root", root, "-o", "r.json",
    )  # fmt: skip
    done = run_cli(*arguments)
    assert done.returncode == 0, done.stderr
    assert "697/697" in done.stdout
    result = _result(tmp_path / "r.json")
    assert result["counts"]["expected"] == 697
    done = run_cli("data", "pack", "--gt", "raw", "--split", "eigen", "--data-root", root, "-o", "truth.npz")
    assert done.returncode == 0, done.stderr
    truth = np.load(tmp_path / "truth.npz")
    for i in (0, 300, 696):
        g = truth[eigen.frames[i].name]
        depth = 1 / reference.bilinear(stack[i], g.shape)
        want = reference.evaluate("kitti-eigen-raw", g, depth)
        for key in ("n_pixels", "abs_rel", "rmse", "d1"):
            assert result["per_image"][key][i] == pytest.approx(want[key], rel=3e-6), (i, key)
    np.save(tmp_path / "disps.npy", stack[:652])
    assert_one_sentence(run_cli(*arguments), 1, "652 stacked predictions, expected 697")

    (root / "2011_09_29/calib_velo_to_cam.txt").unlink()
    (tmp_path / "r.json").unlink()
    np.save(tmp_path / "disps.npy", stack)
    assert_one_sentence(run_cli(*arguments), 1, "calibration not found", "2011_09_29_calib.zip")
    assert not (tmp_path / "r.json").exists()


def test_leakage_is_said(run_cli):
    done = run_cli("data", "check", "--split", "eigen", "--train-split", "kitti_official.train")
    assert done.returncode == 1
    assert "522" in done.stdout
    assert "697" in done.stdout
    clean = run_cli("data", "check", "--split", "eigen", "--train-split", "eigen_train")
    assert clean.returncode == 0, clean.stdout


@pytest.mark.slow
def test_official_val_selection(run_cli, tmp_path, stock):
    split = load_split("official")
    assert len(split.frames) == 1000
    shape = (352, 1216)
    truth, pred = _maps("2011_09_26", shape)
    pred[::2, ::3] = 0  # the devkit fills them
    Image.fromarray(truth).save(stock / "gt_selection.png")
    Image.fromarray(pred).save(stock / "pred_selection.png")
    root = tmp_path / "kitti"
    for f in split.frames:
        base = root / "depth_selection/val_selection_cropped/groundtruth_depth"
        name = f"{f.drive}_sync_{{}}_{f.index:010d}_image_0{f.camera}.png"
        _link(stock / "gt_selection.png", base / name.format("groundtruth_depth"))
        _link(stock / "pred_selection.png", tmp_path / "pred" / name.format("image"))
    done = run_cli("eval", "pred", "--split", "official", "--data-root", root, "-o", "r.json", "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert "1000/1000" in done.stdout.replace(",", "")
    result = _result(tmp_path / "r.json")
    assert result["protocol"]["name"] == "kitti-official"
    columns = result["per_image"]
    assert {"abs_rel_f64", "silog_f64"} <= columns.keys()
    assert set(columns["n_pixels"]) == {int((truth > 0).sum())}
    assert np.ptp(columns["silog"]) == 0
    assert columns["silog"][0] == pytest.approx(columns["silog_f64"][0], rel=1e-3)
    next((tmp_path / "pred").iterdir()).unlink()
    done = run_cli("eval", "pred", "--split", "official", "--data-root", root, "-o", "no.json")
    assert_one_sentence(done, 1, "1 of 1000 predictions missing")
    assert not (tmp_path / "no.json").exists()
