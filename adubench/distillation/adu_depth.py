"""ADU-Depth: what a student learns from a frozen stereo teacher (arXiv 2309.14744, eqs. 1 to 9).

`adu_losses` puts the parts together; each part is a function of its own in `features`, `adu_response`, `focal` and
`silog`. The teacher runs under `torch.no_grad()` in eval mode (not under `inference_mode`, whose tensors cannot take
part in a backward pass).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import torch

from adubench.distillation.adapters import AdaptationSet
from adubench.distillation.adu_config import DistillationConfig, UemConfig
from adubench.distillation.adu_response import at_quarter, response_loss
from adubench.distillation.features import feature_loss, uncertainty_at
from adubench.distillation.focal import focal_depth_loss
from adubench.distillation.reduction import AllReduce, at_least_float32, mean_over_processes, one_process
from adubench.distillation.silog import silog_loss
from adubench.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

GAIN_BOUND = 8.0
"""|s| is clamped to this where a learned gain leaves it unbounded, so that exp(-s) stays finite."""

TERMS = ("base", "response", "feature_encoder", "feature_decoder", "focal")
"""Parts that are summed with `term_weights`."""


class DistillableOutput(Protocol):
    """What the losses need of a network's output."""

    @property
    def depth(self) -> Tensor:
        """(B, 1, H, W) metres."""

    @property
    def s(self) -> Tensor | None:
        """(B, 1, H, W) log uncertainty, None without an uncertainty head."""

    @property
    def s_quarter(self) -> Tensor | None:
        """(B, 1, h, w) the same on the 1/4 map."""

    @property
    def encoder(self) -> Sequence[Tensor]:
        """Four feature maps, 1/4 first."""

    @property
    def decoder(self) -> Sequence[Tensor]:
        """Four feature maps, 1/4 first."""


def adu_losses(
    student_output: DistillableOutput,
    teacher_output: DistillableOutput | None,
    gt: Tensor,
    adapters: AdaptationSet | None,
    config: DistillationConfig,
    step: int = 0,
    *,
    variance_focus: float = 0.85,
    min_gt: float = 1.0,
    all_reduce: AllReduce = one_process,
) -> dict[str, Tensor]:
    """Total loss of the student and its parts (eq. 9).

    Everything but the adapters is computed in float32 outside autocast. No gradient reaches the teacher.

    Args:
        student_output: what the student said about the left view.
        teacher_output: what the teacher said about the pair; may be None if distillation is disabled.
        gt: (B, 1, H, W) metres, 0 where there is none.
        adapters: of all distilled levels; may be None if no feature is distilled.
        config: settings.
        step: optimiser step from 0, for the warm-up.
        variance_focus: of the base loss.
        min_gt: ground truth counts beyond it, metres.
        all_reduce: adds a small tensor over processes, differentiably; see `reduction`.

    Returns:
        `loss`, `base`, `response`, `feature_encoder`, `feature_decoder`, `focal` with graphs (0 where a part is off),
        and without: `p_d` (mean score of eq. 4 over images, not clamped), `n_valid`, `ramp`, `s_mean` (with
        uncertainty).

    Raises:
        UsageError: the outputs lack what the settings need.
    """
    with torch.autocast(gt.device.type, enabled=False):
        base, n_valid = silog_loss(
            student_output.depth, gt, variance_focus=variance_focus, min_gt=min_gt, all_reduce=all_reduce
        )
    parts = {"base": base, "n_valid": n_valid}
    if not config.enabled:
        return {"loss": base, **parts}
    if teacher_output is None:
        raise UsageError("distillation needs a teacher: train one first, name one with --teacher, or disable distill.")
    parts["feature_encoder"], parts["feature_decoder"] = _features(
        student_output, teacher_output, adapters, config, all_reduce
    )
    valid = gt > min_gt
    with torch.autocast(gt.device.type, enabled=False):
        parts["response"] = _response(student_output, teacher_output, valid, config, all_reduce)
        parts["focal"], p_d = _focal(student_output, teacher_output, valid, config, all_reduce)
        weights = term_weights(config, step)
        loss = sum((weight * parts[name] for name, weight in weights.items() if name != "base"), start=base)
    parts["ramp"] = base.new_tensor(config.ramp(step))
    parts |= _observed(p_d, student_output.s, all_reduce)
    return {"loss": loss, **parts}


def term_weights(config: DistillationConfig, step: int = 0) -> dict[str, float]:
    """Factor of each of `TERMS` in the total at an optimiser step."""
    ramp = config.ramp(step) if config.enabled else 0.0
    weights = config.lambda_
    return {
        "base": 1.0,
        "response": ramp * weights.umr,
        "feature_encoder": ramp * weights.umf,
        "feature_decoder": ramp * weights.umf,
        "focal": ramp * weights.focal,
    }


def gradient_shares(
    parts: Mapping[str, Tensor], config: DistillationConfig, depth: Tensor, step: int = 0
) -> dict[str, float]:
    """Share of each weighted term in the gradient at the student's depth: its norm over the sum of all norms.

    Call it before `backward`; it keeps the graph. Feature terms reach the depth map only through shared layers and are
    0 here.
    """
    norms = {}
    for name, weight in term_weights(config, step).items():
        term = parts.get(name)
        if term is None or weight == 0 or not term.requires_grad:
            norms[name] = 0.0
            continue
        (gradient,) = torch.autograd.grad(term, depth, retain_graph=True, allow_unused=True)
        norms[name] = 0.0 if gradient is None else weight * float(gradient.float().norm())
    total = sum(norms.values())
    return {name: norm / total if total else 0.0 for name, norm in norms.items()}


def _bounded(s: Tensor, uem: UemConfig) -> Tensor:
    s = at_least_float32(s)
    return s.clamp(-GAIN_BOUND, GAIN_BOUND) if uem.scaling == "gain" else s


def _uncertainty(output: DistillableOutput, which: str, uem: UemConfig) -> Tensor:
    s = output.s if which == "full" else output.s_quarter
    if s is None:
        raise UsageError(
            "distill.uem is on, but the student has no uncertainty head: build it with one, or set "
            "distill.uem.enabled to false."
        )
    return _bounded(s, uem)


def _features(
    student: DistillableOutput,
    teacher: DistillableOutput,
    adapters: AdaptationSet | None,
    config: DistillationConfig,
    all_reduce: AllReduce,
) -> tuple[Tensor, Tensor]:
    """Encoder and decoder term; zeros where no level is distilled."""
    nothing = student.depth.new_zeros((), dtype=torch.float32)
    if adapters is None or not (adapters.encoder_levels or adapters.decoder_levels):
        return nothing, nothing
    device = student.depth.device.type
    groups = ((adapters.encoder_levels, student.encoder, teacher.encoder),
              (adapters.decoder_levels, student.decoder, teacher.decoder))  # fmt: skip
    s_maps: list[list[Tensor] | None] = [None, None]
    if config.uem.enabled:
        with torch.autocast(device, enabled=False):
            s = _uncertainty(student, "quarter", config.uem)
            s_maps = [
                [uncertainty_at(s, _size(maps[level]), config.uem.resize) for level in levels]
                for levels, maps, _ in groups
            ]
    adapted = adapters(student.encoder, student.decoder, *s_maps)
    losses = []
    with torch.autocast(device, enabled=False):
        for (levels, _, theirs), ours, s_levels in zip(groups, adapted, s_maps, strict=True):
            if not levels:
                losses.append(nothing)
                continue
            losses.append(
                feature_loss(
                    ours,
                    [theirs[level] for level in levels],
                    s_levels,
                    channel_reduction=config.feature.channel_reduction,
                    level_reduction=config.feature.level_reduction,
                    all_reduce=all_reduce,
                )
            )
    return losses[0], losses[1]


def _response(
    student: DistillableOutput,
    teacher: DistillableOutput,
    valid: Tensor,
    config: DistillationConfig,
    all_reduce: AllReduce,
) -> Tensor:
    settings = config.response
    ds, dt, mask = student.depth, teacher.depth, valid if settings.mask == "valid" else None
    if ds.shape != dt.shape:
        raise UsageError(f"student depth is {tuple(ds.shape)}, teacher depth {tuple(dt.shape)}: they must be equal.")
    s = _uncertainty(student, settings.resolution, config.uem) if config.uem.enabled else None
    if settings.resolution == "quarter":
        size = _size(student.decoder[0])
        ds, dt = at_quarter(ds, size), at_quarter(dt, size)
        s = None if s is None else s[..., : ds.shape[-2], : ds.shape[-1]]
        # A cell counts as soon as one of its pixels does.
        mask = None if mask is None else at_quarter(mask.float(), size) > 0
    return response_loss(
        ds,
        dt,
        s,
        mask,
        form=settings.laplace_form,
        reduction=settings.reduction,
        space=settings.space,
        all_reduce=all_reduce,
    )


def _focal(
    student: DistillableOutput,
    teacher: DistillableOutput,
    valid: Tensor,
    config: DistillationConfig,
    all_reduce: AllReduce,
) -> tuple[Tensor, Tensor]:
    settings = config.focal
    return focal_depth_loss(
        student.depth,
        teacher.depth,
        valid if settings.mask == "valid" else None,
        alpha=settings.alpha,
        gamma=settings.gamma,
        eps=settings.eps,
        granularity=settings.granularity,
        score=settings.score,
        all_reduce=all_reduce,
    )


def _observed(p_d: Tensor, s: Tensor | None, all_reduce: AllReduce) -> dict[str, Tensor]:
    """Means over the images of all processes that are worth a line in the log."""
    per_image = {"p_d": p_d}
    if s is not None:
        per_image["s_mean"] = at_least_float32(s.detach()).flatten(1).mean(dim=1)
    values = torch.stack(list(per_image.values()))
    means = mean_over_processes(values.sum(dim=1), torch.full_like(values[:, 0], len(p_d)), all_reduce)
    return dict(zip(per_image, means.detach(), strict=True))


def _size(features: Tensor) -> tuple[int, int]:
    return features.shape[-2], features.shape[-1]
