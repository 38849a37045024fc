"""HDF5 files that other programs wrote: a dataset per frame name, or one stack (N, H, W)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import DataError
from adubench.io.maps import DepthMap
from adubench.io.png import MAX_PIXELS, looks_like

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MAX_DATASETS = 1_000_000


@contextlib.contextmanager
def open_h5(path: str | Path, what: str) -> Iterator[Any]:
    """Open an HDF5 file for reading, without locks (read-only media, several processes).

    Raises:
        DataError: missing, not HDF5, or too damaged to open.
    """
    file = _open(Path(path), what)
    try:
        yield file
    finally:
        with contextlib.suppress(Exception):
            file.close()


def _open(path: Path, what: str) -> Any:
    try:
        with path.open("rb") as raw:
            head = raw.read(512)
    except FileNotFoundError:
        raise DataError(f"{what} {path}: no such file. Check the path.") from None
    except OSError as error:
        raise DataError(f"{what} {path}: cannot be read ({error.strerror or error}).") from None
    if not head.startswith(_SIGNATURE):
        raise DataError(f"{what} {path}: not an HDF5 file (looks like {looks_like(head)}).")
    import h5py

    try:
        return h5py.File(path, "r", locking=False)
    except Exception as error:  # damage shows as OSError, RuntimeError, KeyError, ...
        raise DataError(f"{what} {path}: damaged or cut off ({_short(error)}). Copy or make it again.") from None


class Hdf5Maps(Mapping[str, Any]):
    """Numeric datasets of an HDF5 file by their path (`group/name`), each read when asked for.

    Two-dimensional datasets come as arrays [H, W]; three-dimensional ones as `Stack`, of which single maps are read.
    Links to other files, virtual datasets and external storage are not followed. Can be sent to another process.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._handle: tuple[int, Any] | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}
        try:
            self._collect(self._file(), "", set())
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"HDF5 file {path}: damaged ({_short(error)}). Copy or make it again.") from None

    def __getitem__(self, key: str) -> Any:
        if key not in self._shapes:
            raise KeyError(key)
        if len(self._shapes[key]) == 3:
            return Stack(self, key, self._shapes[key])
        return self.read_part(key, ())

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def __contains__(self, key: object) -> bool:
        return key in self._shapes

    def shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of a dataset."""
        return self._shapes[key]

    def read_part(self, key: str, where: tuple[Any, ...]) -> NDArray[Any]:
        """Read `dataset[where]`.

        Raises:
            DataError: damaged, or a single map larger than any depth map.
        """
        shape = self._shapes[key][len(where) :]
        if int(np.prod([int(n) for n in shape], dtype=object)) > MAX_PIXELS:
            raise DataError(f"array '{key}' of {self.path}: shape {shape} is too large for a depth map.")
        try:
            return np.asarray(self._file()[key][where])
        except DataError:
            raise
        except Exception as error:  # also a filter that needs a plug-in
            raise DataError(f"array '{key}' of {self.path}: cannot be read ({_short(error)}).") from None

    def close(self) -> None:
        """Close the file; the next access opens it again."""
        if self._handle is not None and self._handle[0] == os.getpid():
            with contextlib.suppress(Exception):
                self._handle[1].close()
        self._handle = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}

    def _file(self) -> Any:
        if self._handle is None or self._handle[0] != os.getpid():
            self._handle = (os.getpid(), _open(self.path, "HDF5 file"))
        return self._handle[1]

    def _collect(self, group: Any, prefix: str, seen: set[Any]) -> None:
        import h5py

        token = h5py.h5o.get_info(group.id).addr
        if token in seen:  # hard links may form a cycle
            return
        seen.add(token)
        for key in group:
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                continue
            item = group[key]
            if isinstance(item, h5py.Group):
                self._collect(item, f"{prefix}{key}/", seen)
            elif isinstance(item, h5py.Dataset) and _is_map(item):
                self._shapes[f"{prefix}{key}"] = tuple(int(n) for n in item.shape)
            if len(self._shapes) > _MAX_DATASETS:
                raise DataError(f"HDF5 file {self.path}: more than {_MAX_DATASETS} arrays.")


class Stack:
    """A dataset (N, H, W) whose maps are read one by one: `stack[i]`."""

    def __init__(self, maps: Hdf5Maps, key: str, shape: tuple[int, ...]) -> None:
        self._maps, self._key, self.shape = maps, key, shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, i: int) -> NDArray[Any]:
        if not 0 <= i < self.shape[0]:
            raise IndexError(i)
        return self._maps.read_part(self._key, (i,))


class PackedMaps(Mapping[str, DepthMap]):
    """A pack of dense maps or of ground truth behind the same interface; sparse maps become dense, 0 = missing."""

    def __init__(self, path: str | Path) -> None:
        from adubench.io.packed import AtGroundTruthPack, open_pack

        self.pack = open_pack(path)
        if isinstance(self.pack, AtGroundTruthPack):
            raise DataError(
                f"pack {path}: holds values at the pixels of one ground truth, not maps. "
                "Give that ground-truth pack beside it, or pack whole maps."
            )

    def __getitem__(self, key: str) -> DepthMap:
        if key not in self.pack:
            raise KeyError(key)
        found = self.pack.read(key)
        if isinstance(found, DepthMap):
            return found
        dense = np.zeros(found.shape[0] * found.shape[1], found.values.dtype)
        dense[found.index] = found.values
        return DepthMap(dense.reshape(found.shape), found.scale)

    def __iter__(self) -> Iterator[str]:
        return iter(self.pack.names)

    def __len__(self) -> int:
        return len(self.pack.names)

    def __contains__(self, key: object) -> bool:
        return key in self.pack

    def shape(self, key: str) -> tuple[int, ...]:
        """Return height and width of a map."""
        shape: tuple[int, int] = self.pack.shape(key)
        return shape

    def close(self) -> None:
        """Close the file."""
        self.pack.close()


def open_hdf5_maps(path: str | Path) -> Hdf5Maps | PackedMaps:
    """Open an HDF5 file as maps by name: one of ours (pack), or one that another program wrote.

    Raises:
        DataError: missing, not HDF5, or damaged.
    """
    from adubench.io.pack_codec import MARK

    with open_h5(path, "HDF5 file") as file:
        try:
            packed = MARK in file.attrs
        except Exception:
            packed = False
    return PackedMaps(path) if packed else Hdf5Maps(path)


def _is_map(dataset: Any) -> bool:
    shape = dataset.shape
    return (
        shape is not None
        and len(shape) in (2, 3)
        and 0 not in shape
        and dataset.dtype.kind in "uif"
        and not dataset.is_virtual
        and not dataset.external
    )


def _short(error: Exception) -> str:
    """Return the first part of HDF5's chain of messages."""
    return (str(error) or type(error).__name__).split("\n")[0][:120]
