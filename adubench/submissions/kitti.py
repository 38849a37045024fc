"""What KITTI's depth server takes: counts, names, size, limits.

Sources: KITTI depth devkit, readme and `evaluate_depth.cpp`; public issue threads on rejected uploads (size limit,
folders inside the archive). The thresholds of the plausibility checks are ours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adubench.errors import SubmissionError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Iterable

MEGABYTE = 1_000_000
DEPTH_SCALE = 256.0
KITTI_SIZE = (352, 1216)
INDEX_NAME = re.compile(r"\d{10}\.png", re.ASCII)

_DRIVE = re.compile(r"(\d{4}_\d\d_\d\d_drive_\d{4})", re.ASCII)
_INDEX = re.compile(r"(?<!\d)(\d{10})(?!\d)", re.ASCII)
_CAMERA = re.compile(r"image_0([23])")
_SELECTION = re.compile(
    r"(\d{4}_\d\d_\d\d_drive_\d{4})_sync_(?:image|groundtruth_depth)_(\d{10})_image_0([23])(\.png)?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Target:
    """A package that a server takes.

    Attributes:
        kind: the name on the command line.
        title: how the report calls it.
        count: number of files, None for any.
        size: height and width of every map, None for any.
        reminder: what the user has to do himself.
    """

    kind: str
    title: str
    count: int | None
    size: tuple[int, int] | None
    reminder: str = ""


_POLICY = "Read the server's submission policy before uploading; adubench does not upload and knows no rate limits."
TARGETS: dict[str, Target] = {
    "prediction": Target("prediction", "KITTI depth prediction", 500, KITTI_SIZE, _POLICY),
    "completion": Target("completion", "KITTI depth completion", 1000, KITTI_SIZE, _POLICY),
    "rehearsal": Target("rehearsal", "rehearsal (any count and size; no server takes it)", None, None),
    "rvc": Target(
        "rvc",
        "Robust Vision Challenge, KITTI part (the KITTI depth prediction package)",
        500,
        KITTI_SIZE,
        "Register the method once at robustvision.net; the other benchmarks of the challenge take their own uploads. "
        + _POLICY,
    ),
    "mdec": Target("mdec", "Monocular Depth Estimation Challenge (SYNS-Patches)", None, None),
}
CHECKED_KINDS = ("prediction", "completion", "rehearsal", "rvc")


def get_target(kind: str) -> Target:
    """Look up a target.

    Raises:
        UsageError: no such kind.
    """
    if kind not in TARGETS:
        raise unknown_name("kind of submission", kind, TARGETS)
    return TARGETS[kind]


@dataclass(frozen=True, slots=True)
class Limits:
    """Thresholds of the checks, in the unit each name says. Tune them here or pass another record.

    Attributes:
        total_bytes: what the server accepts, summed over the unpacked files.
        warn_bytes: near the limit.
        target_bytes: what the exporter aims at.
        member_bytes: no depth map is larger; larger entries are not read.
        pixels: no depth map has more; larger pictures are not decoded.
        entries: more entries than this are refused before they are looked at.
        ratio: unpacked / packed size from which an entry over `ratio_bytes` counts as a bomb.
        ratio_bytes: see `ratio`.
        saturated: largest share of pixels at 65535.
        clipped: largest share of pixels that the exporter clips at 65535.
        jump: share of horizontal neighbours that differ by more than 32768 codes (wrapped uint16).
        swap_ratio: total variation / total variation after swapping the bytes.
        median_low: plausible median depth of the lower half, metres.
        median_high: see `median_low`.
        median_tiny: below it, the map is normalised or inverse depth rather than wrongly scaled.
        upside_down: share of images whose bottom half is farther than the top half.
        low_cap: a largest depth below this in every image looks like a cap, metres.
        exact_cap: exactly this largest depth in every image is a cap, metres.
    """

    total_bytes: int = 500 * MEGABYTE
    warn_bytes: int = 450 * MEGABYTE
    target_bytes: int = 480 * MEGABYTE
    member_bytes: int = 64 * MEGABYTE
    pixels: int = 16 * MEGABYTE
    entries: int = 20_000
    ratio: float = 200.0
    ratio_bytes: int = MEGABYTE
    saturated: float = 0.001
    clipped: float = 0.001
    jump: float = 0.0002
    swap_ratio: float = 4.0
    median_low: float = 5.0
    median_high: float = 20.0
    median_tiny: float = 1.0
    upside_down: float = 0.5
    low_cap: float = 40.0
    exact_cap: float = 80.0


LIMITS = Limits()


def index_name(index: int) -> str:
    """Return the server's name of a map: ten digits and `.png`."""
    return f"{index:010d}.png"


def is_selection_name(name: str) -> bool:
    """Whether a file is named like those of val_selection_cropped (image or ground truth)."""
    return _SELECTION.fullmatch(name) is not None


def frame_identity(stem: str) -> tuple[str, int, int] | None:
    """Find (drive, frame, camera) in a KITTI path, a flat name or a val_selection name; None when there is no drive.

    The last ten-digit number is the frame; a name without a camera means image_02, as in the public exporters.
    """
    drives, indices, cameras = _DRIVE.findall(stem), _INDEX.findall(stem), _CAMERA.findall(stem)
    if not drives or not indices:
        return None
    return drives[-1], int(indices[-1]), int(cameras[-1]) if cameras else 2


def match_names(images: Iterable[str], predictions: Iterable[str]) -> tuple[dict[str, str], list[str], list[str]]:
    """Find the prediction of every image.

    A prediction belongs to an image when its relative stem is the same, or its file name when that is unique on both
    sides, or when both name the same KITTI drive, frame and camera.

    Args:
        images: relative stems of the images.
        predictions: relative stems of the predictions.

    Returns:
        (image -> prediction, images without one, predictions that belong to no image).

    Raises:
        SubmissionError: two predictions for one image.
    """
    image_list, free = list(images), dict.fromkeys(predictions)
    found: dict[str, str] = {}
    for key in (_whole, _base, frame_identity):
        open_images = [name for name in image_list if name not in found]
        table = _by_key(free, key)
        wanted = _by_key(open_images, key)
        for image in open_images:
            value = key(image)
            candidates = table.get(value, []) if value is not None else []
            if not candidates or len(wanted[value]) > 1:
                continue
            if len(candidates) > 1:
                raise SubmissionError(
                    f"two predictions for image '{image}': '{candidates[0]}' and '{candidates[1]}'. Remove one."
                )
            found[image] = candidates[0]
        for used in found.values():
            free.pop(used, None)
    return found, [name for name in image_list if name not in found], list(free)


def _whole(stem: str) -> str:
    return stem


def _base(stem: str) -> str | None:
    return stem.rsplit("/", 1)[-1]


def _by_key(names: Iterable[str], key: object) -> dict[object, list[str]]:
    assert callable(key)
    table: dict[object, list[str]] = {}
    for name in names:
        value = key(name)
        if value is not None:
            table.setdefault(value, []).append(name)
    return table
