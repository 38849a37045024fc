"""What a data set knows about a frame besides its depth: the camera image and the intrinsics, where they lie on disk.

Everything here is optional. A file that is not there is None, never an error: region families that need it are left
out, and the report says so.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adubench.datasets.frames import FrameKey, driving_stereo_stem, parse_kitti
from adubench.errors import AdubenchError, DataError, UsageError

if TYPE_CHECKING:
    from adubench.datasets.ground_truth import GroundTruth
    from adubench.datasets.splits import Split

Matrix = NDArray[np.float64]
_PICTURES = (".png", ".jpg", ".jpeg")


@dataclass(slots=True)
class FileTable:
    """Files of a folder, found by any accepted name of a frame.

    Attributes:
        root: the folder, or one file that serves the only frame there is.
        what: for messages.
        files: relative stem -> path.
    """

    root: Path
    what: str
    files: dict[str, Path]

    @classmethod
    def open(cls, root: str | Path, what: str, suffixes: tuple[str, ...] = _PICTURES) -> FileTable:
        """List the files below a folder.

        Raises:
            DataError: nothing there, or two files of one name.
        """
        from adubench.io.collection import walk_files

        path = Path(root)
        if path.is_file():
            return cls(path, what, {})
        if not path.is_dir():
            raise DataError(f"{what} folder not found: {path}.")
        files: dict[str, Path] = {}
        for relative, file in walk_files(path):
            if file.suffix.lower() in suffixes:
                stem = relative[: -len(file.suffix)]
                for name in dict.fromkeys((stem, _identity(stem))):
                    if name and files.setdefault(name, file) != file:
                        raise DataError(f"two {what}s are named {name}: {files[name]} and {file}. Remove one.")
        if not files:
            raise DataError(f"{path}: no {what} in it (looked for {', '.join(suffixes)}).")
        return cls(path, what, files)

    def find(self, frame: FrameKey) -> Path | None:
        """Return the file of a frame, or None."""
        if not self.files:
            return self.root
        for name in (frame.name, frame.stem, *frame.aliases()):
            if name in self.files:
                return self.files[name]
        return None

    def check(self, frames: tuple[FrameKey, ...]) -> None:
        """Refuse a folder none of whose files belongs to a frame, and one file for many frames.

        Raises:
            DataError: naming a file and a frame.
        """
        if not self.files and len(frames) > 1:
            raise DataError(f"{self.root} is one {self.what} for {len(frames)} frames; give a folder.")
        if frames and not any(self.find(frame) for frame in frames):
            raise DataError(
                f"no {self.what} in {self.root} belongs to a frame: files are named like '{next(iter(self.files))}', "
                f"frames like '{frames[0].name}'. Rename them to the frames' names."
            )


def _identity(stem: str) -> str:
    """Name of the KITTI or DrivingStereo frame that a file name holds, or ""."""
    frame = parse_kitti(stem)
    return frame.name if frame is not None else (driving_stereo_stem(stem) or "")


@dataclass(slots=True)
class FrameInputs:
    """Images and intrinsics of frames; picklable.

    Attributes:
        images: a folder that the user named; it wins over the data set's own images.
        given: intrinsics that the user named, [3, 3] at the image's size.
        locate: the data set's own places, None for none.
        labels: label maps that the user named.
        edges: annotated edges that the user named.
    """

    images: FileTable | None = None
    given: Matrix | None = None
    locate: Any = None
    labels: FileTable | None = None
    edges: FileTable | None = None

    def image_path(self, frame: FrameKey) -> Path | None:
        """Return the camera image of a frame, or None."""
        if self.images is not None:
            return self.images.find(frame)
        return self.locate.image(frame) if self.locate is not None else None

    def label_path(self, frame: FrameKey) -> Path | None:
        """Return the label map of a frame, or None."""
        return self.labels.find(frame) if self.labels is not None else None

    def edge_path(self, frame: FrameKey) -> Path | None:
        """Return the annotated edges of a frame, or None."""
        return self.edges.find(frame) if self.edges is not None else None

    def intrinsics(self, frame: FrameKey) -> Matrix | None:
        """Return [3, 3] intrinsics at the size of the image, or None."""
        if self.given is not None:
            return self.given
        found: Matrix | None = self.locate.intrinsics(frame) if self.locate is not None else None
        return found


@dataclass(slots=True)
class KittiPlaces:
    """KITTI raw, or SynthDrive in its layout, below a root."""

    root: Path
    _known: dict[str, Matrix | None] = field(default_factory=dict)

    def image(self, frame: FrameKey) -> Path | None:
        """Find the image of the frame's own camera."""
        from adubench.datasets.kitti import KittiRaw

        try:
            return KittiRaw(self.root).image(frame) if frame.camera else None
        except AdubenchError:
            return None

    def intrinsics(self, frame: FrameKey) -> Matrix | None:
        """Read the rectified camera of the frame's date."""
        from adubench.datasets.kitti import KittiRaw

        if not frame.camera:
            return None
        if frame.date not in self._known:
            try:
                with warnings.catch_warnings():  # constants of the date serve as well here
                    warnings.simplefilter("ignore")
                    facts, _ = KittiRaw(self.root).intrinsics(frame.date)
            except AdubenchError:
                self._known[frame.date] = None
            else:
                self._known[frame.date] = matrix(facts.fx, facts.fy, facts.cx, facts.cy)
        return self._known[frame.date]


@dataclass(slots=True)
class SelectionPlaces:
    """The cropped images and intrinsics of KITTI's val_selection."""

    root: Path

    def image(self, frame: FrameKey) -> Path | None:
        """Find the cropped image."""
        return self._find(frame, "image", ".png")

    def intrinsics(self, frame: FrameKey) -> Matrix | None:
        """Read the nine numbers of the intrinsics file."""
        path = self._find(frame, "intrinsics", ".txt")
        if path is None:
            return None
        try:
            values = np.array([float(v) for v in path.read_text(encoding="utf-8").split()])
        except (OSError, ValueError):
            values = np.empty(0)
        if values.size != 9:
            raise DataError(f"{path}: expected nine numbers, the intrinsics of one image.")
        return values.reshape(3, 3)

    def _find(self, frame: FrameKey, folder: str, suffix: str) -> Path | None:
        from adubench.datasets.kitti import selection_path

        try:
            return selection_path(self.root, frame, folder, suffix)
        except DataError:
            return None


@dataclass(slots=True)
class StereoPlaces:
    """Left images and calibration of DrivingStereo."""

    root: Path
    resolution: str
    files: dict[str, Path]
    _known: dict[str, Matrix | None] = field(default_factory=dict)

    def image(self, frame: FrameKey) -> Path | None:
        """Find the left image."""
        return self.files.get(frame.stem)

    def intrinsics(self, frame: FrameKey) -> Matrix | None:
        """Read the rectified left camera of the sequence."""
        from adubench.datasets.driving_stereo import calibration_path
        from adubench.io.kitti_calib import read_calib_file

        if frame.drive not in self._known:
            path = calibration_path(self.root, frame.drive, self.resolution)
            K = None
            if path is not None:
                P = np.ravel(read_calib_file(path).get("P_rect_101", np.empty(0)))
                K = matrix(*(float(P[i]) for i in (0, 5, 2, 6))) if P.size == 12 else None
            self._known[frame.drive] = K
        return self._known[frame.drive]


def matrix(fx: float, fy: float, cx: float, cy: float) -> Matrix:
    """Build [3, 3] intrinsics."""
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def parse_intrinsics(text: str) -> Matrix:
    """Read `--intrinsics FX,FY,CX,CY`, in pixels of the image.

    Raises:
        UsageError: not four finite numbers, or focal lengths that are not positive.
    """
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 4 or not np.isfinite(values).all() or min(values[:2]) <= 0:
        raise UsageError(f"--intrinsics {text}: expected FX,FY,CX,CY in pixels, e.g. 721.5,721.5,609.6,172.9.")
    return matrix(*values)


def open_inputs(
    split: Split | None,
    reader: GroundTruth,
    data_root: Path | None,
    gt_root: Path | None,
    *,
    images: str | Path | None = None,
    intrinsics: str | None = None,
    labels: str | Path | None = None,
    edges: str | Path | None = None,
) -> FrameInputs:
    """Find where the images and intrinsics of a run lie.

    Args:
        split: the split, or None for explicit ground truth.
        reader: its ground truth.
        data_root: `--data-root`.
        gt_root: `--gt`.
        images: `--images`.
        intrinsics: `--intrinsics`.
        labels: `--semantic`.
        edges: `--ext-edges`.

    Raises:
        DataError: a named folder holds no file of any frame.
        UsageError: malformed intrinsics.
    """
    frames = tuple(reader.frames)
    return FrameInputs(
        _table(images, "image", _PICTURES, frames),
        parse_intrinsics(intrinsics) if intrinsics is not None else None,
        _places(split, reader, data_root or gt_root),
        _table(labels, "label map", (".png",), frames),
        _table(edges, "edge map", (".png", ".txt"), frames),
    )


def _table(
    root: str | Path | None, what: str, suffixes: tuple[str, ...], frames: tuple[FrameKey, ...]
) -> FileTable | None:
    if root is None:
        return None
    table = FileTable.open(root, what, suffixes)
    table.check(frames)
    return table


def _places(split: Split | None, reader: GroundTruth, root: Path | None) -> Any:
    if split is None or root is None or not root.is_dir():
        return None
    if split.dataset == "drivingstereo":
        from adubench.datasets.driving_stereo import index_part

        part = split.name.removeprefix("drivingstereo.").removeprefix("weather.").removeprefix("adu_")
        resolution = getattr(reader, "resolution", "half")
        try:
            files = index_part(root, part, resolution).files["left-image"]
        except AdubenchError:
            files = {}
        return StereoPlaces(root, resolution, files)
    if type(reader).__name__ == "SelectionGroundTruth":
        return SelectionPlaces(getattr(reader, "root", root))
    if split.dataset == "nyu":
        from adubench.datasets.nyu import part_root

        return NyuPlaces(part_root(root, split.name))
    return KittiPlaces(root)


@dataclass(slots=True)
class ListedPlaces:
    """The images that a list file names, for frames that are not KITTI's."""

    root: Path
    list_file: str
    _images: dict[FrameKey, Path] = field(default_factory=dict)

    def image(self, frame: FrameKey) -> Path | None:
        """Find the image of a line."""
        from adubench.datasets.list_files import read_list
        from adubench.datasets.nyu import list_root

        if not self._images:
            samples = read_list(self.list_file).samples
            root = list_root(self.root, samples)
            self._images = {sample.frame(): root / sample.image for sample in samples}
        path = self._images.get(frame)
        return path if path is not None and path.is_file() else None

    def intrinsics(self, frame: FrameKey) -> Matrix | None:
        """Return nothing: a list has a focal length at most."""
        return None


@dataclass(slots=True)
class NyuPlaces:
    """The images of NYU beside their maps."""

    root: Path

    def image(self, frame: FrameKey) -> Path | None:
        """Find the colour image."""
        path = self.root / f"{frame.stem}.jpg"
        return path if path.is_file() else None

    def intrinsics(self, frame: FrameKey) -> Matrix | None:
        """Return nothing: the prepared images carry no calibration."""
        return None
