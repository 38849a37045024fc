"""What one training step computes: a batch in, a loss and its named parts out. One entry per method.

An objective holds what is trained (the network and, while it learns, adapters). A teacher is held outside of the module
tree: it is in no checkpoint, not wrapped for several processes, and `train()` does not reach it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn import functional

from adubench.distillation.adapters import AdaptationSet
from adubench.distillation.adu_config import DistillationConfig
from adubench.distillation.adu_depth import adu_losses, gradient_shares
from adubench.distillation.silog import silog_loss
from adubench.errors import CheckpointError, UsageError, unknown_name
from adubench.recipes.recipe import needs_teacher
from adubench.recipes.tie_kd_sections import MAP_METHODS, TRUTH_METHODS
from adubench.training.distributed import all_sum
from adubench.training.run_folder import ADAPTERS

if TYPE_CHECKING:
    from torch import Tensor

    from adubench.models.interface import DepthNetwork
    from adubench.models.newcrfs import NewCRFsOutput
    from adubench.recipes.schema import Recipe

Batch = Mapping[str, Any]
TOTALS = ("loss",)
"""Parts that are sums of others."""
VALID = "n_valid"
"""Part that counts the ground-truth pixels of the batch of all processes; 0 is no error but is counted."""


class Objective(nn.Module):
    """Base of all objectives.

    Attributes:
        network: what is trained and exported.
        extras: what is trained beside it and thrown away afterwards.
        extras_file: where these are written, beside the checkpoint.
        stereo: the batch must have right views.
    """

    stereo = False
    extras_file = ADAPTERS

    def __init__(self, network: DepthNetwork, extras: nn.Module | None = None) -> None:
        super().__init__()
        self.network = network
        self.extras = extras if extras is not None else nn.Module()

    @abstractmethod
    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Compute the loss of a batch.

        Args:
            batch: `image` (B, 3, H, W) normalised, `right` the same where there are pairs, `gt` (B, 1, H, W) metres
                with 0 for none, `frames` names.
            step: optimiser steps done, for warm-ups.

        Returns:
            `loss` with a graph, and scalars to be logged. With several processes the loss is that of all of them.
        """

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Compute maps to look at, (B, 1, H, W) float32: `depth`, and `teacher`, `uncertainty` where they exist."""
        was_training = self.network.training
        self.network.eval()
        try:
            found = self.network.infer(self.views(batch))
        finally:
            self.network.train(was_training)
        maps = {"depth": found.depth, "uncertainty": found.uncertainty}
        return {name: value.float() for name, value in maps.items() if value is not None}

    def views(self, batch: Batch) -> Tensor:
        """Return what the trained network sees of a batch."""
        return _views(self.network, batch)


class Supervised(Objective):
    """The base loss alone: NeWCRFs as published, and the stereo teacher of ADU-Depth (6 input channels)."""

    def __init__(self, network: DepthNetwork, *, min_gt: float = 1.0) -> None:
        super().__init__(network)
        self.min_gt = min_gt
        self.stereo = network.input_rule.channels == 6

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Return `loss` (silog over the pixels of the whole batch) and `n_valid`."""
        depth = self.network(self.views(batch)).depth
        with torch.autocast(depth.device.type, enabled=False):
            depth = _at_size(depth, batch["gt"])
            loss, valid = silog_loss(depth, batch["gt"], min_gt=self.min_gt, all_reduce=all_sum)
        return {"loss": loss, VALID: valid}


class AduDepth(Objective):
    """A student that learns from ground truth and from a frozen stereo teacher (ADU-Depth eq. 9)."""

    stereo = True

    def __init__(
        self,
        network: DepthNetwork,
        teacher: DepthNetwork,
        adapters: AdaptationSet,
        config: DistillationConfig,
        *,
        min_gt: float = 1.0,
        shares_every: int = 0,
    ) -> None:
        """Freeze the teacher; every `shares_every` steps (0: never) the shares of the terms are computed too."""
        super().__init__(network, adapters)
        self.shares_every = shares_every
        teacher.eval().requires_grad_(False)
        self._outside = (teacher,)  # a tuple is no module: nothing of the teacher is registered
        self.config, self.min_gt = config, min_gt

    @property
    def teacher(self) -> DepthNetwork:
        """The frozen teacher."""
        return self._outside[0]

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Return the parts of `adu_losses`, and now and then `gradient_share_<term>`."""
        with torch.no_grad():  # inference_mode would make tensors that no backward pass may keep
            theirs = self.teacher(_views(self.teacher, batch))
        ours = self.network(self.views(batch))
        adapters = self.extras
        assert isinstance(adapters, AdaptationSet)
        gt = batch["gt"]
        ours, theirs = _output_at_size(ours, gt), _output_at_size(theirs, gt)
        parts = adu_losses(ours, theirs, gt, adapters, self.config, step, min_gt=self.min_gt, all_reduce=all_sum)
        if self.shares_every and (step + 1) % self.shares_every == 0 and ours.depth.requires_grad:
            shares = gradient_shares(parts, self.config, ours.depth, step)
            parts |= {f"gradient_share_{name}": gt.new_tensor(share) for name, share in shares.items()}
        return parts

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Add the teacher's depth."""
        theirs = self.teacher.infer(_views(self.teacher, batch)).depth
        return super().pictures(batch) | ({"teacher": theirs.float()} if theirs is not None else {})


def distillation_config(recipe: Recipe) -> DistillationConfig:
    """Return the settings of the distillation that a recipe's method means.

    `response` is plain response distillation: the mean absolute difference to the teacher's depth, nothing else.
    """
    values = recipe.distill.model_dump(mode="json", by_alias=True)
    if recipe.method == "response":
        off: dict[str, Any] = {"encoder": [], "decoder": []}
        values |= {"features": off, "uem": values["uem"] | {"enabled": False}}
        values["lambda"] = values["lambda"] | {"umf": 0.0, "focal": 0.0}
    if recipe.method == "supervised":
        values["enabled"] = False
    return DistillationConfig.from_mapping(values)


def needs_pairs(recipe: Recipe, stage: str) -> bool:
    """Whether a stage trains on stereo pairs."""
    return stage == "teacher" or needs_teacher(recipe)


def build_objective(
    recipe: Recipe, stage: str, network: DepthNetwork, teacher: DepthNetwork | None = None
) -> Objective:
    """Build what a step of a stage computes.

    Args:
        recipe: the experiment.
        stage: `teacher` is always supervised; `student` follows the recipe's method.
        network: to be trained.
        teacher: trained, for methods that need one; it is frozen here.

    Raises:
        UsageError: a method that cannot be trained, or a teacher is missing.
        CheckpointError: a teacher of another kind.
    """
    if recipe.self_supervision:
        from adubench.training.self_supervised_objectives import build_self_supervised

        return build_self_supervised(recipe, stage, cast("Any", network), cast("Any", teacher))
    if stage == "teacher":
        return Supervised(network, min_gt=recipe.data.min_gt)
    if recipe.method not in OBJECTIVES:
        raise unknown_name("method", recipe.method, OBJECTIVES, hint="It has no training yet.")
    return OBJECTIVES[recipe.method](recipe, network, teacher)


def check_teacher(recipe: Recipe, teacher: DepthNetwork, name: str = "the teacher") -> None:
    """Refuse a teacher that the student of a recipe cannot learn from.

    Raises:
        CheckpointError: another architecture, a single view, or another depth range.
    """
    if recipe.self_supervision:
        from adubench.training.self_supervised_build import plain_config
        from adubench.training.self_supervised_objectives import check_self_supervised_teacher

        check_self_supervised_teacher(plain_config(recipe), teacher, name)
        return
    family = str(teacher.config.get("family"))
    if family != "newcrfs":
        raise CheckpointError(f"{name}: is a {family} network, ADU-Depth distils from a NeWCRFs stereo teacher.")
    channels = teacher.input_rule.channels
    if channels != 6:
        raise CheckpointError(
            f"{name}: takes {channels} input channels, a stereo teacher takes 6 (left and right image). "
            "Train one with --stage teacher."
        )
    theirs = float(teacher.config.get("max_depth", recipe.data.max_depth))
    if theirs != recipe.data.max_depth:
        raise CheckpointError(
            f"{name}: reaches to {theirs:g} m, the recipe's student to {recipe.data.max_depth:g} m. "
            f"Use --set data.max_depth={theirs:g}, or another teacher."
        )


def _supervised(recipe: Recipe, network: DepthNetwork, teacher: DepthNetwork | None) -> Objective:
    return Supervised(network, min_gt=recipe.data.min_gt)


def _adu_depth(recipe: Recipe, network: DepthNetwork, teacher: DepthNetwork | None) -> Objective:
    if not needs_teacher(recipe):
        return _supervised(recipe, network, teacher)
    if teacher is None:
        raise UsageError(f"recipe {recipe.name}: its student needs a teacher; train one, or give --teacher CHECKPOINT.")
    from adubench.models.newcrfs import NeWCRFs, level_channels

    check_teacher(recipe, teacher)
    assert isinstance(network, NeWCRFs)
    assert isinstance(teacher, NeWCRFs)
    config = distillation_config(recipe)
    adapters = AdaptationSet(level_channels(network), level_channels(teacher), config)
    every = recipe.log.every if recipe.log.gradient_shares else 0
    return AduDepth(network, teacher, adapters, config, min_gt=recipe.data.min_gt, shares_every=every)


def _views(network: DepthNetwork, batch: Batch) -> Tensor:
    """Concatenate the right view behind the left one for a stereo network."""
    image: Tensor = batch["image"]
    return torch.cat([image, batch["right"]], dim=1) if network.input_rule.channels == 6 else image


def _at_size(maps: Tensor, gt: Tensor) -> Tensor:
    """Resize maps (bilinear) to the ground truth, which keeps its own size where images are resized."""
    if maps.shape[-2:] == gt.shape[-2:]:
        return maps
    return functional.interpolate(maps, size=gt.shape[-2:], mode="bilinear", align_corners=False)


def _output_at_size(output: NewCRFsOutput, gt: Tensor) -> NewCRFsOutput:
    if output.depth.shape[-2:] == gt.shape[-2:]:
        return output
    with torch.autocast(gt.device.type, enabled=False):
        s = None if output.s is None else _at_size(output.s, gt)
        return replace(output, depth=_at_size(output.depth, gt), s=s)


def _model(recipe: Recipe, network: DepthNetwork, teacher: DepthNetwork | None) -> Objective:
    from adubench.training.tie_kd_build import build_model_objective

    return build_model_objective(recipe, network)


Builder = Callable[["Recipe", "DepthNetwork", "DepthNetwork | None"], Objective]
OBJECTIVES: dict[str, Builder] = {
    "supervised": _supervised,
    "adu-depth": _adu_depth,
    "response": _adu_depth,
    **dict.fromkeys((*MAP_METHODS, *TRUTH_METHODS), _model),
}
"""Method of a recipe -> builder of its student's objective."""
