"""Regions in an evaluation: from options to the masks of a track, from rows to the sections of a result."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adubench.errors import DataError, UsageError
from adubench.evaluators import region_options
from adubench.evaluators.region_groups import add_groups
from adubench.evaluators.region_intervals import region_intervals
from adubench.evaluators.region_moments import prediction_bin_names
from adubench.evaluators.region_params import FAMILIES, RegionParameters, region_names, regions
from adubench.evaluators.region_reader import FrameReader
from adubench.evaluators.region_source import RegionSource, count_absent, open_regions
from adubench.evaluators.region_summary import LEAST_IMAGES, LEAST_PER_IMAGE, region_summary, shown_regions
from adubench.evaluators.result import EvaluationResult, MomentTable

if TYPE_CHECKING:
    from adubench.evaluators.analysis import FrameDetails
    from adubench.evaluators.protocols import Protocol

Progress = Callable[[int, int], None]
BIN_BY, AGGREGATIONS = ("gt", "pred"), ("pooled", "image-mean", "both")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionRequest:
    """The options of `--regions`, as typed; None leaves a default.

    Attributes:
        families: list of families, "default", "all" or "none".
        depth_bins: bounds in metres, or `log:K`.
        edge_preset: "auto", "dense", "improved" or "raw".
        edge_gap: `GX,GY`.
        edge_t: smallest relative jump.
        edge_kappa: slant factor or "none".
        edge_bands: bounds of the bands.
        edge_bands_unit: "px" or "mrad".
        light_quantiles: shares.
        cross: pairs of families.
        drop_seethrough: take see-through suspects out of the other regions.
        least_per_image: pixels an image needs in a region to enter the mean over images.
        images: folder of camera images.
        intrinsics: `FX,FY,CX,CY`.
        labels: folder of label maps.
        edges: folder of annotated edges.
        cache: folder for masks; None for the default one, "off" for none.
        overlays: folder for pictures of the masks.
        bin_by: "gt", or "pred" for rows by predicted distance beside the others.
        groups: "drive", "light", or a CSV of lines image,group.
        aggregation: what tables show of a region: "pooled", "image-mean" or "both".
    """

    families: str = "default"
    depth_bins: str | None = None
    edge_preset: str | None = None
    edge_gap: str | None = None
    edge_t: float | None = None
    edge_kappa: str | None = None
    edge_bands: str | None = None
    edge_bands_unit: str | None = None
    light_quantiles: str | None = None
    cross: tuple[str, ...] = ()
    drop_seethrough: bool = False
    least_per_image: int = LEAST_PER_IMAGE
    images: Path | None = None
    intrinsics: str | None = None
    labels: Path | None = None
    edges: Path | None = None
    cache: str | Path | None = None
    overlays: Path | None = None
    bin_by: str = "gt"
    groups: str | None = None
    aggregation: str = "pooled"

    def parameters(self, protocol: Protocol) -> RegionParameters:
        """Read the options; `protocol` gives the depth limits of `log:K`.

        Raises:
            UsageError: malformed or unknown values, naming the option.
        """
        if self.least_per_image < 1:
            raise UsageError(f"--region-min-px {self.least_per_image}: expected a number of pixels from 1.")
        for option, value, known in (
            ("--bin-by", self.bin_by, BIN_BY),
            ("--region-agg", self.aggregation, AGGREGATIONS),
        ):
            if value not in known:
                raise UsageError(f"{option} {value}: expected {' or '.join(known)}.")
        wanted: dict[str, Any] = {"families": region_options.parse_families(self.families)}
        if self.depth_bins is not None:
            wanted["depth_bins"] = region_options.parse_depth_bins(self.depth_bins, protocol.gt_min, protocol.gt_max)
        for field, parse in (
            ("edge_gap", region_options.parse_gap),
            ("edge_kappa", region_options.parse_kappa),
            ("edge_bands", region_options.parse_bands),
            ("light_quantiles", region_options.parse_quantiles),
        ):
            text = getattr(self, field)
            if text is not None:
                wanted[field] = parse(text)
        for field in ("edge_preset", "edge_t", "edge_bands_unit"):
            if getattr(self, field) is not None:
                wanted[field] = getattr(self, field)
        return RegionParameters(
            **wanted,
            cross=tuple(region_options.parse_cross(text) for text in self.cross),
            drop_seethrough=self.drop_seethrough,
        )


@dataclass(frozen=True, slots=True)
class TrackRegions:
    """The regions of one track, opened.

    Attributes:
        source: gives masks.
        names: all regions that are summed over.
        facts: for the header of tables, e.g. the density that chose the edge preset.
        least_per_image: as in `RegionRequest`.
        notes: sentences about inputs.
        pred_bins: bounds of bins of predicted depth; empty for none.
        groups: as in `RegionRequest`.
        aggregation: as in `RegionRequest`.
    """

    source: RegionSource
    names: tuple[str, ...]
    facts: dict[str, Any]
    least_per_image: int
    notes: tuple[str, ...] = ()
    pred_bins: tuple[float, ...] = ()
    groups: str | None = None
    aggregation: str = "pooled"

    def tested(self) -> tuple[str, ...]:
        """Regions that the uncertainty is tested in: those of the families, without products and rests."""
        known = regions(self.source.parameters)
        return tuple(r.name for r in known if r.name != "all" and r.family != "cross" and not r.only_if_filled)


def needed_inputs(parameters: RegionParameters) -> frozenset[str]:
    """Kinds of input that some regions are computed from."""
    needs = {FAMILIES[family] for family in parameters.families} - {""}
    if parameters.edge_bands_unit == "mrad":
        needs.add("intrinsics")
    return frozenset(needs)


def mask_folder(request: RegionRequest, default: str | Path, *, enough: bool) -> Path | None:
    """Say where masks are kept: the folder asked for, else the default one where it pays and can be written.

    Args:
        request: the options.
        default: folder of the packed ground truth, or "off".
        enough: there are so many frames that a cache pays.
    """
    if request.cache is not None:
        return Path(request.cache) if str(request.cache) != "off" else None
    if not enough or str(default) == "off":
        return None
    folder = Path(default)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def open_track(
    request: RegionRequest,
    protocol: Protocol,
    reader: FrameReader,
    frames: Sequence[tuple[str, Any]],
    *,
    truth_paths: Callable[[Any], Sequence[Path]],
    kind: str,
    folder: Path | None,
    pixels: Callable[[Any], Any] | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> TrackRegions:
    """Settle the parameters on a track's frames and open or fill the cache of masks.

    Args:
        request: the options.
        protocol: the first one of the track.
        reader: of the inputs.
        frames: (name, key) of the frames.
        truth_paths: names the ground-truth files of a frame.
        kind: of the ground truth; masks of one kind serve no other.
        folder: where masks are kept; None for nowhere.
        pixels: flat positions of the evaluated pixels of a map, for quantiles of lightness.
        workers: processes that fill the cache.
        progress: called with (done, total).

    Raises:
        AdubenchError: broken inputs, or a cache that cannot be written.
    """
    asked = request.parameters(protocol)
    extra = f"{kind}\n" + (protocol.selection if asked.light_quantiles is not None else "")
    path, stamp = None, ""
    if folder is not None and frames:
        stamp = reader.stamp([key for _, key in frames], truth_paths, extra)
        digest = hashlib.sha256("\n".join([asked.digest(), stamp, *(name for name, _ in frames)]).encode())
        path = folder / f"regions-{digest.hexdigest()[:24]}.h5"
    source, facts = open_regions(asked, reader, frames, path, stamp, pixels=pixels, workers=workers, progress=progress)
    if request.overlays is not None:
        _write_overlays(source, reader, frames, request.overlays)
    names = region_names(source.parameters)
    bins = source.parameters.depth_bins if request.bin_by == "pred" else ()
    return TrackRegions(
        source,
        names,
        facts,
        request.least_per_image,
        _notes(reader, frames),
        bins,
        request.groups,
        request.aggregation,
    )


def _notes(reader: FrameReader, frames: Sequence[tuple[str, Any]]) -> tuple[str, ...]:
    """Say that images are brought to the ground truth's grid, when the first one is."""
    if not frames:
        return ()
    _, key = frames[0]
    if "image" in reader.needs and reader.resized(key, reader.truth(key).shape):
        return ("images have another size than the ground truth; regions see them averaged to its grid.",)
    return ()


def _write_overlays(source: RegionSource, reader: FrameReader, frames: Sequence[tuple[str, Any]], folder: Path) -> None:
    from adubench.evaluators.region_overlay import write_overlays

    if folder.is_file():
        raise DataError(f"--save-masks {folder}: is a file; name a folder.")
    with_image = dataclasses.replace(reader, needs=reader.needs | {"image"})
    for name, key in frames:
        inputs = with_image.inputs(key)
        picture = inputs.image if inputs.image is not None else inputs.gt.dense()
        write_overlays(folder, name, source.masks(name, key), picture)


def add_regions(result: EvaluationResult, details: Sequence[FrameDetails], opened: TrackRegions) -> None:
    """Put the region rows into a result: moment table, `regions`, warnings about missing families.

    Args:
        result: assembled from the same frames, whole image only.
        details: one per frame.
        opened: the regions.
    """
    parameters = opened.source.parameters
    values = np.stack([d.rows for d in details if d.rows is not None])
    records = {region.name: region for region in regions(parameters)}
    gone = _families_without_masks([d.absent for d in details])
    kept = tuple(
        name for name in shown_regions(records.values(), values, opened.names) if not _uses(records[name], gone)
    )
    values = values[:, [opened.names.index(name) for name in kept]]
    assert result.moments is not None
    result.moments = MomentTable(
        result.moments.frames, result.moments.drives, kept, values, parameters.to_dict() | opened.facts
    )
    # A set of a few images has rows to print too: the rule guards against rows that most images lack.
    least_images = min(LEAST_IMAGES, int((values[:, 0, 0] > 0).sum()))
    summary = region_summary(values, kept, least_per_image=opened.least_per_image, least_images=least_images)
    for name in kept[1:]:
        result.regions[name] = summary[name] | {"family": records[name].family, "title": records[name].title}
    _add_coverage(result, details)
    intervals = region_intervals(values, kept, result.moments.drives, opened.least_per_image)
    for name in kept[1:]:
        result.regions[name] |= intervals[name]
    if opened.pred_bins:
        _add_predicted(result, details, opened)
    if opened.groups is not None:
        add_groups(result, opened.groups, opened.least_per_image)
    absent = count_absent([d.absent for d in details])
    result.provenance["regions"] = {
        "least_per_image": opened.least_per_image,
        "absent": absent,
        "aggregation": opened.aggregation,
        "all": intervals["all"],
    }
    result.warnings += [f"regions: {line}; left out there." for line in absent]
    result.warnings += opened.notes


def _add_coverage(result: EvaluationResult, details: Sequence[FrameDetails]) -> None:
    """Say which share of a band's image pixels has ground truth: filtered ground truth lacks the hardest ones."""
    for name, entry in result.regions.items():
        counts = [d.coverage[name] for d in details if name in d.coverage]
        pixels = sum(of for _, of in counts)
        if pixels:
            entry["gt_share"] = sum(given for given, _ in counts) / pixels


def _add_predicted(result: EvaluationResult, details: Sequence[FrameDetails], opened: TrackRegions) -> None:
    """Add the rows by predicted distance. They stay out of the moment table: other models have other pixels there."""
    assert result.moments is not None
    rows = np.stack([d.predicted for d in details if d.predicted is not None])
    values = np.concatenate([result.moments.values[:, :1], rows], axis=1)
    names = ("all", *prediction_bin_names(opened.pred_bins))
    summary = region_summary(values, names, least_per_image=opened.least_per_image)
    intervals = region_intervals(values, names, result.moments.drives, opened.least_per_image)
    bounds = list(itertools.pairwise(opened.pred_bins))
    titles = [f"pred_depth [{low:g},{high:g}) m" for low, high in bounds] + ["outside the bins"]
    for name, title in zip(names[1:], titles, strict=True):
        if title != "outside the bins" or summary[name]["n_pixels"]:
            result.regions[name] = summary[name] | intervals[name] | {"family": "pred_depth", "title": title}


def _families_without_masks(absent: Sequence[dict[str, str]]) -> set[str]:
    """Families that no image has."""
    return set.intersection(*(set(image) for image in absent)) if absent else set()


def _uses(region: Any, families: set[str]) -> bool:
    return region.family in families or any(field in families for field, _ in region.parts)
