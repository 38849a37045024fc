"""Official NeWCRFs checkpoints: import with strict checks, and export back under the official names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from adubench.errors import CheckpointError, UsageError
from adubench.models.variants import variant_of
from adubench.models.weights import Imported
from adubench.models.weights.safe_load import load_foreign, tensors_of
from adubench.models.windows import TABLE_ROWS, TOKENS, relative_position_index

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from adubench.models.variants import Variant

MAX_DEPTH = {"kitti": 80.0, "nyu": 10.0}
PREFIX = "module."
INDEX = "relative_position_index"
TABLE = "relative_position_bias_table"
PATCH = "backbone.patch_embed.proj.weight"
HEAD = "disp_head1.conv1.weight"
_MERGING = re.compile(r"^backbone\.layers\.(\d+)\.downsample\.")
_STAGE = re.compile(r"^backbone\.layers\.(\d+)\.")
_NORM = re.compile(r"^backbone\.norm(\d)\.")


def detect(source: object) -> bool:
    """Tell whether what `load_foreign` returned is a NeWCRFs checkpoint."""
    if isinstance(source, Path):
        return False
    keys = {key.removeprefix(PREFIX) for key in _state_of(source)}
    return PATCH in keys and HEAD in keys and "crf0.norm_crf.weight" in keys


def import_weights(path: Path, *, max_depth: float | None = None, dataset: str = "kitti") -> Imported:
    """Read an official checkpoint of any size.

    Args:
        path: the checkpoint file.
        max_depth: metres, None for 80 (kitti) or 10 (nyu): the file does not store it.
        dataset: "kitti" or "nyu".

    Raises:
        CheckpointError: unsafe, damaged, or not NeWCRFs; tensors missing, unknown or of the wrong shape.
    """
    source = load_foreign(path)
    tensors = tensors_of(source, path)
    if not detect(tensors):
        raise CheckpointError(f"{path} is no NeWCRFs checkpoint: it lacks '{PATCH}', '{HEAD}' or the FC-CRF stages.")
    return import_state(tensors, max_depth=max_depth or MAX_DEPTH[dataset], where=str(path))


def import_state(tensors: Mapping[str, Tensor], *, max_depth: float = 80.0, where: str = "the checkpoint") -> Imported:
    """Translate an official state dictionary.

    Args:
        tensors: official names, with or without the `module.` prefix.
        max_depth: metres.
        where: what to call it in an error.

    Raises:
        CheckpointError: tensors missing, unknown or of the wrong shape, or index buffers of another window.
    """
    official = {key.removeprefix(PREFIX): value for key, value in tensors.items()}
    try:
        variant = detect_variant(official)
    except (IndexError, ValueError, UsageError) as error:
        raise CheckpointError(f"{where} is no complete NeWCRFs checkpoint: {str(error).rstrip('.')}.") from error
    if official[PATCH].ndim != 4 or official[PATCH].shape[1] not in (3, 6):
        raise CheckpointError(
            f"{where} has a patch kernel of shape {tuple(official[PATCH].shape)}: 3 or 6 channels only."
        )
    config = {
        "family": "newcrfs",
        "variant": variant.to_config(),
        "max_depth": float(max_depth),
        "in_channels": int(official[PATCH].shape[1]),
    }
    buffers = _check_index_buffers(official, where)
    state = {our_name(key): value.contiguous() for key, value in official.items() if not key.endswith(INDEX)}
    _check_complete(state, config, where)
    name = variant.to_config()
    size = name if isinstance(name, str) else f"widths {variant.encoder_widths} / {variant.crf_widths}"
    notes = [f"NeWCRFs {size}, {config['in_channels']} input channels, max_depth {max_depth:g} m"]
    if buffers:
        notes.append(f"{buffers} index buffers checked against the formula and left out")
    return Imported(config, state, tuple(notes))


def detect_variant(official: Mapping[str, Tensor]) -> Variant:
    """Read all widths, depths and head counts off an official state dictionary (no `module.` prefix).

    Raises:
        ValueError: a tensor that the widths are read from is missing.
        IndexError: it has too few dimensions.
        UsageError: the widths do not fit together.
    """
    depths = [0, 0, 0, 0]
    for key in official:
        match = re.match(r"^backbone\.layers\.([0-3])\.blocks\.(\d+)\.", key)
        if match:
            depths[int(match[1])] = max(depths[int(match[1])], int(match[2]) + 1)

    def heads(block: str) -> int:
        return int(_tensor(official, f"{block}.attn.{TABLE}").shape[1])

    return variant_of(
        {
            "embed_dim": int(_tensor(official, PATCH).shape[0]),
            "depths": depths,
            "heads": [heads(f"backbone.layers.{stage}.blocks.0") for stage in range(4)],
            "crf_widths": [int(_tensor(official, f"crf{k}.norm_crf.weight").shape[0]) for k in range(4)],
            "crf_heads": [heads(f"crf{k}.crf_layer.blocks.0") for k in range(4)],
            "psp_width": int(_tensor(official, "decoder.bottleneck.conv.weight").shape[0]),
        }
    )


def _tensor(official: Mapping[str, Tensor], key: str) -> Tensor:
    """Look a tensor up, with a message a user understands."""
    if key not in official:
        raise ValueError(f"'{key}' is missing")
    return official[key]


def our_name(key: str) -> str:
    """Translate an official name (no `module.` prefix)."""
    key = _NORM.sub(r"encoder.norms.\1.", key)
    key = _MERGING.sub(lambda m: f"encoder.backbone.layers_{int(m[1]) + 1}.downsample.", key)
    key = _STAGE.sub(r"encoder.backbone.layers_\1.", key)
    return re.sub(r"^backbone\.", "encoder.backbone.", key)


def official_name(key: str) -> str:
    """Translate one of our names; the inverse of `our_name`."""
    key = re.sub(r"^encoder\.norms\.(\d)\.", r"backbone.norm\1.", key)
    key = re.sub(
        r"^encoder\.backbone\.layers_(\d+)\.downsample\.", lambda m: f"backbone.layers.{int(m[1]) - 1}.downsample.", key
    )
    key = re.sub(r"^encoder\.backbone\.layers_(\d+)\.", r"backbone.layers.\1.", key)
    return re.sub(r"^encoder\.backbone\.", "backbone.", key)


def export_state(network: nn.Module) -> dict[str, Any]:
    """Return an official checkpoint of a network: `module.` names, index buffers regenerated.

    The uncertainty head has no official name and is left out.

    Raises:
        CheckpointError: a teacher with two encoders, which the official network cannot express.
    """
    state = network.state_dict()
    if any(key.startswith("fusion.") for key in state):
        raise CheckpointError("a teacher with two encoders has no official NeWCRFs naming: export the student instead.")
    model: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.startswith("uncertainty_head."):
            continue
        name = PREFIX + official_name(key)
        model[name] = value.detach().cpu().clone()
        if name.endswith(TABLE):
            model[name.replace(TABLE, INDEX)] = relative_position_index()
    return {"global_step": 0, "model": model}


def _state_of(source: object) -> dict[str, Any]:
    """Return the state dictionary inside a checkpoint, or an empty one."""
    if isinstance(source, dict):
        inner = source.get("model", source.get("state_dict", source))
        if isinstance(inner, dict):
            return {str(key): value for key, value in inner.items()}
    return {}


def _check_index_buffers(official: Mapping[str, Tensor], where: str) -> int:
    """Compare the index buffers with the formula; return how many there are."""
    expected = relative_position_index()
    buffers = [key for key in official if key.endswith(INDEX)]
    for key in buffers:
        if tuple(official[key].shape) != (TOKENS, TOKENS) or not torch.equal(official[key].long(), expected):
            raise CheckpointError(f"{where} has another window than 7 x 7 ('{key}' differs from the formula).")
    for key, value in official.items():
        if key.endswith(TABLE) and value.shape[0] != TABLE_ROWS:
            raise CheckpointError(
                f"{where} has another window than 7 x 7 ('{key}' has {value.shape[0]} rows, not 169)."
            )
    return len(buffers)


def _check_complete(state: Mapping[str, Tensor], config: Mapping[str, Any], where: str) -> None:
    """Refuse missing, unknown or misshapen tensors; the network to compare with is built without memory."""
    from adubench.models.newcrfs import build

    with torch.device("meta"):
        own = build(config).state_dict()
    missing = sorted(set(own) - set(state))
    unknown = sorted(set(state) - set(own))
    wrong = sorted(key for key in set(own) & set(state) if own[key].shape != state[key].shape)
    for what, keys in (("lacks", missing), ("has besides", unknown), ("has another shape of", wrong)):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise CheckpointError(f"{where} {what} '{official_name(keys[0])}'{more}: it is no NeWCRFs checkpoint.")
