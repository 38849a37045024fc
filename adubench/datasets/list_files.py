"""File lists of public repositories: BTS, AdaBins, NeWCRFs, the Toolbox, Monodepth2, NYU.

The format is detected from the first line and every further line must match it, so a list that was cut in the middle of
a download is an error with a line number and never a shorter data set.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from adubench.datasets.frames import FrameKey, frame_from_stem, kitti_frame, parse_kitti
from adubench.datasets.kitti import date_facts
from adubench.datasets.kitti_splits import frame_counts, has_improved_map
from adubench.errors import DataError, UsageError, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FORMATS = {
    "bts": "image gt focal",
    "bts5": "image gt focal image_right gt_right",
    "toolbox2": "image gt",
    "image1": "image",
    "nyu3": "image gt focal|dense_gt",
    "md2": "folder index side",
    "md2-bench": "image index",
    "md2-odom": "sequence index side",
    "syns": "scene file",
}
_UNSUPPORTED = ("md2-odom", "syns")
_SIDES = {"l": 2, "r": 3, "2": 2, "3": 3}
_IMAGE = re.compile(r"\.(png|jpe?g)$", re.IGNORECASE)
_DIGITS = re.compile(r"^\d+$")
_DRIVE = re.compile(r"(\d{4}_\d\d_\d\d_drive_\d{4})(?:_sync)?/?$")
_SHOWN = 120


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a list.

    Attributes:
        line: 1-based line number.
        image: path of the image as written, without a leading slash; for Monodepth2 lists the path it stands for.
        gt: path of the ground truth, or None.
        declared_missing: the list says `None`, or the frame can have no improved map (note N1).
        focal: focal length in pixels, or None.
        image_right: path of the right image, or None.
        gt_right: path of the right ground truth, or None.
        dense_gt: path of a second, filled ground truth (NYU lists), or None.
        key: drive, camera and frame, where the path has them.
    """

    line: int
    image: str
    gt: str | None = None
    declared_missing: bool = False
    focal: float | None = None
    image_right: str | None = None
    gt_right: str | None = None
    dense_gt: str | None = None
    key: FrameKey | None = None

    def frame(self) -> FrameKey:
        """Return the KITTI key, or a key of the path."""
        return self.key or frame_from_stem(PurePosixPath(self.image).with_suffix("").as_posix())


@dataclass(frozen=True, slots=True)
class ListFile:
    """A parsed list.

    Attributes:
        path: the file.
        format: a key of `FORMATS`.
        samples: in the order of the file.
        source_sha256: SHA-256 of the file's bytes.
        warnings: duplicates (E5) and focal lengths that differ from the calibration (W1), as sentences.
        notes: remarks that are no fault (N1).
    """

    path: Path
    format: str
    samples: tuple[Sample, ...]
    source_sha256: str
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def frames(self) -> tuple[FrameKey, ...]:
        """Return the keys in the order of the file."""
        return tuple(sample.frame() for sample in self.samples)


def read_list(path: str | Path, *, strict: bool = False, format: str | None = None, need_gt: bool = True) -> ListFile:
    """Read a file list.

    Args:
        path: the file: UTF-8 with or without BOM, LF or CRLF, `#` comments and empty lines skipped.
        strict: a duplicated image is an error, not a warning.
        format: force a format instead of detecting it.
        need_gt: ground truth is wanted, so frames that can have none are noted (N1).

    Raises:
        UsageError: the forced format does not exist.
        DataError: codes E0 to E6 and E9; the message starts with file and line.
    """
    if format is not None and format not in FORMATS:
        raise UsageError(f"unknown list format '{format}': known: {', '.join(FORMATS)}.")
    source = Path(path)
    try:
        data = source.read_bytes()
    except OSError as error:
        raise DataError(f"list file {source} cannot be read: {error.strerror}. Check the path.") from None
    lines = _lines(source, data)
    first, fields = lines[0][0], lines[0][1].split()
    kind = format or detect_format(fields)
    if kind is None:
        raise DataError(
            f"{source}:{first}: cannot recognise list format from {len(fields)} field(s): '{_short(lines[0][1])}'. "
            "Known: 'image gt focal', 'image gt', 'image', 'folder index side' [E1]"
        )
    if kind in _UNSUPPORTED:
        raise DataError(f"{source}: {kind} lists are recognised but not supported [E9]")
    samples = [_parse_line(source, number, text, kind, first) for number, text in lines]
    return _checked(source, kind, samples, hashlib.sha256(data).hexdigest(), strict, need_gt)


def detect_format(fields: Sequence[str]) -> str | None:
    """Name the format of a line from its fields, or None."""
    n = len(fields)
    image = [bool(_IMAGE.search(text)) for text in fields]
    if n == 3 and _DIGITS.match(fields[1]) and fields[2] in _SIDES:
        return "md2-odom" if re.match(r"^\d{1,2}$", fields[0]) else "md2"
    if n == 2 and fields[0] == "image" and _DIGITS.match(fields[1]):
        return "md2-bench"
    if n == 5 and _number(fields[2]) is not None:
        return "bts5"
    if n == 3 and _number(fields[2]) is not None:
        return "bts"
    if n == 3 and image[2]:
        return "nyu3"
    if n == 2 and _DIGITS.match(fields[0]) and image[1]:
        return "syns"
    if n == 2 and image[0] and (image[1] or fields[1] == "None"):
        return "toolbox2"
    return "image1" if n == 1 and image[0] else None


def _lines(source: Path, data: bytes) -> list[tuple[int, str]]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: not a text list (cannot decode as UTF-8 at byte {error.start}) [E0]") from None
    if "\x00" in text:
        raise DataError(f"{source}: not a text list (zero byte at position {text.index(chr(0))}) [E0]")
    lines = [(i, line.strip()) for i, line in enumerate(text.split("\n"), 1)]
    lines = [(i, line) for i, line in lines if line and not line.startswith("#")]
    if not lines:
        raise DataError(f"{source}: no samples (empty file or only comments) [E0b]")
    return lines


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _parse_line(source: Path, number: int, text: str, kind: str, first: int) -> Sample:
    fields = text.split()
    wanted = {"bts5": 5, "toolbox2": 2, "image1": 1, "md2-bench": 2}.get(kind, 3)
    folder_only = kind == "md2" and len(fields) == 1
    if len(fields) != wanted and not folder_only:
        raise DataError(
            f"{source}:{number}: expected {kind} ({wanted} fields) as in line {first}, got {len(fields)}: "
            f"'{_short(text)}' [E2]"
        )

    def need(position: int, what: str, good: Callable[[str], object]) -> str:
        if not good(fields[position - 1]):
            article = "an" if what[0] in "aeiou" else "a"
            raise DataError(
                f"{source}:{number}: field {position} ('{_short(fields[position - 1])}') is not {article} {what} [E3]"
            )
        return fields[position - 1]

    if kind == "md2":
        index = 0 if folder_only else int(need(2, "frame index", _is_index))
        camera = 2 if folder_only else _SIDES[need(3, "side", _SIDES.__contains__)]
        return _md2_sample(number, fields[0], index, camera)
    if kind == "md2-bench":
        need(1, "folder 'image'", "image".__eq__)
        return Sample(number, f"image/{int(need(2, 'frame index', _is_index)):010d}.png")
    for position in (1, 4) if kind == "bts5" else (1,):
        need(position, "image path", _IMAGE.search)
    if kind != "image1":
        for position in (2, 5) if kind == "bts5" else (2,):
            need(position, "ground-truth path", lambda text: text == "None" or _IMAGE.search(text))
    if kind in ("bts", "bts5"):
        need(3, "number above 0", lambda text: (_number(text) or 0) > 0)
    if kind == "nyu3":
        need(3, "number or path", lambda text: _number(text) is not None or _IMAGE.search(text))
    return _path_sample(source, number, fields, kind)


def _is_index(text: str) -> bool:
    return bool(_DIGITS.match(text)) and len(text) <= 10


def _path(text: str) -> str | None:
    return None if text == "None" else text.replace("\\", "/").lstrip("/").removeprefix("./")


def _md2_sample(number: int, folder: str, index: int, camera: int) -> Sample:
    folder = folder.rstrip("/").lstrip("/")
    match = _DRIVE.search(folder)
    image = f"{folder}/image_0{camera}/data/{index:010d}.png"
    if match is None:
        return Sample(number, image)
    key = kitti_frame(match[1], index, camera)
    facts = date_facts().get(key.date)
    gt = f"{key.drive}_sync/proj_depth/groundtruth/image_0{camera}/{index:010d}.png"
    return Sample(number, image, gt, focal=facts.fx if facts else None, key=key)


def _path_sample(source: Path, number: int, fields: list[str], kind: str) -> Sample:
    image = _path(fields[0]) or ""
    gt = _path(fields[1]) if len(fields) > 1 else None
    key = parse_kitti(image)
    gt_key = parse_kitti(gt) if gt else None
    if key and gt_key and gt_key != key:
        raise DataError(
            f"{source}:{number}: image is {key.drive} cam {key.camera} frame {key.index} but ground truth is "
            f"{gt_key.drive} cam {gt_key.camera} frame {gt_key.index} [E4]"
        )
    third = fields[2] if len(fields) > 2 else None
    focal = _number(third) if third is not None else None
    return Sample(
        number,
        image,
        gt,
        declared_missing=len(fields) > 1 and gt is None,
        focal=focal,
        image_right=_path(fields[3]) if kind == "bts5" else None,
        gt_right=_path(fields[4]) if kind == "bts5" else None,
        dense_gt=_path(third) if third is not None and focal is None else None,
        key=key,
    )


def _checked(source: Path, kind: str, samples: list[Sample], digest: str, strict: bool, need_gt: bool) -> ListFile:
    """Apply the rules that concern the meaning of the lines: duplicates, focal lengths, frame range."""
    warnings: list[str] = []
    without_map: list[int] = []
    seen: dict[str | FrameKey, int] = {}
    counts = frame_counts()
    for i, sample in enumerate(samples):
        identity = sample.key or sample.image
        if identity in seen:
            message = f"{source}:{sample.line}: duplicate of line {seen[identity]} [E5]"
            if strict:
                raise DataError(message)
            warnings.append(message)
        seen.setdefault(identity, sample.line)
        key = sample.key
        if key is None:
            continue
        facts = date_facts().get(key.date)
        if facts and sample.focal is not None and abs(sample.focal - facts.fx) > 1e-3:
            warnings.append(
                f"{source}:{sample.line}: focal {sample.focal:g} differs from the calibration of {key.date} "
                f"({facts.fx:g}) [W1]"
            )
        n = counts.get(key.drive)
        if n is not None and key.index >= n:
            raise DataError(
                f"{source}:{sample.line}: {key.drive} has {n} frames, frame {key.index} does not exist [E6]"
            )
        if need_gt and sample.gt is not None and facts and not has_improved_map(key):
            samples[i] = replace(sample, gt=None, declared_missing=True)
            without_map.append(sample.line)
    notes: tuple[str, ...] = ()
    if without_map:
        notes = (
            f"{source}: {counted(len(without_map), 'frame')} without improved ground truth, being among the first or "
            f"last five of their drive or without a scan (first: line {without_map[0]}) [N1]",
        )
    return ListFile(source, kind, tuple(samples), digest, tuple(warnings), notes)


def check_files(listed: ListFile, data_root: str | Path | None, gt_root: str | Path | None = None) -> list[str]:
    """Look for the files of a list.

    Images are looked up below `data_root` as written, then with the other extensions, then by KITTI key; ground truth
    below `gt_root` (default: the data root) as written, then with the date folder in front (NeWCRFs), then in the
    layouts A to D.

    Returns:
        Sentences E7 and E8: the first five of each kind and a count.
    """
    from adubench.datasets.kitti import ImprovedMaps

    problems: list[str] = []
    if data_root is not None:
        root = Path(data_root)
        missing = [s.image for s in listed.samples if find_image(root, s) is None]
        problems += [
            f"{listed.path}: image not found: {image} (root {root}, extensions tried: .png, .jpg, .jpeg) [E7]"
            for image in missing[:5]
        ]
        if len(missing) > 5:
            problems.append(f"{listed.path}: {len(missing)} of {len(listed.samples)} images not found [E7]")
    root = Path(gt_root if gt_root is not None else data_root or ".")
    maps = ImprovedMaps(root)
    absent = [s for s in listed.samples if s.gt is not None and find_gt(maps, s) is None]
    for drive in list(dict.fromkeys(s.key.drive if s.key else s.gt or "" for s in absent))[:5]:
        sample = next(s for s in absent if (s.key.drive if s.key else s.gt) == drive)
        hint = maps.hint(sample.key) if sample.key else "check --gt"
        where = "in layouts A, B, C, D under" if sample.key else "under"
        problems.append(f"{listed.path}: ground truth not found for {drive} {where} {root}; {hint} [E8]")
    if absent:
        problems.append(f"{listed.path}: {len(absent)} of {len(listed.samples)} ground-truth maps not found [E8]")
    return problems


def find_image(root: Path, sample: Sample) -> Path | None:
    """Find the image of a sample below a root, or None."""
    from adubench.datasets.kitti import IMAGE_SUFFIXES, KittiRaw

    written = root / sample.image
    for path in (written, *(written.with_suffix(suffix) for suffix in IMAGE_SUFFIXES)):
        if path.is_file():
            return path
    if sample.key is None:
        return None
    try:
        return KittiRaw(root).image(sample.key)
    except DataError:
        return None


def find_gt(maps: object, sample: Sample) -> Path | None:
    """Find the ground truth of a sample below the root of `maps` (`kitti.ImprovedMaps`), or None."""
    from adubench.datasets.kitti import ImprovedMaps

    assert isinstance(maps, ImprovedMaps)
    if sample.gt is None:
        return None
    for path in (maps.root / sample.gt, maps.root / sample.image.split("/")[0] / sample.gt):
        if path.is_file():
            return path
    return maps.find(sample.key) if sample.key else None


def write_lines(frames: Sequence[FrameKey], format: str, no_gt: frozenset[FrameKey] = frozenset()) -> str:
    """Write KITTI frames as a list: LF line ends, final newline, the order given.

    Args:
        frames: KITTI keys.
        format: "bts" (with `None` for frames without improved map), "toolbox2" or "md2".
        no_gt: frames without improved map.

    Raises:
        UsageError: another format, or frames that are not KITTI's.
    """
    if format not in ("bts", "toolbox2", "md2"):
        raise UsageError(f"lists can be written as bts, toolbox2 or md2, not as '{format}'.")
    out = []
    for frame in frames:
        if frame.dataset != "kitti":
            raise UsageError(f"only KITTI splits have list formats; '{frame.name}' is no KITTI frame.")
        if format == "md2":
            out.append(f"{frame.date}/{frame.drive}_sync {frame.index} {frame.side}\n")
            continue
        name = f"image_0{frame.camera}"
        image = f"{frame.date}/{frame.drive}_sync/{name}/data/{frame.index:010d}.png"
        gt = f"{frame.drive}_sync/proj_depth/groundtruth/{name}/{frame.index:010d}.png"
        gt = "None" if frame in no_gt else gt
        facts = date_facts().get(frame.date)
        if format == "bts" and facts is None:
            raise UsageError(f"the focal length of {frame.date} is not known; write toolbox2 or md2 instead.")
        out.append(f"{image} {gt} {facts.fx!r}\n" if format == "bts" and facts else f"{image} {gt}\n")
    return "".join(out)
