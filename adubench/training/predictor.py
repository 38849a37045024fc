"""From images to depth maps, whatever predicts: a checkpoint of ours, a Python file, a model of `transformers`.

A predictor hands out what its network really says (metres, or disparity at the network's own size); turning that into
files or scores is left to those who ask. Averaging over the mirrored image belongs to the predictor, not to a protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from adubench.errors import DataError, UsageError

Image = NDArray[np.uint8]
FloatMap = NDArray[np.float32]

HF_PREFIX = "hf:"
KINDS: tuple[str, ...] = ("depth", "relative-depth", "scaled-disparity", "sigmoid-disparity", "relative-disparity")
"""What a predictor's maps may be. `relative-*` have no scale (and no offset) of their own."""
DEFAULT_FOCAL = 715.0873
"""Focal length in pixels at which BTS's KITTI weights need no correction."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says about one image.

    Attributes:
        values: float32 [h, w] of `kind`: metres at the size of the image (or of its KB window); disparity at the size
            the network works at.
        kind: one of `KINDS`.
        uncertainty: float32 [h, w] in `uncertainty_kind`, or None.
        uncertainty_kind: `sigma`, `b`, `log_b`, `log_sigma`, `log_variance`, or None.
        depth_scale: metres = depth_scale / scaled disparity, where training fixed it (5.4 with KITTI's stereo pairs); 1
            where depth has no scale.
    """

    values: FloatMap
    kind: str = "depth"
    uncertainty: FloatMap | None = None
    uncertainty_kind: str | None = None
    depth_scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOptions:
    """How to predict.

    Attributes:
        device: `auto` (CUDA, else Apple's, else the CPU), or any name of torch's.
        batch_size: images of one size at a time; None: 8 on a GPU, 1 on the CPU.
        amp: bfloat16 for the body of the network, CUDA only; heads stay in float32.
        flip: average with the prediction of the mirrored image; None: as the network's reference does.
        kb_crop: cut the 352x1216 window of KITTI's benchmark out of every image first.
        focal: focal length in pixels for networks that need one; None: `DEFAULT_FOCAL`.
        kind: what a Python file or a `transformers` model predicts, where it does not say so itself.
        network_size: (height, width) that images are resized to for a checkpoint's network; depth comes back at the
            image's size. None: as they are, or the network's one size.
        clamp: keep the depth of each pass within the network's range, before passes are averaged (TIE-KD's teachers).
    """

    device: str = "auto"
    batch_size: int | None = None
    amp: bool = False
    flip: bool | None = None
    kb_crop: bool = False
    focal: float | None = None
    kind: str | None = None
    network_size: tuple[int, int] | None = None
    clamp: bool = False

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"--batch-size {self.batch_size}: expected a number of images, at least 1.")
        if self.focal is not None and not 0 < self.focal < float("inf"):
            raise UsageError(f"--focal {self.focal:g}: expected a focal length in pixels, above 0.")
        if self.network_size is not None and min(self.network_size) < 1:
            raise UsageError("--network-size: expected HEIGHTxWIDTH in pixels, e.g. 352x1216.")
        if self.kind is not None and self.kind not in KINDS:
            raise UsageError(f"--kind {self.kind}: expected one of {', '.join(KINDS)}.")


class Predictor(Protocol):
    """Anything that predicts.

    Attributes:
        label: short name for tables.
        kind: one of `KINDS`.
        stereo: needs the right image too.
        any_size: takes images as they are; False for a network that works at one size.
        uncertainty_kind: what its uncertainty means, None for none.
        batch_size: images it likes to get at once.
        depth_scale: as in `Prediction`.
        trained_on: name of the split it was trained on, None where nobody said.
    """

    label: str
    kind: str
    stereo: bool
    any_size: bool
    uncertainty_kind: str | None
    batch_size: int
    depth_scale: float
    trained_on: str | None

    def predict(
        self,
        images: Sequence[Image],
        rights: Sequence[Image] | None = None,
        focals: Sequence[float | None] | None = None,
    ) -> list[Prediction]:
        """Predict for images uint8 [H, W, 3] of any sizes.

        Args:
            images: left (or only) views.
            rights: right views of the same sizes, for stereo predictors.
            focals: focal lengths in pixels where they are known.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Say for the record what predicts and how: `predictor`, `flip`, `kb_crop`."""
        ...


def is_predictor(source: str | Path) -> bool:
    """Whether a source names something that predicts rather than predictions: by its name alone."""
    from adubench.training.checkpoint import is_checkpoint

    text = str(source)
    return text.startswith(HF_PREFIX) or is_checkpoint(text) or text.lower().endswith(".py")


def open_predictor(source: str | Path, options: PredictOptions | None = None) -> Predictor:
    """Open what predicts.

    Args:
        source: a checkpoint of ours (`.safetensors`), a Python file, or `hf:NAME`.
        options: how to predict.

    Raises:
        CheckpointError: a broken or foreign checkpoint.
        DataError: a Python file that cannot be run, a model that cannot be had.
        UsageError: options that the predictor cannot follow, or a source that is none of the three.
    """
    options = options or PredictOptions()
    text = str(source)
    if options.network_size is not None and (text.startswith(HF_PREFIX) or text.lower().endswith(".py")):
        raise UsageError(f"--network-size: {text} resizes images itself; the option is for checkpoints.")
    if text.startswith(HF_PREFIX):
        from adubench.training.predictor_sources import TransformersPredictor

        return TransformersPredictor(text.removeprefix(HF_PREFIX), options)
    path = Path(text)
    if path.suffix.lower() == ".py":
        from adubench.training.predictor_sources import PythonPredictor

        return PythonPredictor(path, options)
    if path.suffix.lower() in (".pth", ".pt", ".ckpt", ".bin") or path.is_dir():
        raise UsageError(
            f"{path}: no checkpoint of adubench. Official weights are imported first: "
            f"adubench import-weights auto {path} -o OURS.safetensors."
        )
    from adubench.training.network_predictor import NetworkPredictor

    return NetworkPredictor.load(path, options)


def check_views(images: Sequence[Image], rights: Sequence[Image] | None, stereo: bool, label: str) -> None:
    """Refuse right views that are missing or of another size.

    Raises:
        UsageError: a stereo predictor without right views.
        DataError: the two views of an image differ in size.
    """
    if not stereo:
        return
    if rights is None or len(rights) != len(images):
        raise UsageError(f"{label}: is a stereo network and needs the right image too; give it with --right.")
    for left, right in zip(images, rights, strict=True):
        if left.shape != right.shape:
            sizes = [f"{v.shape[0]}x{v.shape[1]}" for v in (left, right)]
            raise DataError(f"left and right image differ in size: {sizes[0]} and {sizes[1]}.")


def check_use(predictor: Predictor, *, right: Path | None, focal: float | None) -> tuple[str, ...]:
    """Look for options that a predictor makes no use of.

    Args:
        predictor: what predicts.
        right: right images that the user named.
        focal: focal length that the user gave.

    Returns:
        Sentences about those that change nothing.

    Raises:
        UsageError: right images for a predictor of one image, whose results would pass for a stereo network's.
    """
    if right is not None and not predictor.stereo:
        raise UsageError(f"--right {right}: {predictor.label} predicts from one image; leave --right out.")
    if focal is not None and not needs_focal(predictor):
        return (f"--focal {focal:g}: {predictor.label} needs no focal length, its depth is the same without.",)
    return ()


def needs_focal(predictor: Predictor) -> bool:
    """Whether depth depends on the camera's focal length (official BTS for KITTI)."""
    return bool(getattr(getattr(getattr(predictor, "network", None), "input_rule", None), "needs_focal", False))


def crop_to_window(image: Image) -> Image:
    """Cut out the 352x1216 window: bottom rows, centred columns.

    Raises:
        DataError: the image is smaller.
    """
    from adubench.evaluators.crops import KB_HEIGHT, KB_WIDTH, fits_window, kb_window

    height, width = image.shape[:2]
    if not fits_window((height, width)):
        raise DataError(f"image of {height}x{width}: smaller than the {KB_HEIGHT}x{KB_WIDTH} window of --kb-crop.")
    top, left = kb_window(height, width)
    return image[top : top + KB_HEIGHT, left : left + KB_WIDTH]


def depth_of(prediction: Prediction, size: tuple[int, int]) -> Prediction:
    """Turn a prediction into depth at a size: disparity is resized as disparity, then inverted (Monodepth2).

    Args:
        prediction: of any kind; relative kinds give depth without a scale.
        size: (height, width) wanted.

    Returns:
        `values` in metres (or up to scale), with the uncertainty where that can be carried over.
    """
    from adubench.evaluators.resize import bilinear
    from adubench.io.disparity import depth_from_disparity, depth_uncertainty, scaled_from_sigmoid

    if prediction.kind in ("depth", "relative-depth"):
        return prediction
    values = prediction.values
    if prediction.kind == "sigmoid-disparity":
        values = scaled_from_sigmoid(values)
    depth = depth_from_disparity(bilinear(values, size), prediction.depth_scale)
    if prediction.uncertainty is None or not carries_uncertainty(prediction.kind, prediction.uncertainty_kind):
        return Prediction(depth, "depth")
    spread = depth_uncertainty(depth, bilinear(prediction.uncertainty, size), prediction.depth_scale)
    return Prediction(depth, "depth", spread, prediction.uncertainty_kind)


def carries_uncertainty(kind: str, uncertainty_kind: str | None) -> bool:
    """Whether uncertainty of such a prediction becomes uncertainty of its depth: a spread of depth or disparity."""
    return kind == "depth" or (kind == "scaled-disparity" and uncertainty_kind in ("sigma", "b"))


def evaluator_kind(predictor: Predictor) -> tuple[str, str]:
    """Say how the evaluator takes a predictor's maps: its `--kind`, and the alignment they need ("none" for metres)."""
    if predictor.kind == "depth":
        return "depth", "none"
    if predictor.kind == "relative-depth":
        return "depth", "median"
    if predictor.kind == "relative-disparity":
        return "scaled-disparity", "lstsq"
    return predictor.kind, "median" if predictor.depth_scale == 1.0 else f"fixed:{predictor.depth_scale:g}"
