"""Packed training samples in HDF5: 8-bit RGB and 16-bit ground truth, uncompressed, read through a memory map.

Parts of a file: attribute `adubench_training_pack` (version); `facts` (split, data set, window, ...), `names`
and `sources` (JSON as bytes; a source is [frame, path, size, mtime_ns, sha256]); `shapes` int32 [N, 2]; and for each
part of a sample one flat, contiguous dataset with `<part>_offsets` int64 [N + 1] in pixels: `image` and `right` uint8
(three values per pixel), `codes` and `right_codes` uint16. A frame without a part has no pixels in it.
"""

from __future__ import annotations

import json
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import adubench
from adubench.errors import DataError
from adubench.io.atomic import atomic_path
from adubench.io.hdf5_maps import open_h5
from adubench.io.pack_writer import file_sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MARK = "adubench_training_pack"
SCHEMA = 1
#: Part -> (type, values per pixel).
PARTS: dict[str, tuple[np.dtype[Any], int]] = {
    "image": (np.dtype("u1"), 3),
    "right": (np.dtype("u1"), 3),
    "codes": (np.dtype("<u2"), 1),
    "right_codes": (np.dtype("<u2"), 1),
}
# A format that HDF5 1.10 reads; data start at multiples of 4096 bytes, as memory maps like it.
_FORMAT: dict[str, Any] = {"libver": ("v108", "v110"), "alignment_threshold": 4096, "alignment_interval": 4096}


@dataclass(frozen=True, slots=True)
class PackEntry:
    """A frame to be packed.

    Attributes:
        name: of the frame, unique.
        shape: (H, W) of all its parts.
        parts: names of the parts that it has.
        sources: the files they are read from.
        read: part name -> array, uint8 [H, W, 3] or uint16 [H, W].
    """

    name: str
    shape: tuple[int, int]
    parts: tuple[str, ...]
    sources: tuple[Path, ...]
    read: Callable[[str], NDArray[Any]]


def write_training_pack(
    path: str | Path,
    entries: Sequence[PackEntry],
    facts: dict[str, Any],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a pack; the file appears when it is complete, and memory does not grow with the frames.

    Args:
        path: the HDF5 file.
        entries: the frames.
        facts: what is true of all of them (JSON values).
        progress: called with (done, total).

    Raises:
        DataError: a source cannot be read, a part has another size than announced, or the disk is full.
    """
    import h5py

    pixels = np.array([entry.shape[0] * entry.shape[1] for entry in entries], np.int64)
    with atomic_path(path) as target:
        try:
            with h5py.File(target, "w", **_FORMAT) as file:
                file.attrs[MARK] = SCHEMA
                _write_json(file, "facts", {**facts, "adubench_version": adubench.__version__})
                _write_json(file, "names", [entry.name for entry in entries])
                file.create_dataset("shapes", data=np.array([e.shape for e in entries], np.int32).reshape(-1, 2))
                data, offsets = {}, {}
                for part, (dtype, values) in PARTS.items():
                    held = pixels * np.array([part in entry.parts for entry in entries], np.int64)
                    offsets[part] = np.concatenate([[0], np.cumsum(held)])
                    file.create_dataset(f"{part}_offsets", data=offsets[part])
                    data[part] = file.create_dataset(part, (int(offsets[part][-1]) * values,), dtype)
                sources: list[list[Any]] = []
                for i, entry in enumerate(entries):
                    _write_entry(entry, i, data, offsets)
                    sources += [_source_row(entry.name, source) for source in entry.sources]
                    if progress is not None:
                        progress(i + 1, len(entries))
                _write_json(file, "sources", sources)
        except RuntimeError as error:  # how HDF5 may report a full disk
            raise OSError(str(error)) from None


def _write_entry(entry: PackEntry, i: int, data: dict[str, Any], offsets: dict[str, NDArray[np.int64]]) -> None:
    for part in entry.parts:
        dtype, values = PARTS[part]
        array = entry.read(part)
        wanted = (*entry.shape, values) if values > 1 else entry.shape
        if array.shape != wanted or array.dtype != dtype:
            shown = "x".join(str(n) for n in array.shape[:2])
            raise DataError(
                f"{entry.name}: its {part.replace('_', ' ')} has {shown} pixels, its image "
                f"{entry.shape[0]}x{entry.shape[1]} (height x width); one of them was resized."
            )
        start = int(offsets[part][i]) * values
        data[part][start : start + array.size] = np.ascontiguousarray(array).reshape(-1)


def _write_json(file: Any, key: str, value: Any) -> None:
    file.create_dataset(key, data=np.frombuffer(json.dumps(value).encode(), np.uint8))


def _source_row(name: str, path: Path) -> list[Any]:
    try:
        status = path.stat()
        return [name, str(path.absolute()), status.st_size, status.st_mtime_ns, file_sha256(path)]
    except OSError as error:
        raise DataError(f"source {path} of '{name}' cannot be read ({error.strerror}).") from None


class TrainingPack:
    """Reader of a training pack; every process maps the file itself, so objects may be sent to workers.

    Attributes:
        path: the file.
        facts: what the writer said of all frames.
        names: the frames in order.
        shapes: int32 [N, 2], height and width.
        sources: [frame, path, size, mtime_ns, sha256] of every file that was packed.

    Raises:
        DataError: missing, no training pack, of another version, damaged or cut off.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._map: mmap.mmap | None = None
        with open_h5(self.path, "training pack") as file:
            try:
                self._load(file)
            except DataError:
                raise
            except Exception as error:  # h5py and json raise whatever the damage leads to
                raise self._damaged(str(error) or type(error).__name__) from None

    def _load(self, file: Any) -> None:
        schema = file.attrs.get(MARK)
        if schema is None:
            raise DataError(f"{self.path}: no training pack; make one with adubench data pack --training SPLIT.")
        if int(schema) != SCHEMA:
            raise DataError(f"training pack {self.path}: version {schema}, this adubench reads {SCHEMA}. Pack again.")
        self.facts: dict[str, Any] = _read_json(file, "facts")
        self.names: tuple[str, ...] = tuple(_read_json(file, "names"))
        self.sources: list[list[Any]] = _read_json(file, "sources")
        self.shapes: NDArray[np.int32] = file["shapes"][()]
        self._offsets: dict[str, NDArray[np.int64]] = {}
        self._starts: dict[str, int] = {}
        size = self.path.stat().st_size
        for part, (dtype, values) in PARTS.items():
            dataset, offsets = file[part], file[f"{part}_offsets"][()]
            start = dataset.id.get_offset()
            count = int(offsets[-1]) * values
            good = dataset.dtype == dtype and dataset.chunks is None and not dataset.external and dataset.size == count
            good = good and len(offsets) == len(self.names) + 1 and bool((np.diff(offsets) >= 0).all())
            if not good or (count and (start is None or start + count * dtype.itemsize > size)):
                raise self._damaged(f"part '{part}' is incomplete")
            held = np.diff(offsets)
            if not np.isin(held - self.shapes.astype(np.int64).prod(axis=1) * (held > 0), [0]).all():
                raise self._damaged("its tables contradict each other")
            self._offsets[part], self._starts[part] = offsets, start or 0

    def __len__(self) -> int:
        return len(self.names)

    def has(self, i: int, part: str) -> bool:
        """Whether a frame has a part."""
        return bool(self._offsets[part][i + 1] > self._offsets[part][i])

    def read(self, i: int, part: str) -> NDArray[Any]:
        """Return a part of frame i: a read-only view of the file, uint8 [H, W, 3] or uint16 [H, W]."""
        dtype, values = PARTS[part]
        height, width = (int(n) for n in self.shapes[i])
        offset = self._starts[part] + int(self._offsets[part][i]) * values * dtype.itemsize
        flat = np.frombuffer(self._mapped(), dtype, height * width * values, offset)
        return flat.reshape((height, width, values) if values > 1 else (height, width))

    def stale(self) -> list[str]:
        """List the source files that are there and differ from what was packed; one that is gone proves nothing."""
        changed = []
        for _, name, size, mtime_ns, sha256 in self.sources:
            path = Path(name)
            try:
                status = path.stat()
                same = status.st_size == size and (status.st_mtime_ns == mtime_ns or file_sha256(path) == sha256)
            except OSError:
                continue
            if not same:
                changed.append(name)
        return changed

    def _mapped(self) -> mmap.mmap:
        if self._map is None:
            try:
                with self.path.open("rb") as file:
                    self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise DataError(f"training pack {self.path}: cannot be read ({error}).") from None
        return self._map

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None}

    def _damaged(self, reason: str) -> DataError:
        return DataError(
            f"training pack {self.path}: damaged or cut off ({reason}). Make it again with adubench data pack."
        )


def _read_json(file: Any, key: str) -> Any:
    return json.loads(file[key][()].tobytes().decode())
