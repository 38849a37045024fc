"""`adubench demo`: the whole path of a number on the embedded data set.

Makes the data, predicts with two predictors that need no network, trains a teacher and three students, evaluates,
compares, exports and checks a submission, all with the functions behind the other commands.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adubench.errors import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from adubench.datasets.frames import FrameKey
    from adubench.evaluators.comparison_model import Comparison
    from adubench.evaluators.result import EvaluationResult

PROTOCOLS = ("synthdrive", "synthdrive[alignment=median]", "synthdrive[crop=none]", "full-frame")
EPILOG = """
\b
Examples:
  adubench demo -o demo-out
  adubench demo -o demo-out --no-train
  adubench demo -o demo-small --drives 4 --frames 12 --steps 20
"""
_COUNT = click.IntRange(min=1)
_FRAMES, _FEW_FRAMES = 30, 14  # networks learn little from four frames with truth per drive


@click.command("demo", epilog=EPILOG)
@click.option("-o", "--output", default="demo-out", type=click.Path(path_type=Path), show_default=True)
@click.option("--drives", default=24, show_default=True, help="Drives of the data set; every fourth is a test drive.")
@click.option(
    "--frames",
    type=int,
    help="Frames per drive; the first and last five have no truth.  [default: 30 with networks, 14 without]",
)
@click.option("--size", default="96x320", show_default=True, help="Height x width of the pictures.")
@click.option("--seed", default=0, show_default=True, help="Seed of the data set and of the trainings.")
@click.option("--train/--no-train", default=True, show_default=True, help="Train the networks, or leave them out.")
@click.option("--steps", type=_COUNT, help="Steps of each training. Default: the recipe's.")
@click.option("--workers", default=0, show_default=True, help="Processes that make the data; 0 takes every core.")
def command(
    output: Path,
    drives: int,
    frames: int | None,
    size: str,
    seed: int,
    train: bool,
    steps: int | None,
    workers: int,
) -> None:
    """Run the whole path on SynthDrive: make data, train, predict, evaluate, compare, export, check.

    A stereo teacher and three students (without teacher, with plain response distillation, with ADU-Depth) are trained
    from random weights. Every number it prints was computed just now from the files it writes below OUTPUT. Started
    again in the same folder it keeps the trainings that are finished and continues one that was interrupted.
    """
    from adubench.commands._options import parse_size

    shape = parse_size(size)
    _check(output, drives, frames, seed, train, steps)
    started = time.monotonic()
    networks = train and _can_train()
    if frames is None:
        frames = _FRAMES if networks else _FEW_FRAMES
    say, root = _Steps(8 if networks else 5), output / "data"
    say(f"SynthDrive: {drives} drives of {frames} frames, {size}, into {root}")
    _make_data(root, drives, frames, shape, seed, workers)
    say("two predictors without a network: mean depth by image row (fitted on the training drives), stereo matching")
    predictions = _predict(root, output / "predictions")
    say("evaluate both under several protocols: the same maps, other numbers")
    files = [_evaluate(source, root, output / "results") for source in predictions]
    if networks:
        from adubench.commands._demo_networks import run_networks

        archive = run_networks(output, root, files, shape, seed, steps, say)
    else:
        say("compare under the data set's own protocol; statistics are clustered by drive")
        compare_files(files)
        say("export the stereo predictions as a submission and check it as the server would")
        archive = _submit(predictions[-1], root, output / "submission")
    _say_files(output, networks, archive, time.monotonic() - started)


class _Steps:
    """Announces the steps of the demo, counted."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0

    def __call__(self, text: str) -> None:
        self.done += 1
        click.secho(f"\n[{self.done}/{self.total}] {text}", bold=True)


def _check(output: Path, drives: int, frames: int | None, seed: int, train: bool, steps: int | None) -> None:
    """Refuse what would fail after minutes of work."""
    from adubench.errors import UsageError

    if drives < 2:
        raise UsageError(f"--drives {drives}: the demo needs at least 2, one to fit on and one to test.")
    if frames is not None and frames < 11:
        raise UsageError(f"--frames {frames}: expected at least 11; the first and last five of a drive have no truth.")
    if seed < 0:
        raise UsageError(f"--seed {seed}: expected a number >= 0.")
    if steps is not None and not train:
        raise UsageError("--steps belongs to the trainings, which --no-train leaves out.")
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output}: is a file; choose a folder with -o.")


def _can_train() -> bool:
    """Whether the packages of the extra `train` are here; says what is left out where they are not."""
    from adubench.commands._training import missing_packages

    missing = missing_packages()
    if missing:
        click.echo(
            f"note: {', '.join(missing)} not installed: the networks (training, their evaluation, the submission of a "
            "checkpoint) are left out. pip install 'adubench[train]' brings them."
        )
    return not missing


def _make_data(root: Path, drives: int, frames: int, size: tuple[int, int], seed: int, workers: int) -> None:
    import os

    from adubench.commands._options import progress_bar
    from adubench.datasets.synthdrive import write_dataset

    with progress_bar("rendering") as bar:
        info = write_dataset(
            root,
            drives=drives,
            frames=frames,
            size=size,
            seed=seed,
            workers=workers or os.cpu_count() or 1,
            progress=bar or _lines("rendering"),
        )
    counts = ", ".join(f"{len(names)} {part}" for part, names in info.splits.items())
    click.echo(f"drives: {counts}; weak light: {len(info.weak_light)}")


def _lines(what: str) -> Callable[[int, int], None]:
    """Return a progress function that writes a line for every tenth: for logs, where no bar can move."""
    told = 0

    def tell(done: int, total: int) -> None:
        nonlocal told
        tenth = 10 * done // max(total, 1)
        if tenth > told:
            told = tenth
            click.echo(f"{what}: {done}/{total}", err=True)

    return tell


def _predict(root: Path, output: Path) -> list[Path]:
    """Write 16-bit PNGs of both predictors for the frames of the test split that have ground truth."""
    from adubench.datasets.ground_truth import open_ground_truth
    from adubench.datasets.splits import load_split
    from adubench.io.depth_png import write_depth_png
    from adubench.models.classical import RowMean, StereoMatcher

    train = open_ground_truth(load_split("synthdrive.train", root), gt_root=None, data_root=root)
    test = open_ground_truth(load_split("synthdrive.test", root), gt_root=None, data_root=root)
    row_mean = RowMean.fit(train.read(frame).dense() for frame in train.frames)
    matcher = StereoMatcher(_focal_baseline(test, test.frames[0]))
    predictors: dict[str, Callable[[Any, Any], Any]] = {
        "row-mean": lambda left, right: row_mean.predict(left),
        "stereo-matching": matcher.predict,
    }
    click.echo(f"fitted on {counted(len(train.frames), 'map')}; predicting {counted(len(test.frames), 'frame')}")
    for frame in test.frames:
        left, right = _pair(root, frame)
        for name, predict in predictors.items():
            write_depth_png(output / name / f"{frame.name}.png", predict(left, right))
    return [output / name for name in predictors]


def _focal_baseline(source: Any, frame: FrameKey) -> float:
    value = source.focal_baseline(frame)
    assert value is not None, "SynthDrive always has calibration files"
    return float(value)


def _pair(root: Path, frame: FrameKey) -> tuple[Any, Any]:
    from dataclasses import replace

    from adubench.datasets.kitti import KittiRaw
    from adubench.io.images import read_rgb

    raw = KittiRaw(root)
    other = replace(frame, camera=5 - frame.camera)
    left, right = read_rgb(raw.image(frame)), read_rgb(raw.image(other))
    # From the right camera the left one is on the other side: mirror both, and match in the usual direction.
    return (left, right) if frame.camera == 2 else (left[:, ::-1], right[:, ::-1])


def _evaluate(source: Path, root: Path, output: Path) -> Path:
    from adubench.commands._options import terminal
    from adubench.evaluators.evaluator import EvalOptions, evaluate
    from adubench.evaluators.result import save_results
    from adubench.reports.evaluation import render_evaluation

    options = EvalOptions(label=source.name, cache="off")
    results = evaluate(source, split="synthdrive", protocol=PROTOCOLS, data_root=root, options=options)
    path = output / f"{source.name}.json"
    save_results(results, path)
    click.echo(render_evaluation(results, **terminal()), nl=False)
    _say_warnings(results)
    return path


def _say_warnings(results: Sequence[EvaluationResult]) -> None:
    for warning in dict.fromkeys(w for r in results for w in r.warnings):
        click.echo(f"warning: {warning}")


def compare_files(files: Sequence[Path], baseline: str | None = None) -> Comparison:
    """Print values and differences under the data set's own protocol.

    Args:
        files: results, each with one of that protocol.
        baseline: label of the result that the others are compared with; default the first.
    """
    from adubench.commands._options import terminal
    from adubench.evaluators.comparison import compare
    from adubench.evaluators.result import load_results
    from adubench.reports.formats import render_rich
    from adubench.reports.tables import differences_table, results_table

    chosen = [next(r for r in load_results(f) if r.protocol["name"] == PROTOCOLS[0]) for f in files]
    metrics = ("abs_rel", "rmse", "silog", "d1")
    comparison = compare(chosen, metrics=metrics, baseline=baseline)
    # Five pairs in four metrics would fill the screen.
    detailed = comparison if len(files) < 3 else compare(chosen, metrics=metrics[:1], baseline=baseline)
    tables = [results_table(comparison), differences_table(detailed)]
    click.echo(render_rich([table for table in tables if table is not None], **terminal()), nl=False)
    return comparison


def _submit(source: Path, root: Path, output: Path) -> Path:
    """Number the test frames as the server's anonymous set is numbered, export their predictions, check the archive."""
    from adubench.commands._submission import echo_report
    from adubench.submissions.export import export_submission
    from adubench.submissions.validate import check_submission

    folders = anonymous_set(root, output, source)
    archive = output / "submission.zip"
    report = export_submission(folders["predictions"], images=folders["images"], output=archive, kind="rehearsal")
    echo_report(report, as_json=False, verb="wrote")
    checked = check_submission(archive, kind="rehearsal", gt=folders["truth"])
    echo_report(checked, as_json=False, verb="checked")
    return archive


def anonymous_set(root: Path, output: Path, source: Path | None = None) -> dict[str, Path]:
    """Copy pictures, truth and predictions of the test frames as 0000000000.png, 0000000001.png, ...

    Args:
        root: the data set.
        output: folder of the three folders.
        source: folder of predictions, None for none.
    """
    import shutil

    from adubench.datasets.ground_truth import open_ground_truth
    from adubench.datasets.kitti import KittiRaw
    from adubench.datasets.splits import load_split

    test = open_ground_truth(load_split("synthdrive.test", root), gt_root=None, data_root=root)
    raw = KittiRaw(root)
    folders = {name: output / name for name in ("images", "truth", "predictions")}
    for folder in folders.values():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for position, frame in enumerate(test.frames):
        name = f"{position:010d}.png"
        shutil.copyfile(raw.image(frame), folders["images"] / name)
        shutil.copyfile(test.paths(frame)[0], folders["truth"] / name)
        if source is not None:
            shutil.copyfile(source / f"{frame.name}.png", folders["predictions"] / name)
    return folders


def _say_files(output: Path, networks: bool, archive: Path, seconds: float) -> None:
    click.secho(f"\nDone in {seconds:.0f} s. Look at:", bold=True)
    trained = ((output / "runs", "the trainings: checkpoints, resolved recipes, logs"),) if networks else ()
    for path, what in (
        (output / "data", "the data set: pictures, scans, ground truth in KITTI's layout"),
        (output / "predictions", "16-bit depth maps of the two predictors without a network"),
        *trained,
        (output / "results", "results with per-image numbers, moment tables beside them"),
        (archive, "the submission, its manifest beside it"),
    ):
        click.echo(f"  {path}  {what}")
    click.echo("Next: adubench protocols diff kitti-eigen kitti-eigen-full; adubench eval --help")
