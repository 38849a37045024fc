"""Packed depth maps in HDF5: many maps in one file, read by position without decoding.

Ground truth is a list of pixels per map (uint32 position, uint16 or float32 value); predictions are dense maps, or the
values at the pixels of a ground-truth pack. The default layout is uncompressed and contiguous, so that a map is one
read of known bytes; the archival layout (`pack_codec`) is several times smaller and slower. `PackWriter` writes packs.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import DataError
from adubench.io import pack_codec as codec
from adubench.io.hdf5_maps import Hdf5Maps, open_h5, open_hdf5_maps
from adubench.io.maps import DepthMap, SparseDepth
from adubench.io.pack_writer import PackWriter, file_sha256
from adubench.io.png import MAX_PIXELS

__all__ = [
    "AtGroundTruth",
    "AtGroundTruthPack",
    "GroundTruthPack",
    "Hdf5Maps",
    "Pack",
    "PackWriter",
    "PredictionPack",
    "Source",
    "is_pack",
    "open_hdf5_maps",
    "open_pack",
    "stale_sources",
]


@dataclass(frozen=True, slots=True)
class Source:
    """A file a map was made from.

    Attributes:
        name: the map.
        path: relative to the root given when packing, else absolute.
        size: bytes.
        mtime_ns: modification time.
        sha256: of the content.
    """

    name: str
    path: str
    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True, slots=True)
class AtGroundTruth:
    """A prediction's values at the pixels of a ground-truth map, in the order of its positions.

    Attributes:
        values: [n], uint16 codes or float32.
        scale: quantity = values / scale.
    """

    values: NDArray[Any]
    scale: float

    def metres(self) -> NDArray[np.float32]:
        """Return float32 [n] in the unit of the quantity."""
        return DepthMap(self.values, self.scale).quantity()


@dataclass(frozen=True, slots=True)
class _Block:
    """A contiguous dataset: where its bytes lie, and their type."""

    offset: int
    dtype: np.dtype[Any]
    count: int


class Pack:
    """Common part of the readers: tables in memory, values read by position. Can be sent to other processes.

    Attributes:
        path: the file.
        names: the maps in the order they were added.
        attrs: facts given to the writer, and the pack's own: kind, layout, dtype, scale, adubench_version,
            content_sha256, protocol_first, index_sha256 (ground truth), ground_truth_sha256 (at ground truth).
        scale: quantity = value / scale.
        sources: the files the maps were made from.
    """

    kind = ""

    def __init__(self, path: str | Path, *, opened: Any = None) -> None:
        self.path = Path(path)
        self._fd: int | None = None
        self._fd_pid = 0
        with open_h5(self.path, "pack") if opened is None else contextlib.nullcontext(opened) as file:
            try:
                self._load(file)
            except DataError:
                raise
            except Exception as error:  # h5py and json raise whatever the damage leads to
                raise self._damaged(str(error) or type(error).__name__) from None

    def _load(self, file: Any) -> None:
        schema = file.attrs.get(codec.MARK)
        if schema is None:
            raise DataError(f"{self.path}: an HDF5 file, but not a pack. Make packs with adubench data pack.")
        if int(schema) != codec.SCHEMA:
            raise DataError(f"pack {self.path}: version {schema}, this adubench reads {codec.SCHEMA}. Pack again.")
        own = {str(key): _plain(value) for key, value in file.attrs.items() if key != codec.MARK}
        if own["kind"] != self.kind:
            raise DataError(f"pack {self.path}: holds {own['kind']}, expected {self.kind}.")
        self._size = self.path.stat().st_size
        self.attrs: dict[str, Any] = {**self._json(file, "attrs"), **own}
        self.scale = float(own["scale"])
        self._dtype: np.dtype[Any] = codec.DTYPES[own["dtype"]]
        self.names: tuple[str, ...] = tuple(self._json(file, "names"))
        self.sources = tuple(Source(*row) for row in self._json(file, "sources"))
        self._position = {name: i for i, name in enumerate(self.names)}
        self._shapes = self._table(file, "shapes").reshape(-1, 2)
        self._offsets = self._table(file, "offsets")
        self._archival = own["layout"] == "archival"
        self._n_first = self._table(file, "n_first") if own["protocol_first"] else None
        self._load_data(file)
        self._validate()

    def _load_data(self, file: Any) -> None:
        parts = ("index", "values") if self.kind == "ground_truth" else ("values",)
        self._ends: dict[str, NDArray[Any]] = {}
        self._blocks: dict[str, _Block] = {}
        for part in parts:
            if self._archival:
                self._ends[part] = self._table(file, f"{part}_ends")
                self._blocks[part] = self._block(file, f"{part}_blobs", np.dtype("u1"))
            else:
                dtype = codec.INDEX_DTYPE if part == "index" else self._dtype
                key = "maps" if part == "values" and "maps" in file else part
                self._blocks[part] = self._block(file, key, dtype)
        if self.kind == "at_ground_truth" and self._n_first is not None:
            self._bits = self._block(file, "first_bits", np.dtype("u1"))
            self._bit_ends = np.r_[0, np.cumsum((np.diff(self._offsets) + 7) // 8)]
            if int(self._bit_ends[-1]) != self._bits.count:
                raise self._damaged("its bitmap has another length")
        self._signatures = self._table(file, "signatures") if "signatures" in file else None

    def _validate(self) -> None:
        """Check that tables agree with each other and with the file's size, so that reads cannot go astray."""
        n = len(self.names)
        pixels = self._shapes.astype(np.int64).prod(axis=1)
        counts = np.diff(self._offsets)
        good = (
            len(self._position) == n == len(self._shapes) == len(self._offsets) - 1
            and (self._offsets[0] == 0)
            and (counts >= 0).all()
            and (self.kind == "at_ground_truth" or ((self._shapes > 0).all() and (pixels <= MAX_PIXELS).all()))
            and ((counts <= pixels).all() if self.kind == "ground_truth" else (counts == pixels).all())
            and (self._n_first is None or (self._n_first.shape == (n,) and (self._n_first >= 0).all()))
            and (self._n_first is None or (self._n_first <= counts).all())
        )
        for part, block in self._blocks.items():
            ends = self._ends.get(part, self._offsets)
            good = good and len(ends) == n + 1 and ends[0] == 0 and bool((np.diff(ends) >= 0).all())
            good = good and int(ends[-1]) == block.count
        if not good:
            raise self._damaged("its tables contradict each other")

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._position

    def shape(self, which: int | str) -> tuple[int, int]:
        """Return height and width of a map ((1, n) for values at ground-truth pixels)."""
        height, width = self._shapes[self._at(which)]
        return int(height), int(width)

    def count(self, which: int | str) -> int:
        """Return how many values a map has."""
        i = self._at(which)
        return int(self._offsets[i + 1] - self._offsets[i])

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._fd is not None and self._fd_pid == os.getpid():
            os.close(self._fd)
        self._fd = None

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # at interpreter exit modules may be gone
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_fd": None}

    def _at(self, which: int | str) -> int:
        if isinstance(which, str):
            if which not in self._position:
                raise DataError(f"pack {self.path}: no map '{which}' among its {len(self.names)}.")
            return self._position[which]
        if not -len(self.names) <= which < len(self.names):
            raise DataError(f"pack {self.path}: no map number {which}, it has {len(self.names)}.")
        return which % len(self.names)

    def _damaged(self, reason: str) -> DataError:
        return DataError(f"pack {self.path}: damaged or cut off ({reason}). Make it again with adubench data pack.")

    def _json(self, file: Any, key: str) -> Any:
        return json.loads(self._table(file, key).tobytes().decode("utf-8", "surrogateescape"))

    def _table(self, file: Any, key: str) -> NDArray[Any]:
        dataset = file[key]
        self._block(file, key, dataset.dtype)
        table: NDArray[Any] = dataset[()]
        return table

    def _block(self, file: Any, key: str, dtype: np.dtype[Any]) -> _Block:
        dataset = file[key]
        if dataset.dtype != dtype or dataset.chunks is not None or dataset.is_virtual or dataset.external:
            raise self._damaged(f"part '{key}' has another type or layout")
        count, offset = int(dataset.size), dataset.id.get_offset()
        if count and (offset is None or offset + count * dtype.itemsize > self.path.stat().st_size):
            raise self._damaged(f"part '{key}' goes beyond the end of the file")
        return _Block(offset or 0, dtype, count)

    def _read(self, part: str, start: int, stop: int) -> NDArray[Any]:
        """Read items [start, stop) of a block into a new array.

        Reads instead of a memory map: pages of a map count as resident memory and would grow with the images.
        """
        return self._read_block(self._blocks[part], start, stop)

    def _read_block(self, block: _Block, start: int, stop: int) -> NDArray[Any]:
        out = np.empty(stop - start, block.dtype)
        view = out.view(np.uint8).data
        position = block.offset + start * block.dtype.itemsize
        try:
            while len(view):
                got = _pread(self._descriptor(), view, position)
                if not got:
                    raise self._damaged("the file ends early")
                view, position = view[got:], position + got
        except OSError as error:
            raise DataError(f"pack {self.path}: cannot be read ({error.strerror or error}).") from None
        return out

    def _descriptor(self) -> int:
        if self._fd is None or self._fd_pid != os.getpid():
            self._fd, self._fd_pid = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0)), os.getpid()
        return self._fd

    def _blob(self, part: str, i: int) -> bytes:
        ends = self._ends[part]
        return self._read(part, int(ends[i]), int(ends[i + 1])).tobytes()

    def _values(self, i: int) -> NDArray[Any]:
        """Read the values of map i as stored, flat."""
        start, stop = int(self._offsets[i]), int(self._offsets[i + 1])
        if not self._archival:
            return self._read("values", start, stop)
        try:
            if self.kind == "prediction":
                return codec.unpack_dense(self._blob("values", i), self.shape(i), self._dtype)
            return codec.unpack_values(self._blob("values", i), stop - start, self._dtype)
        except ValueError as error:
            raise self._damaged(f"map '{self.names[i]}': {error}") from None


class GroundTruthPack(Pack):
    """Reader of packed ground truth."""

    kind = "ground_truth"

    def read(self, which: int | str) -> SparseDepth:
        """Read a map by name or position, positions ascending.

        Raises:
            DataError: no such map, or the file is damaged.
        """
        i = self._at(which)
        index, values = self._pixels(i)
        if self._n_first is not None:
            order = np.argsort(index, kind="stable")
            index, values = index[order], values[order]
        return SparseDepth(self.shape(i), index, values, self.scale)

    def read_first(self, which: int | str, *, positions: bool = True) -> SparseDepth:
        """Read only the pixels of the protocol in `attrs["protocol_first"]`, positions ascending.

        Args:
            which: name or position of the map.
            positions: read where the pixels lie; without, `index` is empty (predictions at the same pixels need none).

        Raises:
            DataError: the pack was made without such an order, no such map, or the file is damaged.
        """
        i = self._at(which)
        if self._n_first is None:
            raise DataError(f"pack {self.path}: was made without a protocol's pixels first. Read whole maps.")
        first, start = int(self._n_first[i]), int(self._offsets[i])
        values = self._read("values", start, start + first)
        index = self._pixels(i, first)[0] if positions else np.empty(0, np.uint32)
        return SparseDepth(self.shape(i), index, values, self.scale, str(self.attrs["protocol_first"]))

    def signature(self, which: int | str) -> tuple[int, int, int]:
        """Return the signature of a whole map (`SparseDepth.signature`), without reading its pixels."""
        i = self._at(which)
        if self._signatures is None:
            return self.read(i).signature()
        size, total, positions = (int(v) for v in self._signatures[i])
        return size, total, positions

    def _pixels(self, i: int, limit: int | None = None) -> tuple[NDArray[np.uint32], NDArray[Any]]:
        start, stop = int(self._offsets[i]), int(self._offsets[i + 1])
        stop = stop if limit is None else start + limit
        pixels = self.shape(i)[0] * self.shape(i)[1]
        if self._archival:
            try:
                return codec.unpack_index(self._blob("index", i), stop - start, pixels), self._values(i)
            except ValueError as error:
                raise self._damaged(f"map '{self.names[i]}': {error}") from None
        index: NDArray[np.uint32] = self._read("index", start, stop)
        if index.size and index.max() >= pixels:
            raise self._damaged(f"map '{self.names[i]}' has pixels outside its size")
        return index, self._read("values", start, stop)


class PredictionPack(Pack):
    """Reader of packed dense maps."""

    kind = "prediction"

    def read(self, which: int | str) -> DepthMap:
        """Read a map by name or position.

        Raises:
            DataError: no such map, or the file is damaged.
        """
        i = self._at(which)
        return DepthMap(self._values(i).reshape(self.shape(i)), self.scale)


class AtGroundTruthPack(Pack):
    """Reader of predictions at the pixels of a ground-truth pack."""

    kind = "at_ground_truth"

    def read(self, which: int | str) -> AtGroundTruth:
        """Read the values of a map by name or position.

        Raises:
            DataError: no such map, or the file is damaged.
        """
        i = self._at(which)
        values = self._values(i)
        if self._n_first is not None:
            bits = self._read_block(self._bits, int(self._bit_ends[i]), int(self._bit_ends[i + 1]))
            mask = np.unpackbits(bits, count=values.size).view(np.bool_)
            first = int(self._n_first[i])
            if int(mask.sum()) != first:
                raise self._damaged(f"map '{self.names[i]}': bitmap and counts differ")
            stored, values = values, np.empty_like(values)
            values[mask], values[~mask] = stored[:first], stored[first:]
        return AtGroundTruth(values, self.scale)

    def read_first(self, which: int | str) -> AtGroundTruth:
        """Read only the values at the pixels of the protocol in `attrs["protocol_first"]`.

        Raises:
            DataError: the pack was made without such an order, no such map, or the file is damaged.
        """
        i = self._at(which)
        if self._n_first is None:
            raise DataError(f"pack {self.path}: was made without a protocol's pixels first. Read whole maps.")
        start = int(self._offsets[i])
        return AtGroundTruth(self._read("values", start, start + int(self._n_first[i])), self.scale)

    def check_ground_truth(self, pack: GroundTruthPack) -> None:
        """Make sure that the values belong to the pixels of this ground-truth pack.

        Raises:
            DataError: it is another pack.
        """
        if self.attrs["ground_truth_sha256"] != pack.attrs["index_sha256"] or self.names != pack.names:
            raise DataError(
                f"pack {self.path}: its values were taken at the pixels of another ground truth than {pack.path}. "
                "Pack the predictions again with this ground truth."
            )


_READERS: dict[str, type[Pack]] = {
    "ground_truth": GroundTruthPack,
    "prediction": PredictionPack,
    "at_ground_truth": AtGroundTruthPack,
}


def is_pack(path: str | Path) -> bool:
    """Whether a file is a pack of any kind and version; never raises for files that are something else."""
    try:
        with open_h5(path, "file") as file:
            return codec.MARK in file.attrs
    except Exception:
        return False


def open_pack(path: str | Path) -> Any:
    """Open a pack.

    Returns:
        `GroundTruthPack`, `PredictionPack` or `AtGroundTruthPack`.

    Raises:
        DataError: missing, not HDF5, not a pack, of another version, damaged or cut off.
    """
    with open_h5(path, "pack") as file:
        try:
            kind = str(_plain(file.attrs.get("kind", "")))
        except Exception:
            kind = ""
        return _READERS.get(kind, PredictionPack)(path, opened=file)


def stale_sources(pack: Pack, root: str | Path | None = None) -> list[str]:
    """List the source files that changed since packing.

    A file is stale when it is gone, has another size, or has another modification time and another content.

    Args:
        pack: an open pack.
        root: folder to which recorded relative paths belong.
    """
    stale = []
    for source in pack.sources:
        path = Path(root or ".") / source.path
        try:
            status = path.stat()
            same = status.st_size == source.size
            if same and status.st_mtime_ns != source.mtime_ns:
                same = file_sha256(path) == source.sha256
        except OSError:
            same = False
        if not same:
            stale.append(source.path)
    return stale


def _plain(value: Any) -> Any:
    """Turn an HDF5 attribute into a Python value."""
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value


def _pread(descriptor: int, view: memoryview, position: int) -> int:
    """Read at a position without moving the file's own (which forked processes share)."""
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [view], position)
    os.lseek(descriptor, position, os.SEEK_SET)
    data = os.read(descriptor, len(view))
    view[: len(data)] = data
    return len(data)
