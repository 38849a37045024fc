"""Decide which prediction becomes which file of the package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adubench.errors import SubmissionError
from adubench.submissions.findings import Finding, finding, name_list
from adubench.submissions.kitti import Target, index_name, is_selection_name, match_names

if TYPE_CHECKING:
    from pathlib import Path

    from adubench.io.collection import MapCollection

_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True, slots=True)
class Job:
    """One map to write.

    Attributes:
        output: name in the archive.
        source: name in the collection of predictions.
        image: relative path of the image; empty without images.
        size: (height, width) it must have, None for any.
    """

    output: str
    source: str
    image: str
    size: tuple[int, int] | None


def plan(maps: MapCollection, target: Target, images: Path | None) -> tuple[list[Job], list[Finding]]:
    """Decide which prediction becomes which file.

    Raises:
        SubmissionError: wrong number or names of images, predictions missing, two for one image.
    """
    names = image_names(images, target, maps)
    stems = [name.rsplit(".", 1)[0] if images is not None else name for name in names]
    missing: list[str] = []
    extra: list[str] = []
    if maps.stacked or (maps.single and len(names) == 1):
        if len(maps.names) != len(names):
            raise SubmissionError(
                f"{maps.root} holds {len(maps.names)} maps for {len(names)} images. A stacked array needs one map per "
                "image, in the order of their sorted names."
            )
        found = dict(zip(stems, maps.names, strict=True))
    else:
        found, missing, extra = match_names(stems, maps.names)
    if missing:
        also = f" Predictions that belong to no image: {name_list(extra, 3)}." if extra else ""
        raise SubmissionError(
            f"{maps.root}: {len(missing)} of {len(names)} predictions missing, first: {name_list(missing, 3)}.{also} "
            "Every image needs one, named like it."
        )
    keep = target.kind != "mdec" and all(is_selection_name(name.rsplit("/", 1)[-1]) for name in names)
    jobs = []
    for i, (name, stem) in enumerate(zip(names, stems, strict=True)):
        written = f"{stem.rsplit('/', 1)[-1]}.png" if keep else index_name(i)
        size = _image_size(images, name, target)
        jobs.append(Job(written, found[stem], name if images is not None else "", size))
    if len({job.output for job in jobs}) < len(jobs):
        raise SubmissionError(
            f"{images}: two images have the same file name. Give the folder that holds them directly."
        )
    warnings = []
    if extra:
        message = f"{len(extra)} predictions belong to no image and are left out: {name_list(extra)}"
        warnings.append(finding("S04", message, level="warning"))
    return sorted(jobs, key=lambda job: job.output), warnings


def image_names(images: Path | None, target: Target, maps: MapCollection | None = None) -> list[str]:
    """List the images, sorted, and refuse a set that is not the target's; without images, the maps' own names.

    Raises:
        SubmissionError: no images, or not the target's.
    """
    if images is None:
        if target.count is None:
            return list(maps.names) if maps is not None else []
        return [f"{i:010d}" for i in range(target.count)]
    if not images.is_dir():
        raise SubmissionError(f"folder of test images not found: {images}. Give --images DIR.")
    try:
        direct = [p.name for p in images.iterdir() if p.is_file() and not p.name.startswith(".")]
        names = sorted(n for n in direct if n.lower().endswith(_IMAGE_SUFFIXES))
        if not names:
            below = [p.relative_to(images).as_posix() for p in images.rglob("*") if p.is_file()]
            names = sorted(n for n in below if n.lower().endswith(_IMAGE_SUFFIXES))
    except OSError as error:
        raise SubmissionError(f"cannot read folder {images}: {error.strerror or error}.") from None
    if not names:
        raise SubmissionError(f"{images}: no .png or .jpg image in it. Give the folder of the test images.")
    if target.count is not None:
        _check_images(images, names, target)
    return names


def _check_images(images: Path, names: list[str], target: Target) -> None:
    assert target.count is not None
    numbered = [n.rsplit(".", 1)[0] for n in names] == [f"{i:010d}" for i in range(target.count)]
    selection = target.kind == "completion" and all(map(is_selection_name, names))
    if len(names) != target.count or not (numbered or selection):
        other = {500: " These may be the depth prediction images.", 1000: " These may be the depth completion images."}
        raise SubmissionError(
            f"{images}: {target.title} needs {target.count} images 0000000000 .. {target.count - 1:010d}, found "
            f"{len(names)} ({name_list(names, 2)}).{other.get(len(names), '')} For any other set use --rehearsal."
        )


def _image_size(images: Path | None, name: str, target: Target) -> tuple[int, int] | None:
    if images is None:
        return target.size
    from adubench.io.images import image_size

    size = image_size(images / name)
    if target.size is not None and size != target.size:
        raise SubmissionError(
            f"{images / name}: {size[1]}x{size[0]}, but the images of {target.title} are "
            f"{target.size[1]}x{target.size[0]}. Use the cropped test images, or --rehearsal for any other set."
        )
    return size
