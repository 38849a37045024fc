"""EV7: KITTI's own C++ devkit on the same files, all nine metrics (`kitti-official`).

Needs a devkit built by you: `--peer-dir` names the folder of its `evaluate_depth`. (Current compilers need a
`return true;` in `DepthImage::setInvalid`; unedited optimised builds crash or print wrong numbers.) Without it the
benchmark is skipped.

Run: python -m benchmarks.bench_peers --peer-dir DEVKIT/cpp
"""

from __future__ import annotations

from benchmarks import harness  # isort: skip  (limits threads, so it comes before numpy)

import argparse
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from adubench.evaluators.devkit import OUR_UNITS
from adubench.evaluators.evaluator import EvalOptions, evaluate
from benchmarks import workload
from benchmarks.bench_evaluation import tier

GOAL, MARGINAL_GOAL = 4.0, 1.2


def flat_folders(work: workload.Workload, target: Path, names: tuple[str, ...]) -> tuple[Path, Path]:
    """Copy truth and predictions into flat folders, as the devkit wants them (it writes into the prediction folder)."""
    for kind, folder in (("gt", "gt"), ("pred_default", "pred")):
        (target / folder).mkdir(parents=True, exist_ok=True)
        for i, name in enumerate(names):
            shutil.copyfile(work.folder(kind) / f"{name}.png", target / folder / f"{i:010d}.png")
    return target / "gt", target / "pred"


def run_devkit(program: Path, gt: Path, pred: Path) -> str:
    for rest in ("errors_out", "errors_img", "depth_orig", "depth_ipol", "image_0"):
        shutil.rmtree(pred / rest, ignore_errors=True)
    return subprocess.run([str(program), str(gt), str(pred)], capture_output=True, text=True, check=True).stdout


def run_ours(gt: Path, pred: Path) -> Any:
    with tier(False):
        return evaluate(pred, gt=gt, protocol="kitti-official", options=EvalOptions(cache="off"))[0]


def agreement(printed: str, summary: dict[str, float]) -> float:
    """Largest relative difference of the nine means (the devkit prints six digits)."""
    means = dict(re.findall(r"mean ([a-z ]+): ([0-9.eE+-]+)", printed))
    return max(abs(summary[key] / (float(means[name]) * unit) - 1) for name, (key, unit) in OUR_UNITS.items())


def measure(program: Path, root: Path, rounds: int) -> dict[str, Any]:
    work = workload.make(root / "w1-64", 64)
    with tempfile.TemporaryDirectory() as folder:
        gt, pred = flat_folders(work, Path(folder) / "all", work.names)
        some_gt, some_pred = flat_folders(work, Path(folder) / "some", work.names[:32])
        runs = {
            "devkit": lambda: run_devkit(program, gt, pred),
            "adubench": lambda: run_ours(gt, pred),
            "devkit 32": lambda: run_devkit(program, some_gt, some_pred),
            "adubench 32": lambda: run_ours(some_gt, some_pred),
        }
        report = harness.run_interleaved(runs, rounds)
        off = agreement(run_devkit(program, gt, pred), run_ours(gt, pred).summary)
    found = {name: row["cpu_median_s"] for name, row in report["contestants"].items()}
    marginal = (found["devkit"] - found["devkit 32"]) / (found["adubench"] - found["adubench 32"])
    report["EV7"] = {
        "ratio": harness.ratio(report, "devkit", "adubench"),
        "goal": GOAL,
        "marginal_ratio": marginal,
        "marginal_goal": MARGINAL_GOAL,
        "agreement": off,
    }
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-dir", type=Path, help="folder of the devkit's evaluate_depth")
    parser.add_argument("--root", type=Path, default=Path("benchmarks/.data"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    program = options.peer_dir / "evaluate_depth" if options.peer_dir else None
    if program is None or not program.is_file():
        print("EV7   skipped: no devkit; build KITTI's evaluate_depth and name its folder with --peer-dir")
        return
    report = measure(program.resolve(), options.root, options.rounds)
    if options.output:
        harness.write_json(report, options.output)
    row = report["EV7"]
    print(
        f"EV7   {row['ratio']:6.2f} x KITTI's C++ devkit on 64 images (goal {GOAL}), marginal image "
        f"{row['marginal_ratio']:.2f} x (goal {MARGINAL_GOAL}); means agree to {row['agreement']:.0e}"
    )


if __name__ == "__main__":
    main()
