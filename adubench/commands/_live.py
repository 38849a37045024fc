"""`adubench eval` of something that predicts: its options, and how they become the source of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adubench.commands.predict import predictor_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from adubench.training.live_predictions import LivePredictor
    from adubench.training.predictor import Prediction, Predictor

_PATH = click.Path(path_type=Path)
# Options that predictions on disk have no use for: argument -> the value of who does not use it.
_OWN: dict[str, Any] = {
    "device": "auto",
    "batch_size": None,
    "network_size": None,
    "amp": False,
    "flip": None,
    "kb_crop": None,
    "focal": None,
    "right": None,
    "save_predictions": None,
}
_FOREIGN = (".pth", ".pt", ".ckpt", ".bin")

_OPTIONS = (
    click.option(
        "--kb-crop/--no-kb-crop",
        default=None,
        help="Predict the 352x1216 window alone. Default: where the protocol scores it and the network can.",
    ),
    click.option("--focal", type=float, help="Focal length in pixels, for BTS. Default: the data set's."),
    click.option("--right", type=_PATH, help="Right images of a stereo network, beside --images."),
    click.option("--save-predictions", type=_PATH, help="Keep the predictions (.npy) in this folder."),
)


@dataclass(frozen=True, slots=True)
class Live:
    """A predictor ready to be evaluated, and what follows for the evaluation.

    Attributes:
        source: for `evaluate`.
        kind: of its maps, for the evaluator.
        alignment: to apply; None leaves the protocols' own.
        protocols: names; empty for the split's own.
        uncertainty_kind: of the maps that come with it, None for none.
        label: for tables.
    """

    source: LivePredictor
    kind: str
    alignment: str | None
    protocols: tuple[str, ...]
    uncertainty_kind: str | None
    label: str


def live_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that only something that predicts understands."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return predictor_options(command)


def predicts(source: str | Path) -> bool:
    """Whether a source predicts, by its name alone (and without importing anything)."""
    text = str(source)
    return text.startswith("hf:") or text.lower().endswith((".safetensors", ".py", *_FOREIGN))


def drop_options(arguments: dict[str, Any]) -> None:
    """Remove these options from the arguments of an evaluation of files.

    Raises:
        UsageError: one was used.
    """
    from adubench.errors import UsageError

    for name, unused in _OWN.items():
        if arguments.pop(name) != unused:
            option = name.replace("_", "-")
            raise UsageError(f"--{option} belongs to something that predicts (a checkpoint); SOURCE holds predictions.")


def open_live(
    source: Path, arguments: dict[str, Any], *, split: str | None, protocols: tuple[str, ...], kind: str | None
) -> Live:
    """Open a predictor for an evaluation and take its options out of the arguments.

    Args:
        source: what the user named.
        arguments: of the command; these options are removed, `alignment` and `images` are read.
        split: of the evaluation.
        protocols: named by the user.
        kind: named by the user, None for none.

    Raises:
        UsageError: options that do not fit the predictor.
        CheckpointError: a broken checkpoint.
    """
    from adubench.errors import UsageError
    from adubench.training.live_predictions import LivePredictor
    from adubench.training.predictor import PredictOptions, check_use, evaluator_kind, open_predictor

    own = {name: arguments.pop(name) for name in _OWN}
    save, right, kb_crop = own.pop("save_predictions"), own.pop("right"), own.pop("kb_crop")
    images = arguments["images"]
    if arguments["regions"] is None:
        arguments["images"] = None  # the option serves predictions here; alone, it would ask for --regions
    declared = kind if _declares_itself(source) else None
    options = PredictOptions(**own, kind=declared, kb_crop=bool(kb_crop))
    predictor = open_predictor(source, options)
    for note in check_use(predictor, right=right, focal=options.focal):
        click.echo(f"note: {note}", err=True)
    if kind is not None and declared is None and kind != predictor.kind:
        raise UsageError(f"--kind {kind}: {source} predicts {predictor.kind}; leave --kind out.")
    its_kind, needed = evaluator_kind(predictor)
    protocols, alignment = _settle(protocols, split, arguments["alignment"], needed)
    if kb_crop is None:
        _set_window(predictor, _scores_window(protocols, split))
    record = {"trained_on": predictor.trained_on} if predictor.trained_on else {}
    live = LivePredictor(
        predictor, source, images=images, right=right, save=_saver(save) if save is not None else None, record=record
    )
    return Live(live, its_kind, alignment, protocols, predictor.uncertainty_kind, predictor.label)


def _declares_itself(source: Path) -> bool:
    return str(source).startswith("hf:") or source.suffix.lower() == ".py"


def _settle(
    protocols: tuple[str, ...], split: str | None, alignment: str | None, needed: str
) -> tuple[tuple[str, ...], str | None]:
    """Choose protocols and alignment for maps that need one: depth without a scale cannot be scored as metres."""
    from adubench.evaluators.protocols import get_protocol

    if alignment is not None or needed == "none":
        return protocols, alignment
    default = _default_protocol(split)
    if not protocols and needed == "median" and default == "kitti-eigen":
        return ("kitti-eigen-raw",), None  # what self-supervised networks are scored under in the literature
    if "all" in protocols:
        return protocols, needed
    if any("alignment=" in name for name in protocols):  # what the user wrote out stays as it is
        given = [name if "alignment=" in name else get_protocol(name).with_options(alignment=needed).name
                 for name in protocols]  # fmt: skip
        return tuple(given), None
    chosen = [get_protocol(name) for name in protocols or (default or "full-frame",)]
    return protocols, None if all(p.alignment == needed for p in chosen) else needed


def _default_protocol(split: str | None) -> str:
    from adubench.datasets.splits import ALIASES, SPLITS

    info = SPLITS.get(ALIASES.get(split or "", split or ""))
    return info.default_protocol if info is not None else ""


def _scores_window(protocols: tuple[str, ...], split: str | None) -> bool:
    from adubench.evaluators.protocols import get_protocol

    names = [name for name in protocols if name != "all"] or [_default_protocol(split) or "full-frame"]
    return get_protocol(names[0]).frame == "window"


def _set_window(predictor: Predictor, window: bool) -> None:
    """Cut the window out where the protocol scores it and the network takes images of any size."""
    import dataclasses

    options = getattr(predictor, "options", None)
    if window and predictor.any_size and dataclasses.is_dataclass(options):
        predictor.options = dataclasses.replace(options, kb_crop=True)  # type: ignore[attr-defined, type-var]


def _saver(folder: Path) -> Callable[[str, Prediction], None]:
    """Write predictions as they are scored; uncertainty to a folder of its own, as `adubench predict` does."""
    from adubench.training.prediction_files import FolderWriter
    from adubench.training.prediction_run import OutputOptions

    maps, beside = FolderWriter(folder, "npy"), FolderWriter(OutputOptions(root=folder).uncertainty_root, "npy")

    def save(name: str, prediction: Prediction) -> None:
        maps.write(name, prediction.values)
        if prediction.uncertainty is not None:
            beside.write(name, prediction.uncertainty)

    return save
