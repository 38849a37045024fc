"""Small things that the commands about training need."""

from __future__ import annotations

from importlib.util import find_spec

from adubench.errors import UsageError

_PACKAGES = ("torch", "timm", "accelerate", "safetensors")


def need_training(command: str) -> None:
    """Refuse to go on without the packages of the extra `train`.

    Raises:
        UsageError: one of them is not installed.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise UsageError(f"{command} needs {', '.join(missing)}: pip install 'adubench[train]'.")
