"""From a recipe of TIE-KD, its baselines and its teachers to network, samples and objective."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from adubench.datasets.nyu import NyuWindow
from adubench.datasets.teacher_map_checks import check_map_files
from adubench.datasets.teacher_maps import Expected, check_record, frames_sha256, open_teacher_maps, release_record
from adubench.datasets.tie_kd_transforms import TieKDAugmentation
from adubench.datasets.training_focal import focal_lengths
from adubench.datasets.training_frames import TrainingFrame
from adubench.distillation.tie_kd import TieKDConfig, preset
from adubench.errors import AdubenchError, CheckpointError, UsageError
from adubench.io.images import image_size
from adubench.recipes.tie_kd_sections import MAP_METHODS
from adubench.training.checkpoint import load_network
from adubench.training.stage import MAP_FILES
from adubench.training.teacher_map_data import TeacherMapSet
from adubench.training.tie_kd_objectives import AdaBinsTraining, BTSTraining, ResponseKD, SparseSI, TieKD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adubench.datasets.frames import FrameKey
    from adubench.datasets.stereo_pairs import FrameFiles
    from adubench.datasets.teacher_maps import TeacherMaps
    from adubench.datasets.training_frames import TrainingFrames
    from adubench.models.interface import DepthNetwork
    from adubench.recipes.schema import Recipe
    from adubench.training.objectives import Objective

ROTATE_PROBABILITY = 0.5
# Classifier layers of weight files, which no encoder here has.
_CLASSIFIER = ("fc.", "classifier.", "head.")


def model_config(recipe: Recipe) -> dict[str, Any]:
    """Return the zoo's configuration of section `model`."""
    model = recipe.model
    assert model is not None
    config = {"family": model.family, "max_depth": recipe.data.max_depth, **model.keys}
    if recipe.method in ("response-kd", "sparse-si"):
        config.setdefault("head", "regression")
    if model.init == "imagenet" and model.weights == "hub":
        config["pretrained"] = True
    return config


def start_model(network: DepthNetwork, recipe: Recipe) -> None:
    """Load what `model.init` and `model.weights` name, where timm has not done so.

    Raises:
        CheckpointError: another network's weights, or incomplete ones.
    """
    model = recipe.model
    assert model is not None
    if model.init.startswith("checkpoint:"):
        path = model.init.removeprefix("checkpoint:")
        start, _ = load_network(path)
        try:
            network.load_state_dict(start.state_dict())
        except RuntimeError:
            theirs, ours = (_named(n.config) for n in (start, network))
            raise CheckpointError(f"model.init: {path} holds {theirs}, the recipe trains {ours}.") from None
    elif model.init == "imagenet" and model.weights != "hub":
        _load_encoder(network, Path(model.weights))


def _named(config: dict[str, Any]) -> str:
    parts = [str(config[key]) for key in ("family", "encoder", "layout", "head", "n_bins") if key in config]
    return " ".join(parts)


def _load_encoder(network: DepthNetwork, path: Path) -> None:
    """Load an encoder's weights, in the names of timm (which are torchvision's for ResNets), from a local file."""
    from adubench.models.weights.safe_load import load_foreign, tensors_of

    encoder: Any = network.encoder
    encoder = getattr(encoder, "original_model", getattr(encoder, "base_model", encoder))
    state = {key.removeprefix("features."): value for key, value in tensors_of(load_foreign(path), path).items()}
    own = encoder.state_dict()
    missing = [k for k, v in own.items() if not k.endswith("num_batches_tracked") and _shape(state, k) != v.shape]
    if missing:
        raise CheckpointError(
            f"model.weights: {path} does not hold the encoder of {_named(network.config)}: {len(missing)} of "
            f"{len(own)} tensors are missing or of another shape (first {missing[0]})."
        )
    encoder.load_state_dict({key: state.get(key, value) for key, value in own.items()})


def _shape(state: dict[str, Any], key: str) -> Any:
    return state[key].shape if key in state else None


def tie_kd_config(recipe: Recipe) -> TieKDConfig:
    """Return the settings of TIE-KD's loss: the preset with the recipe's changes."""
    section = recipe.tie_kd
    changes = section.model_dump(include={"alpha", "sigma", "factor", "ignore_top_rows"}, exclude_none=True)
    return preset(
        section.preset, dataset=section.dataset, form=section.form, rows_at_once=section.rows_at_once, **changes
    )


def build_model_objective(recipe: Recipe, network: DepthNetwork) -> Objective:
    """Build what a step computes, for the methods with a network of section `model`."""
    response = recipe.response_kd
    if recipe.method == "tie-kd":
        return TieKD(network, tie_kd_config(recipe))
    if recipe.method == "response-kd":
        return ResponseKD(network, response.loss, weight=response.weight, warm_up=response.warmup_steps)
    if recipe.method == "sparse-si":
        return SparseSI(network, warm_up=response.warmup_steps)
    if recipe.method == "adabins":
        adabins: Any = network
        # The norm behind the last tap is in the weight file and computes nothing: several processes would wait for it.
        adabins.encoder.original_model.bn2.requires_grad_(False)
        return AdaBinsTraining(adabins)
    return BTSTraining(cast("Any", network), min_gt=recipe.data.min_gt)


def tie_kd_augmentation(recipe: Recipe) -> TieKDAugmentation:
    """Return how the samples of students are made."""
    augment = recipe.augment
    return TieKDAugmentation(
        size=(recipe.input.height, recipe.input.width),
        window="nyu" if recipe.data.nyu_crop else "kb" if recipe.data.kb_crop else "none",
        rotate=ROTATE_PROBABILITY,
        degrees=augment.rotate,
        flip=augment.flip,
        colour=augment.photometric,
        gamma=augment.gamma,
        brightness=augment.brightness,
        gain=augment.color,
        rotate_teacher=tie_kd_config(recipe).rotate_teacher,
    )


def student_samples(
    recipe: Recipe, frames: TrainingFrames, data_root: Path | None
) -> tuple[TeacherMapSet, dict[str, Any]]:
    """Make the samples of a student, and say for the record whose maps it learns from.

    Raises:
        UsageError: no maps given.
        DataError: maps that are missing, damaged, or of another size, scale, split or teacher.
    """
    files = cast("Sequence[FrameFiles]", frames.frames)
    settings = tie_kd_augmentation(recipe)
    if recipe.method not in MAP_METHODS:
        return TeacherMapSet(files, None, {}, settings, recipe.seed), {}
    maps = find_teacher_maps(recipe, frames, data_root)
    stems = maps.check_complete({frame.name: _aliases(frame.key) for frame in frames.frames})
    paths = {frame.name: frame.image_path for frame in frames.frames if isinstance(frame, TrainingFrame)}
    files_of = check_map_files(
        maps, stems, settings.window, lambda name: image_size(paths[name]) if name in paths else None
    )
    record = asdict(maps.record)
    facts = {key: record[key] for key in ("teacher", "weights_sha256", "max_depth", "flip", "split")}
    return TeacherMapSet(files, maps, stems, settings, recipe.seed), {"teacher_maps": facts, MAP_FILES: files_of}


def _aliases(key: FrameKey) -> tuple[str, ...]:
    """Names under which a frame's map may be stored; the release's NYU maps begin with `data_nyu_`."""
    names = key.aliases()
    return names if key.camera else (*names, *(f"data/nyu/{name}" for name in names))


def find_teacher_maps(recipe: Recipe, frames: TrainingFrames, data_root: Path | None) -> TeacherMaps:
    """Open the maps of a recipe and check that they are what it needs.

    Raises:
        UsageError: no maps given.
        DataError: see `open_teacher_maps`.
    """
    section = recipe.teacher_maps
    if section.path is None:
        raise UsageError(
            f"recipe {recipe.name}: learns from a teacher's stored maps; write them with adubench predict TEACHER "
            f"--layout tie-kd --split {recipe.data.train} -o MAPS, and give --teacher-maps MAPS."
        )
    expected = Expected(
        max_depth=recipe.data.max_depth,
        split_sha256=None if section.any_list else frames_sha256(frames.names),
        crop="kb" if recipe.data.kb_crop else "none",
        weights_sha256=section.weights_sha256,
    )
    assume = replace(release_record(recipe.data.max_depth), crop=str(expected.crop)) if section.release else None
    maps = open_teacher_maps(section.path, replace(expected, split_sha256=None), assume=assume)
    # Frames that are left out for want of ground truth were predicted all the same: the whole list is the same split.
    if maps.record.split_sha256 != _whole_list(recipe, data_root):
        check_record(maps.record, expected, str(maps.root))
    return maps


def _whole_list(recipe: Recipe, data_root: Path | None) -> str:
    """Hash the whole training list, "-" where it cannot be listed."""
    from adubench.datasets.splits import load_split

    try:
        return frames_sha256(frame.name for frame in load_split(recipe.data.train, data_root).frames)
    except AdubenchError:
        return "-"


def truth_samples(recipe: Recipe, frames: TrainingFrames, data_root: Path | None) -> tuple[Any, tuple[str, ...]]:
    """Make the samples of AdaBins and BTS, which learn from ground truth with the augmentation of their loaders.

    Returns:
        The samples, and sentences a user should read.
    """
    from adubench.training.build import augmentation
    from adubench.training.data import TrainingSet

    files = cast("Sequence[FrameFiles]", frames.frames)
    if recipe.data.nyu_crop:
        files = [cast("FrameFiles", NyuWindow(file)) for file in files]
    settings = replace(augmentation(recipe, stereo=False), kb_crop=recipe.data.kb_crop)
    if not _wants_focal(recipe):
        return TrainingSet(files, settings, recipe.seed), ()
    focal, notes = focal_lengths(frames, data_root)
    return TrainingSet(files, settings, recipe.seed, focal=focal), notes


def _wants_focal(recipe: Recipe) -> bool:
    """Whether depth is scaled by the focal length: official BTS trained for KITTI."""
    assert recipe.model is not None
    keys = recipe.model.keys
    official = keys.get("layout", "official") == "official" and keys.get("dataset", "kitti") == "kitti"
    return recipe.method == "bts" and official
