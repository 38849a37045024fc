"""Evaluation: from PNG, from packs, with workers, in memory and in disk space, against plain evaluation (P).

Goals EV1 - EV11 and what they mean: docs/performance.md. Run: python -m benchmarks.bench_evaluation
"""

from __future__ import annotations

from benchmarks import harness  # isort: skip  (limits threads, so it comes before numpy)

import argparse
import contextlib
import io
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adubench.evaluators import moments
from adubench.evaluators.evaluator import EvalOptions, evaluate
from adubench.evaluators.protocols import get_protocol
from adubench.evaluators.valid_pixels import selection_mask
from adubench.io.depth_png import read_depth_map
from adubench.io.maps import SparseDepth
from adubench.io.packed import PackWriter, open_pack
from benchmarks import plain, workload

PROTOCOL = "kitti-eigen-full"
# id -> (what, baseline, product, goal)
GOALS: dict[str, tuple[str, str, str, float]] = {
    "EV1": ("from PNG, required packages", "P", "png", 1.25),
    "EV2": ("from PNG, fast extra", "P", "png fast", 2.4),
    "EV3a": ("ground truth packed, prediction PNG, required packages", "P", "gt pack", 1.75),
    "EV3b": ("ground truth packed, prediction PNG, fast extra", "P", "gt pack fast", 3.4),
    "EV4a": ("both packed, numpy", "P", "packs", 8.0),
    "EV4b": ("both packed, compiled", "P", "packs fast", 13.0),
    "EV5a": ("values at ground-truth pixels, numpy", "P", "at gt", 14.0),
    "EV5b": ("values at ground-truth pixels, compiled", "P", "at gt fast", 30.0),
    "EV6": ("against P that also decodes and normalises the RGB image", "P with RGB", "png", 3.0),
    "EV8": ("median-scaled disparity, packed truth, against the npz way", "npz disparity", "disparity", 4.0),
}


@contextlib.contextmanager
def tier(fast: bool) -> Iterator[None]:
    """Forbid or ask for the fast extra."""
    before = os.environ.get("ADUBENCH_FAST")
    os.environ["ADUBENCH_FAST"] = "1" if fast else "0"
    try:
        yield
    finally:
        os.environ.pop("ADUBENCH_FAST") if before is None else os.environ.update(ADUBENCH_FAST=before)


def ours(source: Path, gt: Path, *, fast: bool = False, protocol: str = PROTOCOL, **options: Any) -> Any:
    with tier(fast):
        return evaluate(source, gt=gt, protocol=protocol, options=EvalOptions(cache="off", **options))[0]


def make_packs(work: workload.Workload) -> dict[str, Path]:
    """Pack truth and predictions in the default layout, predictions also at the truth's pixels, truth also archival."""
    paths = {name: work.root / f"{name}.h5" for name in ("gt", "gt_archival", "pred", "at_gt")}
    truth = {name: SparseDepth.from_map(read_depth_map(work.folder("gt") / f"{name}.png")) for name in work.names}
    protocol = get_protocol(PROTOCOL)
    masks = {frame: selection_mask(protocol, depth) for frame, depth in truth.items()}
    for name, archival in (("gt", False), ("gt_archival", True)):
        first = "" if archival else protocol.selection
        with PackWriter(paths[name], "ground_truth", archival=archival, first=first) as writer:
            for frame, depth in truth.items():
                writer.add(frame, depth, first_mask=masks[frame])
    sha = open_pack(paths["gt"]).attrs["index_sha256"]
    with (
        PackWriter(paths["pred"], "prediction") as dense,
        PackWriter(paths["at_gt"], "at_ground_truth", first=protocol.selection, ground_truth_sha256=sha) as sparse,
    ):
        for frame, depth in truth.items():
            pred = read_depth_map(work.folder("pred_default") / f"{frame}.png")
            dense.add(frame, pred)
            sparse.add(frame, pred.values.reshape(-1)[depth.index], first_mask=masks[frame], scale=pred.scale)
    return paths


def make_rgb(work: workload.Workload) -> Path:
    """Textured RGB pictures of KITTI's file size (about 840 KB), as W2 has them."""
    root = work.root / "rgb"
    rng = np.random.default_rng(1)
    for name in work.names:
        path = root / f"{name}.png"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        base = np.kron(rng.integers(20, 220, (24, 78, 3)), np.ones((16, 16, 1)))[: workload.H, : workload.W]
        noisy = base + rng.normal(0, 4.4, base.shape)
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(path)
    return root


def plain_with_rgb(work: workload.Workload, rgb: Path) -> None:
    """P plus what a training-style data loader adds to every test image: decode RGB, scale, normalise, transpose."""
    mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
    for name in work.names:
        image = np.asarray(Image.open(rgb / f"{name}.png"), dtype=np.float32) / 255.0
        np.ascontiguousarray(((image - mean) / std).transpose(2, 0, 1))
        plain.score(*plain.decode(work.folder("gt") / f"{name}.png", work.folder("pred_default") / f"{name}.png"))


def make_disparity(work: workload.Workload) -> tuple[Path, Path]:
    """Disparity at 192 x 640 as one array, truth as a compressed npz of float32 maps: Monodepth2's files, unpickled."""
    import cv2

    disparity, truth = work.root / "disps.npy", work.root / "gt_depths.npz"
    if not disparity.exists():
        maps = [read_depth_map(work.folder("pred_default") / f"{n}.png").quantity() for n in work.names]
        np.save(disparity, np.stack([cv2.resize(5.4 / m, (640, 192)) for m in maps]).astype(np.float32))
    if not truth.exists():
        arrays = {n: read_depth_map(work.folder("gt") / f"{n}.png").quantity() for n in work.names}
        np.savez_compressed(truth, **{n.replace("/", "-"): a for n, a in arrays.items()})
    return disparity, truth


def npz_disparity(work: workload.Workload, disparity: Path, truth: Path) -> np.ndarray:
    """The way of Monodepth2's evaluation: load everything, resize, invert, mask, scale by medians, seven errors."""
    import cv2

    preds = np.load(disparity)
    with np.load(truth) as data:
        gts = [data[name.replace("/", "-")] for name in work.names]
    rows = []
    for gt, disp in zip(gts, preds, strict=True):
        height, width = gt.shape
        pred = 1 / cv2.resize(disp, (width, height))
        mask = np.logical_and(gt > 1e-3, gt < 80)
        crop = np.zeros(mask.shape)
        r = (0.40810811 * height, 0.99189189 * height, 0.03594771 * width, 0.96405229 * width)
        crop[int(r[0]) : int(r[1]), int(r[2]) : int(r[3])] = 1
        mask = np.logical_and(mask, crop)
        p, g = pred[mask], gt[mask]
        p *= np.median(g) / np.median(p)
        p[p < 1e-3] = 1e-3
        p[p > 80] = 80
        thresh = np.maximum(g / p, p / g)
        deltas = [(thresh < 1.25**k).mean() for k in (1, 2, 3)]
        rmse = np.sqrt(((g - p) ** 2).mean())
        rmse_log = np.sqrt(((np.log(g) - np.log(p)) ** 2).mean())
        rows.append([np.mean(np.abs(g - p) / g), np.mean(((g - p) ** 2) / g), rmse, rmse_log, *deltas])
    return np.mean(rows, axis=0)


def contestants(work: workload.Workload) -> dict[str, Callable[[], Any]]:
    packs, rgb = make_packs(work), make_rgb(work)
    disparity, truth = make_disparity(work)
    gt, pred = work.folder("gt"), work.folder("pred_default")
    runs: dict[str, Callable[[], Any]] = {
        "P": lambda: plain.evaluate(gt, pred, work.names),
        "P with RGB": lambda: plain_with_rgb(work, rgb),
        "npz disparity": lambda: npz_disparity(work, disparity, truth),
        "disparity": lambda: ours(disparity, packs["gt"], protocol="kitti-eigen-raw", kind="scaled-disparity"),
    }
    for name, source, reference in (
        ("png", pred, gt),
        ("gt pack", pred, packs["gt"]),
        ("packs", packs["pred"], packs["gt"]),
        ("at gt", packs["at_gt"], packs["gt"]),
    ):
        for fast in (False, True):
            runs[f"{name} fast" if fast else name] = lambda s=source, g=reference, f=fast: ours(s, g, fast=f)
    return runs


def agreement(work: workload.Workload, runs: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Largest relative difference per contestant from a float64 evaluation of the same definitions, image by image."""
    want = []
    for name in work.names:
        g, p = plain.decode(work.folder("gt") / f"{name}.png", work.folder("pred_default") / f"{name}.png")
        want.append(plain.score(g.astype(np.float64), np.maximum(p, np.float32(0.001)).astype(np.float64)))
    out = {}
    for run in ("png", "png fast", "gt pack", "gt pack fast", "packs", "packs fast", "at gt", "at gt fast"):
        got = runs[run]().per_image
        table = np.array([got[key] for key in plain.METRICS]).T
        out[run] = float(np.max(np.abs(table / np.array(want) - 1)))
    wanted = runs["npz disparity"]()
    seven = runs["disparity"]().summary
    names = ("abs_rel", "sq_rel", "rmse", "rmse_log", "d1", "d2", "d3")
    out["disparity"] = float(np.max(np.abs(np.array([seven[n] for n in names]) / wanted - 1)))
    return out


def workers(work: workload.Workload, rounds: int) -> dict[str, Any]:
    """EV9: 192 images with two processes against one, in wall time, pool start included."""
    many = workload.make(work.root.parent / "w1-192", 192)
    gt, pred = many.folder("gt"), many.folder("pred_default")
    runs = {f"{n} processes": (lambda n=n: ours(pred, gt, workers=n)) for n in (1, 2)}
    report = harness.run_interleaved(runs, rounds)
    void = harness.wall_is_void(report, "1 processes")
    return report | {
        "ratio": harness.ratio(report, "1 processes", "2 processes", clock="wall"),
        "goal": 1.75,
        "void": void,
    }


_MEMORY = """
import resource, sys
from adubench.evaluators.evaluator import EvalOptions, evaluate
evaluate(sys.argv[1], gt=sys.argv[2], protocol="kitti-eigen-full", options=EvalOptions(cache="off"))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def memory(work: workload.Workload) -> dict[str, Any]:
    """EV10: peak resident memory of 4 N images minus that of N = 64."""
    peaks = {}
    for n in (64, 256):
        some = workload.make(work.root.parent / f"w1-{n}", n)
        done = subprocess.run(
            [sys.executable, "-c", _MEMORY, str(some.folder("pred_default")), str(some.folder("gt"))],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        peaks[n] = int(done.stdout) / 1024
    grown = peaks[256] - peaks[64]
    return {"peak_mib": peaks, "grown_mib": grown, "goal_mib": 16.0, "met": grown <= 16 and grown < 0.02 * peaks[64]}


def disk(work: workload.Workload) -> dict[str, Any]:
    """EV11: pack size against the PNGs."""
    png = sum((work.folder("gt") / f"{n}.png").stat().st_size for n in work.names)
    sizes = {name: (work.root / f"{name}.h5").stat().st_size / png for name in ("gt", "gt_archival")}
    return {"ratio_to_png": sizes, "goals": {"gt": 2.8, "gt_archival": 0.8}}


def measure(root: Path, rounds: int, n: int) -> dict[str, Any]:
    work = workload.make(root / f"w1-{n}", n)
    runs = contestants(work)
    report = harness.run_interleaved(runs, rounds)
    report["workload"] = {"id": "W1", "n": n, "protocol": PROTOCOL}
    report["agreement"] = agreement(work, runs)
    report["ratios"] = {
        key: {"what": what, "ratio": harness.ratio(report, base, product), "goal": goal}
        for key, (what, base, product, goal) in GOALS.items()
    }
    report["compiled"] = moments.prefer_compiled(10_000)
    report["EV9"] = workers(work, 5)
    report["EV10"] = memory(work)
    report["EV11"] = disk(work)
    report["peak_rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return report


def table(report: dict[str, Any]) -> str:
    out = io.StringIO()
    for key, row in report["ratios"].items():
        out.write(f"{key:<5} {row['ratio']:6.2f} x  goal {row['goal']:5.2f}  {row['what']}\n")
    ev9, ev10, ev11 = report["EV9"], report["EV10"], report["EV11"]
    void = " (void: busy machine)" if ev9["void"] else ""
    out.write(f"EV9   {ev9['ratio']:6.2f} x  goal {ev9['goal']:5.2f}  two processes against one, wall{void}\n")
    out.write(f"EV10  {ev10['grown_mib']:6.2f} MiB more for 4 x the images, goal <= 16\n")
    sizes = ev11["ratio_to_png"]
    out.write(f"EV11  {sizes['gt']:6.2f} x the PNGs, goal <= 2.8; archival {sizes['gt_archival']:.2f} x, goal <= 0.8\n")
    worst = max(report["agreement"].values())
    out.write(f"agreement with float64, image by image: {worst:.1e} relative at worst\n")
    return out.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("benchmarks/.data"), help="where the workload is kept")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("-n", type=int, default=64, help="images")
    parser.add_argument("-o", "--output", type=Path, help="write the report as JSON")
    options = parser.parse_args()
    report = measure(options.root, options.rounds, options.n)
    if options.output:
        harness.write_json(report, options.output)
    print(table(report), end="")


if __name__ == "__main__":
    main()
