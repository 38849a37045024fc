"""View synthesis: what the target camera would see of a source image, given depth and motion.

Source: nianticlabs/monodepth2, layers.py (BackprojectDepth, Project3D, transformation_from_parameters); trainer.py,
generate_images_pred. `T[:3, :4]` maps points of the target camera to the source camera.

The sampling grid is normalised with W - 1 and H - 1, which is right for aligned corners only. The published models were
trained on versions of torch whose sampling aligned corners by default, so that is the default here; with
`align_corners=False` (what the same code does on a recent torch) identity motion does not reproduce the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

#: Keeps divisions by the angle and by the depth finite; part of the published numbers.
_EPS = 1e-7


def rotation_matrix(axisangle: Tensor) -> Tensor:
    """Turn rotation vectors (B, 3) into matrices (B, 3, 3) by Rodrigues' formula.

    The axis is the vector over (angle + 1e-7) and therefore not quite of unit length, as in the reference; a zero
    vector gives exactly the identity.
    """
    angle = axisangle.norm(dim=1, keepdim=True)
    x, y, z = (axisangle / (angle + _EPS)).unbind(1)
    cos, sin = torch.cos(angle)[:, 0], torch.sin(angle)[:, 0]
    rest = 1 - cos
    rows = [
        *(x * x * rest + cos, x * y * rest - z * sin, z * x * rest + y * sin),
        *(x * y * rest + z * sin, y * y * rest + cos, y * z * rest - x * sin),
        *(z * x * rest - y * sin, y * z * rest + x * sin, z * z * rest + cos),
    ]
    return torch.stack(rows, 1).view(-1, 3, 3)


def pose_matrix(axisangle: Tensor, translation: Tensor, *, invert: bool = False) -> Tensor:
    """Build (B, 4, 4) matrices from rotation vectors and translations, both (B, 3).

    Plain: rotate, then translate. Inverted: translate back, then rotate back.
    """
    R = rotation_matrix(axisangle.float())
    t = translation.float()[:, :, None]
    if invert:
        R = R.transpose(1, 2)
        t = -R @ t
    bottom = R.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(R.shape[0], 1, 4)
    return torch.cat([torch.cat([R, t], 2), bottom], 1)


@dataclass(frozen=True, slots=True)
class Cameras:
    """Intrinsics of a batch at one image size.

    Attributes:
        K: (B, 4, 4), in pixels.
        inverse: (B, 4, 4), its inverse.
    """

    K: Tensor
    inverse: Tensor


def backproject(depth: Tensor, inverse_K: Tensor) -> Tensor:
    """Lift every pixel to a homogeneous point of the target camera.

    Args:
        depth: (B, 1, H, W).
        inverse_K: (B, 4, 4). Pixel centres have integer coordinates.

    Returns:
        (B, 4, H * W).
    """
    batch, _, height, width = depth.shape
    v, u = torch.meshgrid(
        torch.arange(height, dtype=depth.dtype, device=depth.device),
        torch.arange(width, dtype=depth.dtype, device=depth.device),
        indexing="ij",
    )
    pixels = torch.stack([u, v, torch.ones_like(u)]).view(1, 3, -1)
    points = depth.view(batch, 1, -1) * (inverse_K[:, :3, :3] @ pixels)
    return torch.cat([points, torch.ones_like(points[:, :1])], 1)


def project(points: Tensor, K: Tensor, T: Tensor, size: tuple[int, int]) -> Tensor:
    """Find where points of the target camera fall in the source image.

    Points behind the source camera are projected like all others; only an exact zero depth is kept off by 1e-7.

    Args:
        points: (B, 4, H * W).
        K: (B, 4, 4) of the source.
        T: (B, 4, 4) from target to source.
        size: (H, W).

    Returns:
        (B, H, W, 2), x before y, -1 and 1 at the centres of the outermost pixels.
    """
    height, width = size
    projected = (K @ T)[:, :3] @ points
    pixels = projected[:, :2] / (projected[:, 2:3] + _EPS)
    pixels = pixels.view(-1, 2, height, width).permute(0, 2, 3, 1)
    last = pixels.new_tensor([width - 1, height - 1])
    return (pixels / last - 0.5) * 2


def sample(source: Tensor, grid: Tensor, *, align_corners: bool = True) -> Tensor:
    """Read a source image (B, 3, H, W) at grid positions, bilinearly; outside, the nearest border pixel counts.

    Positions that are NaN (networks that diverged) give NaN. torch reads the first pixel there, so that the loss would
    stay finite, and its backward pass on the CPU ends the process.
    """
    lost = grid.isnan()
    read = functional.grid_sample(
        source, grid.masked_fill(lost, 0), mode="bilinear", padding_mode="border", align_corners=align_corners
    )
    return read.masked_fill(lost.any(-1)[:, None], float("nan"))


def synthesise(
    source: Tensor, depth: Tensor, T: Tensor, cameras: Cameras, *, align_corners: bool = True
) -> tuple[Tensor, Tensor]:
    """Reconstruct the target from a source image.

    Args:
        source: (B, 3, H, W) in [0, 1], without colour augmentation.
        depth: (B, 1, H, W) of the target, at the size of the source.
        T: (B, 4, 4) from target to source.
        cameras: intrinsics at that size, the same for both.
        align_corners: see above.

    Returns:
        the image (B, 3, H, W) and the grid (B, H, W, 2).
    """
    size = (int(depth.shape[2]), int(depth.shape[3]))
    grid = project(backproject(depth.float(), cameras.inverse), cameras.K, T, size)
    return sample(source, grid, align_corners=align_corners), grid


def scale_translation(translation: Tensor, depth: Tensor) -> Tensor:
    """Scale translations (B, 3) by the mean inverse depth of each image, as for the reference's `posecnn`.

    Temporal sources only: a stereo source has a known translation.
    """
    inverse = 1 / depth
    return translation * inverse.mean(3).mean(2)
