"""Run contestants interleaved and report medians of CPU time, so that a ratio survives a busy machine.

Import this module before numpy: it limits the numerical libraries to one thread per process. Rules: every round runs
all contestants in a freshly shuffled order; the first round is discarded; CPU time is user + system with children
included.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip
if "numpy" not in sys.modules:
    for _variable in THREAD_VARIABLES:
        os.environ[_variable] = "1"

PACKAGES = ("numpy", "scipy", "h5py", "Pillow", "opencv-python-headless", "numba", "isal", "torch")
VOID_SPREAD = 0.15


def cpu_seconds() -> float:
    """User + system seconds of this process and its finished children."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def run_interleaved(
    contestants: dict[str, Callable[[], Any]], rounds: int = 7, *, warmup: int = 1, seed: int = 0
) -> dict[str, Any]:
    """Time each contestant once per round, in shuffled order.

    Args:
        contestants: name -> function without arguments.
        rounds: counted rounds, at least 5.
        warmup: rounds before them that are discarded.
        seed: of the order.

    Returns:
        `rounds`, `load_before`, `load_after`, `cores`, `threads`, `versions`, and `contestants`: name ->
        `cpu_median_s`, `cpu_iqr`, `wall_median_s`, `wall_min_s`, `wall_iqr` (interquartile range / median).
    """
    if rounds < 5:
        raise ValueError(f"{rounds} rounds: at least 5 are needed for a median with a spread")
    order, shuffle = list(contestants), random.Random(seed)
    cpu: dict[str, list[float]] = {name: [] for name in order}
    wall: dict[str, list[float]] = {name: [] for name in order}
    before = os.getloadavg()[0]
    for position in range(warmup + rounds):
        shuffle.shuffle(order)
        for name in order:
            gc.collect()
            wall_start, cpu_start = time.perf_counter(), cpu_seconds()
            contestants[name]()
            spent = cpu_seconds() - cpu_start, time.perf_counter() - wall_start
            if position >= warmup:
                cpu[name].append(spent[0])
                wall[name].append(spent[1])
    return {
        "rounds": rounds,
        "load_before": round(before, 2),
        "load_after": round(os.getloadavg()[0], 2),
        "cores": os.cpu_count(),
        "threads": {name: os.environ.get(name) for name in THREAD_VARIABLES},
        "versions": library_versions(),
        "contestants": {
            name: {
                "cpu_median_s": statistics.median(cpu[name]),
                "cpu_iqr": spread(cpu[name]),
                "wall_median_s": statistics.median(wall[name]),
                "wall_min_s": min(wall[name]),
                "wall_iqr": spread(wall[name]),
            }
            for name in contestants
        },
    }


def spread(values: list[float]) -> float:
    """Interquartile range / median."""
    low, _, high = statistics.quantiles(values, n=4)
    middle = statistics.median(values)
    return (high - low) / middle if middle else 0.0


def ratio(report: dict[str, Any], baseline: str, product: str, *, clock: str = "cpu") -> float:
    """Median of the baseline / median of the product."""
    found = report["contestants"]
    return float(found[baseline][f"{clock}_median_s"] / found[product][f"{clock}_median_s"])


def wall_is_void(report: dict[str, Any], baseline: str) -> bool:
    """True when a claim in wall time must not be made: the baseline's spread or the load was too high."""
    load = max(report["load_before"], report["load_after"])
    return bool(report["contestants"][baseline]["wall_iqr"] > VOID_SPREAD or load > (report["cores"] or 1))


def library_versions() -> dict[str, str]:
    """Versions of Python and the libraries that decide speed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_json(report: dict[str, Any], path: str | Path | None) -> None:
    """Write a report to a file, or to stdout without one."""
    text = json.dumps(report, indent=1, sort_keys=False) + "\n"
    if path is None:
        sys.stdout.write(text)
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
