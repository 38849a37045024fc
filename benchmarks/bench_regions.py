"""Regions: what they cost once their masks are cached, memory, and comparisons by region.

Goals: sums over the default regions with cached masks cost less than decoding the PNGs of truth and prediction (RG1, in
one run, required packages and fast extra); peak memory does not grow with the number of images (RG2); comparing two
results of 652 images, 28 drives, all regions, 10 000 resamples takes about a second (RG3).
Run: python -m benchmarks.bench_regions
"""

from __future__ import annotations

from benchmarks import harness  # isort: skip  (limits threads, so it comes before numpy)

import argparse
import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from adubench.evaluators import moments
from adubench.evaluators.comparison import compare
from adubench.evaluators.evaluator import EvalOptions, evaluate
from adubench.evaluators.region_run import RegionRequest
from adubench.io.depth_png import read_depth_map
from benchmarks import bench_evaluation, workload

PROTOCOL = "kitti-eigen-full"
RATIO_GOAL, MEMORY_GOAL, COMPARE_GOAL = 1.0, 24.0, 1.0
CAMERA = f"{workload.FOCAL},{workload.FOCAL},{workload.CX},{workload.CY}"


def request(work: workload.Workload) -> RegionRequest:
    return RegionRequest(images=work.root / "rgb", intrinsics=CAMERA, cache=work.root / "masks")


def scored(work: workload.Workload, *, regions: bool, fast: bool) -> Any:
    asked = request(work) if regions else None
    options = EvalOptions(cache="off", regions=asked)
    with bench_evaluation.tier(fast):
        return evaluate(work.folder("pred_default"), gt=work.folder("gt"), protocol=PROTOCOL, options=options)[0]


def decode(work: workload.Workload, *, fast: bool) -> None:
    """Read every PNG of truth and prediction, and nothing else."""
    with bench_evaluation.tier(fast):
        for name in work.names:
            for kind in ("gt", "pred_default"):
                read_depth_map(work.folder(kind) / f"{name}.png")


def cost(work: workload.Workload, rounds: int) -> dict[str, Any]:
    """Interleave decoding, evaluation without and with regions; both tiers."""
    bench_evaluation.make_rgb(work)
    result = scored(work, regions=True, fast=False)  # fills the cache of masks
    runs = {}
    for fast in (False, True):
        tail = " fast" if fast else ""
        runs[f"decode{tail}"] = lambda fast=fast: decode(work, fast=fast)
        runs[f"plain{tail}"] = lambda fast=fast: scored(work, regions=False, fast=fast)
        runs[f"regions{tail}"] = lambda fast=fast: scored(work, regions=True, fast=fast)
    report = harness.run_interleaved(runs, rounds)
    seconds = {name: entry["cpu_median_s"] for name, entry in report["contestants"].items()}
    report["regions"] = len(result.regions)
    report["images"] = len(work.names)
    report["compiled"] = moments.prefer_compiled(10_000)
    report["ratios"] = {
        tier: {
            "ratio": seconds[f"decode{tail}"] / (seconds[f"regions{tail}"] - seconds[f"plain{tail}"]),
            "ms_per_image": 1000 * (seconds[f"regions{tail}"] - seconds[f"plain{tail}"]) / len(work.names),
            "goal": RATIO_GOAL,
        }
        for tier, tail in (("required packages", ""), ("fast extra", " fast"))
    }
    return report


_MEMORY = """
import resource, sys
from pathlib import Path
from adubench.evaluators.evaluator import EvalOptions, evaluate
from adubench.evaluators.region_run import RegionRequest
root = Path(sys.argv[1])
asked = RegionRequest(families="depth,edge,side", cache=root / "masks-memory")
evaluate(root / "pred_default", gt=root / "gt", protocol="kitti-eigen-full",
         options=EvalOptions(cache="off", regions=asked))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def memory(root: Path) -> dict[str, Any]:
    """Peak resident memory of 4 N images minus that of N = 64, masks being made in the same run."""
    peaks = {}
    for n in (64, 256):
        some = workload.make(root / f"w1-{n}", n)
        done = subprocess.run(
            [sys.executable, "-c", _MEMORY, str(some.root)], capture_output=True, text=True, check=True
        )
        peaks[n] = int(done.stdout) / 1024
    grown = peaks[256] - peaks[64]
    return {"peak_mib": peaks, "grown_mib": grown, "goal_mib": MEMORY_GOAL, "met": grown <= MEMORY_GOAL}


def comparison(work: workload.Workload, rounds: int) -> dict[str, Any]:
    """Two results of 652 images in 28 drives made from the measured table, compared over all regions."""
    result = scored(work, regions=True, fast=False)
    assert result.moments is not None
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, len(work.names), 652)
    frames = tuple(f"d{i * 28 // 652:02d}/{i:010d}" for i in range(652))
    drives = tuple(name[:3] for name in frames)
    both = []
    for k in range(2):
        values = result.moments.values[chosen] * (1 + 0.02 * k * rng.random((652, 1, 1)))
        values[..., 0] = result.moments.values[chosen][..., 0]
        columns = {
            key: [column[i] for i in chosen]
            if key not in ("frame", "drive")
            else list(frames if key == "frame" else drives)
            for key, column in result.per_image.items()
        }
        table = dataclasses.replace(result.moments, frames=frames, drives=drives, values=values)
        both.append(dataclasses.replace(result, label=f"model {k}", per_image=columns, moments=table))
    report = harness.run_interleaved({"compare": lambda: compare(both)}, rounds)
    return {
        "seconds": report["contestants"]["compare"]["cpu_median_s"],
        "goal_s": COMPARE_GOAL,
        "regions": len(result.moments.regions),
        "images": 652,
        "drives": 28,
        "resamples": 10_000,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("benchmarks/.data"), help="where the workload is kept")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-n", type=int, default=64, help="images")
    parser.add_argument("-o", "--output", type=Path, help="write the report as JSON")
    options = parser.parse_args()
    work = workload.make(options.root / f"w1-{options.n}", options.n)
    report = cost(work, options.rounds)
    report["RG2"] = memory(options.root)
    report["RG3"] = comparison(work, options.rounds)
    harness.write_json(report, options.output)


if __name__ == "__main__":
    main()
