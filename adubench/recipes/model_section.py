"""Section `model`: a student of another family than NeWCRFs. Its keys are those of the family in the zoo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field

from adubench.recipes.section import Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adubench.recipes.schema import Recipe

#: Family -> the keys of its configuration that a recipe may set. `max_depth` stands in `data`, `pretrained` in `init`.
MODEL_KEYS: dict[str, tuple[str, ...]] = {
    "densedepth": ("encoder", "head", "n_bins", "min_depth"),
    "adabins": ("layout", "n_bins", "min_depth", "norm", "resize"),
    "bts": ("layout", "encoder", "width", "min_depth", "dataset", "resize"),
}
#: Family and key -> the values it takes.
MODEL_CHOICES: dict[tuple[str, str], tuple[str, ...]] = {
    ("densedepth", "encoder"): ("mobilenetv2", "resnet18", "resnet50"),
    ("densedepth", "head"): ("dpm", "regression"),
    ("adabins", "layout"): ("official", "toolbox"),
    ("adabins", "norm"): ("linear", "softmax", "sigmoid"),
    ("bts", "layout"): ("official", "toolbox"),
    ("bts", "encoder"): ("resnet50", "resnet101", "resnext50", "resnext101", "densenet121", "densenet161"),
    ("bts", "dataset"): ("kitti", "nyu"),
}
_OWN = ("family", "init", "weights")


class ModelSection(Section):
    """A network of the zoo; keys other than these are the family's own (`MODEL_KEYS`).

    Attributes:
        family: name in the zoo (`adubench list models`).
        init: `imagenet` (timm's weights of the encoder), `random`, or `checkpoint:<file>` of the same network.
        weights: `hub`, or a local weight file of the encoder.
    """

    model_config = ConfigDict(extra="allow")

    family: str
    init: str = Field(default="imagenet", pattern=r"^(imagenet|random|checkpoint:.+)$")
    weights: str = "hub"

    @property
    def keys(self) -> dict[str, Any]:
        """The family's own keys as plain values."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in (self.__pydantic_extra__ or {}).items()}


def check_model(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong) of section `model`."""
    from adubench.errors import unknown_name

    model = recipe.model
    if model is None:
        return
    if model.family not in MODEL_KEYS:
        yield "model.family", str(unknown_name("model family for training", model.family, MODEL_KEYS))
        return
    known = (*MODEL_KEYS[model.family], *_OWN)
    for key, value in model.keys.items():
        if key == "max_depth":
            yield "model.max_depth", "the range of the network stands in data.max_depth; leave it out here."
        if key == "pretrained":
            yield "model.pretrained", "the start of the network stands in model.init (imagenet, random)."
        if key not in known:
            yield f"model.{key}", str(unknown_name(f"key of the {model.family} network", key, sorted(known)))
        choices = MODEL_CHOICES.get((model.family, key))
        if choices is not None and value not in choices:
            yield f"model.{key}", str(unknown_name(f"value of a {model.family} network", str(value), choices))
