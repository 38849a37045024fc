"""What can be said of a teacher's stored maps before any is decoded: whole files, 16 bits, sizes that fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from adubench.datasets.teacher_maps import TeacherMaps
from adubench.datasets.tie_kd_transforms import Window, window_size
from adubench.errors import DataError
from adubench.io.hdf5_maps import open_h5
from adubench.io.png import read_header, require_grey16

Size = tuple[int, int]
_HEADER_BYTES = 33
_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_AGAIN = "Delete it and predict with --skip-existing."


def check_map_files(
    maps: TeacherMaps, stems: Mapping[str, str], window: Window, frame_size: Callable[[str], Size | None]
) -> None:
    """Look at every map's header and last bytes; 20,000 maps take seconds.

    Args:
        maps: where they are.
        stems: name of each frame -> stem of its map.
        window: what training cuts out of the frames.
        frame_size: name of a frame -> (height, width) of its image, None if only decoding would tell. Asked once for
            each size that the maps have.

    Raises:
        DataError: the first map that is cut off, of another kind, or of a size that belongs to no such frame.
    """
    sizes = _packed_sizes(maps, stems) if not maps.root.is_dir() else _png_sizes(maps.root, stems)
    seen: set[Size] = set()
    for name, size in sizes.items():
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


def _png_sizes(root: Path, stems: Mapping[str, str]) -> dict[str, Size]:
    return {name: _png_size(root / f"{stem}.png") for name, stem in stems.items()}


def _png_size(path: Path) -> Size:
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER_BYTES)
            file.seek(max(0, path.stat().st_size - len(_END)))
            end = file.read()
    except OSError as error:
        raise DataError(f"teacher map {path}: cannot be read ({error.strerror or error}).") from None
    header = read_header(head, f"teacher map {path}")
    require_grey16(header, f"teacher map {path}")
    if end != _END:
        raise DataError(f"teacher map {path}: truncated PNG, its end is missing. {_AGAIN}")
    return header.height, header.width


def _packed_sizes(maps: TeacherMaps, stems: Mapping[str, str]) -> dict[str, Size]:
    sizes = {}
    with open_h5(maps.root, "teacher maps") as file:
        for name, stem in stems.items():
            try:
                shape, kind = file[stem].shape, str(file[stem].dtype)
            except (KeyError, OSError, RuntimeError, AttributeError) as error:
                raise DataError(
                    f"teacher map {stem} in {maps.root}: cannot be read ({error}). Pack it again."
                ) from None
            if len(shape) != 2 or kind != "uint16":
                raise DataError(f"teacher map {stem} in {maps.root}: expected 16-bit codes [H, W]. Pack it again.")
            sizes[name] = (int(shape[0]), int(shape[1]))
    return sizes
