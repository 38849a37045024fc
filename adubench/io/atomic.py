"""Write files so that a reader sees the old file or the new one, never half of one."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from adubench.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator


def write_error(path: Path, error: OSError) -> DataError:
    """Say why a file could not be written, in one sentence."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return DataError(f"cannot write {path}: it, or what should be a folder above it, is a file. Choose another -o.")
    reason = error.strerror or str(error)
    return DataError(f"cannot write {path}: {reason}. Choose another place with -o, or free the disk.")


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` when the block ends well.

    The folder is created. On any exception (Ctrl-C included) the temporary file is removed and `path` is untouched.
    A symbolic link stays one: the file it points to is replaced.

    Raises:
        DataError: the folder or file cannot be written (read-only, disk full), or `path` is a device, pipe or folder.
    """
    named = Path(path)
    if os.path.exists(named) and not os.path.isfile(named) and not os.path.isdir(named):
        # A rename would replace /dev/null itself.
        raise DataError(f"cannot write {named}: it is a device or a pipe, not a file. Choose another place with -o.")
    target = Path(os.path.realpath(named)) if os.path.islink(named) else named
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
        os.close(handle)
    except OSError as error:
        raise write_error(named, error) from None
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
    except OSError as error:
        raise write_error(named, error) from None
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` atomically, UTF-8 with LF line ends."""
    write_bytes(path, text.encode("utf-8"))
