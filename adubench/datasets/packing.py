"""Pack depth maps into HDF5, unpack them, project scans: the work behind `adubench data pack`."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from adubench.datasets.frames import frame_from_stem, kitti_frame
from adubench.datasets.ground_truth import FolderGroundTruth, GroundTruth, ScanGroundTruth, open_ground_truth
from adubench.datasets.kitti import KittiRaw
from adubench.datasets.splits import Split, load_split
from adubench.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from adubench.datasets.frames import FrameKey
    from adubench.io.collection import MapCollection
    from adubench.io.maps import DepthMap, SparseDepth

    Progress = Callable[[int, int], None]
    FirstMask = Callable[[SparseDepth], NDArray[np.bool_]]

HDF5 = (".h5", ".hdf5")


@dataclass(frozen=True, slots=True)
class Packed:
    """What was written.

    Attributes:
        path: file or folder.
        maps: number of maps.
        written: False when the file was there and its sources had not changed.
        reason: why it was written again ("" for a new file).
    """

    path: Path
    maps: int
    written: bool = True
    reason: str = ""


def scan_frames(raw: KittiRaw, cameras: Iterable[int] = (2,)) -> tuple[FrameKey, ...]:
    """List every frame below a raw root that has a Velodyne scan.

    Raises:
        DataError: there is none.
    """
    found = set()
    for path in raw.root.glob("*/*_drive_*/velodyne_points/**/*.bin"):
        drive = path.relative_to(raw.root).parts[1]
        if path.stem.isdigit():
            found |= {kitti_frame(drive, int(path.stem), camera) for camera in cameras}
    if not found:
        raise DataError(
            f"no Velodyne scan under {raw.root}; expected <date>/<drive>_sync/velodyne_points/data/%010d.bin, or give "
            "one scan with --scan FILE --calib DIR."
        )
    return tuple(sorted(found))


@dataclass(slots=True)
class LooseScans:
    """Scans in a folder of their own, outside KITTI's tree, with the calibration beside them."""

    frames: tuple[FrameKey, ...]
    files: dict[FrameKey, Path]
    calib: Path
    camera: int
    velodyne_x_depth: bool
    missing: tuple[str, ...] = ()
    layout: str = "loose scans"

    @property
    def kind(self) -> str:
        """Say what the values are."""
        return f"raw scans ({'velodyne x' if self.velodyne_x_depth else 'camera depth'})"

    def paths(self, frame: FrameKey) -> tuple[Path, ...]:
        """Return the scan and the calibration files."""
        return (self.files[frame], *(self.calib / f"calib_{name}.txt" for name in ("cam_to_cam", "velo_to_cam")))

    def read(self, frame: FrameKey) -> SparseDepth:
        """Project the scan of a frame."""
        return _project(self.files[frame], self.calib, self.camera, self.velodyne_x_depth)


def loose_scans(root: Path, calib: Path, camera: int, velodyne_x_depth: bool) -> LooseScans:
    """List the `.bin` files below a folder.

    Raises:
        DataError: there is none.
    """
    files = {frame_from_stem(p.relative_to(root).with_suffix("").as_posix()): p for p in sorted(root.rglob("*.bin"))}
    if not files:
        raise DataError(f"no Velodyne scan (.bin) under {root}.")
    return LooseScans(tuple(sorted(files)), files, calib, camera, velodyne_x_depth)


def ground_truth_source(
    gt: str,
    split: str | None,
    data_root: Path | None,
    *,
    cameras: Iterable[int] = (2,),
    velodyne_x_depth: bool = True,
    png_scale: float = 256.0,
) -> GroundTruth:
    """Open what is to be packed: "raw" for projected scans, else a folder or file of maps.

    Raises:
        UsageError: a root is missing.
        DataError: nothing usable there, or maps of the split are missing.
    """
    named = _split(split, data_root if gt == "raw" else data_root or Path(gt))
    if gt == "raw":
        if data_root is None:
            raise UsageError(
                "--gt raw needs --data-root DIR (KITTI raw: scans and calibration), or --scan with --calib."
            )
        raw = KittiRaw(data_root)
        if named is None and (data_root / "calib_cam_to_cam.txt").is_file():
            return loose_scans(data_root, data_root, next(iter(cameras)), velodyne_x_depth)
        if named is None:
            return ScanGroundTruth(scan_frames(raw, cameras), raw, velodyne_x_depth)
        source: GroundTruth = open_ground_truth(named, None, data_root, "raw")
        if isinstance(source, ScanGroundTruth):
            source.velodyne_x_depth = velodyne_x_depth
    elif named is None:
        return FolderGroundTruth(gt, scale=png_scale)
    else:
        kind = "official" if named.name == "kitti_official.val_selection" else "improved"
        source = open_ground_truth(named, gt, data_root, kind, png_scale=png_scale)
    if source.missing:
        more = f" ({len(source.missing)} frames in all)" if len(source.missing) > 1 else ""
        raise DataError(f"{source.missing[0].rstrip('.')}{more}; see adubench data check.")
    return source


def _split(name: str | None, root: Path | None) -> Split | None:
    return load_split(name, root) if name else None


def write_ground_truth(
    source: GroundTruth,
    out: Path,
    *,
    archival: bool = False,
    first: tuple[str, FirstMask] | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Packed:
    """Write ground truth: `.h5` as a pack, `.npz` as dense arrays, anything else as a folder of PNG or npy files.

    Args:
        source: where the maps lie.
        out: the target.
        archival: smaller, slower.
        first: key and mask of a pixel selection to store first (packs only).
        force: write even when the target is up to date.
        progress: called with (done, total).
    """
    frames = source.frames
    if out.suffix.lower() in HDF5:
        files = {frame.name: source.paths(frame) for frame in frames}
        key, mask = first or ("", None)
        facts = {"gt_kind": source.kind, "gt_layout": source.layout, "stored_first": key}
        reason = _why(out, "ground_truth", tuple(files), archival, files, facts)
        if not reason and not force:
            return Packed(out, len(frames), written=False)
        from adubench.io.packed import PackWriter

        with PackWriter(out, "ground_truth", archival=archival, first=key, attrs=facts) as writer:
            for frame in _ticking(frames, len(frames), progress):
                depth = source.read(frame)
                chosen = mask(depth) if mask is not None else None
                writer.add(frame.name, depth, first_mask=chosen, sources=map(_absolute, files[frame.name]))
        return Packed(out, len(frames), reason=reason if reason != "new" else "")
    maps = ((frame.name, _as_dense(source.read(frame))) for frame in _ticking(frames, len(frames), progress))
    return Packed(out, _write_dense(out, maps))


def write_predictions(
    collection: MapCollection,
    out: Path,
    *,
    archival: bool = False,
    at_ground_truth: Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Packed:
    """Write predictions: `.h5` as a pack, `.npz` as arrays, anything else as a folder.

    Args:
        collection: the open predictions.
        out: the target.
        archival: smaller, slower.
        at_ground_truth: a ground-truth pack; only the values at its pixels are kept.
        force: write even when the target is up to date.
        progress: called with (done, total).
    """
    if at_ground_truth is not None:
        return _write_at_pixels(collection, out, at_ground_truth, archival, progress)
    names = collection.names
    if out.suffix.lower() not in HDF5:
        maps = ((name, collection.read(name)) for name in _ticking(names, len(names), progress))
        return Packed(out, _write_dense(out, maps))
    files = {name: _files_of(collection, name) for name in names}
    reason = _why(out, "prediction", names, archival, files, {})
    if not reason and not force:
        return Packed(out, len(names), written=False)
    from adubench.io.packed import PackWriter

    with PackWriter(out, "prediction", archival=archival) as writer:
        for name in _ticking(names, len(names), progress):
            writer.add(name, collection.read(name), sources=files[name])
    return Packed(out, len(names), reason=reason if reason != "new" else "")


def _write_at_pixels(
    collection: MapCollection, out: Path, truth: Path, archival: bool, progress: Progress | None
) -> Packed:
    """Keep the predictions' values at the pixels of a ground-truth pack, in the pack's order."""
    from adubench.datasets.frames import frame_from_stem
    from adubench.io.packed import GroundTruthPack, PackWriter, open_pack

    if out.suffix.lower() not in HDF5:
        raise UsageError(f"values at ground-truth pixels are stored as HDF5: name the output .h5, not {out.name}.")
    held = set(collection.names)
    with open_pack(truth) as pack:
        if not isinstance(pack, GroundTruthPack):
            raise DataError(f"{truth} is no ground-truth pack; make one with adubench data pack --gt.")
        first = "" if archival else str(pack.attrs["protocol_first"])
        sha256 = pack.attrs["index_sha256"]
        with PackWriter(out, "at_ground_truth", archival=archival, first=first, ground_truth_sha256=sha256) as writer:
            for name in _ticking(pack.names, len(pack.names), progress):
                match = next((a for a in (name, *frame_from_stem(name).aliases()) if a in held), None)
                if match is None:
                    raise DataError(f"no prediction for '{name}' of {truth} in {collection.root}.")
                sparse, depth = pack.read(name), collection.read(match)
                if sparse.shape != depth.shape:
                    raise DataError(
                        f"{collection.where(match)}: {depth.shape[1]}x{depth.shape[0]} pixels, its ground truth has "
                        f"{sparse.shape[1]}x{sparse.shape[0]}; values at ground-truth pixels need equal sizes."
                    )
                values = depth.values.reshape(-1).take(sparse.index)
                chosen = np.isin(sparse.index, pack.read_first(name).index, assume_unique=True) if first else None
                sources = _files_of(collection, match)
                writer.add(name, values, first_mask=chosen, scale=depth.scale, sources=sources)
        return Packed(out, len(pack.names))


def unpack(path: Path, out: Path, progress: Progress | None = None) -> Packed:
    """Write every map of a pack as a file of its own: 16-bit PNG for codes, npy for floats; both bit-exact.

    Raises:
        DataError: no pack, or a pack of values at ground-truth pixels, which are no maps.
    """
    from adubench.io.packed import AtGroundTruthPack, GroundTruthPack, open_pack

    with open_pack(path) as pack:
        if isinstance(pack, AtGroundTruthPack):
            raise DataError(f"{path} holds values at ground-truth pixels only; the maps cannot be recovered from it.")
        sparse = isinstance(pack, GroundTruthPack)
        names = _ticking(pack.names, len(pack.names), progress)
        maps = ((name, _as_dense(pack.read(name)) if sparse else pack.read(name)) for name in names)
        return Packed(out, _write_dense(out, maps))


def project_one(
    scan: Path, calib: Path, out: Path, *, camera: int = 2, velodyne_x_depth: bool = True
) -> tuple[Packed, SparseDepth]:
    """Project one scan and write it as `.h5` (pack), `.npz`, `.npy` or `.png` (16-bit, metres * 256)."""
    depth = _project(scan, calib, camera, velodyne_x_depth)
    suffix = out.suffix.lower()
    if suffix in HDF5:
        from adubench.io.packed import PackWriter

        kind = f"raw scans ({'velodyne x' if velodyne_x_depth else 'camera depth'})"
        with PackWriter(out, "ground_truth", attrs={"gt_kind": kind}) as writer:
            writer.add(out.stem, depth, sources=[_absolute(scan)])
    elif suffix == ".png":
        from adubench.io.depth_png import write_depth_png

        write_depth_png(out, depth.dense())
    elif suffix == ".npz":
        _write_npz(out, [(out.stem, depth.dense())])
    elif suffix == ".npy":
        _write_npy(out, depth.dense())
    else:
        raise UsageError(f"one projected scan is written as .h5, .npz, .npy or .png, not as '{out.name}'.")
    return Packed(out, 1), depth


def _project(scan: Path, calib: Path, camera: int, velodyne_x_depth: bool) -> SparseDepth:
    from adubench.io.kitti_calib import read_calibration
    from adubench.io.velodyne import project_scan, read_scan

    return project_scan(read_scan(scan), read_calibration(calib), camera=camera, velodyne_x_depth=velodyne_x_depth)


def _why(
    out: Path,
    kind: str,
    names: tuple[str, ...],
    archival: bool,
    files: dict[str, Any],
    facts: dict[str, str],
) -> str:
    """Say why a pack must be written: "new", or what is stale; "" when it is up to date."""
    if not out.exists():
        return "new"
    from adubench.io.packed import is_pack, open_pack, stale_sources

    if not is_pack(out):
        raise DataError(f"{out} exists and is no pack of adubench: choose another name with -o, or remove it.")
    try:
        with open_pack(out) as pack:
            if pack.attrs.get("kind") != kind or pack.names != names:
                return "it held other maps"
            if (pack.attrs.get("layout") == "archival") != archival:
                return "it had the other layout"
            if any(pack.attrs.get(key) != value for key, value in facts.items()):
                return "its ground truth was of another kind"
            if {s.path for s in pack.sources} != {str(_absolute(p)) for paths in files.values() for p in paths}:
                return "it was made from other files"
            stale = stale_sources(pack)
            return f"{len(stale)} source files changed, first {stale[0]}" if stale else ""
    except DataError as error:
        return str(error)


def _absolute(path: Path) -> Path:
    return path.absolute()


def _files_of(collection: MapCollection, name: str) -> tuple[Path, ...]:
    path = Path(collection.where(name)) if collection.root.is_dir() else collection.root
    return (_absolute(path),)


def _as_dense(sparse: SparseDepth) -> DepthMap:
    """Turn a list of pixels into a map of the stored type: codes stay codes."""
    from adubench.io.maps import DepthMap

    out = np.zeros(sparse.shape[0] * sparse.shape[1], sparse.values.dtype)
    out[sparse.index] = sparse.values
    return DepthMap(out.reshape(sparse.shape), sparse.scale)


def _write_dense(out: Path, maps: Iterator[tuple[str, DepthMap]]) -> int:
    if out.suffix.lower() == ".npz":
        return _write_npz(out, ((name, depth.quantity()) for name, depth in maps))
    if out.suffix:
        raise UsageError(f"{out}: name a folder, or a file .h5 or .npz.")
    count = 0
    for name, depth in maps:
        _write_map(out, name, depth)
        count += 1
    return count


def _write_map(out: Path, name: str, depth: DepthMap) -> None:
    from adubench.io.atomic import write_bytes
    from adubench.io.png import encode_grey16

    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or "\x00" in name:
        raise DataError(f"map name '{name}' points outside the output folder {out}; the pack was not made by adubench.")
    target = out / f"{name}.png"
    if depth.values.dtype == np.uint16:
        write_bytes(target, encode_grey16(depth.values))
    else:
        _write_npy(target.with_name(f"{pure.name}.npy"), depth.values)


def _write_npy(path: Path, array: NDArray[Any]) -> None:
    from adubench.io.atomic import atomic_path

    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


def _write_npz(path: Path, arrays: Iterable[tuple[str, NDArray[Any]]]) -> int:
    """Write a compressed `.npz` one array at a time: memory stays flat in the number of maps."""
    from adubench.io.atomic import atomic_path

    count = 0
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            count += 1
    return count


def _ticking(items: Iterable[Any], total: int, progress: Progress | None) -> Iterator[Any]:
    for i, item in enumerate(items, 1):
        yield item
        if progress is not None:
            progress(i, total)
