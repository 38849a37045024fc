"""Validation while training: the evaluator itself, under the recipe's protocol, on the weights of the moment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adubench.errors import DataError, UsageError, unknown_name
from adubench.evaluators.crops import fits_window
from adubench.evaluators.eval_options import EvalOptions
from adubench.evaluators.evaluator import evaluate
from adubench.evaluators.metrics import METRICS
from adubench.evaluators.protocols import get_protocol
from adubench.io.images import image_size
from adubench.training.live_predictions import LiveMaps
from adubench.training.network_predictor import NetworkPredictor
from adubench.training.prediction_inputs import ImageJob, frame_jobs, image_places
from adubench.training.predictor import PredictOptions, evaluator_kind

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        window: predict the 352x1216 window of each image, as the network was trained.
    """

    recipe: Recipe
    split: str
    protocol: str
    data_root: Path
    jobs: tuple[ImageJob, ...]
    window: bool = False

    def better(self, value: float, than: float | None) -> bool:
        """Whether a value of the recipe's metric is strictly better than another; no number never is."""
        if than is None or value != value:
            return value == value
        return value > than if METRICS[self.recipe.validate_.metric].higher_is_better else value < than

    def run(self, network: DepthNetwork) -> dict[str, float]:
        """Predict the frames and score them; one process alone.

        Returns:
            metric -> value, as `adubench eval` prints them.

        Raises:
            DataError: an image or its ground truth cannot be read.
        """
        flip = None if network.input_rule.channels == 6 else self.recipe.validate_.flip
        predictor = NetworkPredictor(network, PredictOptions(flip=flip, kb_crop=self.window), label="validation")
        kind, _ = evaluator_kind(predictor)
        (result,) = evaluate(
            _Chosen(predictor, self.jobs),
            split=self.split,
            gt=self.recipe.data.gt_root,
            protocol=self.protocol,
            data_root=self.data_root,
            options=EvalOptions(kind=kind, allow_missing=True, allow_empty=True),
        )
        return {name: float(value) for name, value in result.summary.items()}


class _Chosen:
    """The chosen frames as a source of predictions (`evaluators.run.LiveSource`)."""

    path: str | Path = "validation"

    def __init__(self, predictor: NetworkPredictor, jobs: tuple[ImageJob, ...]) -> None:
        self._predictor, self._jobs = predictor, jobs

    def open_for(self, split: Any, readers: Sequence[Any], data_root: Path | None, gt: Path | None) -> LiveMaps:
        return LiveMaps(self._predictor, self._jobs, Path(self.path))

    def facts(self) -> dict[str, Any]:
        return self._predictor.describe()

    def notes(self) -> tuple[str, ...]:
        return ()


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
        raise unknown_name("metric (validate.metric)", section.metric, METRICS, hint="See adubench list metrics.")
    if section.metric not in protocol.metrics:
        raise unknown_name(f"metric (validate.metric) of protocol {protocol.name}", section.metric, protocol.metrics)
    truth = open_ground_truth(split, recipe.data.gt_root, data_root, protocol.ground_truth)
    frames = evenly(truth.frames, section.frames)
    if not frames:
        raise DataError(
            f"validation split '{split.name}' has no frame with ground truth below {data_root}; choose another "
            "validate.split, or null for none."
        )
    pairs = stage == "teacher" and not recipe.self_supervision
    jobs = frame_jobs(frames, image_places(split, data_root), stereo=pairs)
    window = recipe.data.kb_crop and not recipe.self_supervision and fits_window(image_size(jobs[0].image))
    return Validator(recipe, section.split, protocol.name, data_root, tuple(jobs), window)


def evenly(items: tuple[FrameKey, ...], count: int | None) -> tuple[FrameKey, ...]:
    """Choose `count` items, evenly spread; all of them for None or where there are fewer."""
    if count is None or count >= len(items):
        return items
    return tuple(items[i * len(items) // count] for i in range(count))
