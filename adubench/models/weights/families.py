"""The table of importers: `adubench import-weights FAMILY PATH`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from adubench.errors import CheckpointError, UsageError, unknown_name

if TYPE_CHECKING:
    from pathlib import Path

    from adubench.models.weights import Imported

# name on the command line -> module with `import_weights(path, *, max_depth, dataset) -> Imported` and
# `detect(source) -> bool`, where source is the folder's path, or what `load_foreign` returned for a file.
FAMILIES: dict[str, str] = {
    "newcrfs": "adubench.models.weights.newcrfs",
    "monodepth2": "adubench.models.weights.folders:monodepth2",
    "hr-depth": "adubench.models.weights.folders:hr-depth",
    "hr-depth-lite": "adubench.models.weights.folders:hr-depth-lite",
    "diffnet": "adubench.models.weights.folders:diffnet",
    "sub-depth": "adubench.models.weights.folders:sub-depth",
    "adabins": "adubench.models.weights.adabins",
    "bts": "adubench.models.weights.bts",
    "tie-kd": "adubench.models.weights.tie_kd",
}
DATASETS = ("kitti", "nyu")


def import_weights(family: str, path: Path, *, max_depth: float | None = None, dataset: str = "kitti") -> Imported:
    """Read a foreign checkpoint.

    Args:
        family: a name of `FAMILIES`, or "auto" to find out.
        path: the checkpoint file, or the folder of families that store several files.
        max_depth: metres at which the network's output saturates, None for the data set's usual value.
        dataset: "kitti" or "nyu", what it was trained on.

    Raises:
        UsageError: unknown family or data set.
        CheckpointError: missing, unreadable, unsafe, or not a checkpoint of that family.
    """
    if dataset not in DATASETS:
        raise unknown_name("data set", dataset, DATASETS)
    if max_depth is not None and not 0 < max_depth < float("inf"):
        raise UsageError(f"--max-depth is {max_depth:g}: it takes a number of metres above 0.")
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint {path}.")
    name = detect(path) if family == "auto" else family
    if name not in FAMILIES:
        raise unknown_name("weight family", name, [*FAMILIES, "auto"])
    module, extra = _importer(name)
    return cast("Imported", module.import_weights(path, max_depth=max_depth, dataset=dataset, **extra))


def detect(path: Path) -> str:
    """Name the family of a checkpoint file or folder.

    Raises:
        CheckpointError: unreadable, or no family recognises it.
    """
    from adubench.models.weights.safe_load import load_foreign

    paired = path.name in ("encoder.pth", "depth.pth") and all(
        (path.parent / name).is_file() for name in ("encoder.pth", "depth.pth")
    )
    # a ResNet encoder alone fits several families: the decoder beside it decides
    source = path.parent if paired else path if path.is_dir() else load_foreign(path)
    for name in FAMILIES:
        module, extra = _importer(name)
        if module.detect(source, **extra):
            return name
    if path.is_dir():
        from adubench.models.weights.official_files import official_folder

        official_folder(path)  # says which of its files is missing
    raise CheckpointError(f"{path} is a checkpoint of none of the families {', '.join(FAMILIES)}.")


def _importer(name: str) -> tuple[Any, dict[str, str]]:
    """Import the module of a family; a module that serves several is told which one it is."""
    module, _, member = FAMILIES[name].partition(":")
    return import_module(module), ({"family": member} if member else {})
