"""Read the entries of a zip or a folder in place, with every size capped and nothing believed.

Names, sizes and offsets in an archive are claims of whoever made it. An entry is read only when its claims are
consistent and small enough; what is refused becomes a finding, and the rest is still checked.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from adubench.errors import SubmissionError
from adubench.submissions.findings import Finding, finding, name_list, shown
from adubench.submissions.kitti import MEGABYTE, Limits

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

# Everything that the standard reader raises on damaged archives.
ZIP_ERRORS = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    ValueError,
    OverflowError,
    IndexError,
)
_END_RECORD = b"PK\x05\x06"
_END64_LOCATOR = b"PK\x06\x07"
_DRIVE_LETTER = re.compile(r"[A-Za-z]:")
_DEVKIT_OUTPUT = {"errors_out", "errors_img", "depth_orig", "depth_ipol", "image_0", "plots"}
_SYSTEM_FILES = {".DS_Store", "Thumbs.db", "desktop.ini"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the package.

    Attributes:
        name: full name in the archive, or relative path in the folder.
        base: last part of the name.
        size: unpacked size in bytes, as declared (zip) or on disk (folder).
        position: index in the archive's directory.
        readable: safe to read.
    """

    name: str
    base: str
    size: int
    position: int
    readable: bool = True


class Package:
    """Entries of a zip or folder and what is wrong with them as a container.

    Attributes:
        path: the archive or folder.
        entries: files, directory order (zip) or sorted (folder).
        findings: S01, S02, S04, S06, S07, S08.
        total_bytes: unpacked size of all entries, as declared.
        listed: the entries are known; False when the archive could not be opened at all.
    """

    def __init__(self, path: str | Path, limits: Limits) -> None:
        """Open and list.

        Raises:
            SubmissionError: there is no such file or folder.
        """
        self.path = Path(path)
        self.entries: tuple[Entry, ...] = ()
        self.findings: list[Finding] = []
        self.total_bytes = 0
        self.listed = True
        self._limits = limits
        self._zip: zipfile.ZipFile | None = None
        self._infos: list[zipfile.ZipInfo] = []
        if not self.path.exists():
            raise SubmissionError(f"submission not found: {self.path}. Give the zip or the folder of PNGs.")
        if self.path.is_dir():
            self._list_folder()
        elif not self.path.is_file():
            raise SubmissionError(f"{self.path} is neither a file nor a folder. Give the zip or the folder of PNGs.")
        else:
            self._list_zip()
        self._check_total()

    def __enter__(self) -> Package:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._zip is not None:
            self._zip.close()

    def read(self, entry: Entry) -> bytes:
        """Read one entry, at most `limits.member_bytes`.

        Raises:
            SubmissionError: the entry was refused, or is damaged.
        """
        cap = self._limits.member_bytes
        try:
            if not entry.readable:
                raise ValueError("refused")
            if self._zip is not None:
                with self._zip.open(self._infos[entry.position]) as stream:
                    # Asking for more than the claimed size would let the decompressor produce it.
                    data = stream.read(min(cap, entry.size) + 1)
            else:
                with (self.path / entry.name).open("rb") as file:
                    data = file.read(cap + 1)
        except ZIP_ERRORS as error:
            raise SubmissionError(_reason(error)) from None
        if len(data) > cap:
            raise SubmissionError(f"more than {cap // MEGABYTE} MB")
        return data

    # --- zip -----------------------------------------------------------------------------------------------------

    def _bad(self, reason: str, *, hostile: bool = False) -> None:
        self.findings.append(finding("S01", f"{self.path.name}: not a valid zip archive ({reason})", hostile=hostile))

    def _list_zip(self) -> None:
        try:
            directory = _directory_bytes(self.path)
            if directory is not None and directory > 256 * self._limits.entries:
                self._bad(f"its directory claims {directory / MEGABYTE:.0f} MB; refused", hostile=True)
                self.listed = False
                return
            self._zip = zipfile.ZipFile(self.path)
        except ZIP_ERRORS as error:
            self._bad(_reason(error))
            self.listed = False
            return
        self._infos = self._zip.infolist()
        if len(self._infos) > self._limits.entries:
            self._bad(f"{len(self._infos)} entries; refused", hostile=True)
            self._infos, self.listed = [], False
            return
        overlapping = _overlaps(self._infos)
        if overlapping:
            self._bad(f"entries share the same bytes: {name_list(overlapping)}; refused", hostile=True)
        seen: set[str] = set()
        self.entries = tuple(
            entry
            for i, info in enumerate(self._infos)
            if (entry := self._zip_entry(i, info, seen, bool(overlapping))) is not None
        )
        self._folder_findings(info.filename for info in self._infos)

    def _zip_entry(self, position: int, info: zipfile.ZipInfo, seen: set[str], overlapping: bool) -> Entry | None:
        """Judge one directory record; None for records that are no files."""
        name = info.filename
        label = shown(name)
        self.total_bytes += info.file_size
        if name in seen:
            self.findings.append(finding("S06", f"duplicate entry {label}", label, hostile=True))
        seen.add(name)
        if not name:
            self.findings.append(finding("S05", "an entry has no name", hostile=True))
            return None
        if _special(info):
            self.findings.append(
                finding("S04", f"unexpected entries: {label} is a link or device", label, hostile=True)
            )
            return None
        if info.is_dir():
            return None
        if "\0" in info.orig_filename or not name.isprintable():
            self.findings.append(
                finding("S05", f"'{shown(info.orig_filename)}': control characters in a name", label, hostile=True)
            )
        readable = not overlapping
        if info.flag_bits & 0x1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            self.findings.append(
                finding("S07", f"{label}: encrypted or compressed with an unsupported method", label, hostile=True)
            )
            readable = False
        bomb = self._bomb(info)
        if bomb:
            self.findings.append(finding("S08", f"{label}: {bomb}; refused", label, hostile=True))
            readable = False
        return Entry(name, re.split(r"[/\\]", name)[-1], info.file_size, position, readable)

    def _bomb(self, info: zipfile.ZipInfo) -> str:
        """Say why an entry looks like a decompression bomb, or nothing."""
        if info.file_size > self._limits.member_bytes:
            return f"claims to unpack to {info.file_size / MEGABYTE:.0f} MB"
        encrypted = info.flag_bits & 0x1  # its header of 12 bytes counts as packed data
        if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size and not encrypted:
            return f"stored, but {info.compress_size} bytes claim to be {info.file_size}"
        if info.file_size > self._limits.ratio_bytes and info.file_size > self._limits.ratio * info.compress_size:
            return f"{info.compress_size} bytes claim to unpack to {info.file_size}"
        return ""

    # --- folder --------------------------------------------------------------------------------------------------

    def _list_folder(self) -> None:
        try:
            listing = sorted(os.scandir(self.path), key=lambda e: e.name)
        except OSError as error:
            raise SubmissionError(f"cannot read folder {self.path}: {_reason(error)}.") from None
        entries: list[Entry] = []
        nested: list[str] = []
        for item in listing:
            if item.is_dir():
                nested.append(f"{item.name}/")
            elif item.is_file():
                size = item.stat().st_size
                self.total_bytes += size
                readable = size <= self._limits.member_bytes
                if not readable:
                    message = f"{shown(item.name)}: {size / MEGABYTE:.0f} MB is no depth map"
                    self.findings.append(finding("S08", message, shown(item.name)))
                entries.append(Entry(item.name, item.name, size, len(entries), readable))
            else:
                self.findings.append(
                    finding("S04", f"unexpected entries: {shown(item.name)} is no ordinary file", shown(item.name))
                )
        self.entries = tuple(entries)
        self._folder_findings(nested)

    # --- both ----------------------------------------------------------------------------------------------------

    def _folder_findings(self, names: Iterable[str]) -> None:
        """Report folders (S02), and names that would leave the target folder when unpacked."""
        folders: dict[str, int] = {}
        for name in names:
            parts = re.split(r"[/\\]", name)
            if ".." in parts or name[:1] in ("/", "\\") or _DRIVE_LETTER.match(name):
                message = f"'{shown(name)}' points outside the folder it would be unpacked to; refused"
                self.findings.append(finding("S02", message, shown(name), hostile=True))
            elif len(parts) > 1 and parts[0] != "__MACOSX" and parts[0] not in _DEVKIT_OUTPUT:
                folder = name[: -len(parts[-1]) - 1] if parts[-1] else name[:-1]
                folders[folder] = folders.get(folder, 0) + 1
            elif len(parts) > 1 and not parts[-1]:
                self.findings.append(finding("S04", f"unexpected entries: {shown(name)}", shown(name)))
        for folder in sorted(folders):
            message = (
                f"files are inside folder '{shown(folder)}'; PNGs must be in the zip root "
                "(the server reports this as 0 MB). Zip the files, not the folder."
            )
            self.findings.append(finding("S02", message, shown(folder)))

    def _check_total(self) -> None:
        total, limits = self.total_bytes, self._limits
        if total > limits.warn_bytes:
            verb = "exceeds" if total > limits.total_bytes else "is close to"
            level = "error" if total > limits.total_bytes else "warning"
            message = (
                f"accumulated size {total / MEGABYTE:.0f} MB {verb} the server limit of "
                f"{limits.total_bytes // MEGABYTE} MB; re-export with a higher PNG compression level"
            )
            self.findings.append(finding("S08", message, level=level))


def is_system_file(name: str) -> bool:
    """Whether a name is metadata that macOS or Windows adds."""
    parts = re.split(r"[/\\]", name)
    return parts[0] == "__MACOSX" or parts[-1] in _SYSTEM_FILES or parts[-1].startswith("._")


def is_devkit_output(name: str) -> bool:
    """Whether a name is something the devkit's evaluator leaves in a folder."""
    parts = re.split(r"[/\\]", name)
    return parts[0] in _DEVKIT_OUTPUT or parts[-1].startswith("stats_depth")


def _reason(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return shown(text or type(error).__name__, 200)


def _special(info: zipfile.ZipInfo) -> bool:
    """Whether the entry is a symbolic link, device, pipe or socket."""
    mode = stat.S_IFMT(info.external_attr >> 16)
    return mode not in (0, stat.S_IFREG, stat.S_IFDIR)


def _overlaps(infos: list[zipfile.ZipInfo]) -> list[str]:
    """Name the entries whose bytes are claimed by another entry too (30 bytes is a local header without its name)."""
    ordered = sorted(infos, key=lambda i: i.header_offset)
    bad = []
    for first, second in pairwise(ordered):
        if first.header_offset + 30 + first.compress_size > second.header_offset:
            bad.append(second.filename)
    return bad


def _directory_bytes(path: Path) -> int | None:
    """Read the claimed size of the zip directory before a reader allocates it; None when there is no end record."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - 66_000)
        file.seek(start)
        tail = file.read()
        at = tail.rfind(_END_RECORD)
        if at < 0 or at + 22 > len(tail):
            return None
        claimed: int = struct.unpack_from("<L", tail, at + 12)[0]
        if at >= 20 and tail[at - 20 : at - 16] == _END64_LOCATOR:
            offset: int = struct.unpack_from("<Q", tail, at - 12)[0]
            if offset + 56 <= size:
                file.seek(offset)
                claimed = max(claimed if claimed != 0xFFFFFFFF else 0, struct.unpack_from("<Q", file.read(56), 40)[0])
    return min(claimed, size) if claimed != 0xFFFFFFFF else claimed
