"""Official files of what was trained beside a depth network: motion, predictive masks, photometric uncertainty.

In a state dictionary of ours these are `pose.*`, `mask.*` and `uncertainty.*`, and the second part of each name is that
of the official file: `pose.pose_encoder.encoder.conv1.weight` is `encoder.conv1.weight` of `pose_encoder.pth`. Sources:
nianticlabs/monodepth2, trainer.py (`pose_encoder`, `pose`, `predictive_mask`); brandleyzhou/SUB-Depth, trainer.py
(`ph_uncert_enc`, `ph_uncert_dec`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adubench.errors import CheckpointError
from adubench.models.monodepth2 import WIDTHS, PredictiveMask
from adubench.models.pose import PoseNetwork, build_pose
from adubench.models.sub_depth import PhotometricUncertainty
from adubench.models.weights.official_files import (
    State,
    add_classifier,
    drop_classifier,
    load_part,
    read_state,
    resnet_images,
    resnet_layers,
)

_RESNETS = ("pose_encoder", "ph_uncert_enc")


def import_helpers(folder: Path) -> tuple[State, list[str]]:
    """Read the networks that lie beside `depth.pth`.

    Returns:
        their tensors under our names, and a sentence for each file that could not be taken: a depth network is as good
        without them.
    """
    state: State = {}
    notes: list[str] = []
    readers = (("pose", import_pose), ("mask", import_mask), ("uncertainty", import_uncertainty))
    for name, reader in readers:
        try:
            module = reader(folder)
        except CheckpointError as error:
            notes.append(f"Left out: {error}")
            continue
        if module is not None:
            state |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    return state, notes


def export_helpers(state: State) -> dict[str, State]:
    """Turn tensors under our names into the contents of the official files, named without `.pth`."""
    parts: dict[str, State] = {}
    for key, value in state.items():
        _, part, rest = key.split(".", 2)
        parts.setdefault(part, {})[rest] = value
    return {name: add_classifier(part) if name in _RESNETS else part for name, part in parts.items()}


def import_pose(path: Path) -> PoseNetwork | None:
    """Read `pose.pth` and, where the network has its own encoder, `pose_encoder.pth`.

    Without `pose_encoder.pth` a pose decoder is a `shared` one: its depth encoder is the one of the folder.

    Args:
        path: the folder, or a file in it.

    Returns:
        The network; None without `pose.pth`.

    Raises:
        CheckpointError: keys and shapes that fit none of the three kinds.
    """
    folder = path if path.is_dir() else path.parent
    file, encoder_file = folder / "pose.pth", folder / "pose_encoder.pth"
    if not file.is_file():
        return None
    head, _ = read_state(file)
    try:
        config = _describe_pose(head, encoder_file.is_file())
    except (KeyError, IndexError, AttributeError):
        raise CheckpointError(f"{file}: not a pose network of Monodepth2.") from None
    encoder: State = {}
    if config["kind"] == "separate_resnet":
        encoder = drop_classifier(read_state(encoder_file)[0])
        images = resnet_images(encoder, encoder_file)
        config |= {"num_layers": resnet_layers(encoder, encoder_file)}
        config |= {"input": "all", "frames": images} if images != 2 else {}
    network = build_pose(config)
    load_part(network.pose, head, file)
    if encoder:
        load_part(network.pose_encoder, encoder, encoder_file)
    return network


def import_mask(folder: Path) -> PredictiveMask | None:
    """Read `predictive_mask.pth`: one channel per source and scale, from the features of a ResNet.

    Raises:
        CheckpointError: not such a decoder.
    """
    file = folder / "predictive_mask.pth"
    if not file.is_file():
        return None
    state, _ = read_state(file)
    try:
        skips = [int(state[f"decoder.{2 * k + 1}.conv.conv.weight"].shape[1]) - WIDTHS[4 - k] for k in range(4)]
        widths = (*reversed(skips), int(state["decoder.0.conv.conv.weight"].shape[1]))
        heads = [state[f"decoder.{k}.conv.weight"] for k in range(10, 14) if f"decoder.{k}.conv.weight" in state]
        scales = [WIDTHS.index(int(head.shape[1])) for head in heads]
        network = PredictiveMask(widths, int(heads[0].shape[0]), scales)
    except (KeyError, IndexError, ValueError, RuntimeError):
        raise CheckpointError(f"{file}: not a decoder of predictive masks.") from None
    load_part(network.predictive_mask, state, file)
    return network


def import_uncertainty(folder: Path) -> PhotometricUncertainty | None:
    """Read SUB-Depth's `ph_uncert_enc.pth` and `ph_uncert_dec.pth`.

    Raises:
        CheckpointError: one of the two is missing, or not what its name says.
    """
    files = [folder / "ph_uncert_enc.pth", folder / "ph_uncert_dec.pth"]
    there = [file.is_file() for file in files]
    if not any(there):
        return None
    if not all(there):
        raise CheckpointError(f"{files[there.index(False)]}: is missing beside {files[there.index(True)].name}.")
    encoder, decoder = (read_state(file)[0] for file in files)
    network = PhotometricUncertainty(resnet_layers(encoder, files[0]))
    load_part(network.ph_uncert_enc, drop_classifier(encoder), files[0])
    load_part(network.ph_uncert_dec, decoder, files[1])
    return network


def _describe_pose(head: State, has_encoder: bool) -> dict[str, Any]:
    """Read the kind of a pose network from the shapes of `pose.pth`."""
    if "pose_conv.weight" in head:
        images = int(head["net.0.weight"].shape[1]) // 3
        kind = "posecnn"
    else:
        images = int(head["net.1.weight"].shape[1]) // 256
        kind = "separate_resnet" if has_encoder else "shared"
    config: dict[str, Any] = {"kind": kind}
    if kind == "shared":
        config["num_layers"] = 18 if head["net.0.weight"].shape[1] == 512 else 50
    if kind != "separate_resnet" and images != 2:
        config |= {"input": "all", "frames": images}
    return config
