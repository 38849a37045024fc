"""Adapters that bring student features closer to the teacher's; used in training only, then thrown away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from adubench.distillation.adu_config import AdapterConfig, DistillationConfig
from adubench.distillation.attention import (
    attend,
    attention_plan,
    from_windows,
    pooled,
    to_map,
    to_tokens,
    to_windows,
    window_mask,
)
from adubench.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


def head_count(heads: int | str, student: int, teacher: int) -> int:
    """Number of heads for a level.

    `C/32` is the largest number up to student channels / 32 that divides the channels of both networks, at least 1.

    Raises:
        UsageError: a given number does not divide the channels.
    """
    if heads == "C/32":
        return next(h for h in range(max(1, student // 32), 0, -1) if student % h == 0 and teacher % h == 0)
    count = int(heads)
    if count < 1 or student % count or teacher % count:
        raise UsageError(
            f"distill.adapter.heads {heads} does not divide the {student} student and {teacher} teacher channels of a "
            "level: choose a common divisor, or C/32."
        )
    return count


def residual_path(student: int, teacher: int) -> nn.Module:
    """The identity, or a 1x1 convolution if the networks differ in channels."""
    return nn.Identity() if student == teacher else nn.Conv2d(student, teacher, 1, bias=False)


def _plus_residual(y: Tensor, residual: nn.Module | None, features: Tensor) -> Tensor:
    if residual is None:
        return y
    kept: Tensor = residual(features)
    return y + kept


class AttentionAdapter(nn.Module):
    """Self-attention over the positions of one level, from student to teacher channels (eq. 1).

    q = W_q x, k = W_k x, v = W_v x without bias, per head softmax(scale * q k^T) v, heads side by side, W_o, plus the
    residual path. No position enters. With one head, no residual and no zero initialisation W_o is left out, as
    printed: it would only multiply W_v.

    Args:
        student: channels that go in.
        teacher: channels that come out.
        config: switches; `kind` is ignored.
        key_width: channels of queries and keys, by default those that go in.
    """

    def __init__(
        self, student: int, teacher: int, config: AdapterConfig | None = None, *, key_width: int | None = None
    ) -> None:
        super().__init__()
        self.config = config or AdapterConfig()
        key_width = key_width or student
        self.heads = head_count(self.config.heads, key_width, teacher)
        self.scale = 1 / math.sqrt(key_width // self.heads) if self.config.scale == "sqrt_d" else 1.0
        self.query = nn.Linear(student, key_width, bias=False)
        self.key = nn.Linear(student, key_width, bias=False)
        self.value = nn.Linear(student, teacher, bias=False)
        self.output: nn.Module = nn.Identity()
        if self.heads > 1 or self.config.residual or self.config.zero_init:
            projection = nn.Linear(teacher, teacher, bias=False)
            if self.config.zero_init:
                nn.init.zeros_(projection.weight)
            self.output = projection
        self.residual = residual_path(student, teacher) if self.config.residual else None

    def forward(self, features: Tensor) -> Tensor:
        """(B, student, h, w) to (B, teacher, h, w)."""
        # Queries, keys and values end with the inner call: without a graph they are gone before the projection.
        y = to_map(self.output(self._attended(features)), features.shape[-2], features.shape[-1])
        return _plus_residual(y, self.residual, features)

    def _attended(self, features: Tensor) -> Tensor:
        b, _, height, width = features.shape
        plan = attention_plan(
            height,
            width,
            self.config.attention,
            max_full_tokens=self.config.max_full_tokens,
            kv_budget=self.config.kv_budget,
        )
        tokens = to_tokens(features)
        seen = tokens if plan.factor == 1 else to_tokens(pooled(features, plan.factor))
        q, k, v = self.query(tokens), self.key(seen), self.value(seen)
        if plan.mode != "window":
            return self._attend(q, k, v)
        q, k, v = (to_windows(t, height, width) for t in (q, k, v))
        mask = window_mask(height, width, b, features.device)
        return from_windows(self._attend(q, k, v, mask), height, width)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.config.scale == "sqrt_d" or q.dtype in (torch.float32, torch.float64):
            return attend(q, k, v, heads=self.heads, scale=self.scale, mask=mask)
        # Logits without a factor can exceed 65504, the end of half precision.
        with torch.autocast(q.device.type, enabled=False):
            return attend(q.float(), k.float(), v.float(), heads=self.heads, scale=self.scale, mask=mask)


class ConvAdapter(nn.Module):
    """One or two convolutions (GELU between) plus the residual path, for comparison with attention.

    Args:
        student: channels that go in.
        teacher: channels that come out.
        kernels: side of each kernel, 1 or 3.
        config: `residual` and `zero_init` count.
    """

    def __init__(self, student: int, teacher: int, kernels: Sequence[int], config: AdapterConfig | None = None) -> None:
        super().__init__()
        config = config or AdapterConfig()
        layers: list[nn.Module] = []
        channels = student
        for kernel in kernels:
            layers += [nn.GELU()] if layers else []
            last = nn.Conv2d(channels, teacher, kernel, padding=kernel // 2)
            layers.append(last)
            channels = teacher
        if config.zero_init:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.layers = nn.Sequential(*layers)
        self.residual = residual_path(student, teacher) if config.residual else None

    def forward(self, features: Tensor) -> Tensor:
        """(B, student, h, w) to (B, teacher, h, w)."""
        return _plus_residual(self.layers(features), self.residual, features)


class FilmRestoration(nn.Module):
    """g of eq. 7: features scaled and shifted by two linear functions of s per channel, at first not at all."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.affine = nn.Conv2d(1, 2 * channels, 1)
        nn.init.zeros_(self.affine.weight)
        nn.init.zeros_(self.affine.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor, s: Tensor) -> Tensor:
        """(B, C, h, w) features and (B, 1, h, w) log variance to (B, C, h, w)."""
        affine: Tensor = self.affine(s)
        scale, shift = affine.chunk(2, dim=1)
        return features * (1 + scale) + shift


CONV_KERNELS = {"conv1x1": (1,), "conv3x3": (3,), "conv3x3x2": (3, 3)}


def build_adapter(student: int, teacher: int, config: AdapterConfig | None = None) -> nn.Module:
    """The adapter of one level from student to teacher channels."""
    config = config or AdapterConfig()
    if config.kind == "attention":
        return AttentionAdapter(student, teacher, config)
    if config.kind == "identity":
        return residual_path(student, teacher)
    return ConvAdapter(student, teacher, CONV_KERNELS[config.kind], config)


class AdaptationSet(nn.Module):
    """The adapters of all distilled levels of encoder and decoder, and the restoration g where it is on.

    Nothing is built while feature distillation is off (disabled, no levels, or weight 0).

    Args:
        student: channels of the four encoder and of the four decoder maps of the student, 1/4 first.
        teacher: the same of the teacher.
        config: of the distillation.
    """

    def __init__(
        self,
        student: tuple[Sequence[int], Sequence[int]],
        teacher: tuple[Sequence[int], Sequence[int]],
        config: DistillationConfig | None = None,
    ) -> None:
        super().__init__()
        config = config or DistillationConfig()
        on = config.enabled and config.lambda_.umf != 0
        self.encoder_levels = config.features.encoder if on else ()
        self.decoder_levels = config.features.decoder if on else ()
        film = config.uem.enabled and config.uem.g == "film"
        for part, levels, inside, outside in (
            ("encoder", self.encoder_levels, student[0], teacher[0]),
            ("decoder", self.decoder_levels, student[1], teacher[1]),
        ):
            adapters = {str(level): build_adapter(inside[level], outside[level], config.adapter) for level in levels}
            restorers = {str(level): FilmRestoration(outside[level]) for level in levels} if film else {}
            self.add_module(part, nn.ModuleDict(adapters))
            self.add_module(f"{part}_restoration", nn.ModuleDict(restorers))

    def forward(
        self,
        encoder: Sequence[Tensor],
        decoder: Sequence[Tensor],
        s_encoder: Sequence[Tensor] | None = None,
        s_decoder: Sequence[Tensor] | None = None,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Adapt the student's four encoder and four decoder maps.

        Args:
            encoder: student maps of all four levels, (B, C, h, w) each.
            decoder: likewise.
            s_encoder: log variance at the size of each distilled encoder level; only restoration uses it.
            s_decoder: likewise for the decoder.

        Returns:
            Adapted maps of the distilled levels, in the order of `encoder_levels` and `decoder_levels`.
        """
        return (
            self._adapt("encoder", self.encoder_levels, encoder, s_encoder),
            self._adapt("decoder", self.decoder_levels, decoder, s_decoder),
        )

    def _adapt(
        self, part: str, levels: Sequence[int], maps: Sequence[Tensor], s_maps: Sequence[Tensor] | None
    ) -> list[Tensor]:
        adapters, restorers = self.get_submodule(part), self.get_submodule(f"{part}_restoration")
        assert isinstance(adapters, nn.ModuleDict)
        assert isinstance(restorers, nn.ModuleDict)
        adapted = []
        for position, level in enumerate(levels):
            y = adapters[str(level)](maps[level])
            if len(restorers) and s_maps is not None:
                y = restorers[str(level)](y, s_maps[position])
            adapted.append(y)
        return adapted
