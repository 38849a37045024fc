"""What a recipe costs before it runs: parameters, arithmetic, memory. No weight is loaded and nothing is computed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from adubench.recipes.recipe import needs_teacher

if TYPE_CHECKING:
    from adubench.recipes.schema import Recipe

Role = Literal["teacher", "student"]
FLOAT_BYTES, HALF_BYTES = 4, 2


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one stage needs.

    Attributes:
        parameters: part -> number of parameters (`network`, `adapters`, `frozen teacher`).
        gflop: part -> GFLOP per sample in one training step (a forward pass, or three for what is trained).
        memory: part -> bytes for one micro-batch.
        remarks: what is not known.
    """

    parameters: dict[str, int]
    gflop: dict[str, float]
    memory: dict[str, int]
    remarks: tuple[str, ...] = field(default=())

    @property
    def trained(self) -> int:
        """Parameters that the optimiser changes."""
        return sum(n for part, n in self.parameters.items() if part != "frozen teacher")

    @property
    def step_gflop(self) -> float:
        """GFLOP per sample."""
        return sum(self.gflop.values())

    @property
    def bytes(self) -> int:
        """Bytes altogether."""
        return sum(self.memory.values())


def estimate(recipe: Recipe, stage: Role, *, half: bool = False) -> Estimate:
    """Estimate one stage.

    The networks exist as shapes only, and one training step of one sample runs on shapes: operations are counted, and
    so is what autograd keeps for the backward pass. Additions and multiplications count separately.

    Args:
        recipe: the recipe.
        stage: `teacher` or `student`.
        half: activations in 16 bit (bf16 on CUDA).

    Raises:
        UsageError: a network that cannot be built.
    """
    import warnings

    from adubench.errors import AdubenchError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _estimate(recipe, stage, half)
        except AdubenchError:
            raise
        except (RuntimeError, NotImplementedError, TypeError, AttributeError) as error:
            # Shapes without values are a corner of torch that changes; a missing estimate must not stop a dry run.
            reason = " ".join(str(error).split())[:120]
            return Estimate({}, {}, {}, (f"not estimated: torch cannot run this network on shapes ({reason})",))


def _estimate(recipe: Recipe, stage: Role, half: bool) -> Estimate:
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from adubench.models.zoo import build
    from adubench.training.build import network_config, train_section
    from adubench.training.objectives import build_objective

    train = train_section(recipe, stage)
    micro = train.batch_size // train.accumulate
    distilled = stage == "student" and needs_teacher(recipe)
    if recipe.self_supervision:  # its pose network would load weights, too
        start = recipe.self_supervised.model_copy(update={"init": "random", "pose_init": None})
        recipe = recipe.model_copy(update={"self_supervised": start})
    with torch.device("meta"):
        network = build(_without_weights(network_config(recipe, stage)))
        teacher = build(_without_weights(network_config(recipe, "teacher"))) if distilled else None
    with FakeTensorMode(allow_non_fake_inputs=True):
        network.to_empty(device="cpu")
        if teacher is not None:
            teacher.to_empty(device="cpu")
        objective = build_objective(recipe, stage, network, teacher)
        # Losses that pick pixels by their values have no shapes; they cost little beside the network.
        without_loss = recipe.model is not None
        forward, theirs, backward, kept = _one_step(
            objective, network, teacher, _batch(recipe, stage), without_loss=without_loss
        )
        extras = "pose and uncertainty" if recipe.self_supervision else "adapters"
        parameters = {
            "network": _count(network),
            extras: _count(objective.extras),
            "frozen teacher": _count(teacher),
        }
    gflop = {"forward": (forward - theirs) / 1e9, "backward": backward / 1e9, "frozen teacher": theirs / 1e9}
    trained = parameters["network"] + parameters[extras]
    memory = {
        "weights": FLOAT_BYTES * trained,
        "gradients": FLOAT_BYTES * trained,
        "Adam's moments": 2 * FLOAT_BYTES * trained,
        "frozen teacher": FLOAT_BYTES * parameters["frozen teacher"],
        "activations": micro * (kept * HALF_BYTES // FLOAT_BYTES if half else kept),
    }
    remarks = ("without the loss",) if without_loss else ()
    return Estimate(_nonzero(parameters), _nonzero(gflop), _nonzero(memory), remarks)


def _without_weights(config: dict[str, Any]) -> dict[str, Any]:
    return config | {"pretrained": False}


def _one_step(
    objective: Any, network: Any, teacher: Any, batch: dict[str, Any], *, without_loss: bool = False
) -> tuple[int, int, int, int]:
    """Return operations of forward pass, teacher's share of it, backward pass, and the bytes kept in between."""
    import torch

    kept: dict[int, tuple[int, Any]] = {}

    def keep(tensor: Any) -> Any:
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage._cdata] = (storage.nbytes(), storage)  # held, so that no other storage gets its address
        return tensor

    objective.train()
    theirs = 0
    if teacher is not None:
        seen = _teacher_input(batch)
        theirs = _operations(lambda: teacher(seen))[0]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        if without_loss:
            forward, parts = _operations(lambda: {"loss": network(batch["image"]).depth.sum()})
        else:
            forward, parts = _operations(lambda: objective(batch, 0))
    bytes_kept = sum(size for size, _ in kept.values())
    backward = _operations(parts["loss"].backward)[0]
    return forward, theirs, backward, bytes_kept


def _operations(run: Any) -> tuple[int, Any]:
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter:
        result = run()
    return int(counter.get_total_flops()), result


def _teacher_input(batch: dict[str, Any]) -> Any:
    import torch

    if "image" in batch:
        return torch.cat([batch["image"], batch["right"]], dim=1)
    return batch["augmented/0"].permute(0, 3, 1, 2).float()


def _batch(recipe: Recipe, stage: Role) -> dict[str, Any]:
    import torch

    if recipe.self_supervision:
        from adubench.training.self_supervised_build import shape_batch

        return shape_batch(recipe.self_supervised)
    height, width = recipe.input.height, recipe.input.width
    batch: dict[str, Any] = {"image": torch.zeros(1, 3, height, width), "gt": torch.ones(1, 1, height, width)}
    if stage == "teacher" or needs_teacher(recipe):
        batch["right"] = torch.zeros(1, 3, height, width)
    return batch | {"frames": ["shape"]}


def _count(module: Any) -> int:
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())


def _nonzero(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value}
