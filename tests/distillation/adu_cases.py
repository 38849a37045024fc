"""Golden arrays as tensors, and small outputs in the form of the networks'."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).resolve().parents[1] / "data" / "adu_depth"


def golden(name: str, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    with np.load(DATA / f"{name}.npz") as arrays:
        return {
            key: torch.from_numpy(np.array(a)).to(dtype if a.dtype.kind == "f" else torch.bool)
            if a.dtype.kind in "fb"
            else torch.from_numpy(np.array(a))
            for key, a in arrays.items()
        }


def leaf(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone().requires_grad_()


def assert_close(found, want, dtype=torch.float64):
    """1e-9 relative in float64, 1e-5 in float32; of the largest entry for arrays."""
    want = want.to(dtype)
    rel = 1e-9 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(found.detach(), want, rtol=rel, atol=rel * float(want.abs().max()))


@dataclass
class Output:
    """The form of a network's output."""

    depth: torch.Tensor
    s: torch.Tensor | None = None
    s_quarter: torch.Tensor | None = None
    encoder: list[torch.Tensor] = field(default_factory=list)
    decoder: list[torch.Tensor] = field(default_factory=list)


ENCODER, DECODER = (4, 8, 12, 16), (4, 6, 8, 10)


def random_output(seed: int, *, batch=2, size=(64, 96), encoder=ENCODER, decoder=DECODER, uncertain=True, grad=False):
    g = torch.Generator().manual_seed(seed)
    h, w = size

    def normal(*shape):
        return torch.randn(shape, generator=g).requires_grad_(grad)

    s_quarter = normal(batch, 1, h // 4, w // 4) if uncertain else None
    s = None
    if uncertain:
        s = torch.nn.functional.interpolate(s_quarter, scale_factor=4, mode="bilinear", align_corners=False)
    depth = (5 + 40 * torch.rand((batch, 1, h, w), generator=g)).requires_grad_(grad)
    return Output(
        depth,
        s,
        s_quarter,
        [normal(batch, c, h // 4 // 2**i, w // 4 // 2**i) for i, c in enumerate(encoder)],
        [normal(batch, c, h // 4 // 2**i, w // 4 // 2**i) for i, c in enumerate(decoder)],
    )


def random_gt(seed: int, batch=2, size=(64, 96)):
    g = torch.Generator().manual_seed(seed)
    gt = 2 + 60 * torch.rand((batch, 1, *size), generator=g)
    return torch.where(torch.rand(gt.shape, generator=g) < 0.3, gt, 0.0)


def first_not_finite(parts: dict[str, torch.Tensor]) -> str | None:
    """Name of the first part that is NaN or infinite, the total last; None where all are numbers."""
    ordered = sorted(parts.items(), key=lambda item: item[0] == "loss")
    return next((name for name, value in ordered if not bool(torch.isfinite(value).all())), None)
