"""From a recipe to what a stage needs: networks, optimiser, samples. Whatever can be wrong is found here."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from adubench.datasets.training_frames import TrainingFrames, training_frames
from adubench.datasets.training_packing import packed_frames
from adubench.datasets.transforms import Augmentation
from adubench.errors import CheckpointError, DataError, UsageError
from adubench.models import zoo
from adubench.models.teacher_init import load_compatible
from adubench.recipes.recipe import needs_teacher
from adubench.training.checkpoint import CheckpointInfo, load_network, read_info
from adubench.training.data import TrainingSet, Unreadable
from adubench.training.distributed import derive_seed
from adubench.training.objectives import build_objective, check_teacher, distillation_config, needs_pairs
from adubench.training.self_supervised_build import TripletFrames, disparity_config, find_triplets, start_disparity
from adubench.training.stage import MAP_FILES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from adubench.datasets.stereo_pairs import FrameFiles
    from adubench.models.interface import DepthNetwork
    from adubench.recipes.schema import NetworkSection, Recipe, TrainSection
    from adubench.training.data import Samples
    from adubench.training.objectives import Objective

DATA_ROOT_VARIABLE = "ADUBENCH_DATA_ROOT"


def train_section(recipe: Recipe, stage: str) -> TrainSection:
    """Return the optimisation of a stage."""
    return recipe.teacher_train or recipe.train if stage == "teacher" else recipe.train


def data_root_of(recipe: Recipe, given: Path | None) -> Path | None:
    """Return where the data lies: the option, the recipe, the environment, in this order."""
    named = given or recipe.data.root or os.environ.get(DATA_ROOT_VARIABLE)
    return Path(named) if named else None


def network_config(recipe: Recipe, stage: str) -> dict[str, Any]:
    """Return the zoo's configuration of a stage's network.

    `init: imagenet` becomes `pretrained`; other starts are loaded by `build_network`.
    """
    if recipe.model is not None:
        from adubench.training.tie_kd_build import model_config

        return model_config(recipe)
    if recipe.self_supervision:
        return disparity_config(recipe, stage)
    section: NetworkSection = recipe.teacher if stage == "teacher" else recipe.student
    config: dict[str, Any] = {
        "family": "newcrfs",
        "variant": section.encoder,
        "max_depth": recipe.data.max_depth,
        "window_order": section.window_order,
        "drop_path": section.drop_path,
        "activation_checkpointing": section.activation_checkpointing,
    }
    if recipe.input.mode == "resize":
        config["input_size"] = [recipe.input.height, recipe.input.width]  # its metres belong to images of this size
    if section.init == "imagenet":
        config["pretrained"] = True if section.weights == "hub" else section.weights
    if stage == "teacher":
        config |= {"in_channels": 6, "fusion": recipe.teacher.fusion, "patch_init": recipe.teacher.patch_init}
    elif needs_teacher(recipe):
        settings = distillation_config(recipe)
        uem = settings.uem
        if uem.enabled:
            form = settings.response.laplace_form
            names = {"scaling": uem.scaling, "s_min": uem.s_min, "s_max": uem.s_max, "laplace_form": form}
            config["uncertainty"] = names
    return config


def build_network(recipe: Recipe, stage: str, teacher: DepthNetwork | None = None) -> DepthNetwork:
    """Build the network that a stage trains, with its first weights: a pure function of (recipe, stage, files).

    Raises:
        UsageError: a start that needs a teacher without one.
        CheckpointError: weights that cannot be had, or are another network's.
    """
    section: NetworkSection = recipe.teacher if stage == "teacher" else recipe.student
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(recipe.seed, stage, "weights"))
        network = zoo.build(network_config(recipe, stage))
    if recipe.self_supervision:
        start_disparity(network, recipe, stage, teacher)
        return network
    if recipe.model is not None:
        from adubench.training.tie_kd_build import start_model

        start_model(network, recipe)
        return network
    if section.init.startswith("checkpoint:"):
        path = section.init.removeprefix("checkpoint:")
        start, _ = load_network(path)
        _start_from(network, start, recipe, path)
    elif section.init == "teacher":
        if teacher is None:
            raise UsageError(f"recipe {recipe.name}: student.init=teacher needs a teacher; give --teacher CHECKPOINT.")
        _start_from(network, teacher, recipe, "the teacher")
    return network


def _start_from(network: DepthNetwork, start: DepthNetwork, recipe: Recipe, name: str) -> None:
    if start.config.get("family") != network.config["family"]:
        raise CheckpointError(
            f"{name}: is a {start.config.get('family')} network, expected {network.config['family']}."
        )
    try:
        load_compatible(network, start.state_dict(), patch_init=recipe.teacher.patch_init)
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}") from None


def load_teacher(recipe: Recipe, path: Path) -> tuple[DepthNetwork, CheckpointInfo]:
    """Load a trained teacher and check that the recipe's student can learn from it.

    Raises:
        CheckpointError: not a checkpoint, or not a stereo teacher that fits.
    """
    read_info(path)
    network, info = load_network(path)
    check_teacher(recipe, network, str(path))
    return network, info


def stage_objective(recipe: Recipe, stage: str, teacher: DepthNetwork | None) -> Objective:
    """Build network and adapters of a stage; torch's random numbers are left as they were."""
    network = build_network(recipe, stage, teacher)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(recipe.seed, stage, "adapters"))
        return build_objective(recipe, stage, network, teacher)


def build_optimizer(objective: Objective, train: TrainSection) -> torch.optim.Optimizer:
    """Build Adam or AdamW; one group, or the encoder in a group of its own where it has its own rate or decay.

    Each group keeps its peak rate in `peak_lr`. Adapters and uncertainty head belong to the rest.
    """
    groups: list[dict[str, Any]] = []
    named = [(n, p) for n, p in objective.named_parameters() if p.requires_grad]
    own = train.encoder_lr is not None or train.encoder_weight_decay is not None
    encoder = [p for n, p in named if own and n.startswith("network.encoder.")]
    rest = [p for n, p in named if not (own and n.startswith("network.encoder."))]
    if encoder:
        decay = train.weight_decay if train.encoder_weight_decay is None else train.encoder_weight_decay
        groups.append({"params": encoder, "peak_lr": train.encoder_lr or train.lr, "weight_decay": decay})
    groups.append({"params": rest, "peak_lr": train.lr, "weight_decay": train.weight_decay})
    kind = torch.optim.AdamW if train.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=train.lr, betas=train.betas, eps=train.eps)


@dataclass(frozen=True, slots=True)
class StageData:
    """Samples of a stage.

    Attributes:
        samples: the data set of the loader.
        frames: what was found and what was left out.
        facts: more for the record and the fingerprint, e.g. whose maps teach.
        remarks: more sentences a user should read.
    """

    samples: Samples
    frames: TrainingFrames
    facts: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def split(self) -> str:
        """Name of the list."""
        return self.frames.split

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences a user should read."""
        return (*self.frames.dropped.sentences(), *self.remarks)

    def fingerprint(self) -> dict[str, Any]:
        """Say for the record what is trained on."""
        facts = (self.frames.split, self.frames.sha256, self.frames.stereo, self.frames.ground_truth)
        named = [str(self.facts[key]) for key in sorted(self.facts) if key != MAP_FILES]  # compared on their own
        return {
            "split": facts[0],
            "count": len(self.samples),
            "frames": facts[1],
            "stereo": facts[2],
            "ground_truth": facts[3],
            "fingerprint": f"{derive_seed(*facts, *named):016x}",
            **self.facts,
        }


AnyData = StageData | TripletFrames
"""Samples of a stage of any method."""


def open_data(recipe: Recipe, stage: str, data_root: Path | None) -> AnyData:
    """Find every sample of a stage, and read one of each drive.

    Raises:
        UsageError: no data root.
        DataError: nothing to train on, missing right images, or an image that cannot be read.
    """
    if recipe.self_supervision:
        return find_triplets(recipe, data_root_of(recipe, data_root))
    stereo = needs_pairs(recipe, stage)
    frames = find_frames(recipe, data_root_of(recipe, data_root), stereo=stereo)
    data = _stage_data(recipe, frames, data_root_of(recipe, data_root), stereo)
    first = data.samples[0, 0]  # a wrong size, a wrong scale, an unreadable first file
    if isinstance(first, Unreadable):
        raise DataError(first.message)
    return data


def find_frames(recipe: Recipe, data_root: Path | None, *, stereo: bool) -> TrainingFrames:
    """Find the frames of a supervised stage, in the recipe's pack or among loose files.

    Raises:
        UsageError: no data root.
        DataError: nothing to train on, or a broken pack.
    """
    data = recipe.data
    if data.pack is not None:
        return packed_frames(
            data.pack, split=data.train, stereo=stereo, flip_rule=recipe.stereo.flip, use_window=data.kb_crop
        )
    return training_frames(
        data.train,
        data_root,
        gt_root=data.gt_root,
        stereo=stereo,
        flip_rule=recipe.stereo.flip,
        gt_kind=data.ground_truth,
        right_root=data.right_root,
    )


def _stage_data(recipe: Recipe, frames: TrainingFrames, data_root: Path | None, stereo: bool) -> StageData:
    """Make the samples that a method reads."""
    if recipe.model is None:
        files = cast("Sequence[FrameFiles]", frames.frames)
        return StageData(TrainingSet(files, augmentation(recipe, stereo=stereo), recipe.seed), frames)
    from adubench.training.tie_kd_build import student_samples, truth_samples

    if recipe.method in ("adabins", "bts"):
        samples, remarks = truth_samples(recipe, frames, data_root)
        return StageData(samples, frames, remarks=remarks)
    students, facts = student_samples(recipe, frames, data_root)
    return StageData(students, frames, facts)


def augmentation(recipe: Recipe, *, stereo: bool) -> Augmentation:
    """Return how a recipe's samples are made."""
    augment, size = recipe.augment, recipe.input
    return Augmentation(
        size=(size.height, size.width),
        mode=size.mode,
        kb_crop=recipe.data.kb_crop,
        degrees=0.0 if stereo and recipe.stereo.rotate == "none" else augment.rotate,
        flip=augment.flip,
        photometric=augment.photometric,
        gamma=augment.gamma,
        brightness=augment.brightness,
        colour=augment.color,
        geometry=size.geometry,
    )
