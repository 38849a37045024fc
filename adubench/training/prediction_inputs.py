"""Which images are to be predicted, and what their predictions are called."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from adubench.errors import AdubenchError, DataError, UsageError

if TYPE_CHECKING:
    from adubench.datasets.frames import FrameKey
    from adubench.training.predictor import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm")


@dataclass(frozen=True, slots=True)
class ImageJob:
    """One image to predict.

    Attributes:
        name: of its prediction: relative, `/`, without extension.
        image: the (left) image.
        right: the right image, None for none.
        focal: focal length in pixels where it is known.
        neighbours: offsets in frames of further images of the sequence, for networks that take several.
    """

    name: str
    image: Path
    right: Path | None = None
    focal: float | None = None
    neighbours: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Loaded:
    """An image in memory, uint8 [H, W, 3] (more channels with neighbours), or why it is not."""

    job: ImageJob
    image: Image | None = None
    right: Image | None = None
    error: str = ""


def list_images(inputs: Sequence[str | Path], *, right: str | Path | None = None) -> list[ImageJob]:
    """List images named one by one, by folder, or by a pattern.

    An image below a named folder keeps its path below it; one named itself is called by its stem. Where two would be
    called the same, all keep their path below the folder that holds everything.

    Args:
        inputs: files, folders, or patterns (`*`, `**`).
        right: the right image of a single input, or the folder whose files are named like the left ones.

    Raises:
        DataError: nothing there, no image in a folder, two images for one name, or a right image is missing.
    """
    found: dict[str, tuple[Path, str]] = {}
    for given in inputs:
        for path, name in _expand(str(given)):
            found.setdefault(os.path.realpath(path), (path, name))
    entries = list(found.values())
    names = [name for _, name in entries]
    if max(Counter(names).values()) > 1:
        common = os.path.commonpath([os.path.abspath(path.parent) for path, _ in entries])
        names = [Path(os.path.relpath(path, common)).with_suffix("").as_posix() for path, _ in entries]
    seen: dict[str, Path] = {}
    for name, (path, _) in zip(names, entries, strict=True):
        if name in seen:
            raise DataError(f"two images would have the prediction '{name}': {seen[name]} and {path}. Remove one.")
        seen[name] = path
    rights = _right_images(seen, right)
    return [ImageJob(name, path, rights.get(name)) for name, path in seen.items()]


def list_split(name: str, root: str | Path | None, *, stereo: bool, layout: str = "kitti") -> list[ImageJob]:
    """List the images of a split, called by their frames' names.

    Args:
        name: a split, or a list file.
        root: data root.
        stereo: find the images of the other camera too.
        layout: "kitti" keeps the frames' names; "flat" replaces `/` by `_`.

    Raises:
        DataError: images are missing; says how many and the first.
        UsageError: unknown split, or a split without images of its own.
    """
    from adubench.datasets.splits import load_split

    if root is None:
        raise UsageError(f"--split {name}: give --data-root DIR or set ADUBENCH_DATA_ROOT, where its images lie.")
    split = load_split(name, root)
    places = image_places(split, Path(root))
    jobs = frame_jobs(split.frames, places, stereo=stereo)
    return [replace(job, name=job.name.replace("/", "_")) for job in jobs] if layout == "flat" else jobs


def image_places(split: Any, root: Path) -> Any:
    """Return where a data set keeps images and calibration: an object with `image(frame)` and `intrinsics(frame)`."""
    from adubench.datasets import frame_inputs

    if split.dataset == "drivingstereo":
        return _StereoFolder(root, split)
    if split.dataset == "nyu":
        from adubench.datasets.nyu import part_root

        return frame_inputs.NyuPlaces(part_root(root, split.name))
    if split.dataset == "folder":
        return frame_inputs.ListedPlaces(root, split.name)
    if split.name.startswith("kitti_official.val_selection"):
        return frame_inputs.SelectionPlaces(root)
    return frame_inputs.KittiPlaces(root)


def frame_jobs(frames: Sequence[FrameKey], places: Any, *, stereo: bool) -> list[ImageJob]:
    """Find the images of frames.

    Raises:
        DataError: images are missing; says how many and the first.
    """
    jobs, missing = [], []
    for frame in frames:
        image = places.image(frame)
        right = _other_view(places, frame) if stereo else None
        if image is None or (stereo and right is None):
            missing.append(f"{frame.name}{' (right view)' if image is not None else ''}")
            continue
        K = places.intrinsics(frame) if hasattr(places, "intrinsics") else None
        jobs.append(ImageJob(frame.name, image, right, float(K[0, 0]) if K is not None else None))
    if missing:
        raise DataError(
            f"{len(missing)} of {len(frames)} images not found, first: {missing[0]}. Check --data-root, or give the "
            "folder of the images with --images."
        )
    return jobs


def load_batches(jobs: Sequence[ImageJob], size: int) -> Iterator[list[Loaded]]:
    """Read images batch by batch, the next batch while the caller works on the last."""
    chunks = [jobs[i : i + size] for i in range(0, len(jobs), size)]
    with ThreadPoolExecutor(max_workers=min(4, size + 1)) as pool:
        pending = [pool.submit(load, job) for job in chunks[0]] if chunks else []
        for following in (*chunks[1:], ()):
            ahead = [pool.submit(load, job) for job in following]
            yield [future.result() for future in pending]
            pending = ahead


def with_neighbours(jobs: Sequence[ImageJob], predictor: Any) -> list[ImageJob]:
    """Ask for the neighbours that a predictor takes along with each image."""
    offsets: tuple[int, ...] = getattr(predictor, "neighbours", ())
    return [replace(job, neighbours=offsets) for job in jobs] if offsets else list(jobs)


def load(job: ImageJob) -> Loaded:
    """Read an image, its right view and its neighbours; a fault becomes its sentence."""
    from adubench.io.images import read_rgb

    try:
        image, right = read_rgb(job.image), read_rgb(job.right) if job.right is not None else None
        return Loaded(job, _stacked(job, image) if job.neighbours else image, right)
    except AdubenchError as error:
        return Loaded(job, error=str(error))


def _stacked(job: ImageJob, image: Image) -> Image:
    """Put the neighbours' channels behind an image's; they are called like it, with another number at the end."""
    from adubench.io.images import read_rgb

    number = re.search(r"\d+$", job.image.stem)
    if number is None:
        raise DataError(
            f"{job.image}: the network takes its neighbours too, and its name has no frame number at the end to find "
            "them by, as in 0000000012.png."
        )
    views = [image]
    for offset in job.neighbours:
        index = f"{int(number[0]) + offset:0{len(number[0])}d}"
        path = job.image.with_name(f"{job.image.stem[: number.start()]}{index}{job.image.suffix}")
        if not path.is_file():
            raise DataError(
                f"{job.image}: its neighbour {offset:+d} is not there, which the network takes too; leave out frames "
                "at the ends of a sequence."
            )
        views.append(read_rgb(path))
        if views[-1].shape != image.shape:
            raise DataError(f"{path}: is of another size than {job.image.name}, whose neighbour it is.")
    return np.concatenate(views, axis=2)


def _expand(given: str) -> list[tuple[Path, str]]:
    """Return (path, name) of every image that an argument means."""
    from adubench.io.collection import walk_files

    path = Path(given)
    if path.is_dir():
        files = [(p, relative) for relative, p in walk_files(path) if p.suffix.lower() in SUFFIXES]
        if not files:
            raise DataError(f"{path}: no image in it (looked for {', '.join(SUFFIXES)}).")
        return [(p, PurePosixPath(relative).with_suffix("").as_posix()) for p, relative in files]
    if path.exists() or not glob.has_magic(given):
        return [(path, path.stem)]  # a missing file is named when it is read, and the others are predicted
    hits = sorted(Path(hit) for hit in glob.glob(given, recursive=True))
    hits = [hit for hit in hits if hit.is_file() and hit.suffix.lower() in SUFFIXES]
    if not hits:
        raise DataError(f"no image matches {given}.")
    return [(hit, hit.stem) for hit in hits]


def _right_images(lefts: dict[str, Path], right: str | Path | None) -> dict[str, Path]:
    if right is None:
        return {}
    path = Path(right)
    if not path.exists():
        raise DataError(f"right image not found: {path}.")
    if path.is_file():
        if len(lefts) > 1:
            raise DataError(f"--right {path} is one image for {len(lefts)} left ones; give a folder.")
        return dict.fromkeys(lefts, path)
    by_name = {name: file for file, name in _expand(str(path))}
    by_stem = {PurePosixPath(name).name: file for name, file in by_name.items()}
    unique = len(by_stem) == len(by_name)
    out: dict[str, Path] = {}
    for name, left in lefts.items():
        found = by_name.get(name) or (by_stem.get(left.stem) if unique else None)
        if found is None:
            raise DataError(f"no right image for {left} in {path}; it must be named like the left one.")
        out[name] = found
    return out


def _other_view(places: Any, frame: FrameKey) -> Path | None:
    finder = getattr(places, "right", None)
    if finder is not None:
        found: Path | None = finder(frame)
        return found
    return places.image(replace(frame, camera=5 - frame.camera)) if frame.camera else None


class _StereoFolder:
    """Both views of DrivingStereo."""

    def __init__(self, root: Path, split: Any) -> None:
        from adubench.datasets.driving_stereo import index_part
        from adubench.datasets.frame_inputs import StereoPlaces

        part = split.name.removeprefix("drivingstereo.").removeprefix("weather.").removeprefix("adu_")
        index = index_part(root, part, "half")
        self._left = StereoPlaces(root, "half", index.files.get("left-image", {}))
        self._rights = index.files.get("right-image", {})

    def image(self, frame: FrameKey) -> Path | None:
        """Find the left image."""
        return self._left.image(frame)

    def right(self, frame: FrameKey) -> Path | None:
        """Find the right image."""
        return self._rights.get(frame.stem)

    def intrinsics(self, frame: FrameKey) -> Any:
        """Read the left camera."""
        return self._left.intrinsics(frame)


def by_layout(jobs: Sequence[ImageJob], layout: str) -> list[ImageJob]:
    """Rename predictions for a layout.

    Raises:
        DataError: an image whose path names no KITTI frame, or two images of one frame.
    """
    if layout != "kitti":
        return list(jobs)
    from adubench.datasets.frames import parse_kitti

    out: dict[str, ImageJob] = {}
    for job in jobs:
        frame = parse_kitti(job.image.resolve().as_posix())
        if frame is None:
            raise DataError(f"{job.image}: its path names no KITTI frame (drive, camera, number); use --layout flat.")
        if frame.name in out:
            raise DataError(f"two images of frame {frame.name}: {out[frame.name].image} and {job.image}. Remove one.")
        out[frame.name] = replace(job, name=frame.name)
    return list(out.values())
