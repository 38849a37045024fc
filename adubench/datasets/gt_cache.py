"""The default cache of ground truth: a pack in the user's cache folder, rebuilt when its sources change.

Decoding a ground-truth PNG costs far more than reading packed pixels, and every evaluation of a split reads the same
maps. The cache is never trusted blindly: names, sizes and modification times of all source files must agree with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adubench.errors import AdubenchError, DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from adubench.datasets.frames import FrameKey
    from adubench.datasets.ground_truth import GroundTruth
    from adubench.io.maps import SparseDepth

    FirstMask = Callable[[SparseDepth], NDArray[np.bool_]]

log = logging.getLogger(__name__)

#: Below this many frames a pack costs more than it saves.
MIN_FRAMES = 32
CACHE_VARIABLE = "ADUBENCH_CACHE"


def default_cache_folder() -> Path:
    """Return `$ADUBENCH_CACHE`, else `adubench` in the user's cache folder (XDG)."""
    own = os.environ.get(CACHE_VARIABLE)
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "adubench"


class _SourceError(AdubenchError):
    """A map to be packed cannot be read."""


class PackedGroundTruth:
    """Ground truth read from a pack; every process opens the file itself.

    Attributes:
        frames: the frames of the source it was made from.
        kind: as the source's.
        layout: as the source's.
        file: path of the pack.
    """

    def __init__(self, source: GroundTruth, pack: Path) -> None:
        self.frames = source.frames
        self.kind = source.kind
        self.layout = source.layout
        self.file = pack
        self._open: tuple[int, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Drop the open file."""
        return self.__dict__ | {"_open": None}

    def read(self, frame: FrameKey) -> SparseDepth:
        """Read the ground truth of a frame."""
        with self._explained():
            found: SparseDepth = self._pack().read(frame.name)
        return found

    def first(self) -> str:
        """Key of the pixel selection that the pack stores first."""
        return str(self._pack().attrs["protocol_first"])

    def read_first(self, frame: FrameKey, *, positions: bool = True) -> SparseDepth:
        """Read the pixels of that selection alone."""
        with self._explained():
            found: SparseDepth = self._pack().read_first(frame.name, positions=positions)
        return found

    def signature(self, frame: FrameKey) -> tuple[int, int, int]:
        """Return the signature of a whole map without reading its pixels."""
        known: tuple[int, int, int] = self._pack().signature(frame.name)
        return known

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Say of a damaged cache that it is one."""
        try:
            yield
        except DataError:
            raise DataError(f"cached ground truth {self.file} is damaged: delete it and run again.") from None

    def _pack(self) -> Any:
        if self._open is None or self._open[0] != os.getpid():
            from adubench.io.packed import open_pack

            self._open = (os.getpid(), open_pack(self.file))
        return self._open[1]

    def paths(self, frame: FrameKey) -> tuple[Path, ...]:
        """Return the pack."""
        return (self.file,)


def cached_ground_truth(
    source: GroundTruth,
    frames: Sequence[FrameKey],
    folder: str | Path | None = None,
    *,
    first: tuple[str, FirstMask] | None = None,
) -> GroundTruth | PackedGroundTruth:
    """Return a reader of packed ground truth, building or rebuilding the pack first where needed.

    Args:
        source: where the maps lie.
        frames: the frames to be read.
        folder: cache folder; None for the default one.
        first: key and mask of the pixel selection to store first when the pack is made.

    Returns:
        `source` itself when there are fewer than `MIN_FRAMES` frames, when it is a pack or an array file already, or
        when the cache cannot be made (said in the log).
    """
    if len(frames) < MIN_FRAMES or getattr(source, "is_pack", False):
        return source
    files = {frame.name: source.paths(frame) for frame in frames}
    if len({p for paths in files.values() for p in paths}) < len(frames):
        return source  # one array file: already quick to read
    path = (Path(folder) if folder else default_cache_folder()) / f"gt-{_key(source, files)}.h5"
    stamp = _stamp(files)
    if not _fresh(path, stamp):
        try:
            _build(path, source, frames, stamp, first)
        except _SourceError:
            return source  # a broken map raises again, by name, when it is scored
        except AdubenchError as error:
            reason = str(error).partition(". ")[0]
            log.warning("ground truth is not cached, which costs time: %s; --cache names another folder.", reason)
            return source
    return PackedGroundTruth(source, path)


def _key(source: GroundTruth, files: dict[str, tuple[Path, ...]]) -> str:
    """Name the pack by what it holds and where that lies, so that two data roots never share one."""
    digest = hashlib.sha256(f"{type(source).__name__} {source.kind}\n".encode())
    for name, paths in files.items():
        digest.update(f"{name} {[str(p.absolute()) for p in paths]}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:24]


def _stamp(files: dict[str, tuple[Path, ...]]) -> str:
    """SHA-256 over size and modification time of every source file."""
    digest = hashlib.sha256()
    for paths in files.values():
        for path in paths:
            try:
                status = path.stat()
            except OSError:
                digest.update(b"absent")
                continue
            digest.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _fresh(path: Path, stamp: str) -> bool:
    if not path.is_file():
        return False
    from adubench.io.packed import open_pack

    try:
        with open_pack(path) as pack:
            return bool(pack.attrs.get("sources_stamp") == stamp)
    except AdubenchError:
        return False


def _build(
    path: Path,
    source: GroundTruth,
    frames: Sequence[FrameKey],
    stamp: str,
    first: tuple[str, FirstMask] | None,
) -> None:
    from adubench.io.packed import PackWriter

    log.info("packing ground truth of %d frames into %s", len(frames), path)
    key, mask = first or ("", None)
    attrs = {"sources_stamp": stamp, "gt_kind": source.kind}
    with PackWriter(path, "ground_truth", first=key, attrs=attrs) as writer:
        for frame in frames:
            try:
                depth = source.read(frame)
            except AdubenchError as error:
                raise _SourceError(str(error)) from None
            chosen = mask(depth) if mask is not None else None
            writer.add(frame.name, depth, first_mask=chosen, sources=source.paths(frame))
