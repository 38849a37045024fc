"""Steps of self-supervised training (Monodepth2, HR-Depth, DIFFNet) and of SUB-Depth.

Source: nianticlabs/monodepth2, trainer.py (process_batch, predict_poses, compute_losses); brandleyzhou/SUB-Depth,
trainer.py. Networks may run in 16 bit; view synthesis and losses never do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from adubench.distillation.sub_depth import (
    SubDepthConfig,
    distillation_loss,
    log_mean_sigma,
    log_sigma,
    reconstruction_loss,
    set_teacher_mode,
    weighted_loss,
)
from adubench.errors import CheckpointError, UsageError
from adubench.models.disparity import DisparityNetwork, DisparityOutput, disparity_to_depth
from adubench.training.distributed import all_mean, derive_seed
from adubench.training.objectives import Objective
from adubench.training.photometric import PhotometricConfig, ScaleLoss, generator_noise, photometric_losses, total_loss
from adubench.training.run_folder import POSE
from adubench.training.triplet_data import TripletBatch, unpack

if TYPE_CHECKING:
    from adubench.models.interface import DepthNetwork
    from adubench.models.monodepth2 import PredictiveMask
    from adubench.models.pose import PoseNetwork
    from adubench.models.sub_depth import PhotometricUncertainty
    from adubench.recipes.schema import Recipe

Batch = Mapping[str, Any]
#: What teacher and student must have in common, and how it is called.
_COMMON = {
    "family": "family", "num_layers": "ResNet depth", "input_images": "number of input images",
    "min_depth": "min_depth", "max_depth": "max_depth", "height": "input height", "width": "input width",
}  # fmt: skip


def teacher_scale(recipe: Recipe, teacher: DepthNetwork) -> str:
    """Say in a sentence that the teacher's depth has another scale than the student's images give; "" where not."""
    taught, own = bool(teacher.config.get("use_stereo")), recipe.self_supervised.use_stereo
    if taught == own:
        return ""
    if taught:
        return (
            "the teacher was trained with stereo, the student sees neighbours in time alone: the student takes over "
            "the teacher's scale, but counts as one without; it is scored with median scaling."
        )
    return (
        "the teacher was trained without stereo, so its depth has no known scale, and the student's stereo pairs have "
        "one: the two losses pull to different scales."
    )


class Helpers(nn.Module):
    """What learns beside the depth network and is not needed afterwards.

    Attributes:
        pose: None without temporal sources.
        mask: predictive masks in place of automasking, or None.
        uncertainty: SUB-Depth's photometric uncertainty, or None.
    """

    def __init__(
        self,
        pose: PoseNetwork | None,
        mask: PredictiveMask | None = None,
        uncertainty: PhotometricUncertainty | None = None,
    ) -> None:
        super().__init__()
        self.pose, self.mask, self.uncertainty = pose, mask, uncertainty


@dataclass(frozen=True, slots=True)
class StepRule:
    """What a step needs to know beside its networks.

    Attributes:
        photometric: options of the objective.
        scales: the scale of each disparity map of the network.
        seed: of the tie-breaking noise.
    """

    photometric: PhotometricConfig
    scales: tuple[int, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """One pass through depth and pose networks and the photometric objective."""

    batch: TripletBatch
    output: DisparityOutput
    losses: dict[int, ScaleLoss]

    def parts(self) -> dict[str, Tensor]:
        """Scalars for the log: mean error, smoothness, and how often a reprojection beats the un-warped source."""
        minimum = torch.stack([part.minimum.detach().mean() for part in self.losses.values()]).mean()
        smooth = torch.stack([part.regularisation.detach() for part in self.losses.values()]).mean()
        found = {"photometric": minimum, "regularisation": smooth}
        wins = self.losses[0].reprojection_wins
        return found if wins is None else found | {"unmasked": wins.float().mean()}


def reconstruct(network: DisparityNetwork, helpers: Helpers, batch: Batch, rule: StepRule, step: int) -> Reconstruction:
    """Predict depth and motion and compare the synthesised views with the target.

    The tie-breaking noise is a pure function of (seed, step, frames): a resumed run draws the same.
    """
    found = unpack(batch)
    pose_inputs: Mapping[int, Tensor] = found.temporal
    if helpers.pose is not None and helpers.pose.kind == "shared":
        output, pose_inputs = _shared_features(network, found)
    else:
        output = network(found.augmented[0])
    poses = helpers.pose(pose_inputs) if helpers.pose is not None else {}
    masks = helpers.mask(output.features) if helpers.mask is not None else None
    device = found.augmented[0].device
    noise = None
    if rule.photometric.noise_std > 0 and rule.photometric.automask:
        generator = torch.Generator(device=device)
        generator.manual_seed(derive_seed(rule.seed, "noise", step, *batch["frames"]))
        noise = generator_noise(generator, device)
    with torch.autocast(device.type, enabled=False):
        disparities = dict(zip(rule.scales, output.disparities, strict=True))
        losses = photometric_losses(disparities, found.views(poses), rule.photometric, noise=noise, masks=masks)
    return Reconstruction(found, output, losses)


def _shared_features(network: DisparityNetwork, batch: TripletBatch) -> tuple[DisparityOutput, dict[int, Tensor]]:
    """Encode all frames in one batch, the stereo image included: the target's features go on to the depth decoder."""
    count = len(batch.augmented)
    features = [part.chunk(count) for part in network.encoder(torch.cat(list(batch.augmented.values())))]
    last = dict(zip(batch.augmented, features[-1], strict=True))
    deep = {frame: feature for frame, feature in last.items() if isinstance(frame, int)}
    target = list(batch.augmented).index(0)
    return network.decode([part[target] for part in features]), deep


class SelfSupervised(Objective):
    """Depth and pose networks that learn from images alone (Monodepth2)."""

    extras_file = POSE

    def __init__(self, network: DisparityNetwork, helpers: Helpers, rule: StepRule) -> None:
        super().__init__(network, helpers)
        self.rule = rule
        freeze_unused(network)

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Return `loss`, and for the log `photometric`, `regularisation` and `unmasked`."""
        network, helpers = cast("DisparityNetwork", self.network), cast("Helpers", self.extras)
        found = reconstruct(network, helpers, batch, self.rule, step)
        parts = {"loss": total_loss(found.losses)} | found.parts()
        return {name: all_mean(value) for name, value in parts.items()}

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Depth of the target."""
        return depth_pictures(self.network, batch)


class SubDepth(Objective):
    """A student that learns from images and from a frozen teacher, both weighted by predicted uncertainty (SUB-Depth).

    A teacher in mode `train` has running statistics that drift; they are part of the training state.
    """

    extras_file = POSE

    def __init__(
        self,
        network: DisparityNetwork,
        teacher: DisparityNetwork,
        helpers: Helpers,
        rule: StepRule,
        config: SubDepthConfig,
    ) -> None:
        super().__init__(network, helpers)
        self.rule, self.config = rule, config
        freeze_unused(network)
        set_teacher_mode(teacher, config.teacher_mode)
        self._outside = (teacher,)  # a tuple is no module: nothing of the teacher is registered

    @property
    def teacher(self) -> DisparityNetwork:
        """The frozen teacher."""
        return self._outside[0]

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Return `loss`, its parts `reconstruction` and `distillation`, and un-weighted values for the log.

        With uncertainty the total is negative after a while and is not comparable between runs.
        """
        network, helpers = cast("DisparityNetwork", self.network), cast("Helpers", self.extras)
        found = reconstruct(network, helpers, batch, self.rule, step)
        with torch.no_grad():
            theirs = self.teacher(found.batch.augmented[0]).disparities[0]
        ours = found.output.disparities[0]
        device = ours.device
        parts = found.parts() | {"l1_to_teacher": (ours - theirs).detach().abs().mean()}
        if self.config.loss_mode == "weighted":
            with torch.autocast(device.type, enabled=False):
                plain = total_loss(found.losses)
                loss = weighted_loss(plain, ours, theirs, self.config)
            return self._over_processes({"loss": loss, "reconstruction": plain.detach()} | parts)
        assert helpers.uncertainty is not None
        logits = helpers.uncertainty.of_sources(found.batch.temporal, found.batch.augmented.get("s"))
        assert found.output.uncertainty_logits is not None
        with torch.autocast(device.type, enabled=False):
            log_pho = log_mean_sigma(logits, self.config.sigma_min)
            log_reg = log_sigma(found.output.uncertainty_logits[0], self.config.sigma_min)
            reconstruction, _ = reconstruction_loss(
                {s: part.minimum for s, part in found.losses.items()},
                {s: part.regularisation for s, part in found.losses.items()},
                log_pho,
                self.config,
            )
            distillation = distillation_loss(ours, theirs, log_reg)
        named = {"loss": reconstruction + distillation, "reconstruction": reconstruction, "distillation": distillation}
        sigmas = {"sigma_pho": log_pho.detach().exp().mean(), "sigma_reg": log_reg.detach().exp().mean()}
        return self._over_processes(named | parts | sigmas)

    def _over_processes(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: all_mean(value) for name, value in parts.items()}

    def get_extra_state(self) -> dict[str, Tensor]:
        """Running statistics of a teacher that normalises with the current batch; nothing of a frozen one."""
        if self.config.teacher_mode == "eval":
            return {}
        return {name: value.detach().cpu().clone() for name, value in self.teacher.named_buffers()}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `get_extra_state` returned."""
        own = dict(self.teacher.named_buffers())
        for name, value in state.items():
            own[name].copy_(value)

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Depth of the target, the teacher's, and sigma_reg."""
        was_training = self.teacher.training
        self.teacher.eval()
        theirs = depth_pictures(self.teacher, batch)["depth"]
        self.teacher.train(was_training)
        return depth_pictures(self.network, batch) | {"teacher": theirs}


def depth_pictures(network: Any, batch: Batch) -> dict[str, Tensor]:
    """Predict depth (and uncertainty, where the network has one) of a batch's targets in evaluation mode."""
    was_training = network.training
    network.eval()
    try:
        found = network.infer(unpack(batch).augmented[0])
    finally:
        network.train(was_training)
    maps = {"depth": disparity_to_depth(found.disparity.float(), *network.depth_range)}
    return maps if found.uncertainty is None else maps | {"uncertainty": found.uncertainty.float()}


def freeze_unused(network: nn.Module) -> None:
    """Keep the blocks of HR-Depth that no output depends on out of the optimiser; several processes ask for that."""
    for module in network.modules():
        for name in getattr(module, "unused", ()):
            module.get_submodule(name).requires_grad_(False)


def check_self_supervised_teacher(expected: Mapping[str, Any], teacher: Any, name: str) -> None:
    """Refuse a teacher whose disparity means something else than the student's.

    Args:
        expected: configuration of the plain network that the recipe trains as a teacher.
        teacher: the network.
        name: how the message calls it.

    Raises:
        CheckpointError: another architecture, depth range or input size.
    """
    theirs = teacher.config
    if theirs.get("family") == "sub-depth":
        raise CheckpointError(
            f"{name}: is a SUB-Depth student with two channels per head; a teacher is the plain network "
            f"({expected['family']}). Train one with --stage teacher."
        )
    for key, what in _COMMON.items():
        if key in expected and theirs.get(key) != expected[key]:
            raise CheckpointError(
                f"{name}: its {what} is {theirs.get(key)}, the student's is {expected[key]}; SUB-Depth compares "
                "disparities of one architecture, depth range and size. Take another teacher, or change section "
                "self_supervised."
            )


def build_self_supervised(
    recipe: Recipe, stage: str, network: DisparityNetwork, teacher: DisparityNetwork | None
) -> Objective:
    """Build the step of a stage: the teacher of SUB-Depth, and a student without one, learn from images alone.

    Raises:
        UsageError: a missing teacher.
        CheckpointError: a teacher of another kind, or a start of the pose network that is not there.
    """
    from adubench.recipes.recipe import needs_teacher
    from adubench.training import self_supervised_build as parts

    distils = stage == "student" and needs_teacher(recipe)
    config = parts.sub_depth_config(recipe.sub_depth)
    helpers = parts.build_helpers(recipe, network, uncertainty=distils and config.loss_mode == "uncertainty")
    rule = StepRule(parts.photometric_config(recipe.self_supervised), parts.network_scales(recipe), recipe.seed)
    if not distils:
        return SelfSupervised(network, helpers, rule)
    if teacher is None:
        raise UsageError(f"recipe {recipe.name}: its student needs a teacher; train one, or give --teacher CHECKPOINT.")
    check_self_supervised_teacher(parts.plain_config(recipe), teacher, "the teacher")
    return SubDepth(network, teacher, helpers, rule, config)
