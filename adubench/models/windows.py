"""Attention inside shifted 7x7 windows, shared by the Swin encoder and the FC-CRF decoder.

All maps are NHWC. The order of the reference is pad, then roll (NeWCRFs, swin_transformer.py and newcrf_layers.py);
timm rolls, then pads, which differs whenever a map is no multiple of the window.

Queries, keys and values go to the fused kernel of torch as views (B * windows, heads, 49, d); shifted blocks of a batch
go as (B, windows * heads, 49, d), so that the bias, then one per window, is never copied per image.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

WINDOW = 7
SHIFT = WINDOW // 2
TOKENS = WINDOW * WINDOW
TABLE_ROWS = (2 * WINDOW - 1) ** 2
OTHER_REGION = -100.0  # the reference's logit between regions; not -inf, so that the softmax agrees to the last digit

WindowOrder = Literal["official", "timm"]

Kept = TypeVar("Kept", torch.Tensor, tuple[torch.Tensor, ...])

_KEPT = 64
_constants: OrderedDict[tuple[Any, ...], Any] = OrderedDict()


def kept(key: tuple[Any, ...], make: Callable[[], Kept]) -> Kept:
    """Return a constant tensor, or several, made once per key; the least recently used of more than 64 is dropped."""
    if key in _constants:
        _constants.move_to_end(key)
        found: Kept = _constants[key]
        return found
    with torch.inference_mode(False), torch.no_grad():  # made in evaluation, it must stay usable in training
        value = make()
    first = value[0] if isinstance(value, tuple) else value
    if type(first) is torch.Tensor:  # tracing (compile, export, fake tensors) must leave nothing behind
        _constants[key] = value
        while len(_constants) > _KEPT:
            _constants.popitem(last=False)
    return value


def relative_position_index() -> Tensor:
    """Compute (49, 49) int64: the row of the position table for query token i and key token j (row-major tokens)."""
    token = torch.arange(TOKENS, device="cpu")
    rows, columns = token // WINDOW, token % WINDOW
    dy = rows[:, None] - rows[None, :] + WINDOW - 1
    dx = columns[:, None] - columns[None, :] + WINDOW - 1
    return dy * (2 * WINDOW - 1) + dx


def build_shift_mask(height: int, width: int, shift: int = SHIFT) -> Tensor:
    """Compute the mask of shifted windows.

    Args:
        height: rows of the padded map, a multiple of 7.
        width: columns of the padded map, a multiple of 7.
        shift: by how many cells the map was rolled.

    Returns:
        (windows, 49, 49) float32: -100 between tokens that were not neighbours before the roll, else 0.
    """

    def labels(size: int) -> Tensor:
        position = torch.arange(size, device="cpu")
        return (position >= size - WINDOW).long() + (position >= size - shift).long()

    regions = 3 * labels(height)[:, None] + labels(width)[None, :]
    tokens = regions.view(height // WINDOW, WINDOW, width // WINDOW, WINDOW).transpose(1, 2).reshape(-1, TOKENS)
    return (tokens[:, :, None] != tokens[:, None, :]).float() * OTHER_REGION


def shift_mask(height: int, width: int, shift: int, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return `build_shift_mask` on a device; built once per size, shift, device and type, never per forward."""
    key = ("mask", height, width, shift, device, dtype)
    return kept(key, lambda: build_shift_mask(height, width, shift).to(device=device, dtype=dtype))


class WindowBias:
    """The additive bias of one attention layer: relative positions, and the region mask if its windows are shifted.

    While gradients are off the sum is computed once and kept until the map's size (if shifted), the device, the type or
    the position table changes. With gradients on it is made from the table each time, with the mask from the shared
    cache.

    Attributes:
        shift: 0, or 3 for shifted windows.
        builds: how often a bias was computed (tests and benchmarks count on it).
    """

    def __init__(self, shift: int) -> None:
        self.shift = shift
        self.builds = 0
        self._key: tuple[Any, ...] | None = None
        self._bias: Tensor | None = None

    def __call__(self, table: Tensor, height: int, width: int, dtype: torch.dtype) -> Tensor:
        """Return the bias for a padded map.

        Args:
            table: (169, heads) relative position biases.
            height: rows of the padded map.
            width: columns of the padded map.
            dtype: type of the queries.

        Returns:
            (heads, 49, 49) for unshifted windows, (windows * heads, 49, 49) for shifted ones.
        """
        needs_grad = torch.is_grad_enabled() and table.requires_grad
        if needs_grad or torch.compiler.is_compiling() or table.is_inference():
            return self._build(table, height, width, dtype)
        size = (height, width) if self.shift else None
        key = (size, dtype, table.device, table.data_ptr(), table._version)
        if self._key != key or self._bias is None:
            self._bias = None  # free the old one before the new one is made
            with torch.inference_mode(False), torch.no_grad():
                bias = _aligned(self._build(table, height, width, dtype))
            if type(bias) is not torch.Tensor:
                return bias
            self._key, self._bias = key, bias
        return self._bias

    def _build(self, table: Tensor, height: int, width: int, dtype: torch.dtype) -> Tensor:
        """Gather the position biases and add the mask."""
        self.builds += 1
        index = kept(("index", table.device), lambda: relative_position_index().view(-1).to(table.device))
        bias = table.to(dtype)[index].view(TOKENS, TOKENS, -1).permute(2, 0, 1)
        if not self.shift:
            return bias.contiguous()
        mask = shift_mask(height, width, self.shift, device=table.device, dtype=dtype)
        return (bias[None] + mask[:, None]).flatten(0, 1)

    def __deepcopy__(self, memo: dict[int, Any]) -> WindowBias:
        """Copy without the cache: a copied table is another tensor."""
        return WindowBias(self.shift)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the cache."""
        return {"shift": self.shift, "builds": 0, "_key": None, "_bias": None}


def _aligned(bias: Tensor) -> Tensor:
    """Store rows of 49 in 56 cells on CUDA: the memory-efficient kernel would otherwise pad a copy in every forward."""
    if bias.device.type != "cuda":
        return bias
    return functional.pad(bias, (0, -bias.shape[-1] % 8))[..., : bias.shape[-1]]


def pad_to_windows(x: Tensor) -> Tensor:
    """Zero-pad an NHWC map at the right and bottom to multiples of 7."""
    height, width = x.shape[1:3]
    down, right = -height % WINDOW, -width % WINDOW
    return functional.pad(x, (0, 0, 0, right, 0, down)) if down or right else x


def enter_windows(x: Tensor, shift: int, order: WindowOrder = "official") -> Tensor:
    """Pad and roll an NHWC map, in the order of the reference or of timm."""
    if order == "timm" and shift:
        return pad_to_windows(x.roll((-shift, -shift), (1, 2)))
    x = pad_to_windows(x)
    return x.roll((-shift, -shift), (1, 2)) if shift else x


def leave_windows(x: Tensor, shift: int, height: int, width: int, order: WindowOrder = "official") -> Tensor:
    """Undo `enter_windows`: roll back and crop to (height, width)."""
    if order == "timm" and shift:
        return x[:, :height, :width].roll((shift, shift), (1, 2))
    if shift:
        x = x.roll((shift, shift), (1, 2))
    return x[:, :height, :width]


def partition(x: Tensor) -> Tensor:
    """Cut a map (B, H, W, C), H and W multiples of 7, into windows of row-major tokens (B, windows, 49, C)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // WINDOW, WINDOW, width // WINDOW, WINDOW, channels)
    return x.transpose(2, 3).reshape(batch, -1, TOKENS, channels)


def split_heads(tokens: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """Split (B, windows, 49, parts * heads * d) into `parts` views (B, windows, heads, 49, d)."""
    batch, windows, _, channels = tokens.shape
    x = tokens.view(batch, windows, TOKENS, parts, heads, channels // (parts * heads))
    return tuple(x.permute(3, 0, 1, 4, 2, 5))


def merge_windows(x: Tensor, height: int, width: int) -> Tensor:
    """Put windows and heads (B, windows, heads, 49, d) back into a map (B, H, W, heads * d)."""
    batch, _, heads, _, d = x.shape
    x = x.view(batch, height // WINDOW, width // WINDOW, heads, WINDOW, WINDOW, d)
    return x.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, height, width, heads * d)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attend inside every window, with the fused kernel of torch wherever there is one; logits are scaled by d^-0.5.

    Args:
        q: (B, windows, heads, 49, d) queries.
        k: same, keys.
        v: same, values.
        bias: additive, (heads, 49, 49) for all windows or (windows * heads, 49, 49).

    Returns:
        (B, windows, heads, 49, d).
    """
    batch, count, heads = q.shape[:3]
    if bias.shape[0] == heads or batch == 1:  # windows of all images side by side: views of the projections
        first, last, bias = 0, 1, bias.view(-1, heads, TOKENS, TOKENS)
    else:  # a bias per window, shared by the images: windows and heads side by side
        first, last, bias = 1, 2, bias[None]
    q, k, v = (x.flatten(first, last) for x in (q, k, v.to(q.dtype)))
    if bias.requires_grad and bias.device.type == "cpu":
        # The fused kernel of the CPU has no gradient for the bias; torch would fall back to this, with guards on top.
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + bias
        out: Tensor = logits.softmax(-1).to(v.dtype) @ v
    else:
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return out.reshape(batch, count, heads, TOKENS, -1)
