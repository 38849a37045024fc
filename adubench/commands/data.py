"""`adubench data`: list, check, pack and make data; show and export splits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adubench.errors import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from adubench.io.maps import SparseDepth

PATH = click.Path(path_type=Path)


@click.group("data", epilog="Example: adubench data check --split eigen --data-root KITTI --gt data_depth_annotated")
def command() -> None:
    """Make, check, pack and list datasets and splits."""


@command.command("list", epilog="Example: adubench data list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_command(as_json: bool) -> None:
    """Name the datasets and splits, their sizes, and where to get them."""
    from adubench.datasets.catalogue import DATASETS
    from adubench.datasets.splits import ALIASES, SPLITS

    if as_json:
        from dataclasses import asdict

        body = {
            "datasets": [asdict(d) for d in DATASETS.values()],
            "splits": [asdict(s) for s in SPLITS.values()],
            "aliases": ALIASES,
        }
        click.echo(json.dumps(body, indent=1))
        return
    from rich.table import Column, Table

    from adubench.commands._options import stdout_console

    short = {full: alias for alias, full in ALIASES.items()}
    fixed = [Column(name, no_wrap=True) for name in ("split", "images", "default protocol")]
    table = Table(*fixed, "what", title="Splits")
    for info in SPLITS.values():
        name = f"{info.name} (= {short[info.name]})" if info.name in short else info.name
        table.add_row(name, f"{info.count:,}" if info.count else "on disk", info.default_protocol or "-", info.about)
    console = stdout_console()
    for d in DATASETS.values():
        console.print(f"[bold]{d.name}[/bold]: {d.title}", highlight=False)
        for key, value in (("where", d.where), ("licence", d.licence), ("root", d.root), ("needs", d.needs)):
            console.print(f"  {key}: {value}", highlight=False, markup=False)
    console.print(table)


@command.group("splits", epilog="Example: adubench data splits export eigen --format bts -o eigen_test.txt")
def splits_group() -> None:
    """Show a split or write it as a list file."""


@splits_group.command("show", epilog="Example: adubench data splits show eigen")
@click.argument("name")
@click.option("--data-root", type=PATH, envvar="ADUBENCH_DATA_ROOT", help="For splits that files on disk define.")
@click.option("--frames", is_flag=True, help="Print every frame name, one per line.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(name: str, data_root: Path | None, frames: bool, as_json: bool) -> None:
    """Count the images and drives of NAME (a split or a list file)."""
    from adubench.datasets.splits import load_split

    split = load_split(name, data_root)
    if as_json:
        body = {
            "name": split.name,
            "images": len(split.frames),
            "count": split.count,
            "drives": list(split.drives),
            "without_improved_gt": [f.name for f in split.frames if f in split.no_gt],
            "sha256_set": split.sha256,
            "default_protocol": split.default_protocol,
            "notes": list(split.notes),
            "frames": [f.name for f in split.frames] if frames else None,
        }
        click.echo(json.dumps(body, indent=1))
        return
    if frames:
        click.echo("\n".join(f.name for f in split.frames))
        return
    click.echo(f"{split.name}: {counted(len(split.frames), 'image')}, {counted(len(split.drives), 'drive')}")
    click.echo(f"without improved ground truth: {len(split.no_gt)}")
    click.echo(f"default protocol: {split.default_protocol or 'none (a training list)'}")
    click.echo(f"sha256 of the set: {split.sha256}")
    click.echo(f"first: {split.frames[0].name}\nlast:  {split.frames[-1].name}")
    for note in split.notes:
        click.echo(f"note: {note}", err=True)


@splits_group.command("export", epilog="Example: adubench data splits export eigen --format bts -o eigen_test.txt")
@click.argument("name")
@click.option("--format", "form", type=click.Choice(["bts", "toolbox2", "md2"]), default="bts", show_default=True)
@click.option("--data-root", type=PATH, envvar="ADUBENCH_DATA_ROOT", help="For splits that files on disk define.")
@click.option("-o", "--output", type=PATH, help="The file to write; stdout without it.")
def export(name: str, form: str, data_root: Path | None, output: Path | None) -> None:
    """Write NAME as a list file of BTS (image gt focal), the Toolbox (image gt) or Monodepth2 (folder index side)."""
    from adubench.datasets.list_files import write_lines
    from adubench.datasets.splits import load_split
    from adubench.io.atomic import write_text

    split = load_split(name, data_root)
    text = write_lines(split.frames, form, split.no_gt)
    if output is None:
        click.echo(text, nl=False)
        return
    write_text(output, text)
    click.echo(f"written: {output} ({len(split.frames)} lines)", err=True)


CHECK_EPILOG = """
\b
Examples:
  adubench data check --split eigen --data-root KITTI --gt data_depth_annotated
  adubench data check --dataset drivingstereo --data-root DRIVINGSTEREO --full
  adubench data check --split eigen --train-split kitti_official.train
  adubench data check --split official --train-list my_train_files.txt
"""


@command.command("check", epilog=CHECK_EPILOG)
@click.option(
    "--dataset", type=click.Choice(["kitti", "drivingstereo", "synthdrive", "nyu", "folder"]), help="Default: guessed."
)
@click.option("--split", help="Which frames are needed: a split or a list file.")
@click.option("--data-root", type=PATH, envvar="ADUBENCH_DATA_ROOT", help="Where the images lie.")
@click.option("--gt", help="Where the maps lie, or 'raw': scans and calibration are needed.")
@click.option("--list", "list_file", type=PATH, help="With --dataset folder: a list that pairs images and maps.")
@click.option("--resolution", type=click.Choice(["half", "full"]), help="Of DrivingStereo.")
@click.option("--full", is_flag=True, help="Open every file (finds truncated ones), not one per drive.")
@click.option("--strict", is_flag=True, help="A duplicate in a list file is an error.")
@click.option("--train-split", help="Say what the evaluation split shares with this training split.")
@click.option("--train-list", type=PATH, help="The same for a training list file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(as_json: bool, **options: Any) -> int:
    """Say what is on this disk, what is missing and why; and whether training and evaluation data overlap.

    Exit status 1 when something is wrong: missing or damaged files, wrong sizes, evaluation images in the training
    set.
    """
    from adubench.datasets.check_all import CheckOptions, run_checks

    reports = run_checks(CheckOptions(**options))
    if as_json:
        click.echo(json.dumps({"ok": all(r.ok for r in reports), "reports": [r.to_dict() for r in reports]}, indent=1))
    else:
        for report in reports:
            _print_report(report)
        _say_total(reports)
    return 0 if all(report.ok for report in reports) else 1


def _print_report(report: Any) -> None:
    from rich.table import Table

    from adubench.commands._options import stdout_console

    console = stdout_console()
    console.print(f"[bold]{report.dataset}[/bold] {report.root}", highlight=False)
    for name, value in report.facts.items():
        console.print(f"  {name}: {value}", highlight=False, markup=False)
    columns = list(dict.fromkeys(key for row in report.table.values() for key in row))
    if columns:
        table = Table("drive", *columns)
        for name, row in report.table.items():
            table.add_row(name, *(str(row.get(column, "")) for column in columns))
        console.print(table)
    for finding in report.findings:
        click.echo(f"{finding.level}: {finding.text}")


def _say_total(reports: list[Any]) -> None:
    levels = [finding.level for report in reports for finding in report.findings]
    errors, warnings = levels.count("error"), levels.count("warning")
    if errors:
        click.echo(
            f"error: the check found {counted(errors, 'error')} and {counted(warnings, 'warning')} (listed above).",
            err=True,
        )
    else:
        click.echo(f"good, {counted(warnings, 'warning')}" if warnings else "good")


PACK_EPILOG = """
\b
Examples:
  adubench data pack --gt data_depth_annotated --split eigen -o eigen_gt.h5
  adubench data pack --gt raw --split eigen --data-root KITTI -o eigen_raw.h5
  adubench data pack predictions/ -o predictions.h5
  adubench data pack predictions/ --at-gt eigen_gt.h5 -o values.h5
  adubench data pack --unpack eigen_gt.h5 -o maps/
  adubench data pack --gt raw --scan velodyne.bin --calib DIR -o depth.png
  adubench data pack --training eigen_train --stereo --data-root KITTI --gt data_depth_annotated -o train.h5
"""


@command.command("pack", epilog=PACK_EPILOG)
@click.argument("source", required=False, type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help=".h5 (a pack), .npz (dense arrays), or a folder.")
@click.option("--gt", help="Pack ground truth: a folder or file of maps, or 'raw' for projected Velodyne scans.")
@click.option("--split", help="Only the frames of this split (or list file), in its order.")
@click.option("--data-root", type=PATH, envvar="ADUBENCH_DATA_ROOT", help="KITTI raw, for --gt raw.")
@click.option("--unpack", "packed", type=PATH, help="Write the maps of this pack as files, bit-exact.")
@click.option("--at-gt", type=PATH, help="Keep only the predictions' values at the pixels of this ground-truth pack.")
@click.option("--scan", type=PATH, help="With --gt raw: one scan (float32 x y z r).")
@click.option("--calib", type=PATH, help="Folder of the calib files of --scan. Default: the scan's own.")
@click.option("--camera", type=click.Choice(["2", "3"]), default="2", show_default=True, help="Left or right.")
@click.option(
    "--depth-kind",
    type=click.Choice(["velodyne", "camera"]),
    default="velodyne",
    show_default=True,
    help="What a projected point stores: the scan's x (what kitti-eigen-raw scores against) or the camera's z.",
)
@click.option("--png-scale", default=256.0, show_default=True, help="Metres = PNG code / this.")
@click.option("--archival", is_flag=True, help="Several times smaller, slower to read.")
@click.option("--first", help="Store this protocol's pixels first: quickest under it. Default: the split's protocol.")
@click.option("--force", is_flag=True, help="Write again even if the sources have not changed.")
@click.option("--training", metavar="SPLIT", help="Pack images and ground truth of a training list, for fast training.")
@click.option("--stereo", is_flag=True, help="With --training: pairs, with the right images.")
@click.option("--full-frames", is_flag=True, help="With --training: whole images, not KITTI's 352x1216 window.")
@click.option(
    "--ground-truth",
    type=click.Choice(["improved", "raw", "depth"]),
    default="improved",
    show_default=True,
    help="With --training: accumulated maps, single scans (velodyne_raw), or dense maps.",
)
def pack(source: Path | None, output: Path, **options: Any) -> None:
    """Pack SOURCE (predictions), ground truth or training data into HDF5, or unpack.

    Packs are rebuilt when their sources changed.
    """
    from adubench.commands._options import refuse_input_as_output

    if options["training"] is not None:
        from adubench.commands._training_pack import pack_training

        pack_training(source, output, options)
        return
    refuse_input_as_output(output, source, *(options[name] for name in ("gt", "packed", "at_gt", "scan")))
    from adubench.commands._options import progress_bar

    with progress_bar("packing") as progress:
        done = _pack(source, output, options, progress)
    if not done.written:
        click.echo(f"up to date: {done.path} ({counted(done.maps, 'map')})", err=True)
        return
    tail = f"; {done.reason}" if done.reason else ""
    click.echo(f"written: {done.path} ({counted(done.maps, 'map')}{tail})", err=True)


def _pack(source: Path | None, output: Path, o: dict[str, Any], progress: Callable[[int, int], None] | None) -> Any:
    from adubench.datasets import packing
    from adubench.errors import UsageError

    camera, velodyne = int(o["camera"]), o["depth_kind"] == "velodyne"
    if source is not None and o["gt"] == "raw":
        # SOURCE is the place of the scans: one file, or the raw root.
        if source.is_file():
            calib = o["calib"] or source.parent
            return packing.project_one(source, calib, output, camera=camera, velodyne_x_depth=velodyne)[0]
        o, source = o | {"data_root": source}, None
    chosen = [o["packed"] is not None, source is not None, o["gt"] is not None or o["scan"] is not None]
    if sum(chosen) != 1:
        raise UsageError("name one thing: SOURCE (predictions), --gt DIR|raw (ground truth), or --unpack FILE.")
    if source is None and o["at_gt"] is not None:
        raise UsageError("--at-gt goes with SOURCE, the predictions.")
    if o["gt"] is None and o["split"] is not None:
        raise UsageError("--split goes with --gt; predictions are packed under the names that they have.")
    if o["packed"] is not None:
        return packing.unpack(o["packed"], output, progress)
    if source is not None:
        from adubench.io.collection import open_maps

        maps = open_maps(source, png_scale=o["png_scale"])
        return packing.write_predictions(
            maps, output, archival=o["archival"], at_ground_truth=o["at_gt"], force=o["force"], progress=progress
        )
    if o["scan"] is not None:
        if o["gt"] not in (None, "raw"):
            raise UsageError("--scan goes with --gt raw and --calib DIR.")
        return packing.project_one(
            o["scan"], o["calib"] or o["scan"].parent, output, camera=camera, velodyne_x_depth=velodyne
        )[0]
    truth = packing.ground_truth_source(
        o["gt"],
        o["split"],
        o["data_root"],
        cameras=(camera,),
        velodyne_x_depth=velodyne,
        png_scale=o["png_scale"],
    )
    return packing.write_ground_truth(
        truth,
        output,
        archival=o["archival"],
        first=_first(o["first"], o["split"], o["archival"]),
        force=o["force"],
        progress=progress,
    )


def _first(name: str | None, split: str | None, archival: bool) -> tuple[str, Callable[[SparseDepth], Any]] | None:
    """Key and mask of the pixels to store first: the named protocol's, else those of the split's own protocol."""
    from adubench.datasets.splits import SPLITS, looks_like_list, resolve_name
    from adubench.errors import UsageError
    from adubench.evaluators.protocols import get_protocol
    from adubench.evaluators.valid_pixels import selection_mask

    if archival:
        if name is not None:
            raise UsageError("--first goes without --archival: archival packs keep no pixel order.")
        return None
    if name is None and split is not None and not looks_like_list(split):
        name = SPLITS[resolve_name(split)].default_protocol
    if not name or name == "none":
        return None
    protocol = get_protocol(name)
    return protocol.selection, lambda depth: selection_mask(protocol, depth)


def _size(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[int, int]:
    """Parse HxW."""
    from adubench.commands._options import parse_size

    return parse_size(value)


@command.command(
    "synth", epilog="Example: adubench data synth synthdrive/ --drives 5 --frames 30 --size 96x320 --seed 0"
)
@click.argument("root", type=PATH)
@click.option("--drives", default=5, show_default=True, help="Number of drives.")
@click.option(
    "--frames", default=30, show_default=True, help="Frames per drive; the first and last five have no truth."
)
@click.option(
    "--size", callback=_size, metavar="HxW", default="96x320", show_default=True, help="Height x width of the pictures."
)
@click.option("--seed", default=0, show_default=True, help="Of the worlds; the same seed gives the same files.")
@click.option("--layout", type=click.Choice(["kitti", "drivingstereo"]), default="kitti", show_default=True)
@click.option("--moving-cars", is_flag=True, help="Cars drive along, which breaks what self-supervision assumes.")
@click.option("--workers", default=1, show_default=True, help="Processes.")
def synth(root: Path, **options: Any) -> None:
    """Generate SynthDrive, the embedded dataset, into ROOT."""
    from adubench.commands._options import progress_bar
    from adubench.datasets.synthdrive import write_dataset

    with progress_bar("rendering") as progress:
        info = write_dataset(root, progress=progress, **options)
    splits = ", ".join(f"{part} {len(drives)}" for part, drives in info.splits.items())
    click.echo(f"written: {info.root} ({counted(len(info.drives), 'drive')}: {splits})", err=True)
