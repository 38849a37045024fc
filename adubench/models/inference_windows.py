"""Faster forms of two parts of an attention block, for inference: the same numbers, fewer copies, less memory.

Into windows and back is one gather each instead of padding, rolling and cutting. The MLP runs over slices of the tokens
on the CPU, so that its hidden layer, four times as wide as the map, stays in the cache and is never allocated whole.
With gradients, and while a network is compiled or runs on shapes only, the plain forms of `windows` are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adubench.models.windows import TOKENS, enter_windows, kept, partition

if TYPE_CHECKING:
    from adubench.models.windows import WindowOrder

HIDDEN_CELLS = 3_000_000  # of a slice of the MLP's hidden layer: 12 MB in float32
WHOLE_CELLS = 6_000_000  # hidden layers up to here are not sliced: there is nothing to gain
_PLACES = ("cpu", "cuda")


def applies(x: Tensor) -> bool:
    """Whether the forms of this module may be used for a tensor."""
    return (
        not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and type(x) is Tensor
        and x.device.type in _PLACES
    )


def window_cells(
    batch: int, height: int, width: int, shift: int, order: WindowOrder, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return where the tokens of windows come from and go to; made once per size, shift and device.

    Args:
        batch: images.
        height: rows of the map, before padding.
        width: its columns.
        shift: 0 or 3.
        order: of padding and rolling.
        device: where the indices are needed.

    Returns:
        For each of the B * windows * 49 tokens its cell among the B * H * W of the map (0 for padding); which tokens
        are padding; for each cell of the map its token. int64.
    """

    def make() -> tuple[Tensor, ...]:
        cells = torch.arange(1, batch * height * width + 1, device="cpu").view(batch, height, width, 1)
        tokens = partition(enter_windows(cells, shift, order)).flatten()
        back = torch.empty(batch * height * width + 1, dtype=torch.int64, device="cpu")
        back[tokens] = torch.arange(tokens.numel(), device="cpu")
        padding = (tokens == 0).nonzero().flatten()
        return (tokens - 1).clamp(min=0).to(device), padding.to(device), back[1:].clone().to(device)

    source, padding, back = kept(("cells", batch, height, width, shift, order, device), make)
    return source, padding, back


def gather_windows(x: Tensor, cells: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Cut a map (B, H, W, C) into (B, windows, 49, C), with zeros where it is padded."""
    batch, channels = x.shape[0], x.shape[-1]
    source, padding, _ = cells
    tokens = x.reshape(-1, channels).index_select(0, source)
    if padding.numel():
        tokens.index_fill_(0, padding, 0)
    return tokens.view(batch, -1, TOKENS, channels)


def scatter_windows(x: Tensor, cells: tuple[Tensor, Tensor, Tensor], size: tuple[int, int]) -> Tensor:
    """Put (B, windows, 49, C) back into a map (B, H, W, C); padding is dropped."""
    batch, channels = x.shape[0], x.shape[-1]
    return x.reshape(-1, channels).index_select(0, cells[2]).view(batch, *size, channels)


def join_heads(x: Tensor) -> Tensor:
    """Put heads side by side: (B, windows, heads, 49, d) to (B, windows, 49, heads * d)."""
    batch, count, heads, tokens, d = x.shape
    return x.transpose(2, 3).reshape(batch, count, tokens, heads * d)


def feed_forward(x: Tensor, norm: nn.Module, fc1: Any, fc2: Any) -> Tensor:
    """Compute x + fc2(gelu(fc1(norm(x)))) for (..., C) without keeping the hidden layer."""
    flat = x.reshape(-1, x.shape[-1])
    if x.device.type != "cpu" or flat.shape[0] * fc1.out_features <= WHOLE_CELLS:
        whole: Tensor = x + fc2(_gelu(fc1(norm(x))))
        return whole
    slices = -(-flat.shape[0] * fc1.out_features // HIDDEN_CELLS)
    rows = -(-flat.shape[0] // slices)
    out = torch.empty_like(flat)
    for first in range(0, flat.shape[0], rows):
        part = flat[first : first + rows]
        torch.add(part, fc2(_gelu(fc1(norm(part)))), out=out[first : first + rows])
    return out.view(x.shape)


def _gelu(x: Tensor) -> Tensor:
    """Exact GELU, in place."""
    out: Tensor = torch.ops.aten.gelu_(x)
    return out
