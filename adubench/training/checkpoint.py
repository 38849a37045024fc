"""Checkpoints: one safetensors file that holds a network's weights and, as metadata, everything else about it.

The metadata is one JSON document under the key `adubench`, so that what a checkpoint is can be read from its first
bytes, without torch. Nothing in the file is ever executed: no pickle, and its configuration only names parts of the
zoo.
The state of a training (optimiser, random numbers, step) is kept in a file of its own.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from adubench import __version__
from adubench.errors import AdubenchError, CheckpointError

if TYPE_CHECKING:
    import torch

    from adubench.models.interface import DepthNetwork

FORMAT = 1
SUFFIX = ".safetensors"
METADATA_KEY = "adubench"
_MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit
_PICKLE_SIGNS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_DTYPE_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
                "I8": 1, "U8": 1, "BOOL": 1}  # fmt: skip

Role = Literal["student", "teacher", "imported"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointInfo:
    """What a checkpoint says about its network.

    Attributes:
        model: configuration from which the zoo builds the network, `family` included.
        role: "student", "teacher", or "imported" (made from official weights).
        recipe: the recipe it was trained with, as resolved; None for imported weights.
        step: optimiser steps done.
        metrics: last validation numbers by `metric` or `metric@region`; not finite ones are stored as null.
        data: `fingerprint`, `split` (name of the training split), `frames` (SHA-256 over the training frames' names).
        source: where it came from: file names and hashes of imported weights, the teacher's hash, ...
        code: version of adubench that wrote it.
        format: version of this layout.
    """

    model: Mapping[str, Any]
    role: Role = "student"
    recipe: Mapping[str, Any] | None = None
    step: int = 0
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    code: str = __version__
    format: int = FORMAT

    @property
    def family(self) -> str:
        """Name of the network's family in the zoo."""
        return str(self.model.get("family", ""))

    def to_json(self) -> str:
        """Write the document; equal information gives equal bytes."""
        document = {"kind": "model", **asdict(self), "model": _without_downloads(self.model)}
        return json.dumps(_finite(document), sort_keys=True, separators=(",", ":"), allow_nan=False)


def save_checkpoint(path: str | Path, network: DepthNetwork, *, info: CheckpointInfo | None = None) -> Path:
    """Write a checkpoint; a reader sees the old file or the complete new one.

    Equal weights and equal information give equal bytes.

    Args:
        path: the file; `.safetensors` is what `adubench` commands recognise.
        network: its `state_dict` is stored in the types it has, from whatever device.
        info: what to store beside the weights; `info.model` defaults to the network's own configuration.

    Returns:
        The path.

    Raises:
        CheckpointError: the information is no plain JSON.
        DataError: the file cannot be written (no permission, disk full); an older checkpoint there is untouched.
    """
    from safetensors.torch import save

    from adubench.io.atomic import atomic_path

    info = info or CheckpointInfo(model=network.config)
    state = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
    try:
        text = info.to_json()
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: what is to be stored beside the weights is no plain JSON ({error}).") from None
    data = save(state, metadata={METADATA_KEY: text})
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return Path(path)


def is_checkpoint(path: str | Path) -> bool:
    """Whether a path names a safetensors file, by its name alone."""
    return Path(path).suffix.lower() == SUFFIX


def read_info(path: str | Path) -> CheckpointInfo:
    """Read what a checkpoint says about itself; neither torch nor a weight is loaded.

    Raises:
        CheckpointError: missing, cut off, another format, or not one of ours.
    """
    header = read_header(path)
    text = header.get("__metadata__", {}).get(METADATA_KEY)
    if text is None:
        raise CheckpointError(
            f"{path}: a safetensors file, but no checkpoint of adubench. "
            f"Import it: adubench import-weights auto {path} -o OURS.safetensors."
        )
    try:
        document = json.loads(text)
        return _info(document, path)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: the description of the network in it is damaged ({error}).") from None


def read_header(path: str | Path) -> dict[str, Any]:
    """Read and check the header of a safetensors file.

    Returns:
        Tensor name -> {dtype, shape, data_offsets}, and `__metadata__` (possibly empty).

    Raises:
        CheckpointError: missing, cut off, or no safetensors file.
    """
    file = Path(path)
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(8)
            _refuse_other_formats(start, file)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
            text = stream.read(length) if length <= min(_MAX_HEADER_BYTES, size - 8) else b""
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint not found: {file}.") from None
    except IsADirectoryError:
        raise CheckpointError(
            f"checkpoint {file}: a folder, not a file of adubench's. Import official folders: "
            f"adubench import-weights auto {file} -o OURS.safetensors."
        ) from None
    except OSError as error:
        raise CheckpointError(f"checkpoint {file}: cannot be read ({error.strerror or error}).") from None
    if not text.startswith(b"{"):
        raise CheckpointError(f"checkpoint {file}: no safetensors file, or cut off within its header. Copy it again.")
    try:
        header = json.loads(text)
        stored = header.setdefault("__metadata__", {})
        if not isinstance(stored, dict):
            raise TypeError("its metadata is no table")
        end = _check_tensors(header)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"checkpoint {file}: damaged header ({error}). Copy it again.") from None
    if 8 + length + end != size:
        raise CheckpointError(
            f"checkpoint {file}: cut off or changed: {size} bytes where its header announces {8 + length + end}. "
            "Copy it again."
        )
    return dict(header)


def load_network(path: str | Path, device: str | torch.device = "cpu") -> tuple[DepthNetwork, CheckpointInfo]:
    """Build the network of a checkpoint and load its weights, all of them.

    The global random numbers are left as they were.

    Args:
        path: file of `save_checkpoint`.
        device: where the network goes.

    Returns:
        The network in evaluation mode, and the information.

    Raises:
        CheckpointError: not a checkpoint of ours, cut off, or weights that do not belong to the network it names.
    """
    info = read_info(path)
    network = _build(info, path)
    load_weights(network, path)
    return network.to(device).eval(), info


def load_weights(network: torch.nn.Module, path: str | Path) -> None:
    """Load the weights of a checkpoint into a network that exists.

    Raises:
        CheckpointError: a weight is missing, unknown, or of another shape; the network is then unchanged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    header = read_header(path)
    header.pop("__metadata__")
    own = network.state_dict()
    _compare(own, header, path)
    try:
        network.load_state_dict(load_file(path), strict=True)
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path}: cannot be read ({_first_line(error)}).") from None


def load_model(path: str | Path, device: str | torch.device = "cpu") -> DepthNetwork:
    """Load the network of a checkpoint, ready for `infer`.

    Args:
        path: a checkpoint that `adubench train` or `adubench import-weights` wrote.
        device: where the network goes.

    Raises:
        CheckpointError: see `load_network`.
    """
    return load_network(path, device)[0]


def _build(info: CheckpointInfo, path: str | Path) -> DepthNetwork:
    import torch

    from adubench.models.zoo import build

    try:
        with torch.random.fork_rng(devices=[]):
            return build(dict(info.model))
    except CheckpointError:
        raise
    except AdubenchError as error:
        raise CheckpointError(f"checkpoint {path}: names a network that this version does not know: {error}") from None
    except (RuntimeError, MemoryError, ValueError, TypeError, ArithmeticError, AssertionError) as error:
        raise CheckpointError(
            f"checkpoint {path}: its network cannot be built ({_first_line(error)}); the description is damaged."
        ) from None


def _info(document: Any, path: str | Path) -> CheckpointInfo:
    if document.get("kind") != "model":
        raise CheckpointError(
            f"checkpoint {path}: holds '{document.get('kind')}', not a network; give the model's file."
        )
    if document.get("format") != FORMAT:
        raise CheckpointError(
            f"checkpoint {path}: layout {document.get('format')}, this version of adubench reads {FORMAT}. "
            "Update adubench."
        )
    model = document.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("family"), str):
        raise ValueError("it names no family")
    for key in ("metrics", "data", "source"):
        if not isinstance(document.get(key, {}), dict):
            raise TypeError(f"'{key}' is no table")
    return CheckpointInfo(
        model=_without_downloads(model),
        role=document.get("role", "student"),
        recipe=document.get("recipe"),
        step=int(document.get("step", 0)),
        metrics=document.get("metrics", {}),
        data=document.get("data", {}),
        source=document.get("source", {}),
        code=str(document.get("code", "")),
    )


def _without_downloads(model: Mapping[str, Any]) -> dict[str, Any]:
    """Turn off pretrained weights: a checkpoint has its own, and loading one must not fetch or open anything."""
    return {key: False if key == "pretrained" else value for key, value in model.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _refuse_other_formats(start: bytes, path: Path) -> None:
    if start.startswith(_PICKLE_SIGNS):
        raise CheckpointError(
            f"checkpoint {path}: a PyTorch file, not one of adubench's. "
            f"Import it: adubench import-weights auto {path} -o OURS.safetensors."
        )


def _check_tensors(header: Mapping[str, Any]) -> int:
    """Check that the tensors follow each other without gap or overlap; return where the last one ends."""
    spans = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        count = math.prod(entry["shape"])
        if end - begin != count * _DTYPE_BYTES[entry["dtype"]] or any(n < 0 for n in entry["shape"]):
            raise ValueError(f"tensor '{name}' has another size than its shape says")
        spans.append((begin, end))
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise ValueError("tensors overlap or leave gaps")
        position = end
    return position


def _compare(own: Mapping[str, torch.Tensor], stored: Mapping[str, Any], path: str | Path) -> None:
    """Name the first weights that do not fit."""
    missing = [name for name in own if name not in stored]
    unknown = [name for name in stored if name not in own]
    if missing or unknown:
        parts = [
            f"{len(names)} weights {what} (first: {names[0]})"
            for names, what in ((missing, "are missing"), (unknown, "are unknown to it"))
            if names
        ]
        raise CheckpointError(f"checkpoint {path}: belongs to another network: {' and '.join(parts)}.")
    for name, value in own.items():
        if list(value.shape) != list(stored[name]["shape"]):
            raise CheckpointError(
                f"checkpoint {path}: belongs to another network: weight {name} is {stored[name]['shape']}, "
                f"the network has {list(value.shape)}."
            )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
