"""What a recipe costs when it runs: one real training step on synthetic batches, and the network that is deployed.

Weights are random, nothing is downloaded and no data is read: networks, adapters, loss and optimiser are those of
`adubench train`, the time of a loader is measured apart (`adubench bench loader`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from adubench.errors import DataError, UsageError
from adubench.recipes.recipe import load_recipe, needs_teacher
from adubench.training.bench import cast_to, environment, precision_mode, timed, with_fps
from adubench.training.build import build_network, build_optimizer, stage_objective, train_section
from adubench.training.estimate import estimate
from adubench.training.guards import is_out_of_memory
from adubench.training.micro_batches import micro_batches
from adubench.training.network_predictor import resolve_device

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from adubench.models.interface import DepthNetwork
    from adubench.recipes.schema import Recipe
    from adubench.training.estimate import Estimate

Stage = Literal["teacher", "student"]
Size = tuple[int, int]
FOCAL = 715.0  # pixels, of KITTI
MEASURED, ESTIMATED = "max_memory_allocated of the step", "estimated from shapes"


@dataclass(frozen=True, slots=True)
class RecipeBench:
    """What is measured and how.

    Attributes:
        stage: `teacher` or `student`.
        size: (height, width) of the training crop; default the recipe's.
        image_size: (height, width) at inference; default the crop.
        batch: samples of a step; default the recipe's. A batch given is taken at once, without accumulation.
        device: `auto`, `cpu`, `cuda`, ...
        precision: `fp32`; `tf32` and `bf16` on CUDA only.
        rounds: counted rounds, after one that is not.
        step: time a training step.
        inference: time the deployed network.
    """

    stage: Stage = "student"
    size: Size | None = None
    image_size: Size | None = None
    batch: int | None = None
    device: str = "auto"
    precision: str = "fp32"
    rounds: int = 5
    step: bool = True
    inference: bool = True


def bench_recipe(name: str, overrides: Sequence[str] = (), options: RecipeBench | None = None) -> dict[str, Any]:
    """Measure a recipe's training step and the network it deploys.

    Args:
        name: of the recipe, or its file.
        overrides: `a.b=value`, as in `adubench train --set`.
        options: what is measured and how.

    Returns:
        Plain values: `parameters` (`deployed`, `trained`, `frozen teacher`), `gflop` per sample of a step, `memory`,
        `step` and `inference` (times as of `timed`), `environment`.

    Raises:
        UsageError: no such recipe, a fault in it, a size that its network does not take, too little memory.
    """
    options = options or RecipeBench()
    device = resolve_device(options.device)
    if options.precision != "fp32" and device.type != "cuda":
        raise UsageError(f"--precision {options.precision}: needs a CUDA device, and this is {device.type}.")
    recipe = random_recipe(name, overrides, options)
    train, size = train_section(recipe, options.stage), crop_size(recipe)
    try:
        cost = estimate(recipe, options.stage, half=options.precision == "bf16")
        result: dict[str, Any] = {
            "recipe": recipe.name, "method": recipe.method, "stage": options.stage, "size": list(size),
            "batch": train.batch_size, "accumulate": train.accumulate, "precision": options.precision,
            "rounds": options.rounds, "parameters": _parameters(cost),
            "gflop": cost.gflop | {"step": cost.step_gflop or None},
            "memory": {"gib": cost.bytes / 2**30 or None, "how": ESTIMATED},
        }  # fmt: skip
        if cost.remarks:
            result["memory"]["remarks"] = list(cost.remarks)
        with precision_mode(options.precision):
            if options.step:
                _check_memory(recipe, cost, device)
                _measure_step(result, recipe, options, device)
            if options.inference:
                result["inference"] = _inference(recipe, options, device)
    except DataError as error:  # a size that is none for the network
        raise UsageError(f"recipe {recipe.name}: {_size_hint(error)}") from None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UsageError(f"recipe {recipe.name}: out of memory on {device}; {_SMALLER}") from None
    return result | {"environment": environment(device)}


def _size_hint(error: DataError) -> str:
    first = str(error).split(" (")[0].rstrip(".")
    return f"{first}; choose another --size or --image-size, 352x384 at least for AdaBins."


_SMALLER = "choose a smaller --batch or --size, or measure without the step (--no-step)."


def random_recipe(name: str, overrides: Sequence[str], options: RecipeBench) -> Recipe:
    """Load a recipe, let every network start from random weights, and take size and batch of the options.

    Raises:
        UsageError: see `load_recipe`.
    """
    plain = load_recipe(name, overrides)
    changes = list(overrides)
    section = "input"
    if plain.self_supervision:
        section = "self_supervised"
        changes += ["self_supervised.init=random", "self_supervised.pose_init=random"]
    elif plain.model is not None:
        changes += ["model.init=random"]
    else:
        changes += ["student.init=random", "teacher.init=random"]
    if options.size is not None:
        height, width = options.size
        changes += [f"{section}.height={height}", f"{section}.width={width}"]
        if plain.method == "tie-kd":  # the same share of the crop is left out of the loss
            rows = _ignored_rows(plain) * height // plain.input.height
            changes.append(f"tie_kd.ignore_top_rows={rows}")
    if options.batch is not None:
        for part in ("train", *(("teacher_train",) if plain.teacher_train is not None else ())):
            changes += [f"{part}.batch_size={options.batch}", f"{part}.accumulate=1"]
    return load_recipe(name, changes)


def _ignored_rows(recipe: Recipe) -> int:
    from adubench.training.tie_kd_build import tie_kd_config

    return int(tie_kd_config(recipe).ignore_top_rows)


def crop_size(recipe: Recipe) -> Size:
    """Return (height, width) of a recipe's training samples."""
    part = recipe.self_supervised if recipe.self_supervision else recipe.input
    return part.height, part.width


def _parameters(cost: Estimate) -> dict[str, int | None]:
    if not cost.parameters:
        return {"deployed": None, "trained": None, "frozen teacher": None}
    teacher = cost.parameters.get("frozen teacher", 0)
    return {"deployed": cost.parameters["network"], "trained": cost.trained, "frozen teacher": teacher}


# ---- the step --------------------------------------------------------------------------------------------------------


def training_step(recipe: Recipe, stage: Stage, device: torch.device, precision: str) -> Callable[[], None]:
    """Build networks, loss, optimiser and a batch; the function that comes back is one optimiser step."""
    train = train_section(recipe, stage)
    teacher = None
    if stage == "student" and needs_teacher(recipe):
        teacher = build_network(recipe, "teacher").to(device)
    objective = stage_objective(recipe, stage, teacher).to(device).train()
    optimizer = build_optimizer(objective, train)
    batch = synthetic_batch(recipe, train.batch_size, device)
    parts = micro_batches(batch, train.batch_size, train.accumulate, 0, 1)

    def run() -> None:
        for part, share in parts:
            with cast_to(precision, device):
                loss = objective(part, 0)["loss"]
            (loss * share).backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), train.clip_norm or float("inf"))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run


def synthetic_batch(recipe: Recipe, samples: int, device: torch.device) -> dict[str, Any]:
    """Make a batch with everything that any objective reads: noise for images, depths from 2 to 62 metres."""
    generator = torch.Generator().manual_seed(0)
    names = [f"sample {i}" for i in range(samples)]
    height, width = crop_size(recipe)
    batch: dict[str, Any]
    if recipe.self_supervision:
        batch = _triplets(recipe, samples, generator)
    else:
        image, right = torch.randn(2, samples, 3, height, width, generator=generator)
        depth = torch.rand(samples, 1, height, width, generator=generator) * 60 + 2
        batch = {"image": image, "right": right, "gt": depth, "teacher": depth}
        batch |= {"teacher_mask": torch.ones_like(depth, dtype=torch.bool), "focal": torch.full((samples,), FOCAL)}
    return {key: value.to(device) for key, value in batch.items()} | {"frames": names}


def _triplets(recipe: Recipe, samples: int, generator: torch.Generator) -> dict[str, Any]:
    """Fill the shapes of a triplet batch: noise for images, KITTI's camera."""
    from adubench.training.self_supervised_build import shape_batch

    height, width = crop_size(recipe)
    batch: dict[str, Any] = {}
    for key, value in shape_batch(recipe.self_supervised).items():
        if not isinstance(value, torch.Tensor):
            continue
        size = (samples, *value.shape[1:])
        if value.dtype == torch.uint8:
            batch[key] = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
        else:
            batch[key] = value.expand(size).clone()
    for key in [key for key in batch if key.startswith("K/")]:
        scale = int(key[2:])
        rows = ((0.58 * width, 0.0, 0.5 * width), (0.0, 1.92 * height, 0.5 * height))
        batch[key][:, :2, :3] = torch.tensor(rows) / 2**scale
        batch[f"inverse_k/{scale}"] = torch.linalg.inv(batch[key])
    if "stereo" in batch:
        batch["stereo"][:, 0, 3] = 0.1
    return batch


def _measure_step(result: dict[str, Any], recipe: Recipe, options: RecipeBench, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    run = training_step(recipe, options.stage, device, options.precision)
    times = timed(run, options.rounds, device)
    result["step"] = {**times, "samples_per_s": 1000 * result["batch"] / times["ms"]}
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 2**30
        result["memory"] |= {"estimated_gib": result["memory"]["gib"], "gib": peak, "how": MEASURED}


def _check_memory(recipe: Recipe, cost: Estimate, device: torch.device) -> None:
    """Refuse a step that this machine's memory cannot hold: the system would end the process without a word."""
    free = _free_bytes() if device.type == "cpu" else None
    if free is not None and cost.bytes > free:
        need, have = cost.bytes / 2**30, free / 2**30
        raise UsageError(
            f"recipe {recipe.name}: a step needs about {need:.1f} GiB, {have:.1f} GiB are free here; {_SMALLER}"
        )


def _free_bytes() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


# ---- the network alone -----------------------------------------------------------------------------------------------


def _inference(recipe: Recipe, options: RecipeBench, device: torch.device) -> dict[str, Any]:
    """Time one image at a time through the network that the stage deploys."""
    from torch.utils.flop_counter import FlopCounterMode

    network = _deployed(recipe, options.stage).to(device)
    height, width = options.image_size or crop_size(recipe)
    image = torch.randn(1, network.input_rule.channels, height, width, device=device)
    focal = torch.full((1,), FOCAL, device=device) if network.input_rule.needs_focal else None

    def run() -> None:
        with torch.inference_mode(), cast_to(options.precision, device):
            network.infer(image, focal=focal)

    with FlopCounterMode(display=False) as counter:
        run()
    times = with_fps(timed(run, options.rounds, device), 1)
    return {"size": [height, width], "gflop": counter.get_total_flops() / 1e9, **times}


def _deployed(recipe: Recipe, stage: Stage) -> DepthNetwork:
    if recipe.method == "sub-depth":  # its start from the teacher is none of the network's cost
        sub = recipe.sub_depth.model_copy(update={"student_init": "imagenet"})
        recipe = recipe.model_copy(update={"sub_depth": sub})
    return build_network(recipe, stage).eval()
