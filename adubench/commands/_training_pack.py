"""`adubench data pack --training`: images and ground truth of a training list in one file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pathlib import Path

_OTHERS = ("split", "packed", "at_gt", "scan", "calib", "first")


def pack_training(source: Path | None, output: Path, options: dict[str, Any]) -> None:
    """Find the files of the list, say what was left out, and write the pack.

    Raises:
        UsageError: options of the other kinds of packs, or no data root.
        DataError: nothing to pack, a file is damaged, or the pack cannot be written.
    """
    from adubench.commands._options import progress_bar
    from adubench.datasets.training_frames import training_frames
    from adubench.datasets.training_packing import pack_frames
    from adubench.errors import UsageError

    used = [name.replace("packed", "unpack").replace("_", "-") for name in _OTHERS if options[name] is not None]
    used += ["archival"] if options["archival"] else []
    if source is not None or used:
        what = f"--{used[0]}" if used else f"SOURCE {source}"
        raise UsageError(f"{what} does not go with --training: training packs hold the list that --training names.")
    frames = training_frames(
        options["training"],
        options["data_root"],
        gt_root=options["gt"],
        stereo=options["stereo"],
        gt_kind=options["ground_truth"],
    )
    for sentence in frames.dropped.sentences():
        click.echo(f"note: {sentence}", err=True)
    with progress_bar("packing") as progress:
        done = pack_frames(frames, output, window=not options["full_frames"], force=options["force"], progress=progress)
    tail = f"; {done.reason}" if done.reason else ""
    verb = "written" if done.written else "up to date"
    click.echo(f"{verb}: {done.path} ({done.maps} {'pairs' if frames.stereo else 'frames'}{tail})", err=True)
