"""Attention between the positions of a feature map without ever holding the matrix of scores (ADU-Depth eq. 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

Mode = Literal["full", "reduced", "window"]

WINDOW = 7
"""Side of the windows of `window` attention, as in the encoder."""


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """What attention does on a map of a given size.

    Attributes:
        mode: full, reduced or window.
        factor: pooling of keys and values, 1 for none.
        queries: positions of the map.
        keys: keys that one query sees.
    """

    mode: Mode
    factor: int
    queries: int
    keys: int


def attention_plan(
    height: int, width: int, attention: str = "auto", *, max_full_tokens: int = 8192, kv_budget: int = 2048
) -> AttentionPlan:
    """Resolve `auto` and the pooling factor for a map.

    `auto` is full attention up to `max_full_tokens` positions, else reduced. `reduced` pools keys and values by the
    factor ceil(sqrt(positions / kv_budget)) in both directions, cells at the border being smaller.
    """
    n = height * width
    if attention == "window":
        return AttentionPlan("window", 1, n, WINDOW * WINDOW)
    if attention == "full" or (attention == "auto" and n <= max_full_tokens):
        return AttentionPlan("full", 1, n, n)
    # In whole numbers: the least r with r^2 >= n / kv_budget.
    factor = math.isqrt((n - 1) // kv_budget) + 1
    return AttentionPlan("reduced", factor, n, math.ceil(height / factor) * math.ceil(width / factor))


def to_tokens(features: Tensor) -> Tensor:
    """(B, C, h, w) as (B, h*w, C), row by row, contiguous."""
    return features.flatten(2).transpose(1, 2).contiguous()


def to_map(tokens: Tensor, height: int, width: int) -> Tensor:
    """(B, h*w, C) as (B, C, h, w)."""
    b, _, c = tokens.shape
    return tokens.transpose(1, 2).reshape(b, c, height, width)


def pooled(features: Tensor, factor: int) -> Tensor:
    """(B, C, h, w) averaged over cells of factor x factor; border cells average what they cover."""
    if factor == 1:
        return features
    return functional.avg_pool2d(features, factor, factor, ceil_mode=True, count_include_pad=False)


def attend(q: Tensor, k: Tensor, v: Tensor, *, heads: int, scale: float, mask: Tensor | None = None) -> Tensor:
    """softmax(scale * q k^T) v per head through the fused kernels.

    Args:
        q: (B, N, C) queries.
        k: (B, M, C) keys.
        v: (B, M, D) values; C and D are multiples of `heads`.
        heads: number of heads, contiguous groups of channels.
        scale: factor on the logits.
        mask: boolean, broadcast to (B, heads, N, M), True where a key counts; None: everywhere.

    Returns:
        (B, N, D).
    """
    q, k, v = (_split(t, heads) for t in (q, k, v))
    width = v.shape[-1]
    # Kernels without a score matrix want one head width for all three. Zeros change neither logits nor values.
    widest = max(q.shape[-1], width)
    q, k, v = (functional.pad(t, (0, widest - t.shape[-1])) if t.shape[-1] < widest else t for t in (q, k, v))
    y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return y[..., :width].transpose(1, 2).flatten(2)


def _split(tokens: Tensor, heads: int) -> Tensor:
    """(B, N, C) as (B, heads, N, C/heads), last dimension contiguous: else the explicit kernel may be taken."""
    tokens = tokens if tokens.stride(-1) == 1 else tokens.contiguous()
    b, n, c = tokens.shape
    return tokens.view(b, n, heads, c // heads).transpose(1, 2)


def to_windows(tokens: Tensor, height: int, width: int) -> Tensor:
    """(B, h*w, C) as (B * windows, 49, C): 7x7 windows, zeros added at the right and at the bottom."""
    b, _, c = tokens.shape
    rows, columns = -(-height // WINDOW), -(-width // WINDOW)
    grid = functional.pad(
        tokens.reshape(b, height, width, c), (0, 0, 0, columns * WINDOW - width, 0, rows * WINDOW - height)
    )
    grid = grid.view(b, rows, WINDOW, columns, WINDOW, c).transpose(2, 3)
    return grid.reshape(b * rows * columns, WINDOW * WINDOW, c)


def from_windows(windows: Tensor, height: int, width: int) -> Tensor:
    """Undo `to_windows`: (B * windows, 49, C) as (B, h*w, C) without the added positions."""
    rows, columns = -(-height // WINDOW), -(-width // WINDOW)
    c = windows.shape[-1]
    grid = windows.view(-1, rows, columns, WINDOW, WINDOW, c).transpose(2, 3)
    grid = grid.reshape(-1, rows * WINDOW, columns * WINDOW, c)[:, :height, :width]
    return grid.flatten(1, 2)


def window_mask(height: int, width: int, batch: int, device: torch.device) -> Tensor | None:
    """(B * windows, 1, 1, 49) True at real positions, or None if no window is padded."""
    if height % WINDOW == 0 and width % WINDOW == 0:
        return None
    real = torch.ones(1, height * width, 1, dtype=torch.bool, device=device)
    return to_windows(real, height, width).view(-1, 1, 1, WINDOW * WINDOW).repeat(batch, 1, 1, 1)
