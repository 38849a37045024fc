"""Options of `adubench eval` about regions, uncertainty and boundaries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

_PATH = click.Path(path_type=Path)
# Name of the option's argument -> field of `RegionRequest`.
_REGION_FIELDS = {
    "depth_bins": "depth_bins",
    "edge_preset": "edge_preset",
    "edge_gap": "edge_gap",
    "edge_t": "edge_t",
    "edge_kappa": "edge_kappa",
    "edge_bands": "edge_bands",
    "edge_bands_unit": "edge_bands_unit",
    "light_quantiles": "light_quantiles",
    "cross": "cross",
    "drop_seethrough": "drop_seethrough",
    "region_min_px": "least_per_image",
    "images": "images",
    "intrinsics": "intrinsics",
    "semantic": "labels",
    "ext_edges": "edges",
    "cache_regions": "cache",
    "save_masks": "overlays",
    "bin_by": "bin_by",
    "group_by": "groups",
    "region_agg": "aggregation",
}
# What options are worth that nobody gave; others are None, () or False.
_UNUSED = {"region_min_px": 50, "bin_by": "gt", "region_agg": "pooled"}

# Options of regions that boundary metrics read too.
_SHARED = ("edge_preset", "edge_gap", "edge_kappa", "intrinsics", "semantic", "ext_edges")
_UNCERTAINTY_FIELDS = {
    "uncertainty_maps": "maps",
    "uncertainty_kind": "kind",
    "unc_space": "space",
    "unc_family": "family",
    "sigma_floor": "floor",
    "ause_steps": "steps",
    "flipped_predictions": "flipped",
    "flip_disagreement": "flip",
    "calib_split": "calibration",
    "calib_predictions": "calibration_predictions",
    "calib_maps": "calibration_maps",
}

_OPTIONS = (
    click.option(
        "--regions",
        is_flag=False,
        flag_value="default",
        metavar="[=LIST]",
        help="Sum over regions too: alone for the usual families; =all, or =depth,edge,... (the list only with '=').",
    ),
    click.option("--depth-bins", help="Bounds in metres, e.g. 0,20,40,60,80, or log:K."),
    click.option("--edge-preset", help="Pairs of a depth edge: auto, dense, improved or raw. Default: auto."),
    click.option("--edge-gap", metavar="GX,GY", help="Largest gaps of a pair in pixels, instead of the preset's."),
    click.option("--edge-t", type=float, help="Smallest relative jump of a depth edge. Default: 0.1."),
    click.option("--edge-kappa", help="Slant factor, or none. Default: 0.5."),
    click.option("--edge-bands", help="Bounds of the bands around edges. Default: 0,2,5,10."),
    click.option("--edge-bands-unit", help="px or mrad."),
    click.option("--light-quantiles", help="Bounds of light by quantiles of the data set, e.g. 0.1,0.25,0.75."),
    click.option("--cross", multiple=True, metavar="A,B", help="Product of two families of bins, e.g. depth,edge."),
    click.option("--drop-seethrough", is_flag=True, help="Take see-through suspects out of the other regions."),
    click.option(
        "--region-min-px",
        type=int,
        default=50,
        show_default=True,
        help="Pixels an image needs in a region to enter its mean over images.",
    ),
    click.option(
        "--region-agg",
        type=click.Choice(["pooled", "image-mean", "both"]),
        default="pooled",
        show_default=True,
        help="What tables show of a region; files hold both.",
    ),
    click.option(
        "--bin-by",
        type=click.Choice(["gt", "pred"]),
        default="gt",
        show_default=True,
        help="pred: rows by predicted distance too, the model's own pixels (never to be compared between models).",
    ),
    click.option("--group-by", metavar="CSV", help="Rows per group of images: drive, light, or a CSV image,group."),
    click.option("--images", type=_PATH, help="Camera images by frame name; default: those of the data set."),
    click.option("--intrinsics", metavar="FX,FY,CX,CY", help="One camera for all images; default: the data set's."),
    click.option("--semantic", type=_PATH, help="Label maps (PNG of Cityscapes train ids) by frame name."),
    click.option("--ext-edges", type=_PATH, help="Edges drawn by people (PNG or text) by frame name."),
    click.option("--cache-regions", help="Folder where masks are kept, or 'off'. Default: the cache folder."),
    click.option("--save-masks", type=_PATH, help="Write pictures of the masks there."),
    click.option(
        "--boundary-metrics",
        is_flag=False,
        flag_value="default",
        metavar="[=LIST]",
        help="Score object boundaries too: alone what suits the ground truth; =all, or =dbe,sbf1,... (only with '=').",
    ),
    click.option("--reference-quirks", is_flag=True, help="Boundary metrics without the masks that references lack."),
    click.option("--uncertainty", is_flag=True, help="Measure uncertainty maps too; needs the two options below."),
    click.option("--uncertainty-maps", type=_PATH, help="One map per prediction, named and sized like it."),
    click.option(
        "--uncertainty-kind", help="sigma, variance, b, log_b, log_sigma, log_variance, or score (ranks only)."
    ),
    click.option("--unc-space", help="Space of the residual: depth, log or inv. Default: depth."),
    click.option("--unc-family", help="gaussian or laplace. Default: that of the kind."),
    click.option("--sigma-floor", type=float, help="Smallest sigma. Default: 0.001."),
    click.option("--ause-steps", type=int, help="Steps of sparsification. Default: 50."),
    click.option(
        "--unc-agg",
        type=click.Choice(["image-mean", "pooled"]),
        default="image-mean",
        show_default=True,
        help="pooled: sparsification over the pixels of all images too.",
    ),
    click.option(
        "--flipped-predictions",
        type=_PATH,
        help="Predictions for the mirrored images, as predicted: their difference is a baseline, or the uncertainty.",
    ),
    click.option("--flip-disagreement", is_flag=True, default=None, help="The same, predicted by a checkpoint."),
    click.option("--calib-split", help="Recalibrate sigma on this split, which shares no drive with --split."),
    click.option("--calib-predictions", type=_PATH, help="Predictions for --calib-split. Default: SOURCE."),
    click.option("--calib-maps", type=_PATH, help="Uncertainty maps for it. Default: --uncertainty-maps."),
    click.option(
        "--teacher-maps", type=_PATH, help="Depth maps of a teacher: similarity, and uncertainty against them."
    ),
    click.option(
        "--teacher-range",
        type=click.FloatRange(min=0, min_open=True),
        help="Metres of code 65535 in teacher PNGs without teacher.json (TIE-KD's release: 80). Default: codes / 256.",
    ),
)


def analysis_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def take_requests(arguments: dict[str, Any], *, predicted: str | None = None) -> dict[str, Any]:
    """Take the arguments of these options out of a command's and make fields of `EvalOptions` of them.

    Args:
        arguments: of the command; those of these options are removed.
        predicted: kind of the uncertainty that comes with the predictions; None where files are scored.

    Raises:
        UsageError: an option without the one that it serves, or unknown names.
    """
    found = _boundaries(arguments)
    shared = (*(_SHARED if found else ()), *(("images",) if arguments["uncertainty"] else ()))
    images = arguments["images"]
    return found | _regions(arguments, shared=shared) | _uncertainty(arguments, predicted, images)


def _regions(arguments: dict[str, Any], shared: tuple[str, ...]) -> dict[str, Any]:
    from adubench.errors import UsageError

    families = arguments.pop("regions")
    values = {field: arguments.pop(option) for option, field in _REGION_FIELDS.items()}
    if families is not None and families != "none":
        from adubench.evaluators.region_run import RegionRequest

        return {"regions": RegionRequest(families=families, **values)}
    for option, field in _REGION_FIELDS.items():
        if values[field] not in (None, (), False, _UNUSED.get(option)) and option not in shared:
            raise UsageError(f"--{option.replace('_', '-')} belongs to --regions: add --regions.")
    return {}


def _boundaries(arguments: dict[str, Any]) -> dict[str, Any]:
    from adubench.errors import UsageError

    groups, quirks = arguments.pop("boundary_metrics"), arguments.pop("reference_quirks")
    if groups is None:
        if quirks:
            raise UsageError("--reference-quirks belongs to --boundary-metrics: add --boundary-metrics.")
        return {}
    from adubench.evaluators.boundary_run import BoundaryRequest, check_request

    values = {_REGION_FIELDS[option]: arguments[option] for option in _SHARED}
    request = BoundaryRequest(groups=groups, reference_quirks=quirks, **values)
    check_request(request)
    return {"boundaries": request}


def _uncertainty(arguments: dict[str, Any], predicted: str | None, images: Path | None) -> dict[str, Any]:
    from adubench.errors import UsageError

    asked, pooled = arguments.pop("uncertainty"), arguments.pop("unc_agg") == "pooled"
    values = {option: arguments.pop(option) for option in _UNCERTAINTY_FIELDS}
    given = {option: value for option, value in values.items() if value is not None}
    if not asked:
        if pooled:
            raise UsageError("--unc-agg belongs to --uncertainty: add --uncertainty.")
        if given:
            raise UsageError(f"--{next(iter(given)).replace('_', '-')} belongs to --uncertainty: add --uncertainty.")
        return {}
    if predicted is not None and "uncertainty_maps" not in given:
        given = {"uncertainty_maps": None, "uncertainty_kind": predicted} | given
    if "uncertainty_maps" not in given and {"flipped_predictions", "flip_disagreement"} & given.keys():
        if given.get("uncertainty_kind", "score") != "score":
            raise UsageError("--uncertainty-kind: the flip disagreement only ranks, it is a score; leave the kind out.")
        given = {"uncertainty_maps": None, "uncertainty_kind": "score"} | given
    if "calib_split" not in given:
        for option in ("calib_predictions", "calib_maps"):
            if option in given:
                raise UsageError(f"--{option.replace('_', '-')} belongs to --calib-split.")
    for option in ("uncertainty_maps", "uncertainty_kind"):
        if option not in given:
            raise UsageError(f"--uncertainty needs --{option.replace('_', '-')}: nothing is guessed about a map.")
    from adubench.evaluators.uncertainty_run import UncertaintyRequest

    fields = {_UNCERTAINTY_FIELDS[option]: v for option, v in given.items()}
    return {"uncertainty": UncertaintyRequest(**fields, pooled=pooled, images=images)}
