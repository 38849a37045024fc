"""Official weights into a checkpoint of ours, and a checkpoint back to the official names."""

from __future__ import annotations

import hashlib
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adubench.errors import CheckpointError, UsageError
from adubench.training.checkpoint import CheckpointInfo, is_checkpoint, load_network, read_info, save_checkpoint
from adubench.training.run_folder import POSE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from adubench.models.interface import DepthNetwork

#: Family in the zoo -> name of its importer, where they differ.
_IMPORTER = {"densedepth": "tie-kd"}


def import_official(
    family: str, path: Path, output: Path, *, max_depth: float | None = None, dataset: str = "kitti"
) -> CheckpointInfo:
    """Translate an official checkpoint and store it as one of ours.

    Args:
        family: name of the importer, or "auto".
        path: the checkpoint file or folder.
        output: file to write.
        max_depth: metres at which the output saturates; None: that of the data set.
        dataset: "kitti" or "nyu", what the network was trained on.

    Pose and uncertainty networks in the same folder go to `<output>-pose.safetensors`.

    Returns:
        What was stored; `source["notes"]` are sentences about what was recognised.

    Raises:
        UsageError: unknown family or data set, or a checkpoint that is ours already.
        CheckpointError: unreadable, unsafe, or not of the family.
    """
    from adubench.models.weights.families import import_weights

    _refuse_ours(path)
    found = import_weights(family, path, max_depth=max_depth, dataset=dataset)
    network = _built(found.config, found.state, path)
    helpers, notes = _read_official_helpers(path, network)
    source = {
        "official": path.name,
        "sha256": _digest(path),
        "importer": family,
        "dataset": dataset,
        "notes": [*found.notes, *notes],
    }
    info = CheckpointInfo(model=network.config, role="imported", source=source)
    save_checkpoint(output, network, info=info)
    if network.output == "disparity":
        _save_helpers(output, helpers)
    return info


def export_official(checkpoint: Path, output: Path, *, family: str = "auto") -> list[Path]:
    """Write the network of a checkpoint under its official names.

    Args:
        checkpoint: file of ours.
        output: file to write; for families of several files (`encoder.pth`, `depth.pth`, and the pose networks that
            were trained with them) the folder.
        family: refuse checkpoints of another family; "auto" takes any.

    Returns:
        The files.

    Raises:
        UsageError: the checkpoint is of another family, or the folder holds files that would be read with these.
        CheckpointError: the network has no official form.
    """
    network, info = load_network(checkpoint)
    own = _IMPORTER.get(info.family, info.family)
    if family not in ("auto", own):
        raise UsageError(f"{checkpoint}: holds a network of family '{own}', not '{family}'.")
    content = _official(network, own, checkpoint)
    if set(content) == {"encoder", "depth"}:
        content |= _official_helpers(checkpoint, info)
        files = {output / f"{name}.pth": part for name, part in content.items()}
        _refuse_mixture(output, files)
    else:
        files = {output: content}
    for file, part in files.items():
        _write(file, part)
    return list(files)


def _refuse_mixture(folder: Path, files: Iterable[Path]) -> None:
    """Refuse a folder with weights that stay: pose and uncertainty networks would be taken for its own."""
    others = sorted({path.name for path in folder.glob("*.pth")} - {path.name for path in files})
    if others:
        raise UsageError(
            f"-o {folder}: holds other weights ({', '.join(others[:3])}), which would be read together with these; "
            "choose an empty folder."
        )


def _refuse_ours(path: Path) -> None:
    """Tell whoever imports a checkpoint of ours that there is nothing to import."""
    if not is_checkpoint(path) or not path.is_file():
        return
    try:
        read_info(path)
    except CheckpointError:
        return
    raise UsageError(
        f"{path}: is a checkpoint of adubench already, which every command takes; --to-official writes the "
        "official form."
    )


def _built(config: dict[str, Any], state: dict[str, Any], path: Path) -> DepthNetwork:
    from adubench.models.zoo import build

    network = build(config)
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        lines = str(error).strip().splitlines()
        raise CheckpointError(
            f"{path}: its weights do not fit the network that they name: {lines[-1].strip()}"
        ) from None
    return network


def _official(network: DepthNetwork, family: str, checkpoint: Path) -> dict[str, Any]:
    from adubench.models.weights.families import FAMILIES

    if family not in FAMILIES:
        raise CheckpointError(f"{checkpoint}: networks of family '{family}' have no official form to export to.")
    if network.output == "disparity":
        from adubench.models.disparity import DisparityNetwork
        from adubench.models.weights.official_networks import export_folder

        assert isinstance(network, DisparityNetwork)
        return dict(export_folder(network))
    module = import_module(FAMILIES[family].partition(":")[0])
    export = getattr(module, "export_state", None)
    if export is None:
        raise CheckpointError(f"{checkpoint}: family '{family}' is imported only; there is no way back yet.")
    found: dict[str, Any] = export(network)
    return found


def _official_helpers(checkpoint: Path, info: CheckpointInfo) -> dict[str, Any]:
    """Return what was trained beside a depth network, under the official names; nothing where there is no such file.

    Raises:
        CheckpointError: the file cannot be read.
    """
    from adubench.models.weights.official_helpers import export_helpers
    from adubench.training.self_supervised_build import helpers_file, read_helpers

    path = helpers_file(checkpoint)
    if not path.is_file() or (info.recipe is None and path.name == POSE):
        return {}
    return dict(export_helpers(read_helpers(path)))


def _read_official_helpers(source: Path, network: DepthNetwork) -> tuple[dict[str, Any], list[str]]:
    """Read the pose and uncertainty networks of an official folder, and say what was found."""
    if network.output != "disparity":
        return {}, []
    from adubench.models.weights.official_files import official_folder
    from adubench.models.weights.official_helpers import import_helpers

    state, notes = import_helpers(official_folder(source))
    kinds = sorted({key.split(".")[0] for key in state})
    return state, [*notes, f"Kept beside it, for training and export: {', '.join(kinds)}."] if kinds else notes


def _save_helpers(output: Path, state: dict[str, Any]) -> None:
    """Store them beside the checkpoint; those of an earlier import of this name would not fit its depth."""
    from safetensors.torch import save

    from adubench.io.atomic import write_bytes
    from adubench.training.self_supervised_build import IMPORTED_HELPERS

    path = output.with_name(f"{output.stem}{IMPORTED_HELPERS}.safetensors")
    if state:
        write_bytes(path, save({key: value.contiguous() for key, value in state.items()}))
    else:
        path.unlink(missing_ok=True)


def _write(path: Path, content: Any) -> None:
    import torch

    from adubench.io.atomic import atomic_path

    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def _digest(path: Path) -> str | dict[str, str]:
    if path.is_dir():
        return {file.relative_to(path).as_posix(): str(_digest(file)) for file in sorted(path.rglob("*.pth"))}
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
