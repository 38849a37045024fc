"""`adubench predict`: names, formats, sizes, what is refused, what is left when something fails."""

import json

import h5py
import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from tests.checkpoints import MONODEPTH2, NEWCRFS, make_checkpoint, save_image  # noqa: E402


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    root = tmp_path_factory.mktemp("nets")
    make_checkpoint(root / "nc.safetensors", {**NEWCRFS, "uncertainty": {}})
    make_checkpoint(root / "teacher.safetensors", {**NEWCRFS, "in_channels": 6}, role="teacher")
    make_checkpoint(root / "md2.safetensors", MONODEPTH2)
    return root


def infer(path, pixels):
    """The network's own answer for an image, float32 [H, W]."""
    from adubench import load_model

    network = load_model(path)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (network.input_rule.mean, network.input_rule.std))
    x = (torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255 - mean) / std
    with torch.no_grad():
        found = network.infer(x)
    return (found.depth if found.depth is not None else found.disparity)[0, 0].numpy()


def test_the_map_of_an_image_is_metres_at_its_size(call, nets, tmp_path):
    pixels = save_image(tmp_path / "image.png", (70, 100))
    done = call("predict", nets / "nc.safetensors", "image.png", "-o", "out", "--format", "npy", "--no-flip")
    assert done.returncode == 0, done.stderr
    values = np.load(tmp_path / "out" / "image.npy")
    assert (values.shape, values.dtype) == ((70, 100), np.float32)
    np.testing.assert_allclose(values, infer(nets / "nc.safetensors", pixels), atol=1e-4)
    record = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert (record["flip"], record["kind"], record["maps"]) == ("off", "depth", 1)
    assert "metres" in done.stderr


def test_disparity_of_self_supervised_networks_is_scaled_and_of_their_size(call, nets, tmp_path):
    pixels = save_image(tmp_path / "image.png", (64, 96))
    done = call("predict", nets / "md2.safetensors", "image.png", "-o", "out", "--no-flip", "--output", "disparity")
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "out" / "image.npy")
    np.testing.assert_allclose(found, 0.01 + 9.99 * infer(nets / "md2.safetensors", pixels), atol=1e-5)
    save_image(tmp_path / "large.png", (90, 130))
    call("predict", nets / "md2.safetensors", "large.png", "-o", "out", "--output", "disparity")
    assert np.load(tmp_path / "out" / "large.npy").shape == (64, 96)
    call("predict", nets / "md2.safetensors", "image.png", "-o", "depth")
    np.testing.assert_allclose(np.load(tmp_path / "depth" / "image.npy"), 1 / found, rtol=1e-5)


def test_folders_keep_their_paths_and_equal_stems_theirs(call, nets, tmp_path):
    for name in ("in/a/x.png", "in/b/x.jpg", "y.png"):
        save_image(tmp_path / name)
    assert call("predict", nets / "nc.safetensors", "in", "y.png", "-o", "one").returncode == 0
    assert sorted(p.relative_to(tmp_path / "one").as_posix() for p in (tmp_path / "one").rglob("*.npy")) == [
        "a/x.npy", "b/x.npy", "y.npy",
    ]  # fmt: skip
    assert call("predict", nets / "nc.safetensors", "in/a/x.png", "in/b/x.jpg", "-o", "two").returncode == 0
    assert sorted(p.relative_to(tmp_path / "two").as_posix() for p in (tmp_path / "two").rglob("*.npy")) == [
        "a/x.npy", "b/x.npy",
    ]  # fmt: skip
    assert call("predict", nets / "nc.safetensors", "in/**/*.png", "-o", "three").returncode == 0
    assert (tmp_path / "three" / "x.npy").is_file()


def test_formats_hold_the_same_depth(call, nets, tmp_path):
    save_image(tmp_path / "in" / "d" / "x.png")
    for form in ("npy", "png", "npz", "hdf5"):
        done = call("predict", nets / "nc.safetensors", "in", "-o", form, "--format", form, "--color")
        assert done.returncode == 0, done.stderr
    depth = np.load(tmp_path / "npy" / "d" / "x.npy")
    with np.load(tmp_path / "npz" / "predictions.npz") as stored:
        assert np.array_equal(stored["d/x"], depth)
    with h5py.File(tmp_path / "hdf5" / "predictions.h5") as stored:
        assert np.array_equal(stored["d/x"][()], depth)
    codes = np.asarray(Image.open(tmp_path / "png" / "d" / "x.png"))
    assert np.array_equal(codes, np.rint(depth * 256).clip(1, 65535).astype(np.uint16))
    assert Image.open(tmp_path / "npy" / "d" / "x.jpg").size == (96, 64)


def test_a_teacher_takes_the_right_image(call, nets, tmp_path):
    save_image(tmp_path / "l" / "x.png")
    save_image(tmp_path / "r" / "x.png", seed=1)
    assert call("predict", nets / "teacher.safetensors", "l/x.png", "--right", "r/x.png", "-o", "a").returncode == 0
    assert call("predict", nets / "teacher.safetensors", "l", "--right", "r", "-o", "b").returncode == 0
    assert np.array_equal(np.load(tmp_path / "a" / "x.npy"), np.load(tmp_path / "b" / "x.npy"))
    done = call("predict", nets / "teacher.safetensors", "l/x.png", "-o", "c")
    assert done.returncode == 2
    assert "--right" in done.stderr
    assert not (tmp_path / "c").exists()


def test_options_that_a_network_has_no_use_for_are_said(call, nets, tmp_path):
    save_image(tmp_path / "x.png", (64, 96))
    done = call("predict", nets / "nc.safetensors", "x.png", "--right", "x.png", "-o", "r")
    assert (done.returncode, (tmp_path / "r").exists()) == (2, False)
    assert "--right x.png: nc predicts from one image; leave --right out." in done.stderr
    done = call("predict", nets / "nc.safetensors", "x.png", "--focal", "700", "-o", "f", "--no-flip")
    assert done.returncode == 0
    assert "note: --focal 700: nc needs no focal length" in done.stderr


def test_uncertainty_goes_beside_the_maps(call, nets, tmp_path):
    save_image(tmp_path / "x.png")
    done = call("predict", nets / "nc.safetensors", "x.png", "-o", "out", "--uncertainty")
    assert done.returncode == 0
    assert np.load(tmp_path / "out_uncertainty" / "x.npy").shape == (64, 96)
    assert "--uncertainty-kind log_sigma" in done.stderr
    done = call("predict", nets / "teacher.safetensors", "x.png", "--right", "x.png", "-o", "t", "--uncertainty")
    assert done.returncode == 2


@pytest.mark.parametrize("use_stereo", [False, True])
def test_uncertainty_of_disparity_becomes_uncertainty_of_depth(call, tmp_path, use_stereo):
    """To first order: sigma_depth = depth^2 * (1/0.1 - 1/100) * sigma_reg, over 5.4 where depth is 5.4 / disparity."""
    lite = {"base": "hr-depth-lite", "height": 64, "width": 96, "use_stereo": use_stereo}
    make_checkpoint(tmp_path / "sub.safetensors", {"family": "sub-depth", **lite})
    pixels = save_image(tmp_path / "x.png")
    for out, args in (("depth", ()), ("disparity", ("--output", "disparity"))):
        done = call("predict", "sub.safetensors", "x.png", "-o", out, "--uncertainty", *args)
        assert done.returncode == 0, done.stderr
        assert "--uncertainty-kind b" in done.stderr
    depth, sigma = (np.load(tmp_path / name / "x.npy") for name in ("depth", "depth_uncertainty"))
    disparity, spread = (np.load(tmp_path / name / "x.npy") for name in ("disparity", "disparity_uncertainty"))
    np.testing.assert_allclose(disparity, 0.01 + 9.99 * infer(tmp_path / "sub.safetensors", pixels), atol=1e-5)
    np.testing.assert_allclose(sigma, depth**2 * spread / (5.4 if use_stereo else 1), rtol=1e-5)
    step = 1e-4  # and that is the derivative
    changed = (5.4 if use_stereo else 1) / (disparity.astype(np.float64) + step)
    np.testing.assert_allclose(sigma, np.abs(changed - depth) / step * spread, rtol=2e-2)


@pytest.mark.slow
def test_a_split_is_predicted_under_its_frames_names(call, nets, tmp_path):
    from adubench.datasets.synthdrive import write_dataset

    write_dataset(tmp_path / "sd", drives=3, frames=11, size=(64, 128))
    args = ("predict", nets / "teacher.safetensors", "--split", "synthdrive", "--data-root", "sd", "-o", "out")
    done = call(*args)
    assert done.returncode == 0, done.stderr
    names = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.npy"))
    assert len(names) == 11
    assert names[0].endswith("_sync/image_02/0000000000.npy")
    (tmp_path / "out" / names[3]).unlink()
    done = call(*args, "--skip-existing")
    assert "written: 1 map in" in done.stderr
    assert "10 were there" in done.stderr


def test_an_unreadable_image_is_named_and_the_others_written(call, nets, tmp_path):
    save_image(tmp_path / "in" / "a.png")
    save_image(tmp_path / "in" / "c.png")
    (tmp_path / "in" / "b.png").write_bytes((tmp_path / "in" / "a.png").read_bytes()[:200])
    done = call("predict", nets / "nc.safetensors", "in", "missing.png", "-o", "out", "--batch-size", "4")
    assert done.returncode == 1
    assert "b.png" in done.stderr
    assert "missing.png" in done.stderr
    assert "2 images could not be predicted" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in (tmp_path / "out").glob("*.npy")) == ["a.npy", "c.npy"]


def test_interruption_leaves_whole_files_only(call, nets, tmp_path, monkeypatch):
    from adubench.training import prediction_run

    for name in "abc":
        save_image(tmp_path / "in" / f"{name}.png")
    plain, seen = prediction_run.predict_loaded, []

    def interrupted(predictor, batch):
        seen.append(1)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return plain(predictor, batch)

    monkeypatch.setattr(prediction_run, "predict_loaded", interrupted)
    for form, left in (("npy", ["a.npy"]), ("npz", [])):
        seen.clear()
        assert call("predict", nets / "nc.safetensors", "in", "-o", form, "--format", form).returncode == 130
        assert [p.name for p in (tmp_path / form).iterdir()] == left


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("nc.safetensors",), "say what to predict"),
        (("nc.safetensors", "x.png", "--split", "eigen"), "say what to predict"),
        (("nc.safetensors", "--split", "eigen"), "--data-root"),
        (("nc.safetensors", "x.png", "--output", "disparity"), "predicts depth"),
        (("md2.safetensors", "x.png", "--format", "png"), "no scale"),
        (("md2.safetensors", "x.png", "--format", "png", "--output", "disparity"), "holds metres"),
        (("md2.safetensors", "x.png", "--uncertainty"), "predicts no uncertainty"),
        (("nc.safetensors", "x.png", "--skip-existing", "--format", "npz"), "one file"),
        (("nc.safetensors", "x.png", "--device", "tpu"), "--device tpu"),
        (("nc.safetensors", "x.png", "--amp", "--device", "cpu"), "--amp"),
        (("nc.safetensors", "x.png", "--batch-size", "0"), "--batch-size 0"),
        (("nc.safetensors", "x.png", "--kb-crop"), "smaller than the 352x1216 window"),
        (("nc.safetensors", "x.png", "--layout", "kitti"), "names no KITTI frame"),
        (("nc.safetensors", "empty"), "no image in it"),
        (("nc.safetensors", "*.tif"), "no image matches"),
        (("nc.safetensors", "x.png", "x.jpg"), "two images would have the prediction 'x'"),
        (("nc.safetensors", "x.png", "--right", "none"), "right image not found"),
        (("none.safetensors", "x.png"), "not found"),
        (("model.pth", "x.png"), "import-weights"),
        (("hf:/nowhere", "x.png"), "hf:"),
    ],
)
def test_wrong_input_is_one_sentence_and_leaves_nothing(call, nets, tmp_path, args, words):
    for name in ("x.png", "x.jpg"):
        save_image(tmp_path / name)
    (tmp_path / "empty").mkdir()
    source = nets / args[0] if (nets / args[0]).exists() else args[0]
    done = call("predict", source, *args[1:], "-o", "out")
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error:")]) == 1
    assert not list(tmp_path.glob("out/**/*.np*"))


def test_an_image_is_never_replaced_by_its_map(call, nets, tmp_path):
    save_image(tmp_path / "x.png")
    done = call("predict", nets / "nc.safetensors", "x.png", "-o", ".", "--format", "png")
    assert done.returncode == 2
    assert "would be replaced" in done.stderr


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ("sys.exit(0)", "SystemExit"),
        ("np.full(image.shape[:2], np.nan)", "holds no finite value"),
        ("np.full(image.shape[:2], None)", "expected a map"),
        ("np.ones(image.shape[:2], complex)", "expected a map"),
    ],
)
def test_a_program_without_a_map_is_no_success(call, tmp_path, returned, words):
    """`sys.exit(0)` used to end the command well without a map, and None to become one of NaN."""
    save_image(tmp_path / "x.png")
    text = f"import sys\nimport numpy as np\nKIND = 'depth'\ndef predict(image):\n    return {returned}\n"
    (tmp_path / "model.py").write_text(text)
    done = call("predict", "model.py", "x.png", "-o", "out")
    assert done.returncode == 1
    assert words in done.stderr
    assert not list(tmp_path.glob("out/*"))
