"""The tables of `adubench eval --regions`: one per family, sizes beside every number."""

from __future__ import annotations

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
}
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
    columns = (*_SIZES, *metric_columns(METRICS, "full" if style == "full" else "paper"))
    head = region_head(result)
    tables: list[Table] = []
    for family, names in families.items():
        rows = [_row(name, result.regions[name], columns) for name in ("all", *names)]
        title = f"{result.protocol['name']}, regions: {FAMILY_TITLES.get(family, family)}"
        notes = (head,) if not tables else ()
        tables.append(Table(f"regions_{family}", title, "region", columns, (Group("", tuple(rows)),), notes))
    return tables


def region_head(result: EvaluationResult) -> str:
    """Say what the regions depend on: ground truth, edge preset, bins, aggregation, hash."""
    p: dict[str, Any] = result.moments.parameters if result.moments is not None else {}
    facts = [f"ground truth {result.provenance.get('ground_truth_kind', '?')}"]
    if "density" in p:
        facts.append(f"density {p['density']:.1%}")
    facts.append(f"edges {p.get('edge_preset', '?')} (gaps {p.get('edge_gap')}, t {p.get('edge_t')})")
    if p.get("drop_seethrough"):
        facts.append("see-through suspects dropped")
    facts.append("regions pooled over pixels, all as the protocol")
    facts.append(f"region parameters {p.get('digest', '?')}")
    return "; ".join(facts) + "."


def _row(name: str, entry: dict[str, Any], columns: tuple[Column, ...]) -> Row:
    cells = []
    for column in columns:
        value = entry.get(column.key)
        if value is None:
            cells.append(Cell("n/a"))
        elif column.key in ("n_pixels", "n_images"):
            cells.append(Cell(f"{value:,}", float(value)))
        elif column.key != "share" and entry.get("too_few"):
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
