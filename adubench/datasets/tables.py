"""The split tables shipped with the package: reading them, and the small encodings they use."""

from __future__ import annotations

import base64
from functools import cache
from importlib.resources import files
from typing import Any

from adubench.errors import DataError

#: A frame token of the tables: one frame, or "a:b[:s]" with the meaning of Python's range.
Token = int | str


@cache
def load_table(name: str) -> dict[str, Any]:
    """Read one table of the package (`eigen_test`, `kitti_drives`, ...); read once, do not modify the result."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = files("adubench.datasets").joinpath("lists", f"{name}.yaml").read_bytes()
    table = yaml.load(text, Loader=loader)  # noqa: S506 (a safe loader: the C one or the Python one)
    if not isinstance(table, dict) or table.get("schema") != 1:
        raise DataError(f"the packaged table lists/{name}.yaml is damaged: install adubench again.")
    return table


def expand(tokens: list[Token]) -> list[int]:
    """Expand frame tokens to the ascending list of frames; tokens never overlap."""
    out: list[int] = []
    for token in tokens:
        if isinstance(token, int):
            out.append(token)
        else:
            out.extend(range(*(int(part) for part in token.split(":"))))
    return sorted(out)


def unpack_bits(text: str, n_frames: int) -> set[int]:
    """Expand a base64 bit string (LSB first over frames 0..n_frames-1) to the set of frames."""
    data = base64.b64decode(text)
    return {i for i in range(n_frames) if data[i // 8] >> (i % 8) & 1}
