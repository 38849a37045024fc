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
    click.option("--images", type=_PATH, help="Camera images by frame name; default: those of the data set."),
    click.option("--intrinsics", metavar="FX,FY,CX,CY", help="One camera for all images; default: the data set's."),
    click.option("--semantic", type=_PATH, help="Label maps (PNG of Cityscapes train ids) by frame name."),
    click.option("--ext-edges", type=_PATH, help="Edges drawn by people (PNG or text) by frame name."),
    click.option("--cache-regions", help="Folder where masks are kept, or 'off'. Default: the cache folder."),
    click.option("--save-masks", type=_PATH, help="Write pictures of the masks there."),
)


def analysis_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def take_requests(arguments: dict[str, Any]) -> dict[str, Any]:
    """Take the arguments of these options out of a command's and make fields of `EvalOptions` of them.

    Raises:
        UsageError: an option that only serves `--regions`, without it.
    """
    from adubench.errors import UsageError
    from adubench.evaluators.region_run import RegionRequest

    families = arguments.pop("regions")
    values = {field: arguments.pop(option) for option, field in _REGION_FIELDS.items()}
    if families is not None and families != "none":
        return {"regions": RegionRequest(families=families, **values)}
    for option, field in _REGION_FIELDS.items():
        if values[field] not in (None, (), False) and option != "region_min_px":
            raise UsageError(f"--{option.replace('_', '-')} belongs to --regions: add --regions.")
    return {}
