"""Training lists as packs: written from loose files, read back as the same list with bit-identical samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from adubench.datasets.frames import FrameKey
from adubench.datasets.packing import Packed
from adubench.datasets.stereo_pairs import Flip
from adubench.datasets.training_frames import Dropped, TrainingFrame, TrainingFrames
from adubench.datasets.training_places import NO_RIGHT, NO_RIGHT_TRUTH
from adubench.datasets.transforms import KB_SIZE, FlipRule, kb_crop, kb_window
from adubench.errors import DataError, UsageError
from adubench.io.training_pack import PackEntry, TrainingPack, write_training_pack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from adubench.datasets.transforms import Codes, Image8

Progress = Callable[[int, int], None]


def pack_frames(
    frames: TrainingFrames, out: Path, *, window: bool = True, force: bool = False, progress: Progress | None = None
) -> Packed:
    """Write a training list to HDF5.

    Args:
        frames: from `training_frames`.
        out: the `.h5` file.
        window: keep only KITTI's 352x1216 window of images that have one.
        force: write even when the pack is up to date.
        progress: called with (done, total).

    Raises:
        UsageError: the output is not named `.h5`.
        DataError: a file is missing, damaged or of another size.
    """
    if out.suffix.lower() not in (".h5", ".hdf5"):
        raise UsageError(f"a training pack is an HDF5 file: name the output .h5, not '{out.name}'.")
    facts = {
        "split": frames.split,
        "dataset": frames.dataset,
        "stereo": frames.stereo,
        "ground_truth": frames.ground_truth,
        "window": "kb" if window else "full",
        "listed": frames.listed,
        "frames_sha256": frames.sha256,
        "dropped": {reason: [n, frames.dropped.first[reason]] for reason, n in frames.dropped.counts.items()},
        "keys": [_key_row(frame) for frame in frames.frames],
    }
    reason = _why(out, facts, frames)
    if not reason and not force:
        return Packed(out, len(frames), written=False)
    entries = [_entry(cast("TrainingFrame", frame), window) for frame in frames.frames]
    write_training_pack(out, entries, facts, progress)
    return Packed(out, len(frames), reason=reason if reason != "new" else "")


def _key_row(frame: Any) -> list[Any]:
    key, window = frame.key, frame.window
    return [key.dataset, key.drive, key.index, key.camera, key.stem, frame.scale, window]


def _entry(frame: TrainingFrame, window: bool) -> PackEntry:
    from adubench.io.images import image_size

    shape = image_size(frame.image_path)
    cut = window and frame.kitti and kb_window(*shape) is not None
    parts = ["image", "codes"]
    parts += ["right"] if frame.right_path is not None else []
    parts += ["right_codes"] if frame.right_codes_path is not None else []
    return PackEntry(frame.name, KB_SIZE if cut else shape, tuple(parts), frame.paths, partial(_read, frame, cut))


def _read(frame: TrainingFrame, cut: bool, part: str) -> NDArray[Any]:
    array: NDArray[Any] = getattr(frame, part)()
    return kb_crop(array) if cut else array


def _why(out: Path, facts: dict[str, Any], frames: TrainingFrames) -> str:
    """Say why the pack must be written: "new", or what changed; "" when it is up to date."""
    if not out.exists():
        return "new"
    from adubench.io.hdf5_maps import open_h5
    from adubench.io.training_pack import MARK

    with open_h5(out, "file") as file:
        if MARK not in file.attrs:
            raise DataError(f"{out} exists and is no training pack: choose another name with -o, or remove it.")
    try:
        pack = TrainingPack(out)
    except DataError as error:
        return str(error)
    if any(pack.facts.get(key) != _plain(value) for key, value in facts.items()):
        return "it held another list"
    wanted = {str(path.absolute()) for frame in frames.frames for path in cast("TrainingFrame", frame).paths}
    if {source[1] for source in pack.sources} != wanted:
        return "it was made from other files"
    stale = pack.stale()
    return f"{len(stale)} source files changed, first {stale[0]}" if stale else ""


def _plain(value: Any) -> Any:
    """Bring a value to the form in which it comes back from JSON."""
    import json

    return json.loads(json.dumps(value))


@dataclass(frozen=True, slots=True)
class PackedFrame:
    """A frame of a training pack (a `stereo_pairs.FrameFiles`)."""

    pack: TrainingPack
    index: int
    key: FrameKey
    stereo: bool
    flip: Flip
    scale: float
    window: tuple[int, int] | None

    @property
    def name(self) -> str:
        """The frame's name in results."""
        return self.key.name

    @property
    def kitti(self) -> bool:
        """Whether KITTI's window applies."""
        return self.key.dataset == "kitti"

    @property
    def paths(self) -> tuple[Path, ...]:
        """The pack."""
        return (self.pack.path,)

    def image(self) -> Image8:
        """Read the image."""
        return self.pack.read(self.index, "image")

    def right(self) -> Image8:
        """Read the right image."""
        return self.pack.read(self.index, "right")

    def codes(self) -> Codes:
        """Read the ground truth."""
        return self.pack.read(self.index, "codes")

    def right_codes(self) -> Codes:
        """Read the right view's ground truth."""
        return self.pack.read(self.index, "right_codes")


def packed_frames(
    path: str | Path,
    *,
    split: str | None = None,
    stereo: bool = False,
    flip_rule: FlipRule = "auto",
    use_window: bool = True,
) -> TrainingFrames:
    """Open a training pack as a training list.

    Args:
        path: the pack.
        split: the list that is wanted; None takes what is there.
        stereo: samples are pairs.
        flip_rule: as in `training_frames`.
        use_window: KITTI's window is cut (`input.kb_crop`); without, a pack of windows cannot serve.

    Raises:
        DataError: no training pack, a stale one, of another list, without right images, or of windows where whole
            frames are wanted.
    """
    if flip_rule not in ("auto", "swap", "joint", "none"):
        raise UsageError(f"unknown flip rule '{flip_rule}': choose auto, swap, joint or none.")
    pack = TrainingPack(path)
    facts = pack.facts
    again = f"make it again with adubench data pack --training {split or facts['split']}"
    if split is not None and not _same_list(facts["split"], split):
        raise DataError(f"training pack {path}: holds {facts['split']}, not {split}; {again}.")
    if not use_window and facts["window"] == "kb":
        raise DataError(f"training pack {path}: holds KITTI's windows, but data.kb_crop is off; {again} --full-frames.")
    if stereo and not facts["stereo"]:
        raise DataError(f"training pack {path}: has no right images, which stereo training needs; {again} --stereo.")
    stale = pack.stale()
    if stale:
        raise DataError(f"training pack {path}: {len(stale)} source files changed since, first {stale[0]}; {again}.")
    dropped = Dropped()
    for reason, (count, first) in facts["dropped"].items():
        dropped.counts[reason], dropped.first[reason] = count, first
    frames = _frames(pack, stereo, flip_rule, dropped)
    if not frames:
        raise DataError(f"training pack {path}: no frame can be used ({'; '.join(dropped.sentences())}).")
    rules = {frame.flip for frame in frames}
    flip: Flip = "swap" if "swap" in rules else next(iter(rules))
    return TrainingFrames(
        facts["split"], facts["dataset"], stereo, flip, facts["ground_truth"], frames, dropped, facts["listed"]
    )


def _same_list(one: str, other: str) -> bool:
    """Compare names of lists; list files may lie elsewhere on another machine."""
    from adubench.datasets.splits import looks_like_list

    if looks_like_list(one) and looks_like_list(other):
        return Path(one).name == Path(other).name
    return one == other


def _frames(pack: TrainingPack, stereo: bool, rule: FlipRule, dropped: Dropped) -> tuple[PackedFrame, ...]:
    found = []
    for i, (dataset, drive, number, camera, stem, scale, window) in enumerate(pack.facts["keys"]):
        key = FrameKey(dataset, drive, number, camera, stem)
        size = tuple(window) if window else None
        frame = PackedFrame(pack, i, key, stereo, "none" if rule == "none" else "single", scale, size)
        if stereo and not pack.has(i, "right"):
            dropped.add(NO_RIGHT, key.name)
            continue
        other = pack.has(i, "right_codes")
        if stereo and rule == "swap" and not other:
            dropped.add(NO_RIGHT_TRUTH, key.name)
            continue
        if stereo:
            flip: Flip = ("swap" if other else "none") if rule == "auto" else rule
            frame = replace(frame, flip=flip)
        found.append(frame)
    return tuple(found)
