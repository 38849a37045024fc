"""Sources of ground truth: one small, picklable object per kind, with the frames it has and a way to read them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from adubench.datasets.frames import FrameKey, frame_from_stem
from adubench.errors import DataError, UsageError
from adubench.io.maps import SparseDepth

if TYPE_CHECKING:
    from collections.abc import Callable

    from adubench.datasets.kitti import ImprovedMaps, KittiRaw
    from adubench.datasets.splits import Split
    from adubench.io.collection import MapCollection
    from adubench.io.kitti_calib import KittiCalibration

#: How a requested kind starts the kind of a source.
_KINDS = {"improved": "improved maps", "official": "improved maps", "raw": "raw scans", "depth": "depth maps"}
_ARCHIVES = (".npz", ".npy", ".h5", ".hdf5", ".zip", ".png")


class GroundTruth(Protocol):
    """A source of ground truth.

    Attributes:
        frames: the frames that have ground truth, in the order of the split.
        kind: what the numbers are ("improved PNG", "raw scans", ...), for the banner and the provenance.
        layout: where the files lie, for the provenance.
        missing: sentences about frames that should have ground truth and have none; empty when complete.
    """

    @property
    def frames(self) -> tuple[FrameKey, ...]:
        """The frames."""
        ...

    @property
    def kind(self) -> str:
        """What the numbers are."""
        ...

    @property
    def layout(self) -> str:
        """Where the files lie."""
        ...

    @property
    def missing(self) -> tuple[str, ...]:
        """What is missing, one sentence per frame."""
        ...

    def read(self, frame: FrameKey) -> SparseDepth:
        """Read the ground truth of a frame; raises DataError naming the file."""
        ...

    def paths(self, frame: FrameKey) -> tuple[Path, ...]:
        """Name the files that the ground truth of a frame is read from."""
        ...


@dataclass(slots=True)
class ImprovedGroundTruth:
    """Improved maps of KITTI depth, or the accumulated maps of SynthDrive, in any of the layouts A to D."""

    frames: tuple[FrameKey, ...]
    maps: ImprovedMaps
    raw: KittiRaw | None = None
    missing: tuple[str, ...] = ()
    kind: str = "improved PNG"

    @property
    def layout(self) -> str:
        """Name the layout in use."""
        from adubench.datasets.kitti import LAYOUT_NAMES

        return LAYOUT_NAMES.get(self.maps.layout, "unknown")

    def paths(self, frame: FrameKey) -> tuple[Path, ...]:
        """Return the PNG of a frame."""
        return (self.maps.path(frame),)

    def read(self, frame: FrameKey) -> SparseDepth:
        """Decode the PNG of a frame."""
        return _read_png(self.maps.path(frame))

    def focal_baseline(self, frame: FrameKey) -> float | None:
        """Return fx * baseline in pixel metres, for predictions in pixel disparity."""
        return _focal_baseline(self.raw, frame)


@dataclass(slots=True)
class ScanGroundTruth:
    """Single Velodyne scans, projected the way Monodepth2's `generate_depth_map` does with `vel_depth=True`."""

    frames: tuple[FrameKey, ...]
    raw: KittiRaw
    velodyne_x_depth: bool = True
    missing: tuple[str, ...] = ()
    kind: str = "raw scans (velodyne x)"
    layout: str = "KITTI raw"
    _calibrations: dict[str, KittiCalibration] = field(default_factory=dict)

    def paths(self, frame: FrameKey) -> tuple[Path, ...]:
        """Return the scan and the two calibration files."""
        return (self.raw.scan(frame), *self.raw.calibration_files(frame.date))

    def read(self, frame: FrameKey) -> SparseDepth:
        """Project the scan of a frame."""
        from adubench.io.velodyne import project_scan, read_scan

        scan = self.raw.scan(frame)
        if frame.date not in self._calibrations:
            self._calibrations[frame.date] = self.raw.calibration(frame.date)
        calibration = self._calibrations[frame.date]
        return project_scan(read_scan(scan), calibration, camera=frame.camera, velodyne_x_depth=self.velodyne_x_depth)

    def focal_baseline(self, frame: FrameKey) -> float | None:
        """Return fx * baseline in pixel metres, for predictions in pixel disparity."""
        return _focal_baseline(self.raw, frame)


@dataclass(slots=True)
class SelectionGroundTruth:
    """The cropped maps of the devkit's val_selection."""

    frames: tuple[FrameKey, ...]
    root: Path
    missing: tuple[str, ...] = ()
    kind: str = "improved PNG, cropped"
    layout: str = "val_selection_cropped"

    def paths(self, frame: FrameKey) -> tuple[Path, ...]:
        """Return the PNG of a frame."""
        from adubench.datasets.kitti import selection_path

        return (selection_path(self.root, frame),)

    def read(self, frame: FrameKey) -> SparseDepth:
        """Decode the PNG of a frame."""
        return _read_png(self.paths(frame)[0])

    def focal_baseline(self, frame: FrameKey) -> float | None:
        """Return fx * baseline in pixel metres; cropping does not change it."""
        return _focal_baseline(None, frame)


class FolderGroundTruth:
    """Whatever `--gt` names without a split: a folder, zip, `.npz`, HDF5 (own pack or foreign), `.npy` or one PNG.

    Frames are named by their relative stem; KITTI drive, camera and number are read from the name where it has them.

    Raises:
        DataError: nothing there, nothing usable in it, or two files of one name.
    """

    def __init__(self, root: str | Path, *, scale: float = 256.0) -> None:
        self.root = Path(root)
        self._pack: Any = None
        self.missing: tuple[str, ...] = ()
        self.is_pack = _is_pack(self.root)
        if self.is_pack:
            pack = self._open_pack()
            self.collection: MapCollection | None = None
            self.names: tuple[str, ...] = tuple(pack.names)
            self.kind, self.layout = "packed", "HDF5 pack"
        else:
            from adubench.io.collection import open_maps

            self.collection = open_maps(self.root, what="ground truth", png_scale=scale)
            self.names = self.collection.names
            self.kind = "folder" if self.root.is_dir() else f"{self.root.suffix.lower()} file"
            self.layout = "relative stems"
        self.frames: tuple[FrameKey, ...] = tuple(frame_from_stem(name) for name in self.names)

    @property
    def stacked(self) -> bool:
        """Whether it is one array (N, H, W), whose maps are known by position only."""
        return self.collection is not None and self.collection.stacked

    @property
    def single(self) -> bool:
        """Whether it is one map in a file of its own."""
        return self.collection is not None and self.collection.single

    def first(self) -> str:
        """Key of the pixel selection that a pack stores first; empty for none and for anything but packs."""
        return str(self._open_pack().attrs["protocol_first"]) if self.is_pack else ""

    def read_first(self, frame: FrameKey, *, positions: bool = True) -> SparseDepth:
        """Read the pixels of that selection alone."""
        found: SparseDepth = self._open_pack().read_first(frame.stem, positions=positions)
        return found

    def signature(self, frame: FrameKey) -> tuple[int, int, int]:
        """Return the signature of a map; packs know it without reading pixels."""
        if not self.is_pack:
            return self.read(frame).signature()
        known: tuple[int, int, int] = self._open_pack().signature(frame.stem)
        return known

    @property
    def pack(self) -> Any:
        """The open ground-truth pack; None for anything else."""
        return self._open_pack() if self.is_pack else None

    def __getstate__(self) -> dict[str, Any]:
        """Drop the open pack: every process opens its own."""
        return self.__dict__ | {"_pack": None}

    def paths(self, frame: FrameKey) -> tuple[Path, ...]:
        """Return the file of a frame; the whole file when it holds all frames."""
        if self.root.is_dir() and self.collection is not None:
            return (Path(self.collection.where(frame.stem)),)
        return (self.root,)

    def read(self, frame: FrameKey) -> SparseDepth:
        """Read the map of a frame."""
        return self.read_name(frame.stem)

    def read_name(self, name: str) -> SparseDepth:
        """Read a map by its name in the source."""
        if self.collection is None:
            found: SparseDepth = self._open_pack().read(name)
            return found
        return SparseDepth.from_map(self.collection.read(name))

    def _open_pack(self) -> Any:
        if self._pack is None:
            from adubench.io.packed import GroundTruthPack, open_pack

            pack = open_pack(self.root)
            if not isinstance(pack, GroundTruthPack):
                raise DataError(f"{self.root} is a pack of predictions, not of ground truth: give it as SOURCE.")
            self._pack = pack
        return self._pack


@dataclass(slots=True)
class ListedGroundTruth:
    """The maps that a list file names, below a root; NYU's (`sync_depth_*`) hold millimetres."""

    frames: tuple[FrameKey, ...]
    files: dict[FrameKey, Path]
    scale: float
    missing: tuple[str, ...] = ()
    kind: str = "depth maps of a list file"
    layout: str = "list file"

    def paths(self, frame: FrameKey) -> tuple[Path, ...]:
        """Return the file of a frame."""
        return (self.files[frame],)

    def read(self, frame: FrameKey) -> SparseDepth:
        """Read the map of a frame."""
        from adubench.io.depth_png import read_depth_map

        path = self.files[frame]
        return SparseDepth.from_map(read_depth_map(path, 1000.0 if path.name.startswith("sync_depth_") else self.scale))


@dataclass(slots=True)
class NamedGroundTruth:
    """The frames of a split, looked up by any of their accepted names in a folder, archive or pack."""

    frames: tuple[FrameKey, ...]
    source: FolderGroundTruth
    names: dict[FrameKey, str]
    missing: tuple[str, ...] = ()
    kind: str = "by name"
    layout: str = "by name"

    def paths(self, frame: FrameKey) -> tuple[Path, ...]:
        """Return the file of a frame."""
        if self.source.root.is_dir() and self.source.collection is not None:
            return (Path(self.source.collection.where(self._name(frame))),)
        return (self.source.root,)

    def read(self, frame: FrameKey) -> SparseDepth:
        """Read the map of a frame."""
        return self.source.read_name(self._name(frame))

    def _name(self, frame: FrameKey) -> str:
        if frame not in self.names:
            raise DataError(f"ground truth not found for frame '{frame.name}' in {self.source.root}.")
        return self.names[frame]


def by_name(split: Split, source: FolderGroundTruth, kind: str) -> NamedGroundTruth:
    """Join the frames of a split to the names of a source; a stacked array is taken in official order.

    Args:
        split: the split.
        source: an open folder, archive, array file or pack.
        kind: what the maps are meant to be; it starts the `kind` of the result.

    Raises:
        DataError: no frame has a map there, or a stacked array has another length than the split.
    """
    frames, label = split.frames, f"{_KINDS.get(kind, kind)} ({source.kind})"
    kept = tuple(frame for frame in frames if frame not in split.no_gt)
    if source.stacked:
        order = {len(frames): frames, len(kept): kept}.get(len(source.names))
        if order is None:
            raise DataError(
                f"{source.root}: {len(source.names)} maps in one array, but the split has {len(frames)} frames; an "
                "array without names must have one map per frame in official order."
            )
        names = dict(zip(order, source.names, strict=True))
    else:
        held = dict(zip(source.names, source.names, strict=True))
        for name in source.names:
            for folder in ("train/", "val/", "depth_benchmark/"):
                if name.startswith(folder):
                    held.setdefault(name.removeprefix(folder), name)
        names = {f: held[alias] for f in frames if (alias := next((a for a in f.aliases() if a in held), None))}
    if not names:
        raise DataError(
            f"no frame of the split has ground truth in {source.root}; it holds names like '{source.names[0]}', "
            f"expected names like '{frames[0].name}'."
        )
    wanted = frames if kind == "raw" else kept
    missing = tuple(f"{source.root} has no map for frame '{f.name}'" for f in wanted if f not in names)
    return NamedGroundTruth(tuple(f for f in wanted if f in names), source, names, missing, label)


def open_ground_truth(
    split: Split | None,
    gt_root: str | Path | None,
    data_root: str | Path | None,
    kind: str = "improved",
    *,
    png_scale: float = 256.0,
    resolution: str | None = None,
) -> GroundTruth:
    """Open the ground truth of a split, or of an explicit `--gt`.

    Args:
        split: the split; None pairs by relative stem below `gt_root`.
        gt_root: `--gt`: a root in layouts A to D, or a folder or file with one map per frame name.
        data_root: `--data-root`: KITTI raw (with scans and calibration), DrivingStereo, SynthDrive, NYU.
        kind: "improved", "raw" (projected scans), "official" (val_selection) or "depth" (DrivingStereo, NYU).
        png_scale: metres = code / png_scale, for `--gt` without a split.
        resolution: "half", "full" or None (full for the weather sets where it exists), for DrivingStereo.

    Raises:
        UsageError: neither root was given.
        DataError: nothing usable at the root; names the likely cause.
    """
    if split is None:
        if gt_root is None:
            raise UsageError("no ground truth: give --gt PATH, or --split NAME with --data-root DIR.")
        return FolderGroundTruth(gt_root, scale=png_scale)
    root = gt_root if gt_root is not None else data_root
    if root is None:
        raise UsageError(
            f"split '{split.name}' needs its ground truth: give --data-root DIR (or ADUBENCH_DATA_ROOT) or --gt PATH."
        )
    path = Path(root)
    if path.is_file() and path.suffix.lower() in _ARCHIVES:
        return by_name(split, FolderGroundTruth(path, scale=png_scale), kind)
    if not path.is_dir():
        raise DataError(f"ground-truth root not found: {path}; check --gt and --data-root.")
    if split.dataset == "drivingstereo":
        from adubench.datasets.driving_stereo import open_depth

        return open_depth(split, path, resolution)
    if split.dataset == "nyu":
        from adubench.datasets.nyu import NyuGroundTruth

        return NyuGroundTruth.open(path, split.name)
    return _open_kitti(split, path, Path(data_root) if data_root is not None else path, kind, png_scale)


def _open_kitti(split: Split, path: Path, data_root: Path, kind: str, png_scale: float) -> GroundTruth:
    from adubench.datasets.kitti import KittiRaw, selection_path

    selection = split.name == "kitti_official.val_selection"
    if split.name in ("kitti_official.test", "kitti_official.completion_test"):
        raise DataError(f"split '{split.name}' has no public ground truth: use adubench export-submission.")
    if split.gt_paths:
        return _listed(split, path, png_scale)
    if split.dataset == "folder" or (
        not selection and kind == "raw" and path != data_root and _holds_maps(split, path)
    ):
        return by_name(split, FolderGroundTruth(path, scale=png_scale), kind)
    if kind == "raw" and not selection:
        return _scans(split, KittiRaw(data_root))
    if selection or kind == "official":
        found, missing = _existing(split.frames, lambda frame: selection_path(path, frame))
        if found:
            return SelectionGroundTruth(found, path, missing)
        if selection and not _holds_maps(split, path):
            raise DataError(missing[0])
    return _improved(split, path, data_root, png_scale)


def _listed(split: Split, root: Path, scale: float) -> ListedGroundTruth:
    files = {frame: root / name for frame, name in split.gt_paths.items()}

    def locate(frame: FrameKey) -> Path:
        if not files[frame].is_file():
            raise DataError(f"ground truth not found: {files[frame]}, named by {split.name}; check --gt.")
        return files[frame]

    found, missing = _existing(tuple(frame for frame in split.frames if frame in files), locate)
    if not found:
        raise DataError(missing[0])
    return ListedGroundTruth(found, files, scale, missing)


def _scans(split: Split, raw: KittiRaw) -> ScanGroundTruth:
    found, missing = _existing(split.frames, raw.scan)
    if not found:
        raise DataError(missing[0])
    for date in dict.fromkeys(frame.date for frame in found):
        raw.calibration_files(date)
    return ScanGroundTruth(found, raw, missing=missing)


def _improved(split: Split, path: Path, data_root: Path, png_scale: float) -> GroundTruth:
    from adubench.datasets.kitti import ImprovedMaps, KittiRaw

    maps = ImprovedMaps(path)
    with_map = tuple(frame for frame in split.frames if frame not in split.no_gt)
    if maps.probe(tuple(dict.fromkeys(frame.drive for frame in with_map))):
        found, missing = _existing(with_map, maps.path)
        if found:
            return ImprovedGroundTruth(found, maps, KittiRaw(data_root), missing)
        raise DataError(missing[0])
    if _holds_maps(split, path):
        return by_name(split, FolderGroundTruth(path, scale=png_scale), "improved")
    raise DataError(maps.explain_missing((with_map or split.frames)[0]))


def _existing(
    frames: tuple[FrameKey, ...], locate: Callable[[FrameKey], Path]
) -> tuple[tuple[FrameKey, ...], tuple[str, ...]]:
    """Separate the frames whose file exists from sentences about the others."""
    found, missing = [], []
    for frame in frames:
        try:
            locate(frame)
        except DataError as error:
            missing.append(str(error))
        else:
            found.append(frame)
    return tuple(found), tuple(missing)


def _focal_baseline(raw: KittiRaw | None, frame: FrameKey) -> float | None:
    """Return fx * baseline from the calibration file, else from the constants of the date, else None."""
    from adubench.datasets.kitti import date_facts

    facts = date_facts().get(frame.date)
    if raw is not None and (raw.root / frame.date / "calib_cam_to_cam.txt").is_file():
        facts = raw.intrinsics(frame.date)[0]
    return facts.fx * facts.baseline_m if facts is not None and facts.baseline_m is not None else None


def _holds_maps(split: Split, path: Path) -> bool:
    """Say whether a folder has a map named by an accepted name of a frame of the split (looked up, not listed)."""
    step = max(1, len(split.frames) // 50)
    return any(
        (path / f"{alias}{suffix}").is_file()
        for frame in split.frames[::step]
        for alias in frame.aliases()
        for suffix in (".png", ".npy")
    )


def _is_pack(path: Path) -> bool:
    if path.suffix.lower() not in (".h5", ".hdf5") or not path.is_file():
        return False
    from adubench.io.packed import is_pack

    return is_pack(path)


def _read_png(path: Path) -> SparseDepth:
    from adubench.io.depth_png import read_depth_map

    return SparseDepth.from_map(read_depth_map(path))
