"""Scores of a run on further data sets: as predicted, with depth scaled by focal lengths, and with median scaling.

A network trained in metres ties depth to the focal length in pixels of its images. The factor is the focal length of
the images that the network sees now over that of its training images, both in pixels of what the network sees: half
resolution halves it, and so does training on images resized to half their width.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adubench.errors import AdubenchError
from adubench.training import run_folder
from adubench.training.experiment_calibration import finite, scaled, uncertainty_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adubench.evaluators.result import EvaluationResult
    from adubench.recipes.experiments import TestSet
    from adubench.training.experiment_measures import Inputs, Measured
    from adubench.training.prediction_inputs import ImageJob

SYNTHETIC_SCALES = ("synth", "smoke")
_DRIVES, _FRAMES, _SIZE, _SEED = 2, 11, (96, 320), 7


def transfer(inputs: Inputs, test_set: TestSet, scale: str, found: Measured) -> None:
    """Score a run on another data set and add `transfer:SET:SCALING:METRIC`; reasons where that is not possible.

    Scalings are `none`, `median` and `focal`. With uncertainty `ece19`, `tau` and the other scores of it are added,
    `drop` is the increase of abs_rel over the run's own test set in percent.
    """
    from adubench.training.experiment_measures import predict_split

    prefix = f"transfer:{test_set.name}"
    if test_set.scales is not None and scale not in test_set.scales:
        found.absent[prefix] = f"scored at scale {' or '.join(test_set.scales)} only"
        return
    root = _root(inputs, test_set, scale)
    if root is None:
        data_set = test_set.split.split(".", maxsplit=1)[0]
        found.absent[prefix] = f"no --test-root {data_set}=DIR was given"
        return
    predictions = inputs.folder / "predictions-transfer"
    try:
        kind, jobs = predict_split(
            inputs.checkpoint, test_set.split, root, predictions, kb_crop=False, device=inputs.device, uncertainty=True
        )
        for scaling in ("none", "median", "focal"):
            if scaling == "focal" and not _to_focal(inputs, test_set, jobs, predictions, kind, found):
                found.absent[f"{prefix}:focal"] = "the focal lengths of the two data sets are not known"
                continue
            result = _score(test_set, root, predictions, kind, scaling)
            name = f"{test_set.name}-{scaling}"
            _keep(inputs, found, name, result)
            _add(found, f"{prefix}:{scaling}", result)
    except AdubenchError as error:
        found.absent[prefix] = str(error)
    finally:
        for folder in (predictions, maps_of(predictions)):
            shutil.rmtree(folder, ignore_errors=True)


def maps_of(predictions: Path) -> Path:
    """Folder of the uncertainty maps of a folder of predictions."""
    return predictions.with_name(f"{predictions.name}_uncertainty")


def _root(inputs: Inputs, test_set: TestSet, scale: str) -> Path | None:
    data_set = test_set.split.split(".", maxsplit=1)[0]
    given = inputs.test_roots.get(test_set.name) or inputs.test_roots.get(data_set)
    if given is None and scale in SYNTHETIC_SCALES and data_set == "drivingstereo" and inputs.shared is not None:
        return synthetic_set(inputs.shared / "test-sets" / "drivingstereo")
    return given


def _score(test_set: TestSet, root: Path, predictions: Path, kind: str | None, scaling: str) -> EvaluationResult:
    from adubench.evaluators.eval_options import EvalOptions
    from adubench.evaluators.evaluator import evaluate
    from adubench.evaluators.uncertainty_run import UncertaintyRequest

    request = UncertaintyRequest(maps=maps_of(predictions), kind=kind, family="laplace") if kind is not None else None
    options = EvalOptions(
        allow_empty=True, alignment="median" if scaling == "median" else None, uncertainty=request,
        label=f"{test_set.name}, scaling {scaling}",
    )  # fmt: skip
    (result,) = evaluate(
        predictions, split=test_set.split, protocol=test_set.protocol, data_root=root, options=options
    )  # fmt: skip
    return result


def _keep(inputs: Inputs, found: Measured, name: str, result: EvaluationResult) -> None:
    from adubench.evaluators.result import save_results

    save_results([result], inputs.folder / f"{name}.json")
    found.results[name] = f"{name}.json"


def _add(found: Measured, prefix: str, result: EvaluationResult) -> None:
    scores = finite(result.summary)
    found.numbers |= uncertainty_scores(result, prefix) if result.uncertainty else {}
    found.numbers |= {f"{prefix}:{key}": value for key, value in scores.items()}
    here, there = found.numbers.get("abs_rel"), scores.get("abs_rel")
    if here and there is not None:
        found.numbers[f"{prefix}:drop"] = 100 * (there - here) / here


def _to_focal(
    inputs: Inputs, test_set: TestSet, jobs: Sequence[ImageJob], predictions: Path, kind: str | None, found: Measured
) -> bool:
    """Scale predictions and uncertainty in place, image by image; False where a focal length is not known."""
    trained = train_focal(inputs, test_set)
    focals = [job.focal or test_set.focal for job in jobs]
    if trained is None or any(focal is None for focal in focals):
        return False
    factors = []
    for job, focal in zip(jobs, focals, strict=True):
        assert focal is not None
        factors.append(focal / trained)
        path = predictions / f"{job.name}.npy"
        if not path.exists():
            continue
        np.save(path, (np.load(path) * factors[-1]).astype(np.float32))
        if kind is not None:
            path = maps_of(predictions) / f"{job.name}.npy"
            np.save(path, scaled(np.load(path), kind, factors[-1]))
    found.numbers[f"transfer:{test_set.name}:focal_factor"] = float(np.mean(factors))
    return True


def train_focal(inputs: Inputs, test_set: TestSet) -> float | None:
    """Return the focal length in pixels of the images that the network was trained on.

    It is that of the run's own test set (the same cameras) where its calibration is there, else the experiment's.
    """
    from adubench.io.images import image_size
    from adubench.training.prediction_inputs import list_split

    recipe = inputs.spec.recipe
    assert recipe.test.split is not None
    job = list_split(recipe.test.split, inputs.data_root, stereo=False)[0]
    focal = job.focal or test_set.train_focal
    if focal is None or recipe.input.mode == "crop":
        return focal
    return focal * recipe.input.width / image_size(job.image)[1]


def synthetic_set(root: Path) -> Path:
    """Write a small SynthDrive in DrivingStereo's layout, with four copies that stand for its weather sets.

    The copies are the same frames with other brightness and contrast: enough for every line of code to run, no weather.
    """
    from adubench.datasets.synthdrive.writer import write_dataset

    with run_folder.waiting_lock(root.with_suffix(".lock")):
        if not (root / "rainy").is_dir():
            write_dataset(root, drives=_DRIVES, frames=_FRAMES, size=_SIZE, seed=_SEED, layout="drivingstereo")
            for name, (gain, offset) in _WEATHER.items():
                _copy_as(root, name, gain, offset)
    return root


_WEATHER = {"sunny": (1.2, 10.0), "cloudy": (0.7, 20.0), "foggy": (0.4, 130.0), "rainy": (0.5, 30.0)}


def _copy_as(root: Path, name: str, gain: float, offset: float) -> None:
    from PIL import Image

    hidden = root / f".{name}"
    shutil.rmtree(hidden, ignore_errors=True)
    for kind in ("left-image", "depth-map"):
        target = hidden / f"{kind}-half-size"
        target.mkdir(parents=True)
        for path in sorted((root / f"test-{kind}").rglob("*.*")):
            if kind == "depth-map":
                shutil.copyfile(path, target / path.name)
                continue
            with Image.open(path) as image:
                changed: Any = np.clip(np.asarray(image, np.float32) * gain + offset, 0, 255).astype(np.uint8)
            Image.fromarray(changed).save(target / path.name, quality=95)
    hidden.rename(root / name)
