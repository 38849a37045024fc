"""`adubench eval` against the plain evaluation of tests/reference.py: sizes, containers, protocols, overrides."""

import json

import numpy as np
import pytest
from PIL import Image

from tests import reference

SIZES = [(375, 1242), (370, 1226), (376, 1241), (374, 1238), (370, 1224)]
KITTI = ("kitti-eigen", "kitti-eigen-full", "kitti-eigen-toolbox", "kitti-eigen-raw", "kitti-mdb")


def scene(shape, seed, density=0.08):
    """A truth and a prediction, both exact in 1/256 m."""
    rng = np.random.default_rng(seed)
    rows = np.linspace(90, 3, shape[0])[:, None]
    depth = rows * np.exp(rng.normal(0, 0.3, shape))
    pred = depth * np.exp(rng.normal(0.02, 0.1, shape))
    depth = np.where(rng.random(shape) < density, depth, 0)
    quantise = lambda m: (np.rint(np.clip(m, 0, 250) * 256) / 256).astype(np.float32)  # noqa: E731
    return quantise(depth), np.maximum(quantise(pred), np.float32(1 / 256))


def write(root, form, maps):
    """Write maps by name in one of the accepted containers; returns the path."""
    if form in ("png", "npy"):
        for name, values in maps.items():
            path = root / f"{name}.{form}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if form == "png":
                Image.fromarray(np.rint(values * 256).astype(np.uint16)).save(path)
            else:
                np.save(path, values)
        return root
    if form == "npz":
        np.savez(root.with_suffix(".npz"), **maps)
        return root.with_suffix(".npz")
    import h5py

    with h5py.File(root.with_suffix(".h5"), "w") as file:
        for name, values in maps.items():
            file[name] = values
    return root.with_suffix(".h5")


def run(tmp_path, *arguments):
    """Run eval in this process; returns name -> result."""
    from adubench.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["eval", *map(str, arguments), "-o", str(tmp_path / "r.json"), "--cache", "off"])
    assert ended.value.code == 0
    root = json.loads((tmp_path / "r.json").read_text())
    return {r["protocol"]["name"]: r for r in root.get("results", [root])}


def agree(result, wanted):
    """Every metric of every image, and the mean over images."""
    columns = result["per_image"]
    assert len(columns["frame"]) == len(wanted)
    for i, name in enumerate(columns["frame"]):
        for key, value in wanted[name].items():
            assert columns[key][i] == pytest.approx(value, rel=2e-6, abs=2e-5 if key == "silog" else 1e-9), (name, key)
    for key in ("abs_rel", "rmse", "silog", "d1"):
        assert result["summary"][key] == pytest.approx(np.mean([w[key] for w in wanted.values()]), rel=2e-6)


@pytest.mark.parametrize("window", [False, True], ids=["full", "window"])
@pytest.mark.parametrize("seed", [11, 12])
def test_all_kitti_protocols_on_all_kitti_sizes(tmp_path, seed, window):
    scenes = {f"d{i}/{seed:010d}": scene(shape, 10 * seed + i) for i, shape in enumerate(SIZES)}
    gt = write(tmp_path / "gt", "png", {n: g for n, (g, _) in scenes.items()})
    maps = {n: reference.cut(p) if window else p for n, (_, p) in scenes.items()}
    # Without a crop, scoring beyond the window is another question than the numbers here.
    protocols = [p for p in KITTI if not (window and p == "kitti-mdb")]
    pred = write(tmp_path / "pred", ("npz", "h5")[seed % 2], maps)
    results = run(tmp_path, pred, "--gt", gt, *(a for p in protocols for a in ("--protocol", p)))
    assert set(results) == set(protocols)
    for protocol, result in results.items():
        agree(result, {n: reference.evaluate(protocol, scenes[n][0], maps[n]) for n in scenes})


@pytest.mark.parametrize(("gt_form", "pred_form"), [("npy", "png"), ("npz", "h5"), ("h5", "npy"), ("h5", "npz")])
def test_containers_on_either_side(tmp_path, gt_form, pred_form):
    scenes = {f"a b/ü{i}": scene((370, 1226), 40 + i) for i in range(2)}
    gt = write(tmp_path / "gt", gt_form, {n: g for n, (g, _) in scenes.items()})
    pred = write(tmp_path / "pred", pred_form, {n: p for n, (_, p) in scenes.items()})
    results = run(tmp_path, pred, "--gt", gt, "--protocol", "kitti-eigen")
    agree(results["kitti-eigen"], {n: reference.evaluate("kitti-eigen", g, p) for n, (g, p) in scenes.items()})


@pytest.mark.parametrize(
    ("protocol", "options", "arguments"),
    [
        ("kitti-eigen", {"crop": "eigen"}, ("--crop", "eigen")),
        ("kitti-eigen", {"crop": "none"}, ("--crop", "none")),
        ("kitti-eigen-full", {"cap": 50}, ("--cap", "50")),
        ("kitti-eigen-full", {"alignment": "median"}, ("--alignment", "median")),
        ("kitti-eigen", {"alignment": "lstsq"}, ("--alignment", "lstsq")),
        ("kitti-eigen-toolbox", {"cap": 30, "crop": "eigen"}, ("--cap", "30", "--crop", "eigen")),
        ("kitti-eigen-raw", {"alignment": "none"}, ("--alignment", "none")),
        ("kitti-eigen-raw", {"alignment": "fixed:1.1"}, ("--alignment", "fixed:1.1")),
        ("kitti-mdb", {"cap": 60}, ("--cap", "60")),
        ("kitti-eigen-benchmark", {"alignment": "lstsq"}, ("--alignment", "lstsq")),
        ("full-frame", {"cap": 20, "alignment": "median"}, ("--max-depth", "20", "--alignment", "median")),
        ("synthdrive", {}, ()),
        ("synthdrive", {"crop": "none"}, ("--crop", "none")),
    ],
)
def test_overrides_change_the_numbers_as_they_should(tmp_path, protocol, options, arguments):
    g, p = scene((374, 1238), 77)
    gt = write(tmp_path / "gt", "png", {"x/0": g})
    pred = write(tmp_path / "pred", "npy", {"x/0": p})
    (name, result), *rest = run(tmp_path, pred, "--gt", gt, "--protocol", protocol, *arguments).items()
    assert not rest
    assert (name == protocol) == (not options)
    agree(result, {"x/0": reference.evaluate(protocol, g, p, **options)})


def test_scaled_disparity_is_resized_before_it_is_inverted(tmp_path):
    g, _ = scene((376, 1241), 5)
    disparity = np.random.default_rng(6).uniform(0.02, 0.3, (24, 80)).astype(np.float32)
    gt = write(tmp_path / "gt", "npy", {"x/0": g})
    pred = write(tmp_path / "pred", "npy", {"x/0": disparity})
    results = run(tmp_path, pred, "--gt", gt, "--protocol", "kitti-eigen-raw", "--kind", "scaled-disparity")
    depth = 1 / reference.bilinear(disparity, g.shape)
    agree(results["kitti-eigen-raw"], {"x/0": reference.evaluate("kitti-eigen-raw", g, depth)})


@pytest.mark.parametrize("hostile", [np.nan, np.inf, -np.inf, -3.0, 0.0, 1e-4, 1e6])
def test_hostile_values_are_clamped_as_defined(tmp_path, hostile):
    g, p = scene((375, 1242), 9)
    p[np.random.default_rng(1).random(p.shape) < 0.1] = hostile
    g[::7, ::3] = np.nan
    g[1::7, ::3] = np.inf
    gt = write(tmp_path / "gt", "npy", {"x/0": g})
    pred = write(tmp_path / "pred", "npy", {"x/0": p})
    results = run(tmp_path, pred, "--gt", gt, "--protocol", "kitti-eigen", "--protocol", "kitti-eigen-full")
    for protocol, result in results.items():
        agree(result, {"x/0": reference.evaluate(protocol, g, p)})
