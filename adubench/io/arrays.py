"""NumPy files: `.npy` memory-mapped, `.npz` member by member. Nothing is ever unpickled."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import DataError

MAX_MEMBER_BYTES = 16 * 1024**3
"""Arrays in archives are read into memory; larger ones are refused (store them as `.npy` or HDF5 instead)."""

_NUMBERS = "buif"
_PICKLED = (
    "holds Python objects, which adubench never unpickles. Point --gt to the PNG maps, "
    "or save it again as plain arrays, one per frame."
)


def read_npy(path: str | Path, *, mmap: bool = False) -> NDArray[Any]:
    """Read a `.npy` file.

    Args:
        path: the file.
        mmap: open it read-only without reading its values; they come from disk as they are used.

    Returns:
        Bool, integer or floating-point array of any shape.

    Raises:
        DataError: missing, not a `.npy` file, truncated, empty, pickled, or not numeric.
    """
    name = f"array file {path}"
    try:
        with Path(path).open("rb") as file:
            dtype, shape = _read_head(file, name)
        _check_dtype(dtype, name)
        size = math.prod(shape) * dtype.itemsize
        if size > Path(path).stat().st_size:
            raise DataError(f"{name}: cut off, its header promises {size} bytes of values. Copy the file again.")
        array = np.load(path, mmap_mode="r" if mmap and size else None, allow_pickle=False)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{name}: no such file. Check the path.") from None
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error}). Check the path.") from None
    except Exception as error:  # a header that lies about size or type
        raise _broken(name, error) from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"{name}: not a .npy file. Rename it to what it is.")
    return array


class NpzArchive(Mapping[str, NDArray[Any]]):
    """The arrays of a `.npz` file by name, each read when asked for. Can be sent to another process.

    Names are the member names without `.npy`; they never become paths.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._zip: zipfile.ZipFile | None = None
        self._stack: tuple[str, NDArray[Any]] | None = None
        self._members = {
            info.filename.removesuffix(".npy"): info for info in self._archive().infolist() if not info.is_dir()
        }

    def __getitem__(self, key: str) -> NDArray[Any]:
        if key not in self._members:
            raise KeyError(key)
        if self._stack is not None and self._stack[0] == key:
            return self._stack[1]
        info = self._members[key]
        name = f"array '{key}' of {self.path}"
        try:
            array = _read_member(self._archive(), info, name)
        except DataError:
            raise
        except Exception as error:  # zipfile raises BadZipFile, NotImplementedError, RuntimeError, zlib.error, ...
            raise _broken(name, error) from None
        if array.ndim == 3:  # asked for once per frame: inflate a stack only once
            self._stack = (key, array)
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, key: object) -> bool:
        return key in self._members

    def shape(self, key: str) -> tuple[int, ...] | None:
        """Read the shape of one array from its header; None for arrays that hold no numbers (text, masks).

        Raises:
            DataError: unknown, damaged or pickled member.
        """
        name = f"array '{key}' of {self.path}"
        if key not in self._members:
            raise DataError(f"{name}: no such array.")
        try:
            with self._archive().open(self._members[key]) as file:
                dtype, shape = _read_head(file, name)
            if dtype.hasobject:
                raise DataError(f"{name}: {_PICKLED}")
            return shape if dtype.kind in "uif" else None
        except DataError:
            raise
        except Exception as error:
            raise _broken(name, error) from None

    def close(self) -> None:
        """Close the file; the next access opens it again."""
        if self._zip is not None:
            self._zip.close()
            self._zip = None

    def _archive(self) -> zipfile.ZipFile:
        if self._zip is None:
            try:
                self._zip = zipfile.ZipFile(self.path)
            except FileNotFoundError:
                raise DataError(f"archive {self.path}: no such file. Check the path.") from None
            except Exception as error:
                raise DataError(f"archive {self.path}: not a readable .npz file ({error}). Copy it again.") from None
        return self._zip

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_zip": None, "_stack": None}


def open_npz(path: str | Path) -> NpzArchive:
    """Open a `.npz` file; see `NpzArchive`.

    Raises:
        DataError: missing or not a zip archive. Damage inside a member shows when that member is read.
    """
    return NpzArchive(path)


def _read_head(file: Any, name: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Read magic and header of an array stream; sizes are sane, the dtype is not checked."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    except Exception as error:
        raise DataError(f"{name}: not a NumPy array ({error}). Was the file renamed or cut off?") from None
    if any(not isinstance(n, int) or n < 0 for n in shape) or len(shape) > 32:
        raise DataError(f"{name}: shape {shape} is not valid. Save the array again.")
    return dtype, shape


def _check_dtype(dtype: np.dtype[Any], name: str, extra: str = "") -> None:
    if dtype.hasobject:
        raise DataError(f"{name}: {_PICKLED}")
    if dtype.kind not in _NUMBERS + extra:
        raise DataError(f"{name}: expected numbers, got dtype {dtype}. Save depth as float32 or uint16.")


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> NDArray[Any]:
    with archive.open(info) as file:
        dtype, shape = _read_head(file, name)
        _check_dtype(dtype, name, "US")
        size = math.prod(shape) * dtype.itemsize
        start = file.tell()
        if size != info.file_size - start:
            raise DataError(
                f"{name}: its header promises {size} bytes, the archive holds {info.file_size - start}. Save it again."
            )
        if size > MAX_MEMBER_BYTES:
            raise DataError(f"{name}: {size / 1024**3:.0f} GiB are too much for an archive. Use .npy or HDF5.")
    if size > 1040 * info.compress_size + 1024:  # deflate cannot shrink by more than 1032
        raise DataError(f"{name}: its declared size of {size} bytes cannot be true. Save it again.")
    with archive.open(info) as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _broken(name: str, error: Exception) -> DataError:
    return DataError(f"{name}: cannot be read ({str(error) or type(error).__name__}). Copy or save it again.")
