"""Write a SynthDrive data set to disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from adubench.datasets.synthdrive.drive import record
from adubench.datasets.synthdrive.info import SynthDriveInfo, claim, describe, read_info, write_info
from adubench.datasets.synthdrive.layouts import (
    DrivingStereoLayout,
    KittiLayout,
    Layout,
    drive_name,
    folder_checksum,
    make_layout,
    make_rig,
)
from adubench.datasets.synthdrive.lidar import WINDOW
from adubench.datasets.synthdrive.world import make_world
from adubench.errors import DataError, UsageError
from adubench.io.atomic import write_bytes, write_error

SMALLEST = (64, 128)
FEWEST_FRAMES = 2 * WINDOW + 1
_LARGEST_NUMBER = 9999


@dataclass(frozen=True, slots=True)
class _Job:
    """Parameters of one drive; what a worker process gets."""

    root: Path
    number: int
    frames: int
    size: tuple[int, int]
    seed: int
    layout: Layout
    moving_cars: bool

    @property
    def name(self) -> str:
        return drive_name(self.number, self.layout)

    @property
    def staging(self) -> Path:
        return self.root / f".staging-{self.name}"

    def files(self) -> KittiLayout | DrivingStereoLayout:
        return make_layout(self.layout, make_rig(self.size, self.layout), self.number)


def write_dataset(
    root: str | Path,
    *,
    drives: int,
    frames: int,
    size: tuple[int, int] = (375, 1242),
    seed: int = 0,
    layout: Layout = "kitti",
    moving_cars: bool = False,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> SynthDriveInfo:
    """Write a data set; the same parameters give the same files.

    A drive appears as a whole or not at all, so an interrupted run can be repeated and goes on where it stopped.

    Args:
        root: folder to write to; created, and either empty or a SynthDrive of the same parameters.
        drives: number of drives, 1 to 9999.
        frames: frames per drive, at least 11.
        size: height and width of the pictures, at least 64 x 128. The KITTI protocols need 352 x 1216 or more.
        seed: of the worlds.
        layout: "kitti" (raw + depth) or "drivingstereo" (half size).
        moving_cars: whether cars drive along.
        workers: processes; more than 1 writes drives in parallel.
        progress: called with (frames done, frames in all).

    Raises:
        UsageError: parameters out of range, or a folder that holds something else.
        DataError: a file cannot be written, or a worker process died.
    """
    _check(drives, frames, size, seed, layout, workers)
    base = Path(root)
    jobs = [_Job(base, number, frames, size, seed, layout, moving_cars) for number in range(1, drives + 1)]
    head = describe(drives, frames, size, seed, layout, moving_cars)
    claim(base, head)
    total, done = drives * frames, 0
    todo = []
    for job in jobs:
        shutil.rmtree(job.staging, ignore_errors=True)
        if _complete(job):
            done += frames
        else:
            todo.append(job)
    if workers > 1 and len(todo) > 1:
        _write_parallel(todo, workers, progress, done, total)
    else:
        for job in todo:
            _write_drive(job, progress, done, total)
            done += frames
    folders = {job.name: [final for _, final in job.files().folders(base, job.staging)] for job in jobs}
    write_info(base, head, {name: folder_checksum(paths) for name, paths in folders.items()})
    return read_info(base)


def _check(drives: int, frames: int, size: tuple[int, int], seed: int, layout: str, workers: int) -> None:
    if not 1 <= drives <= _LARGEST_NUMBER:
        raise UsageError(f"a SynthDrive has 1 to {_LARGEST_NUMBER} drives, not {drives}: choose another --drives.")
    if frames < FEWEST_FRAMES:
        raise UsageError(
            f"a drive needs at least {FEWEST_FRAMES} frames for one with accumulated ground truth, not {frames}: "
            "choose a larger --frames."
        )
    if size[0] < SMALLEST[0] or size[1] < SMALLEST[1]:
        raise UsageError(
            f"pictures of {size[0]}x{size[1]} are too small: --size needs at least {SMALLEST[0]}x{SMALLEST[1]} "
            "(height x width), and 352x1216 for the KITTI protocols."
        )
    if seed < 0:
        raise UsageError(f"the seed is {seed}, but must not be negative: choose another --seed.")
    if layout not in ("kitti", "drivingstereo"):
        raise UsageError(f"unknown layout '{layout}': choose kitti or drivingstereo.")
    if workers < 1:
        raise UsageError(f"{workers} worker processes cannot write anything: choose --workers 1 or more.")


def _complete(job: _Job) -> bool:
    """Whether all folders of a drive are in place."""
    return all(final.is_dir() for _, final in job.files().folders(job.root, job.staging))


def _write_drive(job: _Job, progress: Callable[[int, int], None] | None = None, done: int = 0, total: int = 0) -> None:
    """Write one drive to a hidden folder and move it into place at the end."""
    layout = job.files()
    world = make_world(job.seed, job.number, job.frames, job.moving_cars)
    try:
        for path, data in layout.shared().items():
            write_bytes(job.root / path, data)
        for frame in record(world, layout.rig, every_frame=job.layout == "drivingstereo"):
            for path, data in layout.frame(frame).items():
                write_bytes(job.staging / path, data)
            if progress is not None:
                progress(done + frame.number + 1, total)
        for path, data in layout.drive(world).items():
            write_bytes(job.staging / path, data)
        for staged, final in layout.folders(job.root, job.staging):
            final.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(final, ignore_errors=True)
            staged.replace(final)
    except OSError as error:
        raise write_error(job.root, error) from None
    finally:
        shutil.rmtree(job.staging, ignore_errors=True)


def _write_parallel(
    jobs: list[_Job], workers: int, progress: Callable[[int, int], None] | None, done: int, total: int
) -> None:
    with ProcessPoolExecutor(min(workers, len(jobs))) as pool:
        futures = {pool.submit(_write_drive, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                future.result()
                done += futures[future].frames
                if progress is not None:
                    progress(done, total)
        except BrokenProcessPool:
            for job in jobs:
                shutil.rmtree(job.staging, ignore_errors=True)
            raise DataError(
                "a worker process was killed (out of memory?): run the command again, finished drives are kept."
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
