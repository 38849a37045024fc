"""Encoders of the teachers and students from timm, random or with weights the user asked for."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from adubench.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn


def create_encoder(name: str, *, pretrained: bool, **options: Any) -> nn.Module:
    """Build a timm model.

    Args:
        name: timm's name, with the tag of its weights where that matters.
        pretrained: load timm's weights; timm downloads them when they are not in its cache.
        **options: passed to `timm.create_model`.

    Raises:
        CheckpointError: the weights cannot be had.
    """
    import timm

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        if not pretrained:
            model: nn.Module = timm.create_model(name, pretrained=False, **options)
            return model
        try:
            model = timm.create_model(name, pretrained=True, **options)
        except (OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(
                f"pretrained weights of {name}: cannot be loaded ({reason}). Connect to the network once, name "
                "a local file of them, or start from random weights."
            ) from None
    return model


def resize_to(x: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Resize (B, C, h, w) bilinearly with the corners aligned; the same tensor when the size is already right."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return torch.nn.functional.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)
