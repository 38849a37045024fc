"""NeWCRFs, the network of ADU-Depth: student, baseline and, with six channels, stereo teacher.

Swin encoder -> pyramid pooling -> four FC-CRF stages with pixel shuffles between them -> depth head
(NeWCRFs, NewCRFDepth.py). ADU-Depth adds an uncertainty head beside the depth head and a teacher that sees both views.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, cat, nn
from torch.nn import functional

from adubench.errors import UsageError
from adubench.models.config import number, read_config
from adubench.models.encoders import SwinEncoder
from adubench.models.fusion import FUSIONS, FusionName, ViewFusion
from adubench.models.heads import DispHead, UncertaintyConfig, UncertaintyHead, upsample
from adubench.models.interface import DepthNetwork, Inference, InputRule
from adubench.models.newcrf_layers import NewCRF
from adubench.models.psp import PSP
from adubench.models.teacher_init import PATCH_INITS, PatchInit, stereo_kernel
from adubench.models.variants import Variant, variant_of
from adubench.models.windows import WindowOrder

if TYPE_CHECKING:
    from collections.abc import Mapping

STRIDE = 32  # inputs are padded to multiples of the coarsest stride

DEFAULTS: dict[str, Any] = {
    "family": "newcrfs",
    "variant": "large07",
    "max_depth": 80.0,
    "in_channels": 3,
    "fusion": "concat6",
    "patch_init": "half_repeat",
    "uncertainty": None,
    "window_order": "official",
    "drop_path": 0.3,
    "pretrained": False,
    "activation_checkpointing": False,
    "input_size": None,
}
CHOICES: dict[str, tuple[Any, ...]] = {
    "family": ("newcrfs",),
    "in_channels": (3, 6),
    "fusion": FUSIONS,
    "patch_init": PATCH_INITS,
    "window_order": ("official", "timm"),
    "activation_checkpointing": (False, True),
}


@dataclass(frozen=True, slots=True)
class NewCRFsOutput:
    """What a forward pass gives.

    Attributes:
        depth: (B, 1, H, W) float32 metres in (0, max_depth), at the size of the input.
        s: (B, 1, H, W) float32 uncertainty at the size of the input, None without the head.
        s_quarter: (B, 1, h, w) float32, the same at stride 4 of the padded input.
        encoder: four NCHW maps at strides 4, 8, 16, 32 of the padded input, after the output norms.
        decoder: four NCHW maps at the same strides, finest first, after the stages' last norms.
    """

    depth: Tensor
    s: Tensor | None
    s_quarter: Tensor | None
    encoder: list[Tensor]
    decoder: list[Tensor]


class NeWCRFs(DepthNetwork):
    """Neural window fully connected CRFs over a Swin encoder.

    Args:
        variant: widths.
        max_depth: metres; the depth head's sigmoid is multiplied by it.
        in_channels: 3, or 6 for a stereo teacher: left RGB, then right RGB.
        fusion: how a teacher joins the views; `concat6` in the patch embedding, the others after two encoders.
        patch_init: how the six-channel patch kernel is made of pretrained three-channel weights.
        uncertainty: settings of the uncertainty head, None for no head.
        window_order: `official` pads, then rolls; `timm` the other way round.
        drop_path: stochastic depth of the encoder; the decoder has none.
        pretrained: ImageNet weights for the encoder: True fetches them, a string names a local file.
        activation_checkpointing: recompute every attention block in the backward pass.
        input_size: (height, width) that images are resized to before prediction, for networks trained on resized
            images (their metres belong to that size); None for images as they are. `forward` takes any size.
    """

    family = "newcrfs"
    output = "depth"

    def __init__(
        self,
        variant: Variant,
        *,
        max_depth: float = 80.0,
        in_channels: int = 3,
        fusion: FusionName = "concat6",
        patch_init: PatchInit = "half_repeat",
        uncertainty: UncertaintyConfig | None = None,
        window_order: WindowOrder = "official",
        drop_path: float = 0.3,
        pretrained: bool | str = False,
        activation_checkpointing: bool = False,
        input_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.variant = variant
        self.max_depth = max_depth
        widths, crf_widths = variant.encoder_widths, variant.crf_widths
        siamese = in_channels == 6 and fusion != "concat6"
        self.encoder = _encoder(variant, 3 if siamese else in_channels, patch_init, drop_path, window_order, pretrained)
        if siamese:
            self.fusion = ViewFusion(fusion, widths)
        self.decoder = PSP(widths[3], variant.psp_width, variant.psp_groups)
        for level in (3, 2, 1, 0):
            stage = NewCRF(widths[level], variant.value_widths[level], crf_widths[level], variant.crf_heads[level])
            stage.crf_layer.activation_checkpointing = activation_checkpointing
            self.add_module(f"crf{level}", stage)
        self.disp_head1 = DispHead(crf_widths[0])
        if uncertainty is not None:
            self.uncertainty_head = UncertaintyHead(crf_widths[0], uncertainty)
            self.uncertainty_kind = uncertainty.kind
        for block in self.encoder.blocks():
            block.activation_checkpointing = activation_checkpointing
        stereo = in_channels == 6
        self.siamese = siamese
        self.input_rule = InputRule(channels=in_channels, size=input_size, resample="point-bilinear")
        # A flipped pair describes the right view, so that a teacher's two outputs cannot be averaged.
        self.flip = "none" if stereo else "blend"
        self.config = {
            "family": "newcrfs",
            "variant": variant.to_config(),
            "max_depth": max_depth,
            "in_channels": in_channels,
            "fusion": fusion,
            "patch_init": patch_init,
            "uncertainty": None if uncertainty is None else uncertainty.to_config(),
            "window_order": window_order,
            "drop_path": drop_path,
            "pretrained": False,  # whoever stores the configuration stores the weights beside it
            "activation_checkpointing": activation_checkpointing,
            "input_size": None if input_size is None else list(input_size),
        }

    def forward(self, x: Tensor) -> NewCRFsOutput:
        """Predict depth, uncertainty and features.

        Args:
            x: (B, C, H, W) normalised, any H and W; a teacher's channels 3-5 are the right view.
        """
        height, width = x.shape[-2:]
        encoder = self.encode(_pad(x))
        decoder = self.decode(encoder)
        depth = self.disp_head1(decoder[0]) * self.max_depth
        s = s_quarter = None
        if self.uncertainty_kind is not None:
            s_quarter = self.uncertainty_head(decoder[0])
            s = upsample(s_quarter)[..., :height, :width]
        return NewCRFsOutput(depth[..., :height, :width], s, s_quarter, encoder, decoder)

    def encode(self, x: Tensor) -> list[Tensor]:
        """Map a padded input to the four encoder maps, the views fused."""
        if not self.siamese:
            features: list[Tensor] = self.encoder(x)
            return features
        both = self.encoder(cat(x.chunk(2, dim=1), dim=0))  # one pass of the shared encoder over left and right views
        left, right = zip(*(feature.chunk(2, dim=0) for feature in both), strict=True)
        fused: list[Tensor] = self.fusion(left, right)
        return fused

    def decode(self, features: list[Tensor]) -> list[Tensor]:
        """Map the encoder maps to the four decoder maps, both finest first."""
        prediction = self.decoder(features[3])
        maps: list[Tensor] = []
        for level in (3, 2, 1, 0):
            out = self.get_submodule(f"crf{level}")(features[level], prediction)
            maps.insert(0, out)
            if level:
                prediction = functional.pixel_shuffle(out, 2)
        return maps

    def infer(self, images: Tensor, *, focal: Tensor | None = None) -> Inference:
        """Predict depth in metres, and s if the network has the head; `focal` plays no role."""
        out = self(images)
        return Inference(depth=out.depth, uncertainty=out.s)


def _pad(x: Tensor) -> Tensor:
    """Zero-pad a normalised input at the right and bottom to multiples of 32."""
    down, right = -x.shape[-2] % STRIDE, -x.shape[-1] % STRIDE
    return functional.pad(x, (0, right, 0, down)) if down or right else x


def _encoder(
    variant: Variant,
    in_channels: int,
    patch_init: PatchInit,
    drop_path: float,
    window_order: WindowOrder,
    pretrained: bool | str,
) -> SwinEncoder:
    """Build the encoder; a six-channel one takes pretrained weights through `patch_init`."""
    encoder = SwinEncoder(
        variant,
        in_channels=3 if pretrained else in_channels,
        drop_path=drop_path,
        window_order=window_order,
        pretrained=pretrained,
    )
    mono = encoder.patch_projection
    if mono.in_channels != in_channels:
        stereo = nn.Conv2d(in_channels, mono.out_channels, 4, stride=4)
        stereo.weight.data.copy_(stereo_kernel(mono.weight.detach(), patch_init))
        stereo.bias.data.copy_(mono.bias.detach())  # type: ignore[union-attr]
        encoder.backbone.patch_embed.proj = stereo
    return encoder


def level_channels(network: NeWCRFs) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the channels of the encoder maps and of the decoder maps, finest first."""
    return network.variant.encoder_widths, network.variant.crf_widths


def build(config: Mapping[str, Any]) -> NeWCRFs:
    """Build NeWCRFs from a configuration (keys: `DEFAULTS`).

    Raises:
        UsageError: unknown key, or a value outside its range.
        CheckpointError: pretrained weights cannot be had.
    """
    where = "newcrfs configuration"
    values = read_config(config, DEFAULTS, choices=CHOICES, where=where)
    drop_path = number(values, "drop_path", where=where)
    if not 0 <= drop_path < 1:
        raise UsageError(f"'drop_path' of the {where} is {drop_path:g}: it takes a number from 0 to below 1.")
    if not isinstance(values["pretrained"], bool | str):
        raise UsageError(f"'pretrained' of the {where} is {values['pretrained']!r}: it takes true, false or a file.")
    if values["in_channels"] == 3 and values["fusion"] != "concat6":
        raise UsageError(f"fusion '{values['fusion']}' joins two views: it needs in_channels 6.")
    uncertainty = values["uncertainty"]
    return NeWCRFs(
        variant_of(values["variant"]),
        max_depth=number(values, "max_depth", above=0, where=where),
        in_channels=values["in_channels"],
        fusion=values["fusion"],
        patch_init=values["patch_init"],
        uncertainty=None if uncertainty is None else UncertaintyConfig.read(uncertainty),
        window_order=values["window_order"],
        drop_path=drop_path,
        pretrained=values["pretrained"],
        activation_checkpointing=values["activation_checkpointing"],
        input_size=_input_size(values["input_size"], where),
    )


def _input_size(value: Any, where: str) -> tuple[int, int] | None:
    """Read a size that images are resized to."""
    if value is None:
        return None
    sides = list(value) if isinstance(value, list | tuple) else []
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise UsageError(f"'input_size' of the {where} is {value!r}: it takes [height, width] in pixels, or null.")
    return sides[0], sides[1]
