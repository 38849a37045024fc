"""DrivingStereo on disk: modalities indexed by stem, in every folder variant that users have.

Facts: the data set's site (counts, encodings) and public loaders (folder names). Depth maps hold metres * 256 at both
resolutions; disparity maps hold pixels * 256 at half and pixels * 128 at full resolution.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adubench.datasets.frames import FrameKey, drivingstereo_frame
from adubench.datasets.tables import load_table
from adubench.errors import DataError, UsageError
from adubench.io.maps import DepthMap, SparseDepth

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from adubench.datasets.splits import Split

MODALITIES = ("left-image", "right-image", "disparity-map", "depth-map")
WEATHER = ("sunny", "cloudy", "foggy", "rainy")
DEPTH_SCALE = 256.0
DISPARITY_SCALE = {"half": 256.0, "full": 128.0}
_STEM = re.compile(r"^\d{4}(-\d\d){5}_\d{4}(-\d\d){5}-\d{3}$")
_SUFFIXES = (".png", ".jpg", ".jpeg")
_LEVELS = 4


@dataclass(frozen=True, slots=True)
class StereoIndex:
    """The files of one part at one resolution.

    Attributes:
        root: data root.
        part: "train", "test", or a weather name.
        resolution: "half" or "full".
        files: modality -> stem -> path.
        stems: samples, ascending: left image and a depth or disparity map (without any image folder: the maps).
        dropped: modality -> number of stems that have no partner.
    """

    root: Path
    part: str
    resolution: str
    files: dict[str, dict[str, Path]]
    stems: tuple[str, ...]
    dropped: dict[str, int]

    def pool(self) -> tuple[str, ...]:
        """Stems with left image, right image and depth map: the pool of the 7,000/600 rule."""
        sets = [set(self.files[m]) for m in ("left-image", "right-image", "depth-map")]
        return tuple(sorted(set.intersection(*sets)))


def known_sequences(part: str) -> tuple[str, ...]:
    """Name the published sequences of a part ("train", "test" or a weather name)."""
    table = load_table("drivingstereo")
    if part in WEATHER:
        return (str(table["weather"][part]["sequence"]),)
    return tuple(table[f"{part}_sequences"])


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


def _modality_roots(root: Path, part: str) -> Iterator[tuple[str, Path]]:
    """Yield (modality, folder) for a part, whatever parents, hyphens or doubled levels the copy has."""
    weather = part in WEATHER
    wanted = {f"{part}-{m}": m for m in MODALITIES}
    for folder in _folders(root, part):
        inside = weather or folder != root
        for entry in sorted(folder.iterdir()):
            name = _plain(entry.name)
            base = re.sub(r"-(half|full)-size$", "", name)
            modality = wanted.get(base) or (base if inside and base in MODALITIES else None)
            if modality and entry.is_dir():
                yield modality, entry


def _folders(root: Path, part: str) -> list[Path]:
    """List the folders in which the modality folders of a part may lie."""
    if part not in WEATHER:
        return [root, *(p for p in sorted(root.iterdir()) if p.is_dir() and _plain(p.name) in (part, f"{part}ing"))]
    parents = [root, *(p for p in sorted(root.iterdir()) if p.is_dir() and _plain(p.name) == "weather")]
    found = [p for parent in parents for p in sorted(parent.iterdir()) if p.is_dir() and _plain(p.name) == part]
    return [*found, *(p / "data" for p in found if (p / "data").is_dir())]


def _scan(folder: Path, resolution: str) -> Iterator[tuple[str, Path]]:
    """Yield (stem, path) of the files below a modality folder that belong to a resolution."""
    other = "full-size" if resolution == "half" else "half-size"
    if _plain(folder.name).endswith(other):
        return
    marked = _plain(folder.name).endswith("-size")
    for directory, subfolders, names in os.walk(folder, followlinks=True):
        if len(Path(directory).relative_to(folder).parts) > _LEVELS:
            subfolders.clear()
        subfolders[:] = sorted(d for d in subfolders if not _plain(d).endswith(other))
        # A folder without a resolution in its name is half resolution: the only one released for training.
        if resolution == "full" and not marked and "full-size" not in _plain(directory[len(str(folder)) :]):
            continue
        for name in sorted(names):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in _SUFFIXES and not name.startswith("."):
                yield stem, Path(directory) / name


def index_part(root: Path, part: str, resolution: str = "half") -> StereoIndex:
    """Index a part of DrivingStereo by stem.

    Raises:
        UsageError: unknown resolution.
        DataError: no map folder of the part under the root, or two files with one stem in one modality.
    """
    if resolution not in DISPARITY_SCALE:
        raise UsageError(f"DrivingStereo has the resolutions half and full, not '{resolution}'.")
    if not root.is_dir():
        raise DataError(f"data root not found: {root}; give --data-root.")
    files: dict[str, dict[str, Path]] = {modality: {} for modality in MODALITIES}
    for modality, folder in _modality_roots(root, part):
        table = files[modality]
        for stem, path in _scan(folder, resolution):
            if stem in table and table[stem] != path:
                raise DataError(
                    f"DrivingStereo {modality}: two files for '{stem}': {table[stem]} and {path}; remove one."
                )
            table[stem] = path
    if not files["depth-map"] and not files["disparity-map"]:
        raise DataError(_explain_empty(root, part, resolution))
    return _joined(root, part, resolution, files)


def _joined(root: Path, part: str, resolution: str, files: dict[str, dict[str, Path]]) -> StereoIndex:
    maps = set(files["depth-map"]) | set(files["disparity-map"])
    stems = maps & set(files["left-image"]) if files["left-image"] else maps
    if not stems:
        left, depth = min(files["left-image"]), min(maps)
        raise DataError(f"DrivingStereo {part} under {root}: images ('{left}') and maps ('{depth}') share no name.")
    dropped = {m: len(set(table) - stems) for m, table in files.items() if set(table) - stems}
    return StereoIndex(root, part, resolution, files, tuple(sorted(stems)), dropped)


def _explain_empty(root: Path, part: str, resolution: str) -> str:
    expected = f"{part}-depth-map/depth-map-{resolution}-size" if part == "test" else f"{part}-depth-map/<sequence>"
    if part in WEATHER:
        expected = f"{part}/depth-map-{resolution}-size"
    there = ", ".join(p.name for p in sorted(root.iterdir())[:5]) or "nothing"
    return f"no DrivingStereo {part} maps at {resolution} resolution under {root}: expected {expected}; found {there}."


def subset_digest(part: str, stem: str) -> str:
    """SHA-256 that orders the stems for the 7,000/600 rule; it depends on names only."""
    return hashlib.sha256(f"adubench-drivingstereo-v1/{part}/{stem}".encode()).hexdigest()


def adu_subset(part: str, stems: Iterable[str]) -> tuple[str, ...]:
    """Choose adubench's 7,000 training or 600 test stems; all of them if the pool is smaller.

    The subset of the ADU-Depth paper is unpublished: numbers on this one are not comparable with its Table 3.
    """
    take = int(load_table("drivingstereo")["adu_subset"][part]["take"])
    return tuple(sorted(sorted(stems, key=lambda stem: subset_digest(part, stem))[:take]))


def subset_sha256(stems: Iterable[str]) -> str:
    """SHA-256 of the newline-joined stems, for the run record."""
    return hashlib.sha256("\n".join(stems).encode()).hexdigest()


def split_frames(
    root: Path, part: str, resolution: str | None = None
) -> tuple[tuple[FrameKey, ...], bool, tuple[str, ...]]:
    """List the frames of a DrivingStereo split.

    Args:
        root: data root.
        part: "train", "test", "weather.sunny", ..., "adu_train", "adu_test".
        resolution: "half", "full", or None for `default_resolution`.

    Returns:
        The frames, whether they come from published sequences (else no count is expected), and notes.

    Raises:
        DataError: see `index_part`.
    """
    base = part.removeprefix("weather.").removeprefix("adu_")
    index = index_part(root, base, resolution or default_resolution(root, base))
    stems: tuple[str, ...] = index.stems
    notes = [f"{index.dropped[m]} {m} files have no partner" for m in index.dropped]
    known = bool({stem[:19] for stem in stems} & set(known_sequences(base)))
    if part.startswith("adu_"):
        pool = index.pool() or stems
        stems = adu_subset(base, pool)
        notes.append(f"subset_sha256 {subset_sha256(stems)}")
    if base in WEATHER:
        notes.append(f"all frames of '{base}' come from one training sequence: a model trained on the train set saw it")
    odd = [stem for stem in stems if not _STEM.match(stem)]
    if odd:
        notes.append(f"{len(odd)} names are not like DrivingStereo's, first '{odd[0]}'")
    return tuple(drivingstereo_frame(stem) for stem in stems), known, tuple(notes)


def default_resolution(root: Path, part: str) -> str:
    """Choose a resolution: the weather sets are evaluated at full resolution where they hold it, the rest at half."""
    if part not in WEATHER or not root.is_dir():
        return "half"
    full = any(next(_scan(folder, "full"), None) for m, folder in _modality_roots(root, part) if m == "depth-map")
    return "full" if full else "half"


@dataclass(slots=True)
class StereoGroundTruth:
    """Depth maps of DrivingStereo; where only disparity exists, depth = fx * baseline / disparity."""

    frames: tuple[FrameKey, ...]
    root: Path
    resolution: str
    depth: dict[str, Path]
    disparity: dict[str, Path]
    missing: tuple[str, ...] = ()
    kind: str = "DrivingStereo depth PNG"
    _calibrations: dict[str, float] = field(default_factory=dict)

    @property
    def layout(self) -> str:
        """Name the resolution."""
        return f"DrivingStereo, {self.resolution} resolution"

    def paths(self, frame: FrameKey) -> tuple[Path, ...]:
        """Return the depth map of a frame, or its disparity map.

        Raises:
            DataError: the frame has neither.
        """
        path = self.depth.get(frame.stem) or self.disparity.get(frame.stem)
        if path is None:
            raise DataError(
                f"ground truth not found: {frame.stem}.png at {self.resolution} resolution under {self.root}."
            )
        return (path,)

    def read(self, frame: FrameKey) -> SparseDepth:
        """Read the map of a frame."""
        from adubench.io.depth_png import read_depth_map

        (path,) = self.paths(frame)
        if frame.stem in self.depth:
            return SparseDepth.from_map(read_depth_map(path, DEPTH_SCALE))
        disparity = read_depth_map(path, DISPARITY_SCALE[self.resolution]).quantity()
        product = self.focal_baseline(frame)
        # A pixel without disparity has no depth.
        with np.errstate(divide="ignore"):
            depth = np.where(disparity > 0, np.float32(product) / disparity, np.float32(0))
        return SparseDepth.from_map(DepthMap(depth.astype(np.float32), 1.0))

    def focal_baseline(self, frame: FrameKey) -> float:
        """Return fx * baseline in pixel metres at the maps' resolution.

        Raises:
            DataError: the sequence has no calibration.
        """
        if frame.drive not in self._calibrations:
            fx, baseline = focal_and_baseline(self.root, frame.drive, self.resolution)
            self._calibrations[frame.drive] = fx * baseline
        return self._calibrations[frame.drive]


def calibration_path(root: Path, sequence: str, resolution: str) -> Path | None:
    """Find the calibration file of a sequence, or None."""
    for parent in (root, *(p for p in sorted(root.iterdir()) if p.is_dir())):
        for folder in ("calib", "test-calib", "test_calib", "train-calib"):
            for inner in (f"{resolution}-image-calib", f"{resolution}_image_calib", "."):
                path = parent / folder / inner / f"{sequence}.txt"
                if path.is_file():
                    return path
    return None


def focal_and_baseline(root: Path, sequence: str, resolution: str) -> tuple[float, float]:
    """Return fx in pixels and the baseline in metres: |T_103|, as the projection matrix is off at half resolution.

    Raises:
        DataError: no calibration, or a key is missing.
    """
    from adubench.io.kitti_calib import read_calib_file

    path = calibration_path(root, sequence, resolution)
    if path is None:
        raise DataError(
            f"calibration of sequence {sequence} not found under {root}; expected "
            f"calib/{resolution}-image-calib/{sequence}.txt. Disparity maps need it; depth maps do not."
        )
    values = read_calib_file(path)
    if "P_rect_101" not in values or "T_103" not in values:
        raise DataError(f"{path}: no P_rect_101 or T_103 in it; it is no DrivingStereo calibration.")
    return float(np.ravel(values["P_rect_101"])[0]), float(np.linalg.norm(values["T_103"]))


def open_depth(split: Split, root: Path, resolution: str | None = None) -> StereoGroundTruth:
    """Open the depth maps of a DrivingStereo split.

    Raises:
        DataError: see `index_part`; or images of one resolution with maps of the other.
    """
    part = split.name.removeprefix("drivingstereo.").removeprefix("weather.").removeprefix("adu_")
    resolution = resolution or default_resolution(root, part)
    index = index_part(root, part, resolution)
    if index.files["left-image"]:
        check_sizes(index, index.stems[0])
    wanted = {frame.stem for frame in split.frames}
    chosen = {m: {s: p for s, p in index.files[m].items() if s in wanted} for m in ("depth-map", "disparity-map")}
    held = chosen["depth-map"].keys() | chosen["disparity-map"].keys()
    missing = tuple(f"no map of {stem} at {resolution} resolution under {root}" for stem in sorted(wanted - held))
    frames = tuple(frame for frame in split.frames if frame.stem in held)
    return StereoGroundTruth(frames, root, resolution, chosen["depth-map"], chosen["disparity-map"], missing)


def check_sizes(index: StereoIndex, stem: str) -> tuple[int, int]:
    """Compare image and map size of a stem; return (H, W) of the map.

    Raises:
        DataError: they differ: images of one resolution with maps of the other.
    """
    from adubench.io.images import image_size

    image = index.files["left-image"][stem]
    path = index.files["depth-map"].get(stem) or index.files["disparity-map"][stem]
    size, wanted = image_size(path), image_size(image)
    if size != wanted:
        raise DataError(
            f"{path}: {size[1]}x{size[0]} pixels, but its image {image} has {wanted[1]}x{wanted[0]}; half-resolution "
            "images and full-resolution maps are mixed, or one of them was resized."
        )
    return size
