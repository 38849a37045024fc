"""The sizes of NeWCRFs: published ones, three small ones of ours, and any other by its widths. No torch needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from adubench.errors import UsageError, unknown_name

HEAD_DIM = 32  # channels per attention head in the published networks
STRIDES = (4, 8, 16, 32)


@dataclass(frozen=True, slots=True)
class Variant:
    """Widths of one network. Level k has stride 4 * 2^k.

    Attributes:
        embed_dim: width E of the first Swin stage; stage k has E * 2^k.
        depths: blocks of the four Swin stages.
        heads: attention heads of the four Swin stages.
        crf_widths: widths of the FC-CRF stages, finest first (multiples of 4 from the second on: pixel shuffle).
        crf_heads: attention heads of the FC-CRF stages.
        psp_width: channels of the pyramid pooling head, the coarsest stage's first prediction; even.
        timm: timm's name of the encoder if ImageNet weights exist for it.
    """

    embed_dim: int
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    crf_widths: tuple[int, int, int, int] = (128, 256, 512, 1024)
    crf_heads: tuple[int, int, int, int] = (4, 8, 16, 32)
    psp_width: int = 512
    timm: str | None = field(default=None, compare=False)

    @property
    def encoder_widths(self) -> tuple[int, int, int, int]:
        """Channels of the encoder maps, finest first."""
        e = self.embed_dim
        return (e, 2 * e, 4 * e, 8 * e)

    @property
    def value_widths(self) -> tuple[int, int, int, int]:
        """Channels of the prediction that enters each FC-CRF stage: a shuffled coarser stage, or the pooling head."""
        _, c1, c2, c3 = self.crf_widths
        return (c1 // 4, c2 // 4, c3 // 4, self.psp_width)

    @property
    def psp_groups(self) -> int:
        """Groups of the pooling head's GroupNorm: two channels each at every size, as in the published networks."""
        return self.psp_width // 2

    def to_config(self) -> str | dict[str, Any]:
        """Return what stands in a configuration: the name if it has one, else the widths as plain JSON values."""
        for name, variant in VARIANTS.items():
            if variant == self:
                return name
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        del values["timm"]
        return values


VARIANTS: dict[str, Variant] = {
    "large07": Variant(192, (2, 2, 18, 2), (6, 12, 24, 48), timm="swin_large_patch4_window7_224"),
    "base07": Variant(128, (2, 2, 18, 2), (4, 8, 16, 32), timm="swin_base_patch4_window7_224"),
    "tiny07": Variant(96, (2, 2, 6, 2), (3, 6, 12, 24), timm="swin_tiny_patch4_window7_224"),
    "small": Variant(32, (2, 2, 2, 2), (1, 2, 4, 8), (32, 64, 128, 256), (1, 2, 4, 8), 64),
    "micro": Variant(16, (1, 1, 2, 1), (1, 2, 4, 8), (16, 32, 64, 128), (1, 2, 4, 8), 32),
    "mini": Variant(8, (2, 2, 2, 2), (1, 2, 4, 8), (8, 16, 32, 48), (2, 2, 4, 4), 16),
}


def variant_of(value: str | Mapping[str, Any] | Variant) -> Variant:
    """Read a variant from a configuration.

    Args:
        value: a name of `VARIANTS`, or a mapping with `embed_dim`, `depths`, `heads` and, if they differ from the
            published decoder, `crf_widths`, `crf_heads`, `psp_width`.

    Raises:
        UsageError: unknown name or key, or widths that do not fit together.
    """
    if isinstance(value, Variant):
        return value
    if isinstance(value, str):
        if value not in VARIANTS:
            raise unknown_name("NeWCRFs variant", value, VARIANTS)
        return VARIANTS[value]
    if not isinstance(value, Mapping):
        raise UsageError(f"the NeWCRFs variant {value!r} is neither a name nor a table of widths.")
    return _from_widths(value)


def _from_widths(values: Mapping[str, Any]) -> Variant:
    """Check a table of widths and make a variant of it."""
    known = ("embed_dim", "depths", "heads", "crf_widths", "crf_heads", "psp_width")
    for key in values:
        if key not in known:
            raise unknown_name("width of a NeWCRFs variant", str(key), known)
    fields: dict[str, Any] = {}
    for key in known:
        if key not in values:
            if key in known[:3]:
                raise UsageError(f"a NeWCRFs variant given by its widths needs '{key}'.")
            continue
        fields[key] = _positive_integers(key, values[key], count=1 if key in ("embed_dim", "psp_width") else 4)
    variant = Variant(**fields)
    _check_widths(variant)
    return next((named for named in VARIANTS.values() if named == variant), variant)


def _positive_integers(key: str, value: object, count: int) -> int | tuple[int, ...]:
    """Read one positive integer, or a list of four."""
    items: tuple[Any, ...] = (value,)
    if count > 1:
        items = tuple(value) if isinstance(value, list | tuple) else ()
    if len(items) != count or not all(type(item) is int and item > 0 for item in items):
        what = "a positive integer" if count == 1 else "a list of four positive integers"
        raise UsageError(f"'{key}' of a NeWCRFs variant is {value!r}: it takes {what}.")
    return items[0] if count == 1 else items


def _check_widths(variant: Variant) -> None:
    """Refuse widths that the layers cannot divide."""
    pairs = [*zip(variant.encoder_widths, variant.heads, strict=True)]
    pairs += zip(variant.crf_widths, variant.crf_heads, strict=True)
    for width, heads in pairs:
        if width % heads:
            raise UsageError(f"a NeWCRFs variant has width {width} and {heads} heads: the width must divide evenly.")
    if any(width % 4 for width in variant.crf_widths[1:]) or variant.psp_width % 2:
        raise UsageError("'crf_widths' from the second on must be multiples of 4 (pixel shuffle) and 'psp_width' even.")
