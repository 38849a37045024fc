"""A teacher's depth maps on disk: 16-bit PNGs in TIE-KD's layout or one HDF5 file, with a record of what they are.

TIE-KD (arXiv 2402.14340), `datasets/pipelines`: 352x1216 maps (KITTI's window), metres = code / 65535 * range, one
folder, names with `/` replaced by `_`. The record (`teacher.json`, or the attribute `adubench_teacher` of the HDF5
file) says who predicted what; training checks it before the first step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from adubench.errors import DataError, UsageError, counted
from adubench.io.atomic import atomic_path, write_bytes, write_text
from adubench.io.depth_png import KITTI_SCALE, read_bytes
from adubench.io.hdf5_maps import open_h5
from adubench.io.png import decode_grey16, encode_grey16

RECORD_FILE = "teacher.json"
UNFINISHED_FILE = "teacher.unfinished.json"
RECORD_ATTRIBUTE = "adubench_teacher"
PACKED_FILE = "teacher_maps.h5"
FULL_SCALE = 65535

Encoding = Literal["tie-kd", "png256"]
Codes = NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class TeacherRecord:
    """What a set of teacher maps is.

    Attributes:
        teacher: name of the teacher.
        weights_sha256: of its checkpoint file, "" if unknown.
        max_depth: metres of the largest code.
        encoding: "tie-kd": metres = code / 65535 * max_depth; "png256": code / 256.
        flip: averaging with the mirrored image: "mean", "blend" or "none".
        crop: "kb" (KITTI's 352x1216 window), "none" (the whole frame).
        split: name of the list of frames.
        split_sha256: `frames_sha256` of it.
        frames: number of maps.
        format: of this record.
    """

    teacher: str
    max_depth: float
    split: str
    split_sha256: str
    frames: int
    weights_sha256: str = ""
    encoding: Encoding = "tie-kd"
    flip: str = "mean"
    crop: str = "kb"
    format: int = 1


@dataclass(frozen=True, slots=True)
class Expected:
    """What training needs of teacher maps; None does not matter.

    Attributes:
        max_depth: metres.
        split_sha256: of the frames that will be read.
        crop: see `TeacherRecord`.
        weights_sha256: of a teacher that is named.
    """

    max_depth: float | None = None
    split_sha256: str | None = None
    crop: str | None = None
    weights_sha256: str | None = None


def release_record(max_depth: float = 80.0) -> TeacherRecord:
    """What the maps of the TIE-KD release are, which come without a record."""
    return TeacherRecord("TIE-KD release", max_depth, split="unknown", split_sha256="", frames=0)


def frames_sha256(names: Iterable[str]) -> str:
    """Hash a set of frame names; order and duplicates do not matter."""
    return hashlib.sha256("\n".join(sorted(set(names))).encode()).hexdigest()


def teacher_map_name(image: str) -> str:
    """File name of the map of an image, from its path below the image folder: `/` to `_`, ending `.png`."""
    return str(PurePosixPath(image).with_suffix(".png")).lstrip("/").replace("/", "_")


def encode_teacher(depth_m: NDArray[Any], max_depth: float, encoding: Encoding = "tie-kd") -> Codes:
    """Quantise a map.

    Args:
        depth_m: [H, W] metres.
        max_depth: metres of the largest code.
        encoding: "tie-kd" truncates, so depths under max_depth / 65535 become 0; "png256" is KITTI's.

    Returns:
        uint16 [H, W]; depths beyond the range take its ends, NaN becomes 0.
    """
    depth = np.nan_to_num(np.asarray(depth_m, np.float32), nan=0.0, posinf=max_depth, neginf=0.0)
    scaled = depth / np.float32(max_depth) * np.float32(FULL_SCALE) if encoding == "tie-kd" else depth * KITTI_SCALE
    return np.asarray(np.clip(scaled, 0, FULL_SCALE), np.float32).astype(np.uint16)


def decode_teacher(codes: Codes, max_depth: float, encoding: Encoding = "tie-kd") -> NDArray[np.float32]:
    """Metres, float32 [H, W]: code / 65535 * max_depth in this order, whatever the largest code is."""
    values = codes.astype(np.float32)
    if encoding == "png256":
        return values / np.float32(KITTI_SCALE)
    return values / np.float32(FULL_SCALE) * np.float32(max_depth)


def write_teacher_png(folder: str | Path, image: str, depth_m: NDArray[Any], record: TeacherRecord) -> Path:
    """Write the map of an image, atomically, and return its path."""
    path = Path(folder) / teacher_map_name(image)
    write_bytes(path, encode_grey16(encode_teacher(depth_m, record.max_depth, record.encoding)))
    return path


class PackedWriter:
    """Adds maps to an HDF5 file that `pack_teacher_maps` opened."""

    def __init__(self, file: Any, record: TeacherRecord) -> None:
        self._file, self._record = file, record

    def write(self, image: str, depth_m: NDArray[Any]) -> None:
        """Add the map of an image."""
        codes = encode_teacher(depth_m, self._record.max_depth, self._record.encoding)
        name = PurePosixPath(teacher_map_name(image)).stem
        self._file.create_dataset(name, data=codes, chunks=codes.shape, compression="gzip", compression_opts=1)


@contextmanager
def pack_teacher_maps(path: str | Path, record: TeacherRecord) -> Iterator[PackedWriter]:
    """Write one HDF5 file of maps; it appears, with its record, when the block ends well."""
    import h5py

    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs[RECORD_ATTRIBUTE] = json.dumps(asdict(record))
        yield PackedWriter(file, record)


def write_record(folder: str | Path, record: TeacherRecord, *, finished: bool = True) -> Path:
    """Write the record beside the maps of a folder, atomically.

    While maps are being written it is called `teacher.unfinished.json`: whoever continues can tell whose maps are
    there, and training refuses them. `finished` puts `teacher.json` in its place, when all maps are there.
    """
    final, unfinished = Path(folder) / RECORD_FILE, Path(folder) / UNFINISHED_FILE
    path, other = (final, unfinished) if finished else (unfinished, final)
    write_text(path, json.dumps(asdict(record), indent=1) + "\n")
    other.unlink(missing_ok=True)
    return path


def read_unfinished(folder: str | Path) -> TeacherRecord | None:
    """Read the record of a folder whose maps are not all there yet; None if there is none.

    Raises:
        DataError: damaged.
    """
    file = Path(folder) / UNFINISHED_FILE
    return _parse(read_bytes(file, "teacher record"), str(file)) if file.is_file() else None


def read_record(path: str | Path) -> TeacherRecord | None:
    """Read the record of a folder or HDF5 file; None if there is none.

    Raises:
        DataError: damaged, or of a newer format.
    """
    root = Path(path)
    if root.is_dir():
        file = root / RECORD_FILE
        if not file.is_file():
            return None
        return _parse(read_bytes(file, "teacher record"), str(file))
    with open_h5(root, "teacher maps") as packed:
        text = packed.attrs.get(RECORD_ATTRIBUTE)
        return None if text is None else _parse(str(text).encode(), str(root))


def _parse(data: bytes, where: str) -> TeacherRecord:
    try:
        values = json.loads(data)
        known = {field.name for field in fields(TeacherRecord)}
        record = TeacherRecord(**{key: value for key, value in values.items() if key in known})
        sound = record.format == 1 and record.encoding in ("tie-kd", "png256") and 0 < float(record.max_depth) < 1e6
    except (ValueError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise DataError(
            f"teacher record {where}: damaged or of another format. Write the maps again with adubench predict."
        )
    return record


def require_finished(folder: str | Path) -> None:
    """Refuse a folder of maps that `adubench predict` has not finished.

    Raises:
        DataError: its record says so.
    """
    if (Path(folder) / UNFINISHED_FILE).is_file():
        raise DataError(
            f"teacher maps {folder}: not all written, adubench predict was interrupted or could not read an image. Run "
            "it again with --skip-existing."
        )


def codes_per_metre(path: str | Path, stated_range: float | None = None) -> float:
    """What one metre is in 16-bit maps: as their record says, else by the range that is stated, else KITTI's 256.

    Args:
        path: folder or HDF5 file of the maps.
        stated_range: metres of code 65535, for maps without a record.

    Raises:
        DataError: unfinished maps, or maps named like TIE-KD's release, which are not metres * 256, without a range.
        UsageError: a range beside a record.
    """
    require_finished(path)
    record = read_record(path)
    if record is not None:
        if stated_range is not None:
            raise UsageError(f"teacher maps {path}: their record says what the codes mean; leave out --teacher-range.")
        return FULL_SCALE / record.max_depth if record.encoding == "tie-kd" else KITTI_SCALE
    if stated_range is not None:
        return FULL_SCALE / stated_range
    release = next((file.name for file in sorted(Path(path).glob("*.png")) if "_image_0" in file.name), None)
    if release is not None:
        raise DataError(
            f"teacher maps {path}: {release} is named like TIE-KD's release, and no teacher.json says what its codes "
            "mean; give --teacher-range 80 (code 65535 is 80 m), or --teacher-range 255.996 (metres * 256)."
        )
    return KITTI_SCALE


def same_maker(one: TeacherRecord, other: TeacherRecord) -> bool:
    """Whether two sets of maps come from the same weights, coded and cut alike; their frames may differ."""
    fields_of = ("teacher", "weights_sha256", "max_depth", "encoding", "flip", "crop")
    return all(getattr(one, name) == getattr(other, name) for name in fields_of)


def check_record(record: TeacherRecord, expected: Expected, where: str) -> None:
    """Compare a record with what training needs.

    Raises:
        DataError: the first thing that does not fit, and what to do.
    """
    fix = "Write them again with adubench predict --layout tie-kd."
    if expected.max_depth is not None and abs(record.max_depth - expected.max_depth) > 1e-6 * expected.max_depth:
        raise DataError(
            f"teacher maps {where}: wrong scale, their record says max_depth {record.max_depth:g} m, the recipe "
            f"{expected.max_depth:g} m. {fix}"
        )
    if expected.crop is not None and record.crop not in (expected.crop, "none"):
        raise DataError(f"teacher maps {where}: cut to '{record.crop}', the recipe wants '{expected.crop}'. {fix}")
    # Maps of the release carry no list of frames: whether all are there is then the only question.
    if expected.split_sha256 is not None and record.split_sha256 not in ("", expected.split_sha256):
        raise DataError(
            f"teacher maps {where}: of another split, '{record.split}' with {counted(record.frames, 'frame')}, not of "
            f"the frames of this run. {fix}"
        )
    if expected.weights_sha256 is not None and record.weights_sha256 != expected.weights_sha256:
        raise DataError(
            f"teacher maps {where}: of other weights ({record.teacher}, {record.weights_sha256[:12] or 'unknown'}, "
            f"expected {expected.weights_sha256[:12]}). {fix}"
        )


class TeacherMaps:
    """Maps by name. Cheap to pickle; HDF5 files are opened for each read.

    Attributes:
        root: the folder or file.
        record: what the maps are.
    """

    def __init__(self, root: Path, record: TeacherRecord) -> None:
        self.root, self.record = root, record
        if root.is_dir():
            self._stems = frozenset(path.stem for path in root.iterdir() if path.suffix == ".png")
        else:
            with open_h5(root, "teacher maps") as file:
                self._stems = frozenset(str(name) for name in file)

    def __len__(self) -> int:
        return len(self._stems)

    def find(self, names: Iterable[str]) -> str | None:
        """Stem of the map of a frame: the first of its names (paths or flattened) that exists."""
        for name in names:
            stem = name.strip("/").replace("/", "_")
            for candidate in (stem, PurePosixPath(stem).stem):
                if candidate in self._stems:
                    return candidate
        return None

    def check_complete(self, frames: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """Find the maps of all frames.

        Args:
            frames: name of each frame -> the names its map may have (`FrameKey.aliases`).

        Returns:
            Name of each frame -> stem of its map.

        Raises:
            DataError: maps are missing; the first ones are named.
        """
        found = {name: self.find(candidates) for name, candidates in frames.items()}
        missing = [name for name, stem in found.items() if stem is None]
        if missing:
            shown = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
            raise DataError(
                f"teacher maps {self.root}: {len(missing)} of {len(found)} frames have none: {shown}. Predict the "
                "whole training list with adubench predict --layout tie-kd --split."
            )
        return {name: stem for name, stem in found.items() if stem is not None}

    def read(self, stem: str) -> NDArray[np.float32]:
        """Read a map, float32 [H, W] metres.

        Raises:
            DataError: missing, damaged, or not 16 bits.
        """
        return decode_teacher(self._codes(stem), self.record.max_depth, self.record.encoding)

    def _codes(self, stem: str) -> Codes:
        if self.root.is_dir():
            path = self.root / f"{stem}.png"
            return decode_grey16(read_bytes(path, "teacher map"), f"teacher map {path}")
        with open_h5(self.root, "teacher maps") as file:
            try:
                codes = file[stem][()]
            except (KeyError, OSError, RuntimeError) as error:
                raise DataError(
                    f"teacher map {stem} in {self.root}: cannot be read ({error}). Pack it again."
                ) from None
        if not isinstance(codes, np.ndarray) or codes.dtype != np.uint16 or codes.ndim != 2:
            raise DataError(f"teacher map {stem} in {self.root}: expected 16-bit codes [H, W]. Pack it again.")
        return codes


def open_teacher_maps(
    path: str | Path, expected: Expected | None = None, *, assume: TeacherRecord | None = None
) -> TeacherMaps:
    """Open a folder or HDF5 file of teacher maps and check its record.

    Args:
        path: the folder, or the HDF5 file (or the folder that holds it).
        expected: what training needs.
        assume: record of maps that have none, e.g. those of the TIE-KD release; None refuses them.

    Raises:
        DataError: nothing there, maps of a run that did not finish, no record, or one that does not fit.
    """
    root = Path(path)
    if not root.exists():
        raise DataError(f"teacher maps not found: {root}. Write them with adubench predict --layout tie-kd.")
    require_finished(root)
    if (root / PACKED_FILE).is_file() and not (root / RECORD_FILE).is_file():
        root = root / PACKED_FILE
    record = read_record(root) or assume
    if record is None:
        raise DataError(
            f"teacher maps {root}: no {RECORD_FILE}, so scale and split are unknown. Write them with adubench predict "
            "--layout tie-kd, or, if they are maps of the TIE-KD release, say so with --set teacher_maps.release=true."
        )
    check_record(record, expected or Expected(), str(root))
    return TeacherMaps(root, record)
