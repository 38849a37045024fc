"""Edge maps drawn by people: binary images, or text with one "row column" pair per line (Mind The Edge, DDAD-DE)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import DataError
from adubench.io.depth_png import read_bytes
from adubench.io.images import read_rgb

_MOST = 0.5  # more edge than background: the picture is inverted or no edge map


def read_edges(path: str | Path, shape: tuple[int, int] | None = None) -> NDArray[np.bool_]:
    """Read an edge map.

    Args:
        path: `.txt` with 0-based "row column" pairs (blank lines and lines beginning with # are skipped), anything else
            an image of two values, the larger of which marks edges.
        shape: (H, W) the map must have; required for text.

    Returns:
        bool [H, W].

    Raises:
        DataError: missing or unreadable, another size, more than two values, more edge than background, a malformed
            line, or a pair outside the image; names the file (and the line).
    """
    if Path(path).suffix.lower() == ".txt":
        return _read_pairs(path, shape)
    rgb = read_rgb(path)
    if shape is not None and rgb.shape[:2] != tuple(shape):
        raise DataError(
            f"edge map {path}: it has {_size(rgb.shape)} pixels, expected {_size(shape)} (width x height). "
            "Edge maps must lie on the grid of the ground truth."
        )
    grey = rgb[..., 0]
    if (rgb != grey[..., None]).any() or not np.isin(grey, (grey.min(), grey.max())).all():
        raise DataError(
            f"edge map {path}: expected two values (background and edge), found more. Save it as 1-bit PNG."
        )
    edges: NDArray[np.bool_] = (grey > grey.min()) if grey.max() > grey.min() else grey > 0
    if edges.mean() > _MOST:
        raise DataError(
            f"edge map {path}: {edges.mean():.0%} of the pixels are edges. Is it inverted? Edges are white."
        )
    return edges


def _read_pairs(path: str | Path, shape: tuple[int, int] | None) -> NDArray[np.bool_]:
    if shape is None:
        raise DataError(f"edge list {path}: a text file does not tell the size of its image. Give the image size too.")
    try:
        text = read_bytes(path, "edge list").decode("ascii")
    except UnicodeDecodeError:
        raise DataError(f'edge list {path}: not a text file. Expected one "row column" pair per line.') from None
    edges = np.zeros(shape, np.bool_)
    for number, line in enumerate(text.splitlines(), 1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        row, column = _pair(path, number, line, words)
        if not (0 <= row < shape[0] and 0 <= column < shape[1]):
            raise DataError(
                f"edge list {path}, line {number}: row {row}, column {column} lie outside the image of "
                f"{_size(shape)} pixels (width x height). Lines are 0-based row, column."
            )
        edges[row, column] = True
    return edges


def _pair(path: str | Path, number: int, line: str, words: list[str]) -> tuple[int, int]:
    try:
        row, column = (int(word) for word in words)
    except ValueError:
        shown = line if len(line) <= 40 else line[:40] + "..."
        raise DataError(f'edge list {path}, line {number}: expected "row column", got {shown!r}.') from None
    return row, column


def _size(shape: Any) -> str:
    return f"{shape[1]} x {shape[0]}"
