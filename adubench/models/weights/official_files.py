"""Folders of the self-supervised repositories: `encoder.pth`, `depth.pth`, `pose_encoder.pth`, `pose.pth`.

Each file is a state dictionary; `encoder.pth` carries `height`, `width` and `use_stereo` beside its tensors. ResNet
files hold the classifier `encoder.fc`, which nothing uses and strict loaders of the original programs demand; decoders
of HR-Depth and DIFFNet hold every tensor twice, as `convs.<name>` and `decoder.<n>`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adubench.errors import CheckpointError, UsageError
from adubench.models.disparity import SMALLEST, check_size
from adubench.models.resnet_encoder import ResnetEncoder
from adubench.models.weights.safe_load import load_foreign

EXTRAS = ("height", "width", "use_stereo")
FILES = ("encoder.pth", "depth.pth")
_COUNTER = "num_batches_tracked"
#: (bottleneck, blocks of layer 3) -> depth of the ResNet.
_RESNETS = {(False, 2): 18, (False, 6): 34, (True, 6): 50, (True, 23): 101, (True, 36): 152}

State = dict[str, Tensor]


def find_folders(path: Path) -> list[Path]:
    """Find the folders with `encoder.pth` and `depth.pth` that a path means, the latest epoch last.

    Args:
        path: such a folder, one of its files, or a folder above it (`models/weights_19` below the run's).
    """
    folder = path if path.is_dir() else path.parent
    if _is_complete(folder) or folder is not path:
        return [folder] if _is_complete(folder) else []
    inside = {file.parent for pattern in ("*", "*/*", "*/*/*") for file in folder.glob(f"{pattern}/{FILES[0]}")}
    return sorted(filter(_is_complete, inside), key=lambda found: (*_epoch(found), str(found)))


def official_folder(path: Path) -> Path:
    """Return the folder of an official checkpoint, given the folder, one of its files, or the only one's parent.

    Raises:
        CheckpointError: there is no `encoder.pth` with a `depth.pth` beside it, or there are several.
    """
    found = find_folders(path)
    if len(found) == 1:
        return found[0]
    folder = path if path.is_dir() else path.parent
    if found:
        raise CheckpointError(f"{folder}: holds {len(found)} checkpoints; give one of them, e.g. {found[-1]}.")
    missing = [name for name in FILES if not (folder / name).is_file()]
    raise CheckpointError(f"{folder}: {' and '.join(missing)} not found. Give the folder weights_<epoch>.")


def _is_complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)


def _epoch(folder: Path) -> tuple[int, ...]:
    """Numbers in the name of a folder: `weights_9` comes before `weights_19`."""
    return tuple(int(number) for number in re.findall(r"\d+", folder.name))


def read_state(path: Path) -> tuple[State, dict[str, Any]]:
    """Read one official file.

    Returns:
        its tensors, without the prefix `module.` of data-parallel training, and the entries that are none.

    Raises:
        CheckpointError: unreadable, or not a state dictionary.
    """
    loaded = load_foreign(path)
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path}: expected a state dictionary, got {type(loaded).__name__}.")
    extras = {str(key): value for key, value in loaded.items() if key in EXTRAS or not isinstance(value, Tensor)}
    unknown = sorted(set(extras) - set(EXTRAS))
    if unknown:
        raise CheckpointError(
            f"{path}: expected tensors only, but '{unknown[0]}' is {type(extras[unknown[0]]).__name__}."
        )
    state = {str(key).removeprefix("module."): value for key, value in loaded.items() if key not in EXTRAS}
    return state, extras


def read_extras(path: Path, extras: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Turn the extra entries of `encoder.pth` into configuration keys, and say what was not there.

    Raises:
        CheckpointError: a size that is no number, or none that a network can have.
    """
    found: dict[str, Any] = {}
    try:
        found = {key: int(extras[key]) for key in ("height", "width") if key in extras}
        if "use_stereo" in extras:
            found["use_stereo"] = bool(extras["use_stereo"])
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise CheckpointError(f"{path}: height, width or use_stereo is not a number.") from None
    try:
        check_size(found.get("height", SMALLEST), found.get("width", SMALLEST))
    except UsageError as error:
        raise CheckpointError(f"{path}: {error}") from None
    notes = []
    if len({"height", "width"} & set(found)) < 2:
        found.pop("height", None)
        found.pop("width", None)
        notes.append(f"{path.name} names no input size: 192x640 is assumed.")
    if found.get("use_stereo"):
        notes.append("Trained with stereo: depth is 5.4 times the network's, evaluate without median scaling.")
    return found, notes


def drop_classifier(state: State) -> State:
    """Leave out the ImageNet classifier of a ResNet file."""
    return {key: value for key, value in state.items() if not key.startswith("encoder.fc.")}


def drop_aliases(state: State) -> State:
    """Leave out the second names of a decoder that holds every tensor twice."""
    if not any(key.startswith("convs.") for key in state):
        return state
    return {key: value for key, value in state.items() if not key.startswith("decoder.")}


def add_aliases(state: State, order: Sequence[str]) -> State:
    """Add `decoder.<n>.<rest>` for every `convs.<name>.<rest>`, n being the place of the name in the order."""
    places = {name: n for n, name in enumerate(order)}
    out = dict(state)
    for key, value in state.items():
        name, _, rest = key.removeprefix("convs.").partition(".")
        out[f"decoder.{places[name]}.{rest}"] = value
    return out


def resnet_layers(state: Mapping[str, Tensor], path: Path) -> int:
    """Find the depth of a ResNet file from its keys.

    Raises:
        CheckpointError: not a ResNet of a known depth.
    """
    blocks = {int(match[1]) for key in state if (match := re.match(r"encoder\.layer3\.(\d+)\.", key))}
    bottleneck = "encoder.layer1.0.conv3.weight" in state
    layers = _RESNETS.get((bottleneck, len(blocks)))
    if layers is None:
        raise CheckpointError(f"{path}: not the encoder of a ResNet (layer3 has {len(blocks)} blocks).")
    return layers


def resnet_images(state: Mapping[str, Tensor], path: Path) -> int:
    """Find how many images a ResNet file takes, from its first convolution.

    Raises:
        CheckpointError: no such convolution, or channels that are no multiple of 3.
    """
    weight = state.get("encoder.conv1.weight")
    channels = int(weight.shape[1]) if weight is not None and weight.ndim == 4 else 0
    if channels == 0 or channels % 3:
        raise CheckpointError(f"{path}: encoder.conv1.weight takes {channels} channels, expected a multiple of 3.")
    return channels // 3


def load_part(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load an official file into a module, strictly; counters of batch normalisation may be missing.

    Raises:
        CheckpointError: with the missing and unexpected keys, or the shape or type that differs.
    """
    own = module.state_dict()
    missing = sorted(key for key in set(own) - set(state) if not key.endswith(_COUNTER))
    unexpected = sorted(set(state) - set(own))
    if missing or unexpected:
        parts = [f"{len(keys)} {what} ({_some(keys)})" for what, keys in _named(missing, unexpected) if keys]
        raise CheckpointError(f"{path}: keys do not fit the network: {', '.join(parts)}. Is it another family?")
    for key, value in state.items():
        if tuple(value.shape) != tuple(own[key].shape):
            raise CheckpointError(
                f"{path}: {key} has shape {tuple(value.shape)}, expected {tuple(own[key].shape)}. Is it another size?"
            )
        if value.is_floating_point() != own[key].is_floating_point():
            raise CheckpointError(f"{path}: {key} is of type {value.dtype}, expected {own[key].dtype}.")
    module.load_state_dict({key: state[key].to(own[key].dtype) if key in state else own[key] for key in own})


def _named(missing: list[str], unexpected: list[str]) -> tuple[tuple[str, list[str]], tuple[str, list[str]]]:
    return (("missing", missing), ("unexpected", unexpected))


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:4]) + (", ..." if len(keys) > 4 else "")


def export_state(module: nn.Module) -> State:
    """Copy a module's state to the CPU; a ResNet gets the unused classifier (zeros) that official loaders demand."""
    state = {key: value.detach().cpu().clone() for key, value in module.state_dict().items()}
    return add_classifier(state) if isinstance(module, ResnetEncoder) else state


def add_classifier(state: State) -> State:
    """Add an ImageNet classifier of zeros to the state of a ResNet: official loaders want it, nothing uses it."""
    bottleneck = "encoder.layer1.0.conv3.weight" in state
    classifier = {
        "encoder.fc.weight": torch.zeros(1000, 2048 if bottleneck else 512),
        "encoder.fc.bias": torch.zeros(1000),
    }
    return state | classifier
