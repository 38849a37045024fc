"""Validation while training: the evaluator itself, under the recipe's protocol, on the weights of the moment."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adubench.errors import DataError, UsageError
from adubench.evaluators.eval_options import EvalOptions
from adubench.evaluators.evaluator import evaluate
from adubench.evaluators.metrics import METRICS
from adubench.evaluators.protocols import get_protocol
from adubench.training.network_predictor import NetworkPredictor
from adubench.training.prediction_inputs import ImageJob, frame_jobs, image_places, load_batches
from adubench.training.prediction_run import predict_loaded
from adubench.training.predictor import PredictOptions, depth_of

if TYPE_CHECKING:
    from adubench.datasets.frames import FrameKey
    from adubench.models.interface import DepthNetwork
    from adubench.recipes.schema import Recipe


@dataclass(frozen=True, slots=True)
class Validator:
    """Everything that does not change between two validations; made before the first step.

    Attributes:
        recipe: with section `validate`.
        split: name of the split.
        protocol: name of the protocol.
        data_root: where the data lies.
        jobs: the images.
    """

    recipe: Recipe
    split: str
    protocol: str
    data_root: Path
    jobs: tuple[ImageJob, ...]

    def better(self, value: float, than: float | None) -> bool:
        """Whether a value of the recipe's metric is strictly better than another."""
        if than is None or value != value:
            return value == value
        return value > than if METRICS[self.recipe.validate_.metric].higher_is_better else value < than

    def run(self, network: DepthNetwork) -> dict[str, float]:
        """Predict the frames and score them.

        Returns:
            metric -> value, as `adubench eval` prints them.

        Raises:
            DataError: an image or its ground truth cannot be read.
        """
        predictor = NetworkPredictor(network, PredictOptions(flip=self._flip(network)))
        with tempfile.TemporaryDirectory(prefix="adubench-validation-") as folder:
            for batch in load_batches(self.jobs, predictor.batch_size):
                for loaded in batch:
                    if loaded.error:
                        raise DataError(f"validation: {loaded.error}")
                for loaded, prediction in zip(batch, predict_loaded(predictor, batch), strict=True):
                    assert loaded.image is not None
                    size = (int(loaded.image.shape[0]), int(loaded.image.shape[1]))
                    path = Path(folder) / f"{loaded.job.name}.npy"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    np.save(path, depth_of(prediction, size).values)
            options = EvalOptions(allow_missing=True, allow_empty=True)
            (result,) = evaluate(
                folder, split=self.split, protocol=self.protocol, data_root=self.data_root, options=options
            )
        return {name: float(value) for name, value in result.summary.items()}

    def _flip(self, network: DepthNetwork) -> bool | None:
        return None if network.input_rule.channels == 6 else self.recipe.validate_.flip


def open_validation(recipe: Recipe, stage: str, data_root: Path | None) -> Validator | None:
    """Find the frames that will be validated; None if the recipe validates nothing.

    Raises:
        UsageError: unknown split, protocol or metric, or no data root.
        DataError: an empty split, no ground truth, or missing images.
    """
    from adubench.datasets.ground_truth import open_ground_truth
    from adubench.datasets.splits import load_split

    section = recipe.validate_
    if section.split is None:
        return None
    if data_root is None:
        raise UsageError(f"validation on '{section.split}' needs its images: give --data-root DIR.")
    split = load_split(section.split, data_root)
    protocol = get_protocol(section.protocol or split.default_protocol or "full-frame")
    if section.metric not in METRICS:
        from adubench.errors import unknown_name

        raise unknown_name("metric (validate.metric)", section.metric, METRICS, hint="See adubench list metrics.")
    truth = open_ground_truth(split, None, data_root, protocol.ground_truth)
    frames = evenly(truth.frames, section.frames)
    if not frames:
        raise DataError(
            f"validation split '{split.name}' has no frame with ground truth below {data_root}; choose another "
            "validate.split, or null for none."
        )
    jobs = frame_jobs(frames, image_places(split, data_root), stereo=stage == "teacher")
    return Validator(recipe, section.split, protocol.name, data_root, tuple(jobs))


def evenly(items: tuple[FrameKey, ...], count: int | None) -> tuple[FrameKey, ...]:
    """Choose `count` items, evenly spread; all of them for None or where there are fewer."""
    if count is None or count >= len(items):
        return items
    return tuple(items[i * len(items) // count] for i in range(count))
