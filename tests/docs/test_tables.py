"""Tables of the documentation come from reports: markers exist, and between them stands what the report says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import make_tables
from benchmarks.effects import EFFECTS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
RESULTS = ROOT / "benchmarks" / "results"


def test_every_effect_has_its_table_and_its_section() -> None:
    text = (DOCS / "pitfalls.md").read_text(encoding="utf-8")
    assert set(make_tables.keys(text)) == {f"effect-{key}" for key in EFFECTS if key != "protocols"}
    assert "effects" in make_tables.keys((DOCS / "protocols.md").read_text(encoding="utf-8"))
    sections = set(re.findall(r'<a id="([^"]+)"></a>', text))
    assert {section for _, section, *_ in make_tables.SUMMARY} <= sections


def test_summary_lines_point_at_rows_that_exist() -> None:
    for _, _, key, _, _, metric in make_tables.SUMMARY:
        assert metric in EFFECTS[key][0]


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted(DOCS.glob("*.md"))], ids=lambda p: p.name)
def test_tables_are_those_of_the_reports(page: Path) -> None:
    reports = make_tables.read_reports(RESULTS)
    if not reports:
        pytest.skip("no reports: run python -m benchmarks and python -m benchmarks.effects")
    blocks = make_tables.speed_blocks(reports)
    if "effects" in reports:
        blocks |= make_tables.effect_blocks(reports["effects"])
    text = page.read_text(encoding="utf-8")
    for key in set(make_tables.keys(text)) & set(blocks):
        filled = make_tables.fill(text, key, blocks[key])
        assert filled == text, f"{page.name}: {key} is not what the report says; run python -m benchmarks.make_tables"


def test_filling_needs_the_markers_once() -> None:
    text = "a\n<!-- k:start -->\nold\n<!-- k:end -->\nb\n"
    assert make_tables.fill(text, "k", "new") == "a\n<!-- k:start -->\n\nnew\n\n<!-- k:end -->\nb\n"
    with pytest.raises(ValueError, match="found them 0 times"):
        make_tables.fill(text, "other", "new")


def test_changes_read_as_percent_points_or_factors() -> None:
    def change(before: float | None, after: float | None, metric: str = "rmse") -> str:
        first, row = ({"values": {"p": {metric: value}}} for value in (before, after))
        return make_tables.change(first, row, "p", metric)

    assert change(2.0, 2.1) == "(+5.0%)"
    assert change(2.0, 2.0001) == "(+0.005%)"
    assert change(2.0, 2.0) == "(0)"
    assert change(1.0, 20.0) == "(x 20)"
    assert change(0.9, 0.8, "d1") == "(-0.1000)"
    assert change(1.0, None) == ""
    assert change(0.0, 1.0) == ""


LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted(DOCS.glob("*.md"))], ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        other = page if not name else (page.parent / name)
        assert other.exists(), f"{page.name} links to {target}"
        if anchor and other.suffix == ".md":
            assert anchor in _anchors(other), f"{page.name} links to {target}: no such heading"


def _anchors(page: Path) -> set[str]:
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)"></a>', text))
