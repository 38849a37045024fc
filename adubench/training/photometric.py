"""The photometric objective of Monodepth2: per-pixel minimum, automasking, smoothness, four scales.

Source: nianticlabs/monodepth2, layers.py (SSIM, get_smooth_loss); trainer.py (compute_reprojection_loss,
compute_losses). Pure functions on tensors; images are RGB in [0, 1] *without* colour augmentation, whatever the
networks saw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from adubench.errors import UsageError
from adubench.models.disparity import disparity_to_depth
from adubench.models.pose import Pose
from adubench.training.view_synthesis import Cameras, pose_matrix, scale_translation, synthesise

_C1, _C2 = 0.01**2, 0.03**2
SSIM_WEIGHT = 0.85
MASK_WEIGHT = 0.2

#: Name of a source: an offset in frames, or "s" for the other camera.
Source = int | str
#: (scale, shape) -> standard normal numbers of that shape.
Noise = Callable[[int, tuple[int, ...]], Tensor]


@dataclass(frozen=True, slots=True)
class PhotometricConfig:
    """Options of the objective, with the reference's defaults.

    Attributes:
        min_depth: near end of the depth range.
        max_depth: far end.
        smoothness: weight of the smoothness term at scale 0; halved from scale to scale.
        ssim: False leaves the L1 part alone, with weight 1.
        automask: let the un-warped sources compete, so that what does not move against the camera drops out.
        average: mean over the sources instead of the minimum.
        v1_multiscale: compare at each scale's own resolution instead of the full one.
        align_corners: of the sampling; see `view_synthesis`.
        noise_std: of the noise that breaks ties between the un-warped errors and the others.
        scale_translations: multiply predicted translations by the mean inverse depth (the reference's `posecnn`).
    """

    min_depth: float = 0.1
    max_depth: float = 100.0
    smoothness: float = 1e-3
    ssim: bool = True
    automask: bool = True
    average: bool = False
    v1_multiscale: bool = False
    align_corners: bool = True
    noise_std: float = 1e-5
    scale_translations: bool = False


@dataclass(frozen=True, slots=True)
class Views:
    """The images of a batch.

    Attributes:
        target: scale -> (B, 3, H / 2^s, W / 2^s); scale 0 always, the others for smoothness.
        sources: source -> scale -> image; scale 0 only, unless `v1_multiscale`.
        cameras: scale -> intrinsics; scale 0 only, unless `v1_multiscale`.
        motion: source -> pose of a temporal source, or the matrix (B, 4, 4) of the stereo camera.
    """

    target: Mapping[int, Tensor]
    sources: Mapping[Source, Mapping[int, Tensor]]
    cameras: Mapping[int, Cameras]
    motion: Mapping[Source, Pose | Tensor]


@dataclass(frozen=True, slots=True)
class ScaleLoss:
    """The objective at one scale.

    Attributes:
        minimum: error per pixel: (B, H, W), or (B, 1, H, W) where there was a single candidate. SUB-Depth's released
            pairing depends on the difference.
        smoothness: scalar, without its weight.
        smoothness_weight: `smoothness` of the configuration over 2^s.
        mask_penalty: 0.2 times the cross-entropy of a predictive mask against 1, else 0.
        reprojection_wins: (B, H, W) bool, where a reprojection has the smallest error; None without automasking.
        candidates: (B, C, H, W), un-warped errors first.
        warped: source -> reconstructed target.
        grids: source -> sampling grid.
    """

    minimum: Tensor
    smoothness: Tensor
    smoothness_weight: float
    mask_penalty: Tensor
    reprojection_wins: Tensor | None
    candidates: Tensor
    warped: Mapping[Source, Tensor] = field(default_factory=dict)
    grids: Mapping[Source, Tensor] = field(default_factory=dict)

    @property
    def regularisation(self) -> Tensor:
        """What is added to the photometric part."""
        return self.smoothness_weight * self.smoothness + self.mask_penalty

    @property
    def loss(self) -> Tensor:
        """The scale's loss of plain Monodepth2."""
        return self.minimum.mean() + self.regularisation


def ssim_term(pred: Tensor, target: Tensor) -> Tensor:
    """Structural dissimilarity in [0, 1] per channel, 3x3 means over reflected borders, (B, 3, H, W)."""
    x, y = (functional.pad(image, (1, 1, 1, 1), mode="reflect") for image in (pred, target))
    mx, my = _box(x), _box(y)
    sx, sy = _box(x * x) - mx * mx, _box(y * y) - my * my
    sxy = _box(x * y) - mx * my
    similarity = (2 * mx * my + _C1) * (2 * sxy + _C2) / ((mx * mx + my * my + _C1) * (sx + sy + _C2))
    return ((1 - similarity) / 2).clamp(0, 1)


def photometric_error(pred: Tensor, target: Tensor, *, ssim: bool = True) -> Tensor:
    """Error of a reconstruction per pixel, (B, 1, H, W): 0.85 dissimilarity and 0.15 absolute difference."""
    absolute = (target - pred).abs().mean(1, keepdim=True)
    if not ssim:
        return absolute
    return SSIM_WEIGHT * ssim_term(pred, target).mean(1, keepdim=True) + (1 - SSIM_WEIGHT) * absolute


def smoothness_term(disparity: Tensor, image: Tensor) -> Tensor:
    """Edge-aware first differences of a disparity map, scalar; the means along x and y count alike.

    Args:
        disparity: (B, 1, h, w), normalised by `mean_normalised` in the objective.
        image: (B, 3, h, w).
    """
    total = disparity.new_zeros(())
    for axis in (3, 2):
        difference = disparity.diff(dim=axis).abs()
        edges = image.diff(dim=axis).abs().mean(1, keepdim=True)
        total = total + (difference * torch.exp(-edges)).mean()
    return total


def mean_normalised(disparity: Tensor) -> Tensor:
    """Divide each map by its own mean."""
    return disparity / (disparity.mean((2, 3), keepdim=True) + 1e-7)


def photometric_losses(
    disparities: Mapping[int, Tensor],
    views: Views,
    config: PhotometricConfig,
    *,
    noise: Noise | None = None,
    masks: Mapping[int, Tensor] | None = None,
) -> dict[int, ScaleLoss]:
    """Evaluate the objective at every scale that has a disparity map.

    Args:
        disparities: scale -> (B, 1, H / 2^s, W / 2^s) sigmoid disparity.
        views: images, intrinsics, motion.
        config: options.
        noise: source of the tie-breaking noise, None for none.
        masks: scale -> (B, N, H / 2^s, W / 2^s) predictive masks in (0, 1), one channel per source; not together with
            automasking.

    Raises:
        UsageError: no source, or predictive masks with automasking.
    """
    if not views.sources:
        raise UsageError(
            "the photometric objective needs at least one source: a neighbouring frame or the stereo image."
        )
    if masks is not None and config.automask:
        raise UsageError("predictive masks replace automasking: switch one of the two off.")
    identity: Tensor | None = None
    losses = {}
    for scale in sorted(disparities):
        if config.automask and (identity is None or config.v1_multiscale):
            identity = _identity_errors(views, scale if config.v1_multiscale else 0, config)
        mask = None if masks is None else masks[scale]
        losses[scale] = _scale_loss(scale, disparities[scale].float(), views, config, identity, noise, mask)
    return losses


def total_loss(losses: Mapping[int, ScaleLoss]) -> Tensor:
    """Average the scales' losses: the loss of plain Monodepth2."""
    return torch.stack([part.loss for part in losses.values()]).mean()


def generator_noise(generator: torch.Generator, device: torch.device) -> Noise:
    """Draw the tie-breaking noise from a generator, which may live on another device."""

    def draw(scale: int, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, device=generator.device).to(device)

    return draw


def _box(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 3, 1)


def _scale_loss(
    scale: int,
    disparity: Tensor,
    views: Views,
    config: PhotometricConfig,
    identity: Tensor | None,
    noise: Noise | None,
    mask: Tensor | None,
) -> ScaleLoss:
    level = scale if config.v1_multiscale else 0
    target = views.target[level]
    size = (int(target.shape[2]), int(target.shape[3]))
    depth = disparity_to_depth(_resize(disparity, size), config.min_depth, config.max_depth)
    warped: dict[Source, Tensor] = {}
    grids: dict[Source, Tensor] = {}
    for source, pyramid in views.sources.items():
        T = _matrix(views.motion[source], depth, config)
        warped[source], grids[source] = synthesise(
            pyramid[level], depth, T, views.cameras[level], align_corners=config.align_corners
        )
    errors = torch.cat([photometric_error(image, target, ssim=config.ssim) for image in warped.values()], 1)
    penalty = disparity.new_zeros(())
    if mask is not None:
        mask = _resize(mask.float(), size)
        errors = errors * mask
        penalty = MASK_WEIGHT * functional.binary_cross_entropy(mask, torch.ones_like(mask))
    if config.average:
        errors = errors.mean(1, keepdim=True)
    candidates, wins = errors, None
    if identity is not None:
        if noise is not None:
            identity = identity + config.noise_std * noise(scale, tuple(identity.shape))
        candidates = torch.cat([identity, errors], 1)
    minimum = candidates
    if candidates.shape[1] > 1:
        minimum, winner = candidates.min(1)
        wins = None if identity is None else winner >= identity.shape[1]
    smoothness = smoothness_term(mean_normalised(disparity), views.target[scale])
    return ScaleLoss(
        minimum, smoothness, config.smoothness / 2**scale, penalty, wins, candidates, warped=warped, grids=grids
    )


def _identity_errors(views: Views, level: int, config: PhotometricConfig) -> Tensor:
    """Errors of the sources as they are, (B, N, H, W), or their mean."""
    target = views.target[level]
    errors = [photometric_error(pyramid[level], target, ssim=config.ssim) for pyramid in views.sources.values()]
    stacked = torch.cat(errors, 1)
    return stacked.mean(1, keepdim=True) if config.average else stacked


def _matrix(motion: Pose | Tensor, depth: Tensor, config: PhotometricConfig) -> Tensor:
    if isinstance(motion, Tensor):
        return motion
    translation = scale_translation(motion.translation, depth) if config.scale_translations else motion.translation
    return pose_matrix(motion.axisangle, translation, invert=motion.invert)


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize bilinearly to (H, W); a map of that size is returned as it is."""
    if tuple(x.shape[2:]) == size:
        return x
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
