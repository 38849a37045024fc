"""`adubench data` as a user runs it."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from adubench.commands.data import command
from adubench.datasets.packing import write_ground_truth
from adubench.datasets.splits import SPLITS
from adubench.errors import DataError, UsageError
from tests.conftest import assert_one_sentence

VELODYNE = Path(__file__).resolve().parents[1] / "data" / "velodyne"
REAL = Path(__file__).resolve().parents[3] / "shared" / "real" / "kitti_000008"
D = "2011_09_26_drive_0001"


def invoke(*args):
    """Run in this process: quicker than a process of its own; errors stay exceptions."""
    result = CliRunner().invoke(command, [str(a) for a in args], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


def codes(seed=0, shape=(24, 64)):
    rng = np.random.default_rng(seed)
    out = rng.integers(600, 18000, shape).astype(np.uint16)
    out[rng.random(shape) > 0.2] = 0
    return out


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.mark.parametrize("sub", ["list", "check", "pack", "synth", "splits show", "splits export"])
def test_every_help_has_an_example(sub):
    text = invoke(*sub.split(), "--help").output
    assert f"adubench data {sub}" in text


def test_list_names_everything():
    body = json.loads(invoke("list", "--json").output)
    assert {s["name"] for s in body["splits"]} == set(SPLITS)
    assert {d["name"] for d in body["datasets"]} == {"kitti", "drivingstereo", "synthdrive", "nyu", "folder"}
    assert body["aliases"]["eigen"] == "eigen_test"
    text = invoke("list").output
    assert "drivingstereo.adu_train" in text
    assert "CC BY-NC-SA" in text


def test_splits_show_and_export(tmp_path):
    body = json.loads(invoke("splits", "show", "eigen", "--json").output)
    assert (body["images"], len(body["without_improved_gt"]), len(body["drives"])) == (697, 45, 28)
    assert "697 images, 28 drives" in invoke("splits", "show", "eigen").output
    assert len(invoke("splits", "show", "official", "--frames").output.split()) == 1000
    out = tmp_path / "lists" / "eigen.txt"
    invoke("splits", "export", "eigen", "--format", "md2", "-o", out)
    assert out.read_bytes().startswith(b"2011_09_26/2011_09_26_drive_0002_sync 69 l\n")
    assert out.read_text().count("\n") == 697
    assert invoke("splits", "export", "eigen", "--format", "md2").output.startswith(out.read_text())
    assert json.loads(invoke("splits", "show", out, "--json").output)["images"] == 697


def test_unknown_split(run_cli):
    assert_one_sentence(run_cli("data", "splits", "show", "eigne"), 2, "did you mean 'eigen'")


def test_check_exit_status_and_json(run_cli, tmp_path):
    done = run_cli("data", "check", "--split", "eigen", "--train-split", "kitti_official.train")
    assert done.returncode == 1
    assert "522 of 697 Eigen test images lie on official training drives" in done.stdout
    assert_one_sentence(done, 1, "2 errors")
    done = run_cli("data", "check", "--split", "eigen", "--train-split", "eigen_train", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["ok"] is True
    assert_one_sentence(run_cli("data", "check"), 2, "--data-root")
    bad = tmp_path / "bad.txt"
    bad.write_text("what is this line\n")
    assert_one_sentence(run_cli("data", "check", "--split", bad, "--data-root", tmp_path), 1, f"{bad}:1", "E1")


def test_check_of_a_missing_root(run_cli, tmp_path):
    done = run_cli("data", "check", "--split", "eigen", "--data-root", tmp_path / "absent")
    assert done.returncode == 1
    assert "data root not found" in done.stdout
    assert "Traceback" not in done.stderr


def test_pack_and_unpack_are_bit_exact(tmp_path):
    gt = tmp_path / "gt"
    for k in range(3):
        save(gt / f"a/{k}.png", codes(k))
    for archival in ((), ("--archival",)):
        pack = tmp_path / f"gt{len(archival)}.h5"
        invoke("pack", "--gt", gt, "-o", pack, *archival)
        out = tmp_path / f"out{len(archival)}"
        invoke("pack", "--unpack", pack, "-o", out)
        for k in range(3):
            np.testing.assert_array_equal(np.asarray(Image.open(out / f"a/{k}.png")), codes(k))


@pytest.mark.parametrize("archival", [(), ("--archival",)])
def test_predictions_round_trip(tmp_path, archival):
    rng = np.random.default_rng(0)
    maps = {f"d/{k}": rng.uniform(1, 80, (24, 64)).astype(np.float32) for k in range(3)}
    maps["d/1"][0, :3] = [np.nan, np.inf, -2]
    for name, values in maps.items():
        (tmp_path / "pred" / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "pred" / f"{name}.npy", values)
    invoke("pack", tmp_path / "pred", "-o", tmp_path / "pred.h5", *archival)
    invoke("pack", "--unpack", tmp_path / "pred.h5", "-o", tmp_path / "back")
    for name, values in maps.items():
        assert np.load(tmp_path / "back" / f"{name}.npy").tobytes() == values.tobytes()


def test_stale_packs_are_rebuilt_and_fresh_ones_kept(tmp_path):
    gt, pack = tmp_path / "gt", tmp_path / "gt.h5"
    save(gt / "a.png", codes(0))
    assert "written" in invoke("pack", "--gt", gt, "-o", pack).output
    before = pack.read_bytes()
    assert "up to date" in invoke("pack", "--gt", gt, "-o", pack).output
    assert "written" in invoke("pack", "--gt", gt, "-o", pack, "--force").output
    save(gt / "a.png", codes(1))
    assert "1 source files changed" in invoke("pack", "--gt", gt, "-o", pack).output
    assert pack.read_bytes() != before
    save(gt / "b.png", codes(2))
    assert "other maps" in invoke("pack", "--gt", gt, "-o", pack).output
    assert "layout" in invoke("pack", "--gt", gt, "-o", pack, "--archival").output
    pack.write_bytes(b"something else")
    with pytest.raises(DataError, match="is no pack"):
        invoke("pack", "--gt", gt, "-o", pack)


def test_values_at_ground_truth_pixels(tmp_path):
    from adubench.io.packed import open_pack

    for k in range(2):
        save(tmp_path / f"gt/{k}.png", codes(k))
        save(tmp_path / f"pred/{k}.png", np.full((24, 64), 2560 + k, np.uint16))
    invoke("pack", "--gt", tmp_path / "gt", "-o", tmp_path / "gt.h5")
    invoke("pack", tmp_path / "pred", "--at-gt", tmp_path / "gt.h5", "-o", tmp_path / "at.h5")
    with open_pack(tmp_path / "at.h5") as at, open_pack(tmp_path / "gt.h5") as gt:
        at.check_ground_truth(gt)
        assert set(at.read("1").metres().tolist()) == {np.float32(2561 / 256)}
        assert len(at.read("1").values) == len(gt.read("1").index)
    with pytest.raises(DataError, match="cannot be recovered"):
        invoke("pack", "--unpack", tmp_path / "at.h5", "-o", tmp_path / "x")
    save(tmp_path / "pred/1.png", np.full((12, 64), 2560, np.uint16))
    with pytest.raises(DataError, match="64x12 pixels, its ground truth has 64x24"):
        invoke("pack", tmp_path / "pred", "--at-gt", tmp_path / "gt.h5", "-o", tmp_path / "at2.h5")
    (tmp_path / "pred/1.png").unlink()
    with pytest.raises(DataError, match="no prediction for '1'"):
        invoke("pack", tmp_path / "pred", "--at-gt", tmp_path / "gt.h5", "-o", tmp_path / "at2.h5")
    assert not (tmp_path / "at2.h5").exists()


def raw_root(tmp_path, case):
    """A KITTI raw root with one drive whose frame 7 is a golden scan."""
    date = tmp_path / "raw" / "2011_09_26"
    scan = date / f"{D}_sync/velodyne_points/data/0000000007.bin"
    scan.parent.mkdir(parents=True)
    scan.write_bytes((VELODYNE / case / "velodyne.bin").read_bytes())
    for name in ("calib_cam_to_cam.txt", "calib_velo_to_cam.txt"):
        (date / name).write_bytes((VELODYNE / case / name).read_bytes())
    return tmp_path / "raw"


@pytest.mark.parametrize("case", ["synthetic_exact", "synthetic_rig"])
@pytest.mark.parametrize("camera", ["2", "3"])
@pytest.mark.parametrize(("kind", "column"), [("velodyne", "veldepth"), ("camera", "camdepth")])
def test_projected_scans_equal_the_reference(tmp_path, case, camera, kind, column):
    golden = np.load(VELODYNE / case / "depth.npz")
    root = raw_root(tmp_path, case)
    out = tmp_path / "raw.npz"
    invoke("pack", "--gt", "raw", "--data-root", root, "--camera", camera, "--depth-kind", kind, "-o", out)
    depth = np.load(out)[f"{D}_sync/image_0{camera}/0000000007"]
    assert depth.shape == tuple(golden["shape"])
    np.testing.assert_array_equal(np.flatnonzero(depth), golden[f"cam{camera}_{column}_index"])
    expected = golden[f"cam{camera}_{column}_depth"]
    np.testing.assert_allclose(depth[depth > 0], expected, rtol=0, atol=0 if column == "veldepth" else 4e-6)


@pytest.mark.parametrize("suffix", ["h5", "npz", "npy"])
def test_one_scan(tmp_path, suffix):
    golden = np.load(VELODYNE / "synthetic_rig" / "depth.npz")
    folder, out = VELODYNE / "synthetic_rig", tmp_path / f"depth.{suffix}"
    invoke("pack", "--gt", "raw", "--scan", folder / "velodyne.bin", "--calib", folder, "-o", out)
    if suffix == "h5":
        invoke("pack", "--unpack", out, "-o", tmp_path / "maps")
        depth = np.load(tmp_path / "maps/depth.npy")
    else:
        depth = np.load(out) if suffix == "npy" else np.load(out)["depth"]
    np.testing.assert_array_equal(np.flatnonzero(depth), golden["cam2_veldepth_index"])
    np.testing.assert_array_equal(depth[depth > 0], golden["cam2_veldepth_depth"])


@pytest.mark.parametrize("form", ["folder", "file", "data root"])
def test_scans_outside_of_kittis_tree(tmp_path, form):
    golden, folder = np.load(VELODYNE / "synthetic_exact" / "depth.npz"), VELODYNE / "synthetic_exact"
    args = {
        "folder": [folder, "--gt", "raw"],
        "file": [folder / "velodyne.bin", "--gt", "raw"],
        "data root": ["--gt", "raw", "--data-root", folder],
    }[form]
    out = tmp_path / "velodyne.npz"
    invoke("pack", *args, "--camera", "3", "-o", out)
    depth = np.load(out)["velodyne"]
    np.testing.assert_array_equal(np.flatnonzero(depth), golden["cam3_veldepth_index"])


@pytest.mark.skipif(not REAL.is_dir(), reason="the real scan is not on this machine")
def test_the_real_scan_becomes_a_png(tmp_path):
    invoke("pack", "--scan", REAL / "velodyne.bin", "--calib", REAL, "-o", tmp_path / "d.png")
    depth = np.asarray(Image.open(tmp_path / "d.png"))
    assert depth.shape == (375, 1242)
    assert depth.dtype == np.uint16
    assert 15_000 < np.count_nonzero(depth) < 17_238


def test_raw_pack_scores_as_ground_truth(tmp_path):
    root = raw_root(tmp_path, "synthetic_rig")
    invoke("pack", "--gt", "raw", "--data-root", root, "-o", tmp_path / "raw.h5")
    invoke("pack", "--gt", tmp_path / "raw.h5", "-o", tmp_path / "again.npz")
    assert list(np.load(tmp_path / "again.npz")) == [f"{D}_sync/image_02/0000000007"]


def test_pack_of_a_split_needs_all_its_maps(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("".join(f"2011_09_26/{D}_sync {i} l\n" for i in (5, 6)))
    save(tmp_path / f"gt/train/{D}_sync/proj_depth/groundtruth/image_02/0000000005.png", codes())
    with pytest.raises(DataError, match=r"0000000006\.png.*data check"):
        invoke("pack", "--gt", tmp_path / "gt", "--split", path, "-o", tmp_path / "gt.h5")
    assert not (tmp_path / "gt.h5").exists()
    save(tmp_path / f"gt/train/{D}_sync/proj_depth/groundtruth/image_02/0000000006.png", codes(1))
    invoke("pack", "--gt", tmp_path / "gt", "--split", path, "-o", tmp_path / "gt.npz")
    assert sorted(np.load(tmp_path / "gt.npz")) == [f"{D}_sync/image_02/{i:010d}" for i in (5, 6)]


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (["-o", "x.h5"], UsageError),
        (["pred", "--gt", "gt", "-o", "x.h5"], UsageError),
        (["--gt", "raw", "-o", "x.h5"], UsageError),
        (["--gt", "raw", "--scan", "v.bin", "-o", "x.h5"], DataError),
        (["--gt", "maps", "--scan", "v.bin", "-o", "x.h5"], UsageError),
        (["absent", "-o", "x.h5"], DataError),
        (["absent", "--split", "eigen", "-o", "x.h5"], UsageError),
        (["--gt", "absent", "--at-gt", "y.h5", "-o", "x.h5"], UsageError),
        (["--gt", "absent", "-o", "x.h5"], DataError),
        (["--unpack", "absent.h5", "-o", "x"], DataError),
    ],
)
def test_pack_usage(tmp_path, monkeypatch, args, error):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as caught:
        invoke("pack", *args)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_output_of_an_unknown_kind(tmp_path):
    save(tmp_path / "gt/a.png", codes())
    with pytest.raises(UsageError, match="name a folder"):
        invoke("pack", "--gt", tmp_path / "gt", "-o", tmp_path / "x.zip")
    folder = VELODYNE / "synthetic_rig"
    with pytest.raises(UsageError, match="one projected scan"):
        invoke("pack", "--scan", folder / "velodyne.bin", "--calib", folder, "-o", tmp_path / "x.txt")


def test_names_in_a_pack_cannot_leave_the_folder(tmp_path):
    from adubench.io.maps import DepthMap
    from adubench.io.packed import PackWriter

    with PackWriter(tmp_path / "p.h5", "prediction") as writer:
        writer.add("../../evil", DepthMap(np.ones((4, 4), np.float32)))
    with pytest.raises(DataError, match="outside the output folder"):
        invoke("pack", "--unpack", tmp_path / "p.h5", "-o", tmp_path / "a" / "b")
    assert not (tmp_path / "evil.npy").exists()


def test_interrupted_packing_leaves_nothing(tmp_path):
    from adubench.datasets.ground_truth import FolderGroundTruth

    for k in range(3):
        save(tmp_path / f"gt/{k}.png", codes(k))

    def stop(done, _total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_ground_truth(FolderGroundTruth(tmp_path / "gt"), tmp_path / "out" / "gt.h5", progress=stop)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("size", ["96", "96x", "axb", "96x320x3"])
def test_synth_refuses_bad_sizes(run_cli, tmp_path, size):
    done = run_cli("data", "synth", tmp_path / "s", "--size", size)
    assert done.returncode == 2
    assert "96x320" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["kitti", "drivingstereo"])
def test_generated_data_passes_its_check(tmp_path, layout):
    root = tmp_path / "synth"
    invoke("synth", root, "--drives", 3, "--frames", 13, "--size", "64x128", "--layout", layout)
    for part in ("drivingstereo.test",) if layout == "drivingstereo" else (None, "synthdrive", "synthdrive.train"):
        args = ("--split", part) if part else ()
        result = CliRunner().invoke(command, ["check", "--data-root", str(root), "--full", "--json", *args])
        body = json.loads(result.stdout)
        assert body["ok"], body
    split = "drivingstereo" if layout == "drivingstereo" else "synthdrive"
    invoke("pack", "--gt", root, "--split", split, "-o", tmp_path / "gt.h5")
