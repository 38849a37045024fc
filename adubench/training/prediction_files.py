"""Where predictions are written: a folder of `.npy` or PNG files, one `.npz`, one HDF5. Never half of a file."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from adubench.errors import UsageError

FORMATS: tuple[str, ...] = ("npy", "png", "npz", "hdf5")
_ONE_FILE = {"npz": "predictions.npz", "hdf5": "predictions.h5"}
_EPOCH = (1980, 1, 1, 0, 0, 0)


class Writer(Protocol):
    """Takes maps by name."""

    def write(self, name: str, values: NDArray[np.float32]) -> None:
        """Write one map float32 [h, w]."""
        ...


class FolderWriter:
    """One file per map below a folder, each written atomically."""

    def __init__(self, root: Path, suffix: str, png_scale: float = 256.0) -> None:
        self.root, self.suffix, self.png_scale = root, suffix, png_scale

    def path(self, name: str) -> Path:
        """Return where a map goes."""
        return self.root / f"{name}.{self.suffix}"

    def write(self, name: str, values: NDArray[np.float32]) -> None:
        """Write one map."""
        if self.suffix == "png":
            from adubench.io.depth_png import write_depth_png

            write_depth_png(self.path(name), values, self.png_scale)
            return
        from adubench.io.atomic import write_bytes

        write_bytes(self.path(name), _npy(values))


class _NpzWriter:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def write(self, name: str, values: NDArray[np.float32]) -> None:
        info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
        info.compress_type = zipfile.ZIP_DEFLATED
        self._archive.writestr(info, _npy(values), compresslevel=1)


class _Hdf5Writer:
    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, name: str, values: NDArray[np.float32]) -> None:
        self._file.create_dataset(name, data=values, compression="gzip", compression_opts=1, shuffle=True)


@contextlib.contextmanager
def open_writer(root: Path, form: str) -> Iterator[Writer]:
    """Open a place for maps.

    `npz` and `hdf5` are one file below `root` that appears when the block ends well; the others appear map by map.

    Raises:
        UsageError: unknown format.
        DataError: the file cannot be written.
    """
    from adubench.io.atomic import atomic_path

    if form in ("npy", "png"):
        yield FolderWriter(root, form)
    elif form == "npz":
        with atomic_path(root / _ONE_FILE[form]) as path, zipfile.ZipFile(path, "w") as archive:
            yield _NpzWriter(archive)
    elif form == "hdf5":
        import h5py

        with atomic_path(root / _ONE_FILE[form]) as path, h5py.File(path, "w") as file:
            yield _Hdf5Writer(file)
    else:
        raise UsageError(f"--format {form}: expected one of {', '.join(FORMATS)}.")


def written_path(root: Path, form: str, name: str) -> Path:
    """Return the file that holds (or will hold) a map."""
    return root / _ONE_FILE.get(form, f"{name}.{form}")


def write_record(root: Path, record: dict[str, Any]) -> Path:
    """Write `prediction.json` beside the maps: what made them, and how."""
    from adubench.io.atomic import write_text

    path = root / "prediction.json"
    write_text(path, json.dumps(record, indent=1, sort_keys=True, allow_nan=False, default=str) + "\n")
    return path


def _npy(values: NDArray[np.float32]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(values), allow_pickle=False)
    return stream.getvalue()
