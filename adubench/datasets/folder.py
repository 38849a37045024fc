"""A plain data set: a folder of images, a folder of depth maps, and optionally a list file (protocol `full-frame`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from adubench.datasets.frames import FrameKey, frame_from_stem
from adubench.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
DEPTH_SUFFIXES = (".png", ".npy")


@dataclass(frozen=True, slots=True)
class FolderSample:
    """An image and, where there is one, its depth map."""

    frame: FrameKey
    image: Path
    depth: Path | None = None


@dataclass(frozen=True, slots=True)
class FolderDataset:
    """Images and depth maps paired by equal relative stem, or as a list file says.

    Attributes:
        images: the image folder.
        depth: the depth folder, or None.
        samples: ascending by name, or in the order of the list.
        without_depth: names of images that have no map.
        without_image: names of maps that have no image.
    """

    images: Path
    depth: Path | None
    samples: tuple[FolderSample, ...]
    without_depth: tuple[str, ...] = ()
    without_image: tuple[str, ...] = ()

    @property
    def frames(self) -> tuple[FrameKey, ...]:
        """The keys of the samples."""
        return tuple(sample.frame for sample in self.samples)


def stems(root: Path, suffixes: tuple[str, ...], what: str) -> dict[str, Path]:
    """Index the files below a folder by relative stem.

    Raises:
        DataError: no such folder, no such file in it, or two files of one stem.
    """
    from adubench.io.collection import walk_files

    if not root.is_dir():
        raise DataError(f"{what} folder not found: {root}; check the path.")
    out: dict[str, Path] = {}
    for relative, path in walk_files(root):
        if path.suffix.lower() not in suffixes:
            continue
        stem = PurePosixPath(relative).with_suffix("").as_posix()
        if stem in out:
            raise DataError(f"{what} folder {root}: two files for '{stem}': {out[stem]} and {path}; remove one.")
        out[stem] = path
    if not out:
        raise DataError(f"{what} folder {root}: no {' or '.join(suffixes)} file in it.")
    return out


def open_folder(images: Path, depth: Path | None = None, list_file: Path | None = None) -> FolderDataset:
    """Pair the images of a folder with their depth maps.

    Args:
        images: folder of images, any depth of sub-folders.
        depth: folder of maps (16-bit PNG or npy) with the same relative stems, or None.
        list_file: a list whose first field is an image below `images` and whose second, if any, a map below `depth`.

    Raises:
        DataError: a folder is missing or empty, no names in common, or a listed file does not exist.
    """
    if list_file is not None:
        return _from_list(images, depth, list_file)
    pictures = stems(images, IMAGE_SUFFIXES, "image")
    maps = stems(depth, DEPTH_SUFFIXES, "depth") if depth is not None else {}
    if maps and not set(maps) & set(pictures):
        raise DataError(
            f"no common names: images in {images} are like '{min(pictures)}', maps in {depth} like '{min(maps)}'; "
            "give a list file that pairs them."
        )
    samples = tuple(FolderSample(frame_from_stem(s), pictures[s], maps.get(s)) for s in sorted(pictures))
    without = tuple(s for s in sorted(pictures) if maps and s not in maps)
    return FolderDataset(images, depth, samples, without, tuple(sorted(set(maps) - set(pictures))))


def _from_list(images: Path, depth: Path | None, list_file: Path) -> FolderDataset:
    from adubench.datasets.list_files import read_list

    samples = []
    for sample in read_list(list_file, need_gt=False).samples:
        image = images / sample.image
        if not image.is_file():
            raise DataError(f"{list_file}:{sample.line}: image not found: {image} [E7]")
        target = (depth or images) / sample.gt if sample.gt else None
        if target is not None and not target.is_file():
            raise DataError(f"{list_file}:{sample.line}: ground truth not found: {target} [E8]")
        samples.append(
            FolderSample(frame_from_stem(PurePosixPath(sample.image).with_suffix("").as_posix()), image, target)
        )
    without = tuple(s.frame.name for s in samples if s.depth is None)
    return FolderDataset(images, depth, tuple(samples), without)
