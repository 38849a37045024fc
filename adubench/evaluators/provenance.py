"""Where a number came from: versions, code, data. Time, host and paths are recorded but enter no fingerprint."""

from __future__ import annotations

import hashlib
import shlex
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adubench import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable

_LIBRARIES = ("numpy", "scipy", "h5py", "PIL", "numba", "isal", "torch", "timm")


@cache
def source_hash() -> str:
    """SHA-256 over the package's Python files, so that an edited checkout is told apart from a release."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def library_versions() -> dict[str, str]:
    """Versions of the libraries that this process has loaded (an unloaded one cannot have changed a number)."""
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in _LIBRARIES:
        module = sys.modules.get(name)
        version = getattr(module, "__version__", None)
        if isinstance(version, str):
            versions[name] = version
    return versions


def data_fingerprint(names: Iterable[str], signatures: Iterable[tuple[int, int, int]]) -> str:
    """SHA-256 over frame names and ground-truth signatures in evaluation order."""
    digest = hashlib.sha256()
    for name, signature in zip(names, signatures, strict=True):
        digest.update(f"{name} {signature[0]} {signature[1]} {signature[2]}\n".encode())
    return digest.hexdigest()


def base_provenance() -> dict[str, Any]:
    """Everything about the program and the moment; the evaluator adds the data."""
    import os
    from datetime import UTC, datetime

    system = os.uname() if hasattr(os, "uname") else None
    return {
        "adubench": __version__,
        "source_sha256": source_hash(),
        "libraries": library_versions(),
        "platform": f"{system.sysname} {system.machine}" if system else sys.platform,
        "command": shlex.join(["adubench", *sys.argv[1:]]) if sys.argv else "",
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
