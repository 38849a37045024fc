"""What notices what: exact depth is made wrong in one known way, and every metric and region is read.

The unit is the same metric's error under a reference fault, independent 10 % noise at every pixel: about the size of
error that good networks make. So a response of 1 means "as bad as that noise", and of 0.01 "blind". A bias, of which
noise has none, is measured in the spread of the same quantity.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adubench.errors import DataError, UsageError, unknown_name
from adubench.evaluators.faults import FAULTS, apply_fault
from adubench.io.collection import open_maps
from adubench.io.depth_png import read_depth_map

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from adubench.evaluators.region_run import RegionRequest
    from adubench.evaluators.result import EvaluationResult
    from adubench.io.collection import MapCollection
    from adubench.io.maps import DepthMap

REFERENCE = ("noise", 0.1)
METRICS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "silog", "irmse", "d1", "log_bias")
# The reference fault has next to no bias: a bias is measured in the spread of the same quantity.
_UNIT = {"log_bias": "rmse_log", "bias": "rmse"}
NOTICED, BLIND = 0.1, 0.01
LEAST_DENSITY = 0.9


@dataclass(frozen=True, slots=True)
class Response:
    """What the metrics say about one fault.

    Attributes:
        fault: name.
        strength: in its unit.
        errors: metric -> error of the whole image (1 - value where higher is better, magnitude of a bias).
        ratios: metric -> error / error under the reference; NaN where the reference leaves none.
        regions: region -> metric -> the same ratio within the region.
    """

    fault: str
    strength: float
    errors: dict[str, float]
    ratios: dict[str, float]
    regions: dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The answer of all faults.

    Attributes:
        protocol: name and version.
        metrics: metric keys.
        n_images: maps used.
        n_pixels: valid pixels.
        reference: metric -> error under the reference fault.
        responses: one per fault and strength.
    """

    protocol: str
    metrics: tuple[str, ...]
    n_images: int
    n_pixels: int
    reference: dict[str, float]
    responses: tuple[Response, ...]


def parse_faults(texts: Sequence[str]) -> list[tuple[str, float]]:
    """Read `NAME` (its own strengths) or `NAME:STRENGTH,STRENGTH`; nothing means all faults.

    Raises:
        UsageError: an unknown fault, or a strength that is no finite number > 0.
    """
    chosen: list[tuple[str, float]] = []
    for text in texts or list(FAULTS):
        name, _, listed = text.partition(":")
        if name not in FAULTS:
            raise unknown_name("fault", name, FAULTS)
        if not listed:
            chosen += [(name, strength) for strength in FAULTS[name].strengths]
            continue
        for part in listed.split(","):
            try:
                strength = float(part)
            except ValueError:
                strength = math.nan
            if not 0 < strength < math.inf:
                raise UsageError(
                    f"--fault {text}: '{part}' is no strength; expected numbers > 0 [{FAULTS[name].unit}]."
                )
            chosen.append((name, strength))
    return list(dict.fromkeys(chosen))


def sensitivity(
    truth: str | Path | Mapping[str, Path],
    *,
    faults: Sequence[str] = (),
    metrics: Sequence[str] = METRICS,
    protocol: str = "full-frame",
    max_depth: float | None = 80.0,
    regions: RegionRequest | None = None,
    limit: int | None = 24,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Sensitivity:
    """Measure how metrics and regions respond to known faults of dense depth.

    Args:
        truth: folder (or array file) of dense depth maps, metres or 16-bit PNG; or 16-bit PNGs by name.
        faults: see `parse_faults`.
        metrics: metric keys.
        protocol: under which everything is scored; the maps themselves are the ground truth.
        max_depth: upper limit of the ground truth, None for the protocol's own.
        regions: also measure regions.
        limit: at most so many maps, evenly spread over the sorted names.
        seed: of the faults that draw random numbers.
        progress: called with (done, total) runs.

    Raises:
        UsageError: unknown names.
        DataError: maps that are missing, unreadable, or not dense.
    """
    wanted = parse_faults(faults)
    maps: MapCollection | _Files
    maps = _Files(truth) if isinstance(truth, dict) else open_maps(str(truth), what="dense depth", png_scale=256.0)
    names = _spread(maps.names, limit)
    _check_dense(maps, names)
    runs = [REFERENCE, *wanted]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _write(maps, names, root / "truth", None, seed)
        for done, run in enumerate(runs):
            if progress is not None:
                progress(done, len(runs))
            _write(maps, names, root / "wrong", run, seed)
            results.append(_evaluate(root, protocol, max_depth, regions))
    keys = _known(metrics, results[0])
    reference = _units(results[0].summary, keys)
    within = {name: _units(entry, keys) for name, entry in results[0].regions.items() if name != "all"}
    responses = tuple(
        _response(run, result, keys, reference, within) for run, result in zip(wanted, results[1:], strict=True)
    )
    first = results[0]
    title = f"{first.protocol['name']} v{first.protocol['version']}"
    return Sensitivity(title, keys, len(names), int(first.counts["n_pixels"]), reference, responses)


class _Files:
    """16-bit PNGs by name."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self.paths = dict(paths)
        self.names = tuple(paths)
        self.root = Path("the data set")

    def read(self, name: str) -> DepthMap:
        return read_depth_map(self.paths[name])

    def where(self, name: str) -> str:
        return str(self.paths[name])


def _spread(names: Sequence[str], limit: int | None) -> list[str]:
    ordered = sorted(names)
    if limit is None or limit >= len(ordered):
        return ordered
    if limit < 1:
        raise UsageError(f"--limit {limit}: expected a number of maps from 1.")
    return [ordered[int(i)] for i in np.linspace(0, len(ordered) - 1, limit).round()]


def _check_dense(maps: MapCollection | _Files, names: Sequence[str]) -> None:
    if not names:
        raise DataError(f"{maps.root}: no depth map there.")
    depth = maps.read(names[0]).quantity()
    density = float(((depth > 0) & np.isfinite(depth)).mean())
    below = depth[depth.shape[0] // 2 :]  # the sky has no depth
    if float(((below > 0) & np.isfinite(below)).mean()) < LEAST_DENSITY:
        raise DataError(
            f"{maps.where(names[0])}: {density:.0%} of the pixels have depth; faults of shape need dense maps. "
            "Use exact depth, e.g. the dense_depth folders of adubench data synth."
        )


def _write(
    maps: MapCollection | _Files, names: Sequence[str], folder: Path, fault: tuple[str, float] | None, seed: int
) -> None:
    for i, name in enumerate(names):
        depth = maps.read(name).quantity()
        if fault is not None:
            depth = apply_fault(fault[0], depth, fault[1], seed + i)
        path = folder / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        # Where no depth is known nothing is scored; a map of predictions has no holes all the same.
        np.save(path, depth if fault is None else np.where(depth > 0, depth, np.float32(1)))


def _evaluate(root: Path, protocol: str, max_depth: float | None, regions: RegionRequest | None) -> EvaluationResult:
    from adubench.evaluators.evaluator import EvalOptions, evaluate

    options = EvalOptions(max_depth=max_depth, regions=regions, cache="off", label="fault")
    return evaluate(root / "wrong", gt=root / "truth", protocol=protocol, options=options)[0]


def _known(metrics: Sequence[str], result: EvaluationResult) -> tuple[str, ...]:
    for key in metrics:
        if key not in result.summary:
            raise unknown_name("metric", key, result.summary)
    return tuple(dict.fromkeys(metrics))


def _errors(values: Mapping[str, float | None], keys: Sequence[str]) -> dict[str, float]:
    from adubench.evaluators.metrics import METRICS as RECORDS

    errors = {}
    for key in keys:
        value = values.get(key)
        value = math.nan if value is None else float(value)
        errors[key] = 1 - value if RECORDS[key].higher_is_better else abs(value)
    return errors


def _units(values: Mapping[str, float | None], keys: Sequence[str]) -> dict[str, float]:
    """Errors under the reference fault, as the unit of each metric."""
    errors = _errors(values, [_UNIT.get(key, key) for key in keys])
    return {key: errors[_UNIT.get(key, key)] for key in keys}


def _response(
    run: tuple[str, float],
    result: EvaluationResult,
    keys: Sequence[str],
    reference: Mapping[str, float],
    within: Mapping[str, Mapping[str, float]],
) -> Response:
    errors = _errors(result.summary, keys)
    regions = {}
    for name, base in within.items():
        entry = result.regions.get(name)
        if entry is not None:
            regions[name] = _ratios(_errors(entry, keys), base)
    return Response(run[0], run[1], errors, _ratios(errors, reference), regions)


def _ratios(errors: Mapping[str, float], reference: Mapping[str, float]) -> dict[str, float]:
    return {key: error / reference[key] if reference[key] > 1e-9 else math.nan for key, error in errors.items()}
