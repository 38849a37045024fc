"""Region masks of one image: where is it far, at a silhouette, dark, plain, repetitive, on the ground?

Masks are functions of ground truth, image, labels and intrinsics; no prediction enters this module. They are computed
on the whole frame, before any crop or depth cap. All of them are kept in one word per pixel: a few bits for the bin of
each partition, one bit for each overlapping region.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adubench.evaluators import depth_edges as de
from adubench.evaluators import ground_plane, image_regions
from adubench.evaluators.canny import canny, distance_to
from adubench.evaluators.region_inputs import as_sparse, check_labels, check_sizes
from adubench.evaluators.region_layout import Layout, RegionCodes
from adubench.evaluators.region_params import FAMILIES, PARTITIONS, RegionParameters, partition_bounds
from adubench.io.maps import DepthMap, SparseDepth

if TYPE_CHECKING:
    from collections.abc import Sequence

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
Words = NDArray[np.uint64]

_VOID, _SKY = 255, 10
THINGS = (5, 6, 7, *range(11, 19))  # pole, light, sign, person, rider, vehicles
_SKY_DISTANCE = 10.0
_BOUNDARY, _INTERIOR = 5.0, 10.0  # pixels


@dataclass(frozen=True, slots=True)
class RegionMasks:
    """All masks of one image.

    Attributes:
        shape: height and width.
        index: positions of the words in the map; None for all pixels in order.
        words: uint64 [n].
        layout: where the regions' bits lie.
        absent: family -> why it has no mask in this image.
        areas: band around edges -> its pixels in the whole image.
    """

    shape: tuple[int, int]
    index: NDArray[np.uint32] | None
    words: Words
    layout: Layout
    absent: dict[str, str]
    areas: dict[str, int]

    def mask(self, name: str) -> BoolArray:
        """Return one region as bool [H, W]; False where nothing was computed.

        Raises:
            KeyError: no such region among the parameters' families.
        """
        inside = self.layout.member(name, self.words)
        if self.index is None:
            return inside.reshape(self.shape)
        out = np.zeros(self.shape[0] * self.shape[1], np.bool_)
        out[self.index] = inside
        return out.reshape(self.shape)

    def codes(self, index: NDArray[Any] | None = None) -> RegionCodes:
        """Return the compact form: of all words, or of the given flat positions (masks of whole frames only)."""
        words = self.words
        if index is not None:
            if self.index is not None:
                raise ValueError("masks at selected pixels cannot be looked up elsewhere")
            words = words.take(index)
        elif self.index is not None:
            index = self.index
        return RegionCodes.from_words(words, index, self.shape, self.absent, self.areas)


def region_masks(
    gt: SparseDepth | DepthMap | NDArray[Any],
    image: NDArray[np.uint8] | None = None,
    labels: NDArray[Any] | None = None,
    K: NDArray[Any] | None = None,
    external_edges: NDArray[Any] | None = None,
    parameters: RegionParameters | None = None,
    *,
    only_valid: bool = False,
    name: str = "",
) -> RegionMasks:
    """Compute the masks of one image.

    Args:
        gt: ground truth of the whole frame: its pixels, a map, or an array [H, W] in metres (0: invalid).
        image: uint8 [H, W, 3] at the ground truth's size.
        labels: [H, W] Cityscapes train ids, 255 = void.
        K: [3, 3] intrinsics in pixels.
        external_edges: bool [H, W], marked edges.
        parameters: resolved parameters (`RegionParameters.resolved`).
        only_valid: keep words at valid ground truth alone; quicker, enough for scores.
        name: of the frame, for error messages.

    Returns:
        The masks. A family whose input is missing is absent, with the reason.

    Raises:
        DataError: an input has another size than the ground truth, or labels have unknown ids.
        ValueError: the parameters wait for facts about the data set.
    """
    parameters = parameters or RegionParameters(edge_preset="dense")
    truth = as_sparse(gt)
    check_sizes(truth.shape, image, labels, external_edges, K, name)
    if labels is not None:
        check_labels(labels, name)
    layout = Layout.of(parameters)
    frame = _Frame(truth, only_valid, layout)
    inputs = {
        "image": image is not None,
        "labels": labels is not None,
        "intrinsics": K is not None,
        "external edges": external_edges is not None,
    }
    absent = {f: f"no {FAMILIES[f]}" for f in parameters.families if not inputs.get(FAMILIES[f], True)}
    if parameters.edge_bands_unit == "mrad" and K is None:
        absent |= {f: "no intrinsics" for f in parameters.families if f.endswith("edge")}
    wanted = [f for f in parameters.families if f not in absent]
    per_pixel = 1000.0 / float(K[0, 0]) if parameters.edge_bands_unit == "mrad" and K is not None else 1.0
    _add_depth(frame, wanted, parameters, per_pixel)
    if image is not None:
        _add_image(frame, wanted, parameters, image, per_pixel)
    if labels is not None:
        _add_labels(frame, wanted, parameters, labels, per_pixel)
    if external_edges is not None and "extedge" in wanted:
        _add_bands(frame, "extedge", np.asarray(external_edges) != 0, parameters, per_pixel)
    if K is not None:
        absent |= _add_geometry(frame, wanted, parameters, np.asarray(K, np.float64))
    return RegionMasks(truth.shape, truth.index if only_valid else None, frame.words, layout, absent, frame.areas)


class _Frame:
    """Words being filled: of all pixels, or of those with valid ground truth."""

    def __init__(self, gt: SparseDepth, only_valid: bool, layout: Layout) -> None:
        self.gt = gt
        self.height, self.width = gt.shape
        self.at = gt.index.astype(np.intp) if only_valid else None
        self.layout = layout
        self.areas: dict[str, int] = {}
        self.words: Words = np.zeros(self.height * self.width if self.at is None else self.at.size, np.uint64)

    def pick(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values of a map [H, W] at the pixels that have words."""
        flat = values.reshape(-1)
        return flat if self.at is None else flat.take(self.at)

    def put_bins(self, field: str, values: NDArray[Any], inner: Sequence[float]) -> None:
        """Set a partition: values [n] are counted against the ascending inner bounds, the first bin is 0."""
        label = np.zeros(values.size, np.uint8)
        for bound in inner:
            label += values >= bound
        self.put_labels(field, label)

    def put_labels(self, field: str, label: NDArray[np.uint8]) -> None:
        """Set a partition's bin numbers."""
        self.words |= self.layout.encode(field, label)

    def put_flag(self, region: str, inside: BoolArray) -> None:
        """Set an overlapping region, bool [n]."""
        self.words |= inside.astype(np.uint64) << np.uint64(self.layout.flags[region])

    def put_positions(self, region: str, index: NDArray[np.intp]) -> None:
        """Set an overlapping region by flat positions of the map."""
        mask = np.zeros(self.height * self.width, np.bool_)
        mask[index] = True
        self.put_flag(region, self.pick(mask))


def _add_depth(frame: _Frame, wanted: list[str], parameters: RegionParameters, per_pixel: float) -> None:
    """Distance bins, bands around depth edges, sides and see-through suspects."""
    if "depth" in wanted:
        bounds = partition_bounds("depth", parameters)
        metres = frame.gt.metres() if frame.at is not None else frame.gt.dense().reshape(-1)
        label = np.searchsorted(np.asarray(bounds, np.float64), metres.astype(np.float64), side="right") - 1
        frame.put_labels("depth", np.where(label < 0, len(bounds), np.minimum(label, len(bounds) - 1)).astype(np.uint8))
    if not {"edge", "side"} & set(wanted) and not parameters.drop_seethrough:
        return
    edges = de.depth_edges(frame.gt, parameters.gaps, parameters.edge_t, parameters.edge_kappa)
    if "edge" in wanted:
        mask = np.zeros(frame.gt.shape, np.bool_)
        mask.reshape(-1)[edges.index[edges.near | edges.far]] = True
        distance = _add_bands(frame, "edge", mask, parameters, per_pixel)
        frame.put_flag("boundary", distance < _BOUNDARY)
        frame.put_flag("interior", distance >= _INTERIOR)
    if "side" in wanted:
        frame.put_positions("edge_fg", edges.index[edges.near & ~edges.far])
        frame.put_positions("edge_bg", edges.index[edges.far & ~edges.near])
    if "seethrough" in frame.layout.flags:
        frame.put_positions("seethrough", edges.index[edges.seethrough])


def _add_bands(
    frame: _Frame, field: str, edges: BoolArray, parameters: RegionParameters, per_pixel: float
) -> NDArray[Any]:
    """Set the distance bands around an edge map; returns the distances in pixels where there are words."""
    whole = distance_to(edges)
    distance = frame.pick(whole)
    inner = [bound / per_pixel for bound in partition_bounds(field, parameters)[1:-1]]
    frame.put_bins(field, distance, inner)
    beyond = [whole.size, *(int(np.count_nonzero(whole >= bound)) for bound in inner), 0]
    frame.areas |= {f"{PARTITIONS[field]}{k}": a - b for k, (a, b) in enumerate(itertools.pairwise(beyond))}
    return distance


def _add_image(
    frame: _Frame, wanted: list[str], parameters: RegionParameters, image: NDArray[np.uint8], per_pixel: float
) -> None:
    """Weak light, low texture, repeated texture, image edges."""
    if "light" in wanted:
        frame.put_bins("light", frame.pick(image_regions.lightness(image)), parameters.light_bins[1:-1])
    if "texture" in wanted:
        frame.put_bins("texture", frame.pick(image_regions.texture(image)), parameters.texture_bins[1:-1])
    if "repeat" in wanted:
        index = frame.gt.index
        rows = (0, frame.height)
        if frame.at is not None:
            rows = (int(index[0]) // frame.width, int(index[-1]) // frame.width + 1) if index.size else (0, 0)
        mask = image_regions.repeated(image, parameters.repeat_correlation, parameters.repeat_dip, rows)
        frame.put_flag("repeated", frame.pick(mask))
    if "imgedge" in wanted:
        _add_bands(frame, "imgedge", canny(image_regions.luma(image)), parameters, per_pixel)


def _add_labels(
    frame: _Frame, wanted: list[str], parameters: RegionParameters, labels: NDArray[Any], per_pixel: float
) -> None:
    """Semantic edges and the neighbourhood of the sky."""
    if "semedge" in wanted:
        _add_bands(frame, "semedge", semantic_edges(labels), parameters, per_pixel)
    if "sky" in wanted:
        sky = labels == _SKY
        frame.put_flag("skyadj", frame.pick((distance_to(sky) < _SKY_DISTANCE) & ~sky))


def semantic_edges(labels: NDArray[Any]) -> BoolArray:
    """Mark both pixels of 4-neighbour pairs with different labels, none void, at least one a thing."""
    thing = np.zeros(256, np.bool_)
    thing[list(THINGS)] = True
    is_thing, known = thing.take(labels), labels != _VOID
    out = np.zeros(labels.shape, np.bool_)
    for a, b in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        border = (labels[a] != labels[b]) & known[a] & known[b] & (is_thing[a] | is_thing[b])
        out[a] |= border
        out[b] |= border
    return out


def _add_geometry(frame: _Frame, wanted: list[str], parameters: RegionParameters, K: FloatArray) -> dict[str, str]:
    """Horizon, ground and obstacles; returns the families that found nothing to hold on to."""
    if "horizon" in wanted:
        rows = np.abs(np.arange(frame.height) - K[1, 2]) <= K[1, 1] * np.tan(np.deg2rad(1.0))
        frame.put_flag("horizon", frame.pick(np.repeat(rows, frame.width)))
    if "ground" not in wanted:
        return {}
    z = frame.gt.metres().astype(np.float64)
    finite = np.isfinite(z)
    index, z = frame.gt.index.astype(np.intp)[finite], z[finite]
    x, y = ground_plane.points(index, z, frame.width, K)
    plane = ground_plane.fit_ground(x, y, z, parameters.camera_height)
    if plane is None:
        return {"ground": "no ground plane found"}
    height = ground_plane.height_above(plane, x, y, z)
    frame.put_positions("ground", index[np.abs(height) <= 0.2])
    frame.put_positions("obstacle", index[(height > 0.3) & (height <= 3)])
    return {}
