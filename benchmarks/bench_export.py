"""Encoding 16-bit depth PNGs (X1): bytes and time of both tiers against OpenCV's encoder.

Run: python -m benchmarks.bench_export
"""

from __future__ import annotations

from benchmarks import harness  # isort: skip  (limits threads, so it comes before numpy)

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from adubench.io.depth_png import read_depth_map
from adubench.io.png import decode_grey16, encode_grey16
from benchmarks import workload
from benchmarks.bench_evaluation import tier

GOALS = {"fast": ("OpenCV level 0", 1.9, 0.33), "stdlib": ("OpenCV default", 0.9, 0.75)}


def measure(root: Path, rounds: int, n: int) -> dict[str, Any]:
    import cv2

    work = workload.make(root / "w1-64", 64)
    maps = [read_depth_map(work.folder("pred_default") / f"{name}.png").values for name in work.names[:n]]

    def opencv(*flags: int) -> list[bytes]:
        return [cv2.imencode(".png", m, list(flags))[1].tobytes() for m in maps]

    def ours(fast: bool) -> list[bytes]:
        with tier(fast):
            return [encode_grey16(m) for m in maps]

    runs = {
        "OpenCV level 0": lambda: opencv(cv2.IMWRITE_PNG_COMPRESSION, 0),
        "OpenCV default": lambda: opencv(),
        "stdlib": lambda: ours(False),
        "fast": lambda: ours(True),
    }
    report = harness.run_interleaved(runs, rounds)
    sizes = {name: sum(map(len, run())) / len(maps) / 1000 for name, run in runs.items()}
    for name in ("stdlib", "fast"):
        assert all(np.array_equal(decode_grey16(data, name), m) for data, m in zip(runs[name](), maps, strict=True))
    report["kilobytes"] = sizes
    report["X1"] = {
        name: {
            "against": base,
            "ratio": harness.ratio(report, base, name),
            "goal": speed,
            "bytes": sizes[name] / sizes[base],
            "bytes_goal": share,
        }
        for name, (base, speed, share) in GOALS.items()
    }
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("benchmarks/.data"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("-n", type=int, default=32, help="maps")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    report = measure(options.root, options.rounds, options.n)
    if options.output:
        harness.write_json(report, options.output)
    for name, row in report["X1"].items():
        print(
            f"X1    {row['ratio']:6.2f} x {row['against']} (goal >= {row['goal']}) with {row['bytes']:.2f} of "
            f"its bytes (goal <= {row['bytes_goal']}): {name} encoder"
        )


if __name__ == "__main__":
    main()
