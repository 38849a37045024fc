"""What an evaluation is about to do: which frames, which ground truth, which prediction; and whether it may."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adubench.errors import DataError, ProtocolError
from adubench.evaluators import assemble
from adubench.evaluators.run import Item, Job, Track

if TYPE_CHECKING:
    from adubench.evaluators.eval_options import EvalOptions
    from adubench.evaluators.predictions import Matching
    from adubench.io.collection import MapCollection


@dataclass(frozen=True, slots=True)
class Plan:
    """Tracks with the frames each of them scores, joined to predictions.

    Attributes:
        split: the split (`datasets.splits.Split`), None for explicit ground truth.
        tracks: protocols by ground truth.
        frames: per track, the keys of the frames that have ground truth.
        readers: per track, its ground truth.
        expected: per track, number of frames that the split has by definition; None where none is.
        predictions: where they come from.
        matching: which belongs to which frame.
        notes: sentences for the reader of the result.
        every_protocol: `--protocol all`: what does not fit is left out.
        facts: provenance of predictions that are made while they are scored.
    """

    split: Any
    tracks: tuple[Track, ...]
    frames: tuple[tuple[Any, ...], ...]
    readers: tuple[Any, ...]
    expected: tuple[int | None, ...]
    predictions: MapCollection
    matching: Matching
    notes: tuple[str, ...]
    every_protocol: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


def check_counts(plan: Plan, options: EvalOptions) -> None:
    """Refuse ground truth that is not complete, unless missing images are allowed.

    Raises:
        DataError: says how many are missing.
    """
    for reader, frames, expected in zip(plan.readers, plan.frames, plan.expected, strict=True):
        if reader.missing and not options.allow_missing:
            raise DataError(
                f"{len(reader.missing)} of {expected} ground-truth maps missing, first: {reader.missing[0]}. "
                "Complete the data (adubench data check), or use --allow-missing for a result marked partial."
            )
        if expected is not None and len(frames) != expected and not options.allow_missing:
            raise DataError(
                f"split {plan.split.name if plan.split else ''}: {len(frames)} images have ground truth "
                f"({reader.kind}), expected {expected}. Complete the data (adubench data check), or use "
                "--allow-missing for a result marked partial."
            )


def without_incomplete_tracks(plan: Plan) -> Plan:
    """Under `--protocol all`, leave out ground truth whose frames have no complete predictions, and say so."""
    if not plan.every_protocol or len(plan.tracks) < 2:
        return plan
    missing = set(plan.matching.missing)
    lacking = [sum(f.name in missing for f in frames) for frames in plan.frames]
    kept = [t for t, count in enumerate(lacking) if not count]
    if not kept or len(kept) == len(plan.tracks):
        return plan
    notes = [
        f"{', '.join(p.name for p in plan.tracks[t].protocols)}: left out, {count} of {len(plan.frames[t])} frames "
        f"with {plan.readers[t].kind} have no prediction."
        for t, count in enumerate(lacking)
        if count
    ]
    names = {f.name for t in kept for f in plan.frames[t]}
    matching = dataclasses.replace(
        plan.matching,
        keys={frame: key for frame, key in plan.matching.keys.items() if frame in names},
        missing=tuple(m for m in plan.matching.missing if m in names),
    )
    return dataclasses.replace(
        plan,
        tracks=tuple(plan.tracks[t] for t in kept),
        frames=tuple(plan.frames[t] for t in kept),
        readers=tuple(plan.readers[t] for t in kept),
        expected=tuple(plan.expected[t] for t in kept),
        matching=matching,
        notes=(*plan.notes, *notes),
    )


def check_pixel_values(plan: Plan) -> None:
    """Values at ground-truth pixels are worth nothing beside another ground truth."""
    pack = getattr(plan.predictions, "pack", None)
    check = getattr(pack, "check_ground_truth", None)
    if check is None:
        return
    for reader in plan.readers:
        truth = getattr(reader, "pack", None)
        if truth is None:
            raise DataError(
                f"{plan.predictions.root}: holds values at the pixels of a ground-truth pack; give that one with --gt."
            )
        check(truth)


def items_of(plan: Plan) -> tuple[Item, ...]:
    """List the frames to score, each once, in the order of the first track that has it."""
    by_name: dict[str, list[Any]] = {}
    for t, frames in enumerate(plan.frames):
        for frame in frames:
            if frame.name in plan.matching.keys:
                by_name.setdefault(frame.name, [None] * len(plan.frames))[t] = frame
    return tuple(
        Item(name, plan.matching.keys[name], tuple(row), _focal_baseline(plan, row)) for name, row in by_name.items()
    )


def _focal_baseline(plan: Plan, row: Sequence[Any]) -> float | None:
    for reader, frame in zip(plan.readers, row, strict=True):
        if frame is not None:
            lookup = getattr(reader, "focal_baseline", None)
            return lookup(frame) if lookup is not None else None
    return None


def fitting(plan: Plan, items: Sequence[Item], options: EvalOptions) -> Plan:
    """Under `--protocol all`, keep the protocols that accept the first frame; named ones must accept every frame."""
    if not plan.every_protocol:
        return plan
    tracks, left_out = [], []
    for t, track in enumerate(plan.tracks):
        first = next((item for item in items if item.frames[t] is not None), None)
        if first is None:
            tracks.append(Track(track.reader, ()))
            continue
        item = dataclasses.replace(first, frames=(first.frames[t],))
        fitting = []
        for protocol in track.protocols:
            alone = (Track(track.reader, (protocol,)),)
            try:
                Job((item,), alone, plan.predictions, options.kind, options.compat).score(0)
            except ProtocolError:
                left_out.append(protocol.name)
            else:
                fitting.append(protocol)
        tracks.append(Track(track.reader, tuple(fitting)))
    if not any(track.protocols for track in tracks):
        raise ProtocolError(f"frame {items[0].name}: no protocol accepts this prediction; check its size and kind.")
    notes = [f"left out, as these maps do not fit: {', '.join(left_out)}."] if left_out else []
    return dataclasses.replace(plan, tracks=tuple(tracks), notes=(*plan.notes, *notes))


def context_of(
    plan: Plan,
    t: int,
    options: EvalOptions,
    paths: Mapping[str, str | Path | None],
    rows: Sequence[Any],
) -> assemble.Context:
    """Gather what the results of a track say besides their scores."""
    items = items_of(plan)
    frames = [item.frames[t] for item, row in zip(items, rows, strict=True) if row[t] is not None]
    names = {f.name for f in plan.frames[t]}
    reader = plan.readers[t]
    facts: dict[str, Any] = {key: str(value) for key, value in paths.items() if value is not None}
    facts |= {"ground_truth_kind": reader.kind, "layout": reader.layout, "workers": options.workers}
    if plan.split is not None and plan.split.no_gt and plan.tracks[t].protocols[0].ground_truth != "raw":
        facts["without_ground_truth"] = f"{len(plan.split.no_gt)} of {len(plan.split.frames)}"
    facts |= {"png_scale": options.png_scale, "compat": options.compat, **plan.facts}
    return assemble.Context(
        split=plan.split.name if plan.split else None,
        expected=plan.expected[t],
        frames=tuple(f.name for f in frames),
        drives=tuple(f.drive for f in frames),
        missing=tuple(m for m in plan.matching.missing if m in names),
        unknown=plan.matching.unknown,
        label=options.label or Path(paths["source"] or "").resolve().stem or "predictions",
        kind=options.kind,
        facts=facts,
        warnings=plan.notes,
    )
