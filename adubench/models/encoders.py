"""The Swin encoder: timm's network with the window order of the reference, and an output norm per stage."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import timm
import torch
from timm.models import swin_transformer
from torch import nn
from torch.utils.checkpoint import checkpoint

from adubench.errors import CheckpointError, UsageError
from adubench.models import inference_windows
from adubench.models.windows import (
    WINDOW,
    WindowBias,
    WindowOrder,
    attend,
    enter_windows,
    leave_windows,
    merge_windows,
    partition,
    split_heads,
)

if TYPE_CHECKING:
    from torch import Tensor

    from adubench.models.variants import Variant

ANY_SWIN = "swin_tiny_patch4_window7_224"  # timm builds every size from it by widths
IMAGENET_TAG = "ms_in22k"  # the 22k classifier; timm's bare names select fine-tuned ones


class WindowedBlock(swin_transformer.SwinTransformerBlock):
    """timm's block with our windowed attention: order of pad and roll, fused kernel, cached masks.

    Instances are made by `take_over` from blocks that timm built; timm has no argument for the order.
    """

    window_order: WindowOrder
    window_bias: WindowBias
    activation_checkpointing: bool

    def _attn(self, x: Tensor) -> Tensor:
        """Attend inside the windows of a normalised map (B, H, W, C); timm's `forward` calls this."""
        height, width = x.shape[1:3]
        shift = self.window_bias.shift
        padded = enter_windows(x, shift, self.window_order)
        rows, columns = padded.shape[1:3]
        q, k, v = split_heads(self.attn.qkv(partition(padded)), 3, self.attn.num_heads)
        bias = self.window_bias(self.attn.relative_position_bias_table, rows, columns, q.dtype)
        out = self.attn.proj(merge_windows(attend(q, k, v, bias), rows, columns))
        return leave_windows(out, shift, height, width, self.window_order)

    def _infer(self, x: Tensor) -> Tensor:
        """Do what `forward` does in evaluation, without gradients: no drop path, no dropout."""
        batch, height, width, _ = x.shape
        shift, order = self.window_bias.shift, self.window_order
        cells = inference_windows.window_cells(batch, height, width, shift, order, x.device)
        tokens = inference_windows.gather_windows(self.norm1(x), cells)
        q, k, v = split_heads(self.attn.qkv(tokens), 3, self.attn.num_heads)
        rows, columns = (side + -side % WINDOW for side in (height, width))
        bias = self.window_bias(self.attn.relative_position_bias_table, rows, columns, q.dtype)
        out = self.attn.proj(inference_windows.join_heads(attend(q, k, v, bias)))
        x = x + inference_windows.scatter_windows(out, cells, (height, width))
        return inference_windows.feed_forward(x, self.norm2, self.mlp.fc1, self.mlp.fc2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        if not self.training and inference_windows.applies(x):
            return self._infer(x)
        if self.activation_checkpointing and self.training and torch.is_grad_enabled():
            out: Tensor = checkpoint(super().forward, x, use_reentrant=False)
        else:
            out = super().forward(x)
        return out


def take_over(block: swin_transformer.SwinTransformerBlock, order: WindowOrder) -> None:
    """Turn one of timm's blocks into a `WindowedBlock`, in place and with its parameters.

    Raises:
        RuntimeError: timm's block no longer has the private parts this relies on.
    """
    _check_private_parts(block)
    block.__class__ = WindowedBlock
    ours = cast("WindowedBlock", block)
    ours.window_order = order
    ours.window_bias = WindowBias(ours.shift_size[0])
    ours.activation_checkpointing = False


def _check_private_parts(block: swin_transformer.SwinTransformerBlock) -> None:
    """Fail clearly where a future timm moved what `WindowedBlock` overrides."""
    parts = ("_attn", "attn", "window_size", "shift_size", "norm1", "mlp")
    attention = ("qkv", "proj", "num_heads", "relative_position_bias_table")
    missing = [name for name in parts if not hasattr(block, name)]
    missing += [f"attn.{name}" for name in attention if not hasattr(getattr(block, "attn", None), name)]
    if not missing and "self._attn(" not in inspect.getsource(swin_transformer.SwinTransformerBlock.forward):
        missing.append("the call of _attn in forward")
    if missing:
        raise RuntimeError(
            f"timm {timm.__version__} changed SwinTransformerBlock ({', '.join(missing)} missing); "
            "use timm 1.0.9 to 1.0.31, or extend adubench.models.encoders."
        )
    if tuple(block.window_size) != (WINDOW, WINDOW):
        raise RuntimeError(f"timm built a window of {block.window_size}, expected {WINDOW} x {WINDOW}.")


class SwinEncoder(nn.Module):
    """Four maps at strides 4, 8, 16 and 32, each through its own LayerNorm.

    Args:
        variant: widths.
        in_channels: 3, or 6 for a teacher that sees both views at once.
        drop_path: stochastic depth of the last block; linear from 0 at the first.
        window_order: "official" (pad, then roll) or "timm" (roll, then pad).
        pretrained: True for ImageNet weights from the hub, or a weight file.
    """

    def __init__(
        self,
        variant: Variant,
        *,
        in_channels: int = 3,
        drop_path: float = 0.3,
        window_order: WindowOrder = "official",
        pretrained: bool | str = False,
    ) -> None:
        super().__init__()
        self.backbone = _timm_swin(variant, in_channels, drop_path, from_hub=pretrained is True)
        for module in self.backbone.modules():
            if isinstance(module, swin_transformer.SwinTransformerBlock):
                take_over(module, window_order)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in variant.encoder_widths)
        if isinstance(pretrained, str):
            load_imagenet_file(self, Path(pretrained))

    def blocks(self) -> list[WindowedBlock]:
        """List the attention blocks of all stages in order."""
        return [module for module in self.modules() if isinstance(module, WindowedBlock)]

    @property
    def patch_projection(self) -> nn.Conv2d:
        """The 4x4 convolution that makes tokens of pixels."""
        projection: nn.Conv2d = self.backbone.patch_embed.proj
        return projection

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W), H and W multiples of 32, to four NCHW maps (stored channels last)."""
        maps = self.backbone(x)
        return [norm(y).permute(0, 3, 1, 2) for norm, y in zip(self.norms, maps, strict=True)]


def _timm_swin(variant: Variant, in_channels: int, drop_path: float, *, from_hub: bool) -> Any:
    """Let timm build the four stages, for any input size and always with full windows."""
    options: dict[str, Any] = {
        "features_only": True,
        "in_chans": in_channels,
        "drop_path_rate": drop_path,
        "strict_img_size": False,
        "always_partition": True,
        "pretrained": from_hub,
    }
    if not from_hub:
        widths: dict[str, Any] = {"embed_dim": variant.embed_dim, "depths": variant.depths, "num_heads": variant.heads}
        return timm.create_model(ANY_SWIN, **options, **widths)
    if variant.timm is None:
        raise UsageError(
            "there are no ImageNet weights for this NeWCRFs variant: use tiny07, base07 or large07, or random weights."
        )
    name = f"{variant.timm}.{IMAGENET_TAG}"
    try:
        return timm.create_model(name, **options)
    except Exception as error:  # timm and the hub raise a dozen kinds, all of them mean the same to the user
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"the ImageNet weights {name} cannot be fetched ({reason}): go online once, or name a local file of them, "
            "or start from random weights."
        ) from error


def load_imagenet_file(encoder: SwinEncoder, path: Path) -> None:
    """Load a Swin classifier, in the naming of its authors or of timm, into an encoder.

    The classifier's last norm and head are dropped; the output norms stay as they are.

    Raises:
        CheckpointError: unreadable file, or weights of another network.
    """
    from adubench.models.weights.safe_load import load_foreign, tensors_of

    state = tensors_of(load_foreign(path), path)
    at_stage_end = "layers.0.downsample.norm.weight" in state
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.startswith(("norm.", "head.")) or key.endswith(("relative_position_index", "attn_mask")):
            continue
        renamed[_timm_key(key, at_stage_end)] = value
    own = encoder.backbone.state_dict()
    wrong = sorted({key for key in own if key not in renamed or renamed[key].shape != own[key].shape})
    wrong += sorted(set(renamed) - set(own))
    if wrong:
        raise CheckpointError(
            f"{path} does not hold the Swin encoder asked for: {len(wrong)} tensors are missing, unknown or of another "
            f"shape, the first is '{wrong[0]}'; check the variant."
        )
    encoder.backbone.load_state_dict(renamed)


def _timm_key(key: str, at_stage_end: bool) -> str:
    """Rename one classifier key to timm's list of stages; patch merging moves to the start of the next stage."""
    parts = key.split(".")
    if parts[0] == "layers":
        stage = int(parts[1]) + (1 if at_stage_end and parts[2] == "downsample" else 0)
        return ".".join([f"layers_{stage}", *parts[2:]])
    return key
