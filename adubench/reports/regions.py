"""The tables of `adubench eval --regions`: one per family, sizes beside every number."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from adubench.reports.tables import Cell, Column, Group, Row, Table, metric_columns

if TYPE_CHECKING:
    from adubench.evaluators.result import EvaluationResult

METRICS = ("abs_rel", "rmse", "silog", "log_bias", "d1")
FAMILY_TITLES = {
    "depth": "distance",
    "edge": "depth edges",
    "side": "sides of depth edges",
    "light": "light",
    "texture": "texture",
    "repeat": "repeated texture",
    "imgedge": "image edges",
    "semedge": "borders of things",
    "extedge": "annotated edges",
    "horizon": "horizon",
    "sky": "sky",
    "ground": "ground and obstacles",
    "cross": "products",
    "pred_depth": "predicted distance (the model's own pixels: compare no two models by them)",
}
_INTERVAL = Column("interval", "95 % CI")
_SIZES = (Column("share", "share", "%", "", 1, 100.0), Column("n_pixels", "px"), Column("n_images", "img"))


def region_tables(result: EvaluationResult, style: str = "paper") -> list[Table]:
    """Build one table per family of a result; none without regions.

    Values are pooled over pixels, except for the row `all`, which follows the protocol. Rows with too few pixels or
    images are n/a.
    """
    families: dict[str, list[str]] = {}
    for name, entry in result.regions.items():
        if name != "all":
            families.setdefault(str(entry.get("family", "")), []).append(name)
    if not families:
        return []
    head = region_head(result)
    tables: list[Table] = []
    for family, names in families.items():
        columns = _columns(result, style, banded=any("gt_share" in result.regions[name] for name in names))
        rows = [_row(name, _shown(result, name), columns) for name in ("all", *names)]
        title = f"{result.protocol['name']}, regions: {FAMILY_TITLES.get(family, family)}"
        notes = (head,) if not tables else ()
        tables.append(Table(f"regions_{family}", title, "region", columns, (Group("", tuple(rows)),), notes))
    return [*tables, *_group_tables(result, style)]


def _columns(result: EvaluationResult, style: str, *, banded: bool = False) -> tuple[Column, ...]:
    """Sizes, the metrics with the interval of the first one, and what the aggregation asks for."""
    metrics = metric_columns(METRICS, "full" if style == "full" else "paper")
    both = (Column("mean_abs_rel", "mean over images abs_rel", "", metrics[0].arrow, 3),)
    return (
        *_SIZES,
        *((Column("gt_share", "with GT", "%", "", 1, 100.0),) if banded else ()),
        metrics[0],
        _INTERVAL,
        *metrics[1:],
        *(both if _aggregation(result) == "both" else ()),
    )


def _aggregation(result: EvaluationResult) -> str:
    about = result.provenance.get("regions", {})
    return str(about.get("aggregation", "pooled")) if isinstance(about, dict) else "pooled"


def _shown(result: EvaluationResult, name: str) -> dict[str, Any]:
    """Return a region's entry with the numbers of the aggregation that is shown, and its interval as text."""
    entry = dict(result.regions[name])
    mean = entry.get("image_mean") or {}
    intervals = entry
    if name == "all":
        about = result.provenance.get("regions", {})
        intervals = about.get("all", {}) if isinstance(about, dict) else {}
    over_images = name == "all" or _aggregation(result) == "image-mean"
    if name != "all" and over_images:
        entry |= mean | {"n_images": entry.get("n_images_mean", entry.get("n_images"))}
    entry["mean_abs_rel"] = mean.get("abs_rel")
    ends = (intervals.get("image_mean_intervals" if over_images else "intervals") or {}).get("abs_rel") or [None, None]
    known = all(isinstance(end, (int, float)) and math.isfinite(end) for end in ends)
    entry["interval"] = f"[{ends[0]:.3f}, {ends[1]:.3f}]" if known else None
    return entry


def _group_tables(result: EvaluationResult, style: str) -> list[Table]:
    """Build the table of groups of images; none where nobody asked."""
    groups = result.regions.get("all", {}).get("groups")
    if not groups:
        return []
    total = sum(entry["n_pixels"] for entry in groups.values()) or 1
    columns = (*_SIZES, *metric_columns(METRICS, "full" if style == "full" else "paper"))
    rows = [_row(name, {**entry, "share": entry["n_pixels"] / total}, columns) for name, entry in groups.items()]
    title = f"{result.protocol['name']}, groups of images: means over their images"
    return [Table("region_groups", title, "group", columns, (Group("", tuple(rows)),))]


def region_head(result: EvaluationResult) -> str:
    """Say what the regions depend on: ground truth, edge preset, bins, aggregation, hash."""
    p: dict[str, Any] = result.moments.parameters if result.moments is not None else {}
    facts = [f"ground truth {result.provenance.get('ground_truth_kind', '?')}"]
    if "density" in p:
        facts.append(f"density {p['density']:.1%}")
    facts.append(f"edges {p.get('edge_preset', '?')} (gaps {p.get('edge_gap')}, t {p.get('edge_t')})")
    if p.get("drop_seethrough"):
        facts.append("see-through suspects dropped")
    how = "as means over images" if _aggregation(result) == "image-mean" else "pooled over pixels"
    facts.append(f"regions {how}, all as the protocol; intervals: 95 %, abs_rel, bootstrap over drives")
    facts.append(f"region parameters {p.get('digest', '?')}")
    return "; ".join(facts) + "."


def _row(name: str, entry: dict[str, Any], columns: tuple[Column, ...]) -> Row:
    cells = []
    for column in columns:
        value = entry.get(column.key)
        if value is None:
            cells.append(Cell("n/a"))
        elif column.key == "interval":
            cells.append(Cell("n/a" if entry.get("too_few") else str(value)))
        elif column.key in ("n_pixels", "n_images"):
            cells.append(Cell(f"{value:,}", float(value)))
        elif column.key not in ("share", "gt_share") and entry.get("too_few"):
            cells.append(Cell("n/a"))
        else:
            cells.append(Cell(column.text(value), value * column.factor))
    return Row(row_label(name, str(entry.get("title", name))), tuple(cells), ranked=False)


def row_label(name: str, title: str) -> str:
    """Put the name that files use before the title, without saying it twice: "depth3 [60,80) m"."""
    stem, _, rest = title.partition(" [")
    if rest and name.startswith(stem) and "," not in stem and ", " not in rest:
        return f"{name} [{rest}"
    for lead in (f"{name}, ", f"{name}s, "):
        if title.startswith(lead):
            title = title.removeprefix(lead)
    return name if title == name else f"{name}: {title}"
