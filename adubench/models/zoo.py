"""The table of all networks, and how one of them is built from its configuration. Importing it costs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from adubench.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from adubench.models.interface import DepthNetwork


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A family of networks.

    Attributes:
        family: name in configurations and on the command line.
        builder: "module:function" of `build(config) -> DepthNetwork`, imported on first use.
        about: one line for `adubench list models`.
        source: paper, or repository, that defines the network.
        variants: names of its sizes, the default first; empty if it has one size.
        status: "trainable" (recipes exist) or "inference" (imported checkpoints only).
    """

    family: str
    builder: str
    about: str
    source: str
    variants: tuple[str, ...] = ()
    status: str = "inference"


_ENTRIES = (
    ModelEntry(
        "newcrfs",
        "adubench.models.newcrfs:build",
        "Swin encoder, neural window FC-CRF decoder; student, and stereo teacher with 6 channels, of ADU-Depth",
        "NeWCRFs (CVPR 2022, arXiv 2203.01502); ADU-Depth (CoRL 2023, arXiv 2309.14744)",
        variants=("large07", "base07", "tiny07", "small", "micro", "mini"),
        status="trainable",
    ),
    ModelEntry(
        "densedepth",
        "adubench.models.densedepth:build",
        "MobileNetV2 and ResNet students with a DenseDepth decoder and depth bins (or a regression head), of TIE-KD",
        "TIE-KD (arXiv 2402.14340)",
        variants=("mobilenetv2", "resnet18", "resnet50"),
        status="trainable",
    ),
    ModelEntry(
        "adabins",
        "adubench.models.adabins:build",
        "EfficientNet-B5, U-Net decoder and adaptive bins from a mini-ViT; a teacher of TIE-KD",
        "AdaBins (CVPR 2021, arXiv 2011.14141)",
        variants=("official", "toolbox"),
        status="trainable",
    ),
    ModelEntry(
        "bts",
        "adubench.models.bts:build",
        "ResNet, ResNeXt or DenseNet encoder and local planar guidance; a teacher of TIE-KD",
        "BTS (arXiv 1907.10326)",
        variants=("resnet50", "densenet161", "resnet101", "resnext50", "resnext101", "densenet121"),
        status="trainable",
    ),
    ModelEntry(
        "monodepth2",
        "adubench.models.monodepth2:build",
        "ResNet encoder, U-Net decoder, sigmoid disparity on four scales; self-supervised",
        "Monodepth2 (ICCV 2019, arXiv 1806.01260)",
        status="trainable",
    ),
    ModelEntry(
        "hr-depth",
        "adubench.models.hr_depth:build",
        "ResNet encoder, nested decoder with squeeze-and-excitation fusions; self-supervised",
        "HR-Depth (AAAI 2021, arXiv 2012.07356)",
        status="trainable",
    ),
    ModelEntry(
        "hr-depth-lite",
        "adubench.models.hr_depth:build",
        "HR-Depth on MobileNetV3, 3.1 million parameters",
        "HR-Depth (AAAI 2021, arXiv 2012.07356)",
        status="trainable",
    ),
    ModelEntry(
        "diffnet",
        "adubench.models.diffnet:build",
        "HRNet-W18 with features of all stages, channel-attention decoder; self-supervised",
        "DIFFNet (BMVC 2021, arXiv 2110.09482)",
        status="trainable",
    ),
    ModelEntry(
        "sub-depth",
        "adubench.models.sub_depth:build",
        "Monodepth2, HR-Depth or DIFFNet with a predicted uncertainty beside each disparity",
        "SUB-Depth (BMVC 2022, arXiv 2111.09692)",
        status="trainable",
    ),
)

MODELS: dict[str, ModelEntry] = {entry.family: entry for entry in _ENTRIES}


def build(config: Mapping[str, Any]) -> DepthNetwork:
    """Build a network from its configuration.

    Args:
        config: `family` (a name of `MODELS`) and the family's own keys; keys left out take the family's defaults.

    Raises:
        UsageError: no such family, an unknown key, or a value the family does not take.
        CheckpointError: pretrained weights were asked for and cannot be had.
    """
    if "family" not in config:
        raise UsageError(f"a model configuration needs 'family', one of: {', '.join(MODELS)}.")
    family = str(config["family"])
    if family not in MODELS:
        raise unknown_name("model family", family, MODELS, hint="`adubench list models` shows all of them.")
    module, function = MODELS[family].builder.split(":")
    return cast("DepthNetwork", getattr(import_module(module), function)(config))
