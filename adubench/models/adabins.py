"""AdaBins: EfficientNet-B5, a U-Net decoder and adaptive bins from a mini-ViT.

AdaBins (arXiv 2011.14141), `models/unet_adaptive_bins.py`, `infer.py`; `layout="toolbox"` is the form of the
Monocular-Depth-Estimation-Toolbox that TIE-KD used as a teacher: no padding in the first convolution, no bias before
the norms, ReLU. Parameter names are the official ones for both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from adubench.errors import DataError, UsageError
from adubench.models.config import read_config
from adubench.models.interface import DepthNetwork, Inference
from adubench.models.limits import depth_limits, whole_number
from adubench.models.mini_vit import MiniViT, bins_to_depth
from adubench.models.timm_encoders import create_encoder, resize_to

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

FAMILY = "adabins"
DEFAULTS: dict[str, Any] = {
    "family": FAMILY,
    "layout": "official",
    "n_bins": 256,
    "min_depth": 0.001,
    "max_depth": 80.0,
    "norm": "linear",
    "resize": None,
    "pretrained": False,
}
SKIP_CHANNELS = (24, 40, 64, 176)
_QUERIES, _PATCH, _POSITIONS = 128, 16, 500


@dataclass(frozen=True, slots=True)
class AdaBinsOutput:
    """What AdaBins computes.

    Attributes:
        edges: (B, N + 1) float32 metres.
        depth: (B, 1, ceil(H / 2), ceil(W / 2)) float32 metres, not clamped.
    """

    edges: Tensor
    depth: Tensor


class AdaBinsEncoder(nn.Module):
    """EfficientNet-B5 with TensorFlow's padding; the last tap is `conv_head` before its norm and activation."""

    def __init__(self, *, pretrained: bool = False) -> None:
        super().__init__()
        # The bare name would choose other weights than the ones AdaBins started from.
        self.original_model: Any = create_encoder(
            "tf_efficientnet_b5.ap_in1k", pretrained=pretrained, num_classes=0, global_pool=""
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features at strides 2, 4, 8, 16 and 32 with 24, 40, 64, 176 and 2048 channels."""
        model = self.original_model
        x = model.bn1(model.conv_stem(x))
        features = []
        for index, stage in enumerate(model.blocks):
            x = stage(x)
            if index in (0, 1, 2, 4):
                features.append(x)
        return [*features, model.conv_head(x)]


class _Up(nn.Module):
    """Resize to the skip, concatenate, two convolutions with norm and activation; `_net` is the official name."""

    def __init__(self, in_channels: int, out_channels: int, *, toolbox: bool) -> None:
        super().__init__()

        def act() -> nn.Module:
            return nn.ReLU() if toolbox else nn.LeakyReLU()

        self._net = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=not toolbox),
            nn.BatchNorm2d(out_channels),
            act(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=not toolbox),
            nn.BatchNorm2d(out_channels),
            act(),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        out: Tensor = self._net(torch.cat((resize_to(x, skip.shape[-2:]), skip), dim=1))
        return out


class AdaBinsDecoder(nn.Module):
    """U-Net decoder.

    Args:
        bottleneck: channels of the coarsest feature.
        width: channels after the first convolution; halved by each of the four steps.
        out_channels: of the result.
        toolbox: the toolbox' form.
    """

    def __init__(
        self, *, bottleneck: int = 2048, width: int = 2048, out_channels: int = 128, toolbox: bool = False
    ) -> None:
        super().__init__()
        # Officially the 1x1 convolution has padding 1: its map grows by a ring that holds the bias.
        self.conv2 = nn.Conv2d(bottleneck, width, 1, padding=0 if toolbox else 1)
        skips = SKIP_CHANNELS[::-1]
        self.up1 = _Up(width + skips[0], width // 2, toolbox=toolbox)
        self.up2 = _Up(width // 2 + skips[1], width // 4, toolbox=toolbox)
        self.up3 = _Up(width // 4 + skips[2], width // 8, toolbox=toolbox)
        self.up4 = _Up(width // 8 + skips[3], width // 16, toolbox=toolbox)
        self.conv3 = nn.Conv2d(width // 16, out_channels, 3, padding=1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Five features, fine to coarse, to one map at the finest one's size."""
        x = self.conv2(features[4])
        for up, skip in zip((self.up1, self.up2, self.up3, self.up4), features[3::-1], strict=True):
            x = up(x, skip)
        out: Tensor = self.conv3(x)
        return out


def check_size(h: int, w: int) -> None:
    """Refuse sizes whose number of patches the mini-ViT cannot hold.

    Args:
        h: rows of the image.
        w: columns of the image.

    Raises:
        DataError: fewer than 129 or more than 500 patches.
    """
    patches = (-(-h // 2) // _PATCH) * (-(-w // 2) // _PATCH)
    if not _QUERIES < patches <= _POSITIONS:
        raise DataError(
            f"image of {h}x{w} pixels: AdaBins would see {patches} patches, it takes {_QUERIES + 1} to {_POSITIONS} "
            "(352x1216 gives 418, 480x640 gives 300). Crop the image (KITTI: --kb-crop), or have it resized for the "
            "network: --network-size HxW, or the model key resize=[H, W] of a recipe."
        )


class AdaBins(DepthNetwork):
    """AdaBins.

    Args:
        config: complete configuration (`build` fills defaults).
    """

    family = FAMILY
    flip = "mean"

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.depth_range = (config["min_depth"], config["max_depth"])
        self.encoder = AdaBinsEncoder(pretrained=config["pretrained"] is True)
        self.decoder = AdaBinsDecoder(toolbox=config["layout"] == "toolbox")
        self.adaptive_bins_layer = MiniViT(
            128, n_bins=config["n_bins"], queries=_QUERIES, patch=_PATCH, norm=config["norm"], positions=_POSITIONS
        )
        self.conv_out = nn.Sequential(nn.Conv2d(_QUERIES, config["n_bins"], 1))
        self.config = {**config, "pretrained": False}

    def forward(self, images: Tensor) -> AdaBinsOutput:
        """Compute edges and depth at half resolution.

        Args:
            images: (B, 3, H, W) normalised.

        Raises:
            DataError: an image too small or too large for the mini-ViT.
        """
        check_size(images.shape[-2], images.shape[-1])
        widths, maps = self.adaptive_bins_layer(self.decoder(self.encoder(images)))
        edges, depth = bins_to_depth(widths, self.conv_out(maps), self.config["min_depth"], self.config["max_depth"])
        return AdaBinsOutput(edges, depth)

    def infer(self, images: Tensor, *, focal: Tensor | None = None) -> Inference:
        """Predict metric depth as `infer.py` does.

        The half-resolution map is clamped, resized to the input and clamped again; NaN becomes the smallest depth. With
        the key `resize` images are resized first, as the authors advise for sizes the network does not take.
        """
        low, high = self.config["min_depth"], self.config["max_depth"]
        size = self.config["resize"]
        depth = self(images if size is None else resize_to(images, (size[0], size[1]))).depth
        depth = resize_to(depth.nan_to_num(nan=low, posinf=high, neginf=low).clamp(low, high), images.shape[-2:])
        return Inference(depth=depth.clamp(low, high))


def _check_resize(size: object) -> list[int] | None:
    if size is None:
        return None
    if (
        not isinstance(size, list | tuple)
        or len(size) != 2
        or not all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in size)
    ):
        raise UsageError(f"adabins resize: expected [height, width] in pixels or null, got {size!r}.")
    check_size(size[0], size[1])
    return [int(size[0]), int(size[1])]


def build(config: Mapping[str, Any]) -> AdaBins:
    """Build AdaBins from its configuration.

    Keys: `layout` (official, toolbox), `n_bins`, `min_depth`, `max_depth` (metres; 80 KITTI, 10 NYU), `norm` (linear,
    softmax, sigmoid), `resize` (null, or [height, width] that images are resized to for inference), `pretrained`.

    Raises:
        UsageError: an unknown key or value.
        DataError: `resize` names a size the network does not take.
    """
    where = "adabins configuration"
    choices = {
        "family": (FAMILY,),
        "layout": ("official", "toolbox"),
        "norm": ("linear", "softmax", "sigmoid"),
        "pretrained": (False, True),
    }
    options = read_config(config, DEFAULTS, choices=choices, where=where)
    options.update(depth_limits(options, where))
    whole_number(options, "n_bins", least=2, where=where)
    options["resize"] = _check_resize(options["resize"])
    return AdaBins(options)
