"""Named depth maps from a folder, an archive, or an array file, behind one interface.

Predictions and explicit ground truth come in the same forms: a folder or zip of `.png` / `.npy` files named by their
relative stem, one `.npz` or HDF5 file with an array per name, or one stacked array (N, H, W) in official order.
"""

from __future__ import annotations

import io
import lzma
import os
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from adubench.errors import DataError
from adubench.io.maps import DepthMap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

MAP_SUFFIXES = (".png", ".npy")
ARRAY_FILE_SUFFIXES = (".npz", ".npy", ".h5", ".hdf5")
_MAX_MEMBER_BYTES = 512 * 1024 * 1024
# What zipfile and the decompressors raise for damaged, encrypted or exotic archives.
_ZIP_ERRORS = (
    OSError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, NotImplementedError, EOFError, ValueError,
    KeyError, struct.error, OverflowError, MemoryError,
)  # fmt: skip


class MapCollection(Protocol):
    """Maps by name. Readers are cheap to pickle and reopen their file in every process.

    Attributes:
        root: the folder or file.
        names: sorted names (relative stems with `/`), or positions as ten digits when `stacked`.
        stacked: one array (N, H, W) in official order: names carry no identity.
        single: one map in a file of its own: its name carries no identity either.
    """

    root: Path
    names: tuple[str, ...]
    stacked: bool
    single: bool

    def read(self, name: str) -> DepthMap:
        """Read one map."""
        ...

    def where(self, name: str) -> str:
        """Say in which file a map lies, for error messages."""
        ...


def open_maps(path: str | Path, *, what: str = "prediction", png_scale: float = 256.0) -> MapCollection:
    """Open a folder, zip, `.npz`, `.npy`, HDF5 or single `.png` as a collection of maps.

    Args:
        path: what the user named.
        what: "prediction" or "ground truth", for the messages.
        png_scale: metres = PNG code / png_scale.

    Raises:
        DataError: nothing there, nothing usable in it, or two files for one name.
    """
    root = Path(path)
    if not root.exists():
        raise DataError(f"{what} not found: {root}. Check the path; it may be relative to {Path.cwd().name}/.")
    if root.is_dir():
        return FolderMaps(root, what, png_scale)
    suffix = root.suffix.lower()
    if suffix == ".zip":
        return ZipMaps(root, what, png_scale)
    if suffix in (".h5", ".hdf5"):
        from adubench.io.packed import is_pack

        return PackMaps(root, what) if is_pack(root) else ArrayFileMaps(root, what)
    if suffix == ".npz":
        return ArrayFileMaps(root, what)
    if suffix == ".npy":
        return NpyMaps(root)
    if suffix == ".png":
        return SingleMap(root, png_scale)
    raise DataError(
        f"{what} {root}: cannot be opened; expected a folder, .zip, .npz, .npy, .h5, .hdf5 or a 16-bit .png, got "
        f"'{suffix or 'no extension'}'."
    )


def walk_files(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield (relative path with `/`, path) of all visible files below `root`, links followed, each folder once."""
    seen: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(d for d in subfolders if not d.startswith(".") and d != "__MACOSX")
        relative = Path(folder).relative_to(root)
        for file in sorted(files):
            if not file.startswith("."):
                yield (relative / file).as_posix(), Path(folder) / file


class FolderMaps:
    """PNG and npy files below a folder, named by their relative stem."""

    stacked = False
    single = False

    def __init__(self, root: Path, what: str, png_scale: float) -> None:
        self.root = root
        self._scale = png_scale
        self._files: dict[str, Path] = {}
        others = []
        for relative, path in walk_files(root):
            if path.suffix.lower() in MAP_SUFFIXES:
                _add(self._files, relative, path, what, root)
            else:
                others.append(relative)
        if not self._files:
            hint = f" It holds {others[0]}; pass that file itself." if _array_file(others) else ""
            raise DataError(f"{what} folder {root}: no .png or .npy file in it.{hint}")
        self.names = tuple(sorted(self._files))

    def read(self, name: str) -> DepthMap:
        """Read one file.

        Raises:
            DataError: not a 16-bit grey PNG, not a 2-D array, truncated, unreadable.
        """
        path = self._files[name]
        if path.suffix.lower() == ".png":
            from adubench.io.depth_png import read_depth_map

            return read_depth_map(path, self._scale)
        from adubench.io.arrays import read_npy

        return _as_map(read_npy(path), str(path))

    def where(self, name: str) -> str:
        """Return the file's path."""
        return str(self._files[name])


class ZipMaps:
    """PNG and npy members of a zip archive, read in place."""

    stacked = False
    single = False

    def __init__(self, root: Path, what: str, png_scale: float) -> None:
        self.root = root
        self._scale = png_scale
        self._handle: tuple[int, zipfile.ZipFile] | None = None
        self._members: dict[str, str] = {}
        for info in self._archive().infolist():
            pure = PurePosixPath(info.filename)
            hidden = any(part.startswith(".") or part == "__MACOSX" for part in pure.parts)
            if not hidden and pure.suffix.lower() in MAP_SUFFIXES:
                _add(self._members, info.filename, info.filename, what, root)
        if not self._members:
            raise DataError(f"{what} archive {root}: no .png or .npy file in it.")
        self.names = tuple(sorted(self._members))

    def __getstate__(self) -> dict[str, Any]:
        """Drop the open handle: every process opens its own."""
        return self.__dict__ | {"_handle": None}

    def _archive(self) -> zipfile.ZipFile:
        if self._handle is None or self._handle[0] != os.getpid():
            try:
                self._handle = (os.getpid(), zipfile.ZipFile(self.root))
            except _ZIP_ERRORS as error:
                raise DataError(f"{self.root}: not a readable zip archive ({error}).") from None
        return self._handle[1]

    def read(self, name: str) -> DepthMap:
        """Decode one member.

        Raises:
            DataError: broken, encrypted or oversized member, or not a depth map.
        """
        member, where = self._members[name], self.where(name)
        archive = self._archive()
        info = archive.getinfo(member)
        if info.file_size > _MAX_MEMBER_BYTES:
            raise DataError(f"{where}: unpacks to more than {_MAX_MEMBER_BYTES >> 20} MiB; that is no depth map.")
        try:
            with archive.open(info) as stream:
                data = stream.read(info.file_size + 1)  # a member may be larger than it says
        except _ZIP_ERRORS as error:
            raise DataError(f"{where}: cannot be read from the archive ({error}).") from None
        if member.lower().endswith(".png"):
            from adubench.io.png import decode_grey16

            return DepthMap(decode_grey16(data, where), self._scale)
        try:
            return _as_map(np.load(io.BytesIO(data), allow_pickle=False), where)
        except Exception as error:  # a damaged header can raise anything
            raise DataError(f"{where}: not a readable .npy array ({error}).") from None

    def where(self, name: str) -> str:
        """Return archive and member."""
        return f"{self.root}:{self._members[name]}"


class ArrayFileMaps:
    """One `.npz` or HDF5 file: an array [H, W] per name, or one stacked array [N, H, W]."""

    single = False

    def __init__(self, root: Path, what: str) -> None:
        self.root = root
        self._handle: tuple[int, Any] | None = None
        self._whole: Any = None
        arrays = self._arrays()
        shapes = {name: arrays.shape(name) for name in arrays}
        maps = sorted(name for name, shape in shapes.items() if shape is not None and len(shape) == 2)
        stacks = sorted(name for name, shape in shapes.items() if shape is not None and len(shape) == 3)
        self._stack = stacks[0] if not maps and len(stacks) == 1 else None
        self.stacked = self._stack is not None
        if self._stack is not None:
            maps = [f"{i:010d}" for i in range((shapes[self._stack] or (0,))[0])]
        if not maps:
            held = ", ".join(f"{n} {s}" for n, s in list(shapes.items())[:4]) or "nothing"
            raise DataError(
                f"{what} file {root}: expected numeric arrays (H, W) by name or one array (N, H, W), found {held}."
            )
        self.names = tuple(maps)
        self.single = len(maps) == 1

    def __getstate__(self) -> dict[str, Any]:
        """Drop the open handle: every process opens its own."""
        return self.__dict__ | {"_handle": None, "_whole": None}

    def _arrays(self) -> Any:
        if self._handle is None or self._handle[0] != os.getpid():
            from adubench.io.arrays import open_npz

            if self.root.suffix.lower() == ".npz":
                opened: Any = open_npz(self.root)
            else:
                from adubench.io.packed import open_hdf5_maps

                opened = open_hdf5_maps(self.root)
            self._handle = (os.getpid(), opened)
        return self._handle[1]

    def read(self, name: str) -> DepthMap:
        """Read one array."""
        if self._stack is not None:
            arrays = self._arrays()
            if self._whole is None:  # an npz member can only be read as a whole; HDF5 hands out slices
                self._whole = arrays[self._stack]
            return _as_map(self._whole[int(name)], self.where(name))
        value = self._arrays()[name]
        return value if isinstance(value, DepthMap) else _as_map(value, self.where(name))

    def where(self, name: str) -> str:
        """Return file and array name."""
        return f"{self.root}:{name}"


class PackMaps:
    """A pack of ours: dense maps, or values at the pixels of one ground-truth pack."""

    stacked = False

    def __init__(self, root: Path, what: str) -> None:
        from adubench.io.packed import AtGroundTruthPack, GroundTruthPack, open_pack

        self.root = root
        self.pack = open_pack(root)
        if isinstance(self.pack, GroundTruthPack) and what == "prediction":
            raise DataError(f"{what} {root}: is a pack of ground truth; give it with --gt.")
        self.names: tuple[str, ...] = tuple(self.pack.names)
        self.single = len(self.names) == 1
        self.pixel_values = isinstance(self.pack, AtGroundTruthPack)

    def read(self, name: str) -> Any:
        """Read a `DepthMap`, or an `AtGroundTruth` whose values belong to a ground truth's pixels."""
        found = self.pack.read(name)
        return found if not hasattr(found, "index") else DepthMap(found.dense())

    def read_first(self, name: str) -> Any:
        """Read the values at the pixels that the ground-truth pack stores first."""
        return self.pack.read_first(name)

    def where(self, name: str) -> str:
        """Return file and map name."""
        return f"{self.root}:{name}"


class NpyMaps:
    """One `.npy` file: a stack (N, H, W) in official order, read map by map, or a single map (H, W)."""

    def __init__(self, root: Path) -> None:
        from adubench.io.arrays import read_npy

        self.root = root
        array = read_npy(root, mmap=True)
        if array.ndim not in (2, 3):
            raise DataError(f"{root}: expected an array (N, H, W) or (H, W), got shape {array.shape}.")
        self.stacked = array.ndim == 3
        self.single = not self.stacked
        self.names: tuple[str, ...] = (
            tuple(f"{i:010d}" for i in range(array.shape[0])) if self.stacked else (root.stem,)
        )
        self._shape, self._dtype = array.shape[-2:], array.dtype
        # Pages of a mapping stay in memory; reading at an offset keeps it flat. A Fortran-ordered stack has no offsets.
        self._offset: int | None = getattr(array, "offset", None) if array.flags.c_contiguous else None

    def read(self, name: str) -> DepthMap:
        """Read one slice."""
        position = int(name) if self.stacked else 0
        if self._offset is None:
            from adubench.io.arrays import read_npy

            array = read_npy(self.root, mmap=True)
            return _as_map(np.array(array[position] if self.stacked else array), self.where(name))
        count = self._shape[0] * self._shape[1]
        offset = self._offset + position * count * self._dtype.itemsize
        try:
            values = np.fromfile(self.root, self._dtype, count, offset=offset)
        except OSError as error:
            raise DataError(f"{self.where(name)}: cannot be read ({error.strerror or error}).") from None
        if values.size != count:
            raise DataError(f"{self.where(name)}: the file was cut off while it was read. Copy it again.")
        return _as_map(values.reshape(self._shape), self.where(name))

    def where(self, name: str) -> str:
        """Return file and position."""
        return f"{self.root}[{int(name)}]" if self.stacked else str(self.root)


class SingleMap:
    """One PNG file."""

    stacked = False
    single = True

    def __init__(self, root: Path, png_scale: float) -> None:
        self.root = root
        self._scale = png_scale
        self.names: tuple[str, ...] = (root.stem,)

    def read(self, name: str) -> DepthMap:
        """Read the file, whatever `name` is."""
        from adubench.io.depth_png import read_depth_map

        return read_depth_map(self.root, self._scale)

    def where(self, name: str) -> str:
        """Return the file's path."""
        return str(self.root)


def _add(table: dict[str, Any], relative: str, value: Any, what: str, root: Path) -> None:
    stem = PurePosixPath(relative).with_suffix("").as_posix()
    try:
        stem.encode()
    except UnicodeEncodeError:
        raise DataError(f"{what} {root}: the name of {relative!a} is no UTF-8 text. Rename the file.") from None
    if stem in table:
        raise DataError(f"{what} {root}: two files for one frame '{stem}': {table[stem]} and {value}. Remove one.")
    table[stem] = value


def _array_file(relatives: list[str]) -> bool:
    return bool(relatives) and relatives[0].lower().endswith(ARRAY_FILE_SUFFIXES)


def _as_map(array: NDArray[Any], where: str) -> DepthMap:
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
        array = array[0] if array.shape[0] == 1 else array[:, :, 0]
    if array.ndim != 2 or 0 in array.shape:
        raise DataError(f"{where}: expected a map (H, W), got an array of shape {array.shape}.")
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise DataError(f"{where}: expected numbers, got dtype {array.dtype}.")
    return DepthMap(np.asarray(array), 1.0)
