"""What can be said of a teacher's stored maps before training: whole files, 16 bits, sizes that fit, maps with depth.

Nothing of that decodes 20,000 maps. Empty ones are found because they compress to next to nothing, and changed ones by
the checksums that PNG and gzip carry anyway.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.datasets.teacher_maps import TeacherMaps
from adubench.datasets.tie_kd_transforms import Window, window_size
from adubench.errors import DataError
from adubench.io.hdf5_maps import open_h5
from adubench.io.png import read_header, require_grey16

Size = tuple[int, int]
_HEADER_BYTES = 33
_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_AGAIN = "Delete it and predict with --skip-existing."
_CHECKSUM_BYTES = 4
#: Maps smaller than their pixels by this factor are decoded: real depth compresses two- to tenfold.
_SUSPICIOUS = 50
#: Share of pixels with a depth inside the range below which a map has nothing to teach.
_LEAST_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class _Stored:
    """A map as it lies on the disk: (height, width), bytes, checksum of its content, time of its last change."""

    size: Size
    stored: int
    checksum: bytes
    changed: float


def check_map_files(
    maps: TeacherMaps, stems: Mapping[str, str], window: Window, frame_size: Callable[[str], Size | None]
) -> dict[str, str]:
    """Look at every map's header and last bytes; 20,000 maps take seconds.

    Args:
        maps: where they are.
        stems: name of each frame -> stem of its map.
        window: what training cuts out of the frames.
        frame_size: name of a frame -> (height, width) of its image, None if only decoding would tell. Asked once for
            each size that the maps have.

    Returns:
        For the record of a run: `form` (png or hdf5), `sha256` over names and checksums of the maps, `newest` (the file
        that was changed last) and `changed` (when).

    Raises:
        DataError: the first map that is cut off, of another kind, of a size that belongs to no such frame, or empty.
    """
    stored = _packed(maps, stems) if not maps.root.is_dir() else _pngs(maps.root, stems)
    _check_sizes(maps, stored, window, frame_size)
    for name, entry in stored.items():
        if entry.stored * _SUSPICIOUS < 2 * entry.size[0] * entry.size[1]:
            require_depth(maps.read(stems[name]), maps, stems[name])
    return _record(maps, stems, stored)


def require_depth(depth: NDArray[Any], maps: TeacherMaps, stem: str) -> None:
    """Refuse a map that teaches nothing.

    Args:
        depth: [H, W] metres.
        maps: where it is from.
        stem: its name there.

    Raises:
        DataError: next to no pixel has a depth between 0 and the end of the range.
    """
    limit = maps.record.max_depth
    none, beyond = int(np.count_nonzero(depth <= 0)), int(np.count_nonzero(depth >= limit))
    if depth.size - none - beyond < _LEAST_SHARE * depth.size:
        where = maps.root / f"{stem}.png" if maps.root.is_dir() else f"{stem} in {maps.root}"
        raise DataError(
            f"teacher map {where}: teaches nothing, {none / depth.size:.1%} of its pixels have no depth and "
            f"{beyond / depth.size:.1%} have {limit:g} m or more. Look at the teacher's prediction and its unit, and "
            "write the map again."
        )


def _record(maps: TeacherMaps, stems: Mapping[str, str], stored: Mapping[str, _Stored]) -> dict[str, str]:
    digest = hashlib.sha256()
    for stem, entry in sorted((stems[name], entry) for name, entry in stored.items()):
        digest.update(f"{stem} {entry.stored} {entry.checksum.hex()}\n".encode())
    last = max(stored, key=lambda name: stored[name].changed)
    loose = maps.root.is_dir()
    return {
        "form": "png" if loose else "hdf5",
        "sha256": digest.hexdigest(),
        "newest": f"{stems[last]}.png" if loose else maps.root.name,
        "changed": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(stored[last].changed)),
    }


def _check_sizes(
    maps: TeacherMaps, stored: Mapping[str, _Stored], window: Window, frame_size: Callable[[str], Size | None]
) -> None:
    seen: set[Size] = set()
    for name, size in ((name, entry.size) for name, entry in stored.items()):
        if size in seen:
            continue
        seen.add(size)
        frame = frame_size(name)
        if frame is not None and size not in (frame, window_size(frame, window)):
            expected = window_size(frame, window)
            raise DataError(
                f"teacher map of {name} in {maps.root}: it has {size[0]}x{size[1]} pixels, expected "
                f"{expected[0]}x{expected[1]} (the window) or {frame[0]}x{frame[1]} (the frame). Predict the maps "
                "again from these images."
            )


def _pngs(root: Path, stems: Mapping[str, str]) -> dict[str, _Stored]:
    return {name: _png(root / f"{stem}.png") for name, stem in stems.items()}


def _png(path: Path) -> _Stored:
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER_BYTES)
            facts = path.stat()
            file.seek(max(0, facts.st_size - len(_END) - _CHECKSUM_BYTES))
            end = file.read()
    except OSError as error:
        raise DataError(f"teacher map {path}: cannot be read ({error.strerror or error}).") from None
    header = read_header(head, f"teacher map {path}")
    require_grey16(header, f"teacher map {path}")
    if not end.endswith(_END):
        raise DataError(f"teacher map {path}: truncated PNG, its end is missing. {_AGAIN}")
    return _Stored((header.height, header.width), facts.st_size, end[:_CHECKSUM_BYTES], facts.st_mtime)


def _packed(maps: TeacherMaps, stems: Mapping[str, str]) -> dict[str, _Stored]:
    found = {}
    changed = maps.root.stat().st_mtime
    with open_h5(maps.root, "teacher maps") as file, maps.root.open("rb") as raw:
        for name, stem in stems.items():
            try:
                shape, kind = file[stem].shape, str(file[stem].dtype)
            except (KeyError, OSError, RuntimeError, AttributeError) as error:
                raise DataError(
                    f"teacher map {stem} in {maps.root}: cannot be read ({error}). Pack it again."
                ) from None
            if len(shape) != 2 or kind != "uint16":
                raise DataError(f"teacher map {stem} in {maps.root}: expected 16-bit codes [H, W]. Pack it again.")
            stored, checksum = _chunk(file[stem].id, raw)
            found[name] = _Stored((int(shape[0]), int(shape[1])), stored, checksum, changed)
    return found


def _chunk(dataset: Any, raw: Any) -> tuple[int, bytes]:
    """Return stored bytes of a data set and, where it is one chunk of gzip, the checksum at the chunk's end."""
    stored = int(dataset.get_storage_size())
    if dataset.get_create_plist().get_nfilters() != 1 or dataset.get_num_chunks() != 1:
        return stored, b""
    chunk = dataset.get_chunk_info(0)
    raw.seek(chunk.byte_offset + chunk.size - _CHECKSUM_BYTES)
    return stored, bytes(raw.read(_CHECKSUM_BYTES))
