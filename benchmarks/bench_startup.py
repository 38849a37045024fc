"""Start-up: what a command costs before it does anything (S1, S2), and a whole evaluation of 652 packed images (S3).

Measured without the fast extra (ADUBENCH_FAST=0), in processes of their own. Run: python -m benchmarks.bench_startup
"""

from __future__ import annotations

from benchmarks import harness  # isort: skip  (limits threads, so it comes before numpy)

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import bench_evaluation, workload

IMPORT_OF_EVAL = "from adubench.evaluators import evaluator"


# A child's peak memory starts at its parent's, so a bare interpreter starts the command and reports on it.
_WRAPPER = """
import os, sys
null = os.open(os.devnull, os.O_WRONLY)
actions = [(os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, null, 2)]
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=actions)
_, status, usage = os.wait4(pid, 0)
print(status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
"""


def cpu_and_rss(code: list[str]) -> tuple[float, float]:
    """CPU seconds and peak MiB of a process."""
    done = subprocess.run(
        [sys.executable, "-c", _WRAPPER, *code],
        capture_output=True, text=True, check=True, env=os.environ | {"ADUBENCH_FAST": "0"},
    )  # fmt: skip
    status, cpu, rss = done.stdout.split()
    assert int(status) == 0, f"{code} failed"
    return float(cpu), int(rss) / 1024


def median_of(code: list[str], rounds: int) -> tuple[float, float]:
    runs = [cpu_and_rss(code) for _ in range(rounds + 1)][1:]
    return statistics.median(c for c, _ in runs), statistics.median(m for _, m in runs)


def startup(rounds: int) -> dict[str, Any]:
    """S1: `adubench --help` against a bare interpreter; S2: importing the evaluator against importing torch."""
    python = [sys.executable, "-c"]
    bare, bare_mib = median_of([*python, "pass"], rounds)
    help_, help_mib = median_of([sys.executable, "-m", "adubench", "--help"], rounds)
    evaluator, _ = median_of([*python, IMPORT_OF_EVAL], rounds)
    out: dict[str, Any] = {
        "S1": {"bare_cpu_s": bare, "help_cpu_s": help_, "ratio": help_ / bare, "goal": 7.0, "rss_mib": help_mib},
        "bare_rss_mib": bare_mib,
        "eval_import_cpu_s": evaluator,
    }
    if harness.library_versions().get("torch"):
        torch, _ = median_of([*python, "import torch"], rounds)
        out["S2"] = {"torch_cpu_s": torch, "ratio": evaluator / torch, "goal": 0.12}
    else:
        out["S2"] = {"skipped": "torch is not installed; install adubench[train] to measure against its import"}
    return out


_PLAIN = """
import sys
from pathlib import Path
from benchmarks import plain
root = Path(sys.argv[1])
names = tuple(p.relative_to(root / "gt").with_suffix("").as_posix() for p in sorted((root / "gt").rglob("*.png")))
plain.evaluate(root / "gt", root / "pred_default", names)
"""


def end_to_end(root: Path, rounds: int, n: int) -> dict[str, Any]:
    """S3: `adubench eval` of packed predictions and truth, the process included, against P and its imports."""
    work = workload.make(root / f"w1-{n}", n)
    packs = bench_evaluation.make_packs(work)
    ours = [sys.executable, "-m", "adubench", "eval", str(packs["pred"]), "--gt", str(packs["gt"])]
    ours += ["--protocol", bench_evaluation.PROTOCOL, "--cache", "off"]
    runs = {
        "P": [sys.executable, "-c", _PLAIN, str(work.root)],
        "eval": ours,
    }
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, code in runs.items():
            cpu[name].append(cpu_and_rss(code)[0])
    medians = {name: statistics.median(values) for name, values in cpu.items()}
    return {"n": n, "cpu_median_s": medians, "ratio": medians["P"] / medians["eval"], "goal": 6.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("benchmarks/.data"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("-n", type=int, default=652, help="images of S3")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    report = startup(options.rounds) | {"S3": end_to_end(options.root, max(3, options.rounds // 2), options.n)}
    report["versions"] = harness.library_versions()
    if options.output:
        harness.write_json(report, options.output)
    s1, s2, s3 = report["S1"], report["S2"], report["S3"]
    print(f"S1    {s1['ratio']:6.2f} x a bare interpreter (goal <= 7), {s1['rss_mib']:.1f} MiB (goal <= 30): --help")
    print(
        f"S2    {s2['ratio']:6.3f} of importing torch (goal <= 0.12)"
        if "ratio" in s2
        else f"S2    skipped: {s2['skipped']}"
    )
    print(f"S3    {s3['ratio']:6.2f} x P with its imports (goal >= 6): adubench eval, {s3['n']} packed images")


if __name__ == "__main__":
    main()
