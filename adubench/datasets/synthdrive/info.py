"""What a SynthDrive on disk says about itself: `synthdrive.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adubench.datasets.synthdrive.layouts import DATE, Layout, drive_name, split_of
from adubench.datasets.synthdrive.world import CLASSES, SCENES, is_weak_light
from adubench.errors import DataError, UsageError
from adubench.io.atomic import write_error, write_text

GENERATOR_VERSION = 1
INFO_NAME = "synthdrive.json"


@dataclass(frozen=True, slots=True)
class SynthDriveInfo:
    """What was written.

    Attributes:
        root: the folder. layout: "kitti" or "drivingstereo". seed, size (height, width), moving_cars: as asked for.
        drives: names (KITTI without `_sync`). frames: {drive: number of frames}.
        splits: {"train"|"val"|"test": drives}.
        weak_light: drives in weak light. scenes: {drive: "city"|"residential"|"country"}.
        checksums: {drive: SHA-256 of its files}.
    """

    root: Path
    layout: Layout
    seed: int
    size: tuple[int, int]
    moving_cars: bool
    drives: tuple[str, ...]
    frames: dict[str, int]
    splits: dict[str, tuple[str, ...]]
    weak_light: tuple[str, ...]
    scenes: dict[str, str]
    checksums: dict[str, str]


def read_info(root: str | Path) -> SynthDriveInfo:
    """Read what `write_dataset` wrote about a data set.

    Raises:
        DataError: there is no SynthDrive, or it is not complete.
    """
    path = Path(root) / INFO_NAME
    data = _load(path)
    if data is None:
        raise DataError(
            f"{root} is no SynthDrive data set ({INFO_NAME} is missing): make one with 'adubench data synth'."
        )
    if not data.get("complete"):
        raise DataError(
            f"{path}: the data set is not complete: run the 'adubench data synth' command again to finish it."
        )
    try:
        return _parse(Path(root), data)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise DataError(f"{path}: incomplete ({error!r}): delete the folder and make the data set again.") from None


def _parse(root: Path, data: dict[str, Any]) -> SynthDriveInfo:
    return SynthDriveInfo(
        root,
        data["layout"],
        data["seed"],
        (data["size"][0], data["size"][1]),
        data["moving_cars"],
        tuple(data["drives"]),
        data["frames"],
        {key: tuple(value) for key, value in data["splits"].items()},
        tuple(data["weak_light"]),
        data["scenes"],
        data["checksums"],
    )


def describe(
    drives: int, frames: int, size: tuple[int, int], seed: int, layout: Layout, moving_cars: bool
) -> dict[str, Any]:
    """Everything in the JSON that follows from the parameters."""
    names = {number: drive_name(number, layout) for number in range(1, drives + 1)}
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for number, name in names.items():
        splits[split_of(number)].append(name)
    return {
        "generator": "SynthDrive",
        "generator_version": GENERATOR_VERSION,
        "layout": layout,
        "date": DATE,
        "seed": seed,
        "size": list(size),
        "moving_cars": moving_cars,
        "drives": list(names.values()),
        "frames": dict.fromkeys(names.values(), frames),
        "split_rule": "drive number modulo 4: 2 is test, 3 is val, 0 and 1 are train",
        "splits": splits,
        "weak_light": [name for number, name in names.items() if is_weak_light(number)],
        "scenes": {name: SCENES[(number - 1) % 3] for number, name in names.items()},
        "classes": list(CLASSES),
    }


def write_info(root: Path, head: dict[str, Any], checksums: dict[str, str] | None) -> None:
    """Write the JSON: at the end with the checksums, at the beginning without."""
    data = {**head, "complete": checksums is not None, "checksums": checksums or {}}
    write_text(root / INFO_NAME, json.dumps(data, indent=1) + "\n")


def claim(root: Path, head: dict[str, Any]) -> None:
    """Make sure that the folder is ours to write to, and mark it as begun."""
    path = root / INFO_NAME
    try:
        root.mkdir(parents=True, exist_ok=True)
        occupied = any(root.iterdir())
    except OSError as error:
        raise write_error(root, error) from None
    known = _load(path)
    if known is None:
        if occupied:
            raise UsageError(f"{root} is not empty and no SynthDrive data set: choose an empty or new folder.")
        write_info(root, head, None)
        return
    for key, value in head.items():
        if known.get(key) != value:
            raise UsageError(
                f"{root} holds a SynthDrive of other parameters ({key} differs): "
                "choose a new folder, or delete this one."
            )


def _load(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None when the file does not exist."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}): delete the folder and make the data set again.") from None
    if not isinstance(data, dict):
        raise DataError(f"{path}: is no JSON object: delete the folder and make the data set again.")
    return data
