"""Every metric as one frozen record: what it is, its unit, its direction, how it is printed, and its formula.

Core metrics are functions of a moment row (`moments.MOMENTS`). Metrics that are no function of pixel sums name what
they need instead; their functions live in `extended`, `pointcloud` and `devkit`. Definitions: docs/metrics.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import unknown_name
from adubench.evaluators.moments import MOMENTS, N_MOMENTS

Row = NDArray[np.float64]
STYLES: tuple[str, ...] = ("paper", "leaderboard", "full")
_COLUMN = {name: position for position, name in enumerate(MOMENTS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric.

    Attributes:
        key: its name in files and tables.
        title: what it is, in words.
        unit: of the stored value; "1" for pure numbers. Stored values are never scaled for display.
        higher_is_better: direction; None for numbers without one (biases, ratios).
        definition: the formula, as text.
        needs: "moments", "vectors", "points", "teacher" or "alignment": what it is computed from.
        formula: function of the per-pixel means [..., 15]; None unless `needs` is "moments".
        decimals: digits after the point in the `paper` style.
        leaderboard: (column name, factor, unit) on KITTI's server, None where the server has no such column.
        aliases: names in other repositories.
        source: who defines it so.
    """

    key: str
    title: str
    unit: str
    higher_is_better: bool | None
    definition: str
    needs: str = "moments"
    formula: Callable[[Row], Row] | None = None
    decimals: int = 3
    leaderboard: tuple[str, float, str] | None = None
    aliases: tuple[str, ...] = field(default=())
    source: str = ""

    @property
    def arrow(self) -> str:
        """Direction as a sign, empty where there is none."""
        return {True: "↑", False: "↓", None: ""}[self.higher_is_better]

    def header(self, style: str = "paper", *, protocol: str = "") -> str:
        """Column header: name, unit, arrow, and the protocol where one is given."""
        name, _, unit = self._shown(style)
        parts = [name, f"[{unit}]" if unit != "1" else "", self.arrow, f"({protocol})" if protocol else ""]
        return " ".join(part for part in parts if part)

    def format(self, value: float | None, style: str = "paper") -> str:
        """Print a stored value in a style; "n/a" for NaN and None."""
        if value is None or math.isnan(value):
            return "n/a"
        _, factor, _ = self._shown(style)
        if style == "full":
            return f"{value:.6g}"
        decimals = 2 if style == "leaderboard" and self.leaderboard else self.decimals
        return f"{value * factor:.{decimals}f}"

    def _shown(self, style: str) -> tuple[str, float, str]:
        if style not in STYLES:
            raise unknown_name("table style", style, STYLES)
        if style == "leaderboard" and self.leaderboard:
            return self.leaderboard
        return self.key, 1.0, self.unit

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the function."""
        names = ("key", "title", "unit", "higher_is_better", "definition", "needs", "decimals", "source")
        return {name: getattr(self, name) for name in names} | {"aliases": list(self.aliases)}


def _mean(column: str, factor: float = 1.0) -> Callable[[Row], Row]:
    position = _COLUMN[column]
    return lambda means: means[..., position] * factor


def _root(column: str, factor: float = 1.0) -> Callable[[Row], Row]:
    position = _COLUMN[column]
    return lambda means: np.sqrt(means[..., position]) * factor


def _silog(means: Row) -> Row:
    variance = means[..., _COLUMN["logd2"]] - means[..., _COLUMN["logd"]] ** 2
    out: Row = 100.0 * np.sqrt(np.maximum(0.0, variance))
    return out


_E = "e = p - g"
_CORE: tuple[Metric, ...] = (
    Metric(
        key="silog", title="scale-invariant log error", unit="1", higher_is_better=False, decimals=2, formula=_silog,
        definition="100 * sqrt(mean(l^2) - mean(l)^2), l = ln p - ln g", leaderboard=("SILog", 1.0, "log(m) x 100"),
        aliases=("SILog", "LogSI", "scale invariant log"), source="KITTI devkit (x100); NeWCRFs, BTS, AdaBins",
    ),
    Metric(
        key="abs_rel", title="absolute relative error", unit="1", higher_is_better=False, formula=_mean("absrel"),
        definition="mean(|e| / g), " + _E, leaderboard=("absErrorRel", 100.0, "%"),
        aliases=("AbsRel", "arel", "REL", "absErrorRel", "abs relative"), source="Eigen et al. 2014; KITTI devkit",
    ),
    Metric(
        key="log10", title="mean log10 error", unit="1", higher_is_better=False, formula=_mean("abslog10"),
        definition="mean(|log10 p - log10 g|)", aliases=("log_10",), source="BTS, NeWCRFs, AdaBins",
    ),
    Metric(
        key="rmse", title="root mean squared error", unit="m", higher_is_better=False, formula=_root("sq"),
        definition="sqrt(mean(e^2))", aliases=("RMSE", "rms"), source="Eigen et al. 2014; KITTI devkit",
    ),
    Metric(
        key="sq_rel", title="squared relative error, divided by g", unit="m", higher_is_better=False,
        formula=_mean("sqrel"), definition="mean(e^2 / g); not scale-free", aliases=("SqRel", "sqrel"),
        source="Eigen, Monodepth, BTS, NeWCRFs",
    ),
    Metric(
        key="rmse_log", title="root mean squared log error", unit="1", higher_is_better=False,
        formula=_root("logd2"), definition="sqrt(mean(l^2))",
        aliases=("RMSElog", "log_rms", "LogRMSE", "log rmse"), source="Eigen et al. 2014; KITTI devkit",
    ),
    *(
        Metric(
            key=f"d{k}", title=f"share of pixels within a factor 1.25^{k}", unit="1", higher_is_better=True,
            formula=_mean(f"d{k}"), definition=f"share(max(p/g, g/p) < 1.25^{k}), strict",
            aliases=(f"a{k}", f"delta{k}"), source="Eigen et al. 2014",
        )
        for k in (1, 2, 3)
    ),
    Metric(
        key="mae", title="mean absolute error", unit="m", higher_is_better=False, formula=_mean("abs"),
        definition="mean(|e|)", aliases=("MAE", "abs_diff"), source="KITTI devkit",
    ),
    Metric(
        key="sq_rel_gt2", title="squared relative error, divided by g^2", unit="1", higher_is_better=False,
        formula=_mean("sqrel2"), definition="mean(e^2 / g^2)", decimals=4, leaderboard=("sqErrorRel", 100.0, "%"),
        aliases=("sqErrorRel", "squared relative"), source="KITTI devkit",
    ),
    Metric(
        key="imae", title="mean absolute error of inverse depth", unit="1/km", higher_is_better=False,
        formula=_mean("absinv", 1000.0), definition="1000 * mean(|1/p - 1/g|)",
        aliases=("InvMAE", "iMAE", "inverse mae"), source="KITTI devkit (1/m)",
    ),
    Metric(
        key="irmse", title="root mean squared error of inverse depth", unit="1/km", higher_is_better=False,
        formula=_root("sqinv", 1000.0), definition="1000 * sqrt(mean((1/p - 1/g)^2))",
        leaderboard=("iRMSE", 1.0, "1/km"), aliases=("InvRMSE", "iRMSE", "inverse rmse"), source="KITTI devkit (1/m)",
    ),
    Metric(
        key="log_mae", title="mean absolute log error", unit="1", higher_is_better=False,
        formula=_mean("abslog10", math.log(10.0)), definition="mean(|l|)", aliases=("LogMAE", "log mae"),
        source="KITTI devkit",
    ),
    Metric(
        key="log_bias", title="mean log error", unit="1", higher_is_better=None, formula=_mean("logd"), decimals=4,
        definition="mean(l); > 0: predicted too far", source="adubench, shown beside silog",
    ),
    Metric(
        key="bias", title="mean signed error", unit="m", higher_is_better=None, formula=_mean("signed"),
        definition="mean(e); > 0: predicted too far", source="adubench",
    ),
)  # fmt: skip


def _other(key: str, needs: str, better: bool | None, unit: str, title: str, definition: str, source: str) -> Metric:
    return Metric(
        key=key, needs=needs, higher_is_better=better, unit=unit, title=title, definition=definition, source=source
    )


_MDB, _SLOW, _UNI = "monodepth_benchmark", "slowtv_monodepth", "UniDepth unidepth/utils/evaluation_depth.py"
_MOGE, _TIE = "MoGe moge/test/metrics.py", "TIE-KD depth/core/evaluation/metrics.py"
_TEACHER = "as the metric without _T, student against teacher, all pixels of rows >= 110 of the 352x1216 window"
_EXTENDED: tuple[Metric, ...] = (
    _other("ratio", "alignment", None, "1", "scaling ratio", "factor applied to p before scoring", "Monodepth2"),
    _other("ratio_med", "alignment", None, "1", "median scaling ratio of a split", "median of ratios", "Monodepth2"),
    _other("ratio_std", "alignment", None, "1", "spread of the ratios", "std of ratio / ratio_med", "Monodepth2"),
    _other("d_1.05", "vectors", True, "1", "share within a factor 1.05", "share(max(p/g, g/p) < 1.05)", _SLOW),
    _other("d_1.10", "vectors", True, "1", "share within a factor 1.10", "share(max(p/g, g/p) < 1.10)", _SLOW),
    _other("tau", "vectors", True, "1", "share within a factor 1.03", "share(max(p/g, g/p) < 1.03)", _UNI),
    _other("d_auc", "vectors", True, "1", "area under the accuracy curve",
           "trapezoid over 100 exponents x in [0.01, 5] of share(r < 1.25^x), divided by 5", _UNI),
    _other("silog_n1", "vectors", False, "1", "silog with divisor n - 1", "100 * std(l), N - 1", _UNI),
    _other("medianlog", "vectors", False, "1", "median log error", "100 * |lower median of l|", _UNI),
    _other("ard_mean", "vectors", False, "1", "distance-aware relative error",
           "mean over distances k = 0, 8, ..., 72 m of mean(|e| / g) where |g - k| <= 4 m", "after DrivingStereo"),
    _other("moge_rel", "vectors", False, "1", "relative error after alignment", "mean(|e| / (g + 1e-6))", _MOGE),
    _other("moge_point_rel", "points", False, "1", "relative error of points", "mean(|P - G| / (|G| + 1e-6))", _MOGE),
    _other("moge_point_delta1", "points", True, "1", "accurate points",
           "share(|P - G| < 0.25 min(|G|, |P|))", _MOGE),
    _other("chamfer", "points", False, "m", "Chamfer distance", "mean(d1) + mean(d2), a sum", _MDB),
    _other("fscore", "points", True, "%", "point-cloud F-score, 10 cm, K of P_rect_0x",
           "200 PR / (P + R), nearest-neighbour distance < 0.10 m", _MDB),
    _other("fscore_20cm", "points", True, "%", "point-cloud F-score, 20 cm", "as fscore, 0.20 m", _MDB),
    _other("iou", "points", True, "%", "point-cloud IoU, 10 cm", "100 PR / (P + R - PR)", _MDB),
    _other("iou_20cm", "points", True, "%", "point-cloud IoU, 20 cm", "as iou, 0.20 m", _MDB),
    _other("fscore_k02", "points", True, "%", "F-score with the unrectified K_02 (as published)",
           "as fscore, intrinsics K_0x instead of P_rect_0x", _MDB),
    _other("f1_3d", "points", True, "1", "F1 over squared distances",
           "trapezoid over thresholds of the harmonic mean of precision and recall", _UNI),
    _other("chamfer_3d", "points", False, "m", "half Chamfer distance", "mean((d1 + d2) / 2)", _UNI),
    _other("mse_3d", "points", False, "m", "mean point distance (not squared)", "mean(|P - G|)", _UNI),
    *(
        _other(f"{key}_T", "teacher", better, unit, f"agreement with the teacher: {key}", _TEACHER, _TIE)
        for key, better, unit in (
            ("abs_rel", False, "1"), ("sq_rel", False, "m"), ("rmse", False, "m"), ("rmse_log", False, "1"),
            ("a1", True, "1"), ("a2", True, "1"), ("a3", True, "1"),
        )
    ),
)  # fmt: skip

METRICS: dict[str, Metric] = {metric.key: metric for metric in (*_CORE, *_EXTENDED)}
CORE: tuple[str, ...] = ("silog", "abs_rel", "log10", "rmse", "sq_rel", "rmse_log", "d1", "d2", "d3")
MOMENT_METRICS: tuple[str, ...] = tuple(metric.key for metric in _CORE)


def get_metric(name: str) -> Metric:
    """Find a metric by its key or by the name another repository gives it.

    Raises:
        UsageError: no metric is called so.
    """
    if name in METRICS:
        return METRICS[name]
    for metric in METRICS.values():
        if name in metric.aliases:
            return metric
    raise unknown_name("metric", name, METRICS, hint="See adubench list metrics.")


def metrics_from_moments(rows: NDArray[Any], keys: Collection[str] | None = None) -> dict[str, Row]:
    """Compute every moment-based metric.

    Args:
        rows: [..., 15] sums in the order of `moments.MOMENTS`: one image, a table of images, or pooled sums.
        keys: only these metrics.

    Returns:
        key -> float64 [...] in canonical units; NaN where a row has no pixel.
    """
    sums = np.asarray(rows, np.float64)
    if sums.shape[-1:] != (N_MOMENTS,):
        raise ValueError(f"a moment row has {N_MOMENTS} sums, not {sums.shape[-1:]}")
    count = sums[..., :1]
    with np.errstate(all="ignore"):
        means = sums / np.where(count > 0, count, np.nan)
        return {
            metric.key: metric.formula(means)
            for metric in _CORE
            if metric.formula is not None and (keys is None or metric.key in keys)
        }
