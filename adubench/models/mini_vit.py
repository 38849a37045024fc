"""The mini-ViT of AdaBins: bin widths per image and range-attention maps from one decoder map.

AdaBins (arXiv 2011.14141), `models/miniViT.py`, `models/layers.py`; parameter names are the official ones.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

WidthNorm = Literal["linear", "softmax", "sigmoid"]


class PatchTransformer(nn.Module):
    """Patches to tokens, plus a learned table of positions, through four post-norm transformer layers.

    Args:
        in_channels: of the map.
        patch: side of a patch in pixels of the map.
        width: of a token.
        positions: rows of the table, the largest number of patches.
    """

    def __init__(self, in_channels: int, patch: int, width: int, positions: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, nhead=4, dim_feedforward=1024)
        self.transformer_encoder = nn.TransformerEncoder(layer, num_layers=4, enable_nested_tensor=False)
        self.embedding_convPxP = nn.Conv2d(in_channels, width, patch, stride=patch)
        self.positional_encodings = nn.Parameter(torch.rand(positions, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to tokens (S, B, width), patches in row-major order."""
        tokens = self.embedding_convPxP(x).flatten(2).permute(2, 0, 1)
        out: Tensor = self.transformer_encoder(tokens + self.positional_encodings[: tokens.shape[0], None])
        return out


class MiniViT(nn.Module):
    """Bin widths and range-attention maps.

    Args:
        in_channels: of the decoder map.
        n_bins: bins per image.
        queries: tokens that become kernels; the token before them predicts the widths.
        patch: side of a patch.
        width: of tokens and of the map they are multiplied with.
        norm: how widths are made positive and sum to one.
        positions: rows of the table of positions.
    """

    def __init__(
        self,
        in_channels: int = 128,
        *,
        n_bins: int = 256,
        queries: int = 128,
        patch: int = 16,
        width: int = 128,
        norm: WidthNorm = "linear",
        positions: int = 500,
    ) -> None:
        super().__init__()
        self.norm, self.queries = norm, queries
        self.patch_transformer = PatchTransformer(in_channels, patch, width, positions)
        self.conv3x3 = nn.Conv2d(in_channels, width, 3, padding=1)
        self.regressor = nn.Sequential(
            nn.Linear(width, 256), nn.LeakyReLU(), nn.Linear(256, 256), nn.LeakyReLU(), nn.Linear(256, n_bins)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute widths and attention.

        Args:
            x: (B, in_channels, h, w) with at least `queries` + 1 patches.

        Returns:
            Widths (B, n_bins) float32 that sum to one; attention maps (B, queries, h, w), not scaled.
        """
        tokens = self.patch_transformer(x)
        queries = tokens[1 : self.queries + 1].permute(1, 0, 2)
        maps = torch.einsum("bqe,behw->bqhw", queries, self.conv3x3(x))
        return normalise_widths(self.regressor(tokens[0]), self.norm), maps


def normalise_widths(raw: Tensor, norm: WidthNorm) -> Tensor:
    """Make widths (B, N) positive and sum to one, in float32."""
    with torch.autocast(device_type=raw.device.type, enabled=False):
        raw = raw.float()
        if norm == "softmax":
            return torch.softmax(raw, dim=1)
        positive = torch.relu(raw) + 0.1 if norm == "linear" else torch.sigmoid(raw)
        return positive / positive.sum(dim=1, keepdim=True)


def bins_to_depth(widths: Tensor, logits: Tensor, min_depth: float, max_depth: float) -> tuple[Tensor, Tensor]:
    """Turn widths and per-pixel logits into depth, in float32.

    Args:
        widths: (B, N), sum to one.
        logits: (B, N, h, w).
        min_depth: metres, the first edge.
        max_depth: metres, the last edge up to rounding.

    Returns:
        Edges (B, N + 1) and depth (B, 1, h, w), both float32 metres.
    """
    with torch.autocast(device_type=logits.device.type, enabled=False):
        steps = (max_depth - min_depth) * widths.float()
        edges = torch.cumsum(nn.functional.pad(steps, (1, 0), value=min_depth), dim=1)
        centres = 0.5 * (edges[:, :-1] + edges[:, 1:])
        probs = torch.softmax(logits.float(), dim=1)
        return edges, (probs * centres[:, :, None, None]).sum(dim=1, keepdim=True)
