"""Small things that the commands about training need."""

from __future__ import annotations

from importlib.util import find_spec

from adubench.errors import UsageError

_PACKAGES = ("torch", "timm", "accelerate", "safetensors")


def missing_packages() -> list[str]:
    """Name the packages of the extra `train` that are not installed."""
    return [name for name in _PACKAGES if find_spec(name) is None]


def need_training(command: str) -> None:
    """Refuse to go on without the packages of the extra `train`.

    Raises:
        UsageError: one of them is not installed.
    """
    missing = missing_packages()
    if missing:
        raise UsageError(f"{command} needs {', '.join(missing)}: pip install 'adubench[train]'.")
