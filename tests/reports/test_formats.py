"""One small table in every format, compared with stored text."""

from __future__ import annotations

import csv
import io

import pytest

from adubench.reports.formats import RENDERERS, escape_latex, render_rich, split_columns
from adubench.reports.tables import Cell, Column, Group, Row, Table, rank_rows

COLUMNS = (Column("abs_rel", "abs_rel", "", "↓", 3), Column("rmse", "rmse", "m", "↓", 3))


def table() -> Table:
    rows = (
        Row("our_model", (Cell("0.049", 0.0491, low=0.047, high=0.051), Cell("2.080", 2.08))),
        Row("b|c & 50%", (Cell("0.052", 0.0523), Cell("2.071", 2.071))),
        Row(
            "Δ b - a",
            (Cell("+0.0032", 0.0032, mark="*", low=0.001, high=0.005, p=0.01), Cell("-0.009", -0.009)),
            "difference",
        ),
        Row("Paper", (Cell("0.0520", 0.052), Cell("-")), "published", ("published",), "some README"),
    )
    return Table(
        "results",
        "kitti-eigen v1, split eigen_test",
        "model",
        COLUMNS,
        (Group("", rank_rows(rows, COLUMNS)),),
        ("a note",),
    )


def test_markdown():
    assert RENDERERS["markdown"]([table()]) == (
        "### kitti-eigen v1, split eigen\\_test\n"
        "\n"
        "| model | abs\\_rel ↓ | rmse ↓ [m] | remarks | source |\n"
        "|:--|--:|--:|:--|:--|\n"
        "| our\\_model | **0.049** | <u>2.080</u> |  |  |\n"
        "| b\\|c & 50% | 0.052 | **2.071** |  |  |\n"
        "| Δ b - a | +0.0032\\* | -0.009 |  |  |\n"
        "| Paper | <u>0.0520</u> | - | published | some README |\n"
        "\n"
        "- a note\n"
    )


def test_latex():
    assert RENDERERS["latex"]([table()]) == "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}[t]",
            r"\centering",
            r"\caption{kitti-eigen v1, split eigen\_test}",
            r"\begin{tabular}{lrrll}",
            r"\toprule",
            r"model & abs\_rel $\downarrow$ & rmse $\downarrow$ [m] & remarks & source \\",
            r"\midrule",
            r"our\_model & \textbf{0.049} & \underline{2.080} &  &  \\",
            r"b\textbar{}c \& 50\% & 0.052 & \textbf{2.071} &  &  \\",
            r"$\Delta$ b - a & +0.0032* & -0.009 &  &  \\",
            r"Paper & \underline{0.0520} & - & published & some README \\",
            r"\bottomrule",
            r"\end{tabular}",
            r"\par\footnotesize a note",
            r"\end{table}",
            "",
        ]
    )


def test_csv_is_flat_and_exact():
    rows = list(csv.DictReader(io.StringIO(RENDERERS["csv"]([table()]))))
    assert [r["kind"] for r in rows] == ["result", "result", "difference", "published"]
    assert rows[0]["abs_rel"] == "0.0491"
    assert (rows[0]["abs_rel low"], rows[0]["abs_rel high"]) == ("0.047", "0.051")
    assert rows[2]["abs_rel p"] == "0.01"
    assert rows[3]["abs_rel"] == "0.0520"  # digits as printed
    assert rows[3]["rmse"] == ""
    assert rows[1]["row"] == "b|c & 50%"


def test_rich_plain_marks_best_and_second_with_signs():
    text = render_rich([table()])
    assert "0.049¹" in text
    assert "0.0520²" in text
    assert "\x1b" not in text
    assert "¹ best, ² second best" in text
    assert "some README" in text
    assert "\x1b[1" in render_rich([table()], color=True)


def test_a_wide_table_is_cut_into_parts_that_fit():
    wide = table()
    assert len(split_columns(wide, None)) == 1
    parts = split_columns(wide, 40)
    assert [c.key for part in parts for c in part.columns] == ["abs_rel", "rmse"]
    text = render_rich([wide], width=60)
    assert "…" not in text
    assert max(len(line) for line in text.splitlines()) <= 60


@pytest.mark.parametrize(
    ("text", "want"),
    [("a_b", r"a\_b"), ("\\", r"\textbackslash{}"), ("50%{}", r"50\%\{\}"), ("m²", r"m\textsuperscript{2}")],
)
def test_latex_escapes(text, want):
    assert escape_latex(text) == want


def test_equal_values_share_a_rank_and_a_lone_row_has_none():
    rows = [Row(str(i), (Cell("x", v), Cell("y", None))) for i, v in enumerate((2.0, 1.0, 1.0, 3.0))]
    assert [r.cells[0].rank for r in rank_rows(rows, COLUMNS)] == [2, 1, 1, 0]
    assert rank_rows(rows[:1], COLUMNS)[0].cells[0].rank == 0
    up = (Column("d1", "d1", "", "↑"), COLUMNS[1])
    assert [r.cells[0].rank for r in rank_rows(rows, up)] == [2, 0, 0, 1]
