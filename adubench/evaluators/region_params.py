"""Which regions exist: one frozen record of all parameters, and the regions' names and bounds.

Masks are functions of ground truth, image, labels and intrinsics alone; no parameter here concerns a prediction.
Definitions: docs/regions.md.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adubench.errors import UsageError, unknown_name

#: Raised whenever a mask of unchanged parameters would change; part of every digest.
MASK_VERSION = 1

#: Family -> what it needs besides the ground truth.
FAMILIES: dict[str, str] = {
    "depth": "",
    "edge": "",
    "side": "",
    "light": "image",
    "texture": "image",
    "repeat": "image",
    "imgedge": "image",
    "semedge": "labels",
    "extedge": "external edges",
    "horizon": "intrinsics",
    "sky": "labels",
    "ground": "intrinsics",
}
DEFAULT_FAMILIES: tuple[str, ...] = ("depth", "edge", "side", "light", "texture", "repeat", "ground")

#: Preset -> largest gaps (pixels) between two samples of a pair, along the row and along the column; 0: no pairs.
EDGE_PRESETS: dict[str, tuple[int, int]] = {"dense": (1, 1), "improved": (5, 5), "raw": (5, 0)}
_DENSE_FROM, _IMPROVED_FROM = 0.60, 0.12
_BAND_UNITS = ("px", "mrad")
#: Families whose regions partition the image, and the stem of the regions' names.
PARTITIONS: dict[str, str] = {
    "depth": "depth",
    "edge": "edge",
    "light": "light",
    "texture": "texture",
    "imgedge": "imgedge",
    "semedge": "semedge",
    "extedge": "extedge",
}
#: Overlapping regions: name -> family.
FLAGS: dict[str, str] = {
    "boundary": "edge",
    "interior": "edge",
    "edge_fg": "side",
    "edge_bg": "side",
    "seethrough": "side",
    "repeated": "repeat",
    "horizon": "horizon",
    "skyadj": "sky",
    "ground": "ground",
    "obstacle": "ground",
}
_ORDER = ("depth", "edge", "side", "light", "texture", "repeat", "imgedge", "semedge", "extedge", "horizon", "sky")
_TITLES = {
    "boundary": "boundary, closer than 5 px to a depth edge",
    "interior": "interior, 10 px or more from a depth edge",
    "edge_fg": "near side of depth edges",
    "edge_bg": "far side of depth edges",
    "seethrough": "see-through suspects",
    "repeated": "repeated texture",
    "horizon": "horizon, 1 degree (approximate)",
    "skyadj": "closer than 10 px to sky",
    "ground": "ground, within 0.2 m of the plane",
    "obstacle": "obstacles, 0.3 to 3 m above the plane",
}
#: Family -> how its regions are defined, in one line. The whole definitions: docs/regions.md.
DEFINITIONS: dict[str, str] = {
    "depth": "bins of ground-truth distance, half-open",
    "edge": "distance in the image to the nearest depth edge (relative jump > 0.1 that no slanted plane explains)",
    "side": "which side of a depth edge; see-through suspects: far pixels between two edges of a nearer object",
    "light": "CIE L* of the mean luminance in 15 x 15 pixels",
    "texture": "root mean square of the luma gradient in 15 x 15 pixels",
    "repeat": "a 9 x 9 patch recurs 4 to 48 pixels along the row after a place that looks different",
    "imgedge": "distance to the nearest Canny edge of luma",
    "semedge": "distance to the nearest border of a thing in the label map",
    "extedge": "distance to the nearest edge drawn by people",
    "horizon": "rows within 1 degree of the principal point (assumes no pitch)",
    "sky": "closer than 10 pixels to sky, and not sky",
    "ground": "height over the plane fitted to the road",
}
_UNITS = {"depth": " m", "light": " L*", "texture": ""}


@dataclass(frozen=True, slots=True)
class Region:
    """One row of the report.

    Attributes:
        name: key in files, e.g. `depth3`.
        family: the family it belongs to; "cross" for products of two partitions.
        title: words for tables, e.g. "depth [60,80) m".
        bounds: half-open interval of a bin, None for other regions.
        only_if_filled: a row for pixels in no ordinary bin, shown when there are any.
        parts: for bins (field, label), for products both pairs, empty for flags.
    """

    name: str
    family: str
    title: str
    bounds: tuple[float, float] | None = None
    only_if_filled: bool = False
    parts: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionParameters:
    """Everything a mask depends on.

    Attributes:
        families: the families to compute.
        depth_bins: ascending bounds in metres, bins half-open.
        edge_preset: "dense", "improved", "raw", or "auto" (to be resolved by the density of the ground truth).
        edge_gap: largest gaps (row, column) in pixels, instead of the preset's.
        edge_t: smallest relative jump of a depth edge.
        edge_kappa: slant factor; None switches the slant check off.
        edge_bands: ascending bounds of the distance bands, from 0 to inf.
        edge_bands_unit: "px", or "mrad" (pixels / fx * 1000).
        light_bins: ascending bounds in L*.
        light_quantiles: shares in (0, 1) that replace the inner bounds of `light_bins`; to be resolved on the data set.
        texture_bins: ascending bounds of the gradient's root mean square.
        repeat_correlation: smallest correlation of a repetition.
        repeat_dip: largest correlation of the place between that counts as different.
        camera_height: metres above the ground, start of the plane fit.
        cross: pairs of partition families whose product is reported.
        drop_seethrough: take see-through suspects out of all other regions.
    """

    families: tuple[str, ...] = DEFAULT_FAMILIES
    depth_bins: tuple[float, ...] = (0.0, 20.0, 40.0, 60.0, 80.0)
    edge_preset: str = "auto"
    edge_gap: tuple[int, int] | None = None
    edge_t: float = 0.10
    edge_kappa: float | None = 0.5
    edge_bands: tuple[float, ...] = (0.0, 2.0, 5.0, 10.0, math.inf)
    edge_bands_unit: str = "px"
    light_bins: tuple[float, ...] = (0.0, 15.0, 30.0, 60.0, 97.0, math.inf)
    light_quantiles: tuple[float, ...] | None = None
    texture_bins: tuple[float, ...] = (0.0, 0.01, 0.02, 0.05, math.inf)
    repeat_correlation: float = 0.9
    repeat_dip: float = 0.0
    camera_height: float = 1.65
    cross: tuple[tuple[str, str], ...] = ()
    drop_seethrough: bool = False

    def __post_init__(self) -> None:
        _check(self)

    @property
    def gaps(self) -> tuple[int, int]:
        """Largest gaps (row, column) in pixels.

        Raises:
            ValueError: the preset is "auto" and was not resolved.
        """
        if self.edge_gap is not None:
            return self.edge_gap
        if self.edge_preset == "auto":
            raise ValueError("edge preset 'auto' must be resolved by the data set's density first")
        return EDGE_PRESETS[self.edge_preset]

    @property
    def resolved(self) -> bool:
        """Whether masks can be computed: neither the preset nor quantiles wait for the data set."""
        return (self.edge_preset != "auto" or self.edge_gap is not None) and self.light_quantiles is None

    def with_density(self, density: float) -> RegionParameters:
        """Resolve the preset "auto" by the mean density of the data set's ground truth; others stay."""
        if self.edge_preset != "auto":
            return self
        return dataclasses.replace(self, edge_preset=preset_for(density))

    def with_light_bounds(self, bounds: Sequence[float]) -> RegionParameters:
        """Replace quantiles by the L* values they are on the data set."""
        inner = sorted({float(b) for b in bounds if 0.0 < b < math.inf})
        return dataclasses.replace(self, light_bins=(0.0, *inner, math.inf), light_quantiles=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; infinite bounds are the text "inf"."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)), parse_constant=lambda _: "inf")
        if self.resolved:
            plain["edge_gap"] = list(self.gaps)
        plain["bounds"] = {
            r.name: [("inf" if math.isinf(b) else b) for b in r.bounds] for r in regions(self) if r.bounds is not None
        }
        return plain | {"mask_version": MASK_VERSION, "digest": self.digest()}

    def digest(self) -> str:
        """SHA-256 (first 16 hexadecimal digits) over every parameter and the version of the definitions."""
        fields = dataclasses.asdict(self) | {"mask_version": MASK_VERSION}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def preset_for(density: float) -> str:
    """Return the preset that fits a share of valid pixels between the first and the last valid row."""
    if density >= _DENSE_FROM:
        return "dense"
    return "improved" if density >= _IMPROVED_FROM else "raw"


def regions(parameters: RegionParameters) -> tuple[Region, ...]:
    """List the regions in the order of tables, `all` first."""
    out = [Region("all", "all", "all")]
    for family in (*_ORDER, "ground"):
        if family not in parameters.families:
            continue
        if family in PARTITIONS:
            out += _bins(family, parameters)
        out += [Region(name, family, _TITLES[name]) for name, of in FLAGS.items() if of == family]
    if parameters.drop_seethrough and "side" not in parameters.families:
        out.append(Region("seethrough", "side", _TITLES["seethrough"]))  # what was dropped is always shown
    for first, second in parameters.cross:
        out += [_product(a, b) for a in _bins(first, parameters) for b in _bins(second, parameters)]
    return tuple(out)


def _product(a: Region, b: Region) -> Region:
    rest = a.only_if_filled or b.only_if_filled
    return Region(f"{a.name}_{b.name}", "cross", f"{a.title}, {b.title}", None, rest, (*a.parts, *b.parts))


def region_names(parameters: RegionParameters) -> tuple[str, ...]:
    """Names of `regions(parameters)`."""
    return tuple(region.name for region in regions(parameters))


def partition_bounds(family: str, parameters: RegionParameters) -> tuple[float, ...]:
    """Ascending bounds of a family's bins."""
    if family in ("depth", "light", "texture"):
        bounds: tuple[float, ...] = getattr(parameters, f"{family}_bins")
        return bounds
    return parameters.edge_bands


def _bins(family: str, parameters: RegionParameters) -> list[Region]:
    """Regions of a partition; bins outside the given bounds exist only for pixels that fall there."""
    bounds, stem = partition_bounds(family, parameters), PARTITIONS[family]
    unit = _UNITS.get(family, f" {parameters.edge_bands_unit}")
    last = len(bounds) - 1
    pairs = [(f"{stem}{k}", k, lo, hi) for k, (lo, hi) in enumerate(itertools.pairwise(bounds))]
    if family == "depth":
        if not math.isinf(bounds[-1]):
            pairs.append((f"{stem}{last}", last, bounds[-1], math.inf))
        if bounds[0] > 0:
            pairs.append((f"{stem}_below", last + 1, 0.0, bounds[0]))
    return [
        Region(name, family, f"{stem} [{lo:g},{hi:g}){unit}", (lo, hi), k >= last, ((family, k),))
        for name, k, lo, hi in pairs
    ]


# ---- checks ----------------------------------------------------------------------------------------------------------


def check_bounds(bounds: Sequence[float], option: str) -> None:
    """Refuse bounds that are not at least two ascending numbers from 0.

    Raises:
        UsageError: naming the option.
    """
    rising = all(a < b for a, b in itertools.pairwise(bounds))
    if len(bounds) < 2 or not rising or not bounds[0] >= 0 or any(math.isnan(b) for b in bounds):
        shown = ",".join(f"{b:g}" for b in bounds)
        raise UsageError(f"{option} {shown}: expected at least two ascending numbers from 0, e.g. 0,20,40,inf.")
    if len(bounds) > 200:
        raise UsageError(f"{option}: {len(bounds)} bounds are too many; 200 is the limit.")


def _check(parameters: RegionParameters) -> None:
    """Refuse what no mask can be computed from.

    Raises:
        UsageError: naming the option.
    """
    for family in parameters.families:
        if family not in FAMILIES:
            raise unknown_name("region family", family, FAMILIES)
    check_bounds(parameters.depth_bins, "--depth-bins")
    for option, bounds in (
        ("--edge-bands", parameters.edge_bands),
        ("light bins", parameters.light_bins),
        ("texture bins", parameters.texture_bins),
    ):
        check_bounds(bounds, option)
        if bounds[0] != 0 or not math.isinf(bounds[-1]):
            raise UsageError(f"{option}: bands must reach from 0 to inf.")
    if parameters.edge_preset not in (*EDGE_PRESETS, "auto"):
        raise unknown_name("edge preset", parameters.edge_preset, (*EDGE_PRESETS, "auto"))
    if parameters.edge_bands_unit not in _BAND_UNITS:
        raise unknown_name("unit of edge bands", parameters.edge_bands_unit, _BAND_UNITS)
    if not 0 < parameters.edge_t < math.inf:
        raise UsageError(f"--edge-t {parameters.edge_t}: expected a relative jump above 0, e.g. 0.1.")
    for pair in parameters.cross:
        for family in pair:
            if family not in parameters.families:
                raise UsageError(f"--cross {','.join(pair)}: add the family '{family}' to --regions.")
