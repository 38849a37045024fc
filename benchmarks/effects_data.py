"""Data and predictions behind `benchmarks.effects`: SynthDrive at KITTI's size and two predictions without a network.

Everything is kept below a folder that is named after a hash of the code that makes it, so stale numbers cannot survive.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from adubench.datasets import synthdrive
from adubench.datasets.frames import FrameKey, parse_kitti
from adubench.datasets.kitti import KittiRaw
from adubench.evaluators.resize import bilinear
from adubench.io.depth_png import read_depth_map
from adubench.io.images import read_rgb
from adubench.io.velodyne import project_scan, read_scan
from adubench.models import classical

FloatMap = NDArray[np.float32]
SIZE = (375, 1242)
FRAMES = 11  # the first and last five have no accumulated map: one scored image per drive, so images are independent
SKY_M = 120.0
PREDICTIONS = ("simulated-mono", "stereo-matching")


@dataclass(frozen=True)
class Bench:
    """Folders of one bench; maps are float32 `.npy` in metres named as the frames."""

    root: Path
    frames: tuple[FrameKey, ...]
    focal_baseline: float

    def folder(self, name: str) -> Path:
        return self.root / name

    def load(self, folder: str) -> Iterator[tuple[str, FloatMap]]:
        for frame in self.frames:
            yield frame.name, np.load(self.path(folder, frame))

    def path(self, folder: str, frame: FrameKey) -> Path:
        return self.root / folder / f"{frame.name}.npy"

    def save(self, folder: str, frame: FrameKey, depth: NDArray[np.floating]) -> None:
        save(self.root / folder, frame.name, depth)

    @contextmanager
    def variant(self, folder: str, change: Callable[[FloatMap], NDArray[np.floating]]) -> Iterator[Path]:
        """A changed copy of all maps of a folder, for the length of a with block."""
        with TemporaryDirectory(dir=self.root) as changed:
            for name, depth in self.load(folder):
                save(Path(changed) / folder, name, change(depth))
            yield Path(changed) / folder


def save(root: Path, name: str, depth: NDArray[np.floating]) -> None:
    target = root / f"{name}.npy"
    target.parent.mkdir(parents=True, exist_ok=True)
    np.save(target, depth.astype(np.float32))


def code_key() -> str:
    """Twelve hex digits over the source of everything that makes the data and the predictions."""
    files = [*sorted(Path(synthdrive.__file__).parent.glob("*.py")), Path(classical.__file__), Path(__file__)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def make(root: Path, drives: int, seed: int, workers: int) -> Bench:
    """Write (or find) the data, the ground truths and both predictions."""
    base = root / f"{drives}-{seed}-{code_key()}"
    data = base / "data"
    info = synthdrive.write_dataset(data, drives=drives, frames=FRAMES, size=SIZE, seed=seed, workers=workers)
    raw = KittiRaw(data)
    names = sorted(name for part in info.splits.values() for name in part)
    frames = tuple(_frame(name) for name in names)
    calibration = raw.calibration(frames[0].drive[:10])
    bench = Bench(base, frames, calibration.fx * calibration.baseline_m)
    todo = [frame for frame in frames if not (base / "done" / frame.drive).exists()]
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(_prepare, [bench] * len(todo), todo))
    return bench


def _frame(drive: str) -> FrameKey:
    frame = parse_kitti(f"{drive.removesuffix('_sync')}_sync/image_02/{FRAMES // 2:010d}")
    assert frame is not None
    return frame


def _prepare(bench: Bench, frame: FrameKey) -> None:
    """Everything for one frame."""
    data = bench.folder("data")
    raw, date = KittiRaw(data), frame.drive[:10]
    calibration = raw.calibration(date)
    drive = raw.drive_dir(frame.drive)
    truth = _map(drive, "proj_depth/groundtruth", frame)
    dense = _map(drive, "dense_depth", frame)
    bench.save("gt improved", frame, truth)
    bench.save("gt dense", frame, dense)
    bench.save("gt half", frame, half_truth(truth))
    scan = read_scan(raw.scan(frame))
    for name, vehicle_axis in (("gt scan, vehicle axis", True), ("gt scan, camera", False)):
        bench.save(name, frame, project_scan(scan, calibration, 2, vehicle_axis).dense())
    bench.save("simulated-mono", frame, simulated_mono(dense, seed=int(frame.drive[-4:])))
    left, right = read_rgb(raw.image(frame)), read_rgb(raw.image(replace(frame, camera=3)))
    matcher = classical.StereoMatcher(bench.focal_baseline, max_depth=1000.0)
    stereo = matcher.predict(left, right)
    bench.save("stereo-matching, unlimited", frame, stereo)
    bench.save("stereo-matching", frame, np.minimum(stereo, 80))
    small = classical.StereoMatcher(bench.focal_baseline / 2)
    bench.save("stereo-matching, half", frame, small.predict(_half_image(left), _half_image(right)))
    bench.save("simulated-mono, half", frame, bilinear(np.load(bench.path("simulated-mono", frame)), half_size()))
    (bench.root / "done").mkdir(exist_ok=True)
    (bench.root / "done" / frame.drive).touch()


def _map(drive: Path, kind: str, frame: FrameKey) -> FloatMap:
    depth: FloatMap = read_depth_map(drive / kind / "image_02" / f"{frame.index:010d}.png").quantity()
    return depth


def simulated_mono(dense: FloatMap, seed: int) -> FloatMap:
    """What a good metric network looks like to an evaluator, made from the exact depth.

    The exact depth (sky: 120 m) is blurred over 2 pixels in log depth, which smears its edges, and multiplied by a
    log-normal error: 2 % of scale per image, and a smooth field of 3 % near the camera growing to 10 % at 80 m.
    """
    rng = np.random.default_rng(seed)
    log = ndimage.gaussian_filter(np.log(np.where(dense > 0, dense, SKY_M)), 2.0)
    field = sum(
        weight * _unit(ndimage.gaussian_filter(rng.standard_normal(dense.shape), sigma))
        for weight, sigma in ((0.8, 60.0), (0.6, 12.0))
    )
    spread = 0.03 + 0.07 * np.minimum(np.exp(log) / 80, 1)
    error = 0.02 * rng.standard_normal() + spread * field
    result: FloatMap = np.exp(log + error).astype(np.float32)
    return result


def _unit(field: NDArray[np.float64]) -> NDArray[np.float64]:
    centred: NDArray[np.float64] = (field - field.mean()) / field.std()
    return centred


def half_size() -> tuple[int, int]:
    return (SIZE[0] + 1) // 2, SIZE[1] // 2


def half_truth(truth: FloatMap) -> FloatMap:
    """Half the resolution: each pixel keeps the nearest measurement of its block."""
    rows, columns = np.nonzero(truth)
    out = np.full(half_size(), np.inf, np.float32)
    np.minimum.at(out, (rows // 2, columns // 2), truth[rows, columns])
    out[~np.isfinite(out)] = 0
    return out


def _half_image(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    padded = np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), mode="edge").astype(np.float32)
    small = padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2, 3).mean(axis=(1, 3))
    return np.rint(small).astype(np.uint8)


def clear(root: Path) -> None:
    """Remove what older code made."""
    for old in root.glob("*-*-*"):
        if not old.name.endswith(code_key()):
            shutil.rmtree(old, ignore_errors=True)
