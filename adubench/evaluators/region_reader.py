"""Reads what the masks of a frame are computed from, and brings it all to the ground truth's grid."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from adubench.evaluators.region_inputs import fit_image
from adubench.evaluators.region_source import RegionInputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from adubench.io.maps import SparseDepth

Matrix = NDArray[np.float64]


class Places(Protocol):
    """Where images, labels, edges and intrinsics lie."""

    def image_path(self, frame: Any) -> Path | None:
        """Return the camera image of a frame, or None."""
        ...

    def label_path(self, frame: Any) -> Path | None:
        """Return the label map of a frame, or None."""
        ...

    def edge_path(self, frame: Any) -> Path | None:
        """Return the annotated edges of a frame, or None."""
        ...

    def intrinsics(self, frame: Any) -> Matrix | None:
        """Return intrinsics at the size of the image, or None."""
        ...


@dataclass(slots=True)
class FrameReader:
    """Reads ground truth, image, labels, edges and intrinsics of a frame; picklable.

    Attributes:
        reader: gives the whole ground truth of a frame.
        places: everything else.
        needs: kinds of input that the regions need, values of `region_params.FAMILIES`; nothing else is read.
    """

    reader: Any
    places: Places
    needs: frozenset[str]

    def truth(self, frame: Any) -> SparseDepth:
        """Return the ground truth of the whole frame."""
        found: SparseDepth = self.reader.read(frame)
        return found

    def image(self, frame: Any, shape: tuple[int, int]) -> NDArray[np.uint8] | None:
        """Return the camera image on the ground truth's grid, or None."""
        return self._image(frame, shape)[0]

    def inputs(self, frame: Any) -> RegionInputs:
        """Return everything there is of what is needed."""
        gt = self.truth(frame)
        image, size = self._image(frame, gt.shape)
        return RegionInputs(
            gt,
            image,
            self._labels(frame),
            self._intrinsics(frame, gt.shape, size),
            self._edges(frame, gt.shape),
        )

    def _image(self, frame: Any, shape: tuple[int, int]) -> tuple[NDArray[np.uint8] | None, tuple[int, int] | None]:
        path = self.places.image_path(frame) if "image" in self.needs else None
        if path is None:
            return None, None
        from adubench.io.images import read_rgb

        rgb = read_rgb(path)
        return fit_image(rgb, shape)[0], (rgb.shape[0], rgb.shape[1])

    def _labels(self, frame: Any) -> NDArray[np.uint8] | None:
        path = self.places.label_path(frame) if "labels" in self.needs else None
        if path is None:
            return None
        from adubench.io.labels import read_labels

        return read_labels(path)

    def _edges(self, frame: Any, shape: tuple[int, int]) -> NDArray[np.bool_] | None:
        path = self.places.edge_path(frame) if "external edges" in self.needs else None
        if path is None:
            return None
        from adubench.io.edges import read_edges

        return read_edges(path, shape)

    def _intrinsics(self, frame: Any, shape: tuple[int, int], size: tuple[int, int] | None) -> Matrix | None:
        """Scale intrinsics of the image to the ground truth's grid; pixel centres at whole numbers."""
        if "intrinsics" not in self.needs:
            return None
        K = self.places.intrinsics(frame)
        if K is None:
            return None
        size = size or self._image_size(frame) or shape
        if size == shape:
            return K
        across, down = shape[1] / size[1], shape[0] / size[0]
        out = K.astype(np.float64)
        out[0, 0], out[1, 1] = K[0, 0] * across, K[1, 1] * down
        out[0, 2], out[1, 2] = (K[0, 2] + 0.5) * across - 0.5, (K[1, 2] + 0.5) * down - 0.5
        return out

    def _image_size(self, frame: Any) -> tuple[int, int] | None:
        path = self.places.image_path(frame)
        if path is None:
            return None
        from adubench.io.images import image_size

        return image_size(path)

    def resized(self, frame: Any, shape: tuple[int, int]) -> bool:
        """Whether the frame's image has another size than its ground truth."""
        size = self._image_size(frame) if "image" in self.needs else None
        return size is not None and size != shape

    def stamp(self, frames: Sequence[Any], truth_paths: Any, extra: str = "") -> str:
        """Identify everything that masks are computed from: names, sizes and times of the files, intrinsics.

        Args:
            frames: keys of all frames.
            truth_paths: function that names the ground-truth files of a frame.
            extra: anything else that masks depend on.
        """
        digest, seen = hashlib.sha256(extra.encode()), set()
        for frame in frames:
            for path in self._paths(frame, truth_paths):
                if path not in seen:
                    seen.add(path)
                    digest.update(_file_stamp(path))
            if "intrinsics" in self.needs:
                K = self.places.intrinsics(frame)
                digest.update(b"none" if K is None else np.ascontiguousarray(K, "<f8").tobytes())
        return digest.hexdigest()

    def _paths(self, frame: Any, truth_paths: Any) -> Iterable[Path]:
        yield from truth_paths(frame)
        for kind, path in (
            ("image", self.places.image_path(frame)),
            ("labels", self.places.label_path(frame)),
            ("external edges", self.places.edge_path(frame)),
        ):
            if kind in self.needs and path is not None:
                yield path


def _file_stamp(path: Path) -> bytes:
    try:
        status = path.stat()
    except OSError:
        return f"{path} absent\n".encode("utf-8", "surrogateescape")
    return f"{path.absolute()} {status.st_size} {status.st_mtime_ns}\n".encode("utf-8", "surrogateescape")
