"""NeWCRFs' forward pass in the form of the published code, on the weights of a network of ours.

What the published code does and the product does not: attention as product, softmax, product; region masks rebuilt in
every stage and position biases in every layer of every forward; windows, heads and maps made contiguous at each change
of layout (NeWCRFs, swin_transformer.py, newcrf_layers.py, uper_crf_head.py, NewCRFDepth.py). Inference and training.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

WINDOW, SHIFT = 7, 3
Counter = dict[str, int]


class ReferenceForm(nn.Module):
    """The same function as the network given, written out plainly. Only one view (3 channels), official order.

    Attributes:
        rebuilt: how often a mask and a position bias were made.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.rebuilt: Counter = {"mask": 0, "bias": 0}
        index = _position_index()
        self.register_buffer("index", index, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W), sides multiples of 32, to depth (B, 1, H, W)."""
        features = self.encode(x)
        network = self.network
        prediction = self.pool(features[3])
        for level in (3, 2, 1, 0):
            prediction = self.crf(network.get_submodule(f"crf{level}"), features[level], prediction)
            if level:
                prediction = functional.pixel_shuffle(prediction, 2)
        share = torch.sigmoid(network.disp_head1.conv1(prediction))
        share = functional.interpolate(share, scale_factor=4, mode="bilinear", align_corners=False)
        return share * network.max_depth

    # ---- encoder -----------------------------------------------------------------------------------------------------

    def encode(self, x: Tensor) -> list[Tensor]:
        backbone, norms = self.network.encoder.backbone, self.network.encoder.norms
        embed = backbone.patch_embed
        x = embed.proj(x)
        height, width = x.shape[2:]
        x = embed.norm(x.flatten(2).transpose(1, 2))
        maps = []
        for level in range(4):
            stage = backbone.get_submodule(f"layers_{level}")
            if level:
                x, height, width = self.merge(stage.downsample, x, height, width)
            mask = self.mask(height, width, x)
            for block in stage.blocks:
                x = self.swin_block(block, x, height, width, mask)
            out = norms[level](x)
            maps.append(out.view(-1, height, width, out.shape[-1]).permute(0, 3, 1, 2).contiguous())
        return maps

    def merge(self, layer: Any, x: Tensor, height: int, width: int) -> tuple[Tensor, int, int]:
        batch, _, channels = x.shape
        x = x.view(batch, height, width, channels)
        if height % 2 or width % 2:
            x = functional.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        parts = [x[:, row::2, column::2, :] for column in (0, 1) for row in (0, 1)]
        x = torch.cat(parts, -1).view(batch, -1, 4 * channels)
        return layer.reduction(layer.norm(x)), (height + 1) // 2, (width + 1) // 2

    def swin_block(self, block: Any, x: Tensor, height: int, width: int, mask: Tensor) -> Tensor:
        batch, _, channels = x.shape
        shift, attention = block.shift_size[0], block.attn
        y = block.norm1(x).view(batch, height, width, channels)
        y = self.enter(y, shift)
        rows, columns = y.shape[1:3]
        tokens = partition(y).view(-1, WINDOW * WINDOW, channels)
        n, heads = tokens.shape[0], attention.num_heads
        qkv = attention.qkv(tokens).reshape(n, -1, 3, heads, channels // heads).permute(2, 0, 3, 1, 4)
        out = self.attend(qkv[0], qkv[1], qkv[2], attention.relative_position_bias_table, mask if shift else None)
        y = self.leave(attention.proj(out), shift, (rows, columns), (height, width))
        x = x + block.drop_path1(y.view(batch, height * width, channels))
        return x + block.drop_path2(mlp(block.mlp, block.norm2(x)))

    # ---- decoder -----------------------------------------------------------------------------------------------------

    def pool(self, x: Tensor) -> Tensor:
        head, size = self.network.decoder, x.shape[2:]
        pooled = [part(x) for part in head.psp_modules]
        branches = [functional.interpolate(y, size=size, mode="bilinear", align_corners=False) for y in pooled]
        out: Tensor = head.bottleneck(torch.cat([x, *branches], dim=1))
        return out

    def crf(self, stage: Any, x: Tensor, v: Tensor) -> Tensor:
        x, v = stage.proj_x(x), stage.proj_v(v)
        height, width = x.shape[2:]
        x, v = x.flatten(2).transpose(1, 2), v.transpose(1, 2).transpose(2, 3)
        mask = self.mask(height, width, x)
        for block in stage.crf_layer.blocks:
            x = self.crf_block(block, x, v, height, width, mask)
        out = stage.norm_crf(x)
        return out.view(-1, height, width, out.shape[-1]).permute(0, 3, 1, 2).contiguous()

    def crf_block(self, block: Any, x: Tensor, v: Tensor, height: int, width: int, mask: Tensor) -> Tensor:
        batch, _, channels = x.shape
        attention, shift = block.attn, block.shift
        y = self.enter(block.norm1(x).view(batch, height, width, channels), shift)
        v = self.enter(v, shift)
        rows, columns = y.shape[1:3]
        tokens, values = (partition(m).view(-1, WINDOW * WINDOW, channels) for m in (y, v))
        n, heads = tokens.shape[0], attention.heads
        qk = attention.qk(tokens).reshape(n, -1, 2, heads, channels // heads).permute(2, 0, 3, 1, 4)
        values = values.reshape(n, -1, heads, channels // heads).transpose(1, 2)
        out = self.attend(qk[0], qk[1], values, attention.relative_position_bias_table, mask if shift else None)
        y = self.leave(attention.proj(out), shift, (rows, columns), (height, width))
        x = x + y.view(batch, height * width, channels)
        return x + mlp(block.mlp, block.norm2(x))

    # ---- windows -----------------------------------------------------------------------------------------------------

    def attend(self, q: Tensor, k: Tensor, v: Tensor, table: Tensor, mask: Tensor | None) -> Tensor:
        """Attention of (windows, heads, 49, d) as (windows, 49, heads * d)."""
        n, heads, tokens, d = q.shape
        logits = (q * d**-0.5) @ k.transpose(-2, -1)
        self.rebuilt["bias"] += 1
        bias = table[self.index.view(-1)].view(tokens, tokens, -1).permute(2, 0, 1).contiguous()
        logits = logits + bias.unsqueeze(0)
        if mask is not None:
            count = mask.shape[0]
            logits = logits.view(n // count, count, heads, tokens, tokens) + mask.unsqueeze(1).unsqueeze(0)
            logits = logits.view(-1, heads, tokens, tokens)
        weights = torch.softmax(logits, dim=-1)
        return (weights @ v).transpose(1, 2).reshape(n, tokens, heads * d)

    def mask(self, height: int, width: int, x: Tensor) -> Tensor:
        """(windows, 49, 49), made anew."""
        self.rebuilt["mask"] += 1
        height, width = (-(-side // WINDOW) * WINDOW for side in (height, width))
        regions = torch.zeros((1, height, width, 1), device=x.device)
        cuts = (slice(0, -WINDOW), slice(-WINDOW, -SHIFT), slice(-SHIFT, None))
        for i, rows in enumerate(cuts):
            for j, columns in enumerate(cuts):
                regions[:, rows, columns, :] = 3 * i + j
        labels = partition(regions).view(-1, WINDOW * WINDOW)
        difference = labels.unsqueeze(1) - labels.unsqueeze(2)
        return difference.masked_fill(difference != 0, -100.0).masked_fill(difference == 0, 0.0)

    def enter(self, x: Tensor, shift: int) -> Tensor:
        height, width = x.shape[1:3]
        x = functional.pad(x, (0, 0, 0, -width % WINDOW, 0, -height % WINDOW))
        return torch.roll(x, (-shift, -shift), (1, 2)) if shift else x

    def leave(self, windows: Tensor, shift: int, padded: tuple[int, int], size: tuple[int, int]) -> Tensor:
        x = reverse(windows, *padded)
        if shift:
            x = torch.roll(x, (shift, shift), (1, 2))
        return x[:, : size[0], : size[1], :].contiguous()


def mlp(layer: Any, x: Tensor) -> Tensor:
    """Linear, GELU, Linear."""
    out: Tensor = layer.fc2(functional.gelu(layer.fc1(x)))
    return out


def partition(x: Tensor) -> Tensor:
    """(B, H, W, C) to (windows, 7, 7, C), contiguous."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // WINDOW, WINDOW, width // WINDOW, WINDOW, channels)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, WINDOW, WINDOW, channels)


def reverse(windows: Tensor, height: int, width: int) -> Tensor:
    """(windows, 49, C) to (B, H, W, C), contiguous."""
    x = windows.view(-1, height // WINDOW, width // WINDOW, WINDOW, WINDOW, windows.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, height, width, windows.shape[-1])


def _position_index() -> Tensor:
    coordinates = torch.stack(torch.meshgrid(torch.arange(WINDOW), torch.arange(WINDOW), indexing="ij")).flatten(1)
    offset = coordinates[:, :, None] - coordinates[:, None, :] + WINDOW - 1
    return offset[0] * (2 * WINDOW - 1) + offset[1]
