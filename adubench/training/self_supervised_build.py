"""From a recipe of the self-supervised methods to networks, first weights and samples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from adubench.datasets.kitti import KittiRaw
from adubench.datasets.motion import check_motion
from adubench.datasets.splits import load_split
from adubench.datasets.triplets import TripletPlaces, TripletRule, check_complete, with_sources
from adubench.distillation.sub_depth import SubDepthConfig
from adubench.errors import CheckpointError, DataError, UsageError, counted
from adubench.models.monodepth2 import PredictiveMask
from adubench.models.pose import PoseNetwork, build_pose
from adubench.models.sub_depth import PhotometricUncertainty
from adubench.recipes.recipe import needs_teacher
from adubench.training.checkpoint import load_network
from adubench.training.distributed import derive_seed
from adubench.training.photometric import PhotometricConfig
from adubench.training.run_folder import POSE
from adubench.training.self_supervised_objectives import Helpers
from adubench.training.triplet_data import TripletSet

if TYPE_CHECKING:
    from adubench.models.disparity import DisparityNetwork
    from adubench.models.interface import DepthNetwork
    from adubench.recipes.schema import Recipe
    from adubench.recipes.self_supervised_sections import SelfSupervisedSection, SubDepthSection

_RESNETS = ("monodepth2", "hr-depth")
_LAYOUTS = ("kitti", "synthdrive")
#: What ends the name of the file beside an imported checkpoint.
IMPORTED_HELPERS = "-pose"


def sub_depth_config(section: SubDepthSection) -> SubDepthConfig:
    """Return the switches of SUB-Depth's losses."""
    return SubDepthConfig(**section.model_dump())


def photometric_config(section: SelfSupervisedSection) -> PhotometricConfig:
    """Return the options of the photometric objective."""
    return PhotometricConfig(
        min_depth=section.min_depth,
        max_depth=section.max_depth,
        smoothness=section.smoothness,
        ssim=not section.no_ssim,
        automask=section.automask,
        average=section.avg_reprojection,
        v1_multiscale=section.v1_multiscale,
        align_corners=section.align_corners,
        noise_std=section.noise_std,
        scale_translations=section.pose_model_type == "posecnn",
    )


def triplet_rule(section: SelfSupervisedSection) -> TripletRule:
    """Return how samples are made."""
    scales = section.scales[-1] + 1
    return TripletRule(
        size=(section.height, section.width),
        offsets=section.frame_ids[1:],
        stereo=section.use_stereo,
        scales=scales,
        source_scales=scales if section.v1_multiscale else 1,
        flip=section.flip,
        jitter=section.jitter,
        per_drive_intrinsics=section.per_drive_intrinsics,
    )


def network_scales(recipe: Recipe) -> tuple[int, ...]:
    """Return the scale of each map that the recipe's networks predict."""
    return recipe.self_supervised.scales


def plain_config(recipe: Recipe) -> dict[str, Any]:
    """Return the zoo's configuration of the network without uncertainty: the teacher's, and that of plain training."""
    section = recipe.self_supervised
    config: dict[str, Any] = {
        "family": section.family,
        "height": section.height,
        "width": section.width,
        "min_depth": section.min_depth,
        "max_depth": section.max_depth,
        "use_stereo": section.use_stereo,
    }
    if section.family in _RESNETS:
        config["num_layers"] = section.num_layers
    if section.family == "monodepth2":
        config |= {"scales": list(section.scales), "input_images": 1}
    return config


def disparity_config(recipe: Recipe, stage: str) -> dict[str, Any]:
    """Return the zoo's configuration of a stage's network; `init: imagenet` becomes `pretrained`."""
    section, config = recipe.self_supervised, plain_config(recipe)
    if stage == "student" and needs_teacher(recipe) and recipe.sub_depth.loss_mode == "uncertainty":
        config |= {"family": "sub-depth", "base": section.family}
    if section.init == "imagenet":
        config["pretrained"] = True if section.weights == "hub" else section.weights
    return config


def start_disparity(network: DepthNetwork, recipe: Recipe, stage: str, teacher: DepthNetwork | None) -> None:
    """Load the weights that a stage starts from, where those are not timm's.

    Raises:
        UsageError: a start that needs a teacher without one.
        CheckpointError: another network's weights.
    """
    section = recipe.self_supervised
    if stage == "student" and recipe.method == "sub-depth" and recipe.sub_depth.student_init == "teacher":
        if teacher is None:
            raise UsageError(
                f"recipe {recipe.name}: sub_depth.student_init=teacher needs a teacher; give --teacher CHECKPOINT."
            )
        _take(network, teacher, "the teacher")
    elif section.init.startswith("checkpoint:"):
        path = section.init.removeprefix("checkpoint:")
        start, _ = load_network(path)
        _take(network, start, path)


def _take(network: DepthNetwork, start: DepthNetwork, name: str) -> None:
    """Copy weights; heads with a second channel (uncertainty) keep their own first weights there."""
    own, theirs = network.state_dict(), start.state_dict()
    for key, value in own.items():
        given = theirs.get(key)
        if given is None or not (given.shape == value.shape or _is_head(given, value)):
            raise CheckpointError(
                f"{name}: does not hold a {network.config.get('base', network.family)} network of this recipe ({key} "
                "is missing or of another shape)."
            )
        (value if given.shape == value.shape else value[:1]).copy_(given)
    network.load_state_dict(own)


def _is_head(given: torch.Tensor, own: torch.Tensor) -> bool:
    """Whether these are weights of the same head with one channel and with two."""
    return own.ndim > 0 and given.shape[1:] == own.shape[1:] and (len(given), len(own)) == (1, 2)


def pose_config(section: SelfSupervisedSection) -> dict[str, Any] | None:
    """Return the configuration of the pose network; None without temporal sources."""
    if len(section.frame_ids) == 1:
        return None
    init = section.pose_init or section.init
    pretrained: bool | str = init == "imagenet" and (section.pose_weights == "hub" or section.pose_weights)
    return {
        "kind": section.pose_model_type,
        "num_layers": section.num_layers,
        "input": section.pose_model_input,
        "frames": len(section.frame_ids),
        "pretrained": pretrained,
    }


def build_helpers(recipe: Recipe, network: DisparityNetwork, *, uncertainty: bool) -> Helpers:
    """Build pose network, predictive masks and photometric uncertainty; random weights are drawn from torch's state.

    Raises:
        CheckpointError: weights that cannot be had, or no pose network beside the checkpoint to start from.
    """
    section = recipe.self_supervised
    config = pose_config(section)
    pose = build_pose(config) if config is not None else None
    if pose is not None and section.init.startswith("checkpoint:") and section.pose_init is None:
        _start_pose(pose, Path(section.init.removeprefix("checkpoint:")))
    mask = None
    if section.predictive_mask:
        sources = len(section.frame_ids) - 1 + section.use_stereo
        encoder = cast("Any", network.encoder)
        mask = PredictiveMask(encoder.channels, sources, section.scales)
    sigma = None
    if uncertainty:
        ours = (section.pose_init or section.init) == "imagenet"
        sigma = PhotometricUncertainty(
            section.num_layers, ours and (section.pose_weights == "hub" or section.pose_weights)
        )
    return Helpers(pose, mask, sigma)


def helpers_file(checkpoint: Path) -> Path:
    """Name the file of what was trained beside a checkpoint's network, whether or not it is there.

    Imported checkpoints and milestones have one of their own, all others the run's.
    """
    own = [checkpoint.with_name(f"{checkpoint.stem}{end}.safetensors") for end in (IMPORTED_HELPERS, "-adapters")]
    return next((file for file in own if file.is_file()), checkpoint.parent / POSE)


def read_helpers(path: Path) -> dict[str, torch.Tensor]:
    """Read a file of tensors `pose.*`, `mask.*` and `uncertainty.*`.

    Raises:
        CheckpointError: unreadable.
    """
    from adubench.models.weights.safe_load import load_foreign

    return cast("dict[str, torch.Tensor]", load_foreign(path))


def _start_pose(pose: PoseNetwork, checkpoint: Path) -> None:
    path = helpers_file(checkpoint)
    if not path.is_file():
        raise CheckpointError(
            f"{checkpoint}: there is no {POSE} beside it to start the pose network from; set "
            "self_supervised.pose_init to imagenet or random."
        )
    state = {k.removeprefix("pose."): v for k, v in read_helpers(path).items() if k.startswith("pose.")}
    try:
        pose.load_state_dict(state)
    except RuntimeError:
        raise CheckpointError(
            f"{path}: is the pose network of another recipe (pose_model_type, pose_model_input, num_layers)."
        ) from None


@dataclass(frozen=True, slots=True)
class TripletFrames:
    """Targets of a training list and what was left out.

    Attributes:
        split: its name.
        samples: the data set of the loader.
        listed: frames of the list.
        sha256: of the targets.
        notes: sentences a user should read.
        left_out: those about frames that are no targets.
    """

    split: str
    samples: TripletSet
    listed: int
    sha256: str
    notes: tuple[str, ...]
    left_out: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.samples)

    def fingerprint(self) -> dict[str, Any]:
        """Say for the record what is trained on."""
        sources = ",".join(map(str, self.samples.rule.sources))
        facts = (self.split, self.sha256, sources)
        return {
            "split": self.split,
            "count": len(self.samples),
            "frames": self.sha256,
            "stereo": self.samples.rule.stereo,
            "ground_truth": "none",
            "sources": sources,
            "fingerprint": f"{derive_seed(*facts):016x}",
        }


def find_triplets(recipe: Recipe, data_root: Path | None) -> TripletFrames:
    """Find the targets that have all their sources, and read one.

    Raises:
        UsageError: no data root.
        DataError: a missing target or neighbour, a camera that stands still, or an image that cannot be read.
    """
    section, name = recipe.self_supervised, recipe.data.train
    if data_root is None:
        raise UsageError(f"training on '{name}' needs its images: give --data-root DIR or set ADUBENCH_DATA_ROOT.")
    if not data_root.is_dir():
        raise DataError(f"data root not found: {data_root}; check --data-root.")
    split = load_split(name, data_root)
    if split.dataset not in _LAYOUTS:
        raise UsageError(
            f"split '{name}': self-supervised training reads KITTI raw and SynthDrive, not {split.dataset}."
        )
    if split.dataset == "synthdrive" and not section.per_drive_intrinsics:
        raise UsageError(
            f"split '{name}': SynthDrive's cameras are not KITTI's; set self_supervised.per_drive_intrinsics: true."
        )
    rule, places = triplet_rule(section), TripletPlaces(KittiRaw(data_root))
    if not split.frames:
        raise DataError(f"split '{name}' has no frames: choose another --set data.train, or make the data.")
    check_complete(places, split.frames, rule)
    frames, dropped = with_sources(places, split.frames, rule)
    if rule.offsets and section.check_motion:
        check_motion(places, frames, offset=min(rule.offsets, key=lambda offset: (abs(offset), -offset)))
    if rule.per_drive_intrinsics:
        for frame in {frame.date: frame for frame in reversed(frames)}.values():
            places.intrinsics(frame)  # a date that comes late in the epoch would end it there
    samples = TripletSet(places, frames, rule, recipe.seed)
    samples.sample(0, 0)  # an unreadable first file, intrinsics that are no intrinsics
    notes = () if not dropped else (
        f"{counted(len(dropped), 'frame')} left out: at the end of a drive, without a neighbour "
        f"(first {dropped[0].name})",
    )  # fmt: skip
    return TripletFrames(split.name, samples, len(split.frames), _digest(frames), (*split.notes, *notes), notes)


def _digest(frames: Any) -> str:
    from adubench.datasets.splits import checksum

    return checksum(frames)


def shape_batch(section: SelfSupervisedSection) -> dict[str, Any]:
    """Return a batch of one sample without content, for the estimate of a dry run."""
    rule = triplet_rule(section)
    batch: dict[str, Any] = {}
    for source in (0, *rule.sources):
        for scale in range(rule.scales if source == 0 else rule.source_scales):
            size = (1, section.height >> scale, section.width >> scale, 3)
            batch[f"colour/{source}/{scale}"] = torch.zeros(size, dtype=torch.uint8)
        batch[f"augmented/{source}"] = torch.zeros((1, section.height, section.width, 3), dtype=torch.uint8)
    for scale in range(rule.scales):
        batch[f"K/{scale}"] = batch[f"inverse_k/{scale}"] = torch.eye(4)[None]
    if rule.stereo:
        batch["stereo"] = torch.eye(4)[None]
    return batch | {"frames": ["shape"]}
