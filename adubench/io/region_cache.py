"""A cache of small byte strings by name in one HDF5 file: the region masks of a data set.

The file is complete or absent, and carries a key (hash of parameters, version) and a stamp (what it was made from);
with another key or stamp it counts as absent. Entries are contiguous, so that one is read without touching the others.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import DataError
from adubench.io.atomic import atomic_path

if TYPE_CHECKING:
    from collections.abc import Iterable

_VERSION = 2
_KIND = "adubench_regions"
_BLOCK = 1 << 23


class RegionCache:
    """Reads a cache; picklable, every process opens the file itself.

    Attributes:
        path: the file.
        names: the entries.
        facts: what was stored beside them.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._open: tuple[int, Any, Any] | None = None
        attrs = self._file().attrs
        if attrs.get(_KIND) != _VERSION:
            raise DataError(f"{path}: not a region cache of this version. Remove the file; it is made again.")
        self.key, self.stamp = str(attrs["key"]), str(attrs["stamp"])
        self.facts: dict[str, Any] = json.loads(attrs["facts"])
        names: list[str] = json.loads(self._file()["names"][()].tobytes())
        self._place = {name: position for position, name in enumerate(names)}
        self._ends = self._file()["ends"][()]

    @property
    def names(self) -> tuple[str, ...]:
        """The entries in their order."""
        return tuple(self._place)

    def __getstate__(self) -> dict[str, Any]:
        """Drop the open file."""
        return self.__dict__ | {"_open": None}

    def __contains__(self, name: str) -> bool:
        return name in self._place

    def read(self, name: str) -> NDArray[np.uint8]:
        """Read an entry, uint8 [n].

        Raises:
            DataError: no such entry, or the file is damaged.
        """
        if name not in self._place:
            raise DataError(f"region cache {self.path}: no entry '{name}'. Remove the file; it is made again.")
        position = self._place[name]
        start, end = int(self._ends[position]), int(self._ends[position + 1])
        try:
            data: NDArray[np.uint8] = self._data()[start:end]
        except OSError as error:
            raise DataError(f"region cache {self.path} is damaged ({error}). Remove the file.") from None
        return data

    def close(self) -> None:
        """Close the file; reading opens it again."""
        if self._open is not None and self._open[0] == os.getpid():
            self._open[1].close()
        self._open = None

    def _file(self) -> Any:
        if self._open is None or self._open[0] != os.getpid():
            import h5py

            try:
                self._open = (os.getpid(), h5py.File(self.path, "r", locking=False), None)
            except OSError as error:
                raise DataError(f"cannot read region cache {self.path}: {error}. Remove the file.") from None
        return self._open[1]

    def _data(self) -> Any:
        """Return the entries one after another; looking them up by name costs more than reading one."""
        file = self._file()
        assert self._open is not None
        if self._open[2] is None:
            self._open = (self._open[0], file, file["data"])
        return self._open[2]


def open_region_cache(path: str | Path, key: str, stamp: str) -> RegionCache | None:
    """Open a cache when it exists, is whole, and was made with this key from these sources; None otherwise."""
    if not Path(path).is_file():
        return None
    try:
        cache = RegionCache(path)
    except (DataError, KeyError, ValueError):
        return None
    if cache.key == key and cache.stamp == stamp:
        return cache
    cache.close()
    return None


def write_region_cache(
    path: str | Path,
    entries: Iterable[tuple[str, bytes]],
    key: str,
    stamp: str,
    facts: dict[str, Any] | None = None,
) -> None:
    """Write a cache; memory stays flat in the number of entries.

    Args:
        path: the HDF5 file.
        entries: (name, bytes), each name once.
        key: what the bytes depend on besides their sources: parameters and version.
        stamp: identifies the sources.
        facts: JSON values to keep.

    Raises:
        DataError: a name comes twice, or the file cannot be written.
    """
    import h5py

    names: dict[str, None] = {}
    ends = [0]
    with atomic_path(path) as temporary, tempfile.TemporaryFile(dir=Path(path).parent) as spool:
        for name, entry in entries:
            if name in names:
                raise DataError(f"region cache {path}: frame '{name}' comes twice.")
            names[name] = None
            ends.append(ends[-1] + len(entry))
            spool.write(entry)
        spool.seek(0)
        with h5py.File(temporary, "w", libver=("v108", "v110")) as file:
            data = file.create_dataset("data", (ends[-1],), np.uint8)
            for start in range(0, ends[-1], _BLOCK):
                block = np.frombuffer(spool.read(_BLOCK), np.uint8)
                data[start : start + block.size] = block
            file["names"] = np.frombuffer(json.dumps(list(names)).encode(), np.uint8)
            file["ends"] = np.array(ends, np.int64)
            file.attrs.update({_KIND: _VERSION, "key": key, "stamp": stamp, "facts": json.dumps(facts or {})})
