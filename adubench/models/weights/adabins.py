"""AdaBins checkpoints: official (today's and the first release's names) and of the toolbox; import and export."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adubench.errors import CheckpointError
from adubench.models.adabins import AdaBins, build
from adubench.models.weights import Imported
from adubench.models.weights.renamed import MAX_DEPTH, batch_of_notes, complete_state, plain_state, renamed
from adubench.models.weights.safe_load import load_foreign

if TYPE_CHECKING:
    from torch import Tensor

_BINS = "conv_out.0.weight"
_OFFICIAL = ("encoder.original_model.conv_stem.weight", _BINS)
_TOOLBOX = ("backbone.original_model.conv_stem.weight", f"decode_head.{_BINS}", "decode_head.decode_final_conv.weight")
_LEGACY = (
    ("adaptive_bins_layer.embedding_conv.", "adaptive_bins_layer.conv3x3."),
    (
        "adaptive_bins_layer.patch_transformer.embedding_encoder",
        "adaptive_bins_layer.patch_transformer.embedding_convPxP",
    ),
)
_UP = re.compile(r"^decode_head\.conv_list\.([1-4])\.conv([AB])\.(conv|bn)\.(.+)$")
# Position of convolution and norm of the first and second half in the official Sequential.
_SLOT = {("A", "conv"): 0, ("A", "bn"): 1, ("B", "conv"): 3, ("B", "bn"): 4}
_HALF = {slot: names for names, slot in _SLOT.items()}
_OWN_UP = re.compile(r"^decoder\.up([1-4])\._net\.([0134])\.(.+)$")


def layout_of(state: dict[str, Tensor]) -> str | None:
    """Name the form of a state dictionary: official, toolbox, or None if it is not AdaBins."""
    if all(key in state for key in _OFFICIAL):
        return "official"
    return "toolbox" if all(key in state for key in _TOOLBOX) else None


def detect(source: object) -> bool:
    """Tell whether what `load_foreign` returned is an AdaBins checkpoint."""
    return layout_of(plain_state(source)) is not None


def current_name(key: str) -> str:
    """Today's name of a tensor in an official file of any age."""
    for old, new in _LEGACY:
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def toolbox_to_own(key: str) -> str | None:
    """Our name of a tensor in a toolbox file; None for what its network never uses."""
    if key.startswith("decode_head.conv_depth."):
        return None
    if match := _UP.match(key):
        return f"decoder.up{match[1]}._net.{_SLOT[match[2], match[3]]}.{match[4]}"
    for theirs, ours in (
        ("backbone.", "encoder."),
        ("decode_head.conv_list.0.conv.", "decoder.conv2."),
        ("decode_head.decode_final_conv.", "decoder.conv3."),
        ("decode_head.", ""),
    ):
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return key


def own_to_toolbox(key: str) -> str:
    """The inverse of `toolbox_to_own`."""
    if match := _OWN_UP.match(key):
        half, kind = _HALF[int(match[2])]
        return f"decode_head.conv_list.{match[1]}.conv{half}.{kind}.{match[3]}"
    for ours, theirs in (
        ("encoder.", "backbone."),
        ("decoder.conv2.", "decode_head.conv_list.0.conv."),
        ("decoder.conv3.", "decode_head.decode_final_conv."),
    ):
        if key.startswith(ours):
            return theirs + key.removeprefix(ours)
    return f"decode_head.{key}"


def import_weights(path: Path, *, max_depth: float | None = None, dataset: str = "kitti") -> Imported:
    """Read an AdaBins checkpoint.

    Args:
        path: the file.
        max_depth: metres, None for 80 (kitti) or 10 (nyu): the file does not store it.
        dataset: "kitti" or "nyu".

    Raises:
        CheckpointError: unsafe, damaged, or not AdaBins; tensors missing, unknown or of the wrong shape.
    """
    state = plain_state(load_foreign(path))
    layout = layout_of(state)
    if layout is None:
        raise CheckpointError(
            f"{path}: expected an AdaBins checkpoint with '{_OFFICIAL[0]}' (official) or '{_TOOLBOX[0]}' (toolbox)."
        )
    rename = toolbox_to_own if layout == "toolbox" else current_name
    own = renamed(state, rename)
    high = MAX_DEPTH[dataset] if max_depth is None else max_depth
    config = {"family": "adabins", "layout": layout, "n_bins": int(own[_BINS].shape[0]), "max_depth": float(high)}
    complete = complete_state(
        own,
        build,
        config,
        where=str(path),
        kind=f"AdaBins ({layout})",
        official=own_to_toolbox if layout == "toolbox" else str,
    )
    old = ("names of the first release translated",) if any(current_name(key) != key for key in state) else ()
    dropped = [key for key in state if rename(key) is None]
    return Imported(config, complete, batch_of_notes(f"AdaBins, {layout} form", high, dropped, *old))


def export_state(network: AdaBins) -> dict[str, Any]:
    """Return a checkpoint in the form the weights came in: official (`model`) or toolbox (`state_dict`)."""
    state = {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}
    if network.config["layout"] == "toolbox":
        return {"meta": {}, "state_dict": {own_to_toolbox(key): value for key, value in state.items()}}
    return {"model": state, "optimizer": None, "epoch": 0}
