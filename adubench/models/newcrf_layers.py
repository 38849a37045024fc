"""The neural window FC-CRF stage: attention weights from the image feature, values from the previous prediction.

After NeWCRFs (newcrf_layers.py); parameter names are the reference's, so that checkpoints keep them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from adubench.models import inference_windows
from adubench.models.windows import (
    SHIFT,
    TABLE_ROWS,
    WINDOW,
    WindowBias,
    attend,
    enter_windows,
    leave_windows,
    merge_windows,
    partition,
    split_heads,
)

if TYPE_CHECKING:
    from torch import Tensor


class Mlp(nn.Module):
    """Linear C -> 4C, exact GELU, Linear 4C -> C."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class WindowCRFAttention(nn.Module):
    """Attention whose queries and keys come from x and whose values are v itself, without a projection."""

    def __init__(self, dim: int, heads: int, shift: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.empty(TABLE_ROWS, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qk = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.window_bias = WindowBias(shift)

    def forward(self, x: Tensor, v: Tensor) -> Tensor:
        """Attend inside the windows of two padded (and rolled) maps.

        Args:
            x: (B, H, W, C) normalised image feature, H and W multiples of 7.
            v: (B, H, W, C) previous prediction.

        Returns:
            (B, H, W, C).
        """
        height, width = x.shape[1:3]
        q, k = split_heads(self.qk(partition(x)), 2, self.heads)
        (values,) = split_heads(partition(v), 1, self.heads)
        bias = self.window_bias(self.relative_position_bias_table, height, width, q.dtype)
        out: Tensor = self.proj(merge_windows(attend(q, k, values, bias), height, width))
        return out

    def infer(self, x: Tensor, v: Tensor) -> Tensor:
        """Do the same for maps that are neither padded nor rolled, (B, H, W, C), without gradients."""
        batch, height, width, _ = x.shape
        shift = self.window_bias.shift
        cells = inference_windows.window_cells(batch, height, width, shift, "official", x.device)
        q, k = split_heads(self.qk(inference_windows.gather_windows(x, cells)), 2, self.heads)
        (values,) = split_heads(inference_windows.gather_windows(v, cells), 1, self.heads)
        rows, columns = (side + -side % WINDOW for side in (height, width))
        bias = self.window_bias(self.relative_position_bias_table, rows, columns, q.dtype)
        out = self.proj(inference_windows.join_heads(attend(q, k, values, bias)))
        return inference_windows.scatter_windows(out, cells, (height, width))


class CRFBlock(nn.Module):
    """One update of x under the windows of one shift. v is only read."""

    def __init__(self, dim: int, heads: int, shift: int) -> None:
        super().__init__()
        self.shift = shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowCRFAttention(dim, heads, shift)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)

    def forward(self, x: Tensor, v: Tensor) -> Tensor:
        """Update x (B, H, W, C) with the prediction v (B, H, W, C)."""
        if inference_windows.applies(x):
            x = x + self.attn.infer(self.norm1(x), v)
            return inference_windows.feed_forward(x, self.norm2, self.mlp.fc1, self.mlp.fc2)
        height, width = x.shape[1:3]
        # Padding follows the norm: padded tokens are exact zeros, unmasked, and contribute v = 0 (reference behaviour).
        y = enter_windows(self.norm1(x), self.shift)
        out = self.attn(y, enter_windows(v, self.shift))
        x = x + leave_windows(out, self.shift, height, width)
        result: Tensor = x + self.mlp(self.norm2(x))
        return result


class CRFLayer(nn.Module):
    """Two blocks, shift 0 and shift 3, over the same v."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([CRFBlock(dim, heads, shift) for shift in (0, SHIFT)])
        self.activation_checkpointing = False

    def forward(self, x: Tensor, v: Tensor) -> Tensor:
        """Map x and v (B, H, W, C) to the updated x."""
        for block in self.blocks:
            if self.activation_checkpointing and self.training and torch.is_grad_enabled():
                x = checkpoint(block, x, v, use_reentrant=False)
            else:
                x = block(x, v)
        return x


class NewCRF(nn.Module):
    """One FC-CRF stage: project both inputs to the stage's width where they differ, two blocks, LayerNorm.

    Args:
        in_width: channels D of the image feature.
        value_width: channels of the previous prediction.
        width: channels C of the stage.
        heads: attention heads.
    """

    def __init__(self, in_width: int, value_width: int, width: int, heads: int) -> None:
        super().__init__()
        if in_width != width:
            self.proj_x: nn.Module = nn.Conv2d(in_width, width, 3, padding=1)
        else:
            self.proj_x = nn.Identity()
        if value_width != width:
            self.proj_v: nn.Module = nn.Conv2d(value_width, width, 3, padding=1)
        else:
            self.proj_v = nn.Identity()
        self.crf_layer = CRFLayer(width, heads)
        self.norm_crf = nn.LayerNorm(width)

    def forward(self, x: Tensor, v: Tensor) -> Tensor:
        """Map an image feature (B, D, H, W) and a prediction (B, Cv, H, W) to (B, C, H, W)."""
        x = self.proj_x(x).permute(0, 2, 3, 1)
        v = self.proj_v(v).permute(0, 2, 3, 1)
        if inference_windows.applies(x):
            v = v.contiguous()  # both blocks read it by rows
        out: Tensor = self.norm_crf(self.crf_layer(x, v))
        return out.permute(0, 3, 1, 2)
