"""Renderers: small pure functions from tables to text. JSON comes from `Comparison.to_dict`."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.table import Table as RichTable
    from rich.text import Text

    from adubench.reports.tables import Cell, Column, Row, Table

_SHORT = 32  # longer remarks go below the table
_PLAIN_RANK = {0: "", 1: "¹", 2: "²"}
_LEGEND = "¹ best, ² second best within a group of rows."
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "δ": r"$\delta$", "Δ": r"$\Delta$",
    "×": r"$\times$", "²": r"\textsuperscript{2}", "±": r"$\pm$", "–": "--",
    "†": r"\textsuperscript{\dag}",
}  # fmt: skip


def render_rich(tables: Sequence[Table], *, width: int | None = None, color: bool = False) -> str:
    """Render for a terminal: best bold, second best underlined; without colour they carry ¹ and ².

    Args:
        tables: what to show.
        width: columns of the terminal; None takes what the widest table needs.
        color: use terminal attributes.
    """
    from rich.console import Console

    console = Console(
        file=io.StringIO(), width=width or 1000, color_system="standard" if color else None, force_terminal=color,
        no_color=not color, highlight=False, legacy_windows=False,
    )  # fmt: skip
    for table in tables:
        console.print(table.title, style="bold", markup=False)
        references: dict[str, int] = {}
        for group in table.groups:
            single = replace(table, groups=(group,))
            if group.title:
                console.print(group.title, style="italic", markup=False)
            for part in split_columns(single, width):
                console.print(_rich_table(part, references, color=color))
        for long, number in references.items():
            console.print(f"[{number}] {long}", style="dim", markup=False)
        for note in _with_legend(table, plain=not color):
            console.print(note, style="yellow" if note.startswith("warning:") else "dim", markup=False)
        console.print()
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines()).rstrip("\n") + "\n"


def split_columns(table: Table, width: int | None) -> list[Table]:
    """Cut a table that is wider than the terminal into parts with the same rows; remarks stay with the last part."""
    if width is None:
        return [table]
    rows = [row for group in table.groups for row in group.rows]
    label = max([len(table.head), *(len(row.label) + 2 for row in rows)])
    parts: list[list[int]] = [[]]
    start = label + (18 if any(_extras(table)) else 0)
    used, width = start, width - 6  # edges
    for i, column in enumerate(table.columns):
        texts = [*column.header.split(" ["), *(row.cells[i].text + row.cells[i].mark + " " for row in rows)]
        need = 3 + max(map(len, texts))
        if parts[-1] and used + need > width:
            parts.append([])
            used = start
        parts[-1].append(i)
        used += need
    return [_take_columns(table, part, last=part is parts[-1]) for part in parts]


def _take_columns(table: Table, part: Sequence[int], *, last: bool) -> Table:
    def cut(row: Row) -> Row:
        remarks, source = (row.remarks, row.source) if last else ((), "")
        return replace(row, cells=tuple(row.cells[i] for i in part), remarks=remarks, source=source)

    groups = tuple(replace(group, rows=tuple(cut(row) for row in group.rows)) for group in table.groups)
    return replace(table, columns=tuple(table.columns[i] for i in part), groups=groups)


def _rich_table(table: Table, references: dict[str, int], *, color: bool) -> RichTable:
    """Build one rich table; long remarks and sources become numbers that `references` explains."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    out = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    out.add_column(table.head, no_wrap=True)
    for column in table.columns:
        out.add_column(Text(column.header.replace(" [", "\n[")), justify="right", no_wrap=True)
    remarks = any(_extras(table))
    if remarks:
        out.add_column("remarks")
    for group in table.groups:
        for row in group.rows:
            texts = [Text(row.label), *(_rich_cell(cell, color) for cell in row.cells)]
            texts += [Text(_short_remarks(row, references))] if remarks else []
            out.add_row(*texts, style="dim" if row.kind == "difference" and color else None)
    return out


def _short_remarks(row: Row, references: dict[str, int]) -> str:
    short = [remark for remark in row.remarks if len(remark) <= _SHORT]
    long = "; ".join([*([row.source] if row.source else []), *(r for r in row.remarks if len(r) > _SHORT)])
    if long:
        short.append(f"[{references.setdefault(long, len(references) + 1)}]")
    return ", ".join(short)


def _rich_cell(cell: Cell, color: bool) -> Text:
    from rich.text import Text

    style = {1: "bold green", 2: "underline"}.get(cell.rank, "") if color else ""
    return Text(cell.text + cell.mark + ("" if color else _PLAIN_RANK[cell.rank]), style=style)


def _extras(table: Table) -> tuple[bool, bool]:
    rows = [row for group in table.groups for row in group.rows]
    return any(row.remarks for row in rows), any(row.source for row in rows)


def _with_legend(table: Table, *, plain: bool) -> list[str]:
    ranked = any(cell.rank for group in table.groups for row in group.rows for cell in row.cells)
    return [*table.notes, *([_LEGEND] if ranked and plain else [])]


def _grid(
    table: Table, cell_text: Callable[[Cell], str], escape: Callable[[str], str]
) -> tuple[list[str], list[tuple[str, list[list[str]]]]]:
    """Return header and groups of rows as escaped text, with the remark and source columns where they are used."""
    remarks, sources = _extras(table)
    header = [escape(h) for h in (table.head, *(c.header for c in table.columns))]
    header += ["remarks"] * remarks + ["source"] * sources
    groups = []
    for group in table.groups:
        rows = []
        for row in group.rows:
            cells = [escape(row.label), *(cell_text(cell) for cell in row.cells)]
            cells += [escape("; ".join(row.remarks))] * remarks + [escape(row.source)] * sources
            rows.append(cells)
        groups.append((escape(group.title), rows))
    return header, groups


def render_markdown(tables: Sequence[Table]) -> str:
    """Render as GitHub tables: values with their intervals, best bold, second best underlined."""

    def escape(text: str) -> str:
        for sign in "\\|*_<>`":
            text = text.replace(sign, "\\" + sign)
        return text.replace("\n", " ")

    def cell_text(cell: Cell) -> str:
        text = escape(cell.text + cell.mark)
        text = f"**{text}**" if cell.rank == 1 else f"<u>{text}</u>" if cell.rank == 2 else text
        return f"{text} {cell.interval}" if cell.interval else text

    parts = []
    for table in tables:
        header, groups = _grid(table, cell_text, escape)
        lines = [f"### {escape(table.title)}", ""]
        texts = len(header) - 1 - len(table.columns)
        lines += [_markdown_row(header), "|" + "|".join([":--", *["--:"] * len(table.columns), *[":--"] * texts]) + "|"]
        for title, rows in groups:
            if title:
                lines.append(_markdown_row([f"*{title}*", *[""] * (len(header) - 1)]))
            lines += [_markdown_row(row) for row in rows]
        lines += ["", *(f"- {escape(note)}" for note in table.notes)]
        parts.append("\n".join(lines).rstrip())
    return "\n\n".join(parts) + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def escape_latex(text: str) -> str:
    """Escape the signs that LaTeX reads as commands, and write arrows and Greek letters as mathematics."""
    return "".join(_LATEX.get(sign, sign) for sign in text)


def render_latex(tables: Sequence[Table]) -> str:
    """Render as booktabs tables: values with their intervals, best bold, second best underlined."""

    def cell_text(cell: Cell) -> str:
        text = escape_latex(cell.text + cell.mark)
        text = rf"\textbf{{{text}}}" if cell.rank == 1 else rf"\underline{{{text}}}" if cell.rank == 2 else text
        return rf"{text} {{\scriptsize {escape_latex(cell.interval)}}}" if cell.interval else text

    parts = []
    for table in tables:
        header, groups = _grid(table, cell_text, escape_latex)
        aligned = "l" + "r" * len(table.columns) + "l" * (len(header) - 1 - len(table.columns))
        lines = [
            "% needs \\usepackage{booktabs}",
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{escape_latex(table.title)}}}",
            rf"\begin{{tabular}}{{{aligned}}}",
            r"\toprule",
            " & ".join(header) + r" \\",
        ]
        for title, rows in groups:
            lines.append(r"\midrule")
            if title:
                lines.append(rf"\multicolumn{{{len(header)}}}{{l}}{{\textit{{{title}}}}} \\")
            lines += [" & ".join(row) + r" \\" for row in rows]
        lines += [r"\bottomrule", r"\end{tabular}"]
        lines += [rf"\par\footnotesize {escape_latex(note)}" for note in table.notes]
        parts.append("\n".join([*lines, r"\end{table}"]))
    return "\n\n".join(parts) + "\n"


def render_csv(tables: Sequence[Table]) -> str:
    """Render one flat table for programs: full precision, interval ends and p-values in columns of their own.

    Published values keep their printed digits. Tables of text (the list of differences) are left out, as everything
    in them stands in the rows of kind `difference`.
    """
    shown = [table for table in tables if table.name != "differences"]
    fields = ["table", "protocol", "group", "row", "kind"]
    for table in shown:
        for column in table.columns:
            fields += [f for f in (_name(column), *_extra_names(column)) if f not in fields]
    fields += ["remarks", "source"]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fields, restval="", lineterminator="\n")
    writer.writeheader()
    for table in shown:
        for group in table.groups:
            for row in group.rows:
                writer.writerow(
                    {"table": table.name, "protocol": table.title, "group": group.title, "row": row.label,
                     "kind": row.kind, "remarks": "; ".join(row.remarks), "source": row.source}
                    | _csv_cells(row, table.columns)
                )  # fmt: skip
    return stream.getvalue()


def _name(column: Column) -> str:
    return f"{column.key} [%]" if column.unit == "%" else column.key


def _extra_names(column: Column) -> tuple[str, str, str]:
    return f"{_name(column)} low", f"{_name(column)} high", f"{_name(column)} p"


def _csv_cells(row: Row, columns: Sequence[Column]) -> dict[str, str]:
    out = {}
    for column, cell in zip(columns, row.cells, strict=True):
        printed = row.kind == "published" or cell.value is None
        out[_name(column)] = (cell.text if cell.text != "-" else "") if printed else repr(cell.value)
        for name, value in zip(_extra_names(column), (cell.low, cell.high, cell.p), strict=True):
            out[name] = "" if value is None else repr(float(value))
    return out


RENDERERS: dict[str, Callable[[Sequence[Table]], str]] = {
    "markdown": render_markdown,
    "latex": render_latex,
    "csv": render_csv,
}
