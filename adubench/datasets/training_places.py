"""Where the images, right images and maps of training lists lie; folders are listed once, not per frame."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from adubench.datasets.frames import FrameKey, kitti_frame
from adubench.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from adubench.datasets.kitti import ImprovedMaps
    from adubench.datasets.list_files import Sample
    from adubench.datasets.splits import Split

NO_IMAGE = "the image does not exist"
NO_RIGHT = "the right image does not exist"
NO_TRUTH = "the ground truth does not exist"
NO_RIGHT_TRUTH = "the right view has no ground truth, which rule swap needs"
BY_DESIGN = "the frame has no ground truth by design (first and last five of a drive)"
DECLARED = "its list says None for the ground truth"
RIGHT_CAMERA = "it is a right image, and pairs start from the left one"
#: Reasons that are in the nature of a list, not faults of a copy.
EXPECTED = (BY_DESIGN, DECLARED, RIGHT_CAMERA)

_PICTURES = (".png", ".jpg", ".jpeg")


class Places(Protocol):
    """Files of a list, by frame.

    Attributes:
        split: its name.
        dataset: of the list.
        kind: what the maps are.
        keys: the frames in order.
        no_gt: frames that have no ground truth by design.
    """

    split: str
    dataset: str
    kind: str
    keys: tuple[FrameKey, ...]
    no_gt: frozenset[FrameKey]

    def image(self, key: FrameKey) -> Path | None:
        """Find the image, or None."""
        ...

    def right(self, key: FrameKey) -> Path | None:
        """Find the right image, or None."""
        ...

    def codes(self, key: FrameKey) -> Path | None:
        """Find the ground truth, or None."""
        ...

    def right_codes(self, key: FrameKey) -> Path | None:
        """Find the right view's ground truth, or None."""
        ...

    def explain(self, key: FrameKey, reason: str) -> str:
        """Say in one sentence which file is missing and why it probably is."""
        ...


def open_places(
    split: str, root: Path, gt: Path | None, kind: str, right: Path | None, resolution: str | None
) -> Places:
    """Open the places of a list.

    Raises:
        UsageError: unknown split or kind.
        DataError: the list cannot be read, or the root does not hold such a data set.
    """
    from adubench.datasets.splits import load_split

    if kind not in ("improved", "raw", "depth"):
        raise UsageError(f"unknown ground truth '{kind}' for training: choose improved, raw or depth.")
    if split == "folder":
        return _folder(root, gt, right)
    if split in ("nyu", "nyu_test"):
        raise UsageError(
            f"split '{split}' is the test set: train on nyu_train, or on a list file (image, depth, focal length)."
        )
    found = load_split(split, gt or root if split == "kitti_official.train" else root, resolution=resolution)
    if found.dataset == "drivingstereo":
        return _driving_stereo(found, root, gt, resolution)
    if found.dataset == "nyu":
        return _nyu(found, root, gt)
    if found.dataset == "folder":
        return _listed(found, root, gt, right)
    return _kitti(found, root, gt or root, kind)


def scale_of(path: Path) -> float:
    """Codes per metre of a map: NYU's `sync_depth_*` hold millimetres, everything else 1/256 m."""
    return 1000.0 if path.name.startswith("sync_depth_") else 256.0


def explain_first(places: Places, key: FrameKey, reason: str, prefix: str = "") -> str:
    """Join what is wrong with the list and the first missing file into one sentence."""
    sentence = places.explain(key, reason)
    return f"{prefix}: {sentence}" if prefix else sentence


@dataclass(slots=True)
class Listings:
    """Names in folders, read once each: a list has tens of thousands of frames in a few hundred folders."""

    known: dict[Path, frozenset[str]] = field(default_factory=dict)

    def names(self, folder: Path) -> frozenset[str]:
        """List a folder; empty when it does not exist."""
        if folder not in self.known:
            try:
                self.known[folder] = frozenset(os.listdir(folder))
            except OSError:
                self.known[folder] = frozenset()
        return self.known[folder]

    def find(self, folder: Path, stem: str, suffixes: tuple[str, ...] = _PICTURES) -> Path | None:
        """Find a file by stem."""
        names = self.names(folder)
        return next((folder / f"{stem}{suffix}" for suffix in suffixes if f"{stem}{suffix}" in names), None)


@dataclass(slots=True)
class KittiTraining:
    """KITTI raw with maps in any layout, or SynthDrive in KITTI's layout."""

    split: str
    dataset: str
    kind: str
    keys: tuple[FrameKey, ...]
    no_gt: frozenset[FrameKey]
    root: Path
    maps: ImprovedMaps | None
    listed: dict[FrameKey, Sample] = field(default_factory=dict)
    _listings: Listings = field(default_factory=Listings)

    def image(self, key: FrameKey) -> Path | None:
        """Find the image: the path of a list file where it exists, else the usual places of KITTI raw."""
        sample = self.listed.get(key)
        if sample is not None and (found := self._at(self.root / sample.image)) is not None:
            return found
        return self._camera(key, key.camera)

    def right(self, key: FrameKey) -> Path | None:
        """Find the image of camera 3."""
        sample = self.listed.get(key)
        if sample is not None and sample.image_right:
            found = self._at(self.root / sample.image_right)
            if found is not None:
                return found
        return self._camera(key, 3)

    def codes(self, key: FrameKey) -> Path | None:
        """Find the map of the frame's own camera."""
        return self._map(key)

    def right_codes(self, key: FrameKey) -> Path | None:
        """Find the map of camera 3."""
        return self._map(kitti_frame(key.drive, key.index, 3))

    def explain(self, key: FrameKey, reason: str) -> str:
        """Say what is missing."""
        from adubench.datasets.kitti import KittiRaw

        if reason == BY_DESIGN:
            return f"{key.name}: {reason}."
        if reason in (NO_TRUTH, NO_RIGHT_TRUTH):
            other = key if reason == NO_TRUTH else kitti_frame(key.drive, key.index, 3)
            if self.maps is None:
                return f"ground truth not found: {self._dense(other)[0]}; dense maps come with SynthDrive only."
            sentence = self.maps.explain_missing(other)
            tail = " Rule swap needs the right view's maps; with stereo.flip=none they are not needed."
            return sentence + (tail if reason == NO_RIGHT_TRUTH else "")
        if reason == RIGHT_CAMERA:
            return f"{key.name}: {reason}."
        camera = 3 if reason == NO_RIGHT else key.camera
        try:
            KittiRaw(self.root).image(kitti_frame(key.drive, key.index, camera))
        except DataError as error:
            sentence = str(error).rstrip(".")
        else:  # pragma: no cover - appeared while looking
            sentence = f"{key.name}: {reason}"
        hint = " Stereo training needs image_03: unpack the right images too." if reason == NO_RIGHT else ""
        return f"{sentence}.{hint}"

    def _at(self, path: Path) -> Path | None:
        return self._listings.find(path.parent, path.stem, (path.suffix, *_PICTURES))

    def _camera(self, key: FrameKey, camera: int) -> Path | None:
        for drive in (f"{key.drive}_sync", key.drive):
            folder = self.root / key.date / drive / f"image_0{camera}"
            for parent in (folder / "data", folder):
                found = self._listings.find(parent, f"{key.index:010d}")
                if found is not None:
                    return found
        return None

    def _map(self, key: FrameKey) -> Path | None:
        if self.maps is None:
            folder, stem = self._dense(key)
            return self._listings.find(folder, stem, (".png",))
        for folder in self.maps.folders(key.drive):
            found = self._listings.find(folder / f"image_0{key.camera}", f"{key.index:010d}", (".png",))
            if found is not None:
                return found
        return None

    def _dense(self, key: FrameKey) -> tuple[Path, str]:
        folder = self.root / key.date / f"{key.drive}_sync" / "dense_depth" / f"image_0{key.camera}"
        return folder, f"{key.index:010d}"


@dataclass(slots=True)
class TableTraining:
    """Files given frame by frame: DrivingStereo's index, a list file, or folders paired by name."""

    split: str
    dataset: str
    kind: str
    keys: tuple[FrameKey, ...]
    images: dict[FrameKey, Path]
    maps: dict[FrameKey, Path]
    rights: dict[FrameKey, Path]
    right_maps: dict[FrameKey, Path]
    hints: dict[str, str]
    no_gt: frozenset[FrameKey] = frozenset()

    def image(self, key: FrameKey) -> Path | None:
        """Find the image."""
        return self.images.get(key)

    def right(self, key: FrameKey) -> Path | None:
        """Find the right image."""
        return self.rights.get(key)

    def codes(self, key: FrameKey) -> Path | None:
        """Find the map."""
        return self.maps.get(key)

    def right_codes(self, key: FrameKey) -> Path | None:
        """Find the right view's map."""
        return self.right_maps.get(key)

    def explain(self, key: FrameKey, reason: str) -> str:
        """Say what is missing."""
        return f"{key.name}: {reason}; {self.hints.get(reason, 'check the list')}."


def _kitti(split: Split, root: Path, gt: Path, kind: str) -> KittiTraining:
    from adubench.datasets.kitti import ImprovedMaps
    from adubench.datasets.list_files import read_list
    from adubench.datasets.splits import looks_like_list

    listed: dict[FrameKey, Sample] = {}
    if looks_like_list(split.name):
        listed = {sample.frame(): sample for sample in read_list(split.name).samples}
    if kind == "depth":
        return KittiTraining(
            split.name, split.dataset, "exact dense maps", split.frames, frozenset(), root, None, listed
        )
    maps = ImprovedMaps(gt, "groundtruth" if kind == "improved" else "velodyne_raw")
    maps.probe(split.drives)
    label = "improved maps" if kind == "improved" else "single scans"
    return KittiTraining(split.name, split.dataset, label, split.frames, split.no_gt, root, maps, listed)


def _driving_stereo(split: Split, root: Path, gt: Path | None, resolution: str | None) -> TableTraining:
    from adubench.datasets.driving_stereo import check_sizes, default_resolution, index_part

    part = split.name.removeprefix("drivingstereo.").removeprefix("weather.").removeprefix("adu_")
    resolution = resolution or default_resolution(root, part)
    index = index_part(root, part, resolution)
    maps = index if gt is None else index_part(gt, part, resolution)
    if index.files["left-image"] and index.stems:
        check_sizes(index, index.stems[0])

    def table(files: dict[str, Path]) -> dict[FrameKey, Path]:
        return {key: files[key.stem] for key in split.frames if key.stem in files}

    where = f"expected under {root} (data set {part}, {resolution} resolution)"
    hints = {
        NO_IMAGE: f"{part}-left-image: {where}",
        NO_RIGHT: f"{part}-right-image: {where}; stereo training needs the right images",
        NO_TRUTH: f"{part}-depth-map: {where}; disparity maps alone do not train, download the depth maps",
        NO_RIGHT_TRUTH: "DrivingStereo has no right maps: set stereo.flip=none",
    }
    files = index.files
    return TableTraining(
        split.name,
        split.dataset,
        "depth maps",
        split.frames,
        table(files["left-image"]),
        table(maps.files["depth-map"]),
        table(files["right-image"]),
        {},
        hints,
    )


def _nyu(split: Split, root: Path, gt: Path | None) -> TableTraining:
    """Images beside their maps, one folder per scene."""
    from adubench.datasets.nyu import part_root

    listings, images = Listings(), part_root(root, split.name)
    base = images if gt is None else part_root(gt, split.name)

    def table(folder: Path, rename: Callable[[str], str]) -> dict[FrameKey, Path]:
        places = {key: (folder / key.stem).with_name(rename(Path(key.stem).name)) for key in split.frames}
        found = {key: listings.find(path.parent, path.name) for key, path in places.items()}
        return {key: path for key, path in found.items() if path is not None}

    hints = {
        NO_IMAGE: f"expected rgb_*.jpg beside sync_depth_*.png below {images}",
        NO_TRUTH: f"expected sync_depth_*.png below {base}",
        NO_RIGHT: "NYU has one camera",
        NO_RIGHT_TRUTH: "NYU has one camera",
    }
    pictures = table(images, lambda name: name)
    maps = table(base, lambda name: f"sync_depth_{name.removeprefix('rgb_')}")
    return TableTraining(split.name, "nyu", "depth maps", split.frames, pictures, maps, {}, {}, hints)


def _listed(split: Split, root: Path, gt: Path | None, right: Path | None) -> TableTraining:
    """A list file whose frames are not KITTI's: paths below the roots, as written."""
    from adubench.datasets.list_files import read_list
    from adubench.datasets.nyu import list_root

    samples = read_list(split.name).samples
    root = list_root(root, samples)
    listings, base = Listings(), list_root(gt, samples) if gt is not None else root

    def existing(folder: Path, name: str | None) -> Path | None:
        return None if not name else listings.find((folder / name).parent, Path(name).stem, (Path(name).suffix,))

    tables: list[dict[FrameKey, Path]] = [{}, {}, {}, {}]
    for sample in samples:
        key = sample.frame()
        found = (
            existing(root, sample.image),
            existing(base, sample.gt),
            existing(right or root, sample.image_right),
            existing(base, sample.gt_right),
        )
        for table, path in zip(tables, found, strict=True):
            if path is not None:
                table[key] = path
    hints = {
        NO_IMAGE: f"its path in {split.name} does not exist below {root}; check --data-root",
        NO_TRUTH: f"{split.name} names none, or it does not exist below {base}; check --gt",
        NO_RIGHT: f"{split.name} has no fourth field with a right image that exists below {right or root}",
        NO_RIGHT_TRUTH: f"{split.name} has no fifth field with a map; set stereo.flip=none",
    }
    images, maps, rights, right_maps = tables
    return TableTraining(
        split.name, "folder", "listed maps", split.frames, images, maps, rights, right_maps, hints, split.no_gt
    )


def _folder(root: Path, gt: Path | None, right: Path | None) -> TableTraining:
    """Pair folders by equal relative stems."""
    from adubench.datasets.folder import IMAGE_SUFFIXES, stems
    from adubench.datasets.frames import frame_from_stem

    if gt is None:
        raise UsageError("training on a folder of images needs its maps: give --gt DIR with files of the same names.")
    images, maps = stems(root, IMAGE_SUFFIXES, "image"), stems(gt, (".png",), "depth")
    rights = stems(right, IMAGE_SUFFIXES, "right image") if right is not None else {}
    keys = {stem: frame_from_stem(stem) for stem in sorted(images)}

    def table(files: dict[str, Path]) -> dict[FrameKey, Path]:
        return {key: files[stem] for stem, key in keys.items() if stem in files}

    hints = {
        NO_TRUTH: f"no map of that name in {gt}, whose files are named like '{min(maps)}'",
        NO_RIGHT: f"no right image of that name in {right}" if right else "give the folder of right images",
        NO_RIGHT_TRUTH: "folders have no right maps: set stereo.flip=none",
    }
    return TableTraining(
        "folder", "folder", "depth maps", tuple(keys.values()), table(images), table(maps), table(rights), {}, hints
    )
