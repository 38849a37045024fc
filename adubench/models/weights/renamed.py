"""What the importers of AdaBins, BTS and the TIE-KD students share: finding tensors, renaming, strict comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from adubench.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn

MAX_DEPTH = {"kitti": 80.0, "nyu": 10.0}
_INNER = ("model", "state_dict", "model_state_dict")
_COUNTER = "num_batches_tracked"


def plain_state(source: object) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint without `module.` prefixes; empty if it holds none.

    Args:
        source: what `load_foreign` returned: a state dictionary, or one under `model` or `state_dict` beside an
            optimizer and counters.
    """
    if not isinstance(source, Mapping):
        return {}
    inner: Mapping[Any, Any] = next((source[k] for k in _INNER if isinstance(source.get(k), Mapping)), source)
    state = {}
    for key, value in inner.items():
        if isinstance(value, torch.Tensor):
            name = str(key)
            while name.startswith("module."):
                name = name.removeprefix("module.")
            state[name] = value
    return state


def meta_text(source: object) -> str:
    """Return the configuration text that the mm toolboxes store beside their tensors, or an empty string."""
    meta = source.get("meta") if isinstance(source, Mapping) else None
    return str(meta.get("config", "")) if isinstance(meta, Mapping) else ""


def renamed(state: Mapping[str, Tensor], rename: Callable[[str], str | None]) -> dict[str, Tensor]:
    """Rename tensors; names for which `rename` returns None are left out."""
    named = ((rename(key), value) for key, value in state.items())
    return {name: value for name, value in named if name is not None}


def complete_state(
    state: Mapping[str, Tensor],
    build: Callable[[Mapping[str, Any]], nn.Module],
    config: Mapping[str, Any],
    *,
    where: str,
    kind: str,
    official: Callable[[str], str],
) -> dict[str, Tensor]:
    """Compare with the network and return its complete state.

    Counters of batch norms may be missing (they came with PyTorch 0.4.1) and become 0; floating-point tensors become
    float32.

    Args:
        state: tensors under our names.
        build: makes the network; called on the meta device.
        config: its configuration.
        where: the file, for errors.
        kind: what it should be, for errors.
        official: our name to the file's, for errors.

    Raises:
        CheckpointError: tensors missing, unknown or of the wrong shape.
    """
    with torch.device("meta"):
        own = build(config).state_dict()
    missing = [key for key in own if key not in state and not key.endswith(_COUNTER)]
    unknown = [key for key in state if key not in own]
    wrong = [key for key in own if key in state and own[key].shape != state[key].shape]
    for what, keys in (("lacks", missing), ("has, beside them,", unknown), ("has another shape of", wrong)):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise CheckpointError(
                f"{where}: expected the tensors of {kind}, but it {what} '{official(keys[0])}'{more}."
            )
    complete = {}
    for key, expected in own.items():
        value = state.get(key)
        if value is None:
            value = torch.zeros(expected.shape, dtype=expected.dtype)
        complete[key] = value.detach().to(expected.dtype).clone().contiguous()
    return complete


def batch_of_notes(kind: str, max_depth: float, dropped: list[str], *more: str) -> tuple[str, ...]:
    """Word what an importer found."""
    notes = [f"{kind}, max_depth {max_depth:g} m", *more]
    if dropped:
        tensors = "1 tensor" if len(dropped) == 1 else f"{len(dropped)} tensors"
        notes.append(f"left out {tensors} the network never uses: {', '.join(sorted(dropped))}")
    return tuple(notes)
