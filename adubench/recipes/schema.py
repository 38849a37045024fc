"""The sections of a recipe. Names and defaults are those of the papers and of their code; every key is checked.

Nothing here imports torch: a recipe can be read, listed and checked without the training packages.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from adubench.recipes.model_section import ModelSection
from adubench.recipes.section import Fraction, Positive, Section
from adubench.recipes.self_supervised_sections import UNREAD, SelfSupervisedSection, SubDepthSection
from adubench.recipes.tie_kd_sections import ResponseKDSection, TeacherMapsSection, TieKDSection

Method = Literal[
    "supervised", "adu-depth", "response", "self-supervised", "sub-depth",
    "tie-kd", "response-kd", "sparse-si", "adabins", "bts",
]  # fmt: skip
StageName = Literal["teacher", "student"]
Encoder = Literal["tiny07", "base07", "large07", "small", "micro", "mini"]
Range = tuple[float, float]
Level = Annotated[int, Field(ge=0, le=3)]


class DataSection(Section):
    """Which frames, and what is true about them.

    Attributes:
        train: split name or list file to train on.
        root: data set folder; usually left to `--data-root` or the environment.
        gt_root: folder of the ground truth, where it does not lie below `root`; usually `--gt`.
        right_root: folder of the right images where `train` is a folder of images; files are named like the left ones.
        ground_truth: which depth supervises (`improved` annotated maps, `raw` scans, `depth` dense maps).
        pack: training pack (HDF5) instead of loose files.
        kb_crop: cut KITTI's 352x1216 window first.
        nyu_crop: cut rows 45:472 and columns 43:608 of NYU's images first.
        min_gt: supervision starts beyond this depth, metres (strict).
        max_depth: range of the network's output, metres.
    """

    train: str
    root: str | None = None
    gt_root: str | None = None
    right_root: str | None = None
    ground_truth: Literal["improved", "raw", "depth"] = "improved"
    pack: str | None = None
    kb_crop: bool = True
    nyu_crop: bool = False
    min_gt: Annotated[float, Field(ge=0)] = 1.0
    max_depth: Positive = 80.0


class InputSection(Section):
    """What the network sees: a random crop (default), or the whole image resized.

    Attributes:
        mode: `crop` keeps the focal length in pixels; `resize` scales the image.
        height: of the crop or of the resized image, pixels.
        width: likewise.
        geometry: `pillow` is exact; `opencv` is faster, needs the package, and is not bit-equal.
    """

    mode: Literal["crop", "resize"] = "crop"
    height: Annotated[int, Field(gt=0)] = 352
    width: Annotated[int, Field(gt=0)] = 1120
    geometry: Literal["pillow", "opencv"] = "pillow"


class AugmentSection(Section):
    """Random changes of a sample, in the order and with the draws of the NeWCRFs loader."""

    rotate: Annotated[float, Field(ge=0, le=45)] = 1.0
    flip: Fraction = 0.5
    photometric: Fraction = 0.5
    gamma: Range = (0.9, 1.1)
    brightness: Range = (0.9, 1.1)
    color: Range = (0.9, 1.1)


class StereoSection(Section):
    """How a stereo pair is augmented."""

    flip: Literal["auto", "swap", "joint", "none"] = "auto"
    rotate: Literal["same_angle", "none"] = "same_angle"


class NetworkSection(Section):
    """One NeWCRFs network.

    Attributes:
        encoder: variant.
        init: `imagenet` (timm's weights; `weights` says where they lie), `random`, `checkpoint:<file>`, or, for the
            student, `teacher` (all weights, the patch kernel being the sum of the two halves).
        weights: `hub` or a local weight file of the encoder.
        window_order: `official` pads and then rolls, `timm` rolls and then pads.
        drop_path: rate of the encoder's stochastic depth.
        activation_checkpointing: trade time for memory in the encoder and the CRF stages.
    """

    encoder: Encoder = "large07"
    init: str = Field(default="imagenet", pattern=r"^(imagenet|random|teacher|checkpoint:.+)$")
    weights: str = "hub"
    window_order: Literal["official", "timm"] = "official"
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.3
    activation_checkpointing: bool = False


class TeacherSection(NetworkSection):
    """The stereo teacher: six input channels, or two shared encoders."""

    fusion: Literal["concat6", "siamese_concat", "siamese_corr", "epipolar_attention"] = "concat6"
    patch_init: Literal["half_repeat", "left_only", "repeat", "random"] = "half_repeat"


class AdapterSection(Section):
    """Feature adapters between student and teacher (ADU-Depth eq. 1)."""

    kind: Literal["attention", "identity", "conv1x1", "conv3x3", "conv3x3x2"] = "attention"
    attention: Literal["auto", "full", "reduced", "window"] = "auto"
    max_full_tokens: Annotated[int, Field(gt=0)] = 8192
    kv_budget: Annotated[int, Field(gt=0)] = 2048
    heads: Annotated[int, Field(gt=0)] | Literal["C/32"] = "C/32"
    scale: Literal["sqrt_d", "none"] = "sqrt_d"
    residual: bool = True
    zero_init: bool = True


class FeaturesSection(Section):
    """Levels that are distilled: 0 is 1/4, 3 is 1/32."""

    encoder: tuple[Level, ...] = (0, 1, 2, 3)
    decoder: tuple[Level, ...] = (0, 1, 2, 3)


class FeatureSection(Section):
    """Reductions of the feature losses."""

    channel_reduction: Literal["mean", "sum"] = "mean"
    level_reduction: Literal["mean", "sum"] = "mean"


class UemSection(Section):
    """Uncertainty estimation module."""

    enabled: bool = True
    scaling: Literal["affine", "gain"] = "affine"
    s_min: float = -4.0
    s_max: float = 4.0
    resize: Literal["area", "bilinear", "nearest"] = "area"
    g: Literal["identity", "film"] = "identity"

    @model_validator(mode="after")
    def _ordered(self) -> UemSection:
        if self.s_min >= self.s_max:
            raise ValueError(f"s_min {self.s_min} must be below s_max {self.s_max}")
        return self


class ResponseSection(Section):
    """Response distillation (ADU-Depth eqs. 6 and 8)."""

    laplace_form: Literal["printed", "log_variance"] = "printed"
    mask: Literal["all", "valid"] = "all"
    resolution: Literal["full", "quarter"] = "full"
    space: Literal["depth", "log", "inverse"] = "depth"
    reduction: Literal["mean", "sum"] = "mean"


class FocalSection(Section):
    """Focal-depth loss (ADU-Depth eqs. 4 and 5)."""

    alpha: Annotated[float, Field(ge=0)] = 1.0
    gamma: Annotated[float, Field(ge=0)] = 2.0
    granularity: Literal["image", "batch", "pixel"] = "image"
    score: Literal["linear", "exp"] = "linear"
    eps: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    mask: Literal["all", "valid"] = "all"


class LambdaSection(Section):
    """Weights of the terms (ADU-Depth eq. 9)."""

    umr: Annotated[float, Field(ge=0)] = 0.9
    umf: Annotated[float, Field(ge=0)] = 0.6
    focal: Annotated[float, Field(ge=0)] = 0.8


class DistillSection(Section):
    """Everything of ADU-Depth's distillation; `enabled: false` is the baseline."""

    enabled: bool = True
    preset: Literal["default", "paper-literal"] = "default"
    adapter: AdapterSection = AdapterSection()
    features: FeaturesSection = FeaturesSection()
    feature: FeatureSection = FeatureSection()
    uem: UemSection = UemSection()
    response: ResponseSection = ResponseSection()
    focal: FocalSection = FocalSection()
    lambda_: LambdaSection = Field(default=LambdaSection(), alias="lambda")
    warmup_steps: Annotated[int, Field(ge=0)] = 0


class TrainSection(Section):
    """Optimisation.

    Attributes:
        epochs: passes over the data; ignored when `steps` is set.
        steps: optimiser steps.
        batch_size: samples per optimiser step over all processes and accumulation steps.
        accumulate: micro-batches per optimiser step.
        optimizer: `adam` is what the NeWCRFs code runs, `adamw` what its configuration says.
        lr: peak learning rate.
        end_lr: last learning rate of the polynomial; None is a tenth of `lr`.
        schedule: `poly` (power 0.9 per step), `step` (times 0.1 every `step_epochs`), `onecycle`, `constant`.
        final_div: of `onecycle`: the first rate divided by the last one.
        momentum: of `onecycle`: lowest and highest first beta, against the rate; None leaves it as it is.
        encoder_lr: another peak rate for the encoder.
        encoder_weight_decay: another decay for the encoder.
        precision: `auto` is bf16 on CUDA and fp32 on the CPU.
        compile: use torch.compile.
        sync_batch_norm: batch statistics over all processes.
        workers: loader processes.
    """

    epochs: Annotated[int, Field(gt=0)] = 40
    steps: Annotated[int, Field(gt=0)] | None = None
    batch_size: Annotated[int, Field(gt=0)] = 4
    accumulate: Annotated[int, Field(gt=0)] = 1
    optimizer: Literal["adam", "adamw"] = "adam"
    lr: Positive = 2e-5
    end_lr: Annotated[float, Field(ge=0)] | None = None
    schedule: Literal["poly", "step", "onecycle", "constant"] = "poly"
    final_div: Positive = 1e4
    momentum: tuple[Fraction, Fraction] | None = None
    power: Positive = 0.9
    step_epochs: Annotated[int, Field(gt=0)] = 15
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    eps: Positive = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    encoder_lr: Positive | None = None
    encoder_weight_decay: Annotated[float, Field(ge=0)] | None = None
    clip_norm: Positive | None = None
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool = False
    sync_batch_norm: bool = False
    workers: Annotated[int, Field(ge=0)] = 4


class ValidateSection(Section):
    """Evaluation during training, with the evaluator itself.

    Attributes:
        split: what is evaluated; None turns validation off.
        protocol: default is the split's own.
        every: optimiser steps between evaluations; 0 is once, at the end.
        frames: at most so many frames, evenly spread; None for all.
        metric: decides which checkpoint is best.
        flip: flip averaging during validation; None is the network's own default.
    """

    split: str | None = None
    protocol: str | None = None
    every: Annotated[int, Field(ge=0)] = 0
    frames: Annotated[int, Field(gt=0)] | None = None
    metric: str = "silog"
    flip: bool | None = None


class TestSection(Section):
    """What the tables of experiments score after training.

    Attributes:
        split: name or list file; None: nothing is scored.
        protocol: default is the split's own.
    """

    split: str | None = None
    protocol: str | None = None


class CheckpointSection(Section):
    """Files written while training; the last state is always written.

    Attributes:
        every: optimiser steps between training states; 0 is once per epoch.
        keep: how many of them stay.
        best: keep the best checkpoint by `validate.metric`.
        milestones: shares of the student's training after which its network and adapters are kept for good; 0 is the
            start.
    """

    every: Annotated[int, Field(ge=0)] = 0
    keep: Annotated[int, Field(gt=0)] = 2
    best: bool = True
    milestones: tuple[Fraction, ...] = ()


class LogSection(Section):
    """What is written about the run; JSON lines are always written.

    Attributes:
        every: optimiser steps between lines.
        trackers: further places.
        images: pictures per line for the trackers.
        gradient_shares: also log the share of every distillation term in the gradient at the student's depth.
    """

    every: Annotated[int, Field(gt=0)] = 50
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    images: Annotated[int, Field(ge=0)] = 2
    gradient_shares: bool = False


class Recipe(Section):
    """Everything about one training, from data to evaluation.

    Attributes:
        name: of the recipe.
        about: one line for lists.
        source: paper and table that it follows.
        method: what a step computes.
        stages: in the order they run.
        teacher_train: optimisation of the teacher stage; in a file only what differs from `train`; None: nothing does.
        model: network of methods with another student than NeWCRFs; None: section `student` says it.
        teacher_maps: stored maps, of methods that learn from them.
        tie_kd: its loss.
        response_kd: which response baseline.
        expected: published numbers, metric -> value, for the table beside ours.
    """

    name: str
    about: str = ""
    source: str = ""
    method: Method = "adu-depth"
    stages: tuple[StageName, ...] = ("teacher", "student")
    seed: Annotated[int, Field(ge=0)] = 0
    data: DataSection
    input: InputSection = InputSection()
    augment: AugmentSection = AugmentSection()
    stereo: StereoSection = StereoSection()
    teacher: TeacherSection = TeacherSection()
    student: NetworkSection = NetworkSection()
    distill: DistillSection = DistillSection()
    self_supervised: SelfSupervisedSection = SelfSupervisedSection()
    sub_depth: SubDepthSection = SubDepthSection()
    model: ModelSection | None = None
    teacher_maps: TeacherMapsSection = TeacherMapsSection()
    tie_kd: TieKDSection = TieKDSection()
    response_kd: ResponseKDSection = ResponseKDSection()
    train: TrainSection = TrainSection()
    teacher_train: TrainSection | None = None
    validate_: ValidateSection = Field(default=ValidateSection(), alias="validate")
    test: TestSection = TestSection()
    checkpoint: CheckpointSection = CheckpointSection()
    log: LogSection = LogSection()
    expected: dict[str, float] = Field(default_factory=dict)

    @property
    def self_supervision(self) -> bool:
        """Whether images supervise, not depth: methods `self-supervised` and `sub-depth`."""
        return self.method in ("self-supervised", "sub-depth")

    @property
    def unread(self) -> tuple[str, ...]:
        """Sections that the method does not read."""
        return UNREAD.get(self.method, ("self_supervised", "sub_depth"))

    def plain(self) -> dict[str, object]:
        """Return plain JSON values, with the names of the YAML file, without sections that the method does not read."""
        return self.model_dump(mode="json", by_alias=True, exclude=set(self.unread))
