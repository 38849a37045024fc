"""What each method distils and what it costs: parameters, memory, arithmetic, step and inference time, by recipe.

Every number comes from `adubench bench recipe`. Parameters, GFLOP and memory are those of the recipe as it stands
(shapes only, nothing is computed). Times are CPU seconds of one thread, medians, at one size for all but AdaBins, which
takes no image that small. A training step of NeWCRFs is timed with tiny07, as large07 and its teacher need more memory
than a small machine has.

python -m benchmarks.methods_table [--measure] [--docs docs]
"""

from __future__ import annotations

import benchmarks.harness  # noqa: F401  isort: skip  (limits threads, so it comes before numpy)

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adubench.io.atomic import write_text
from benchmarks.make_tables import markdown, rewrite

RESULTS = Path(__file__).parent / "results" / "methods.json"
DOCS = Path(__file__).parents[1] / "docs"
INFERENCE, STEP, BATCH = (224, 640), (96, 320), 2
ROUNDS = 2
STEP_OF = {"adabins-kitti": (352, 384)}
_TINY = ("student.encoder=tiny07", "teacher.encoder=tiny07")
SMALLER = {"newcrfs-code": _TINY, "adu-kitti-eigen": _TINY}
#: Recipe -> (method, what is distilled, where, assumption).
METHODS: dict[str, tuple[str, str, str, str]] = {
    "newcrfs-code": ("supervised NeWCRFs", "nothing", "-", "depth maps of the training images"),
    "adu-kitti-eigen": (
        "ADU-Depth", "features, depth, where to look", "encoder and decoder levels, output",
        "stereo pairs for the teacher; depth maps",
    ),
    "monodepth2-m": ("Monodepth2, mono", "nothing", "-", "a moving camera, a still world; scale unknown"),
    "sub-depth-monodepth2": (
        "SUB-Depth on Monodepth2", "depth of a teacher of the same kind, reconstruction, both with uncertainty",
        "output", "as Monodepth2; the teacher is trained first",
    ),
    "hr-depth-m": ("HR-Depth, mono", "nothing", "-", "as Monodepth2"),
    "sub-depth-hr-depth": ("SUB-Depth on HR-Depth", "as on Monodepth2", "output", "as on Monodepth2"),
    "hr-depth-lite-m": ("HR-Depth-Lite, mono", "nothing", "-", "as Monodepth2"),
    "diffnet-m": ("DIFFNet, mono", "nothing", "-", "as Monodepth2"),
    "sub-depth-diffnet": ("SUB-Depth on DIFFNet", "as on Monodepth2", "output", "as on Monodepth2"),
    "tie-kd-mobilenetv2-adabins": (
        "TIE-KD, MobileNetV2", "depth as distribution over bins, and structure", "output",
        "stored maps of any metric teacher",
    ),
    "tie-kd-resnet18-adabins": ("TIE-KD, ResNet-18", "the same", "output", "the same"),
    "tie-kd-resnet50-adabins": ("TIE-KD, ResNet-50", "the same", "output", "the same"),
    "response-kd-mobilenetv2-adabins": (
        "response KD, MobileNetV2", "depth (SSIM + SI)", "output", "stored maps of any metric teacher"
    ),
    "tie-kd-mobilenetv2-baseline": ("SI baseline, MobileNetV2", "nothing", "-", "depth maps of the training images"),
    "adabins-kitti": ("AdaBins", "nothing; a teacher", "-", "depth maps of the training images"),
    "bts-kitti": ("BTS, ResNet-50", "nothing; a teacher", "-", "depth maps; focal length per image"),
    "bts-kitti-densenet161": ("BTS, DenseNet-161", "nothing; a teacher", "-", "depth maps; focal length per image"),
}  # fmt: skip


def measure(name: str) -> dict[str, Any]:
    """Cost of one recipe: as it stands by shapes, a step at the common size, and an image through its network."""
    crop = STEP_OF.get(name, STEP)
    whole = _bench(name, "--no-step", "--image-size", f"{INFERENCE[0]}x{INFERENCE[1]}")
    small = [part for key in SMALLER.get(name, ()) for part in ("--set", key)]
    step = _bench(name, *small, "--no-inference", "--size", f"{crop[0]}x{crop[1]}", "--batch", str(BATCH))
    return {
        "parameters": whole["parameters"]["deployed"],
        "trained": whole["parameters"]["trained"],
        "step_gflop": whole["gflop"]["step"],
        "memory_gib": whole["memory"]["gib"],
        "batch": whole["batch"],
        "size": whole["size"],
        "infer_s": whole["inference"]["cpu_ms"] / 1000,
        "step_s": step["step"]["cpu_ms"] / 1000,
        "step_size": list(crop),
    }


def _bench(name: str, *options: str) -> dict[str, Any]:
    """What `adubench bench recipe NAME OPTIONS --json` prints."""
    from click.testing import CliRunner

    from adubench.commands.bench import command

    words = ["recipe", name, *options, "--device", "cpu", "--threads", "1", "--rounds", str(ROUNDS), "--json"]
    found = CliRunner().invoke(command, words, catch_exceptions=False)
    return json.loads(found.stdout)


def _measure_all(done: dict[str, Any], names: Sequence[str], page: Path) -> None:
    """Measure rows; each is written, and shown on the page, as soon as it is there."""
    import torch

    for name in names:
        done[name] = measure(name)
        print(name, done[name], flush=True)
        ordered = {key: done[key] for key in METHODS if key in done}
        report = {"methods": ordered, "torch": torch.__version__, "threads": 1}
        write_text(RESULTS, json.dumps(report, indent=1) + "\n")
        rewrite(page, table(report))


def table(report: dict[str, Any]) -> dict[str, str]:
    """Marked blocks of docs/methods.md."""
    what = [(title, distils, where, assumption, f"`{name}`")
            for name, (title, distils, where, assumption) in METHODS.items()]  # fmt: skip
    cost = []
    for name, row in report["methods"].items():
        title = METHODS[name][0]
        cost.append((
            title, _number(row["parameters"], 1e6, "{:.1f}"), _number(row["trained"], 1e6, "{:.1f}"),
            f"{row['size'][0]}x{row['size'][1]} x {row['batch']}", _number(row["step_gflop"], 1, "{:,.0f}"),
            _number(row["memory_gib"], 1, "{:.1f}"), _step(row),
            "-" if row["infer_s"] is None else f"{1 / row['infer_s']:.2f}",
        ))  # fmt: skip
    first = markdown(("Method", "Distils", "Where", "Assumption", "Recipe"), what, numbers=False)
    header = ("Method", "Network (M)", "Trained (M)", "Crop x batch", "GFLOP/sample and step", "Memory (GiB)",
              f"Step of {BATCH} x {STEP[0]}x{STEP[1]} (CPU s)", f"{INFERENCE[0]}x{INFERENCE[1]} (FPS)")  # fmt: skip
    return {"methods": first, "methods-cost": markdown(header, cost)}


def _step(row: dict[str, Any]) -> str:
    size = tuple(row.get("step_size", STEP))
    return _number(row["step_s"], 1, "{:.2f}") + ("" if size == STEP else f" at {size[0]}x{size[1]}")


def _number(value: float | None, unit: float, form: str) -> str:
    return "-" if value is None else form.format(value / unit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true", help="measure what is missing; without, only write the page")
    parser.add_argument("--again", action="store_true", help="with --measure: all rows, not only missing ones")
    parser.add_argument("--docs", type=Path, default=DOCS)
    options = parser.parse_args()
    done = json.loads(RESULTS.read_text(encoding="utf-8"))["methods"] if RESULTS.is_file() else {}
    if options.measure:
        wanted = [name for name in METHODS if options.again or "step_size" not in done.get(name, {})]
        _measure_all(done, wanted, options.docs / "methods.md")
    rewrite(options.docs / "methods.md", table(json.loads(RESULTS.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
