"""What each method distils and what it costs: parameters, memory, arithmetic, step and inference time, by recipe.

Parameters, GFLOP and memory are those of the recipe as it stands (shapes only, nothing is computed). Times are CPU
seconds of one thread, the faster of two runs, at one size for all. A training step of NeWCRFs is timed with tiny07, as
large07 and its teacher need more memory than a small machine has.

python -m benchmarks.methods_table [--measure] [--docs docs]
"""

from __future__ import annotations

import benchmarks.harness  # noqa: F401  isort: skip  (limits threads, so it comes before numpy)

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.make_tables import markdown, rewrite

RESULTS = Path(__file__).parent / "results" / "methods.json"
DOCS = Path(__file__).parents[1] / "docs"
INFERENCE, STEP, BATCH = (224, 640), (96, 320), 2
REPEATS = 2
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
}  # fmt: skip


def measure(name: str) -> dict[str, Any]:
    """Cost of one recipe."""
    from adubench.recipes.recipe import load_recipe
    from adubench.training.estimate import estimate

    recipe = load_recipe(name)
    cost = estimate(recipe, "student")
    return {
        "parameters": cost.parameters.get("network"),
        "trained": cost.trained or None,
        "step_gflop": cost.step_gflop or None,
        "memory_gib": cost.bytes / 2**30 or None,
        "batch": recipe.train.batch_size,
        "size": _size(recipe),
        "infer_s": _seconds(_inference(name)),
        "step_s": _seconds(_step(name)),
    }


def _size(recipe: Any) -> list[int]:
    part = recipe.self_supervised if recipe.self_supervision else recipe.input
    return [part.height, part.width]


def _random(name: str, size: tuple[int, int]) -> Any:
    """The recipe with random weights at another size."""
    from adubench.recipes.recipe import load_recipe

    h, w = size
    plain = load_recipe(name)
    section = "self_supervised" if plain.self_supervision else "input"
    changes = [f"{section}.height={h}", f"{section}.width={w}"]
    if plain.self_supervision:
        changes += ["self_supervised.init=random", "self_supervised.pose_init=random"]
    elif plain.model is not None:
        changes += ["model.init=random", "tie_kd.ignore_top_rows=0"]
    else:
        changes += ["student.init=random", "teacher.init=random"]
        if size == STEP:
            changes += ["student.encoder=tiny07", "teacher.encoder=tiny07"]
    return load_recipe(name, changes)


def _inference(name: str) -> Callable[[], Any] | None:
    import torch

    from adubench.training.build import build_network

    teacher = None
    network = build_network(_random(name, INFERENCE), "student", teacher).eval()
    image = torch.zeros(1, 3, *INFERENCE)

    def run() -> None:
        with torch.inference_mode():
            network.infer(image)

    return run


def _step(name: str) -> Callable[[], Any] | None:
    """A training step with its teacher and its loss; None for networks that do not take the size."""
    import torch

    from adubench.recipes.recipe import needs_teacher
    from adubench.training.build import build_network, build_optimizer
    from adubench.training.objectives import build_objective

    if name.startswith("adabins"):
        return None  # its 129 patches need 352x384 at least
    recipe = _random(name, STEP)
    teacher = build_network(recipe, "teacher") if needs_teacher(recipe) else None
    objective = build_objective(recipe, "student", build_network(recipe, "student", teacher), teacher).train()
    optimizer, batch = build_optimizer(objective, recipe.train), _batch(recipe, torch)

    def run() -> None:
        objective(batch, 0)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def _batch(recipe: Any, torch: Any) -> dict[str, Any]:
    if recipe.self_supervision:
        from adubench.training.self_supervised_build import shape_batch

        one = shape_batch(recipe.self_supervised)
        return {k: torch.cat([v] * BATCH) if isinstance(v, torch.Tensor) else v * BATCH for k, v in one.items()}
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(BATCH, 3, *STEP, generator=generator)
    depth = torch.rand(BATCH, 1, *STEP, generator=generator) * 60 + 2
    mask = torch.ones(BATCH, 1, *STEP, dtype=torch.bool)
    return {"image": image, "right": image.flip(0), "gt": depth, "teacher": depth, "teacher_mask": mask,
            "frames": ["a", "b"]}  # fmt: skip


def _seconds(run: Callable[[], Any] | None) -> float | None:
    """CPU seconds of the faster run."""
    if run is None:
        return None
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return min(seconds)


def _measure_all(done: dict[str, Any]) -> None:
    """Measure the rows that are not there yet; each is written as soon as it is there."""
    import torch

    torch.set_num_threads(1)
    for name in METHODS:
        if name not in done:
            done[name] = measure(name)
            print(name, done[name], flush=True)
            ordered = {key: done[key] for key in METHODS if key in done}
            report = {"methods": ordered, "torch": torch.__version__, "threads": 1}
            RESULTS.write_text(json.dumps(report, indent=1) + "\n")


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
            _number(row["memory_gib"], 1, "{:.1f}"), _number(row["step_s"], 1, "{:.2f}"),
            "-" if row["infer_s"] is None else f"{1 / row['infer_s']:.2f}",
        ))  # fmt: skip
    first = markdown(("Method", "Distils", "Where", "Assumption", "Recipe"), what, numbers=False)
    header = ("Method", "Network (M)", "Trained (M)", "Crop x batch", "GFLOP/sample and step", "Memory (GiB)",
              f"Step of {BATCH} x {STEP[0]}x{STEP[1]} (CPU s)", f"{INFERENCE[0]}x{INFERENCE[1]} (FPS)")  # fmt: skip
    return {"methods": first, "methods-cost": markdown(header, cost)}


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
        _measure_all({} if options.again else done)
    rewrite(options.docs / "methods.md", table(json.loads(RESULTS.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
