"""SUB-Depth: reconstruction and distillation, each weighted by its own predicted uncertainty.

Source: SUB-Depth (BMVC 2022, arXiv 2111.09692); brandleyzhou/SUB-Depth, trainer.py (compute_losses, regress_loss).
Both uncertainties are sigmoids, so their logarithms are negative and both losses become negative as training goes on:
totals of different runs are not comparable.

Everything here takes *logits*: log sigma = logsigmoid(z) and 1 / sigma = 1 + exp(-z) stay finite where the sigmoid does
not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from adubench.errors import UsageError, unknown_name

PhotometricPairing = Literal["per_image", "cross_batch"]
LossMode = Literal["uncertainty", "weighted"]
TeacherMode = Literal["eval", "train"]
StudentInit = Literal["imagenet", "teacher"]
_CHOICES = {
    "photometric_pairing": ("per_image", "cross_batch"),
    "teacher_mode": ("eval", "train"),
    "loss_mode": ("uncertainty", "weighted"),
    "student_init": ("imagenet", "teacher"),
}


@dataclass(frozen=True, slots=True)
class SubDepthConfig:
    """Switches of SUB-Depth. The defaults are the method as its poster states it.

    Attributes:
        photometric_pairing: `per_image` divides each image's error by its own uncertainty. `cross_batch` is what the
            released code does by an accident of broadcasting: each image is weighted by the batch mean of 1 / sigma.
        teacher_mode: `eval`: frozen. `train`, as released: the teacher normalises with the current batch, and its
            running statistics drift.
        sigma_min: smallest uncertainty; the noisy un-warped error can be negative, and then the loss has no lower
            bound. 0 for none, as released.
        scale_pho_smoothness: divide the smoothness term as well, as the poster's equation reads; the code does not.
        loss_mode: `uncertainty`, or `weighted`: fixed weights and no uncertainty at all.
        w_pho: weight of the reconstruction in mode `weighted`.
        w_reg: weight of the distillation in mode `weighted`.
        student_init: start from ImageNet weights, or from the teacher's.
    """

    photometric_pairing: PhotometricPairing = "per_image"
    teacher_mode: TeacherMode = "eval"
    sigma_min: float = 1e-6
    scale_pho_smoothness: bool = False
    loss_mode: LossMode = "uncertainty"
    w_pho: float = 1.0
    w_reg: float = 0.0
    student_init: StudentInit = "imagenet"

    def __post_init__(self) -> None:
        for key, known in _CHOICES.items():
            if getattr(self, key) not in known:
                raise unknown_name(f"value of {key}", str(getattr(self, key)), known)
        if not 0 <= self.sigma_min < 1:
            raise UsageError(f"sigma_min is {self.sigma_min}: the uncertainties lie in (0, 1), use e.g. 1e-6, or 0.")


#: What the released trainer does.
AS_RELEASED = SubDepthConfig(photometric_pairing="cross_batch", teacher_mode="train", sigma_min=0.0)


def log_sigma(logits: Tensor, sigma_min: float = 0.0) -> Tensor:
    """Logarithm of a predicted uncertainty, not below that of `sigma_min`, in float32."""
    return _floor(functional.logsigmoid(logits.float()), sigma_min)


def log_mean_sigma(logits: Sequence[Tensor], sigma_min: float = 0.0) -> Tensor:
    """Logarithm of sigma_pho, the mean of the uncertainties of all source pairs.

    Args:
        logits: (B, 1, H, W) per pair.
        sigma_min: smallest uncertainty.
    """
    logs = torch.stack([functional.logsigmoid(z.float()) for z in logits])
    return _floor(torch.logsumexp(logs, 0) - math.log(len(logits)), sigma_min)


def weighted_error(error: Tensor, log_uncertainty: Tensor) -> Tensor:
    """Error / sigma + log sigma per pixel; both of one shape, without broadcasting.

    Raises:
        ValueError: the shapes differ. Broadcasting is how the released pairing came about.
    """
    if error.shape != log_uncertainty.shape:
        raise ValueError(f"shapes differ: error {tuple(error.shape)}, sigma {tuple(log_uncertainty.shape)}")
    return error * torch.exp(-log_uncertainty) + log_uncertainty


def photometric_term(minimum: Tensor, log_uncertainty: Tensor, pairing: PhotometricPairing = "per_image") -> Tensor:
    """Mean over batch and pixels of m / sigma_pho + log sigma_pho at one scale.

    Args:
        minimum: (B, H, W), the smallest error of each pixel; (B, 1, H, W) where there was one candidate, which the
            released code pairs image by image in any case.
        log_uncertainty: (B, 1, H, W).
        pairing: `cross_batch` is evaluated in closed form; the released code builds a (B, B, H, W) tensor.
    """
    if pairing == "cross_batch" and minimum.ndim == 3:
        inverse = torch.exp(-log_uncertainty).mean(0)[0]
        return (minimum.mean(0) * inverse + log_uncertainty.mean(0)[0]).mean()
    per_pixel = minimum if minimum.ndim == 4 else minimum[:, None]
    return weighted_error(per_pixel, log_uncertainty).mean()


def reconstruction_loss(
    minima: Mapping[int, Tensor],
    regularisation: Mapping[int, Tensor],
    log_uncertainty: Tensor,
    config: SubDepthConfig,
) -> tuple[Tensor, dict[int, Tensor]]:
    """Uncertainty-weighted reconstruction, averaged over the scales; one full-resolution sigma_pho serves all.

    Args:
        minima: scale -> smallest error per pixel at full resolution.
        regularisation: scale -> weighted smoothness, added without division by sigma unless the configuration says so.
        log_uncertainty: (B, 1, H, W) from `log_mean_sigma`.
        config: switches.

    Returns:
        L_rec and the losses of the scales.
    """
    scale_of_rest = torch.exp(-log_uncertainty).mean() if config.scale_pho_smoothness else 1.0
    losses = {
        scale: photometric_term(minimum, log_uncertainty, config.photometric_pairing)
        + regularisation[scale] * scale_of_rest
        for scale, minimum in minima.items()
    }
    return torch.stack(list(losses.values())).mean(), losses


def distillation_loss(disparity: Tensor, teacher: Tensor, log_uncertainty: Tensor) -> Tensor:
    """L1 regression to the teacher's sigmoid disparity at scale 0 over sigma_reg, plus log sigma_reg.

    Args:
        disparity: (B, 1, H, W) of the student.
        teacher: same, of the teacher; it gets no gradient.
        log_uncertainty: (B, 1, H, W) from `log_sigma` of the student's second channel at scale 0.
    """
    return weighted_error((disparity.float() - teacher.detach().float()).abs(), log_uncertainty).mean()


def weighted_loss(reconstruction: Tensor, disparity: Tensor, teacher: Tensor, config: SubDepthConfig) -> Tensor:
    """Fixed weights: w_pho times the plain Monodepth2 loss plus w_reg times the L1 distance to the teacher."""
    distance = (disparity.float() - teacher.detach().float()).abs().mean()
    return config.w_pho * reconstruction + config.w_reg * distance


def set_teacher_mode(teacher: torch.nn.Module, mode: TeacherMode) -> None:
    """Put a teacher into its mode: parameters never learn; in `train` its running statistics still move."""
    teacher.requires_grad_(False)
    teacher.train(mode == "train")


def _floor(log_value: Tensor, sigma_min: float) -> Tensor:
    return log_value.clamp_min(math.log(sigma_min)) if sigma_min > 0 else log_value
