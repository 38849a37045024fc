"""Tables of comparisons: titles, units, marks, styles."""

from __future__ import annotations

import pytest

from adubench.errors import UsageError
from adubench.evaluators.comparison import compare
from adubench.reports.tables import differences_table, metric_columns, p_text, results_table
from tests.evaluators.results_for_comparison import make_result


@pytest.fixture(scope="module")
def comparison():
    return compare([make_result("a", 1), make_result("b", 2, bias=0.1)], resamples=300)


def test_title_names_protocol_version_split_images_pixels(comparison):
    title = results_table(comparison).title
    for part in ("kitti-eigen v1", "split eigen_test", "32 images", "pixels", "8 drives"):
        assert part in title


def test_headers_carry_arrow_and_unit():
    headers = [c.header for c in metric_columns(["abs_rel", "rmse", "d1", "irmse"], "paper")]
    assert headers == ["abs_rel ↓", "rmse ↓ [m]", "d1 ↑", "irmse ↓ [1/km]"]


def test_styles(comparison):
    value = comparison.estimates["a"]["all"]["abs_rel"].value
    at = {style: results_table(comparison, style) for style in ("paper", "full")}
    shown = {s: t.groups[0].rows[0].cells[[c.key for c in t.columns].index("abs_rel")].text for s, t in at.items()}
    assert shown == {"paper": f"{value:.3f}", "full": f"{value:.6g}"}
    server = compare([make_result("a", 1)], metrics=["silog", "abs_rel", "sq_rel_gt2", "irmse"], resamples=300)
    table = results_table(server, "leaderboard")
    assert [c.title for c in table.columns] == ["SILog", "sqErrorRel", "absErrorRel", "iRMSE"]
    assert table.groups[0].rows[0].cells[2].text == f"{100 * value:.2f}"
    with pytest.raises(UsageError, match="leaderboard"):
        metric_columns(["rmse"], "leaderboard")
    with pytest.raises(UsageError, match="unknown style"):
        metric_columns(["rmse"], "papr")


def test_best_is_marked_and_differences_carry_significance(comparison):
    table = results_table(comparison)
    k = [c.key for c in table.columns].index("abs_rel")
    a, b, delta = table.groups[0].rows
    assert (a.cells[k].rank, b.cells[k].rank) == (1, 2)
    assert delta.kind == "difference"
    assert delta.cells[k].mark == "*"
    assert delta.cells[k].text.startswith("+")
    details = differences_table(comparison)
    row = next(r for r in details.groups[0].rows if r.label == "abs_rel@all")
    assert row.cells[-1].text == "b better"  # b is the baseline


def test_few_clusters_are_said_instead_of_a_p_value():
    few = compare([make_result("a", 1, drives=3), make_result("b", 2, drives=3)], resamples=300)
    row = differences_table(few).groups[0].rows[0]
    assert "too few clusters" in [c.text for c in row.cells]
    assert row.cells[-1].text == "n.s."
    assert all(cell.p is None for group in results_table(few).groups for r in group.rows for cell in r.cells)


def test_mixed_protocols_are_said_in_the_title_and_in_every_row():
    mixed = compare(
        [make_result("a", 1), make_result("b", 2, bias=0.2, protocol="kitti-eigen-full")], force=True, resamples=300
    )
    table = results_table(mixed)
    assert table.title.startswith("NOT COMPARABLE (--force): kitti-eigen v1 + kitti-eigen-full v1")
    for group in (*table.groups, *differences_table(mixed).groups):
        for row in group.rows:
            assert any("protocol" in remark for remark in row.remarks)
            assert all(cell.rank == 0 and cell.mark == "" for cell in row.cells)


def test_p_is_never_printed_as_zero():
    assert [p_text(p) for p in (0.0, 0.00005, 0.0123, 1.0, float("nan"))] == ["<0.0001", "<0.0001", "0.012", "1", "-"]
