"""How fast things are here: a network, a recipe's loader, an evaluation. Medians with their spread, never single times.

Networks are timed on random numbers; their speed does not depend on their weights. A training step here is forward and
backward pass of the mean depth, and AdamW: what a loss and a teacher cost comes on top.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from adubench.errors import UsageError, unknown_name
from adubench.models.zoo import MODELS, build
from adubench.training.network_predictor import resolve_device

if TYPE_CHECKING:
    from adubench.models.interface import DepthNetwork
    from adubench.recipes.schema import Recipe

DEFAULT_SIZE = (352, 1120)
PRECISIONS = ("fp32", "tf32", "bf16")
_VARIANT_KEYS = ("variant", "encoder", "backbone")


def timed(run: Callable[[], Any], rounds: int, device: torch.device) -> dict[str, float]:
    """Time a function after one round that is not counted.

    Returns:
        `ms` (median of wall time), `iqr` (interquartile range / median), `min_ms`, `cpu_ms` (median of CPU time).
    """
    wall, cpu = [], []
    for i in range(rounds + 1):
        _wait(device)
        start, start_cpu = time.perf_counter(), time.process_time()
        run()
        _wait(device)
        if i:
            wall.append(1000 * (time.perf_counter() - start))
            cpu.append(1000 * (time.process_time() - start_cpu))
    return {"ms": statistics.median(wall), "iqr": _spread(wall), "min_ms": min(wall), "cpu_ms": statistics.median(cpu)}


def _spread(values: list[float]) -> float:
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4)
    return (high - low) / statistics.median(values)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def environment(device: torch.device | None = None) -> dict[str, Any]:
    """Say on what was measured: versions, threads, device."""
    found: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__}
    found["threads"] = torch.get_num_threads()
    if device is not None:
        found["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    return found


# ---- networks --------------------------------------------------------------------------------------------------------


def open_network(source: str, device: torch.device) -> tuple[DepthNetwork, str]:
    """Build a network of the zoo by name (`newcrfs`, `newcrfs:tiny07`), or load a checkpoint.

    Raises:
        UsageError: no such family or variant.
        CheckpointError: a broken checkpoint.
    """
    from adubench.training.checkpoint import is_checkpoint, load_network

    if is_checkpoint(source):
        return load_network(source, device)[0], Path(source).stem
    family, _, variant = source.partition(":")
    if family not in MODELS:
        raise unknown_name("network", family, MODELS, hint="A name of `adubench list models`, or a checkpoint.")
    config: dict[str, Any] = {"family": family}
    if variant:
        defaults = getattr(import_module(MODELS[family].builder.split(":")[0]), "DEFAULTS", {})
        key = next((key for key in _VARIANT_KEYS if key in defaults), None)
        if key is None:
            raise UsageError(f"{source}: networks of family {family} have no variants.")
        config[key] = variant
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(config).to(device).eval(), source


def bench_model(
    source: str,
    *,
    size: tuple[int, int] | None = None,
    batch: int = 1,
    device: str = "auto",
    flip: bool = True,
    precision: str = "fp32",
    rounds: int = 10,
    train: bool = False,
) -> dict[str, Any]:
    """Measure a network.

    Args:
        source: name in the zoo, or a checkpoint.
        size: (height, width) of the images; default the network's own, else 352x1120.
        batch: images at a time.
        device: as everywhere.
        flip: also with the second pass that averaging over the mirrored image needs.
        precision: `fp32`; `tf32` and `bf16` on CUDA only.
        rounds: counted rounds.
        train: also a training step.

    Raises:
        UsageError: an unknown name, or a precision that the device does not have.
    """
    where = resolve_device(device)
    if precision != "fp32" and where.type != "cuda":
        raise UsageError(f"--precision {precision}: needs a CUDA device, and this is {where.type}.")
    network, label = open_network(source, where)
    height, width = size or network.input_rule.size or DEFAULT_SIZE
    images = torch.randn(batch, network.input_rule.channels, height, width, device=where)
    focal = torch.full((batch,), 715.0, device=where) if network.input_rule.needs_focal else None

    def forward() -> None:
        with torch.inference_mode(), cast_to(precision, where):
            network.infer(images, focal=focal)

    def both() -> None:
        forward()
        with torch.inference_mode(), cast_to(precision, where):
            network.infer(images.flip(-1), focal=focal)

    with precision_mode(precision):
        result: dict[str, Any] = {
            "network": label, "size": [height, width], "batch": batch, "precision": precision, "rounds": rounds,
            "parameters": sum(p.numel() for p in network.parameters()),
            "gflop": _gflop(network, images[:1], None if focal is None else focal[:1]),
        }  # fmt: skip
        result["forward"] = with_fps(timed(forward, rounds, where), batch)
        result["forward"]["peak_mib"] = _peak_mib(forward, where)
        if flip:
            result["flip"] = with_fps(timed(both, rounds, where), batch)
        if train:
            step = _training_step(network, images, focal, precision, where)
            result["train"] = timed(step, rounds, where)
            result["train"]["samples_per_s"] = 1000 * batch / result["train"]["ms"]
            result["train"]["peak_mib"] = _peak_mib(step, where)
    return result | {"environment": environment(where)}


def with_fps(times: dict[str, float], batch: int) -> dict[str, Any]:
    """Add images per second to the times of a batch."""
    return {**times, "fps": 1000 * batch / times["ms"]}


def cast_to(precision: str, device: torch.device) -> Any:
    """Return the context that a forward pass of a precision runs in."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


@contextmanager
def precision_mode(name: str) -> Iterator[None]:
    """Switch TF32 on or off while the block runs."""
    places: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [place.allow_tf32 for place in places]
    try:
        for place in places:
            place.allow_tf32 = name == "tf32"
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.allow_tf32 = value


def _gflop(network: DepthNetwork, image: torch.Tensor, focal: torch.Tensor | None) -> float:
    """Count the operations of matrix products and convolutions for one image."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.infer(image, focal=focal)
    return float(counter.get_total_flops()) / 1e9


def _training_step(
    network: DepthNetwork, images: torch.Tensor, focal: torch.Tensor | None, precision: str, device: torch.device
) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-6)

    def step() -> None:
        network.train()
        optimizer.zero_grad()
        with cast_to(precision, device):
            found = network.infer(images, focal=focal)
        out: Any = found.depth if found.depth is not None else found.disparity
        out.float().mean().backward()
        optimizer.step()
        network.eval()

    return step


def _peak_mib(run: Callable[[], Any], device: torch.device) -> float | None:
    """Memory that a function needs at its peak above what is held before; None where the system does not tell."""
    if device.type == "cuda":
        held = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return float(torch.cuda.max_memory_allocated(device) - held) / 2**20
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts again at what is held now
        before = _high_water_mib()
        run()
        return max(0.0, _high_water_mib() - before)
    except (OSError, StopIteration):
        return None


def _high_water_mib() -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


# ---- loader and evaluation -------------------------------------------------------------------------------------------


def bench_loader(
    recipe: Recipe, data_root: Path | None, *, stage: str = "student", batches: int = 20, rounds: int = 3
) -> dict[str, Any]:
    """Measure how many samples per second a recipe's loader gives, with nobody taking time between batches.

    Args:
        recipe: the recipe; its `train.workers` and `train.batch_size` count.
        data_root: where the data lies.
        stage: `teacher` or `student`.
        batches: of a round.
        rounds: counted rounds, each with a loader of its own; its start is reported apart.

    Raises:
        UsageError: no data root, or a recipe whose samples are triplets or teacher maps.
        DataError: nothing to load.
    """
    from adubench.training.build import open_data, train_section
    from adubench.training.data import TrainingSet, make_loader
    from adubench.training.sampler import EpochSampler

    train = train_section(recipe, stage)
    data = open_data(recipe, stage, data_root)
    samples = getattr(data, "samples", None)
    if not isinstance(samples, TrainingSet):
        raise UsageError(f"bench loader: recipe {recipe.name} does not train on single frames or pairs.")
    rates, starts = [], []
    for i in range(rounds + 1):
        sampler = EpochSampler(len(samples), recipe.seed, train.batch_size)
        loader = iter(make_loader(samples, sampler, workers=train.workers, form="float"))
        begin = time.perf_counter()
        count, taken = len(next(loader)["frames"]), 0
        first = time.perf_counter()
        for batch in loader:
            taken += len(batch["frames"])
            if taken >= batches * train.batch_size:
                break
        spent = time.perf_counter() - (first if taken else begin)
        if i:
            starts.append(1000 * (first - begin))
            rates.append((taken or count) / spent)
    rate = statistics.median(rates)
    return {
        "recipe": recipe.name, "stage": stage, "frames": len(samples), "batch": train.batch_size,
        "workers": train.workers, "rounds": rounds, "samples_per_s": rate, "iqr": _spread(rates),
        "ms_per_sample": 1000 / rate, "first_batch_ms": statistics.median(starts), "environment": environment(),
    }  # fmt: skip


def waiting_share(samples_per_s: float, step_ms: float, batch: int) -> float:
    """Return the share of a step that waits for data, when loading and computing overlap perfectly.

    Args:
        samples_per_s: of the loader.
        step_ms: computing one batch.
        batch: samples of a step.
    """
    loading = 1000 * batch / samples_per_s
    return max(0.0, loading - step_ms) / max(loading, step_ms)


def bench_evaluation(run: Callable[[], int], *, rounds: int = 5) -> dict[str, Any]:
    """Measure an evaluation in images per second.

    Args:
        run: evaluates once and returns the number of images.
        rounds: counted rounds after one that fills caches.
    """
    images = 0

    def once() -> None:
        nonlocal images
        images = run()

    times = timed(once, rounds, torch.device("cpu"))
    return {
        "images": images, "rounds": rounds, "evaluation": times, "images_per_s": 1000 * images / times["ms"],
        "environment": environment(),
    }  # fmt: skip
