"""Running statistics of batch norms: a step that is taken back must leave them as they were."""

from __future__ import annotations

import torch


def norm_buffers(module: torch.nn.Module) -> list[torch.Tensor]:
    """Copy the running statistics, which a forward pass changes."""
    return [b.clone() for m in _norms(module) for b in m.buffers(recurse=False)]


def set_norm_buffers(module: torch.nn.Module, values: list[torch.Tensor]) -> None:
    """Put back what `norm_buffers` copied."""
    for own, value in zip((b for m in _norms(module) for b in m.buffers(recurse=False)), values, strict=True):
        own.copy_(value)


def _norms(module: torch.nn.Module) -> list[torch.nn.Module]:
    every = (module, *getattr(module, "_outside", ()))  # a teacher may learn statistics, too
    return [m for one in every for m in one.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
