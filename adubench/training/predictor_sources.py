"""Predictors that are not of our zoo: a user's Python file, and depth models of `transformers`.

What their maps mean is declared, never guessed. A Python file is the user's own program and runs as such.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import AdubenchError, DataError, UsageError, unknown_name
from adubench.evaluators import flip
from adubench.training.predictor import (
    KINDS,
    Image,
    Prediction,
    PredictOptions,
    check_views,
    crop_to_window,
)

UNCERTAINTY_KINDS = ("sigma", "variance", "b", "log_b", "log_sigma", "log_variance", "score")
_DECLARE = "Declare it in the file: KIND = 'depth' (metres), or one of the others; or give --kind."


class PythonPredictor:
    """A Python file with `predict(image)`, or `load()` and `predict(model, image)`; see `Predictor`.

    `image` is uint8 [H, W, 3]; what comes back is a map [h, w], or a pair (map, uncertainty map). Module constants:
    `KIND` (one of `KINDS`), `UNCERTAINTY_KIND`, and `STEREO = True` for a `predict` that takes the right image last.
    """

    any_size = True
    depth_scale = 1.0

    def __init__(self, path: Path, options: PredictOptions) -> None:
        self.path, self.options, self.label = path, options, path.stem
        self.batch_size = options.batch_size or 1
        self.trained_on: str | None = None
        module = _run_file(path)
        self.kind = _declared(module, options, path)
        self.stereo = bool(getattr(module, "STEREO", False))
        self.uncertainty_kind = getattr(module, "UNCERTAINTY_KIND", None)
        if self.uncertainty_kind is not None and self.uncertainty_kind not in UNCERTAINTY_KINDS:
            raise unknown_name(f"UNCERTAINTY_KIND in {path}", str(self.uncertainty_kind), UNCERTAINTY_KINDS)
        if options.amp:
            raise UsageError(f"--amp: {path.name} runs as it is written; switch precision there.")
        if self.stereo and options.flip:
            raise UsageError(f"{path.name}: a stereo predictor has nothing to average; leave --flip out.")
        self._predict = self._bound(module)

    def describe(self) -> dict[str, Any]:
        """Say what predicts and how."""
        source = {"file": str(self.path), "sha256": hashlib.sha256(self.path.read_bytes()).hexdigest()}
        return {
            "predictor": source,
            "flip": "mean" if self.options.flip else "off",
            "kb_crop": self.options.kb_crop,
        }

    def predict(
        self,
        images: Sequence[Image],
        rights: Sequence[Image] | None = None,
        focals: Sequence[float | None] | None = None,
    ) -> list[Prediction]:
        """Predict image by image; see `Predictor.predict`.

        Raises:
            DataError: the file's own code failed, or returned no map.
        """
        check_views(images, rights, self.stereo, self.label)
        out = []
        for i, image in enumerate(images):
            views = [image] if rights is None or not self.stereo else [image, rights[i]]
            if self.options.kb_crop:
                views = [crop_to_window(view) for view in views]
            plain = self._call(views)
            if self.options.flip:
                mirrored = self._call([np.ascontiguousarray(views[0][:, ::-1])])
                plain = _averaged(plain, mirrored)
            out.append(self._finished(plain, views[0]))
        return out

    def _bound(self, module: ModuleType) -> Callable[..., Any]:
        """Join `predict` to what `load` returns."""
        predict = getattr(module, "predict", None)
        if not callable(predict):
            raise DataError(f"{self.path}: has no function predict(image).")
        load = getattr(module, "load", None)
        views = 2 if self.stereo else 1
        wanted = _positional(predict)
        model = self._guarded("load", load) if callable(load) else None
        if wanted == views + 1 and callable(load):
            return lambda *images: predict(model, *images)
        if wanted is None or wanted == views:
            return lambda *images: predict(*images)
        form = "predict(left, right)" if self.stereo else "predict(image)"
        raise DataError(
            f"{self.path}: its predict takes {wanted} arguments; expected {form}, or with what load() returns in front."
        )

    def _call(self, views: Sequence[Image]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        found = self._guarded("predict", self._predict, *views)
        pair = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
        values, uncertainty = (_as_map(part, self.path) if part is not None else None for part in pair)
        if values is None:
            raise DataError(f"{self.path}: predict returned no map.")
        return values, uncertainty

    def _guarded(self, what: str, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except (AdubenchError, KeyboardInterrupt):
            raise
        except (Exception, SystemExit) as error:
            raise DataError(f"{self.path}: {what} failed: {_where(error, self.path)}.") from None

    def _finished(self, plain: tuple[NDArray[Any], NDArray[Any] | None], image: Image) -> Prediction:
        from adubench.evaluators.resize import bilinear

        values, uncertainty = plain
        size = (int(image.shape[0]), int(image.shape[1]))
        if self.kind in ("depth", "relative-depth") and values.shape != size:
            raise DataError(
                f"{self.path}: predict returned a map of {values.shape[0]}x{values.shape[1]} for an image of "
                f"{size[0]}x{size[1]}; resize it in the file."
            )
        if uncertainty is not None and uncertainty.shape != values.shape:
            uncertainty = bilinear(uncertainty, (int(values.shape[0]), int(values.shape[1])))
        if uncertainty is not None and self.uncertainty_kind is None:
            raise DataError(f"{self.path}: returns uncertainty without saying what it means: set UNCERTAINTY_KIND.")
        kind = self.uncertainty_kind if uncertainty is not None else None
        return Prediction(values, self.kind, uncertainty, kind)


class TransformersPredictor:
    """A depth model of `transformers`, by name or local folder; see `Predictor`.

    The processor of the model resizes; what comes out is brought back to the image's size by its own function and
    clamped to the model's range.
    """

    stereo = False
    any_size = True
    depth_scale = 1.0
    uncertainty_kind: str | None = None

    def __init__(self, name: str, options: PredictOptions) -> None:
        self.name, self.options, self.label = name, options, Path(name).name
        self.batch_size = options.batch_size or 1
        self.trained_on: str | None = None
        transformers = _transformers()
        self._model, self._processor = _pretrained(transformers, name)
        from adubench.training.network_predictor import resolve_device

        self.device = resolve_device(options.device)
        if options.amp and self.device.type != "cuda":
            raise UsageError(f"--amp: bfloat16 needs a CUDA device, and the model is on {self.device.type}.")
        self._model = self._model.to(self.device).eval()
        self.kind = options.kind or hf_kind(self._model.config, name)
        top = getattr(self._model.config, "max_depth", None)
        self.max_depth = float(top) if top else None
        self.flip = "mean" if options.flip else ""
        self._sha256: str | None = None

    def describe(self) -> dict[str, Any]:
        """Say what predicts and how: name, revision, hash of the weights, number type."""
        config = self._model.config
        source = {
            "transformers": self.name,
            "revision": getattr(config, "_commit_hash", None),
            "sha256": self._digest(),
            "model_type": config.model_type,
            "dtype": str(self._model.dtype),
            "device": str(self.device),
            "amp": "bfloat16" if self.options.amp else "off",
        }
        return {"predictor": source, "flip": self.flip or "off", "kb_crop": self.options.kb_crop}

    def predict(
        self,
        images: Sequence[Image],
        rights: Sequence[Image] | None = None,
        focals: Sequence[float | None] | None = None,
    ) -> list[Prediction]:
        """Predict image by image; see `Predictor.predict`."""
        out = []
        for image in images:
            view = crop_to_window(image) if self.options.kb_crop else image
            values = self._depth(view)
            if self.flip:
                values = flip.mean(values, self._depth(np.ascontiguousarray(view[:, ::-1]))).astype(np.float32)
            out.append(Prediction(values, self.kind))
        return out

    def _digest(self) -> str:
        """Hash the weights themselves: a name or folder may hold others tomorrow."""
        if self._sha256 is None:
            digest = hashlib.sha256()
            for name, value in sorted(self._model.state_dict().items()):
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
                digest.update(value.detach().cpu().contiguous().reshape(-1).view(_torch().uint8).numpy())
            self._sha256 = digest.hexdigest()
        return self._sha256

    def _depth(self, image: Image) -> NDArray[np.float32]:
        torch = _torch()
        size = (int(image.shape[0]), int(image.shape[1]))
        extra = {"source_sizes": [size]} if self._model.config.model_type == "zoedepth" else {}
        try:
            inputs = self._processor(images=image, return_tensors="pt").to(self.device)
            with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=self.options.amp):
                outputs = self._model(**inputs)
            found = self._processor.post_process_depth_estimation(outputs, target_sizes=[size], **extra)
            values = found[0]["predicted_depth"].float().cpu().numpy()
        except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise DataError(
                f"hf:{self.name}: the model failed on an image of {size[0]}x{size[1]} ({reason})."
            ) from None
        if self.kind == "depth":  # bicubic interpolation overshoots
            values = np.clip(values, 1e-3, self.max_depth)
        elif self.kind.endswith("disparity"):
            values = np.maximum(values, 0.0)
        return np.ascontiguousarray(values, np.float32)


def hf_kind(config: Any, name: str) -> str:
    """Say what a model's output means, from its configuration.

    Raises:
        UsageError: a type whose meaning its configuration does not tell, or that is no monocular depth.
    """
    kind = config.model_type
    if kind in ("glpn", "zoedepth", "depth_pro"):
        return "depth"
    if kind == "depth_anything":
        return "depth" if getattr(config, "depth_estimation_type", "relative") == "metric" else "relative-disparity"
    if kind == "dpt":
        raise UsageError(
            f"hf:{name}: DPT models predict relative inverse depth (Intel/dpt-*) or metres (facebook/dpt-dinov2-*): "
            "say which with --kind relative-disparity or --kind depth."
        )
    raise UsageError(f"hf:{name}: model type '{kind}' predicts no depth from one image alone.")


def _torch() -> Any:
    import torch

    return torch


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise UsageError("hf: models need the extra packages: pip install 'adubench[hf]'.") from None
    return transformers


def _pretrained(transformers: Any, name: str) -> tuple[Any, Any]:
    if name.startswith((".", "/", "~")) and not Path(name).is_dir():
        raise DataError(f"hf:{name}: there is no such folder.")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(name)
        if config.model_type in ("prompt_depth_anything", "chmv2", "tipsv2_dpt"):
            hf_kind(config, name)
        model = transformers.AutoModelForDepthEstimation.from_pretrained(name)
        processor = transformers.AutoImageProcessor.from_pretrained(name)
    except AdubenchError:
        raise
    except Exception as error:  # OSError, ValueError, huggingface_hub's own, safetensors' own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        where = "folder" if Path(name).is_dir() else "model"
        raise DataError(
            f"hf:{name}: this {where} cannot be loaded ({reason}). Offline, download it first and give its folder: "
            "hf:PATH."
        ) from None
    return model, processor


def _run_file(path: Path) -> ModuleType:
    """Execute the user's file as a module of its own."""
    if not path.is_file():
        raise DataError(f"predictor not found: {path}.")
    name = f"adubench_user_{path.stem}"
    loader = SourceFileLoader(name, str(path))
    spec = spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look a module up by its name
    folder, writes = str(path.resolve().parent), sys.dont_write_bytecode
    sys.path.insert(0, folder)
    sys.dont_write_bytecode = True
    try:
        loader.exec_module(module)
    except (AdubenchError, KeyboardInterrupt):
        raise
    except BaseException as error:  # the file may even call sys.exit
        raise DataError(f"{path}: cannot be run: {_where(error, path)}.") from None
    finally:
        sys.path.remove(folder)
        sys.dont_write_bytecode = writes
    return module


def _declared(module: ModuleType, options: PredictOptions, path: Path) -> str:
    kind = options.kind or getattr(module, "KIND", None)
    if kind is None:
        raise UsageError(f"{path}: does not say what it predicts. {_DECLARE}")
    if kind not in KINDS:
        raise unknown_name(f"KIND in {path}", str(kind), KINDS)
    return str(kind)


def _positional(function: Callable[..., Any]) -> int | None:
    """Number of arguments without a default; None where a signature does not tell."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty for p in parameters)


def _as_map(value: Any, path: Path) -> NDArray[np.float32]:
    """Turn what user code returns (array, tensor of any device, list) into float32 [h, w]."""
    if hasattr(value, "detach"):
        value = value.detach().float().cpu().numpy()
    try:
        given = np.asarray(value)
        if given.dtype.kind not in "biuf":  # casting would make NaN of None, and drop imaginary parts
            raise TypeError
        array = np.asarray(given, np.float32)
    except (TypeError, ValueError):
        raise DataError(f"{path}: predict returned {type(value).__name__}, expected a map [H, W].") from None
    squeezed = array.reshape(array.shape[-2:]) if array.ndim > 2 and array.size == np.prod(array.shape[-2:]) else array
    if squeezed.ndim != 2 or 0 in squeezed.shape:
        raise DataError(f"{path}: predict returned an array of shape {array.shape}, expected a map [H, W].")
    return np.ascontiguousarray(squeezed)


def _averaged(
    plain: tuple[NDArray[Any], NDArray[Any] | None], mirrored: tuple[NDArray[Any], NDArray[Any] | None]
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    uncertainty = plain[1]
    if uncertainty is not None and mirrored[1] is not None:
        uncertainty = flip.mean(uncertainty, mirrored[1]).astype(np.float32)
    return flip.mean(plain[0], mirrored[0]).astype(np.float32), uncertainty


def _where(error: BaseException, path: Path) -> str:
    """Name an error of user code with the line of the file that it came through."""
    line = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    if isinstance(error, SyntaxError):
        line = error.lineno
    text = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    at = f" (line {line})" if line else ""
    return f"{type(error).__name__}{at}{': ' + text if text else ''}"
