"""Where KITTI's files lie: raw recordings, improved maps in four layouts, the depth_selection folders.

Facts: KITTI raw data development kit; KITTI depth devkit readme; the folder layouts of BTS, NeWCRFs, Monodepth2 and
monodepth_benchmark. Every variant loads without configuration; what was found is recorded.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from adubench.datasets.frames import FrameKey, kitti_frame
from adubench.datasets.kitti_splits import MARGIN, official_val_drives
from adubench.datasets.tables import load_table
from adubench.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from adubench.io.kitti_calib import KittiCalibration

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")

#: Layout letter -> folders of a drive below the ground-truth root.
LAYOUTS: dict[str, tuple[str, ...]] = {
    "A": ("train/{drive}", "val/{drive}"),
    "B": ("{drive}",),
    "C": ("{date}/{drive}",),
    "D": ("depth_benchmark/{date}/{drive}",),
}
LAYOUT_NAMES = {
    "A": "A (train/ and val/ of the archive)",
    "B": "B (flat)",
    "C": "C (merged into raw)",
    "D": "D (by date)",
}


class DateFacts(NamedTuple):
    """Constants of a recording date: size of the rectified colour images and intrinsics in pixels."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    baseline_m: float | None


@cache
def date_facts() -> dict[str, DateFacts]:
    """The five recording dates and their constants."""
    out = {}
    for date, entry in load_table("kitti_drives")["dates"].items():
        width, height = entry["size"]
        values = [entry[key] for key in ("fx", "fy", "cx", "cy", "baseline_m")]
        out[date] = DateFacts(width, height, *values)
    return out


@dataclass(slots=True)
class KittiRaw:
    """Files of KITTI raw below a root, with all folder variants that users have.

    Attributes:
        root: the folder that holds the date folders.
        extensions: drive -> image extension found last, for the run record.
    """

    root: Path
    extensions: dict[str, str] = field(default_factory=dict)

    def drive_dir(self, drive: str) -> Path:
        """Find `<date>/<drive>_sync`, or the same without `_sync`.

        Raises:
            DataError: not there; says which dates are and what shape is expected.
        """
        for name in (f"{drive}_sync", drive):
            folder = self.root / drive[:10] / name
            if folder.is_dir():
                return folder
        raise DataError(self.explain_missing(drive))

    def image(self, frame: FrameKey, extension: str | None = None) -> Path:
        """Find the colour image of a frame: the wanted extension, then the one used last in the drive, then the rest.

        Raises:
            DataError: no such image; lists the extensions tried.
        """
        folder = self.drive_dir(frame.drive) / f"image_0{frame.camera}"
        order = [e for e in (extension, self.extensions.get(frame.drive), *IMAGE_SUFFIXES) if e]
        for suffix in dict.fromkeys(order):
            for parent in (folder / "data", folder):
                path = parent / f"{frame.index:010d}{suffix}"
                if path.is_file():
                    self.extensions[frame.drive] = suffix
                    return path
        tried = ", ".join(dict.fromkeys(order))
        raise DataError(f"image not found: {folder / 'data' / f'{frame.index:010d}'} (extensions tried: {tried}).")

    def scan(self, frame: FrameKey) -> Path:
        """Find the Velodyne scan of a frame.

        Raises:
            DataError: no such file.
        """
        folder = self.drive_dir(frame.drive) / "velodyne_points"
        for parent in (folder / "data", folder):
            path = parent / f"{frame.index:010d}.bin"
            if path.is_file():
                return path
        raise DataError(
            f"Velodyne scan not found: {folder / 'data' / f'{frame.index:010d}.bin'}; the raw archive of the drive "
            "holds it (projected ground truth needs it), or use improved maps with --protocol kitti-eigen."
        )

    def calibration_files(self, date: str) -> tuple[Path, Path]:
        """Return the two calibration files of a date.

        Raises:
            DataError: one is missing.
        """
        pair = (self.root / date / "calib_cam_to_cam.txt", self.root / date / "calib_velo_to_cam.txt")
        for path in pair:
            if not path.is_file():
                raise DataError(
                    f"calibration not found: {path}; unpack {date}_calib.zip of KITTI raw into {self.root}. "
                    "Projected scans need the file of the date; there is no substitute."
                )
        return pair

    def calibration(self, date: str) -> KittiCalibration:
        """Read the calibration of a date.

        Raises:
            DataError: a file is missing or malformed.
        """
        from adubench.io.kitti_calib import read_calibration

        return read_calibration(self.calibration_files(date)[0].parent)

    def intrinsics(self, date: str) -> tuple[DateFacts, str]:
        """Return size and intrinsics of a date and where they come from: "file" or "built-in".

        Raises:
            DataError: no file, and the date is none of KITTI's.
        """
        path = self.root / date / "calib_cam_to_cam.txt"
        if path.is_file() and (path.parent / "calib_velo_to_cam.txt").is_file():
            c = self.calibration(date)
            width, height = (int(v) for v in c.S_rect_02)
            return DateFacts(width, height, c.fx, c.fy, c.cx, c.cy, c.baseline_m), "file"
        facts = date_facts().get(date)
        if facts is None:
            raise DataError(f"calibration not found: {path}, and there are no constants for the date {date}.")
        warnings.warn(f"calibration not found: {path}; using the built-in constants of {date}.", stacklevel=2)
        return facts, "built-in"

    def explain_missing(self, drive: str) -> str:
        """Say why a drive cannot be found, from what lies at the root."""
        expected = f"expected {self.root / drive[:10] / (drive + '_sync')}"
        if not self.root.is_dir():
            return f"data root not found: {self.root}."
        dates = sorted(
            p.name for p in self.root.iterdir() if p.is_dir() and p.name[:4].isdigit() and p.name[4:5] == "_"
        )
        if any("_drive_" in name for name in dates):
            return f"{self.root} is one level too deep ({dates[0]} is a drive); {expected}."
        if dates:
            return f"drive {drive} not found under {self.root} (dates there: {', '.join(dates)}); {expected}."
        below = [p.name for p in self.root.iterdir() if p.is_dir() and list(p.glob("????_??_??"))[:1]]
        hint = f"; {self.root / below[0]} holds date folders, so it may be the root you mean" if below else ""
        return f"no date folder (like 2011_09_26) under {self.root}{hint}; {expected}."


def drive_folders(root: Path, drive: str, layouts: Iterable[str] = LAYOUTS) -> list[tuple[str, Path]]:
    """List (layout, `proj_depth` folder) of a drive for every layout in which it exists."""
    found = []
    for letter in layouts:
        for pattern in LAYOUTS[letter]:
            for name in (f"{drive}_sync", drive):
                folder = root / pattern.format(date=drive[:10], drive=name) / "proj_depth"
                if folder.is_dir():
                    found.append((letter, folder))
    return found


@dataclass(slots=True)
class ImprovedMaps:
    """Improved ground truth (`data_depth_annotated`) below a root; the layout is found once and kept.

    Attributes:
        root: the ground-truth root, or the raw root when the maps are merged into it.
        kind: "groundtruth" or "velodyne_raw" (same naming, one sparse scan).
        layout: "A" to "D"; "" until a drive was found.
    """

    root: Path
    kind: str = "groundtruth"
    layout: str = ""
    _folders: dict[str, list[Path]] = field(default_factory=dict)

    def probe(self, drives: Sequence[str]) -> str:
        """Find the layout with the first of the drives that has maps; "" when none has.

        Raises:
            DataError: the root is not a folder.
        """
        if not self.root.is_dir():
            raise DataError(f"ground-truth root not found: {self.root}; give --gt or --data-root.")
        for drive in drives:
            found = [letter for letter, folder in drive_folders(self.root, drive) if (folder / self.kind).is_dir()]
            if found:
                self.layout = found[0]
                break
        return self.layout

    def find(self, frame: FrameKey) -> Path | None:
        """Return the map of a frame, or None: the run's layout first, the others once for the drive."""
        for folder in self.folders(frame.drive):
            path = folder / f"image_0{frame.camera}" / f"{frame.index:010d}.png"
            if path.is_file():
                return path
        return None

    def folders(self, drive: str) -> list[Path]:
        """List the map folders of a drive, the run's layout first; looked up once."""
        folders = self._folders.get(drive)
        if folders is None:
            order = [self.layout, *(letter for letter in LAYOUTS if letter != self.layout)] if self.layout else LAYOUTS
            folders = [folder / self.kind for _, folder in drive_folders(self.root, drive, order)]
            self._folders[drive] = folders
        return folders

    def path(self, frame: FrameKey) -> Path:
        """Return the map of a frame.

        Raises:
            DataError: no map; says in which layouts was searched and the likely cause.
        """
        path = self.find(frame)
        if path is None:
            raise DataError(self.explain_missing(frame))
        return path

    def explain_missing(self, frame: FrameKey) -> str:
        """Say what is missing and why it probably is."""
        folders = self._folders.get(frame.drive)
        if folders:
            path = folders[0] / f"image_0{frame.camera}" / f"{frame.index:010d}.png"
            hint = "the unpacked archive is incomplete, or the frame number is wrong"
            if frame.index < MARGIN:
                hint = "the first and last five frames of a drive have no improved map"
            return f"ground truth not found: {path}; {hint}."
        return f"ground truth not found for {frame.drive} in layouts A, B, C, D under {self.root}; {self.hint(frame)}."

    def hint(self, frame: FrameKey) -> str:
        """Name the likely cause of a missing drive."""
        if self.root.name in ("train", "val"):
            return f"{self.root} is one part of the archive: give the folder above it, which holds train/ and val/"
        if frame.drive in official_val_drives():
            return (
                "it is a drive of the official validation part, so its maps are in val/ of data_depth_annotated: "
                "unpack val/ too, not only train/"
            )
        return f"expected for example {self.root}/train/{frame.drive}_sync/proj_depth/groundtruth; check --gt"


def maps_on_disk(root: str | Path, drive: str) -> list[FrameKey]:
    """List the frames of a drive that have an improved map, both cameras."""
    out = {
        kitti_frame(drive, int(path.stem), camera)
        for _, folder in drive_folders(Path(root), drive)
        for camera in (2, 3)
        for path in (folder / "groundtruth" / f"image_0{camera}").glob("*.png")
        if path.stem.isdigit()
    }
    return sorted(out)


SELECTION_ROOTS = (
    "depth_selection/val_selection_cropped",
    "val_selection_cropped",
    "data_depth_selection/depth_selection/val_selection_cropped",
    ".",
)


def selection_path(root: Path, frame: FrameKey, folder: str = "groundtruth_depth", suffix: str = ".png") -> Path:
    """Find a file of the devkit's val_selection below a root (the unpacked archive, or its inner folders).

    Args:
        root: any of the levels of the archive, or the folder of the files itself.
        frame: KITTI key.
        folder: "image", "groundtruth_depth", "velodyne_raw" or "intrinsics".
        suffix: ".txt" for intrinsics.

    Raises:
        DataError: not there; the image folder's files are named `_sync_image_`, whatever the folder's readme prints.
    """
    label = "image" if folder in ("image", "intrinsics") else folder
    name = f"{frame.drive}_sync_{label}_{frame.index:010d}_image_0{frame.camera}{suffix}"
    for base in SELECTION_ROOTS:
        for path in (root / base / folder / name, root / base / name):
            if path.is_file():
                return path
    raise DataError(
        f"ground truth not found: {name} under {root}; expected {root / SELECTION_ROOTS[0] / folder}. Unpack "
        "data_depth_selection.zip there, or give its folder with --gt."
    )


def synthdrive_frames(
    root: Path, part: str, *, allow_empty: bool = False
) -> tuple[tuple[FrameKey, ...], frozenset[FrameKey]]:
    """List the left frames of a SynthDrive part and those of them without accumulated ground truth.

    Raises:
        DataError: `synthdrive.json` is missing, malformed or says that the generation did not finish, or the part has
            no drive.
    """
    path = root / "synthdrive.json"
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        drives = [str(drive).removesuffix("_sync") for drive in table.get("splits", table)[part]]
        counts = {str(d).removesuffix("_sync"): int(n) for d, n in table["frames"].items()}
        frames = tuple(kitti_frame(d, i) for d in sorted(drives) for i in range(counts[d]))
    except FileNotFoundError:
        raise DataError(f"{path} not found: {root} is no SynthDrive root; make one with adubench data synth.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: not a SynthDrive index ({error}); make the data again: adubench data synth."
        ) from None
    if not table.get("complete", True):
        raise DataError(f"{path}: the generation was interrupted; run the same adubench data synth again to finish it.")
    if table.get("layout", "kitti") != "kitti":
        raise DataError(f"{root} is a SynthDrive in DrivingStereo's layout: use --split drivingstereo.")
    if not frames and not allow_empty:
        raise DataError(f"{path}: no {part} drives; make more drives with adubench data synth (three have every part).")
    missing = frozenset(f for f in frames if not MARGIN <= f.index < counts[f.drive] - MARGIN)
    return frames, missing
