"""What is measured of one finished run of an experiment: scores, regions, uncertainty, training curve, cost.

Everything becomes a flat table of numbers (`sq_rel`, `region:depth0:abs_rel`, `unc:ece19`, ...); what cannot be
measured is named with its reason instead.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adubench.errors import UsageError
from adubench.training import run_folder
from adubench.training.experiment_calibration import finite, scores_after_tau, uncertainty_scores
from adubench.training.experiment_transfer import maps_of, transfer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adubench.evaluators.eval_options import EvalOptions
    from adubench.evaluators.result import EvaluationResult
    from adubench.recipes.experiments import Experiment, RunSpec
    from adubench.training.prediction_inputs import ImageJob

CLOSE = 0.05
_KB_FORM = "npy"


@dataclass(frozen=True, slots=True)
class Inputs:
    """What there is to measure.

    Attributes:
        spec: the run.
        checkpoint: of the network whose numbers the row shows.
        teacher: checkpoint of its teacher, None without one.
        folder: of the run: results go there.
        teacher_folder: of the teacher: its own results go there, for all runs that share it.
        data_root: of the training and test data.
        test_roots: name of a data set -> its root.
        device: for prediction.
        shared: folder of the experiment, for what its runs have in common.
    """

    spec: RunSpec
    checkpoint: Path
    teacher: Path | None
    folder: Path
    teacher_folder: Path | None
    data_root: Path | None
    test_roots: dict[str, Path]
    device: str
    shared: Path | None = None


@dataclass(slots=True)
class Measured:
    """Numbers of a run, result files by name, and what is missing and why."""

    numbers: dict[str, float] = field(default_factory=dict)
    results: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


def measure(experiment: Experiment, inputs: Inputs, scale: str) -> Measured:
    """Measure a finished run.

    Args:
        experiment: says what.
        inputs: checkpoints and folders.
        scale: rows of `test_sets` may belong to some scales only.

    Raises:
        UsageError: the recipe names no test split.
        DataError: images or ground truth cannot be read.
    """
    found = Measured()
    wanted = experiment.measure
    uncertain = bool({"calibration", "transfer"} & set(wanted))
    result = _score(inputs, found, regions="regions" in wanted, uncertainty=uncertain)
    if "calibration" in wanted:
        _calibration(inputs, result, found)
    if "teacher_metrics" in wanted:
        _teacher(inputs, found)
    if "curve" in wanted:
        _curve(inputs, found)
    if "cost" in wanted:
        _cost(inputs, found)
    if "feature_gap" in wanted:
        _gap(inputs, found)
    if "transfer" in wanted:
        for test_set in experiment.test_sets:
            transfer(inputs, test_set, scale, found)
    for folder in ("predictions", "predictions_uncertainty"):
        shutil.rmtree(inputs.folder / folder, ignore_errors=True)
    return found


def predict_split(
    checkpoint: Path,
    split: str,
    root: Path | None,
    output: Path,
    *,
    kb_crop: bool,
    device: str,
    uncertainty: bool = False,
) -> tuple[str | None, Sequence[ImageJob]]:
    """Write the predictions of a split's images as npy, and their uncertainty if asked for and there is one.

    Returns:
        The kind of the uncertainty maps, None for none; and the images.

    Raises:
        DataError: images are missing or cannot be read.
    """
    from adubench.training.prediction_inputs import list_split
    from adubench.training.prediction_run import OutputOptions, predict_images
    from adubench.training.predictor import PredictOptions, open_predictor

    predictor = open_predictor(checkpoint, PredictOptions(device=device, kb_crop=kb_crop))
    jobs = list_split(split, root, stereo=predictor.stereo)
    shutil.rmtree(output, ignore_errors=True)
    kind = predictor.uncertainty_kind if uncertainty else None
    predict_images(predictor, jobs, OutputOptions(root=output, form=_KB_FORM, uncertainty=kind is not None))
    return kind, jobs


def _score(inputs: Inputs, found: Measured, *, regions: bool, uncertainty: bool) -> EvaluationResult:
    """Score the row's network on the recipe's test split and keep the result file."""
    from adubench.evaluators.eval_options import EvalOptions
    from adubench.evaluators.region_run import RegionRequest
    from adubench.evaluators.uncertainty_run import UncertaintyRequest

    recipe, predictions = inputs.spec.recipe, inputs.folder / "predictions"
    if recipe.test.split is None:
        raise UsageError(
            f"recipe {recipe.name}: names no test.split, so there is nothing to score; add one with --set."
        )
    kind, _ = predict_split(
        inputs.checkpoint, recipe.test.split, inputs.data_root, predictions,
        kb_crop=_window(inputs), device=inputs.device, uncertainty=uncertainty,
    )  # fmt: skip
    request = None
    if kind is not None:
        request = UncertaintyRequest(maps=maps_of(predictions), kind=kind, family="laplace")
    options = EvalOptions(
        label=f"{inputs.spec.variant} (seed {inputs.spec.seed})",
        regions=RegionRequest(families="depth,edge") if regions else None,
        uncertainty=request,
        allow_empty=True,
    )
    result = _evaluate(inputs, predictions, options)
    _keep(inputs, found, "test", result)
    found.numbers |= finite(result.summary)
    if result.uncertainty:
        found.numbers |= uncertainty_scores(result, "unc")
    elif uncertainty:
        found.absent["unc"] = "the network predicts no uncertainty"
    for name, values in result.regions.items():
        found.numbers |= {f"region:{name}:{key}": v for key, v in finite(values).items()}
    if regions and not result.regions:
        found.absent["region"] = "the result has no regions"
    return result


def _window(inputs: Inputs) -> bool:
    recipe = inputs.spec.recipe
    return recipe.data.kb_crop and not recipe.self_supervision


def _evaluate(inputs: Inputs, predictions: Path, options: EvalOptions) -> EvaluationResult:
    from adubench.evaluators.evaluator import evaluate

    recipe = inputs.spec.recipe
    (result,) = evaluate(
        predictions, split=recipe.test.split, gt=recipe.data.gt_root, protocol=recipe.test.protocol,
        data_root=inputs.data_root, options=options,
    )  # fmt: skip
    return result


def _keep(inputs: Inputs, found: Measured, name: str, result: EvaluationResult) -> None:
    from adubench.evaluators.result import save_results

    save_results([result], inputs.folder / f"{name}.json")
    found.results[name] = f"{name}.json"


def _calibration(inputs: Inputs, result: EvaluationResult, found: Measured) -> None:
    """Score the uncertainty after a common factor, and all of it again with the teacher's depth as the truth."""
    if not result.uncertainty:
        found.absent["unc_teacher"] = found.absent["unc"]
        return
    predictions, kind = inputs.folder / "predictions", str(result.uncertainty["kind"])
    _after_tau(inputs, found, "unc", kind)
    if inputs.teacher is None or inputs.teacher_folder is None:
        found.absent["unc_teacher"] = "there is no teacher"
        return
    truth = inputs.teacher_folder / "test-predictions"
    recipe = inputs.spec.recipe
    assert recipe.test.split is not None
    if not any(truth.rglob("*.npy")):
        predict_split(
            inputs.teacher, recipe.test.split, inputs.data_root, truth, kb_crop=_window(inputs), device=inputs.device
        )
    against = _against_teacher(inputs, truth, predictions, maps_of(predictions), kind)
    _keep(inputs, found, "against-teacher", against)
    found.numbers |= uncertainty_scores(against, "unc_teacher")
    _after_tau(inputs, found, "unc_teacher", kind, truth)


def _after_tau(inputs: Inputs, found: Measured, prefix: str, kind: str, truth: Path | None = None) -> None:
    """Add the scores after the factor, against ground truth or against the teacher's maps."""

    def score(predictions: Path, maps: Path) -> EvaluationResult:
        if truth is not None:
            return _against_teacher(inputs, truth, predictions, maps, kind)
        request = UncertaintyRequest(maps=maps, kind=kind, family="laplace")
        return _evaluate(inputs, predictions, EvalOptions(uncertainty=request, allow_empty=True, allow_missing=True))

    from adubench.evaluators.eval_options import EvalOptions
    from adubench.evaluators.uncertainty_run import UncertaintyRequest

    predictions = inputs.folder / "predictions"
    numbers, reason = scores_after_tau(score, predictions, maps_of(predictions), kind)
    found.numbers |= {f"{prefix}:{name}": value for name, value in numbers.items()}
    if reason:
        found.absent |= {f"{prefix}:{name}": reason for name in ("tau_fit", "ece19_after", "nll_after", "ence_after")}


def _against_teacher(inputs: Inputs, truth: Path, predictions: Path, maps: Path, kind: str) -> EvaluationResult:
    """Score predictions with a teacher's maps, which are dense, as the truth."""
    from adubench.evaluators.eval_options import EvalOptions
    from adubench.evaluators.evaluator import evaluate
    from adubench.evaluators.uncertainty_run import UncertaintyRequest

    options = EvalOptions(
        label=f"{inputs.spec.variant} against its teacher (seed {inputs.spec.seed})",
        uncertainty=UncertaintyRequest(maps=maps, kind=kind, family="laplace"),
        allow_empty=True,
        allow_missing=True,
        max_depth=inputs.spec.recipe.data.max_depth,
    )
    (result,) = evaluate(predictions, gt=truth, protocol="full-frame", options=options)
    return result


def _teacher(inputs: Inputs, found: Measured) -> None:
    """Score the teacher once for all runs that share it."""
    from adubench.evaluators.eval_options import EvalOptions
    from adubench.evaluators.result import load_results, save_results

    if inputs.teacher is None or inputs.teacher_folder is None:
        found.absent["teacher"] = found.absent["gap_to_teacher"] = "there is no teacher"
        return
    path = inputs.teacher_folder / "test.json"
    split = inputs.spec.recipe.test.split
    assert split is not None
    if path.exists():
        result = load_results(path)[0]
    else:
        predictions = inputs.teacher_folder / "test-predictions"
        predict_split(
            inputs.teacher, split, inputs.data_root, predictions, kb_crop=_window(inputs), device=inputs.device
        )
        result = _evaluate(inputs, predictions, EvalOptions(label="teacher", allow_empty=True))
        save_results([result], path)
        shutil.rmtree(predictions)
    theirs = finite(result.summary)
    found.numbers |= {f"teacher:{key}": value for key, value in theirs.items()}
    found.numbers |= {
        f"gap_to_teacher:{key}": found.numbers[key] - value for key, value in theirs.items() if key in found.numbers
    }


def _log(inputs: Inputs) -> list[dict[str, Any]]:
    path = inputs.checkpoint.parent / run_folder.LOG  # a teacher's row has its log beside the shared teacher
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _curve(inputs: Inputs, found: Measured) -> None:
    """Read the training curve: how fast validation settles, and what the focal term did on the way."""
    lines = _log(inputs)
    steps = [line for line in lines if line["event"] == "step"]
    scores = _by_epoch(steps, "p_d")
    if scores:
        found.numbers |= {f"curve:p_d_epoch_{epoch}": value for epoch, value in scores.items()}
        found.numbers["curve:p_d_end"] = scores[max(scores)]
    else:
        found.absent["curve:p_d_end"] = "the student has no teacher"
    shares = [float(v) for line in steps if (v := line.get("gradient_share_focal")) is not None]
    if shares:
        found.numbers["curve:focal_gradient_share"] = float(np.mean(shares))
        found.numbers["curve:focal_gradient_share_end"] = shares[-1]
    else:
        found.absent["curve:focal_gradient_share"] = "log.gradient_shares is off, or the student has no teacher"
    metric = inputs.spec.recipe.validate_.metric
    points = {int(line["step"]): line.get(metric) for line in lines if line["event"] == "validation"}
    curve = [(step, float(v)) for step, v in sorted(points.items()) if v is not None]
    if len(curve) > 1:
        found.numbers |= {"curve:first": curve[0][1], "curve:last": curve[-1][1]}
    settled, area = settling(curve)
    if settled is None or area is None:
        found.absent["curve"] = "one validation only: set validate.every"
        return
    found.numbers |= {"curve:steps_to_5_percent": float(settled), "curve:auc": area}


def _by_epoch(lines: Sequence[dict[str, Any]], name: str) -> dict[int, float]:
    """Average a logged value over the steps of each epoch, counted from 1."""
    found: dict[int, list[float]] = {}
    for line in lines:
        if line.get(name) is not None:
            # `epoch` is the share of data seen after the step: 1.0 is the end of the first one.
            found.setdefault(max(1, math.ceil(float(line["epoch"]) - 1e-9)), []).append(float(line[name]))
    return {epoch: float(np.mean(values)) for epoch, values in sorted(found.items())}


def settling(points: Sequence[tuple[int, float]]) -> tuple[int | None, float | None]:
    """Say when a curve of (step, value) settles, and its mean height.

    Returns:
        The first step from which all values lie within 5 % of the last one, and the area under the curve over its
        length; None for fewer than two points.
    """
    if len(points) < 2:
        return None, None
    x, y = (np.array(column, np.float64) for column in zip(*points, strict=True))
    outside = np.flatnonzero(np.abs(y - y[-1]) > CLOSE * abs(y[-1]))
    area = float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum() / (x[-1] - x[0]))
    return int(x[outside[-1] + 1 if len(outside) else 0]), area


def _cost(inputs: Inputs, found: Measured) -> None:
    """Estimate what the networks cost; time and memory of the run itself come from its log."""
    from adubench.training.estimate import estimate

    recipe = inputs.spec.recipe
    student = estimate(recipe, "student")
    found.numbers |= {
        "cost:network": float(student.parameters.get("network", 0)),
        "cost:adapters": float(student.parameters.get("adapters", 0)),
        "cost:gflop": student.step_gflop,
        "cost:memory_gb": student.bytes / 1e9,
    }
    if inputs.teacher is not None:
        teacher = estimate(recipe, "teacher")
        found.numbers["cost:teacher"] = float(teacher.parameters.get("network", 0))
        found.numbers["cost:teacher_gflop"] = teacher.gflop.get("forward", float("nan"))
    else:
        found.absent["cost:teacher"] = found.absent["cost:teacher_gflop"] = "there is no teacher"
    lines = [line for line in _log(inputs) if line["event"] == "step"]
    seconds = [float(line["seconds"]) for line in lines if line.get("seconds") is not None]
    if seconds:
        found.numbers["run:seconds_per_step"] = float(np.median(seconds))
        found.numbers["run:memory_gb"] = max(float(line.get("memory") or 0) for line in lines) / 1e9


def _gap(inputs: Inputs, found: Measured) -> None:
    """Measure the distance of the student's features to the teacher's, before and after adaptation.

    Names are `gap:<metric>_<part>[_<level>]` at the end of training, and `gap@<share>:...` at its milestones.
    """
    from adubench.training.feature_gaps import feature_gaps

    if inputs.teacher is None:
        found.absent["gap"] = "there is no teacher"
        return
    student, recipe = inputs.folder / "student", inputs.spec.recipe
    times = {"gap": (inputs.checkpoint, student / run_folder.ADAPTERS)}
    total = _total_steps(student)
    for share in recipe.checkpoint.milestones if total is not None else ():
        times[f"gap@{share:g}"] = run_folder.milestone_files(student, round(share * (total or 0)))
    for name, (network, adapters) in times.items():
        if not network.exists():
            found.absent[name] = f"the run kept no {network.name}"
            continue
        gaps, reasons = feature_gaps(
            recipe,
            student=network,
            teacher=inputs.teacher,
            adapters=adapters if adapters.exists() else None,
            data_root=inputs.data_root,
            device=inputs.device,
        )
        found.numbers |= {f"{name}:{key}": value for key, value in gaps.items()}
        found.absent |= {f"{name}:{key}": reason for key, reason in reasons.items()}


def _total_steps(stage: Path) -> int | None:
    run = run_folder.read_run(stage)
    return int(run["total"]) if run is not None and "total" in run else None
