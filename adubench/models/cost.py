"""What a network costs before it exists: FLOP, parameters, memory. Formulas, no torch needed.

FLOP are counted as 2 per multiply-add, forward pass, one image, matrix products and convolutions only; torch's counter
gives the same numbers to the last digit.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt
from typing import TYPE_CHECKING, Any, Literal

from adubench.models.variants import STRIDES, variant_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from adubench.models.variants import Variant

WINDOW = 7
TOKENS = WINDOW * WINDOW
TABLE_ROWS = (2 * WINDOW - 1) ** 2
BINS = (1, 2, 3, 6)
CRF_BLOCKS = 2
MAX_DISPARITY = 192
CORRELATED_LEVELS = 3

AttentionMode = Literal["auto", "full", "reduced", "window"]


@dataclass(frozen=True, slots=True)
class LevelSize:
    """A map at one stride.

    Attributes:
        rows: its height.
        columns: its width.
    """

    rows: int
    columns: int

    @property
    def tokens(self) -> int:
        """Cells of the map."""
        return self.rows * self.columns

    @property
    def padded_tokens(self) -> int:
        """Cells after padding both sides to multiples of the window."""
        return ceil(self.rows / WINDOW) * ceil(self.columns / WINDOW) * TOKENS


def level_sizes(height: int, width: int, *, multiple: int = 32) -> tuple[LevelSize, ...]:
    """Return the maps at strides 4, 8, 16, 32.

    Args:
        height: rows of the image.
        width: columns of the image.
        multiple: what the input is padded to: 32 as the network does; 4 gives the published formula for any size.
    """
    rows, columns = (ceil(size / multiple) * multiple // 4 for size in (height, width))
    sizes = []
    for _ in STRIDES:
        sizes.append(LevelSize(rows, columns))
        rows, columns = ceil(rows / 2), ceil(columns / 2)
    return tuple(sizes)


def newcrfs_flops(config: Mapping[str, Any], height: int, width: int, *, multiple: int = 32) -> dict[str, int]:
    """Count the forward FLOP of NeWCRFs for one image (one pair for a teacher), by part.

    Args:
        config: model configuration of family newcrfs; missing keys take their defaults.
        height: rows of the image.
        width: columns of the image.
        multiple: see `level_sizes`.

    Returns:
        Part to FLOP: `patch_embedding`, `swin`, `merging`, `psp`, `crf`, `depth_head`, and where the network has them
        `uncertainty_head`, `fusion`. The backward pass costs twice the sum.
    """
    variant = variant_of(config.get("variant", "large07"))
    sizes = level_sizes(height, width, multiple=multiple)
    widths = variant.encoder_widths
    stereo, siamese = _views(config)
    passes = 2 if siamese else 1
    channels = 6 if stereo and not siamese else 3
    coarse, c3, psp = sizes[3].tokens, widths[3], variant.psp_width
    head = 18 * sizes[0].tokens * variant.crf_widths[0]
    parts = {
        "patch_embedding": passes * 32 * channels * sizes[0].tokens * widths[0],
        "swin": passes * sum(n * _block_flops(t, c, 8) for n, t, c in zip(variant.depths, sizes, widths, strict=True)),
        "merging": passes * sum(16 * t.tokens * c * c for t, c in zip(sizes[1:], widths, strict=False)),
        "psp": 2 * sum(b * b for b in BINS) * psp * c3 + 18 * coarse * (c3 + len(BINS) * psp) * psp,
        "crf": sum(_crf_flops(variant, level, sizes[level]) for level in range(4)),
        "depth_head": head,
    }
    if config.get("uncertainty") is not None:
        parts["uncertainty_head"] = head
    if siamese:
        parts["fusion"] = sum(_fusion_flops(config["fusion"], level, sizes[level], widths[level]) for level in range(4))
    return parts


def _views(config: Mapping[str, Any]) -> tuple[bool, bool]:
    """Tell whether a configuration sees two views, and whether it has an encoder pass for each."""
    stereo = config.get("in_channels", 3) == 6
    return stereo, stereo and config.get("fusion", "concat6") != "concat6"


def _block_flops(size: LevelSize, width: int, projections: int) -> int:
    """Count one attention block: `projections` is 8 for query, key, value and output, 6 without the value."""
    windowed = size.padded_tokens * (projections * width**2 + 4 * TOKENS * width)
    return windowed + 16 * size.tokens * width**2


def _crf_flops(variant: Variant, level: int, size: LevelSize) -> int:
    """Count one FC-CRF stage."""
    width = variant.crf_widths[level]
    inputs = [w for w in (variant.encoder_widths[level], variant.value_widths[level]) if w != width]
    return sum(18 * size.tokens * w * width for w in inputs) + CRF_BLOCKS * _block_flops(size, width, 6)


def _shifts(level: int) -> int:
    """Return how many disparities the correlation fusion compares at a level."""
    return MAX_DISPARITY // STRIDES[level]


def _fusion_flops(fusion: str, level: int, size: LevelSize, width: int) -> int:
    """Count the fusion of one level; the correlation is a matrix product over each row."""
    rows_squared = size.rows * size.columns**2
    if fusion == "siamese_concat":
        return 2 * size.tokens * 2 * width * width
    if fusion == "siamese_corr":
        if level >= CORRELATED_LEVELS:
            return 0
        return 2 * rows_squared * width + 2 * size.tokens * (width + _shifts(level)) * width
    return 8 * size.tokens * width**2 + 4 * rows_squared * width


def newcrfs_parameters(config: Mapping[str, Any]) -> dict[str, int]:
    """Count the trainable parameters of NeWCRFs by part.

    Args:
        config: model configuration of family newcrfs; missing keys take their defaults.

    Returns:
        `encoder` (with its output norms), `psp`, `crf0` .. `crf3`, `depth_head`, and where the network has them
        `uncertainty_head`, `fusion`.
    """
    variant = variant_of(config.get("variant", "large07"))
    widths, psp = variant.encoder_widths, variant.psp_width
    stereo, siamese = _views(config)
    patch = widths[0] * (16 * (6 if stereo and not siamese else 3) + 1) + 2 * widths[0]
    blocks = sum(
        n * (12 * c * c + 13 * c + TABLE_ROWS * h)
        for n, c, h in zip(variant.depths, widths, variant.heads, strict=True)
    )
    head = 9 * variant.crf_widths[0] + 1
    parts = {
        "encoder": patch + blocks + sum(8 * c * c + 8 * c for c in widths[:3]) + sum(2 * c for c in widths),
        "psp": len(BINS) * (widths[3] * psp + 2 * psp) + 9 * (widths[3] + len(BINS) * psp) * psp + 2 * psp,
        **{f"crf{level}": _crf_parameters(variant, level) for level in range(4)},
        "depth_head": head,
    }
    uncertainty = config.get("uncertainty")
    if uncertainty is not None:
        parts["uncertainty_head"] = head + (1 if uncertainty.get("scaling") == "gain" else 0)
    if siamese:
        parts["fusion"] = sum(_fusion_parameters(config["fusion"], level, widths[level]) for level in range(4))
    return parts


def _crf_parameters(variant: Variant, level: int) -> int:
    """Count one FC-CRF stage."""
    width, heads = variant.crf_widths[level], variant.crf_heads[level]
    inputs = [w for w in (variant.encoder_widths[level], variant.value_widths[level]) if w != width]
    block = 11 * width**2 + 12 * width + TABLE_ROWS * heads
    return sum(9 * w * width + width for w in inputs) + CRF_BLOCKS * block + 2 * width


def _fusion_parameters(fusion: str, level: int, width: int) -> int:
    """Count the fusion of one level."""
    if fusion == "siamese_concat":
        return 2 * width**2 + width
    if fusion == "siamese_corr":
        return (width + _shifts(level)) * width + width if level < CORRELATED_LEVELS else 0
    return 4 * width**2


def adapter_keys(
    size: LevelSize, mode: AttentionMode, *, max_full_tokens: int = 8192, kv_budget: int = 2048
) -> tuple[str, int]:
    """Resolve the attention mode of an adapter at one level.

    Args:
        size: the level's map.
        mode: as configured; `auto` is full up to `max_full_tokens`, else reduced.
        max_full_tokens: see `mode`.
        kv_budget: keys that reduced attention aims at.

    Returns:
        (`full`, `reduced` or `window`; keys each query sees).
    """
    n = size.tokens
    if mode == "auto":
        mode = "full" if n <= max_full_tokens else "reduced"
    if mode == "window":
        return mode, TOKENS
    if mode == "full":
        return mode, n
    factor = ceil(sqrt(n / kv_budget))
    return mode, ceil(size.rows / factor) * ceil(size.columns / factor)


def adapter_flops(
    size: LevelSize,
    channels: int,
    mode: AttentionMode = "auto",
    *,
    max_full_tokens: int = 8192,
    kv_budget: int = 2048,
) -> dict[str, int]:
    """Count an attention adapter of one level, teacher and student of equal width.

    Args:
        size: the level's map.
        channels: width C.
        mode: attention mode.
        max_full_tokens: of mode `auto`.
        kv_budget: of mode `reduced`.

    Returns:
        `attention` (both products) and `projections` (query, key, value, output of all tokens).
    """
    _, keys = adapter_keys(size, mode, max_full_tokens=max_full_tokens, kv_budget=kv_budget)
    return {"attention": 4 * size.tokens * keys * channels, "projections": 8 * size.tokens * channels**2}


def saved_activations(config: Mapping[str, Any], height: int, width: int, *, fused: bool = True) -> int:
    """Estimate how many numbers a training step keeps for the backward pass, for one image.

    Per block and channel: both norms' inputs, the inputs of four linear layers (one of them 4 C wide), the input of the
    GELU (4 C), query, key, value and the attention's output. Without a fused attention kernel the probabilities come on
    top. Activation checkpointing keeps the block inputs alone.

    Args:
        config: model configuration of family newcrfs.
        height: rows of the image.
        width: columns of the image.
        fused: whether a fused kernel runs the attention with gradients (CUDA), or plain products do (CPU).

    Returns:
        Number of elements; times 4 (float32) or 2 (bfloat16) for bytes.
    """
    variant = variant_of(config.get("variant", "large07"))
    sizes = level_sizes(height, width)
    _, siamese = _views(config)
    light = bool(config.get("activation_checkpointing", False))
    levels = list(zip(sizes, variant.encoder_widths, strict=True))
    encoder = 3 * sizes[0].tokens * variant.embed_dim
    for (size, channels), depth, heads in zip(levels, variant.depths, variant.heads, strict=True):
        encoder += depth * _block_saved(size, channels, heads, fused=fused, light=light)
        encoder += 3 * size.tokens * channels  # output norm, merging norm, merging
    decoder = 2 * sizes[3].tokens * (variant.encoder_widths[3] + 6 * variant.psp_width)
    for level, size in enumerate(sizes):
        channels, heads = variant.crf_widths[level], variant.crf_heads[level]
        inputs = variant.encoder_widths[level] + variant.value_widths[level] + channels
        decoder += CRF_BLOCKS * _block_saved(size, channels, heads, fused=fused, light=light) + inputs * size.tokens
    heads_on_top = 2 * 16 * sizes[0].tokens
    return (2 if siamese else 1) * encoder + decoder + heads_on_top


def _block_saved(size: LevelSize, channels: int, heads: int, *, fused: bool, light: bool) -> int:
    """Estimate the numbers one attention block keeps."""
    if light:
        return size.tokens * channels
    scores = size.padded_tokens * heads * TOKENS
    # The fused kernel keeps its bias (one per window in every other block); plain products keep the probabilities, but
    # not their result before the windows are merged.
    attention = scores // 2 if fused else scores - size.padded_tokens * channels
    return 11 * size.tokens * channels + 6 * size.padded_tokens * channels + attention


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes of a training step, the allocator's overhead and temporary buffers not counted.

    Attributes:
        weights: parameters, gradients and both Adam moments, 16 bytes per trained parameter.
        frozen: parameters of a frozen teacher, 4 bytes each.
        activations: what the backward pass needs, for the whole batch.
    """

    weights: int
    frozen: int
    activations: int

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return self.weights + self.frozen + self.activations


def training_memory(
    config: Mapping[str, Any],
    height: int,
    width: int,
    *,
    batch_size: int,
    activation_bytes: int = 4,
    frozen_config: Mapping[str, Any] | None = None,
    extra_parameters: int = 0,
    fused: bool = True,
) -> MemoryEstimate:
    """Estimate the memory of a training step.

    Args:
        config: the trained network.
        height: rows of a training crop.
        width: columns of a training crop.
        batch_size: images per device and step.
        activation_bytes: 4 in float32, 2 under bfloat16 autocast.
        frozen_config: a teacher that only runs forward.
        extra_parameters: of the adapters.
        fused: see `saved_activations`.
    """
    trained = sum(newcrfs_parameters(config).values()) + extra_parameters
    frozen = 0 if frozen_config is None else sum(newcrfs_parameters(frozen_config).values())
    saved = saved_activations(config, height, width, fused=fused)
    return MemoryEstimate(16 * trained, 4 * frozen, batch_size * activation_bytes * saved)
