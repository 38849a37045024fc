"""Released TIE-KD students (mm checkpoints): import and export."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adubench.errors import CheckpointError
from adubench.models.densedepth import DenseDepth, build
from adubench.models.weights import Imported
from adubench.models.weights.renamed import (
    MAX_DEPTH,
    batch_of_notes,
    complete_state,
    meta_text,
    plain_state,
    renamed,
)
from adubench.models.weights.safe_load import load_foreign

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_FIRST = "decode_head.conv_list.0.conv.weight"
_FULL = "decode_head.upsample_custom.convA.conv.weight"
_PROBS = "decode_head.conv_out.0.weight"
_DEPTH = "decode_head.conv_depth.weight"
_BINS = {"kitti": 257, "nyu": 49}
_LAYER = re.compile(r"^backbone\.layer(\d+)\.(\d+)\.conv\.([012])\.(conv|bn)\.(.+)$")
_BLOCK = re.compile(r"^encoder\.blocks\.(\d+)\.(\d+)\.(conv_pw|conv_dw|conv_pwl|bn1|bn2|bn3)\.(.+)$")
# Position in the reference's block -> timm's names; the very first block has no expanding convolution.
_EXPAND = {("0", "conv"): "conv_pw", ("0", "bn"): "bn1", ("1", "conv"): "conv_dw", ("1", "bn"): "bn2"}
_EXPAND |= {("2", "conv"): "conv_pwl", ("2", "bn"): "bn3"}
_PLAIN = {("0", "conv"): "conv_dw", ("0", "bn"): "bn1", ("1", "conv"): "conv_pw", ("1", "bn"): "bn2"}
_STEM = (("backbone.conv1.conv.", "encoder.conv_stem."), ("backbone.conv1.bn.", "encoder.bn1."))


def mobilenet_to_own(key: str) -> str:
    """Our name of a tensor of the reference's MobileNetV2; other names come back as they are."""
    for theirs, ours in _STEM:
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    if match := _LAYER.match(key):
        stage = int(match[1]) - 1
        names = _PLAIN if stage == 0 else _EXPAND
        name = names.get((match[3], match[4]))
        if name is not None:
            return f"encoder.blocks.{stage}.{match[2]}.{name}.{match[5]}"
    return key


def own_to_mobilenet(key: str) -> str:
    """The inverse of `mobilenet_to_own`."""
    for theirs, ours in _STEM:
        if key.startswith(ours):
            return theirs + key.removeprefix(ours)
    if match := _BLOCK.match(key):
        stage = int(match[1])
        position, kind = next(k for k, v in (_PLAIN if stage == 0 else _EXPAND).items() if v == match[3])
        return f"backbone.layer{stage + 1}.{match[2]}.conv.{position}.{kind}.{match[4]}"
    return key


def _own_name(key: str, encoder: str) -> str:
    if encoder == "mobilenetv2":
        return mobilenet_to_own(key)
    return f"encoder.{key.removeprefix('backbone.')}" if key.startswith("backbone.") else key


def _reference_name(key: str, encoder: str) -> str:
    if encoder == "mobilenetv2":
        return own_to_mobilenet(key)
    return f"backbone.{key.removeprefix('encoder.')}" if key.startswith("encoder.") else key


def encoder_of(state: Mapping[str, Tensor]) -> str | None:
    """Read the encoder off a reference state dictionary, None if it is none of the students'."""
    if "backbone.layer1.0.conv.0.conv.weight" in state:
        return "mobilenetv2"
    if "backbone.layer1.0.conv2.weight" not in state:
        return None
    blocks = 1 + max(int(key.split(".")[2]) for key in state if key.startswith("backbone.layer3."))
    kind = ("backbone.layer1.0.conv3.weight" in state, blocks)
    return {(False, 2): "resnet18", (True, 6): "resnet50"}.get(kind)


def head_of(state: Mapping[str, Tensor], config_text: str) -> str:
    """Tell bins from regression.

    Files of both kinds hold the other one's unused layer, so the stored configuration decides where there is one.
    """
    if _PROBS not in state:
        return "regression"
    return "regression" if "base_custom_kd" in config_text and _DEPTH in state else "dpm"


def detect(source: object) -> bool:
    """Tell whether what `load_foreign` returned is a student of TIE-KD."""
    state = plain_state(source)
    return _FIRST in state and _FULL in state and encoder_of(state) is not None


def _is_unused(key: str, encoder: str, head: str) -> bool:
    other = "decode_head.conv_depth." if head == "dpm" else "decode_head.conv_out."
    return key.startswith((other, "backbone.fc.")) or (
        encoder != "mobilenetv2" and key.startswith("decode_head.upsample_custom2.")
    )


def import_weights(path: Path, *, max_depth: float | None = None, dataset: str = "kitti") -> Imported:
    """Read a released student.

    Args:
        path: the file.
        max_depth: metres, None for 80 (kitti) or 10 (nyu): the file does not store it.
        dataset: "kitti" or "nyu".

    Raises:
        CheckpointError: unsafe, damaged, or no student; tensors missing, unknown or of the wrong shape.
    """
    source = load_foreign(path)
    if not detect(source):
        raise CheckpointError(
            f"{path}: expected a TIE-KD student (MobileNetV2, ResNet-18 or ResNet-50 under 'backbone.', '{_FULL}')."
        )
    state = plain_state(source)
    encoder, head = encoder_of(state) or "", head_of(state, meta_text(source))
    high = MAX_DEPTH[dataset] if max_depth is None else max_depth
    config: dict[str, Any] = {"family": "densedepth", "encoder": encoder, "head": head, "max_depth": float(high)}
    if head == "dpm":
        config["n_bins"] = int(state[_PROBS].shape[0])
    own = renamed(state, lambda key: None if _is_unused(key, encoder, head) else _own_name(key, encoder))
    kind = f"a TIE-KD student with {encoder} and a {head} head"
    complete = complete_state(
        own, build, config, where=str(path), kind=kind, official=lambda key: _reference_name(key, encoder)
    )
    dropped = [key for key in state if _is_unused(key, encoder, head)]
    bins = _about_bins(config["n_bins"], dataset) if head == "dpm" else ()
    return Imported(config, complete, batch_of_notes(kind, high, dropped, *bins))


def _about_bins(n_bins: int, dataset: str) -> tuple[str, ...]:
    """Say how many bins there are, and where their number belongs to the other data set: the file has no range."""
    usual = next((name for name, bins in _BINS.items() if bins == n_bins), dataset)
    if usual == dataset:
        return (f"{n_bins} bins",)
    return (f"{n_bins} bins, as released for {usual}: give --dataset {usual} if it was trained there",)


def export_state(network: DenseDepth) -> dict[str, Any]:
    """Return a checkpoint under the release's names; layers its networks carry but never use are left out."""
    encoder = str(network.config["encoder"])
    state = {_reference_name(key, encoder): value.detach().cpu().clone() for key, value in network.state_dict().items()}
    return {"meta": {}, "state_dict": state}
