"""Weights of other people's networks: read safely, renamed, loaded strictly."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Imported"]


@dataclass(frozen=True, slots=True)
class Imported:
    """A foreign checkpoint, translated.

    Attributes:
        config: configuration from which `adubench.models.zoo.build` makes the network.
        state: that network's complete state dictionary (it loads strictly).
        notes: sentences for the user: what was detected, what was left out.
    """

    config: dict[str, Any]
    state: dict[str, Tensor]
    notes: tuple[str, ...] = field(default=())
