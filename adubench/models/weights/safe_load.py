"""Read foreign checkpoints without running anything they contain."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from adubench.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import Tensor

# What a checkpoint may hold besides tensors and plain values: numpy arrays and scalars of plain numbers.
_DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
MAX_BYTES = 64 * 2**30


def _under_name(function: Callable[..., Any], module: str) -> Callable[..., Any]:
    """Wrap a function of numpy under the module name that a pickle of another numpy wrote."""

    def call(*args: Any) -> Any:
        return function(*args)

    call.__module__, call.__name__, call.__qualname__ = module, function.__name__, function.__name__
    return call


def _allowed() -> list[Any]:
    """List the globals that numpy arrays of plain numbers need, under the names of numpy 1 and numpy 2."""
    names: list[Any] = [np.ndarray, np.dtype, *(type(np.dtype(name)) for name in _DTYPES)]
    rebuild: Any = np.empty(0).__reduce__()[0]  # numpy's `_reconstruct` and `scalar`, wherever this numpy keeps them
    scalar: Any = np.float64(0).__reduce__()[0]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        names += [_under_name(rebuild, module), _under_name(scalar, module)]
    return names


@contextmanager
def _allowing(names: list[Any]) -> Iterator[None]:
    """Extend torch's list of safe globals for the duration of a block."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals(names)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def load_foreign(path: Path) -> object:
    """Load a checkpoint of torch (zip or legacy) or safetensors onto the CPU.

    Only tensors, plain values and numpy arrays of numbers are accepted; nothing in the file is executed.

    Raises:
        CheckpointError: missing, truncated, not a checkpoint, or a pickle that wants to call something else.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder, and this family is one file: name the file.")
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint file {path}.")
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    _check_container(path)
    try:
        with _allowing(_allowed()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols: a file that fails is named below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(path, str(error))) from error
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or no checkpoint: {_first_line(error)}; fetch it again.") from error


def _refusal(path: Path, message: str) -> str:
    """Word what the safe unpickler refused."""
    for marker in ("Unsupported global: GLOBAL ", "GLOBAL "):
        if marker in message:
            name = message.split(marker, 1)[1].split()[0]
            return (
                f"{path} wants to run '{name}' while loading, which no checkpoint needs: it is not safe and not loaded."
            )
    # torch's own words advise to switch its protection off.
    return (
        f"{path} is no checkpoint, is damaged, or holds more than tensors and plain values: not loaded; fetch it again."
    )


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    """Load a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {_first_line(error)}.") from error


def _check_container(path: Path) -> None:
    """Refuse what can be refused before any unpickling: empty files, and zips that unpack to absurd sizes."""
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError(f"{path} is empty: fetch it again.")
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(item.file_size for item in archive.infolist())
    except (zipfile.BadZipFile, OSError) as error:
        raise CheckpointError(f"{path} is damaged: {_first_line(error)}; fetch it again.") from error
    if unpacked > min(MAX_BYTES, 100 * size + 2**20):
        raise CheckpointError(f"{path} unpacks from {size} to {unpacked} bytes, which no checkpoint does: not loaded.")


def _first_line(error: Exception) -> str:
    """Return the first sentence of an error's message without the final stop."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].split(". ")[0][:200].rstrip(".")


def tensors_of(source: object, path: Path) -> dict[str, Tensor]:
    """Find the state dictionary in what `load_foreign` returned.

    Args:
        source: a state dictionary, or a dictionary that holds one under `model`, `state_dict` or `model_state_dict`.
        path: for error messages.

    Raises:
        CheckpointError: there is none.
    """
    candidates: list[object] = [source]
    if isinstance(source, dict):
        candidates += [source.get(key) for key in ("model", "state_dict", "model_state_dict")]
    for candidate in candidates:
        if isinstance(candidate, dict):
            tensors = {str(key): value for key, value in candidate.items() if isinstance(value, torch.Tensor)}
            if tensors and len(tensors) >= len(candidate) // 2:
                return tensors
    raise CheckpointError(f"{path} holds no state dictionary: it is no checkpoint of a network.")
