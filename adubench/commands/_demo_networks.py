"""The networks of `adubench demo`: a stereo teacher and three students, trained, evaluated, compared, exported."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from adubench.evaluators.comparison_model import Comparison

BASELINE = "baseline"
_METRIC = "abs_rel"


@dataclass(frozen=True, slots=True)
class Training:
    """One training of the demo.

    Attributes:
        label: in tables, and name of the result file.
        recipe: name.
        stage: that is trained.
        folder: below `runs`.
        about: for the reader.
    """

    label: str
    recipe: str
    stage: str
    folder: str
    about: str

    @property
    def taught(self) -> bool:
        """Whether it learns from the teacher."""
        return self.stage == "student" and self.label != BASELINE

    def checkpoint(self, output: Path) -> Path:
        """Its last weights."""
        return output / "runs" / self.folder / self.stage / "checkpoint-last.safetensors"


TEACHER = Training("teacher", "demo", "teacher", "adu-depth", "stereo teacher: sees the left and the right picture")
ADU_DEPTH = Training("adu-depth", "demo", "student", "adu-depth", "student with ADU-Depth")
ALONE = Training(
    BASELINE, "demo-baseline", "student", "baseline", "student without a teacher, what the others beat or not"
)
RESPONSE = Training("response", "demo-response", "student", "response", "student with plain response distillation")
STUDENTS = (ALONE, RESPONSE, ADU_DEPTH)
_ROUNDS = ((TEACHER, ALONE), (RESPONSE, ADU_DEPTH))  # side by side; the second pair needs the teacher


def run_networks(
    output: Path,
    root: Path,
    references: Sequence[Path],
    size: tuple[int, int],
    seed: int,
    steps: int | None,
    say: Callable[[str], None],
) -> Path:
    """Train, evaluate, compare, export.

    Args:
        output: folder of the demo.
        root: data set.
        references: results of the predictors without a network.
        size: height and width of the pictures.
        seed: of the trainings.
        steps: of each training; None for the recipe's.
        say: announces a step.

    Returns:
        The submission.
    """
    from adubench.commands._side_by_side import run_together
    from adubench.commands.demo import compare_files

    trainings = (TEACHER, *STUDENTS)
    changes = [f"seed={seed}", f"input.height={size[0]}", f"input.width={size[1]}"]
    changes += [f"train.steps={steps}"] if steps is not None else []
    say("train a teacher and three students from random weights on the same data")
    started = time.monotonic()
    for together in _ROUNDS:
        click.echo("\n".join(f"{training.label}: {training.about}" for training in together))
        run_together([_arguments(training, changes, output, root) for training in together])
    click.echo(f"trained, or found finished, in {time.monotonic() - started:.0f} s")
    say("evaluate the networks")
    results = [_evaluate(training, output, root) for training in trainings]
    say(f"compare everything with the student '{BASELINE}'; statistics are clustered by drive")
    comparison = compare_files([*results, *references], baseline=BASELINE)
    say("where the differences lie: by distance")
    _show_distances(results)
    click.echo("\n".join(readings(comparison)))
    say("export the predictions of the ADU-Depth student as a submission and check it as the server would")
    return _submit(ADU_DEPTH.checkpoint(output), root, output / "submission")


def _arguments(training: Training, changes: Sequence[str], output: Path, root: Path) -> list[str]:
    """Return the command line that trains: the one a user would type; finished trainings stay as they are."""
    words = ["train", training.recipe, "--stage", training.stage, "--resume", "--data-root", str(root)]
    words += ["-o", str(output / "runs" / training.folder)]
    words += [word for change in changes for word in ("--set", change)]
    return words + (["--teacher", str(TEACHER.checkpoint(output))] if training.taught else [])


def _evaluate(training: Training, output: Path, root: Path) -> Path:
    """Score a checkpoint under the data set's own protocol, also by distance."""
    from adubench.commands.demo import PROTOCOLS
    from adubench.evaluators.evaluator import EvalOptions, evaluate
    from adubench.evaluators.region_run import RegionRequest
    from adubench.evaluators.result import save_results
    from adubench.training.live_predictions import LivePredictor
    from adubench.training.predictor import PredictOptions, open_predictor

    checkpoint = training.checkpoint(output)
    source = LivePredictor(open_predictor(checkpoint, PredictOptions(device="auto")), checkpoint)
    options = EvalOptions(label=training.label, cache="off", regions=RegionRequest(families="depth", cache="off"))
    results = evaluate(source, split="synthdrive", protocol=PROTOCOLS[:1], data_root=root, options=options)
    path = output / "results" / f"{training.label}.json"
    save_results(results, path)
    views = "two views" if training is TEACHER else "one view"
    click.echo(f"{training.label} ({views}): {_METRIC} {results[0].summary[_METRIC]:.4f}, written: {path}")
    return path


def _show_distances(files: Sequence[Path]) -> None:
    """Print the relative error of every network by distance, pooled over pixels."""
    from adubench.commands._options import terminal
    from adubench.evaluators.result import load_results
    from adubench.reports.formats import render_rich
    from adubench.reports.tables import Cell, Column, Group, Row, Table

    results = [load_results(file)[0] for file in files]
    shown = [name for name, values in results[0].regions.items() if values.get(_METRIC) is not None]
    titles = {name: str(results[0].regions[name].get("title", name)).removeprefix("depth ") for name in shown}
    columns = tuple(Column(name, titles[name], arrow="↓") for name in shown)
    rows = []
    for result in results:
        values = [result.regions[name].get(_METRIC) for name in shown]
        rows.append(Row(result.label, tuple(Cell("n/a" if v is None else f"{v:.3f}", v) for v in values)))
    title = f"{_METRIC} by distance, pooled over pixels (`all`: mean over images)"
    click.echo(render_rich([Table("distances", title, "model", columns, (Group("", tuple(rows)),))], **terminal()))


def readings(comparison: Comparison) -> list[str]:
    """Say in words what a comparison with the baseline shows, good or bad."""
    sentences = []
    for pair in comparison.pairs:
        if pair.a not in {TEACHER.label, *(student.label for student in STUDENTS)}:
            continue
        d = pair.regions["all"][_METRIC]
        verdict = "better than" if d.better else "worse than" if d.delta else "equal to"
        if d.too_few:
            certainty = f"too few test drives ({d.n_clusters}) to tell that from chance"
        elif d.separated:
            certainty = f"separated over {d.n_clusters} test drives"
        else:
            certainty = f"not separated over {d.n_clusters} test drives"
        sentences.append(
            f"{pair.a}: {_METRIC} {d.value_a:.4f}, {verdict} the baseline's {d.value_b:.4f} ({d.relative:+.1%}); "
            f"{certainty}."
        )
    sentences.append(
        "One short training of each on generated data compares these checkpoints, not the methods: another seed moves "
        "them too (adubench experiment table4 --scale synth repeats with three)."
    )
    return sentences


def _submit(checkpoint: Path, root: Path, output: Path) -> Path:
    """Predict the numbered test pictures, pack them, check the archive."""
    from adubench.commands._predicted import predicted_maps
    from adubench.commands._submission import echo_report
    from adubench.commands.demo import anonymous_set
    from adubench.submissions.export import export_submission
    from adubench.submissions.validate import check_submission

    folders = anonymous_set(root, output)
    images, archive = folders["images"], output / "submission.zip"
    how = {"right": None, "uncertainty": False}
    with predicted_maps(str(checkpoint), str(images), archive, how, kind="rehearsal") as made:
        report = export_submission(
            made.folder,
            images=images,
            output=archive,
            kind="rehearsal",
            checkpoint=made.checkpoint,
            trained_on=made.trained_on,
        )
    echo_report(report, as_json=False, verb="wrote")
    checked = check_submission(archive, kind="rehearsal", gt=folders["truth"])
    echo_report(checked, as_json=False, verb="checked")
    return archive
