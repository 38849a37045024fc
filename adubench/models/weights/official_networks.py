"""Official folders of Monodepth2, HR-Depth, DIFFNet and SUB-Depth as networks of the zoo, and back."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from adubench.errors import CheckpointError
from adubench.models import diffnet, hr_depth, sub_depth
from adubench.models.disparity import DisparityNetwork
from adubench.models.monodepth2 import WIDTHS
from adubench.models.weights import Imported
from adubench.models.weights.official_files import (
    State,
    add_aliases,
    drop_aliases,
    drop_classifier,
    export_state,
    find_folders,
    load_part,
    official_folder,
    read_extras,
    read_state,
    resnet_images,
    resnet_layers,
)

_ALIASES = {
    "hr-depth": hr_depth.ORDER,
    "hr-depth-lite": tuple(name for name in hr_depth.ORDER if not name.endswith("_downsample")),
    "diffnet": diffnet.ORDER,
}


class DecoderKind(NamedTuple):
    """What a `depth.pth` says about its network: the family, and the channels per head (2: SUB-Depth)."""

    base: str
    outputs: int


def decoder_kind(state: Mapping[str, Any]) -> DecoderKind | None:
    """Recognise the decoder of a self-supervised family; None for anything else."""
    for base, mark, head in (
        ("diffnet", "convs.72.ca.fc.0.weight", "convs.dispConvScale0.conv.weight"),
        ("hr-depth", "convs.X_02_downsample.conv.weight", "convs.dispConvScale0.conv.weight"),
        ("hr-depth-lite", "convs.X_31_attention.fc.0.weight", "convs.dispConvScale0.conv.weight"),
        ("monodepth2", "decoder.9.conv.conv.weight", "decoder.10.conv.weight"),
    ):
        weight = state.get(head)
        if mark in state and isinstance(weight, Tensor) and weight.ndim == 4:
            return DecoderKind(base, int(weight.shape[0]))
    return None


def detect_family(source: object) -> str | None:
    """Name the family of a folder, or of a loaded file; None where it is no self-supervised one.

    A file of a ResNet encoder alone does not tell: Monodepth2, HR-Depth and SUB-Depth share it.
    """
    if isinstance(source, Path):
        folders = find_folders(source)
        if not folders:
            return None
        source = read_state(folders[-1] / "depth.pth")[0]
    if not isinstance(source, Mapping):
        return None
    kind = decoder_kind(source)
    if kind is not None:
        return "sub-depth" if kind.outputs == 2 else kind.base
    if "encoder.features.15.conv.8.weight" in source:
        return "hr-depth-lite"
    if "stage4.2.fuse_layers.3.2.0.0.weight" in source and "height" in source:
        return "diffnet"
    return None


def import_folder(path: Path, family: str, max_depth: float | None) -> Imported:
    """Read an official folder.

    Args:
        path: the folder, or `encoder.pth` or `depth.pth` in it.
        family: what the user says it is. Two channels per head make it `sub-depth` of that family.
        max_depth: far end of the depth range, None for 100 m.

    Raises:
        CheckpointError: another family, missing or unexpected keys, other shapes.
    """
    folder = official_folder(path)
    depth, _ = read_state(folder / "depth.pth")
    encoder, extras = read_state(folder / "encoder.pth")
    kind = decoder_kind(depth)
    if kind is None:
        raise CheckpointError(f"{folder / 'depth.pth'}: not the decoder of Monodepth2, HR-Depth, DIFFNet or SUB-Depth.")
    found = "sub-depth" if kind.outputs == 2 else kind.base
    if family not in (found, kind.base):
        raise CheckpointError(f"{folder}: expected a checkpoint of {family}, got one of {found}. Import it as {found}.")
    config, notes = read_extras(folder / "encoder.pth", extras)
    config |= _describe(kind.base, encoder, depth, folder)
    if max_depth is not None:
        config["max_depth"] = max_depth
    if found == "sub-depth":
        notes.append(f"Two channels per head: a SUB-Depth student of {kind.base}.")
        network = sub_depth.build({"family": "sub-depth", "base": kind.base, **config})
    else:
        network = _build(kind.base, config)
    if network.neighbours:
        others = ", ".join(f"{offset:+d}" for offset in network.neighbours)
        notes.append(f"Takes {1 + len(network.neighbours)} images: the frame, then its neighbours {others}.")
    load_part(network.encoder, _to_encoder(kind.base, encoder), folder / "encoder.pth")
    load_part(network.depth, drop_aliases(depth), folder / "depth.pth")
    return Imported(dict(network.config), dict(network.state_dict()), tuple(notes))


def export_folder(network: DisparityNetwork) -> dict[str, dict[str, Any]]:
    """Write a network as official programs load it.

    Returns:
        `encoder` and `depth`, the contents of the files of these names with `.pth`: with the extra entries, the unused
        classifier and the second names.
    """
    base = str(network.config.get("base", network.family))
    encoder: dict[str, Any] = dict(export_state(network.encoder))
    if base == "diffnet":
        encoder = {key.removeprefix("encoder."): value for key, value in encoder.items()}
    encoder |= {key: network.config[key] for key in ("height", "width", "use_stereo")}
    depth = export_state(network.depth)
    if base in _ALIASES:
        depth = add_aliases(depth, _ALIASES[base])
    return {"encoder": encoder, "depth": depth}


def _build(base: str, config: Mapping[str, Any]) -> DisparityNetwork:
    network: DisparityNetwork = import_module(sub_depth.BASES[base]).build({**config, "family": base})
    return network


def _describe(base: str, encoder: State, depth: State, folder: Path) -> dict[str, Any]:
    """Read the sizes of a network from its tensors."""
    file = folder / "encoder.pth"
    if base in ("hr-depth-lite", "diffnet"):
        return {}
    config: dict[str, Any] = {"num_layers": resnet_layers(encoder, file)}
    images = resnet_images(encoder, file)
    if base == "monodepth2":
        heads = sorted(int(key.split(".")[1]) for key in depth if key.endswith(".conv.weight") and key.count(".") == 3)
        widths = [int(depth[f"decoder.{k}.conv.weight"].shape[1]) for k in heads]
        if any(width not in WIDTHS for width in widths):
            raise CheckpointError(f"{folder / 'depth.pth'}: heads take {widths} channels, expected some of {WIDTHS}.")
        return config | {"input_images": images, "scales": [WIDTHS.index(width) for width in widths]}
    return config


def _to_encoder(base: str, state: State) -> State:
    """Rename an official encoder file to the keys of ours."""
    if base == "diffnet":
        return {f"encoder.{key}": value for key, value in state.items()}
    return drop_classifier(state)
