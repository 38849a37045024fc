"""`adubench bench`: how fast networks, loaders and evaluations are on this machine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
_PATH = click.Path(path_type=Path)
_JSON: Decorator = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_THREADS: Decorator = click.option(
    "--threads", type=click.IntRange(1), default=1, show_default=True, help="Of torch, on the CPU."
)
EPILOG = """
\b
Examples:
  adubench bench model newcrfs:tiny07 --size 352x1120
  adubench bench model runs/base/student/last.safetensors --batch 8 --precision bf16 --train
  adubench bench recipe sub-depth-monodepth2 --size 96x320 --batch 2
  adubench bench loader demo --data-root SYNTH --step-ms 120
  adubench bench evaluation predictions/ --split eigen --data-root KITTI
"""

RECIPE_EPILOG = """
\b
Examples:
  adubench bench recipe sub-depth-monodepth2 --device cuda --precision bf16
  adubench bench recipe tie-kd-resnet18-adabins --size 96x320 --batch 2 --image-size 352x1216 --json
  adubench bench recipe adabins-kitti --size 352x384 --batch 1 --rounds 2
  adubench bench recipe adu-kitti-eigen --no-step --device cpu
"""


@click.group("bench", epilog=EPILOG)
def command() -> None:
    """Measure speed on this machine: medians with their spread. The ratios of the design are in benchmarks/."""


def _rounds(default: int) -> Decorator:
    return click.option("--rounds", type=click.IntRange(1), default=default, show_default=True, help="Counted rounds.")


@command.command("model")
@click.argument("source", metavar="NAME|CHECKPOINT")
@click.option("--size", help="HEIGHTxWIDTH. Default: the network's own size, else 352x1120.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Images at a time.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--flip/--no-flip", default=True, show_default=True, help="Also with averaging over the mirrored image.")
@click.option("--precision", type=click.Choice(["fp32", "tf32", "bf16"]), default="fp32", show_default=True)
@click.option("--train", is_flag=True, help="Also a training step (loss: mean depth; AdamW).")
@_rounds(10)
@_THREADS
@_JSON
def model_command(source: str, size: str | None, threads: int, as_json: bool, **options: Any) -> None:
    """Measure a network: parameters, FLOP, milliseconds, frames per second, memory.

    NAME is a family of `adubench list models`, with its variant after a colon: newcrfs:tiny07.
    """
    from adubench.commands._options import parse_size
    from adubench.training.bench import bench_model

    with _threads(threads):
        found = bench_model(source, size=parse_size(size) if size is not None else None, **options)
    rows = [
        ("parameters", f"{found['parameters'] / 1e6:.3f} M", ""),
        ("arithmetic, one image", f"{found['gflop']:.3f} GFLOP", ""),
        _row("forward", found["forward"], f"{found['forward']['fps']:.2f} frames/s"),
        ("peak memory above the weights", _mib(found["forward"]["peak_mib"]), ""),
    ]
    if "flip" in found:
        rows.append(_row("with flip averaging", found["flip"], f"{found['flip']['fps']:.2f} frames/s"))
    if "train" in found:
        rows.append(_row("training step", found["train"], f"{found['train']['samples_per_s']:.2f} samples/s"))
        rows.append(("peak memory of a training step", _mib(found["train"]["peak_mib"]), ""))
    height, width = found["size"]
    title = f"{found['network']}, {found['batch']} x {height}x{width}, {found['precision']}"
    _show(found, title, rows, as_json=as_json)


@command.command("recipe", epilog=RECIPE_EPILOG)
@click.argument("recipe_name", metavar="RECIPE")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key of the recipe; repeatable.")
@click.option("--stage", type=click.Choice(["teacher", "student"]), default="student", show_default=True)
@click.option("--size", help="HEIGHTxWIDTH of the training crop. Default: the recipe's.")
@click.option("--image-size", help="HEIGHTxWIDTH at inference. Default: the crop.")
@click.option("--batch", type=click.IntRange(1), help="Samples of a step, all at once. Default: the recipe's.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--precision", type=click.Choice(["fp32", "tf32", "bf16"]), default="fp32", show_default=True)
@click.option("--step/--no-step", default=True, show_default=True, help="Time the training step.")
@click.option("--inference/--no-inference", default=True, show_default=True, help="Time the deployed network.")
@_rounds(5)
@_THREADS
@_JSON
def recipe_command(
    recipe_name: str,
    overrides: tuple[str, ...],
    size: str | None,
    image_size: str | None,
    threads: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure what a recipe costs: a real training step, and the network that it deploys.

    The step has teacher, adapters, pose and uncertainty networks, loss and optimiser, on noise instead of data. Weights
    are random, nothing is downloaded. Memory is measured on CUDA and worked out from shapes elsewhere.
    """
    from adubench.commands._options import parse_size
    from adubench.training.bench_recipe import RecipeBench, bench_recipe

    sizes: dict[str, Any] = {
        "size": None if size is None else parse_size(size),
        "image_size": None if image_size is None else parse_size(image_size, "--image-size"),
    }
    with _threads(threads):
        found = bench_recipe(recipe_name, overrides, RecipeBench(**sizes, **options))
    height, width = found["size"]
    title = f"{found['recipe']}, {found['stage']}, {found['batch']} x {height}x{width}, {found['precision']}"
    _show(found, title, _recipe_rows(found), as_json=as_json)


def _recipe_rows(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    count, gflop, memory = found["parameters"], found["gflop"]["step"], found["memory"]
    unknown = "not known"
    rows = [
        ("parameters, deployed", unknown if count["deployed"] is None else f"{count['deployed'] / 1e6:.3f} M", ""),
        ("parameters, trained", unknown if count["trained"] is None else f"{count['trained'] / 1e6:.3f} M", ""),
        ("arithmetic of a step", unknown if gflop is None else f"{gflop:.3f} GFLOP", "per sample"),
        ("memory of a step", unknown if memory["gib"] is None else f"{memory['gib']:.2f} GiB",
         ", ".join((memory["how"], *memory.get("remarks", ())))),
    ]  # fmt: skip
    if count["frozen teacher"]:
        rows.insert(2, ("parameters of the frozen teacher", f"{count['frozen teacher'] / 1e6:.3f} M", ""))
    if "step" in found:
        step = found["step"]
        rows.append(_row("training step", step, f"{step['samples_per_s']:.2f} samples/s; CPU {step['cpu_ms']:.0f} ms"))
    if "inference" in found:
        one = found["inference"]
        rows.append(_row("inference of {}x{}".format(*one["size"]), one, f"{one['fps']:.2f} frames/s"))
    return rows


@command.command("loader")
@click.argument("recipe_name", metavar="RECIPE")
@click.option("--data-root", type=_PATH, help="Where the data set lies [env ADUBENCH_DATA_ROOT].")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key of the recipe; repeatable.")
@click.option("--stage", type=click.Choice(["teacher", "student"]), default="student", show_default=True)
@click.option("--batches", type=click.IntRange(1), default=20, show_default=True, help="Per round.")
@click.option("--step-ms", type=float, help="Of a training step (bench model --train): prints the share of waiting.")
@_rounds(3)
@_JSON
def loader_command(
    recipe_name: str,
    data_root: Path | None,
    overrides: tuple[str, ...],
    step_ms: float | None,
    as_json: bool,
    **rest: Any,
) -> None:
    """Measure how many samples per second a recipe's loader gives."""
    from adubench.errors import UsageError
    from adubench.recipes.recipe import load_recipe
    from adubench.training.bench import bench_loader, waiting_share

    if step_ms is not None and step_ms <= 0:
        raise UsageError(f"--step-ms {step_ms:g}: expected milliseconds, above 0.")
    with _threads(1):
        found = bench_loader(load_recipe(recipe_name, list(overrides)), data_root, **rest)
    rows = [
        ("samples", f"{found['samples_per_s']:.1f} samples/s", _spread(found)),
        ("per sample", f"{found['ms_per_sample']:.2f} ms", ""),
        ("first batch", f"{found['first_batch_ms']:.0f} ms", "start of the workers included"),
    ]
    if step_ms is not None:
        found["step_ms"] = step_ms
        found["waiting"] = waiting_share(found["samples_per_s"], step_ms, found["batch"])
        rows.append(("share of waiting", f"{100 * found['waiting']:.1f} %", f"at {step_ms:g} ms per step"))
    title = f"loader of {found['recipe']}, batch {found['batch']}, {found['workers']} workers, {found['frames']} frames"
    _show(found, title, rows, as_json=as_json)


@command.command("evaluation")
@click.argument("predictions", type=_PATH)
@click.option("--split", help="Named split or list file.")
@click.option("--gt", type=_PATH, help="Ground truth: a folder, or the root of its maps beside --split.")
@click.option("--data-root", type=_PATH, help="Where the data set lies [env ADUBENCH_DATA_ROOT].")
@click.option("--protocol", help="Default: the split's own, else full-frame.")
@click.option("--workers", type=click.IntRange(0), default=1, show_default=True, help="Processes; 0 takes every core.")
@_rounds(5)
@_JSON
def evaluation_command(predictions: Path, workers: int, rounds: int, as_json: bool, **where: Any) -> None:
    """Measure how many images per second `adubench eval` scores, once the ground truth is packed."""
    from adubench.evaluators.eval_options import EvalOptions
    from adubench.evaluators.evaluator import evaluate
    from adubench.training.bench import bench_evaluation

    options = EvalOptions(workers=workers)

    def once() -> int:
        return len(evaluate(predictions, options=options, **where)[0].per_image["frame"])

    found = bench_evaluation(once, rounds=rounds) | {"workers": workers}
    rows = [
        ("images", f"{found['images_per_s']:.1f} images/s", ""),
        _row("one evaluation", found["evaluation"], f"{found['images']} images"),
    ]
    _show(found, f"evaluation of {predictions}, {workers} workers", rows, as_json=as_json)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Limit torch's threads while the block runs."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _row(what: str, times: dict[str, Any], rate: str) -> tuple[str, str, str]:
    return what, f"{times['ms']:.1f} ms", f"{rate}; {_spread(times)}"


def _spread(times: dict[str, Any]) -> str:
    return f"spread {100 * times['iqr']:.0f} %"


def _mib(value: float | None) -> str:
    return "not known on this system" if value is None else f"{value:.0f} MiB"


def _show(found: dict[str, Any], title: str, rows: Sequence[tuple[str, str, str]], *, as_json: bool) -> None:
    import json

    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    from rich.table import Table
    from rich.text import Text

    from adubench.commands._options import stdout_console

    table = Table(title=title, title_justify="left", show_header=False)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = stdout_console()
    console.print(table)
    facts = ", ".join(f"{name} {value}" for name, value in found["environment"].items())
    console.print(Text(f"medians of {found['rounds']} rounds, spread = interquartile range / median; {facts}"))
