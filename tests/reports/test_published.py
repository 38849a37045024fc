"""Published rows: complete, digits as printed, and never ranked across groups."""

from __future__ import annotations

import csv
from importlib import resources

import pytest

from adubench.errors import UsageError
from adubench.evaluators.comparison import compare
from adubench.evaluators.protocols import PROTOCOLS
from adubench.reports.published import add_published, own_key, published_rows, published_tables, select, select_protocol
from adubench.reports.tables import results_table
from tests.evaluators.results_for_comparison import make_result


def raw_rows(name: str) -> list[dict[str, str]]:
    text = resources.files("adubench.reports").joinpath(f"published_results/{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def test_every_row_with_a_metric_is_loaded():
    names = ("adu_depth", "sub_depth", "tie_kd", "supervised_readmes", "selfsup_readmes", "spencer_benchmark_kitti")
    total = sum(len(raw_rows(name)) for name in names)
    assert total == 34 + 13 + 72 + 38 + 72 + 139
    rows = published_rows()
    assert total - len(rows) == 1  # the statement of speed has no metric
    assert all(row.source for row in rows)


def test_protocols_exist_and_wordings_are_translated():
    rows = published_rows()
    assert {row.protocol for row in rows} - {None} <= set(PROTOCOLS)
    adu = next(r for r in rows if r.method.startswith("ADU-Depth") and "Table 1" in r.source)
    assert (adu.protocol, adu.split, adu.values["abs_rel"]) == ("kitti-eigen", "eigen_test", "0.049")
    assert {r.protocol for r in rows if r.key.dataset == "NYU"} == {None}
    assert {r.split for r in rows if r.protocol == "kitti-mdb"} == {"eigen_test", "eigen_zhou.test_700"}
    toolbox = [r for r in rows if r.protocol == "kitti-eigen-toolbox"]
    assert len(toolbox) == 36 + 10


def test_server_units_name_the_other_squared_error():
    for row in published_rows():
        assert ("sq_rel" in row.values) <= (row.key.scale == "fraction")
        assert ("sq_rel_gt2" in row.values) <= (row.key.scale == "percent")


def test_rows_of_the_results_group_are_ranked_with_it_and_others_stand_apart():
    comparison = compare([make_result("ours", 1), make_result("b", 2, bias=0.1)], resamples=300)
    first, *others = add_published(results_table(comparison), comparison, "paper")
    labels = [row.label for row in first.groups[0].rows if row.kind == "published"]
    assert len(labels) == 1
    assert labels[0].startswith("NeWCRFs")
    k = [c.key for c in first.columns].index("abs_rel")
    ranks = {row.label: row.cells[k].rank for row in first.groups[0].rows}
    assert ranks[labels[0]] == 1
    assert ranks["ours"] == 2
    assert first.groups[0].rows[-1].cells[k].text == "0.0520"
    assert others
    assert all(row.kind == "published" and row.source for t in others for g in t.groups for row in g.rows)
    assert all("not to be ranked" in t.title for t in others)


def test_a_partial_result_is_not_ranked_with_published_rows():
    comparison = compare([make_result("ours", 1, drop=(2,))], resamples=300)
    rows = add_published(results_table(comparison), comparison, "paper")[0].groups[0].rows
    assert {cell.rank for row in rows for cell in row.cells} == {0}
    assert any(remark.startswith("partial") for remark in rows[0].remarks)


def test_groups_never_mix_keys():
    for protocol in {row.protocol for row in published_rows() if row.protocol}:
        rows = select(protocol, None)
        for table in published_tables(rows, protocol):
            for group in table.groups:
                keys = {(r.key, r.split) for r in rows if r.group == group.title}
                assert len(keys) == 1


def test_scales_have_tables_of_their_own():
    tables = published_tables(select("kitti-mdb", "eigen_test"), "x")
    assert {c.unit for c in tables[0].columns if c.key == "abs_rel"} == {"%"}
    comparison = compare([make_result("ours", 1, protocol="kitti-mdb")], resamples=300)
    first, *_ = add_published(results_table(comparison), comparison, "paper")
    assert all(row.kind == "result" for row in first.groups[0].rows)  # fractions: no percent row joins


def test_a_changed_protocol_is_a_family_of_its_own():
    raw = PROTOCOLS["kitti-eigen-raw"]
    assert own_key(raw.to_dict(), "paper").family == "kitti-eigen-raw"
    aligned = own_key(raw.with_options(alignment="fixed:5.4").to_dict(), "paper")
    assert (aligned.family, aligned.alignment) == ("kitti-eigen-raw", "fixed:5.4")
    assert own_key(raw.with_options(cap=50).to_dict(), "paper").family != "kitti-eigen-raw"
    assert own_key(raw.to_dict(), "leaderboard").scale == "percent"


def test_stereo_teachers_are_no_rivals():
    tables = published_tables(select("kitti-eigen", "eigen_test"), "x")
    rows = {row.label: row for t in tables for g in t.groups for row in g.rows}
    assert all(cell.rank == 0 for cell in rows["ADU-Depth teacher (stereo input)"].cells)


def test_unknown_protocols_list_the_known_ones():
    with pytest.raises(UsageError, match=r"there are some under .*kitti-eigen"):
        select_protocol("full-frame")
    assert select("full-frame") == []
    assert select("kitti-eigen", "eigen_train") == []


@pytest.mark.parametrize(("protocol", "split"), [("full-frame", "eigen_test"), ("kitti-eigen", None)])
def test_without_published_rows_the_table_says_so(protocol, split):
    comparison = compare([make_result("ours", 1, protocol=protocol, split=split)], resamples=300)
    (table,) = add_published(results_table(comparison), comparison, "paper")
    assert table.notes[-1] == "published results: none for this protocol and split."
