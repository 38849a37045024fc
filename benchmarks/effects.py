"""Size of every effect that makes the numbers of two papers differ, measured on SynthDrive.

python -m benchmarks.effects [--root DIR] [--drives 16] fills the marked tables of docs/protocols.md and
docs/pitfalls.md. The data and both predictions are described in `benchmarks.effects_data`.
"""

from __future__ import annotations

from benchmarks import harness  # isort: skip  (limits threads, so it comes before numpy)

import argparse
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.evaluators import crops
from adubench.evaluators.evaluator import EvalOptions, evaluate
from adubench.evaluators.resize import bilinear
from adubench.evaluators.result import EvaluationResult
from benchmarks import effects_data
from benchmarks.effects_data import PREDICTIONS, Bench, FloatMap, half_size
from benchmarks.make_tables import fill_effects

RESULT = Path("benchmarks/results/effects.json")
Values = dict[str, float]
Row = tuple[str, dict[str, Values]]  # label, prediction -> metric -> value; the first row of a table is the reference
Change = Callable[[FloatMap], NDArray[np.floating]]
STEREO = PREDICTIONS[1]
CLAMPS = (("clamped (`kitti-eigen`)", "kitti-eigen"), ("not clamped (`kitti-eigen-toolbox`)", "kitti-eigen-toolbox"))


class Meter:
    """Scores predictions of one bench through the public interface."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def results(
        self, source: Path, protocols: Sequence[str], gt: str = "gt improved", **options: Any
    ) -> list[EvaluationResult]:
        chosen = EvalOptions(cache="off", **options)
        return evaluate(source, gt=self.bench.folder(gt), protocol=list(protocols), options=chosen)

    def score(self, folder: str, protocol: str, gt: str = "gt improved", **options: Any) -> Values:
        return self.results(self.bench.folder(folder), [protocol], gt, **options)[0].summary

    def both(self, label: str, protocol: str, gt: str = "gt improved", **options: Any) -> Row:
        return label, {name: self.score(name, protocol, gt, **options) for name in PREDICTIONS}

    def changed(
        self, label: str, protocol: str, change: Change, only: Sequence[str] = PREDICTIONS, gt: str = "gt improved",
        **options: Any,
    ) -> Row:  # fmt: skip
        """Score changed copies of both predictions."""
        values = {}
        for name in only:
            with self.bench.variant(name, change) as source:
                values[name] = self.results(source, [protocol], gt, **options)[0].summary
        return label, values


def protocols(meter: Meter) -> list[Row]:
    names = ("kitti-eigen", "kitti-eigen-full", "kitti-eigen-toolbox", "kitti-eigen-benchmark", "kitti-mdb",
             "kitti-official", "synthdrive", "full-frame")  # fmt: skip
    rows = [meter.both(f"`{name}`", name) for name in names]
    return [*rows, meter.both("`kitti-eigen-raw` (projected scans)", "kitti-eigen-raw", "gt scan, vehicle axis")]


def window(meter: Meter) -> list[Row]:
    return [meter.both(f"`{name}`", name) for name in ("kitti-eigen", "kitti-eigen-full")]


def crop(meter: Meter) -> list[Row]:
    names = [("Garg crop", "garg"), ("Eigen crop", "eigen"), ("no crop", "none")]
    rows = [meter.both(label, "kitti-eigen-full", crop=name) for label, name in names]
    padded = meter.changed("no crop, window prediction padded with zeros", "kitti-eigen-full", cut, crop="none")
    return [*rows, padded]


def cut(depth: FloatMap) -> FloatMap:
    top, left = crops.kb_window(*depth.shape)
    return depth[top : top + crops.KB_HEIGHT, left : left + crops.KB_WIDTH]


def ground_truth(meter: Meter) -> list[list[Row]]:
    kinds = {"accumulated maps": "gt improved", "projected scans": "gt scan, vehicle axis"}
    groups = []
    with meter.bench.variant(kinds["projected scans"], one_pixel_back) as moved:
        kinds |= {"projected scans, moved to their pixels": str(moved.resolve()), "exact depth": "gt dense"}
        for name, word in (("median", "median scaling"), ("none", "no scaling")):
            options = {"alignment": name}
            groups.append(
                [meter.both(f"{label}, {word}", "kitti-eigen-raw", gt, **options) for label, gt in kinds.items()]
            )
    return groups


def one_pixel_back(depth: FloatMap) -> FloatMap:
    """Undo the pixel that Monodepth2's projection subtracts; SynthDrive's pixel centres are at integer coordinates."""
    out = np.zeros_like(depth)
    out[1:, 1:] = depth[:-1, :-1]
    return out


def axis(meter: Meter) -> list[list[Row]]:
    kinds = {"camera depth": "gt scan, camera", "vehicle axis": "gt scan, vehicle axis"}
    return [
        [meter.both(f"{label}, {word}", "kitti-eigen-raw", gt, alignment=name) for label, gt in kinds.items()]
        for name, word in (("none", "no scaling"), ("median", "median scaling"))
    ]


def cap(meter: Meter) -> list[list[Row]]:
    metric = [meter.both(f"{metres} m", "kitti-eigen", cap=float(metres)) for metres in (80, 50)]
    open_end = meter.both("no cap on either", "kitti-eigen", cap=1000.0)
    scaled = meter.both("80 m, no crop, median scaling", "kitti-eigen-full", crop="none", alignment="median")
    label = "no cap on ground truth, prediction clamped at 80 m (`kitti-eigen-benchmark`)"
    return [[*metric, open_end], [scaled, meter.both(label, "kitti-eigen-benchmark")]]


def clamp(meter: Meter) -> list[list[Row]]:
    unlimited = f"{STEREO}, unlimited"
    rows = [meter.both(label, name) for label, name in CLAMPS]
    return [rows, [(f"up to 1000 m, {label}", {STEREO: meter.score(unlimited, name)}) for label, name in CLAMPS]]


def scaling(meter: Meter) -> list[Row]:
    return [
        meter.both("metric, no scaling", "kitti-eigen"),
        meter.both("median scaling", "kitti-eigen", alignment="median"),
        meter.both("scale and shift of disparity, least squares", "kitti-eigen", alignment="lstsq"),
        meter.changed("nominal baseline 0.54 m for 0.5327 m", "kitti-eigen", lambda p: p * (0.54 / 0.5327)),
    ]


def median(meter: Meter) -> list[Row]:
    return [
        meter.both(f"{word} median", "kitti-eigen-raw", "gt scan, vehicle axis", alignment=name)
        for word, name in (("usual", "median"), ("lower", "median_low"))
    ]


def sq_rel(meter: Meter) -> list[Row]:
    return [meter.both("`kitti-eigen`", "kitti-eigen")]


def units(meter: Meter) -> list[Row]:
    label, values = meter.both("leaderboard", "kitti-official")
    board = {"silog": 1.0, "sq_rel_gt2": 100.0, "abs_rel": 100.0, "irmse": 1.0}
    raw = {"silog": 0.01, "sq_rel_gt2": 1.0, "abs_rel": 1.0, "irmse": 0.001}
    return [
        (word, {name: {key: found[key] * f for key, f in factors.items()} for name, found in values.items()})
        for word, factors in ((label, board), ("as the devkit prints them", raw))
    ]


def means(meter: Meter) -> list[Row]:
    rows: list[Row] = []
    for key, label in (("image_mean", "mean over images"), ("pooled", "pixels of all images pooled")):
        values = {
            p: dict(meter.results(meter.bench.folder(p), ["kitti-eigen"])[0].aggregates[key]) for p in PREDICTIONS
        }
        rows.append((label, values))
    return rows


def float32(meter: Meter) -> list[list[Row]]:
    with meter.bench.variant("gt improved", lambda g: np.where(g > 0, 1.5 * g, 10)) as source:
        biased = {PREDICTIONS[0]: meter.results(source, ["kitti-official"])[0].summary}
    usual = {name: meter.score(name, "kitti-official") for name in PREDICTIONS}
    return [_both_precisions("prediction", usual), _both_precisions("exactly 1.5 x ground truth", biased)]


def _both_precisions(label: str, values: dict[str, Values]) -> list[Row]:
    double = {p: {k.removesuffix("_f64"): v for k, v in m.items() if k.endswith("_f64")} for p, m in values.items()}
    return [(f"{label}, float64", double), (f"{label}, float32 sums", values)]


def png(meter: Meter) -> list[Row]:
    official = "kitti-official"
    return [
        meter.both("float32", official),
        meter.changed("rounded to 1/256 m", official, lambda p: np.rint(p * 256) / 256),
        meter.changed("truncated to 1/256 m", official, lambda p: np.floor(p * 256) / 256),
    ]


def wrap(meter: Meter) -> list[list[Row]]:
    far: list[Row] = []
    codes: dict[str, Change] = {
        "up to 1000 m, clipped at 255.996 m": lambda p: np.minimum(np.floor(p * 256), 65535) / 256,
        "up to 1000 m, wrapped at 256 m": lambda p: np.floor(p * 256) % 65536 / 256,
    }
    for label, change in codes.items():
        with meter.bench.variant(f"{STEREO}, unlimited", change) as source:
            far.append((label, {STEREO: meter.results(source, ["kitti-official"])[0].summary}))
    scale = "metres x 1000, wrapped at 65.5 m, read as such"
    wrapped = meter.changed(scale, "kitti-eigen", lambda p: np.floor(p * 1000) % 65536 / 1000)
    return [[meter.both("metres x 256", "kitti-eigen"), wrapped], far]


def unit_mistakes(meter: Meter) -> list[Row]:
    focal_baseline = meter.bench.focal_baseline
    official = "kitti-official"
    return [
        meter.both("depth x 256", official),
        meter.changed("scale 100 instead of 256", official, lambda p: p * (100 / 256)),
        meter.changed("whole metres, x 256 (1 m steps)", official, lambda p: np.maximum(np.floor(p), 1)),
        meter.changed("whole metres, without x 256", official, lambda p: np.maximum(np.floor(p), 1) / 256),
        meter.changed("disparity in pixels instead of depth", official, lambda p: focal_baseline / p),
    ]


def missing(meter: Meter) -> list[Row]:
    rng = np.random.default_rng(0)
    official = "kitti-official"

    def rows_zero(first: int, last: int) -> Change:
        def change(depth: FloatMap) -> FloatMap:
            out = depth.copy()
            out[first:last] = 0
            return out

        return change

    return [
        meter.both("complete", official),
        meter.changed(
            "2 % of the pixels missing at random", official, lambda p: np.where(rng.random(p.shape) < 0.02, 0, p)
        ),
        meter.changed("top 110 rows missing", official, rows_zero(0, 110)),
        meter.changed("one empty row in the middle (row 250)", official, rows_zero(250, 251)),
    ]


def resize(meter: Meter) -> list[Row]:
    full = effects_data.SIZE

    def as_depth(p: FloatMap) -> FloatMap:
        return bilinear(bilinear(p, half_size()), full)

    def as_disparity(p: FloatMap) -> FloatMap:
        return 1 / bilinear(1 / bilinear(p, half_size()), full)

    return [
        meter.both("full resolution", "kitti-eigen-full"),
        meter.changed("half resolution, resized as depth", "kitti-eigen-full", as_depth),
        meter.changed("half resolution, resized as disparity", "kitti-eigen-full", as_disparity),
    ]


def resolution(meter: Meter) -> list[Row]:
    half = {p: meter.score(f"{p}, half", "drivingstereo", "gt half") for p in PREDICTIONS}
    return [meter.both("full resolution", "drivingstereo"), ("half resolution", half)]


def skips(meter: Meter) -> list[Row]:
    """Leave out the worst image, as a reader that fails on one file and says nothing."""
    every, fewer = {}, {}
    for name in PREDICTIONS:
        result = meter.results(meter.bench.folder(name), ["kitti-eigen"])[0]
        table = {k: np.array(v, float) for k, v in result.per_image.items() if k in ("abs_rel", "rmse", "d1", "sq_rel")}
        keep = np.arange(len(table["abs_rel"])) != table["abs_rel"].argmax()
        every[name] = {k: float(v.mean()) for k, v in table.items()}
        fewer[name] = {k: float(v[keep].mean()) for k, v in table.items()}
    n = len(meter.bench.frames)
    return [(f"all {n} images", every), (f"{n - 1} images, the worst one skipped", fewer)]


# key -> (metrics shown, function)
EFFECTS: dict[str, tuple[tuple[str, ...], Callable[[Meter], list[Row] | list[list[Row]]]]] = {
    "protocols": (("abs_rel", "sq_rel", "rmse", "silog", "d1"), protocols),
    "window": (("abs_rel", "rmse", "d1"), window),
    "ground-truth": (("abs_rel", "rmse", "d1"), ground_truth),
    "axis": (("abs_rel", "rmse", "d1"), axis),
    "sq-rel": (("sq_rel", "sq_rel_gt2"), sq_rel),
    "units": (("silog", "sq_rel_gt2", "abs_rel", "irmse"), units),
    "crop": (("abs_rel", "rmse", "silog"), crop),
    "cap": (("abs_rel", "rmse", "sq_rel"), cap),
    "clamp": (("abs_rel", "rmse", "sq_rel"), clamp),
    "scaling": (("abs_rel", "rmse", "d1"), scaling),
    "median": (("abs_rel", "rmse"), median),
    "png": (("silog", "abs_rel", "irmse"), png),
    "wrap": (("abs_rel", "rmse", "silog"), wrap),
    "unit-mistakes": (("silog", "abs_rel", "irmse"), unit_mistakes),
    "missing": (("silog", "abs_rel", "irmse"), missing),
    "skips": (("abs_rel", "rmse"), skips),
    "means": (("abs_rel", "rmse", "silog"), means),
    "float32": (("silog", "abs_rel", "irmse"), float32),
    "resize": (("abs_rel", "rmse", "d1"), resize),
    "resolution": (("abs_rel", "rmse", "d1"), resolution),
}


# Tables that show one number in several units.
PLAIN = ("sq-rel", "units")


def measure(bench: Bench) -> dict[str, Any]:
    meter, tables = Meter(bench), {}
    for key, (metrics, function) in EFFECTS.items():
        found = function(meter)
        groups = found if isinstance(found[0], list) else [found]
        plain = {"plain": True} if key in PLAIN else {}
        tables[key] = plain | {
            "metrics": list(metrics),
            "groups": [[_row(r, metrics) for r in group] for group in groups],
        }
    return {"images": len(bench.frames), "predictions": list(PREDICTIONS), "tables": tables}


def _row(row: Row, metrics: Sequence[str]) -> dict[str, Any]:
    label, values = row
    return {"label": label, "values": {p: {m: _finite(f.get(m)) for m in metrics} for p, f in values.items()}}


def _finite(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("benchmarks/.data/effects"))
    parser.add_argument("--drives", type=int, default=16, help="one scored image each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder whose tables are filled")
    options = parser.parse_args()
    bench = effects_data.make(options.root, options.drives, options.seed, options.workers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        report = measure(bench)
    report |= {"drives": options.drives, "seed": options.seed, "versions": harness.library_versions()}
    harness.write_json(report, options.output)
    for path in fill_effects(report, options.docs):
        print(f"filled {path}")


if __name__ == "__main__":
    main()
