"""ResNet encoders of the self-supervised families, on timm (Monodepth2, networks/resnet_encoder.py)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from adubench.errors import CheckpointError, UsageError
from adubench.models.timm_encoders import create_encoder
from adubench.models.weights.safe_load import load_foreign

#: Depth -> channels of the five features.
CHANNELS = {
    18: (64, 64, 128, 256, 512),
    34: (64, 64, 128, 256, 512),
    50: (64, 256, 512, 1024, 2048),
    101: (64, 256, 512, 1024, 2048),
    152: (64, 256, 512, 1024, 2048),
}
#: The weights the reference starts from: torchvision's first ImageNet set, not timm's default tags.
IMAGENET_TAG = "tv_in1k"


class ResnetEncoder(nn.Module):
    """Five features of strides 2 to 32; the first is taken before the max-pool.

    RGB in [0, 1] is normalised inside with one mean and one deviation for all channels. Several images come stacked on
    the channel axis; ImageNet kernels are then repeated and divided by their number.

    Attributes:
        channels: widths of the five features.
        layers: depth of the network.
        images: number of stacked images.
    """

    def __init__(self, layers: int = 18, images: int = 1, pretrained: bool | str = False) -> None:
        super().__init__()
        if layers not in CHANNELS:
            raise UsageError(f"ResNet-{layers} is not known: num_layers is one of {', '.join(map(str, CHANNELS))}.")
        if images < 1:
            raise UsageError(f"{images} input images: expected at least 1.")
        self.layers, self.images, self.channels = layers, images, CHANNELS[layers]
        self.encoder = timm_features(f"resnet{layers}", pretrained, in_chans=3 * images, zero_init_last=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of (B, 3 * images, H, W) in [0, 1], finest first."""
        features: list[Tensor] = self.encoder((x - 0.45) / 0.225)
        return features


def timm_features(name: str, pretrained: bool | str, *, tag: str = IMAGENET_TAG, **options: Any) -> nn.Module:
    """Create a timm network that returns its feature maps.

    Args:
        name: timm's name of the architecture.
        pretrained: False for random weights; True lets timm download `tag`; a path reads timm weights from that file.
        tag: which ImageNet weights.
        options: handed to timm.

    Raises:
        CheckpointError: the weights cannot be had.
    """
    if not isinstance(pretrained, str):
        tagged = f"{name}.{tag}" if pretrained else name
        return create_encoder(tagged, pretrained=pretrained, features_only=True, **options)
    state = load_foreign(Path(pretrained))
    overlay = {"file": pretrained}
    model = create_encoder(
        f"{name}.{tag}", pretrained=True, features_only=True, pretrained_cfg_overlay=overlay, **options
    )
    keys = [key for key in model.state_dict() if not key.endswith("num_batches_tracked")]
    missing = [key for key in keys if not isinstance(state, Mapping) or key not in state]
    if missing:  # timm itself would leave these at random values, without a word
        raise CheckpointError(
            f"{pretrained}: {len(missing)} of {len(keys)} weights of {name} are missing: {missing[0]}."
        )
    return model
