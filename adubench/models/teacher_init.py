"""Weights across the step from three to six input channels, in both directions (ADU-Depth, section 3.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from adubench.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

PatchInit = Literal["half_repeat", "left_only", "repeat", "random"]
PATCH_INITS: tuple[PatchInit, ...] = ("half_repeat", "left_only", "repeat", "random")
PATCH_KERNEL = "patch_embed.proj.weight"


def stereo_kernel(kernel: Tensor, init: PatchInit, *, generator: torch.Generator | None = None) -> Tensor:
    """Make a patch kernel for [left, right] of one for a single view.

    Args:
        kernel: (E, 3, 4, 4).
        init: `half_repeat` [W/2, W/2]: equal views give exactly the mono activations; `left_only` [W, 0]: starts as the
            mono network; `repeat` [W, W]; `random`: torch's default for a convolution with six channels.
        generator: source of randomness for `random`.

    Returns:
        (E, 6, 4, 4).
    """
    if init == "half_repeat":
        return torch.cat([kernel / 2, kernel / 2], dim=1)
    if init == "left_only":
        return torch.cat([kernel, torch.zeros_like(kernel)], dim=1)
    if init == "repeat":
        return torch.cat([kernel, kernel], dim=1)
    doubled = torch.empty_like(torch.cat([kernel, kernel], dim=1))
    bound = doubled[0].numel() ** -0.5  # Kaiming uniform with a = sqrt(5), torch's default
    return doubled.uniform_(-bound, bound, generator=generator)


def mono_kernel(kernel: Tensor) -> Tensor:
    """Make a patch kernel for one view of one for two: the sum of its halves, exact when both views are equal."""
    return kernel[:, :3] + kernel[:, 3:]


def load_compatible(network: nn.Module, state: Mapping[str, Tensor], *, patch_init: PatchInit = "half_repeat") -> None:
    """Start a network from the weights of another that differs only in what the two stages differ in.

    A patch kernel with the other number of channels is converted. An uncertainty head or a fusion of views that the
    weights lack keeps its initialisation; one that the network lacks is left out. Anything else must agree.

    Raises:
        CheckpointError: weights of another network.
    """
    own = network.state_dict()
    optional = ("uncertainty_head.", "fusion.")
    result: dict[str, Tensor] = {}
    for key, value in own.items():
        given = state.get(key)
        if given is None and key.startswith(optional):
            result[key] = value
        elif given is None:
            raise CheckpointError(f"the weights to start from lack '{key}': they belong to another network.")
        else:
            result[key] = _fit(key, given, value, patch_init)
    unknown = sorted(key for key in state if key not in own and not key.startswith(optional))
    if unknown:
        raise CheckpointError(f"the weights to start from have '{unknown[0]}' besides: they belong to another network.")
    network.load_state_dict(result)


def _fit(key: str, given: Tensor, own: Tensor, patch_init: PatchInit) -> Tensor:
    """Convert a patch kernel between three and six channels; refuse every other difference of shape."""
    if given.shape == own.shape:
        return given
    if key.endswith(PATCH_KERNEL) and given.shape[0] == own.shape[0] and given.shape[2:] == own.shape[2:]:
        if (given.shape[1], own.shape[1]) == (6, 3):
            return mono_kernel(given)
        if (given.shape[1], own.shape[1]) == (3, 6):
            return own if patch_init == "random" else stereo_kernel(given, patch_init)
    raise CheckpointError(
        f"the weights to start from have '{key}' of shape {tuple(given.shape)}, the network {tuple(own.shape)}: "
        "choose the encoder they were made for."
    )
