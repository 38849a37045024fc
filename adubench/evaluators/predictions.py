"""Which prediction belongs to which frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adubench.errors import DataError, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from adubench.io.collection import MapCollection


@dataclass(frozen=True, slots=True)
class Matching:
    """Predictions joined to frames.

    Attributes:
        keys: frame name -> name in the collection, for the frames that have a prediction.
        missing: frame names without prediction, in frame order.
        unknown: prediction names that belong to no frame of the split.
    """

    keys: Mapping[str, str]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]


def match_by_stem(frames: Sequence[str], predictions: MapCollection, *, single: bool = False) -> Matching:
    """Pair by equal relative stem (explicit ground truth).

    A stacked array is paired by position in sorted frame order; a single map with a single frame whatever their names.

    Args:
        frames: frame names, sorted.
        predictions: the collection.
        single: the ground truth is one map in a file of its own.
    """
    if predictions.stacked:
        return _match_by_position(frames, predictions, [tuple(frames)])
    if len(frames) == len(predictions.names) == 1 and (single or predictions.single):
        return Matching({frames[0]: predictions.names[0]}, (), ())
    held = set(predictions.names)
    keys = {frame: frame for frame in frames if frame in held}
    return _checked(frames, keys, tuple(n for n in predictions.names if n not in keys), predictions)


def match_by_alias(
    frames: Sequence[str],
    predictions: MapCollection,
    *,
    identify: Callable[[str], str | None],
    aliases: Mapping[str, Sequence[str]],
    orders: Sequence[Sequence[str]] = (),
    known: frozenset[str] = frozenset(),
) -> Matching:
    """Pair by any of the accepted names of a frame (named split).

    Args:
        frames: frame names in official order.
        predictions: the collection.
        identify: finds the frame name in a prediction's name (drive, camera and frame number); None if there is none.
        aliases: frame name -> other accepted names.
        orders: official orders that a stacked array may have (697 or 652 images for Eigen).
        known: names of frames that belong to the split but are not scored; their predictions are not "unknown".

    Raises:
        DataError: two predictions for one frame, or a stacked array of another length.
        ProtocolError: no prediction belongs to any frame.
    """
    if predictions.stacked:
        return _match_by_position(frames, predictions, [tuple(o) for o in orders] or [tuple(frames)])
    wanted = {alias: frame for frame in frames for alias in (*aliases.get(frame, ()), frame)}
    keys: dict[str, str] = {}
    unknown = []
    for name in predictions.names:
        identified = identify(name)
        frame = wanted.get(name) or wanted.get(identified or "")
        if frame is None:
            if name not in known and identified not in known:
                unknown.append(name)
        elif frame in keys:
            raise DataError(
                f"two predictions for frame {frame}: {predictions.where(keys[frame])} and {predictions.where(name)}. "
                "Remove one."
            )
        else:
            keys[frame] = name
    return _checked(frames, keys, tuple(unknown), predictions)


def _match_by_position(
    frames: Sequence[str], predictions: MapCollection, orders: Sequence[tuple[str, ...]]
) -> Matching:
    count = len(predictions.names)
    for order in orders:
        if len(order) == count:
            position = {frame: predictions.names[i] for i, frame in enumerate(order)}
            keys = {frame: position[frame] for frame in frames if frame in position}
            return Matching(keys, tuple(f for f in frames if f not in keys), ())
    lengths = " or ".join(str(len(order)) for order in orders)
    raise DataError(
        f"{predictions.root}: {count} stacked predictions, expected {lengths} in official order. "
        "Use one array per frame name if the set is another."
    )


def _checked(
    frames: Sequence[str], keys: dict[str, str], unknown: tuple[str, ...], predictions: MapCollection
) -> Matching:
    if not keys and frames:
        raise ProtocolError(
            f"no prediction in {predictions.root} belongs to a frame: predictions are named like "
            f"'{predictions.names[0]}', frames like '{frames[0]}'. Rename them to the frames' names."
        )
    return Matching(keys, tuple(f for f in frames if f not in keys), unknown)


def missing_error(missing: Sequence[str], expected: int, predictions: MapCollection) -> ProtocolError:
    """Build the error for frames without prediction."""
    listed = ", ".join(missing[:3]) + (" and more" if len(missing) > 3 else "")
    return ProtocolError(
        f"{len(missing)} of {expected} predictions missing in {predictions.root}, first: {listed}. "
        "Predict them, or use --allow-missing for a result marked partial."
    )
