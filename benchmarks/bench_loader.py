"""Training data loading (L1 to L4): samples per second of CPU time against the documented reference pipeline.

The reference pipeline is that of the NeWCRFs loader, written out plainly: Pillow decodes image and truth, KITTI's
window, rotation (bilinear image, nearest truth), float, random crop, flip, colours step by step, channels first,
normalisation.
Both get the same random numbers. Neither builds batches.

Run: python -m benchmarks.bench_loader
"""

from __future__ import annotations

from benchmarks import harness  # isort: skip  (limits threads, so it comes before numpy)

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adubench.datasets.photometry import apply_table, colour_table
from adubench.datasets.stereo_pairs import RawSample, make_sample
from adubench.datasets.training_frames import TrainingFrames, training_frames
from adubench.datasets.training_packing import pack_frames, packed_frames
from adubench.datasets.transforms import KITTI, Colours, Draw, draw_sample, sample_rng
from benchmarks import workload_training
from benchmarks.bench_evaluation import tier
from tests.photometry_reference import change_colours, normalise

EXACT, FAST = KITTI, replace(KITTI, geometry="opencv")
GOALS = {
    "L1": ("L, PNG", "PNG, opencv", 1.7, "from PNG, float output"),
    "L2": ("L, JPEG", "JPEG, opencv", 2.3, "from JPEG, float output, against the reference from JPEG"),
    "L3a": ("L, PNG", "packed, opencv", 5.5, "packed, float output"),
    "L3b": ("L, PNG", "packed uint8, opencv", 9.5, "packed, 8-bit output with tables"),
}
ALSO = {
    "L1, exact": ("L, PNG", "PNG, pillow", "from PNG, float output, geometry `pillow`"),
    "L1, required": ("L, PNG", "PNG, opencv, required", "from PNG, float output, without the fast extra"),
    "L3a, exact": ("L, PNG", "packed, pillow", "packed, float output, geometry `pillow`"),
}
Sample = tuple[np.ndarray, np.ndarray]


def reference(image_path: Path, truth_path: Path, draw: Draw) -> Sample:
    """One sample of the reference pipeline: float32 [3, 352, 1120] and [1, 352, 1120] metres."""
    image, truth = Image.open(image_path), Image.open(truth_path)
    top, left = image.height - 352, int((image.width - 1216) / 2)
    image = image.crop((left, top, left + 1216, top + 352))
    truth = truth.crop((left, top, left + 1216, top + 352))
    image = image.rotate(draw.angle, resample=Image.Resampling.BILINEAR)
    truth = Image.fromarray(np.asarray(truth, np.int32)).rotate(draw.angle, resample=Image.Resampling.NEAREST)
    pixels = np.asarray(image, dtype=np.float32) / 255.0
    depth = np.expand_dims(np.asarray(truth, dtype=np.float32), axis=2) / 256.0
    x, y = int(draw.across * (1216 - 1120 + 1)), int(draw.down * (352 - 352 + 1))
    pixels, depth = pixels[y : y + 352, x : x + 1120, :], depth[y : y + 352, x : x + 1120, :]
    if draw.flip:
        pixels, depth = pixels[:, ::-1, :].copy(), depth[:, ::-1, :].copy()
    if draw.colours is not None:
        pixels = change_colours(pixels, draw.colours.gamma, draw.colours.brightness, draw.colours.factors)
    return normalise(pixels), np.ascontiguousarray(depth.transpose(2, 0, 1))


def _arrays(sample: RawSample) -> Sample:
    return sample.normalised(), sample.metres()


def measure(root: Path, rounds: int, n: int) -> dict[str, Any]:
    work = workload_training.make(root / f"w2-{n}", n)
    lists = {kind: training_frames(work.listed, work.root / kind) for kind in ("png", "jpg")}
    pack = work.root / "train.h5"
    pack_frames(lists["png"], pack)
    lists["pack"] = packed_frames(pack)
    draws = [draw_sample(sample_rng(0, 0, name), KITTI) for name in lists["png"].names]

    # Samples are dropped as they come, as a loader hands them on.
    def plain(kind: str) -> None:
        for frame, draw in zip(lists[kind].frames, draws, strict=True):
            reference(*frame.paths, draw)

    def ours(kind: str, settings: Any, fast: bool = True) -> None:
        with tier(fast):
            for frame in lists[kind].frames:
                _arrays(make_sample(frame, settings))

    def bytes_only(kind: str, settings: Any) -> None:
        for frame in lists[kind].frames:
            make_sample(frame, settings)

    contestants = {
        "L, PNG": lambda: plain("png"),
        "L, JPEG": lambda: plain("jpg"),
        "PNG, pillow": lambda: ours("png", EXACT),
        "PNG, opencv": lambda: ours("png", FAST),
        "PNG, opencv, required": lambda: ours("png", FAST, fast=False),
        "JPEG, opencv": lambda: ours("jpg", FAST),
        "packed, pillow": lambda: ours("pack", EXACT),
        "packed, opencv": lambda: ours("pack", FAST),
        "packed uint8, opencv": lambda: bytes_only("pack", FAST),
    }
    agreement = _agreement(lists, draws)
    report = harness.run_interleaved(contestants, rounds)
    report["workload"] = {"id": "W2", "n": n}
    report["agreement"] = agreement
    report["ratios"] = {
        key: {"what": what, "ratio": harness.ratio(report, base, product), "goal": goal}
        for key, (base, product, goal, what) in GOALS.items()
    } | {
        key: {"what": what, "ratio": harness.ratio(report, base, product)}
        for key, (base, product, what) in ALSO.items()
    }
    report["L4"] = _photometry(lists["png"], rounds)
    return report


def _agreement(lists: dict[str, TrainingFrames], draws: list[Draw]) -> dict[str, float]:
    """Exact geometry must give the reference's samples, from files and from packs; the fast one is only close."""
    exact, close, moved = 0.0, [], []
    for i in range(min(8, len(draws))):
        pixels, depth = reference(*lists["png"].frames[i].paths, draws[i])
        for kind in ("png", "pack"):
            image, truth = _arrays(make_sample(lists[kind].frames[i], EXACT))
            exact = max(exact, float(np.abs(image - pixels).max()))
            assert np.array_equal(truth, depth), "ground truth differs from the reference's"
        image, truth = _arrays(make_sample(lists["png"].frames[i], FAST))
        close.append(float(np.abs(image - pixels).mean()))
        moved.append(float((truth != depth).mean()))
    assert exact <= 1e-6, f"samples differ from the reference's by {exact:.1e}"
    return {"exact_max": exact, "opencv_mean": float(np.mean(close)), "opencv_truth_moved": float(np.mean(moved))}


def _photometry(frames: TrainingFrames, rounds: int) -> dict[str, Any]:
    """L4: 8-bit image to normalised float, colours drawn: one table against the chain of steps."""
    images = [np.ascontiguousarray(frame.image()[:352, :1120]) for frame in frames.frames[:8]]
    colours = Colours(0.93, 1.07, (0.95, 1.02, 1.08))

    def chain(image: np.ndarray) -> np.ndarray:
        pixels = np.asarray(image, dtype=np.float32) / 255.0
        return normalise(change_colours(pixels, colours.gamma, colours.brightness, colours.factors))

    def table(image: np.ndarray) -> np.ndarray:
        return apply_table(image, colour_table(colours))

    worst = max(float(np.abs(chain(image) - table(image)).max()) for image in images)

    def over(function: Callable[[np.ndarray], np.ndarray]) -> None:
        for image in images:
            function(image)

    report = harness.run_interleaved({"chain": lambda: over(chain), "table": lambda: over(table)}, rounds)
    ratio = harness.ratio(report, "chain", "table")
    return {"ratio": ratio, "goal": 4, "max_difference": worst, "contestants": report["contestants"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("benchmarks/.data"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("-n", type=int, default=24, help="frames")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    report = measure(options.root, options.rounds, options.n)
    if options.output:
        harness.write_json(report, options.output)
    count = options.n
    for name, row in report["contestants"].items():
        print(f"{1000 * row['cpu_median_s'] / count:7.2f} ms  {name}")
    for key, row in report["ratios"].items():
        goal = f"(goal >= {row['goal']})" if "goal" in row else ""
        print(f"{key:12s} {row['ratio']:6.2f} x {goal} {row['what']}")
    four = report["L4"]
    print(f"{'L4':12s} {four['ratio']:6.2f} x (goal >= 4) table, greatest difference {four['max_difference']:.1e}")


if __name__ == "__main__":
    main()
