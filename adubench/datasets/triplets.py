"""Samples of self-supervised training: a frame, its neighbours in time, the other camera's image.

Source: nianticlabs/monodepth2, datasets/mono_dataset.py, kitti_dataset.py. A sample keeps two sets of images: the clean
ones, which losses compare, and colour-augmented ones, which networks see. It is a pure function of seed, epoch and
frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.datasets.frames import FrameKey
from adubench.datasets.kitti import KittiRaw
from adubench.datasets.transforms import sample_rng
from adubench.errors import DataError, UsageError
from adubench.io.images import read_rgb

Image8 = NDArray[np.uint8]
Matrix = NDArray[np.float32]
#: An offset in frames (0 is the target), or "s" for the other camera.
Source = int | str

#: Intrinsics of all KITTI cameras over the image size: focal lengths and principal point, x before y.
KITTI_INTRINSICS = (0.58, 1.92, 0.5, 0.5)
#: Length that stands for the stereo baseline; KITTI's is 0.54 m, hence the factor 5.4 of stereo models.
STEREO_UNIT = 0.1
_OTHER = {2: 3, 3: 2}


@dataclass(frozen=True, slots=True)
class TripletRule:
    """How samples are made.

    Attributes:
        size: (H, W) of scale 0.
        offsets: temporal sources, in frames.
        stereo: the other camera's image is a source, too.
        scales: levels of the target's pyramid; each halves the size.
        source_scales: levels of the sources' pyramids; only the per-scale objective of Monodepth's first version needs
            more than 1.
        augment: False makes plain samples.
        flip: probability of a mirrored sample.
        jitter: probability of a change of colours.
        strength: half width of the factors of brightness, contrast and saturation.
        hue: largest shift, as a share of the hue circle.
        per_drive_intrinsics: read the date's calibration instead of using `KITTI_INTRINSICS`.
    """

    size: tuple[int, int] = (192, 640)
    offsets: tuple[int, ...] = (-1, 1)
    stereo: bool = False
    scales: int = 4
    source_scales: int = 1
    augment: bool = True
    flip: float = 0.5
    jitter: float = 0.5
    strength: float = 0.2
    hue: float = 0.1
    per_drive_intrinsics: bool = False

    def __post_init__(self) -> None:
        if 0 in self.offsets or len(set(self.offsets)) != len(self.offsets):
            raise UsageError(f"frame offsets {self.offsets}: expected different numbers other than 0, e.g. -1 and 1.")
        if not self.offsets and not self.stereo:
            raise UsageError("a sample needs a source: give frame offsets, or switch stereo on.")

    @property
    def sources(self) -> tuple[Source, ...]:
        """All sources, the stereo image last."""
        return (*self.offsets, "s") if self.stereo else self.offsets


@dataclass(frozen=True, slots=True)
class Jitter:
    """A change of colours.

    Attributes:
        order: permutation of the four operations (0 brightness, 1 contrast, 2 saturation, 3 hue).
        factors: of brightness, contrast and saturation.
        hue: shift as a share of the hue circle.
    """

    order: tuple[int, ...]
    factors: tuple[float, float, float]
    hue: float


@dataclass(frozen=True, slots=True)
class TripletDraw:
    """The random numbers of a sample: mirrored or not, colours or None."""

    flip: bool = False
    jitter: Jitter | None = None


@dataclass(frozen=True, slots=True)
class Triplet:
    """A sample.

    Attributes:
        frame: name of the target.
        colour: (source, scale) -> clean image, uint8 [h, w, 3]; source 0 is the target.
        augmented: source -> colour-augmented image at scale 0.
        K: scale -> float32 [4, 4] in pixels of that scale.
        inverse_k: its pseudo-inverse.
        stereo: float32 [4, 4] from the target's to the other camera, translation in units of `STEREO_UNIT`; None
            without stereo.
        flipped: the images are mirrored.
    """

    frame: str
    colour: Mapping[tuple[Source, int], Image8]
    augmented: Mapping[Source, Image8]
    K: Mapping[int, Matrix]
    inverse_k: Mapping[int, Matrix]
    stereo: Matrix | None = None
    flipped: bool = False


@dataclass(slots=True)
class TripletPlaces:
    """Finds the images of samples below a root in the layout of KITTI raw (SynthDrive's is the same).

    Attributes:
        raw: the files.
    """

    raw: KittiRaw
    _numbers: dict[tuple[str, int], frozenset[int]] = field(default_factory=dict)

    def image(self, frame: FrameKey, source: Source) -> Image8:
        """Read the image of a source.

        Raises:
            DataError: missing, naming the frame and the source, or unreadable.
        """
        key = source_key(frame, source)
        if source == 0 or self.has(frame, source):
            return read_rgb(self.raw.image(key))
        raise DataError(_missing(frame, source, key))

    def has(self, frame: FrameKey, source: Source) -> bool:
        """Say whether the image of a source is on disk; folders are listed once."""
        key = source_key(frame, source)
        place = (key.drive, key.camera)
        if place not in self._numbers:
            folder = self.raw.drive_dir(key.drive) / f"image_0{key.camera}"
            inner = folder / "data"
            names = [p.stem for p in (inner if inner.is_dir() else folder).glob("*") if p.stem.isdigit()]
            self._numbers[place] = frozenset(int(name) for name in names)
        return key.index in self._numbers[place]

    def ends_before(self, frame: FrameKey, source: Source) -> bool:
        """Say whether a missing neighbour lies beyond the ends of its drive, where there is nothing to be missed."""
        key = source_key(frame, source)
        numbers = self._numbers.get((key.drive, key.camera), frozenset())
        return source != "s" and bool(numbers) and not min(numbers) < key.index < max(numbers)

    def intrinsics(self, frame: FrameKey) -> tuple[float, float, float, float]:
        """Return (fx, fy, cx, cy) of the frame's date over the image size.

        Raises:
            DataError: no calibration, or one that is not of this image size.
        """
        facts, _ = self.raw.intrinsics(frame.date)
        width, height = facts.width, facts.height
        return check_intrinsics((facts.fx / width, facts.fy / height, facts.cx / width, facts.cy / height), frame.date)


def source_key(frame: FrameKey, source: Source) -> FrameKey:
    """Identity of a source of a frame: the neighbour of the same camera, or the same moment of the other one."""
    if isinstance(source, int):
        return replace(frame, index=frame.index + source)
    return replace(frame, camera=_OTHER.get(frame.camera, frame.camera))


def with_sources(
    places: TripletPlaces, frames: tuple[FrameKey, ...], rule: TripletRule
) -> tuple[tuple[FrameKey, ...], tuple[FrameKey, ...]]:
    """Separate the frames that have all their sources from those that lack one, like the ends of drives.

    Raises:
        DataError: no frame has all its sources; the first that lacks one is named.
    """
    kept: list[FrameKey] = []
    dropped: list[FrameKey] = []
    for frame in frames:
        (kept if all(places.has(frame, source) for source in rule.sources) else dropped).append(frame)
    if dropped and not kept:
        source = next(source for source in rule.sources if not places.has(dropped[0], source))
        raise DataError(f"no frame has all its sources: {_missing(dropped[0], source, source_key(dropped[0], source))}")
    return tuple(kept), tuple(dropped)


def check_complete(places: TripletPlaces, frames: tuple[FrameKey, ...], rule: TripletRule) -> None:
    """Refuse frames that are not on disk, and gaps: a missing image that is not beyond the end of its drive.

    Raises:
        DataError: naming the first, with the number of all.
    """
    absent = [frame for frame in frames if not places.has(frame, 0)]
    if absent:
        raise DataError(
            f"{len(absent)} of {len(frames)} frames not on disk, first {absent[0].name}: unpack whole drives, or "
            "train on a list of those that are there."
        )
    gaps = [
        (frame, source)
        for frame in frames
        for source in rule.sources
        if not places.has(frame, source) and not places.ends_before(frame, source)
    ]
    if gaps:
        frame, source = gaps[0]
        more = f" {len(gaps) - 1} more missing." if len(gaps) > 1 else ""
        raise DataError(f"{_missing(frame, source, source_key(frame, source))}{more}")


def check_intrinsics(values: tuple[float, float, float, float], where: str) -> tuple[float, float, float, float]:
    """Refuse intrinsics in pixels where normalised ones are needed.

    Raises:
        DataError: a focal length above 10 image sizes, or one that is not positive.
    """
    fx, fy = values[:2]
    if not (0 < fx <= 10 and 0 < fy <= 10):
        raise DataError(
            f"intrinsics of {where}: focal lengths {fx:g} and {fy:g} are not over the image size. Divide fx and cx by "
            "the width, fy and cy by the height."
        )
    return values


def draw_triplet(rng: np.random.Generator, rule: TripletRule) -> TripletDraw:
    """Draw a sample's numbers; always all of them, so that switching one step off leaves the others as they were."""
    jitter, flip = rng.random() > 1.0 - rule.jitter, rng.random() > 1.0 - rule.flip
    brightness, contrast, saturation = (float(v) for v in rng.uniform(1 - rule.strength, 1 + rule.strength, 3))
    hue = float(rng.uniform(-rule.hue, rule.hue))
    order = tuple(int(k) for k in rng.permutation(4))
    if not rule.augment:
        return TripletDraw()
    return TripletDraw(flip, Jitter(order, (brightness, contrast, saturation), hue) if jitter else None)


def load_triplet(places: TripletPlaces, frame: FrameKey, rule: TripletRule, *, seed: int, epoch: int) -> Triplet:
    """Read and make the sample of a frame.

    Raises:
        DataError: an image is missing or unreadable.
    """
    draw = draw_triplet(sample_rng(seed, epoch, frame.name), rule)
    natives = {source: places.image(frame, source) for source in (0, *rule.sources)}
    _check_sizes(frame, natives)
    intrinsics = places.intrinsics(frame) if rule.per_drive_intrinsics else KITTI_INTRINSICS
    centred = not rule.per_drive_intrinsics
    side = frame.side or "l"
    return make_triplet(natives, rule, draw, name=frame.name, side=side, intrinsics=intrinsics, centred=centred)


def make_triplet(
    natives: Mapping[Source, Image8],
    rule: TripletRule,
    draw: TripletDraw,
    *,
    name: str = "",
    side: str = "l",
    intrinsics: tuple[float, float, float, float] = KITTI_INTRINSICS,
    centred: bool = True,
) -> Triplet:
    """Make a sample of images as they were recorded.

    Mirroring comes first, then the pyramid: scale 0 by Lanczos from the native image, every further level from the
    8-bit image of the level above.

    Args:
        natives: source -> uint8 [H, W, 3], the target under 0.
        rule: sizes and sources.
        draw: the random numbers.
        name: of the frame.
        side: "l" or "r", the target's camera.
        intrinsics: (fx, fy, cx, cy) over the image size.
        centred: the principal point counts as the centre, so that mirroring leaves it; else it is mirrored, too.
    """
    colour: dict[tuple[Source, int], Image8] = {}
    augmented: dict[Source, Image8] = {}
    for source, native in natives.items():
        image = native[:, ::-1] if draw.flip else native
        for scale in range(rule.scales if source == 0 else rule.source_scales):
            image = resize_lanczos(image, (rule.size[0] >> scale, rule.size[1] >> scale))
            colour[source, scale] = image
        augmented[source] = jitter_colours(colour[source, 0], draw.jitter) if draw.jitter else colour[source, 0]
    mirrored = draw.flip and not centred
    K = {scale: scaled_intrinsics(intrinsics, rule.size, scale, mirrored=mirrored) for scale in range(rule.scales)}
    inverse = {scale: np.linalg.pinv(matrix).astype(np.float32) for scale, matrix in K.items()}
    stereo = stereo_transform(side, flipped=draw.flip) if "s" in natives else None
    return Triplet(name, colour, augmented, K, inverse, stereo, draw.flip)


def resize_lanczos(image: Image8, size: tuple[int, int]) -> Image8:
    """Resize uint8 [H, W, 3] to (h, w) with Pillow's Lanczos filter."""
    from PIL import Image

    if image.shape[:2] == size:
        return np.ascontiguousarray(image)
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((size[1], size[0]), Image.Resampling.LANCZOS))


def jitter_colours(image: Image8, jitter: Jitter) -> Image8:
    """Apply a change of colours to an 8-bit image, operation by operation, rounding after each."""
    from PIL import Image, ImageEnhance

    enhancers: tuple[Any, ...] = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    picture = Image.fromarray(image)
    for operation in jitter.order:
        if operation < 3:
            picture = enhancers[operation](picture).enhance(jitter.factors[operation])
        else:
            hue, saturation, value = picture.convert("HSV").split()
            shifted = (np.asarray(hue).astype(np.int16) + int(jitter.hue * 255)) % 256
            hue = Image.fromarray(shifted.astype(np.uint8))
            picture = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    return np.asarray(picture)


def scaled_intrinsics(
    intrinsics: tuple[float, float, float, float], size: tuple[int, int], scale: int, *, mirrored: bool = False
) -> Matrix:
    """Build float32 [4, 4] intrinsics in pixels of a level of the pyramid."""
    height, width = size[0] >> scale, size[1] >> scale
    fx, fy, cx, cy = intrinsics
    K = np.eye(4, dtype=np.float32)
    K[0, 0], K[0, 2] = np.float32(fx) * width, np.float32(cx) * width
    K[1, 1], K[1, 2] = np.float32(fy) * height, np.float32(cy) * height
    if mirrored:
        K[0, 2] = width - 1 - K[0, 2]
    return K


def stereo_transform(side: str, *, flipped: bool) -> Matrix:
    """Build float32 [4, 4] from the target's camera to the other one; mirroring exchanges left and right."""
    T = np.eye(4, dtype=np.float32)
    T[0, 3] = (-1.0 if side == "l" else 1.0) * (-1.0 if flipped else 1.0) * STEREO_UNIT
    return T


def _check_sizes(frame: FrameKey, natives: Mapping[Source, Image8]) -> None:
    """Refuse a sample of differently sized images: resized to one size they would show different cameras.

    Raises:
        DataError: naming both.
    """
    height, width = natives[0].shape[:2]
    for source, image in natives.items():
        if image.shape[:2] != (height, width):
            raise DataError(
                f"{source_key(frame, source).name} has {image.shape[1]}x{image.shape[0]} pixels, {frame.name} "
                f"{width}x{height}: the images of a drive have one size. Copy the drive again."
            )


def _missing(frame: FrameKey, source: Source, key: FrameKey) -> str:
    if source == "s":
        return (
            f"{frame.name}: its stereo image {key.name} is missing. Unpack both cameras, or set "
            "self_supervised.use_stereo: false."
        )
    what = f"neighbour {source:+d}" if isinstance(source, int) else str(source)
    if key.index < 0:
        return f"{frame.name}: its {what} lies before the first frame of the drive. Choose smaller offsets."
    return (
        f"{frame.name}: its {what} {key.name} is missing. Unpack the whole drive, or leave out frames without "
        "neighbours (the split eigen_zhou has none at the ends of drives)."
    )
