"""Fill the marked tables of the documentation from the reports in benchmarks/results.

A table stands between `<!-- KEY:start -->` and `<!-- KEY:end -->`; what is typed between them is replaced.

python -m benchmarks.make_tables [--results DIR] [--docs DIR]
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

DECIMALS = {"silog": 2, "irmse": 2, "rmse": 3, "sq_rel": 3}
SHARES = ("d1", "d2", "d3")  # their changes are differences, not ratios
HEADERS = {"sq_rel": "sq_rel (m)", "rmse": "rmse (m)", "sq_rel_gt2": "sq_rel_gt2"}
EFFECTS_COMMAND = "python -m benchmarks.effects"


# ---- markers ---------------------------------------------------------------------------------------------------------


def fill(text: str, key: str, block: str) -> str:
    """Put a block between the markers of a key.

    Raises:
        ValueError: the markers are not there, or not once.
    """
    pattern = re.compile(rf"(<!-- {re.escape(key)}:start -->\n).*?(<!-- {re.escape(key)}:end -->)", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f"expected the markers of '{key}' once, found them {len(pattern.findall(text))} times")
    return pattern.sub(lambda m: f"{m[1]}\n{block.strip()}\n\n{m[2]}", text)


def keys(text: str) -> list[str]:
    """Keys of all markers in a document."""
    return re.findall(r"<!-- (\S+):start -->", text)


def rewrite(path: Path, blocks: dict[str, str]) -> bool:
    """Fill all markers of a document that have a block; true when the file changed."""
    before = after = path.read_text(encoding="utf-8")
    for key in keys(before):
        if key in blocks:
            after = fill(after, key, blocks[key])
    if after != before:
        path.write_text(after, encoding="utf-8")
    return after != before


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = True) -> str:
    rule = ["---"] + ["--:" if numbers else "---"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))


# ---- effects ---------------------------------------------------------------------------------------------------------


def effect_table(table: dict[str, Any], predictions: Sequence[str]) -> str:
    """One row per case; in each group of rows the first one is what the changes in brackets refer to."""
    groups, metrics = table["groups"], table["metrics"]
    shown = [p for p in predictions if any(p in row["values"] for group in groups for row in group)]
    header = [""]
    for p in shown:
        header += [f"{p}: {HEADERS.get(metrics[0], metrics[0])}", *(HEADERS.get(m, m) for m in metrics[1:])]
    rows = [
        [row["label"], *(_cell(group[0], row, p, m) for p in shown for m in metrics)]
        for group in groups
        for row in group
    ]
    return markdown(header, rows)


def _cell(first: dict[str, Any], row: dict[str, Any], prediction: str, metric: str) -> str:
    if prediction not in row["values"]:
        return ""
    text = number(row["values"][prediction][metric], metric)
    return text if first is row else f"{text} {change(first, row, prediction, metric)}".strip()


def number(value: float | None, metric: str) -> str:
    return "NaN" if value is None else f"{value:.{DECIMALS.get(metric, 4)}f}"


def change(first: dict[str, Any], row: dict[str, Any], prediction: str, metric: str) -> str:
    """The change in brackets: percent, points of a share, or a factor when it is large."""
    reference, value = (r["values"].get(prediction, {}).get(metric) for r in (first, row))
    if reference is None or value is None:
        return ""
    if metric in SHARES:
        return f"({value - reference:+.4f})" if abs(value - reference) >= 5e-5 else "(0)"
    if abs(reference) < 1e-9:
        return ""
    relative = value / reference - 1
    if abs(relative) >= 2:
        return f"(x {value / reference:.{0 if relative > 9 else 1}f})"
    if abs(relative) < 5e-6:
        return "(0)"
    return f"({relative:+.1%})" if abs(relative) >= 0.001 else f"({relative:+.3%})"


def effect_blocks(report: dict[str, Any]) -> dict[str, str]:
    blocks = {f"effect-{key}": effect_table(table, report["predictions"]) for key, table in report["tables"].items()}
    blocks["effects"] = _summary(report)
    return blocks


# One line of the summary: cause, section of pitfalls.md, table, group, row, metric.
SUMMARY: tuple[tuple[str, str, str, int, int, str], ...] = (
    ("full image for the KB window", "window", "window", 0, 1, "rmse"),
    ("single scans for accumulated maps", "ground-truth", "ground-truth", 0, 1, "abs_rel"),
    ("vehicle axis for camera depth, no scaling", "axis", "axis", 0, 1, "abs_rel"),
    ("vehicle axis for camera depth, median scaling", "axis", "axis", 1, 1, "abs_rel"),
    ("Eigen for Garg crop", "crop", "crop", 0, 1, "rmse"),
    ("no crop for Garg crop", "crop", "crop", 0, 2, "rmse"),
    ("no crop, padded border scored", "crop", "crop", 0, 3, "silog"),
    ("cap 50 m for 80 m", "cap", "cap", 0, 1, "rmse"),
    ("no cap for 80 m", "cap", "cap", 0, 2, "rmse"),
    ("ground truth uncapped, prediction clamped", "cap", "cap", 1, 1, "rmse"),
    ("no clamp for clamp", "clamp", "clamp", 0, 1, "rmse"),
    ("median scaling for none", "scaling", "scaling", 0, 1, "abs_rel"),
    ("least squares in disparity for none", "scaling", "scaling", 0, 2, "abs_rel"),
    ("baseline 0.54 m for 0.5327 m", "scaling", "scaling", 0, 3, "abs_rel"),
    ("lower for usual median", "median", "median", 0, 1, "abs_rel"),
    ("truncated PNG for float32", "png", "png", 0, 2, "abs_rel"),
    ("metres x 1000, wrapped", "wrap", "wrap", 0, 1, "rmse"),
    ("scale 100 for 256", "unit-mistakes", "unit-mistakes", 0, 1, "abs_rel"),
    ("scale 100 for 256", "unit-mistakes", "unit-mistakes", 0, 1, "silog"),
    ("disparity for depth", "unit-mistakes", "unit-mistakes", 0, 4, "silog"),
    ("2 % of the pixels missing, filled", "missing", "missing", 0, 1, "silog"),
    ("one empty row", "missing", "missing", 0, 3, "silog"),
    ("worst image skipped", "skips", "skips", 0, 1, "abs_rel"),
    ("pooled pixels for the mean over images", "means", "means", 0, 1, "rmse"),
    ("float32 sums for float64", "float32", "float32", 0, 1, "silog"),
    ("half resolution, resized as depth", "resize", "resize", 0, 1, "abs_rel"),
    ("half resolution, resized as disparity", "resize", "resize", 0, 2, "abs_rel"),
    ("scored at half for full resolution", "resolution", "resolution", 0, 1, "abs_rel"),
)


def _summary(report: dict[str, Any]) -> str:
    predictions, rows = report["predictions"], []
    for cause, section, key, group, place, metric in SUMMARY:
        first, row = (report["tables"][key]["groups"][group][i] for i in (0, place))
        cells = [f"[{cause}](pitfalls.md#{section})", f"`{metric}`"]
        for p in predictions:
            before, after = (number(r["values"][p][metric], metric) for r in (first, row))
            cells.append(f"{before} -> {after} {change(first, row, p, metric)}".strip())
        rows.append(cells)
    head = (
        f"Measured on {report['images']} SynthDrive images of as many drives at 375x1242 by `{EFFECTS_COMMAND}`. "
        "`stereo-matching` is semi-global matching on the stereo pair; `simulated-mono` is the exact depth with a "
        "smooth log-normal error that grows with distance and with blurred edges, a simulation of a good network. "
        "All causes with their context: [pitfalls](pitfalls.md)."
    )
    protocols = effect_table(report["tables"]["protocols"], predictions)
    return (
        f"{head}\n\nThe same maps under each protocol (change against `kitti-eigen`):\n\n{protocols}\n\n"
        f"One cause at a time:\n\n{markdown(['cause', 'metric', *predictions], rows)}"
    )


def fill_effects(report: dict[str, Any], docs: Path) -> list[Path]:
    """Fill every marked table of the effects; returns the files that changed."""
    blocks = effect_blocks(report)
    return [path for path in sorted(docs.glob("*.md")) if rewrite(path, blocks)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    options = parser.parse_args()
    effects = options.results / "effects.json"
    if effects.exists():
        for path in fill_effects(json.loads(effects.read_text(encoding="utf-8")), options.docs):
            print(f"filled {path}")


if __name__ == "__main__":
    main()
