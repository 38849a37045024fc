"""Official weights into a checkpoint of ours, and a checkpoint back to the official names."""

from __future__ import annotations

import hashlib
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adubench.errors import CheckpointError, UsageError
from adubench.training.checkpoint import CheckpointInfo, load_network, save_checkpoint
from adubench.training.run_folder import POSE

if TYPE_CHECKING:
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

    Returns:
        What was stored; `source["notes"]` are sentences about what was recognised.

    Raises:
        UsageError: unknown family or data set.
        CheckpointError: unreadable, unsafe, or not of the family.
    """
    from adubench.models.weights.families import import_weights

    found = import_weights(family, path, max_depth=max_depth, dataset=dataset)
    network = _built(found.config, found.state, path)
    source = {
        "official": path.name,
        "sha256": _digest(path),
        "importer": family,
        "dataset": dataset,
        "notes": list(found.notes),
    }
    info = CheckpointInfo(model=network.config, role="imported", source=source)
    save_checkpoint(output, network, info=info)
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
        UsageError: the checkpoint is of another family.
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
    else:
        files = {output: content}
    for file, part in files.items():
        _write(file, part)
    return list(files)


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
    """Return the pose and uncertainty networks that were trained beside a depth network, under their official names.

    They lie in `pose-last.safetensors` beside the checkpoint; the recipe in the checkpoint says what they are. Imported
    checkpoints have none.

    Raises:
        CheckpointError: the file is not what the recipe says.
    """
    path = checkpoint.parent / POSE
    if info.recipe is None or not path.is_file():
        return {}
    from adubench.models.weights.official_files import export_state
    from adubench.models.weights.official_networks import export_pose
    from adubench.training.self_supervised_build import read_helpers

    helpers = read_helpers(path, info.recipe)
    found: dict[str, Any] = dict(export_pose(helpers.pose)) if helpers.pose is not None else {}
    if helpers.uncertainty is not None:
        found["ph_uncert_enc"] = export_state(helpers.uncertainty.ph_uncert_enc)
        found["ph_uncert_dec"] = export_state(helpers.uncertainty.ph_uncert_dec)
    return found


def _write(path: Path, content: Any) -> None:
    import torch

    from adubench.io.atomic import atomic_path

    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def _digest(path: Path) -> str | dict[str, str]:
    if path.is_dir():
        return {file.name: str(_digest(file)) for file in sorted(path.glob("*.pth"))}
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
