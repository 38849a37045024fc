"""Settings of ADU-Depth's distillation, with the names, defaults and values of a recipe's `distill` section."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from adubench.errors import UsageError, unknown_name


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """How student features are adapted before they are compared (eq. 1).

    Attributes:
        kind: attention, nothing, or convolutions.
        attention: `auto` is full attention up to `max_full_tokens` positions, else reduced.
        max_full_tokens: see `attention`.
        kv_budget: keys and values are pooled to about so many positions when attention is reduced.
        heads: number of heads; `C/32` gives heads of 32 channels; 1 as printed.
        scale: factor on the logits, 1/sqrt(width of a head) or `none` as printed.
        residual: add the unadapted feature.
        zero_init: the last layer starts at zero, so that an adapter with a residual starts as the identity.
    """

    kind: Literal["attention", "identity", "conv1x1", "conv3x3", "conv3x3x2"] = "attention"
    attention: Literal["auto", "full", "reduced", "window"] = "auto"
    max_full_tokens: int = 8192
    kv_budget: int = 2048
    heads: int | Literal["C/32"] = "C/32"
    scale: Literal["sqrt_d", "none"] = "sqrt_d"
    residual: bool = True
    zero_init: bool = True


@dataclass(frozen=True, slots=True)
class FeatureLevels:
    """Levels that are distilled, 0 (1/4) to 3 (1/32); empty is off."""

    encoder: tuple[int, ...] = (0, 1, 2, 3)
    decoder: tuple[int, ...] = (0, 1, 2, 3)


@dataclass(frozen=True, slots=True)
class FeatureConfig:
    """Reductions of the feature losses over channels and over levels."""

    channel_reduction: Literal["mean", "sum"] = "mean"
    level_reduction: Literal["mean", "sum"] = "mean"


@dataclass(frozen=True, slots=True)
class UemConfig:
    """Uncertainty estimation module.

    Attributes:
        enabled: weight features and responses by uncertainty (eqs. 7, 8); off: eqs. 2, 3, 6.
        scaling: `affine` bounds s to [s_min, s_max]; `gain` is a learned factor on a sigmoid.
        s_min: least s.
        s_max: greatest s.
        resize: how s reaches the size of a feature map.
        g: restoration of features in eq. 7: none, or scale and shift computed from s.
    """

    enabled: bool = True
    scaling: Literal["affine", "gain"] = "affine"
    s_min: float = -4.0
    s_max: float = 4.0
    resize: Literal["area", "bilinear", "nearest"] = "area"
    g: Literal["identity", "film"] = "identity"


@dataclass(frozen=True, slots=True)
class ResponseConfig:
    """Response distillation (eqs. 6 and 8).

    Attributes:
        laplace_form: `printed` reads s as ln sigma, `log_variance` as ln sigma^2.
        mask: all pixels, or those with ground truth.
        resolution: compare at image size or on the network's 1/4 map.
        space: compare metres, their logarithms, or reciprocals.
        reduction: over pixels.
    """

    laplace_form: Literal["printed", "log_variance"] = "printed"
    mask: Literal["all", "valid"] = "all"
    resolution: Literal["full", "quarter"] = "full"
    space: Literal["depth", "log", "inverse"] = "depth"
    reduction: Literal["mean", "sum"] = "mean"


@dataclass(frozen=True, slots=True)
class FocalConfig:
    """Focal-depth loss (eqs. 4 and 5), see `focal.focal_depth_loss`."""

    alpha: float = 1.0
    gamma: float = 2.0
    granularity: Literal["image", "batch", "pixel"] = "image"
    score: Literal["linear", "exp"] = "linear"
    eps: float = 0.01
    mask: Literal["all", "valid"] = "all"


@dataclass(frozen=True, slots=True)
class LambdaConfig:
    """Weights of the terms (eq. 9)."""

    umr: float = 0.9
    umf: float = 0.6
    focal: float = 0.8


@dataclass(frozen=True, slots=True)
class DistillationConfig:
    """All settings of the distillation; `enabled=False` leaves the base loss alone.

    Attributes:
        preset: `paper-literal` is what `paper_literal` makes of the other values.
        warmup_steps: the three weights grow linearly from 0 over so many steps.
    """

    enabled: bool = True
    preset: Literal["default", "paper-literal"] = "default"
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    features: FeatureLevels = field(default_factory=FeatureLevels)
    feature: FeatureConfig = field(default_factory=FeatureConfig)
    uem: UemConfig = field(default_factory=UemConfig)
    response: ResponseConfig = field(default_factory=ResponseConfig)
    focal: FocalConfig = field(default_factory=FocalConfig)
    lambda_: LambdaConfig = field(default_factory=LambdaConfig)
    warmup_steps: int = 0

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> DistillationConfig:
        """Read the `distill` section of a recipe; missing keys take their defaults, the preset is applied.

        Raises:
            UsageError: a key or value that does not exist.
        """
        config: DistillationConfig = _read(cls, values, "distill")
        return paper_literal(config) if config.preset == "paper-literal" else config

    def ramp(self, step: int) -> float:
        """Factor on the three weights at an optimiser step, counted from 0."""
        return min(1.0, step / self.warmup_steps) if self.warmup_steps else 1.0


def paper_literal(config: DistillationConfig | None = None) -> DistillationConfig:
    """The equations with nothing added: for the record and for comparisons, not a good start for training.

    One head, logits without a factor, no residual, no output projection, full attention, and the squared norm over
    channels of eqs. 2, 3 and 7. The response term keeps the 1/N that eq. 8 prints. Settings of `config` that differ
    from their defaults stay as they are.
    """
    config = config or DistillationConfig()
    literal = AdapterConfig(heads=1, scale="none", residual=False, zero_init=False, attention="full")
    return dataclasses.replace(
        config,
        preset="paper-literal",
        adapter=_over_defaults(config.adapter, literal),
        feature=_over_defaults(config.feature, FeatureConfig(channel_reduction="sum")),
    )


def _over_defaults(given: Any, preset: Any) -> Any:
    """Values of `given` where they differ from their defaults, else those of the preset."""
    default = type(given)()
    names = [f.name for f in dataclasses.fields(given)]
    chosen = {n: getattr(given if getattr(given, n) != getattr(default, n) else preset, n) for n in names}
    return type(given)(**chosen)


def _read(cls: Any, values: Mapping[str, Any], where: str) -> Any:
    """Build a (nested) settings class from plain values."""
    if not isinstance(values, Mapping):
        raise UsageError(f"{where} must be a section of named values, not {values!r}.")
    hints = get_type_hints(cls)
    names = {f.name.rstrip("_"): f.name for f in dataclasses.fields(cls)}
    found = {}
    for key, value in values.items():
        if key.rstrip("_") not in names:
            raise unknown_name(f"key of {where}", key, names)
        name = names[key.rstrip("_")]
        found[name] = _checked(hints[name], value, f"{where}.{key.rstrip('_')}")
    return cls(**found)


def _checked(hint: Any, value: Any, where: str) -> Any:
    """The value in the type of its field, or an error that says what is allowed."""
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else _read(hint, value, where)  # type: ignore[arg-type]
    if get_origin(hint) is tuple:
        if isinstance(value, list | tuple) and all(_is_whole(v) and 0 <= v <= 3 for v in value):
            return tuple(sorted(set(value)))
        raise UsageError(f"{where} must be a list of levels from 0 to 3, not {value!r}.")
    choices = _choices(hint)
    if isinstance(value, str) and choices:
        if value in choices:
            return value
        raise unknown_name(f"value of {where}", value, choices)
    if hint is bool and isinstance(value, bool):
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if (hint is int or int in get_args(hint)) and _is_whole(value) and value >= 0:
        return value
    wanted = " or ".join(choices) if choices else {bool: "true or false", float: "a number"}.get(hint, "a whole number")
    raise UsageError(f"{where} must be {wanted}, not {value!r}.")


def _choices(hint: Any) -> list[str]:
    if get_origin(hint) is Literal:
        return [str(name) for name in get_args(hint)]
    return [str(name) for part in get_args(hint) if get_origin(part) is Literal for name in get_args(part)]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
