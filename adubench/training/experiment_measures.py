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

from adubench.errors import AdubenchError, UsageError
from adubench.training import run_folder

if TYPE_CHECKING:
    from adubench.evaluators.eval_options import EvalOptions
    from adubench.evaluators.result import EvaluationResult
    from adubench.recipes.experiments import Experiment, RunSpec, TestSet

CLOSE = 0.05
_KB_FORM = "npy"
_UNCERTAINTY = {
    "nll": "nll_laplace", "ece19": "ece19_laplace", "ence": "ence", "tau": "tau",
    "spearman": "spearman", "ause": "ause_rmse",
}  # fmt: skip


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
    """

    spec: RunSpec
    checkpoint: Path
    teacher: Path | None
    folder: Path
    teacher_folder: Path | None
    data_root: Path | None
    test_roots: dict[str, Path]
    device: str


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
    calibrated = "calibration" in wanted and inputs.spec.recipe.distill.uem.enabled and inputs.spec.role == "student"
    result = _score(inputs, found, regions="regions" in wanted, uncertainty=calibrated)
    if calibrated:
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
            _transfer(inputs, test_set, scale, found)
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
) -> str | None:
    """Write the predictions of a split's images as npy; returns the kind of its uncertainty.

    Raises:
        DataError: images are missing or cannot be read.
    """
    from adubench.training.prediction_inputs import list_split
    from adubench.training.prediction_run import OutputOptions, predict_images
    from adubench.training.predictor import PredictOptions, open_predictor

    predictor = open_predictor(checkpoint, PredictOptions(device=device, kb_crop=kb_crop))
    jobs = list_split(split, root, stereo=predictor.stereo)
    shutil.rmtree(output, ignore_errors=True)
    predict_images(predictor, jobs, OutputOptions(root=output, form=_KB_FORM, uncertainty=uncertainty))
    return predictor.uncertainty_kind


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
    kind = predict_split(
        inputs.checkpoint, recipe.test.split, inputs.data_root, predictions,
        kb_crop=_window(inputs), device=inputs.device, uncertainty=uncertainty,
    )  # fmt: skip
    request = None
    if uncertainty and kind is not None:
        request = UncertaintyRequest(maps=_maps_of(predictions), kind=kind, family="laplace")
    options = EvalOptions(
        label=f"{inputs.spec.variant} (seed {inputs.spec.seed})",
        regions=RegionRequest(families="depth,edge") if regions else None,
        uncertainty=request,
        allow_empty=True,
    )
    result = _evaluate(inputs, predictions, options)
    _keep(inputs, found, "test", result)
    found.numbers |= _finite(result.summary)
    for name, values in result.regions.items():
        found.numbers |= {f"region:{name}:{key}": v for key, v in _finite(values).items()}
    if regions and not result.regions:
        found.absent["region"] = "the result has no regions"
    return result


def _window(inputs: Inputs) -> bool:
    return inputs.spec.recipe.data.kb_crop


def _maps_of(predictions: Path) -> Path:
    return predictions.with_name(f"{predictions.name}_uncertainty")


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


def _finite(values: dict[str, Any]) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }


def _calibration(inputs: Inputs, result: EvaluationResult, found: Measured) -> None:
    """Take the scores of the uncertainty against ground truth, and measure them against the teacher."""
    from adubench.evaluators.eval_options import EvalOptions
    from adubench.evaluators.evaluator import evaluate
    from adubench.evaluators.uncertainty_run import UncertaintyRequest

    found.numbers |= _uncertainty_scores(result, "unc")
    found.absent["unc:ece19_after"] = "needs a fit on half of the images, which the evaluation does not make"
    if inputs.teacher is None or inputs.teacher_folder is None:
        found.absent["unc_teacher"] = "there is no teacher"
        return
    truth = inputs.teacher_folder / "test-predictions"
    recipe = inputs.spec.recipe
    assert recipe.test.split is not None
    if not (truth / "adubench.json").exists() and not any(truth.rglob("*.npy")):
        predict_split(
            inputs.teacher, recipe.test.split, inputs.data_root, truth, kb_crop=_window(inputs), device=inputs.device
        )
    predictions = inputs.folder / "predictions"
    kind = result.uncertainty["kind"]
    options = EvalOptions(
        label=f"{inputs.spec.variant} against its teacher (seed {inputs.spec.seed})",
        uncertainty=UncertaintyRequest(maps=_maps_of(predictions), kind=str(kind), family="laplace"),
        allow_empty=True,
        max_depth=recipe.data.max_depth,
    )
    (against,) = evaluate(predictions, gt=truth, protocol="full-frame", options=options)
    _keep(inputs, found, "against-teacher", against)
    found.numbers |= _uncertainty_scores(against, "unc_teacher")


def _uncertainty_scores(result: EvaluationResult, prefix: str) -> dict[str, float]:
    values = _finite(result.uncertainty)
    named = {f"{prefix}:{name}": values[key] for name, key in _UNCERTAINTY.items() if key in values}
    return named | {f"{prefix}:{key}": value for key, value in values.items()}


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
    theirs = _finite(result.summary)
    found.numbers |= {f"teacher:{key}": value for key, value in theirs.items()}
    found.numbers |= {
        f"gap_to_teacher:{key}": found.numbers[key] - value for key, value in theirs.items() if key in found.numbers
    }


def _log(inputs: Inputs) -> list[dict[str, Any]]:
    path = inputs.folder / "student" / run_folder.LOG
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _curve(inputs: Inputs, found: Measured) -> None:
    """Read the training curve: how fast validation settles, and what the focal score was at the end."""
    lines = _log(inputs)
    metric = inputs.spec.recipe.validate_.metric
    points = [(int(line["step"]), line.get(metric)) for line in lines if line["event"] == "validation"]
    values = [(step, float(v)) for step, v in points if v is not None]
    steps = [line for line in lines if line["event"] == "step" and line.get("p_d") is not None]
    if steps:
        last = [float(line["p_d"]) for line in steps[-max(1, len(steps) // 10) :]]
        found.numbers["curve:p_d_end"] = float(np.mean(last))
    else:
        found.absent["curve:p_d_end"] = "the student has no teacher"
    found.absent["curve:focal_gradient_share"] = "gradients of single terms are not logged while training"
    if len(values) < 2:
        found.absent["curve"] = "one validation only: set validate.every"
        return
    end = values[-1][1]
    within = [
        step for i, (step, _) in enumerate(values) if all(abs(v - end) <= CLOSE * abs(end) for _, v in values[i:])
    ]
    found.numbers["curve:steps_to_5_percent"] = float(within[0])
    x = np.array([step for step, _ in values], dtype=np.float64)
    y = np.array([value for _, value in values], dtype=np.float64)
    area = float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum())
    found.numbers["curve:auc"] = area / float(x[-1] - x[0])


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
    """Measure the distance of the student's features to the teacher's, before and after adaptation."""
    from adubench.training.feature_gaps import feature_gaps

    adapters = inputs.folder / "student" / run_folder.ADAPTERS
    if inputs.teacher is None:
        found.absent["gap"] = "there is no teacher"
        return
    gaps, reasons = feature_gaps(
        inputs.spec.recipe,
        student=inputs.checkpoint,
        teacher=inputs.teacher,
        adapters=adapters if adapters.exists() else None,
        data_root=inputs.data_root,
        device=inputs.device,
    )
    found.numbers |= {f"gap:{key}": value for key, value in gaps.items()}
    found.absent |= {f"gap:{key}": reason for key, reason in reasons.items()}


def _transfer(inputs: Inputs, test_set: TestSet, scale: str, found: Measured) -> None:
    """Score the run on another data set: as it is, with depth scaled by focal lengths, and with median scaling."""
    from adubench.evaluators.eval_options import EvalOptions
    from adubench.evaluators.evaluator import evaluate

    prefix = f"transfer:{test_set.name}"
    if test_set.scales is not None and scale not in test_set.scales:
        found.absent[prefix] = "SynthDrive has no second world to transfer to"
        return
    data_set = test_set.split.split(".", maxsplit=1)[0]
    root = inputs.test_roots.get(test_set.name) or inputs.test_roots.get(data_set)
    if root is None:
        found.absent[prefix] = f"no --test-root {data_set}=DIR was given"
        return
    predictions = inputs.folder / "predictions-transfer"
    try:
        predict_split(inputs.checkpoint, test_set.split, root, predictions, kb_crop=False, device=inputs.device)
        scalings = {"none": EvalOptions(allow_empty=True), "median": EvalOptions(allow_empty=True, alignment="median")}
        if test_set.focal is not None and test_set.train_focal is not None:
            factor = test_set.focal / test_set.train_focal
            # Kept last: it changes the files.
            scalings["focal"] = EvalOptions(allow_empty=True)
        for scaling, options in scalings.items():
            if scaling == "focal":
                _scale_maps(predictions, factor)
            (result,) = evaluate(
                predictions, split=test_set.split, protocol=test_set.protocol, data_root=root, options=options
            )
            _keep(inputs, found, f"{test_set.name}-{scaling}", result)
            _add_transfer(found, f"{prefix}:{scaling}", _finite(result.summary))
    except AdubenchError as error:
        found.absent[prefix] = str(error)
    finally:
        shutil.rmtree(predictions, ignore_errors=True)


def _add_transfer(found: Measured, prefix: str, scores: dict[str, float]) -> None:
    found.numbers |= {f"{prefix}:{key}": value for key, value in scores.items()}
    here, there = found.numbers.get("abs_rel"), scores.get("abs_rel")
    if here and there is not None:
        found.numbers[f"{prefix}:drop"] = (there - here) / here


def _scale_maps(folder: Path, factor: float) -> None:
    for path in folder.rglob("*.npy"):
        np.save(path, (np.load(path) * factor).astype(np.float32))
