"""BTS checkpoints: official (ResNet, ResNeXt, DenseNet) and of the toolbox; import and export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from adubench.errors import CheckpointError
from adubench.models.bts import BTS, build
from adubench.models.weights import Imported
from adubench.models.weights.renamed import MAX_DEPTH, batch_of_notes, complete_state, plain_state, renamed
from adubench.models.weights.safe_load import load_foreign

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_BASE = "encoder.base_model."
_OFFICIAL = ("decoder.upconv5.conv.weight", "decoder.get_depth.0.weight")
_TOOLBOX = ("decode_head.upconv5.conv.weight", "decode_head.conv_depth.weight")


def layout_of(state: Mapping[str, Tensor]) -> str | None:
    """Name the form of a state dictionary: official, toolbox, or None if it is not BTS."""
    if all(key in state for key in _OFFICIAL):
        return "official"
    return "toolbox" if all(key in state for key in _TOOLBOX) else None


def detect(source: object) -> bool:
    """Tell whether what `load_foreign` returned is a BTS checkpoint."""
    return layout_of(plain_state(source)) is not None


def official_to_own(key: str) -> str | None:
    """Our name of a tensor in an official file; None for the classifier, which BTS never uses."""
    if key.startswith((_BASE + "fc.", _BASE + "classifier.")):
        return None
    return key


def toolbox_to_own(key: str) -> str | None:
    """Our name of a tensor in a toolbox file."""
    for theirs, ours in (
        ("backbone.fc.", None),
        ("backbone.", _BASE),
        ("decode_head.conv_depth.", "decoder.get_depth.0."),
        ("decode_head.", "decoder."),
    ):
        if key.startswith(theirs):
            return None if ours is None else ours + key.removeprefix(theirs)
    return key


def own_to_toolbox(key: str) -> str:
    """The inverse of `toolbox_to_own`."""
    for ours, theirs in (
        (_BASE, "backbone."),
        ("decoder.get_depth.0.", "decode_head.conv_depth."),
        ("decoder.", "decode_head."),
    ):
        if key.startswith(ours):
            return theirs + key.removeprefix(ours)
    return key


def encoder_of(own: Mapping[str, Tensor]) -> str | None:
    """Read the encoder off the tensors under our names, None if it is none that BTS has."""
    last = own.get(f"{_BASE}norm5.weight")
    if last is not None:
        return {1024: "densenet121", 2208: "densenet161"}.get(last.numel())
    grouped = own.get(f"{_BASE}layer1.0.conv2.weight")
    if grouped is None or f"{_BASE}layer1.0.conv3.weight" not in own:
        return None
    width, per_group = grouped.shape[:2]
    blocks = 1 + max(int(key.split(".")[3]) for key in own if key.startswith(f"{_BASE}layer3."))
    kinds = {(64, 64, 6): "resnet50", (64, 64, 23): "resnet101", (128, 4, 6): "resnext50", (256, 8, 23): "resnext101"}
    return kinds.get((width, per_group, blocks))


def import_weights(path: Path, *, max_depth: float | None = None, dataset: str = "kitti") -> Imported:
    """Read a BTS checkpoint.

    Args:
        path: the file.
        max_depth: metres, None for 80 (kitti) or 10 (nyu): the file does not store it.
        dataset: "kitti" (official weights scale the depth by the focal length) or "nyu".

    Raises:
        CheckpointError: unsafe, damaged, or not BTS; tensors missing, unknown or of the wrong shape.
    """
    state = plain_state(load_foreign(path))
    layout = layout_of(state)
    if layout is None:
        raise CheckpointError(
            f"{path}: expected a BTS checkpoint with '{_OFFICIAL[0]}' (official) or '{_TOOLBOX[0]}' (toolbox)."
        )
    rename = toolbox_to_own if layout == "toolbox" else official_to_own
    own = renamed(state, rename)
    encoder = encoder_of(own)
    if encoder is None:
        raise CheckpointError(
            f"{path}: the encoder of this BTS checkpoint is none of ResNet-50/101, ResNeXt-50/101, DenseNet-121/161."
        )
    high = MAX_DEPTH[dataset] if max_depth is None else max_depth
    config = {
        "family": "bts",
        "layout": layout,
        "encoder": encoder,
        "width": int(own["decoder.upconv5.conv.weight"].shape[0]),
        "max_depth": float(high),
        "dataset": dataset,
    }
    official = own_to_toolbox if layout == "toolbox" else str
    complete = complete_state(own, build, config, where=str(path), kind=f"BTS {encoder} ({layout})", official=official)
    dropped = [key for key in state if rename(key) is None]
    scaling = "no focal scaling"
    if layout == "official" and dataset == "kitti":
        scaling = "depth is scaled by focal / 715.0873; without a focal length by 1"
    return Imported(config, complete, batch_of_notes(f"BTS {encoder}, {layout} form", high, dropped, scaling))


def export_state(network: BTS) -> dict[str, Any]:
    """Return a checkpoint in the form the weights came in: official (`model`, `module.` names) or toolbox.

    The official program loads with `strict`: its ResNets want a classifier, which is added as zeros.
    """
    import torch

    state = {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}
    if network.config["layout"] == "toolbox":
        return {"meta": {}, "state_dict": {own_to_toolbox(key): value for key, value in state.items()}}
    if not network.encoder.dense:
        state[f"{_BASE}fc.weight"], state[f"{_BASE}fc.bias"] = torch.zeros(1000, 2048), torch.zeros(1000)
    return {"global_step": 0, "model": {f"module.{key}": value for key, value in state.items()}}
