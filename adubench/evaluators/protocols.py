"""Evaluation protocols as data: which pixels count, what happens to the prediction, which metrics, which mean.

A changed number means a new version of the record, never an edit. Table of differences: docs/protocols.md.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from adubench.errors import UsageError, unknown_name
from adubench.evaluators.alignment import canonical
from adubench.evaluators.crops import check_crop
from adubench.evaluators.metrics import CORE

_SELF_SUPERVISED = ("abs_rel", "sq_rel", "rmse", "rmse_log", "d1", "d2", "d3")
_DEVKIT = ("silog", "sq_rel_gt2", "abs_rel", "irmse", "mae", "rmse", "imae", "log_mae", "rmse_log", "d1", "d2", "d3")
_BENCHMARK = ("mae", "rmse", "imae", "irmse", "log_mae", "rmse_log", "silog", "abs_rel", "sq_rel", "sq_rel_gt2")
# Fields that explain a record and change no number.
_WORDS = frozenset({"title", "source", "images", "remark"})
_INFINITY = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """One protocol.

    Attributes:
        name: printed with every number; overridden fields stand in brackets.
        version: grows whenever a number of this protocol changes.
        ground_truth: "improved", "raw", "official" or "depth": the kind of maps it needs.
        frame: "full", or "window" for the 352 x 1216 KB window of the full map.
        kitti_window: predictions of the size of the KB window are accepted and put at the window's place.
        gt_min: valid ground truth is > gt_min (metres, float32, strict).
        gt_max: and < gt_max; None tests nothing, so even +inf counts; inf means "finite".
        crop: name of a rectangle (`crops.CROPS`), fractions of the window where `frame` is "window".
        clamp: (lo, hi) of the prediction after alignment, in float32: p < lo -> lo, p > hi -> hi; None for none.
        nan: "low": the clamp turns NaN into lo; "keep": NaN stays, and is an error.
        outside: value of a full map outside a window prediction, before the clamp.
        pad_after_clamp: the map is padded after the clamp, so `outside` stays as it is.
        alignment: `alignment.align`; "none" for metric predictions.
        inversion: depth from disparity: "plain" 1/d, or "guarded": 0 where d <= 0, else 1/max(d, 2^-23).
        positive_only: pixels whose prediction is not > 0 are no valid pixels.
        resize: whether a depth map of another size is resized ("bilinear") or refused ("none"); disparity is always
            resized as disparity, then inverted.
        missing: "error", or "fill": missing predicted pixels are filled as KITTI's server does.
        arithmetic: "float64", or "float32" for the running sums of KITTI's devkit (float64 beside them).
        aggregate: "image-mean": every image with valid pixels counts once.
        compat_silog_zero: under `--compat` a silog of NaN becomes 0, as in the Toolbox.
        metrics: what is reported, in this order.
        title: one line for lists.
        source: who computes it so.
        images: how many images the usual split has.
        remark: what a reader of a number must know.
    """

    name: str
    version: int
    ground_truth: str
    frame: str = "full"
    kitti_window: bool = True
    gt_min: float = 1e-3
    gt_max: float | None = 80.0
    crop: str = "none"
    clamp: tuple[float, float] | None = (1e-3, 80.0)
    nan: str = "low"
    outside: float = 0.0
    pad_after_clamp: bool = False
    alignment: str = "none"
    inversion: str = "plain"
    positive_only: bool = False
    resize: str = "none"
    missing: str = "error"
    arithmetic: str = "float64"
    aggregate: str = "image-mean"
    compat_silog_zero: bool = False
    metrics: tuple[str, ...] = CORE
    title: str = ""
    source: str = ""
    images: str = ""
    remark: str = ""

    @property
    def base(self) -> str:
        """The name without overrides."""
        return self.name.partition("[")[0]

    @property
    def selection(self) -> str:
        """Name of the rule that picks the valid pixels; protocols with the same one share packed pixels."""
        top = "none" if self.gt_max is None else f"{self.gt_max:g}"
        return f"{self.frame} {self.gt_min:g}-{top} {self.crop}"

    @property
    def float32_mean(self) -> bool:
        """Whether the mean over images is a float32 running sum."""
        return self.arithmetic == "float32"

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain JSON data (infinity as the string "inf")."""
        out: dict[str, Any] = {}
        for spec in dataclasses.fields(self):
            value = getattr(self, spec.name)
            out[spec.name] = list(value) if isinstance(value, tuple) else "inf" if value == _INFINITY else value
        return out

    @property
    def fingerprint(self) -> str:
        """Sha256 over the canonical JSON of every field that can change a number, name and version included."""
        fields = {key: value for key, value in self.to_dict().items() if key not in _WORDS}
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def with_options(
        self,
        *,
        crop: str | None = None,
        cap: float | None = None,
        min_depth: float | None = None,
        max_depth: float | None = None,
        alignment: str | None = None,
    ) -> Protocol:
        """Override fields; the name says what differs from the protocol's own defaults.

        Args:
            crop: another rectangle.
            cap: valid ground truth is < cap, and the prediction is clamped there where the protocol clamps.
            min_depth: valid ground truth is > min_depth, likewise.
            max_depth: another word for `cap`.
            alignment: another alignment (`none`, `median`, `fixed:5.4`, `lstsq`, ...).

        Raises:
            UsageError: unknown crop or alignment, a cap below the least depth, or `cap` against `max_depth`.
        """
        if cap is not None and max_depth is not None and cap != max_depth:
            raise UsageError(f"cap {cap:g} and max depth {max_depth:g} are the same setting; give one of them.")
        changes: dict[str, Any] = {}
        if crop is not None:
            changes["crop"] = check_crop(crop)
        if alignment is not None:
            changes["alignment"] = canonical(alignment)
        top = cap if cap is not None else max_depth
        changes |= self._range(min_depth, top)
        changed = dataclasses.replace(self, **changes)
        return dataclasses.replace(changed, name=_printed_name(changed))

    def _range(self, least: float | None, top: float | None) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        low, high = self.clamp or (0.0, _INFINITY)
        if least is not None:
            changes["gt_min"], low = float(least), float(least)
        if top is not None:
            changes["gt_max"], high = float(top), float(top)
        gt_min = changes.get("gt_min", self.gt_min)
        gt_max = changes.get("gt_max", self.gt_max)
        if not 0 <= gt_min < (_INFINITY if gt_max is None else gt_max):
            raise UsageError(f"depth range {gt_min:g} to {gt_max if gt_max is not None else 'none'} m holds no depth.")
        if self.clamp is not None and changes:
            changes["clamp"] = (low, high)
        return changes


def _records() -> tuple[Protocol, ...]:
    eigen = Protocol(
        name="kitti-eigen", version=1, ground_truth="improved", frame="window", crop="garg",
        title="KITTI Eigen, improved ground truth, Garg crop of the KB window, 0-80 m",
        source="NeWCRFs eval.py, AdaBins, UniDepth, BTS while training; ADU-Depth Table 1", images="652 of 697",
    )  # fmt: skip
    raw = dataclasses.replace(
        eigen, name="kitti-eigen-raw", ground_truth="raw", frame="full", nan="keep", alignment="median",
        metrics=_SELF_SUPERVISED, title="KITTI Eigen, projected scans, Garg crop of the full image, median scaling",
        source="Monodepth2 evaluate_depth.py and its family, SUB-Depth", images="697",
        remark="the ground truth is a distance along the vehicle's axis, 0.27 m off the camera's depth",
    )  # fmt: skip
    benchmark = dataclasses.replace(
        raw, name="kitti-eigen-benchmark", ground_truth="improved", gt_min=0.0, gt_max=None, crop="none",
        title="KITTI Eigen, improved ground truth, no crop, no cap, median scaling",
        source="Monodepth2 evaluate_depth.py, eigen_benchmark", images="652",
        remark="ground truth beyond 80 m counts while the prediction is clamped at 80 m",
    )  # fmt: skip
    frames = Protocol(
        name="full-frame", version=1, ground_truth="depth", kitti_window=False, gt_min=0.0, gt_max=_INFINITY,
        clamp=None, nan="keep", title="every pixel with finite ground truth > 0, no crop, no clamp",
        source="adubench", images="any",
    )  # fmt: skip
    stereo = dataclasses.replace(
        frames, name="drivingstereo", gt_min=1e-3, gt_max=80.0, clamp=(1e-3, 80.0), nan="low", resize="bilinear",
        title="DrivingStereo, half resolution, 0-80 m", images="7,751",
        remark="ADU-Depth's own subset and protocol are unpublished; do not put this number beside its Table 3",
    )  # fmt: skip
    return (
        eigen,
        dataclasses.replace(
            eigen, name="kitti-eigen-full", frame="full",
            title="KITTI Eigen, improved ground truth, Garg crop of the full image, 0-80 m",
            source="BTS bts_eval.py, eval_with_pngs.py", images="652",
        ),
        dataclasses.replace(
            eigen, name="kitti-eigen-toolbox", clamp=None, nan="keep", compat_silog_zero=True,
            title="as kitti-eigen without the clamp", source="Monocular-Depth-Estimation-Toolbox, TIE-KD",
            images="652",
        ),
        raw,
        benchmark,
        dataclasses.replace(
            benchmark, name="kitti-mdb", gt_min=1e-3, gt_max=100.0, clamp=(1e-3, 100.0), inversion="guarded",
            metrics=(*_BENCHMARK, "d1", "d2", "d3"), title="KITTI Eigen, improved ground truth, 0-100 m, no crop",
            source="monodepth_benchmark, configuration `benchmark`", remark="",
        ),
        Protocol(
            name="kitti-official", version=1, ground_truth="official", kitti_window=False, gt_min=0.0,
            gt_max=_INFINITY, clamp=None, nan="keep", missing="fill", arithmetic="float32", metrics=_DEVKIT,
            title="KITTI depth prediction as the devkit and the server score it", source="KITTI depth devkit",
            images="1000 (val_selection_cropped)", remark="d1, d2, d3 and rmse are not part of the leaderboard",
        ),
        stereo,
        dataclasses.replace(
            stereo, name="drivingstereo-weather", title="DrivingStereo, full resolution, one weather condition",
            images="4 x 500", remark="report each condition separately, and their mean",
        ),
        frames,
        dataclasses.replace(
            frames, name="synthdrive", crop="garg", gt_min=1e-3, gt_max=80.0, clamp=(1e-3, 80.0), nan="low",
            title="SynthDrive, Garg crop of the full image, 0-80 m", images="the test drives",
        ),
        dataclasses.replace(
            frames, name="nyu", crop="nyu", gt_min=1e-3, gt_max=10.0, clamp=(1e-3, 10.0), nan="low",
            title="NYU Depth v2, rows 45:471, columns 41:601, 0-10 m", source="NeWCRFs eval.py", images="654",
        ),
    )  # fmt: skip


PROTOCOLS: dict[str, Protocol] = {record.name: record for record in _records()}


def _top_word(base: str) -> str:
    """`full-frame` speaks of a depth range, the others of a cap."""
    return "max" if base == "full-frame" else "cap"


def _printed_name(record: Protocol) -> str:
    own = PROTOCOLS[record.base]
    parts = []
    if record.crop != own.crop:
        parts.append(f"crop={record.crop}")
    if record.gt_min != own.gt_min:
        parts.append(f"min={record.gt_min:g}")
    if record.gt_max != own.gt_max:
        parts.append(f"{_top_word(record.base)}={record.gt_max:g}")
    if record.alignment != own.alignment:
        parts.append(f"alignment={'lstsq' if record.alignment == 'lsqr' else record.alignment}")
    return record.base + (f"[{','.join(parts)}]" if parts else "")


def get_protocol(name: str) -> Protocol:
    """Find a protocol by its printed name, overrides included: `kitti-eigen`, `kitti-eigen[crop=none,cap=50]`.

    Raises:
        UsageError: unknown protocol or option, or a value that cannot be read.
    """
    match = re.fullmatch(r"([^\[\]]+)(?:\[([^\[\]]*)\])?", name.strip())
    if match is None or match[1] not in PROTOCOLS:
        raise unknown_name("protocol", match[1] if match else name, PROTOCOLS, hint="See adubench protocols.")
    options: dict[str, Any] = {}
    for part in filter(None, (match[2] or "").split(",")):
        key, _, value = part.partition("=")
        key, value = key.strip(), value.strip()
        field = {"crop": "crop", "cap": "cap", "min": "min_depth", "max": "max_depth", "alignment": "alignment"}.get(
            key
        )
        if field is None:
            raise unknown_name("protocol option", key, ("crop", "cap", "min", "max", "alignment"))
        options[field] = value if field in ("crop", "alignment") else _metres(name, key, value)
    return PROTOCOLS[match[1]].with_options(**options)


def _metres(name: str, key: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise UsageError(f"protocol '{name}': {key}={value} is no number of metres.") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One field in which two protocols differ.

    Attributes:
        field: name of the field.
        topic: what it is about, in words.
        a: what the first protocol does.
        b: what the second one does.
        pitfalls: what goes wrong when the numbers are compared nevertheless.
    """

    field: str
    topic: str
    a: str
    b: str
    pitfalls: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {"field": self.field, "topic": self.topic, "a": self.a, "b": self.b, "pitfalls": list(self.pitfalls)}


_PITFALLS: dict[str, str] = {
    "frame": 'Window against full frame: the same words, "Garg crop, 0-80 m", and different pixels. The window drops '
    "10-14 far rows and 4-12 columns on each side (cleinc/bts 125, aliyun/NeWCRFs 7, shariqfarooq123/AdaBins 10).",
    "raw": "Raw against improved ground truth: 697 projected scans against 652 accumulated maps. The same predictions "
    "score abs_rel 0.109 on one and 0.058 on the other (shariqfarooq123/AdaBins 58).",
    "velodyne": "Raw maps hold the distance along the vehicle's axis, measured 0.27 m behind the camera "
    "(nianticlabs/monodepth2 274, mrharicot/monodepth 166).",
    "sq_rel": "Two metrics are called Sq Rel: divided by g (m) and divided by g^2 (often in percent); a user compared "
    "0.51 of one with 0.042 of the other (jahaniam/semiDepth 13).",
    "scale": "The devkit prints raw units; the leaderboard shows SILog x 100, two relative errors in percent and iRMSE "
    "in 1/km (hufu6371/DORN 8).",
    "crop": "Eigen against Garg crop: the same predictions give abs_rel 0.169 and 0.148 (mrharicot/monodepth 110).",
    "cap": "Another cap scores other pixels: far ground truth decides rmse and sq_rel. kitti-eigen-benchmark has no "
    "cap on ground truth while predictions are clamped at 80 m.",
    "alignment": "A number with the scale taken from the ground truth cannot be compared with a metric one. State the "
    "alignment, and report ratio_med and ratio_std.",
    "fill": "The server fills missing pixels; others refuse them. One empty row between complete rows makes the "
    "server's SILog NaN.",
    "splits": "Eigen training frames occur in the official validation selection, and the other way round.",
    "stereo": "DrivingStereo at half and at full resolution gives different numbers for the same weights "
    "(kieran514/robustdepth 1).",
    "flip": "Flip averaging is the predictor's choice and not part of a protocol: NeWCRFs, AdaBins and the Toolbox "
    "always use it, BTS never, Monodepth2 on request.",
}
TOPICS: dict[str, str] = {
    "ground_truth": "ground truth",
    "frame": "frame",
    "kitti_window": "window predictions",
    "gt_min": "least valid depth",
    "gt_max": "largest valid depth",
    "crop": "crop",
    "clamp": "clamp of the prediction",
    "nan": "NaN in the prediction",
    "outside": "value outside the window",
    "pad_after_clamp": "order of padding and clamp",
    "alignment": "alignment",
    "inversion": "depth from disparity",
    "positive_only": "pixels without positive prediction",
    "resize": "depth maps of another size",
    "missing": "missing predicted pixels",
    "arithmetic": "arithmetic",
    "aggregate": "mean over images",
    "compat_silog_zero": "silog of NaN under --compat",
    "metrics": "metrics",
    "images": "images",
}
_PITFALLS_OF: dict[str, tuple[str, ...]] = {
    "frame": ("frame",),
    "crop": ("crop",),
    "gt_max": ("cap",),
    "alignment": ("alignment",),
    "missing": ("fill",),
    "arithmetic": ("scale",),
}
_GROUND_TRUTH = {
    "improved": "improved maps (11 accumulated scans)",
    "raw": "projected single scans",
    "official": "improved maps of the official selection",
    "depth": "dense or sparse depth maps",
}


def in_words(protocol: Protocol, field: str) -> str:
    """Say what a protocol does in one field."""
    value = getattr(protocol, field)
    if field == "gt_max":
        return "not tested" if value is None else "finite" if value == _INFINITY else f"< {value:g} m"
    if field == "clamp":
        return "none" if value is None else f"[{value[0]:g}, {value[1]:g}] m in float32"
    words: dict[str, dict[Any, str]] = {
        "ground_truth": _GROUND_TRUTH,
        "frame": {"window": "352x1216 KB window of the image", "full": "the full image"},
        "kitti_window": {True: "accepted, put at the window's place", False: "refused"},
        "nan": {"low": "becomes the lower clamp, counted", "keep": "an error"},
        "pad_after_clamp": {True: "clamp, then pad", False: "pad, then clamp"},
        "inversion": {"plain": "1 / d", "guarded": "0 where d <= 0, else 1 / max(d, 2^-23)"},
        "positive_only": {True: "left out", False: "scored"},
        "resize": {"none": "refused", "bilinear": "resized bilinearly"},
        "missing": {"error": "an error", "fill": "filled with the nearer neighbour, as the server does"},
        "arithmetic": {"float64": "float64", "float32": "float32 running sums (float64 beside them)"},
        "aggregate": {"image-mean": "every image with valid pixels counts once"},
        "compat_silog_zero": {True: "becomes 0", False: "stays NaN"},
    }
    if field in words:
        return words[field][value]
    if field == "gt_min":
        return f"> {value:g} m"
    return ", ".join(value) if isinstance(value, tuple) else str(value) or "not fixed"


def diff(a: Protocol, b: Protocol) -> tuple[Difference, ...]:
    """Name every field in which two protocols differ, in words, with what that does to a comparison."""
    found = []
    for field, topic in TOPICS.items():
        if getattr(a, field) == getattr(b, field):
            continue
        keys = list(_PITFALLS_OF.get(field, ()))
        if field == "ground_truth":
            keys = _ground_truth_pitfalls({a.ground_truth, b.ground_truth})
        elif field == "metrics" and ("sq_rel" in a.metrics) != ("sq_rel" in b.metrics):
            keys = ["sq_rel"]
        words = (in_words(a, field), in_words(b, field))
        pitfalls = tuple(_PITFALLS[key] for key in keys)
        found.append(Difference(field=field, topic=topic, a=words[0], b=words[1], pitfalls=pitfalls))
    return tuple(found)


def general_pitfalls(a: Protocol, b: Protocol) -> tuple[str, ...]:
    """What to know about a pair of protocols beside their fields."""
    bases = {a.base, b.base}
    keys = ["flip"] if all(name.startswith("kitti") for name in bases) else []
    if bases == {"drivingstereo", "drivingstereo-weather"}:
        keys.append("stereo")
    return tuple(_PITFALLS[key] for key in keys)


def _ground_truth_pitfalls(kinds: set[str]) -> list[str]:
    keys = []
    if "raw" in kinds:
        keys += ["raw", "velodyne"] if kinds & {"improved", "official"} else ["velodyne"]
    if kinds == {"improved", "official"}:
        keys.append("splits")
    return keys
