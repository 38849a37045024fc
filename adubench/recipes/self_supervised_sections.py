"""Sections of the methods `self-supervised` (Monodepth2, HR-Depth, DIFFNet) and `sub-depth`, and their checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from adubench.recipes.section import Fraction, Positive, Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adubench.recipes.schema import Recipe

Level = Annotated[int, Field(ge=0, le=3)]
STRIDE, SMALLEST, LARGEST = 32, 64, 16384
_RESNET_FAMILIES = ("monodepth2", "hr-depth")
_DEPTH_SUPERVISED = ("input", "augment", "stereo", "teacher", "student", "distill")
#: Method -> sections without a meaning for it.
UNREAD: dict[str, tuple[str, ...]] = {
    "self-supervised": (*_DEPTH_SUPERVISED, "sub_depth"),
    "sub-depth": _DEPTH_SUPERVISED,
}


class SelfSupervisedSection(Section):
    """Self-supervised training: networks, sources and photometric objective, with Monodepth2's names and defaults.

    Attributes:
        family: depth network.
        num_layers: of the ResNet encoders of depth and pose; hr-depth-lite and diffnet have their own depth encoder.
        init: start of the encoders: `imagenet` (timm's weights), `random`, or `checkpoint:<file>` of a depth network.
        pose_init: another start of the pose network; None is `init`, and beside a checkpoint the file of its pose.
        weights: `hub` or a local file with ImageNet weights of the depth encoder.
        pose_weights: likewise of the ResNet of pose and photometric uncertainty.
        height: of the network's input, pixels.
        width: likewise.
        min_depth: near end of the depth range.
        max_depth: far end.
        frame_ids: the target 0 and temporal sources, in the order in which `pose_model_input: all` stacks them.
        use_stereo: the other camera's image is a source.
        pose_model_type: own encoder, the depth encoder's features, or a small CNN.
        pose_model_input: pairs in temporal order, or all frames at once.
        scales: of the objective.
        smoothness: weight of the smoothness term at scale 0.
        v1_multiscale: compare images at each scale's own resolution.
        automask: un-warped sources compete with the warped ones.
        avg_reprojection: mean over the sources instead of the minimum.
        predictive_mask: a second decoder weighs pixels; only without automask.
        no_ssim: absolute differences alone.
        align_corners: of the sampling; false is what the published code does on torch >= 1.3.
        noise_std: of the noise that breaks ties of the automask.
        per_drive_intrinsics: calibration of each drive instead of one matrix for all of KITTI; SynthDrive needs it.
        check_motion: refuse drives whose camera stands still.
        flip: probability of a mirrored sample.
        jitter: probability of changed colours.
    """

    family: Literal["monodepth2", "hr-depth", "hr-depth-lite", "diffnet"] = "monodepth2"
    num_layers: Literal[18, 34, 50, 101, 152] = 18
    init: str = Field(default="imagenet", pattern=r"^(imagenet|random|checkpoint:.+)$")
    pose_init: Literal["imagenet", "random"] | None = None
    weights: str = "hub"
    pose_weights: str = "hub"
    height: Annotated[int, Field(gt=0)] = 192
    width: Annotated[int, Field(gt=0)] = 640
    min_depth: Positive = 0.1
    max_depth: Positive = 100.0
    frame_ids: tuple[int, ...] = (0, -1, 1)
    use_stereo: bool = False
    pose_model_type: Literal["separate_resnet", "shared", "posecnn"] = "separate_resnet"
    pose_model_input: Literal["pairs", "all"] = "pairs"
    scales: tuple[Level, ...] = (0, 1, 2, 3)
    smoothness: Annotated[float, Field(ge=0)] = 1e-3
    v1_multiscale: bool = False
    automask: bool = True
    avg_reprojection: bool = False
    predictive_mask: bool = False
    no_ssim: bool = False
    align_corners: bool = True
    noise_std: Annotated[float, Field(ge=0)] = 1e-5
    per_drive_intrinsics: bool = False
    check_motion: bool = True
    flip: Fraction = 0.5
    jitter: Fraction = 0.5


class SubDepthSection(Section):
    """SUB-Depth's student; the teacher is the plain network of section `self_supervised`, trained first.

    Attributes:
        photometric_pairing: `per_image`, or the released code's `cross_batch`.
        teacher_mode: `eval` is frozen; in `train`, as released, running statistics drift.
        sigma_min: smallest uncertainty; 0 for none, as released.
        scale_pho_smoothness: divide the smoothness term by sigma as well.
        loss_mode: `uncertainty`, or fixed weights.
        w_pho: weight of the reconstruction, `weighted` only.
        w_reg: weight of the distillation, `weighted` only.
        student_init: the start of section `self_supervised`, or the teacher's weights.
    """

    photometric_pairing: Literal["per_image", "cross_batch"] = "per_image"
    teacher_mode: Literal["eval", "train"] = "eval"
    sigma_min: Annotated[float, Field(ge=0, lt=1)] = 1e-6
    scale_pho_smoothness: bool = False
    loss_mode: Literal["uncertainty", "weighted"] = "uncertainty"
    w_pho: Annotated[float, Field(ge=0)] = 1.0
    w_reg: Annotated[float, Field(ge=0)] = 0.0
    student_init: Literal["imagenet", "teacher"] = "imagenet"


def check_self_supervised(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong) between the keys of these sections."""
    for name in recipe.unread:
        section = getattr(recipe, name)
        if section != type(section)():
            yield name, f"method {recipe.method} does not read this section; leave it out, or choose another method."
    if recipe.self_supervision:
        yield from _sizes(recipe.self_supervised)
        yield from _sources(recipe.self_supervised)
        yield from _networks(recipe.self_supervised)
    if recipe.method == "sub-depth":
        sub = recipe.sub_depth
        if sub.loss_mode == "weighted" and sub.w_pho == 0 and sub.w_reg == 0:
            yield (
                "sub_depth.w_reg",
                "w_pho and w_reg are both 0, so that nothing is learned; make one of them positive.",
            )
        if sub.loss_mode == "uncertainty" and (sub.w_pho, sub.w_reg) != (1.0, 0.0):
            yield "sub_depth.w_pho", "fixed weights count with sub_depth.loss_mode: weighted only."


def _sizes(section: SelfSupervisedSection) -> Iterator[tuple[str, str]]:
    for name in ("height", "width"):
        value = getattr(section, name)
        if value % STRIDE or value < SMALLEST:
            below = max(value // STRIDE * STRIDE, SMALLEST)
            yield (
                f"self_supervised.{name}",
                f"{value} must be a multiple of {STRIDE} and at least {SMALLEST}, because features of stride {STRIDE} "
                f"are reflection-padded; the next ones are {below} and {below + STRIDE}.",
            )
        elif value > LARGEST:
            yield f"self_supervised.{name}", f"{value} must be at most {LARGEST}."
    if section.min_depth >= section.max_depth:
        yield "self_supervised.min_depth", f"{section.min_depth:g} must be below max_depth {section.max_depth:g}."


def _sources(section: SelfSupervisedSection) -> Iterator[tuple[str, str]]:
    frames = section.frame_ids
    if not frames or frames[0] != 0 or len(set(frames)) < len(frames):
        yield (
            "self_supervised.frame_ids",
            f"expected 0 and then different offsets, e.g. [0, -1, 1], got {list(frames)}.",
        )
    elif len(frames) == 1 and not section.use_stereo:
        yield (
            "self_supervised.frame_ids",
            "a target alone has no source to compare with: add offsets, or set self_supervised.use_stereo: true.",
        )
    if sorted(set(section.scales)) != list(section.scales) or section.scales[:1] != (0,):
        yield "self_supervised.scales", f"expected scales in ascending order with 0, got {list(section.scales)}."
    elif section.family != "monodepth2" and section.scales != (0, 1, 2, 3):
        yield "self_supervised.scales", f"{section.family} always predicts [0, 1, 2, 3]."
    if section.predictive_mask and section.automask:
        yield "self_supervised.predictive_mask", "it replaces automasking: set self_supervised.automask: false."


def _networks(section: SelfSupervisedSection) -> Iterator[tuple[str, str]]:
    family = section.family
    if family == "hr-depth-lite" and section.init == "imagenet" and section.weights == "hub":
        yield (
            "self_supervised.init",
            "there are no ImageNet weights for hr-depth-lite, whose encoder excites before it activates; expected "
            "random, checkpoint:FILE, or a file in self_supervised.weights.",
        )
    if family not in _RESNET_FAMILIES:
        if section.num_layers != 18:
            yield (
                "self_supervised.num_layers",
                f"{family} has its own encoder, and poses from a ResNet-18: leave it out.",
            )
        for key, on in (
            ("pose_model_type", section.pose_model_type == "shared"),
            ("predictive_mask", section.predictive_mask),
        ):
            if on:
                yield f"self_supervised.{key}", f"it takes the features of a ResNet, which {family} does not have."
