"""The whole path of a number: frames of a split, their ground truth, their predictions, one result per protocol.

This is the only module of the evaluators that knows data sets. It plans (which frames, which ground truth, which
prediction), `run.py` scores, `assemble.py` builds the results.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adubench.datasets.frames import FrameKey, driving_stereo_stem, parse_kitti
from adubench.datasets.ground_truth import FolderGroundTruth, GroundTruth, open_ground_truth
from adubench.errors import AdubenchError, DataError, ProtocolError, UsageError
from adubench.evaluators import assemble, moments
from adubench.evaluators.eval_options import KINDS, EvalOptions
from adubench.evaluators.plan import (
    Plan,
    check_counts,
    check_pixel_values,
    context_of,
    fitting,
    items_of,
    without_incomplete_tracks,
)
from adubench.evaluators.predictions import Matching, match_by_alias, match_by_stem, missing_error
from adubench.evaluators.protocols import PROTOCOLS, Protocol, get_protocol
from adubench.evaluators.run import Item, Job, LivePredictions, LiveSource, Track, run
from adubench.evaluators.valid_pixels import selection_mask, valid_pixels
from adubench.io.collection import MapCollection, open_maps

if TYPE_CHECKING:
    from adubench.datasets.splits import Split
    from adubench.evaluators.analysis_run import TrackAnalysis
    from adubench.evaluators.boundary_run import BoundaryScorer
    from adubench.evaluators.region_reader import FrameReader
    from adubench.evaluators.region_run import TrackRegions
    from adubench.evaluators.result import EvaluationResult
    from adubench.evaluators.run import TrackScores
    from adubench.evaluators.teacher_run import TeacherMaps
    from adubench.evaluators.uncertainty_run import UncertaintyMaps

DATA_ROOT_VARIABLE = "ADUBENCH_DATA_ROOT"


def evaluate(
    source: str | Path | LiveSource,
    *,
    split: str | None = None,
    gt: str | Path | None = None,
    protocol: str | Sequence[str] | None = None,
    data_root: str | Path | None = None,
    options: EvalOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[EvaluationResult]:
    """Score predictions under one or several protocols in one pass.

    Args:
        source: folder, zip, `.npz`, `.npy`, HDF5 or PNG of predictions; or what makes them while they are scored.
        split: a named split or a list file; its frames are expected, all of them.
        gt: a folder or array file of ground truth paired by relative stem; beside `split`, the root of its maps.
        protocol: names, or "all" for every protocol that fits; default: the split's own, else `full-frame`.
        data_root: where the data set lies; default the environment variable `ADUBENCH_DATA_ROOT`.
        options: everything else.
        progress: called with (done, total).

    Returns:
        One result per protocol, in the order asked.

    Raises:
        UsageError: options that contradict each other, or unknown names.
        DataError: files that are missing or broken.
        ProtocolError: predictions that are missing or do not fit.
    """
    options = options or EvalOptions()
    _check(source, split, gt, options)
    if options.uncertainty is not None and options.uncertainty.calibration is not None:
        from adubench.datasets.splits import load_split
        from adubench.evaluators.uncertainty_calibration import recalibrated

        root = data_root or _root_from_environment()
        options = recalibrated(evaluate, load_split, source, split, protocol, gt, root, options)
    maps = (
        open_maps(source, what="prediction", png_scale=options.png_scale) if isinstance(source, str | Path) else source
    )
    root = Path(data_root) if data_root else _root_from_environment()
    if split is None:
        assert gt is not None
        every = _every(protocol)
        plan = _plan_folder(maps, Path(gt), _protocols(protocol, None, options), options, every)
    else:
        plan = _plan_split(maps, split, gt, root, protocol, options)
    name = source if isinstance(source, str | Path) else source.path
    return _execute(plan, options, progress, paths={"source": name, "ground_truth": gt, "data_root": root})


def _check(source: str | Path | LiveSource, split: str | None, gt: str | Path | None, options: EvalOptions) -> None:
    if split is None and gt is None:
        raise UsageError("nothing to compare with: give --split NAME (a known split) or --gt DIR (your own maps).")
    if options.kind not in KINDS:
        raise UsageError(f"--kind {options.kind}: expected one of {', '.join(KINDS)}.")
    if not 0 < options.png_scale < float("inf"):
        raise UsageError(f"--png-scale {options.png_scale}: expected a factor > 0 (KITTI's is 256).")
    if options.workers < 0:
        raise UsageError(f"--workers {options.workers}: expected a number of processes, or 0 for every core.")
    same = isinstance(source, str | Path) and gt is not None and Path(gt).resolve() == Path(source).resolve()
    if split is None and same and Path(source).exists():  # type: ignore[arg-type]
        raise UsageError(f"{source}: prediction and ground truth are the same path; every number would be perfect.")


def _root_from_environment() -> Path | None:
    value = os.environ.get(DATA_ROOT_VARIABLE)
    return Path(value) if value else None


def _every(names: str | Sequence[str] | None) -> bool:
    return names == "all" or (names is not None and "all" in names)


def _protocols(names: str | Sequence[str] | None, default: str | None, options: EvalOptions) -> tuple[Protocol, ...]:
    wanted = [names] if isinstance(names, str) else list(names or [])
    if not wanted:
        wanted = [default or "full-frame"]
    if "all" in wanted:
        wanted = list(PROTOCOLS)
    return tuple(options.applied_to(get_protocol(name)) for name in dict.fromkeys(wanted))


def _plan_folder(
    maps: MapCollection | LiveSource, gt: Path, protocols: tuple[Protocol, ...], options: EvalOptions, every: bool
) -> Plan:
    reader = FolderGroundTruth(gt, scale=256.0)
    names = [frame.name for frame in reader.frames]
    predictions, facts, notes = _opened(maps, None, (reader,), None, gt)
    matching = match_by_stem(names, predictions, single=reader.single)
    tracks = (Track(_cached(reader, reader.frames, protocols, options), protocols),)
    return Plan(None, tracks, (reader.frames,), (reader,), (None,), predictions, matching, notes, every, facts)


def _opened(
    maps: MapCollection | LiveSource,
    split: Split | None,
    readers: Sequence[GroundTruth],
    data_root: Path | None,
    gt: str | Path | None,
) -> tuple[MapCollection, Mapping[str, Any], tuple[str, ...]]:
    """Return the predictions, facts and notes about them; a live source gets to know the frames now."""
    if not isinstance(maps, LiveSource):
        return maps, {}, ()
    predictions = maps.open_for(split, readers, data_root, Path(gt) if gt is not None else None)
    return predictions, maps.facts(), maps.notes()


def _plan_split(
    maps: MapCollection | LiveSource,
    name: str,
    gt: str | Path | None,
    root: Path | None,
    protocol: str | Sequence[str] | None,
    options: EvalOptions,
) -> Plan:
    from adubench.datasets.splits import load_split

    split = load_split(name, root or (Path(gt) if gt and Path(gt).is_dir() else None))
    protocols = _protocols(protocol, split.default_protocol, options)
    every = _every(protocol)
    tracks, frames, readers, expected, notes = [], [], [], [], list(split.notes)
    for kind in dict.fromkeys(p.ground_truth for p in protocols):
        try:
            reader = open_ground_truth(split, gt_root=gt, data_root=root, kind=kind)
        except DataError as error:
            if not every:
                raise
            notes.append(f"no {kind} ground truth, its protocols are left out: {error}")
            continue
        frames.append(reader.frames)
        readers.append(reader)
        expected.append(_expected(split, reader, kind))
        group = tuple(p for p in protocols if p.ground_truth == kind)
        tracks.append(Track(_cached(reader, reader.frames, group, options), group))
    if not tracks:
        raise DataError(f"split {split.name}: no ground truth for any protocol. " + " ".join(notes))
    predictions, facts, about = _opened(maps, split, readers, root, gt)
    matching = _match_split(predictions, split, frames)
    return Plan(
        split,
        tuple(tracks),
        tuple(frames),
        tuple(readers),
        tuple(expected),
        predictions,
        matching,
        (*notes, *about),
        every,
        facts,
    )


def _expected(split: Split, reader: GroundTruth, kind: str) -> int | None:
    """Number of images that the split has with this ground truth, by definition rather than by what is on disk."""
    if split.count is None:
        return len(reader.frames) + len(reader.missing)
    return split.count - (0 if kind == "raw" else len(split.no_gt))


def _match_split(predictions: MapCollection, split: Split, frames: Sequence[Sequence[FrameKey]]) -> Matching:
    scored = list(dict.fromkeys(f for group in frames for f in group))
    order = {f: i for i, f in enumerate(split.frames)}
    scored.sort(key=lambda f: order.get(f, len(order)))
    names = [f.name for f in scored]
    return match_by_alias(
        names,
        predictions,
        identify=_identify,
        aliases={f.name: f.aliases() for f in scored},
        orders=[[f.name for f in split.frames], names],
        known=frozenset(f.name for f in split.frames),
    )


def _identify(name: str) -> str | None:
    frame = parse_kitti(name)
    return frame.name if frame is not None else driving_stereo_stem(name)


def _cached(
    reader: GroundTruth, frames: Sequence[FrameKey], protocols: Sequence[Protocol], options: EvalOptions
) -> Any:
    """Read ground truth through the packed cache where that pays; the first protocol's pixels are stored first."""
    if str(options.cache) == "off":
        return reader
    from adubench.datasets.gt_cache import cached_ground_truth

    first = (protocols[0].selection, lambda depth: selection_mask(protocols[0], depth))
    return cached_ground_truth(reader, frames, options.cache, first=first)


def _execute(
    plan: Plan,
    options: EvalOptions,
    progress: Callable[[int, int], None] | None,
    paths: Mapping[str, str | Path | None],
) -> list[EvaluationResult]:
    check_pixel_values(plan)
    plan = without_incomplete_tracks(plan)
    missing = plan.matching.missing
    total = len(missing) + len(plan.matching.keys)
    if missing and not options.allow_missing:
        raise missing_error(missing, total, plan.predictions)
    check_counts(plan, options)
    items = items_of(plan)
    compiled = moments.prefer_compiled(len(items))
    plan = fitting(plan, items, options)
    plan, opened = _with_analysis(plan, items, options, paths, progress)
    job = Job(items, plan.tracks, plan.predictions, options.kind, options.compat, compiled)
    results = []
    with np.errstate(all="ignore"):  # absurd depths overflow; what is not finite is counted or null
        rows = run(job, workers=options.workers, progress=progress)
        for t, track in enumerate(plan.tracks):
            context = context_of(plan, t, options, paths, rows)
            scored: list[TrackScores] = [row[t] for row in rows if row[t] is not None]  # type: ignore[misc]
            for p, protocol in enumerate(track.protocols):
                result = assemble.assemble(protocol, p, scored, context, compiled=compiled)
                if t in opened:
                    opened[t].add_to(result, [row.details[p] for row in scored])
                results.append(result)
    return results


def _with_analysis(
    plan: Plan,
    items: Sequence[Item],
    options: EvalOptions,
    paths: Mapping[str, str | Path | None],
    progress: Callable[[int, int], None] | None,
) -> tuple[Plan, dict[int, TrackAnalysis]]:
    """Open what is to be measured besides the whole image, track by track; nothing where nothing is asked for."""
    asked = (options.regions, options.uncertainty, options.boundaries, options.teacher_maps)
    if all(part is None for part in asked):
        return plan, {}
    from adubench.evaluators.analysis_run import TrackAnalysis

    tracks, opened = list(plan.tracks), {}
    for t, track in enumerate(plan.tracks):
        if track.protocols:
            regions = _open_regions(plan, t, items, options, paths, progress) if options.regions else None
            maps = _open_uncertainty(plan, t, items, options, regions, paths)
            boundaries = _open_boundaries(plan, t, items, options, paths)
            opened[t] = TrackAnalysis(regions, maps, boundaries, _open_teacher(plan, t, items, options))
            tracks[t] = dataclasses.replace(track, analysis=opened[t].of_frames())
    return dataclasses.replace(plan, tracks=tuple(tracks)), opened


def _open_regions(
    plan: Plan,
    t: int,
    items: Sequence[Item],
    options: EvalOptions,
    paths: Mapping[str, str | Path | None],
    progress: Callable[[int, int], None] | None,
) -> TrackRegions:
    from adubench.datasets import gt_cache
    from adubench.evaluators import region_run

    request, reader, protocol = options.regions, plan.readers[t], plan.tracks[t].protocols[0]
    assert request is not None
    named = {"images": request.images, "labels": request.labels, "edges": request.edges}
    needs = region_run.needed_inputs(request.parameters(protocol))
    frames = [(item.name, item.frames[t]) for item in items if item.frames[t] is not None]
    return region_run.open_track(
        request,
        protocol,
        _frame_reader(plan, t, paths, needs, **named, intrinsics=request.intrinsics),
        frames,
        truth_paths=reader.paths,
        kind=reader.kind,
        folder=region_run.mask_folder(
            request, options.cache or gt_cache.default_cache_folder(), enough=len(frames) >= gt_cache.MIN_FRAMES
        ),
        pixels=lambda gt: valid_pixels(protocol, gt).index,
        workers=options.workers,
        progress=progress,
    )


def _frame_reader(
    plan: Plan, t: int, paths: Mapping[str, str | Path | None], needs: frozenset[str], **named: Any
) -> FrameReader:
    """Read images, labels, edges and intrinsics where the user says or where the data set has them."""
    from adubench.datasets.frame_inputs import open_inputs
    from adubench.evaluators.region_reader import FrameReader

    roots = [Path(str(paths[key])) if paths[key] is not None else None for key in ("data_root", "ground_truth")]
    return FrameReader(plan.tracks[t].reader, open_inputs(plan.split, plan.readers[t], *roots, **named), needs)


def _open_boundaries(
    plan: Plan, t: int, items: Sequence[Item], options: EvalOptions, paths: Mapping[str, str | Path | None]
) -> BoundaryScorer | None:
    request = options.boundaries
    if request is None:
        return None
    from adubench.evaluators.boundary_run import BoundaryScorer

    named = {"labels": request.labels, "edges": request.edges, "intrinsics": request.intrinsics}
    reader = _frame_reader(plan, t, paths, request.needs(), **named)
    keys = [item.frames[t] for item in items if item.frames[t] is not None]
    return BoundaryScorer(*request.settle(reader, keys), reader)


def _open_uncertainty(
    plan: Plan,
    t: int,
    items: Sequence[Item],
    options: EvalOptions,
    regions: TrackRegions | None,
    paths: Mapping[str, str | Path | None],
) -> UncertaintyMaps | None:
    """Find the uncertainty maps of a track's frames by the rules for predictions."""
    request, frames = options.uncertainty, [item for item in items if item.frames[t] is not None]
    if request is None or not frames:
        return None
    from adubench.evaluators.uncertainty_run import open_maps_of

    scale, live = options.png_scale, plan.predictions
    flipped = None
    if request.flipped is not None:
        others = open_maps(request.flipped, what="prediction for mirrored images", png_scale=scale)
        flipped = others, _keys_of(plan, t, others, "prediction for mirrored images")
    elif request.flip:
        if not isinstance(live, LivePredictions):
            raise UsageError("--flip-disagreement predicts mirrored images: SOURCE must be a checkpoint.")
        others = live.mirrored()
        flipped = others, {item.name: item.prediction for item in frames}
    if request.maps is not None:
        maps = open_maps(request.maps, what="uncertainty map", png_scale=scale)
        keys = _keys_of(plan, t, maps, "uncertainty map")
    elif request.kind == "score" and flipped is not None:
        maps, keys = flipped[0], flipped[1]
    elif isinstance(live, LivePredictions):
        maps = live.uncertainty()
        keys = _keys_of(plan, t, maps, "uncertainty map")
    else:
        raise UsageError("--uncertainty needs --uncertainty-maps: nothing is guessed about a map.")
    pixels = plan.tracks[t].reader.read(frames[0].frames[t]).values.size
    tested = regions.tested() if regions is not None else ()
    edges: FrameReader | None = _frame_reader(plan, t, paths, frozenset({"image"}), images=request.images)
    if edges is not None and edges.places.image_path(frames[0].frames[t]) is None:
        edges = None
    return open_maps_of(request, maps, keys, [item.name for item in frames], pixels, tested, edges, flipped)


def _keys_of(plan: Plan, t: int, maps: MapCollection, what: str) -> Mapping[str, str]:
    """Join maps beside the predictions to a track's frames, by the rules for predictions."""
    try:
        if plan.split is not None:
            return _match_split(maps, plan.split, plan.frames).keys
        single = getattr(plan.readers[t], "single", False)
        return match_by_stem([f.name for f in plan.frames[t]], maps, single=single).keys
    except (DataError, ProtocolError) as error:
        raise DataError(str(error).replace("prediction", what)) from None


def _open_teacher(plan: Plan, t: int, items: Sequence[Item], options: EvalOptions) -> TeacherMaps | None:
    """Find the teacher's maps of a track's frames; a record beside them says what their codes mean."""
    frames = [item.name for item in items if item.frames[t] is not None]
    if options.teacher_maps is None or not frames:
        return None
    from adubench.datasets.teacher_maps import codes_per_metre
    from adubench.evaluators.teacher_run import open_teacher_of

    scale = codes_per_metre(options.teacher_maps, options.teacher_range)
    maps = open_maps(options.teacher_maps, what="teacher map", png_scale=scale)
    return open_teacher_of(maps, _keys_of(plan, t, maps, "teacher map"), frames)


__all__ = ["KINDS", "AdubenchError", "EvalOptions", "evaluate"]
