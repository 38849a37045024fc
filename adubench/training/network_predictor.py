"""A network of the zoo as a predictor: normalise, batch, average with the mirrored image, hand out numpy maps."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from adubench.errors import DataError, UsageError
from adubench.evaluators import flip
from adubench.evaluators.resize import bilinear
from adubench.io.disparity import scaled_from_sigmoid
from adubench.training.predictor import (
    DEFAULT_FOCAL,
    Image,
    Prediction,
    PredictOptions,
    check_views,
    crop_to_window,
)

if TYPE_CHECKING:
    from torch import Tensor

    from adubench.models.interface import DepthNetwork
    from adubench.training.checkpoint import CheckpointInfo

_GPU_BATCH = 8
Maps = tuple[NDArray[Any], NDArray[Any] | None]


class NetworkPredictor:
    """A network of the zoo, see `Predictor`.

    Uncertainty of an averaged prediction is averaged with the same weights as the depth, in the network's own space
    (for logarithmic kinds the geometric mean of the two scales): where the depth comes from one pass alone, so does it.
    """

    def __init__(
        self,
        network: DepthNetwork,
        options: PredictOptions | None = None,
        *,
        label: str = "network",
        info: CheckpointInfo | None = None,
        source: dict[str, Any] | None = None,
    ) -> None:
        """Take a network that lies on its device already.

        Args:
            network: switched to evaluation mode for each prediction and back.
            options: `device` is ignored; the network's own counts.
            label: for tables.
            info: of its checkpoint.
            source: for the record.

        Raises:
            UsageError: `amp` without CUDA, flip averaging with a stereo network, or another size than its only one.
        """
        self.options = options or PredictOptions()
        self.network, self.label, self.info = network, label, info
        rule = network.input_rule
        self.device = next((p.device for p in network.parameters()), torch.device("cpu"))
        self.stereo = _is_stereo(network)
        self.neighbours = network.neighbours
        if rule.size is not None and self.options.network_size is not None:
            raise UsageError(f"--network-size: {label} works at {rule.size[0]}x{rule.size[1]} pixels only.")
        self.size = self.options.network_size or rule.size
        self.any_size = self.size is None
        self.kind = "depth" if network.output == "depth" else "scaled-disparity"
        self.depth_scale = float(getattr(network, "depth_scale", 1.0))
        self.uncertainty_kind = network.uncertainty_kind
        self.batch_size = self.options.batch_size or (_GPU_BATCH if self.device.type == "cuda" else 1)
        self.trained_on = str(info.data["split"]) if info is not None and info.data.get("split") else None
        self.flip = _flip_rule(network, self.options.flip, label)
        self._source = source or {}
        self._lock, self._users = threading.Lock(), 0
        self._trained: list[torch.nn.Module] = []
        if self.options.amp and self.device.type != "cuda":
            raise UsageError(f"--amp: bfloat16 needs a CUDA device, and the network is on {self.device.type}.")

    @classmethod
    def load(cls, path: Path, options: PredictOptions) -> NetworkPredictor:
        """Load a checkpoint of ours; arguments and errors as `open_predictor`."""
        from adubench.training.checkpoint import load_network, read_info

        read_info(path)  # say what is wrong with the file before what is wrong with the device
        device = resolve_device(options.device)
        with _explained(f"network {path.name}"):
            network, info = load_network(path, device)
        source = {"checkpoint": str(path), "sha256": _sha256(path), "family": info.family, "role": info.role}
        return cls(network, options, label=path.stem, info=info, source=source | {"step": info.step})

    def describe(self) -> dict[str, Any]:
        """Say what predicts and how."""
        amp = "bfloat16" if self.options.amp else "off"
        predictor = {**self._source, "device": str(self.device), "batch_size": self.batch_size, "amp": amp}
        if self.options.network_size is not None:
            predictor["network_size"] = list(self.options.network_size)
        return {"predictor": predictor, "flip": self.flip or "off", "kb_crop": self.options.kb_crop}

    def predict(
        self,
        images: Sequence[Image],
        rights: Sequence[Image] | None = None,
        focals: Sequence[float | None] | None = None,
    ) -> list[Prediction]:
        """Predict; see `Predictor.predict`.

        Raises:
            UsageError: a stereo network without right images, or one of several images without the neighbours.
            DataError: views of different sizes, an image smaller than the KB window, or out of memory with one image.
        """
        check_views(images, rights, self.stereo, self.label)
        self._check_channels(images)
        if self.options.kb_crop:
            images = [crop_to_window(image) for image in images]
            rights = [crop_to_window(image) for image in rights] if rights is not None else None
        inputs = [self._input(image, rights[i] if rights is not None else None) for i, image in enumerate(images)]
        focal = [self._focal(focals[i] if focals is not None else None) for i in range(len(images))]
        out: list[Prediction] = []
        with self._evaluating():
            while len(out) < len(images):
                first = len(out)
                last = first + 1
                while (
                    last < len(images)
                    and last - first < self.batch_size
                    and inputs[last].shape == inputs[first].shape
                    and images[last].shape == images[first].shape
                ):
                    last += 1
                size = (int(images[first].shape[0]), int(images[first].shape[1]))
                out += self._batch(inputs[first:last], focal[first:last], size)
        return out

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Keep the network in evaluation mode while any thread predicts."""
        with self._lock:
            if self._users == 0:
                self._trained = [module for module in self.network.modules() if module.training]
                for module in self._trained:  # parts that stay frozen while others are trained stay so afterwards
                    module.training = False
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    for module in self._trained:
                        module.training = True

    def _check_channels(self, images: Sequence[Image]) -> None:
        wanted = 3 * (1 + len(self.neighbours))
        wrong = next((image.shape[2] for image in images if image.shape[2] != wanted), wanted)
        if wrong != wanted:
            others = ", ".join(f"{offset:+d}" for offset in self.neighbours)
            stack = f"a frame and behind it, on the last axis, its neighbours {others}" if others else "RGB images"
            raise UsageError(f"{self.label}: takes {stack}: {wanted} channels, got {wrong}.")

    def _input(self, image: Image, right: Image | None) -> Image:
        """Resize to the network's size if it has one; uint8 [H, W, C]."""
        views = [image[..., k : k + 3] for k in range(0, image.shape[2], 3)]
        if self.stereo and right is not None:
            views.append(right)
        if self.size is not None:
            resample = self.network.input_rule.resample
            views = [_resized(view, self.size, resample) for view in views]
        return np.ascontiguousarray(np.concatenate(views, axis=2))

    def _focal(self, known: float | None) -> float:
        return self.options.focal or known or DEFAULT_FOCAL

    def _batch(self, inputs: Sequence[Image], focals: Sequence[float], size: tuple[int, int]) -> list[Prediction]:
        """Predict one batch; where memory runs out, half of it at a time."""
        try:
            plain, mirrored = self._run(np.stack(inputs), focals)
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            half = len(inputs) // 2
            if half == 0:
                height, width = inputs[0].shape[:2]
                raise DataError(
                    f"{self.label}: out of memory on {self.device} with one image of {height}x{width}. Use "
                    "--device cpu, --amp on a GPU, smaller images, or a smaller network."
                ) from None
        else:
            return [self._prediction(plain, mirrored, i, size) for i in range(len(inputs))]
        # Outside the handler: the failed attempt's tensors must be gone first.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return self._batch(inputs[:half], focals[:half], size) + self._batch(inputs[half:], focals[half:], size)

    def _run(self, stack: NDArray[np.uint8], focals: Sequence[float]) -> tuple[Maps, Maps | None]:
        """Run the network on uint8 [B, H, W, C], and on the mirrored images where that is wanted."""
        rule = self.network.input_rule
        with torch.inference_mode():
            pixels = torch.from_numpy(stack).to(self.device).permute(0, 3, 1, 2).float().div_(255)
            repeats = pixels.shape[1] // len(rule.mean)
            mean, std = (
                torch.tensor(v * repeats, dtype=torch.float32, device=self.device).view(1, -1, 1, 1)
                for v in (rule.mean, rule.std)
            )
            images = pixels.sub_(mean).div_(std).contiguous()
            focal = torch.tensor(focals, dtype=torch.float32, device=self.device) if rule.needs_focal else None
            plain = self._infer(images, focal)
            return plain, self._infer(images.flip(-1), focal) if self.flip else None

    def _infer(self, images: Tensor, focal: Tensor | None) -> Maps:
        cast: Any = torch.autocast("cuda", torch.bfloat16) if self.options.amp else contextlib.nullcontext()
        with cast:
            found = self.network.infer(images, focal=focal)
        values = found.depth if self.kind == "depth" else found.disparity
        if values is None:
            raise DataError(f"{self.label}: the network announces {self.network.output} and returned none.")
        uncertainty = found.uncertainty
        return _numpy(values), _numpy(uncertainty) if uncertainty is not None else None

    def _prediction(self, plain: Maps, mirrored: Maps | None, i: int, size: tuple[int, int]) -> Prediction:
        values, uncertainty = self._one(plain, i)
        if mirrored is not None:
            average = _AVERAGES[self.flip]
            other, other_uncertainty = self._one(mirrored, i)
            values = average(values, other).astype(np.float32)
            if uncertainty is not None and other_uncertainty is not None:
                uncertainty = average(uncertainty, other_uncertainty).astype(np.float32)
        if self.kind == "depth" and values.shape != size:
            values = bilinear(values, size)
        if uncertainty is not None and uncertainty.shape != values.shape:
            uncertainty = bilinear(uncertainty, (int(values.shape[0]), int(values.shape[1])))
        kind = self.uncertainty_kind if uncertainty is not None else None
        return Prediction(np.ascontiguousarray(values), self.kind, uncertainty, kind, self.depth_scale)

    def _clamped(self, values: NDArray[Any]) -> NDArray[Any]:
        """Keep metres within the network's range where that is asked for."""
        config = self.network.config
        if not self.options.clamp or "max_depth" not in config:
            return values
        low = np.float32(config.get("min_depth", 1e-3))
        return np.asarray(np.clip(values, low, np.float32(config["max_depth"])))

    def _one(self, maps: Maps, i: int) -> Maps:
        """Take the maps of image i out of a pass; sigmoid disparity and its sigma become scaled disparity."""
        values, uncertainty = maps[0][i], maps[1][i] if maps[1] is not None else None
        if self.kind == "depth":
            return self._clamped(values), uncertainty
        near, far = self.network.depth_range or (0.1, 100.0)
        if uncertainty is not None and self.uncertainty_kind in ("b", "sigma"):
            uncertainty = uncertainty * np.float32(1 / near - 1 / far)
        return scaled_from_sigmoid(values, near, far), uncertainty


_AVERAGES: dict[str, Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float64]]] = {
    "blend": flip.blend,
    "mean": flip.mean,
}


def _is_stereo(network: DepthNetwork) -> bool:
    """Whether a network takes the right view as channels 3 to 5."""
    return network.input_rule.channels == 6 and network.output == "depth"


def _flip_rule(network: DepthNetwork, wanted: bool | None, label: str) -> str:
    """Name the averaging ("" for none): what was asked for, else what the reference of the network does by default."""
    stereo = _is_stereo(network)
    if stereo and wanted:
        raise UsageError(
            f"{label}: a stereo network sees mirrored pairs from the right camera; there is nothing to average. "
            "Leave --flip out."
        )
    if stereo or wanted is False:
        return ""
    if wanted is None:
        return network.flip if network.flip in _AVERAGES else ""
    return network.flip if network.flip in _AVERAGES else ("blend" if network.output == "disparity" else "mean")


def resolve_device(name: str) -> torch.device:
    """Choose a device; several processes of one launch take one GPU each.

    Raises:
        UsageError: no such device, or not on this machine.
    """
    import os

    local = int(os.environ.get("LOCAL_RANK", "0"))
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", local % torch.cuda.device_count())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name}: unknown; use auto, cpu, cuda, cuda:N or mps.") from None
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not here.get(str(device.type), False):
        raise UsageError(f"--device {name}: there is none on this machine (adubench env lists the devices).")
    if device.type == "cuda":
        index: int | None = device.index
        if index is None:
            return torch.device("cuda", local % torch.cuda.device_count())
        if index >= torch.cuda.device_count():
            raise UsageError(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices.")
    return device


@contextlib.contextmanager
def _explained(what: str) -> Any:
    """Turn running out of memory into a sentence."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _out_of_memory(error):
            raise
        raise DataError(f"{what}: out of memory while its weights were loaded. Use --device cpu.") from None


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    text = str(error)
    return "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text


def _numpy(maps: Tensor) -> NDArray[np.float32]:
    """(B, 1, H, W) on any device -> float32 [B, H, W]."""
    out: NDArray[np.float32] = maps[:, 0].float().cpu().numpy()
    return out


def _resized(image: Image, size: tuple[int, int], resample: str) -> Image:
    if image.shape[:2] == size:
        return image
    if resample == "point-bilinear":
        from adubench.datasets.transforms import resize_bilinear

        return resize_bilinear(image, size)
    from PIL import Image as Pillow

    filters = {"lanczos": Pillow.Resampling.LANCZOS, "bilinear": Pillow.Resampling.BILINEAR}
    return np.asarray(Pillow.fromarray(image).resize((size[1], size[0]), filters[resample]))


def _sha256(path: Path) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
