"""Write packs: spool the values to disk while maps come in, lay them out contiguously at the end.

Memory stays flat in the number of maps, and the file appears under its name only when it is complete. Parts of a file:

- attributes `adubench_pack` (version), `kind`, `layout`, `dtype`, `scale` (quantity = value / scale), `protocol_first`,
  `adubench_version`, `content_sha256`; `index_sha256` (ground truth) or `ground_truth_sha256` (values at its pixels);
- `names`, `attrs`, `sources`: JSON in UTF-8 as bytes; a source is [map, path, size, mtime_ns, sha256];
- `shapes` int32 [N, 2]; `offsets` int64 [N + 1], where each map starts among the values; `n_first` int64 [N] where the
  pixels of one protocol come first;
- contiguous layout: `values` uint16 or float32 [total], and `index` uint32 [total] for ground truth; dense maps of
  equal size are one dataset `maps` [N, H, W] instead;
- archival layout: `values_blobs` and `index_blobs` uint8 with `values_ends` and `index_ends` int64 [N + 1].
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

import adubench
from adubench.errors import DataError
from adubench.io import pack_codec as codec
from adubench.io.atomic import atomic_path
from adubench.io.maps import DepthMap, SparseDepth

_BLOCK = 1 << 23
# A format that HDF5 1.10 reads and whose metadata carry checksums; data start at multiples of 64 bytes.
_FORMAT: dict[str, Any] = {"libver": ("v108", "v110"), "alignment_threshold": 4096, "alignment_interval": 64}


class PackWriter:
    """Build a pack; use as a context manager, the file is written when the block ends well.

    Args:
        path: the HDF5 file to write.
        kind: "ground_truth" (add `SparseDepth`), "prediction" (add `DepthMap`), or "at_ground_truth" (add the
            prediction's values [n] at the pixels of a ground-truth pack).
        archival: smaller file, slower to read; still lossless.
        first: name of the protocol whose pixels are stored first (`add(..., first_mask=...)`).
        ground_truth_sha256: for "at_ground_truth": `index_sha256` of the ground-truth pack.
        root: folder to which the paths of sources are relative.
        attrs: further facts to keep (JSON values), e.g. the crop rule.

    Raises:
        DataError: unknown kind, or contradicting options.
    """

    def __init__(
        self,
        path: str | Path,
        kind: str,
        *,
        archival: bool = False,
        first: str = "",
        ground_truth_sha256: str = "",
        root: str | Path | None = None,
        attrs: dict[str, Any] | None = None,
    ) -> None:
        if kind not in codec.KINDS:
            raise DataError(f"pack {path}: unknown kind '{kind}', expected one of {', '.join(codec.KINDS)}.")
        if archival and first:
            raise DataError(f"pack {path}: archival packs keep no pixel order; leave out 'first' or 'archival'.")
        if (kind == "at_ground_truth") != bool(ground_truth_sha256):
            raise DataError(f"pack {path}: ground_truth_sha256 belongs to kind 'at_ground_truth', and only to it.")
        self.path, self.kind, self.archival, self.first = Path(path), kind, archival, first
        self._ground_truth = ground_truth_sha256
        self._root = Path(root) if root is not None else None
        self._attrs = dict(attrs or {})
        self._stack = contextlib.ExitStack()
        self._names: dict[str, None] = {}
        self._shapes: list[tuple[int, int]] = []
        self._counts: list[int] = []
        self._n_first: list[int] = []
        self._signatures: list[tuple[int, int, int]] = []
        self._blob_ends: dict[str, list[int]] = {"index": [0], "values": [0]}
        self._sources: list[list[Any]] = []
        self._dtype: np.dtype[Any] | None = None
        self._scale = 1.0
        self._content = hashlib.sha256()
        self._index_hash = hashlib.sha256()

    def __enter__(self) -> PackWriter:
        self._target = self._stack.enter_context(atomic_path(self.path))
        try:
            folder = self.path.parent
            self._spools: dict[str, IO[bytes]] = {
                part: self._stack.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 - the stack closes it
                for part in ("index", "values")
            }
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, *exc: Any) -> bool | None:
        if exc[0] is not None:
            return self._stack.__exit__(*exc)
        try:
            self._finish()
        except BaseException:
            self._leave()
            raise
        return self._stack.__exit__(None, None, None)

    def _leave(self) -> None:
        """Unwind with the current exception; the file error becomes a sentence on the way out."""
        self._stack.__exit__(*sys.exc_info())

    def add(
        self,
        name: str,
        depth: SparseDepth | DepthMap | NDArray[Any],
        *,
        first_mask: NDArray[np.bool_] | None = None,
        sources: Iterable[str | Path] = (),
        scale: float = 1.0,
    ) -> None:
        """Append a map.

        Args:
            name: the frame's name; unique in the pack.
            depth: what the pack's kind asks for. float64 becomes float32; uint16 and float32 keep their bits.
            first_mask: bool [n], the pixels to store first (ground truth and values at its pixels).
            sources: the files this map was made from; size, modification time and SHA-256 are recorded.
            scale: quantity = value / scale, for kind "at_ground_truth" only (maps carry their own).

        Raises:
            DataError: repeated name, wrong type, another scale or value type than the maps before, or an unreadable
                source.
        """
        where = f"pack {self.path}, map '{name}'"
        if name in self._names:
            raise DataError(f"{where}: there is such a map already. Names must be unique.")
        rows = [_source_row(name, Path(path), self._root) for path in sources]
        if self.kind == "ground_truth" and isinstance(depth, SparseDepth):
            self._add_sparse(where, depth, first_mask)
            shape, count = depth.shape, len(depth.index)
        elif self.kind == "prediction" and isinstance(depth, DepthMap):
            values = self._check(where, depth.values, depth.scale, 2)
            self._write("values", codec.pack_dense(values) if self.archival else values)
            shape, count = depth.shape, values.size
            self._hash(values)
        elif self.kind == "at_ground_truth" and isinstance(depth, np.ndarray):
            values = self._check(where, depth, scale, 1)
            self._hash(values)
            self._add_pixel_values(where, values, first_mask)
            shape, count = (1, values.size), values.size
        else:
            raise DataError(f"{where}: a pack of kind '{self.kind}' does not take a {type(depth).__name__}.")
        self._content.update(json.dumps([name, list(shape), count]).encode())
        for part, ends in self._blob_ends.items():
            ends.append(self._spools[part].tell())
        self._sources.extend(rows)
        self._names[name] = None
        self._shapes.append(shape)
        self._counts.append(count)

    def _add_sparse(self, where: str, depth: SparseDepth, first_mask: NDArray[np.bool_] | None) -> None:
        values = self._check(where, depth.values, depth.scale, 1)
        index = np.ascontiguousarray(depth.index, codec.INDEX_DTYPE)
        pixels = depth.shape[0] * depth.shape[1]
        if index.shape != values.shape or (index.size and (index[-1] >= pixels or (index[1:] <= index[:-1]).any())):
            raise DataError(f"{where}: positions must be ascending, unique, inside the map, one per value.")
        if self.first and (first_mask is None or first_mask.shape != index.shape):
            raise DataError(f"{where}: first_mask of one bool per pixel is needed for '{self.first}' first.")
        self._signatures.append(depth.signature())
        self._index_hash.update(json.dumps([*depth.shape, index.size]).encode())
        self._index_hash.update(index.data)
        self._content.update(index.data)
        self._hash(values)
        if self.archival:
            self._write("index", codec.pack_index(index, pixels))
            self._write("values", codec.pack_values(values))
            return
        if first_mask is not None and self.first:
            order = np.argsort(~first_mask, kind="stable")
            index, values = index[order], values[order]
            self._n_first.append(int(first_mask.sum()))
        self._write("index", index)
        self._write("values", values)

    def _add_pixel_values(self, where: str, values: NDArray[Any], first_mask: NDArray[np.bool_] | None) -> None:
        if self.archival:
            self._write("values", codec.pack_values(values))
            return
        if self.first:
            if first_mask is None or first_mask.shape != values.shape:
                raise DataError(f"{where}: first_mask of one bool per value is needed for '{self.first}' first.")
            # The reader puts the values back in order with this bitmap.
            self._write("index", np.packbits(first_mask))
            self._n_first.append(int(first_mask.sum()))
            values = np.concatenate([values[first_mask], values[~first_mask]])
        self._write("values", values)

    def _check(self, where: str, values: NDArray[Any], scale: float, ndim: int) -> NDArray[Any]:
        kept = codec.storable(values)
        if kept is None or kept.ndim != ndim or (ndim == 2 and not kept.size):
            raise DataError(f"{where}: expected uint16 or float, {ndim}-D, got {values.dtype} {list(values.shape)}.")
        if self._dtype is None:
            self._dtype, self._scale = kept.dtype, float(scale)
        if kept.dtype != self._dtype or scale != self._scale:
            raise DataError(
                f"{where}: {kept.dtype} with scale {scale:g} does not go with {self._dtype} with scale "
                f"{self._scale:g} of the maps before. Pack them into two files."
            )
        return kept

    def _hash(self, values: NDArray[Any]) -> None:
        self._content.update(str(values.dtype).encode())
        self._content.update(values.data)

    def _write(self, part: str, data: Any) -> None:
        self._spools[part].write(data if isinstance(data, bytes) else data.data)

    def _finish(self) -> None:
        import h5py

        try:
            with h5py.File(self._target, "w", **_FORMAT) as file:
                self._write_tables(file)
                self._write_data(file)
        except RuntimeError as error:  # how HDF5 may report a full disk
            raise OSError(str(error)) from None

    def _write_tables(self, file: Any) -> None:
        dtype = self._dtype or np.dtype(np.uint16)
        self._content.update(json.dumps([self.kind, float(self._scale)]).encode())
        file.attrs[codec.MARK] = codec.SCHEMA
        file.attrs["kind"] = self.kind
        file.attrs["layout"] = "archival" if self.archival else "contiguous"
        file.attrs["dtype"] = dtype.name
        file.attrs["scale"] = float(self._scale)
        file.attrs["protocol_first"] = self.first
        file.attrs["adubench_version"] = adubench.__version__
        file.attrs["content_sha256"] = self._content.hexdigest()
        if self.kind == "ground_truth":
            file.attrs["index_sha256"] = self._index_hash.hexdigest()
            file["signatures"] = np.array(self._signatures, "<i8").reshape(-1, 3)
        if self.kind == "at_ground_truth":
            file.attrs["ground_truth_sha256"] = self._ground_truth
        file["attrs"] = _json(self._attrs)
        file["names"] = _json(list(self._names))
        file["sources"] = _json(self._sources)
        file["shapes"] = np.array(self._shapes, "<i4").reshape(-1, 2)
        file["offsets"] = np.r_[0, np.cumsum(np.array(self._counts, "<i8"))].astype("<i8")
        if self.first:
            file["n_first"] = np.array(self._n_first, "<i8")

    def _write_data(self, file: Any) -> None:
        dtype = self._dtype or np.dtype(np.uint16)
        parts = ("index", "values") if self.kind == "ground_truth" else ("values",)
        if self.kind == "at_ground_truth" and self.first:
            spool = self._spools["index"]
            size = spool.tell()
            spool.seek(0)
            _copy(spool, file.create_dataset("first_bits", (size,), "u1"), size)
        for part in parts:
            spool = self._spools[part]
            size = spool.tell()
            spool.seek(0)
            if self.archival:
                file[f"{part}_ends"] = np.array(self._blob_ends[part], "<i8")
                _copy(spool, file.create_dataset(f"{part}_blobs", (size,), "u1"), size)
                continue
            kind = codec.INDEX_DTYPE if part == "index" else codec.DTYPES[dtype.name]
            if self.kind == "prediction" and len(set(self._shapes)) == 1:
                dataset = file.create_dataset("maps", (len(self._shapes), *self._shapes[0]), kind)
            else:
                dataset = file.create_dataset(part, (size // kind.itemsize,), kind)
            _copy(spool, dataset, size)


def _copy(spool: IO[bytes], dataset: Any, size: int) -> None:
    """Copy a spool into a contiguous dataset, block by block and never more than a few MB at once."""
    first = dataset.shape[0] if dataset.ndim else 0
    if not size or not first:
        return
    row = size // first
    step = max(1, _BLOCK // row)
    for start in range(0, first, step):
        stop = min(first, start + step)
        block = np.frombuffer(spool.read((stop - start) * row), dataset.dtype)
        dataset[start:stop] = block.reshape(stop - start, *dataset.shape[1:])


def _json(value: Any) -> NDArray[np.uint8]:
    """Store a JSON text as bytes: contiguous, readable without HDF5's variable-length strings."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"pack attributes must be JSON values ({error}).") from None
    return np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8)


def file_sha256(path: Path) -> str:
    """Hash a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _source_row(name: str, path: Path, root: Path | None) -> list[Any]:
    try:
        status, digest = path.stat(), file_sha256(path)
    except OSError as error:
        raise DataError(f"source {path} of '{name}' cannot be read ({error.strerror}).") from None
    relative = path.relative_to(root) if root is not None and path.is_relative_to(root) else path.absolute()
    return [name, relative.as_posix(), status.st_size, status.st_mtime_ns, digest]
