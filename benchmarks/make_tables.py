"""Fill the marked tables of the documentation from the reports in benchmarks/results.

A table stands between `<!-- KEY:start -->` and `<!-- KEY:end -->`; what is typed between them is replaced.

python -m benchmarks.make_tables [--results DIR] [--docs DIR]
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Sequence
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
    plain = table.get("plain", False)
    shown = [p for p in predictions if any(p in row["values"] for group in groups for row in group)]
    header = [""]
    for p in shown:
        header += [f"{p}: {HEADERS.get(metrics[0], metrics[0])}", *(HEADERS.get(m, m) for m in metrics[1:])]
    rows = [
        [row["label"], *(_cell(group[0], row, p, m, plain) for p in shown for m in metrics)]
        for group in groups
        for row in group
    ]
    return markdown(header, rows)


def _cell(first: dict[str, Any], row: dict[str, Any], prediction: str, metric: str, plain: bool) -> str:
    if prediction not in row["values"]:
        return ""
    if plain:  # the same number in several units: no changes
        return f"{row['values'][prediction][metric]:#.3g}"
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
    blocks["effects-excerpt"] = _effects_excerpt(report)
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
    predictions = report["predictions"]
    rows = [
        [f"[{cause}](pitfalls.md#{section})", f"`{metric}`", *_from_to(report, key, group, place, metric)]
        for cause, section, key, group, place, metric in SUMMARY
    ]
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


def _from_to(report: dict[str, Any], key: str, group: int, place: int, metric: str) -> list[str]:
    """Value of the reference, of the other case, and the change, for both predictions."""
    first, row = (report["tables"][key]["groups"][group][i] for i in (0, place))
    cells = []
    for p in report["predictions"]:
        before, after = (number(r["values"][p][metric], metric) for r in (first, row))
        cells.append(f"{before} -> {after} {change(first, row, p, metric)}".strip())
    return cells


README_CAUSES = (
    "full image for the KB window", "single scans for accumulated maps", "median scaling for none",
    "cap 50 m for 80 m", "no crop, padded border scored", "worst image skipped",
)  # fmt: skip


def _effects_excerpt(report: dict[str, Any]) -> str:
    """A few lines for the README."""
    rows = [
        [cause, f"`{metric}`", *_from_to(report, key, group, place, metric)]
        for cause, _, key, group, place, metric in SUMMARY
        if cause in README_CAUSES
    ]
    return markdown(["cause", "metric", *report["predictions"]], rows)


def fill_effects(report: dict[str, Any], docs: Path) -> list[Path]:
    """Fill every marked table of the effects; returns the files that changed."""
    blocks = effect_blocks(report)
    return [path for path in sorted(docs.glob("*.md")) if rewrite(path, blocks)]


# ---- speed -----------------------------------------------------------------------------------------------------------

SPEED_HEAD = ("", "what", "measured", "goal", "reached")
NOT_MEASURED = "Not measured yet."
Report = dict[str, Any]


def speed_blocks(reports: dict[str, Report]) -> dict[str, str]:
    """Tables of docs/performance.md; a report that is not there says so."""
    makers: dict[str, Callable[[Report], str]] = {
        "evaluation": _evaluation,
        "peers": _peers,
        "startup": _startup,
        "export": _export,
        "bootstrap": _bootstrap,
        "regions": _regions,
        "synthdrive": _synthdrive,
        "network": _network,
        "network-gpu": _network_gpu,
        "adapters": _adapters,
        "loader": _loader,
    }
    blocks = {
        f"performance-{name}": maker(reports[source])
        if (source := name.removesuffix("-gpu")) in reports
        else NOT_MEASURED
        for name, maker in makers.items()
    }
    blocks["performance-machine"] = _machine(reports)
    blocks["performance-excerpt"] = _excerpt(reports) if "evaluation" in reports else NOT_MEASURED
    return blocks


def _line(key: str, what: str, value: str, goal: str, reached: bool | None) -> tuple[str, ...]:
    return key, what, value, goal, "" if reached is None else "yes" if reached else "**no**"


def _at_least(key: str, what: str, ratio: float, goal: float, note: str = "", unit: str = " x") -> tuple[str, ...]:
    return _line(key, what, f"{ratio:.2f}{unit}{note}", f">= {goal:g}{unit}", ratio >= goal)


def _evaluation(report: Report) -> str:
    rows = [_at_least(k, f"{r['what']}", r["ratio"], r["goal"]) for k, r in report["ratios"].items()]
    ev9, ev10, sizes = report["EV9"], report["EV10"], report["EV11"]
    note = " (void: busy machine)" if ev9["void"] else ""
    rows.append(_at_least("EV9", "two processes against one, 192 images, wall time", ev9["ratio"], ev9["goal"], note))
    grown = f"{ev10['grown_mib']:.1f} MiB"
    rows.append(_line("EV10", "memory: 256 images against 64", grown, "<= 16 MiB and < 2 %", ev10["met"]))
    for key, name in (("gt", "ground-truth pack"), ("gt_archival", "the same, `--archival`")):
        size, goal = sizes["ratio_to_png"][key], sizes["goals"][key]
        rows.append(_line("EV11", f"{name}, size against the PNGs", f"{size:.2f}", f"<= {goal:g}", size <= goal))
    worst = max(report["agreement"].values())
    seconds = report["contestants"]["P"]["cpu_median_s"]
    count = report["workload"]["n"]
    unit = f"P took {1000 * seconds / count:.1f} ms per image"
    tail = f"Ratios are times faster than P, unless the row says otherwise; {unit}."
    agree = f"All paths agree with float64, image by image, to {worst:.0e} relative or better."
    return f"{markdown(SPEED_HEAD, rows, numbers=False)}\n\n{tail} {agree}"


def _peers(report: Report) -> str:
    row = report["EV7"]
    rows = [
        _at_least("EV7", "64 images, all nine metrics, required tier", row["ratio"], row["goal"]),
        _at_least("EV7", "one more image", row["marginal_ratio"], row["marginal_goal"]),
    ]
    agree = f"Means agree to {row['agreement']:.0e} (the devkit prints six digits)."
    return f"{markdown(SPEED_HEAD, rows, numbers=False)}\n\n{agree}"


def _startup(report: Report) -> str:
    s1, s2, s3 = report["S1"], report["S2"], report["S3"]
    rows = [
        _line("S1", "`adubench --help` / bare interpreter, CPU", f"{s1['ratio']:.1f}", "<= 7", s1["ratio"] <= 7),
        _line("S1", "its memory", f"{s1['rss_mib']:.0f} MiB", "<= 30 MiB", s1["rss_mib"] <= 30),
        _line("S2", "importing the evaluator / importing torch", f"{s2['ratio']:.3f}", "<= 0.12", s2["ratio"] <= 0.12)
        if "ratio" in s2
        else _line("S2", "importing the evaluator / importing torch", "torch is not installed", "<= 0.12", None),
        _at_least(
            "S3", f"`adubench eval`, {s3['n']} packed images, process included, against P", s3["ratio"], s3["goal"]
        ),
    ]
    return markdown(SPEED_HEAD, rows, numbers=False)


def _export(report: Report) -> str:
    rows = []
    for name, row in report["X1"].items():
        rows.append(_at_least("X1", f"encode PNG, {name}, against {row['against']}", row["ratio"], row["goal"]))
        size = row["bytes"]
        rows.append(_line("", "its bytes", f"{size:.2f}", f"<= {row['bytes_goal']:g}", size <= row["bytes_goal"]))
    return markdown(SPEED_HEAD, rows, numbers=False)


def _bootstrap(report: Report) -> str:
    rows = [
        _at_least("B1", f"{run['workload']}, against gathering per resample", run["ratio"], run["goal"])
        for run in report["runs"]
        if run["goal"]
    ]
    over, goal = report["runs"][0]["time_over_drawing"], report["draw_goal"]
    rows.append(_line("B2", "time / time to draw the indices", f"{over:.1f}", f"<= {goal:g}", over <= goal))
    return markdown(SPEED_HEAD, rows, numbers=False)


def _regions(report: Report) -> str:
    rows = [
        _at_least(
            "RG1",
            f"decoding the PNGs / {report['regions']} regions with cached masks, {tier} "
            f"({r['ms_per_image']:.1f} ms per image)",
            r["ratio"],
            r["goal"],
        )
        for tier, r in report["ratios"].items()
    ]
    grown, took = report["RG2"], report["RG3"]
    what = "memory of 256 images more than of 64, masks made"
    goal = f"<= {grown['goal_mib']:g} MiB"
    rows.append(_line("RG2", what, f"{grown['grown_mib']:.1f} MiB", goal, grown["met"]))
    what = f"compare two results, 652 images, 28 drives, {took['regions']} regions, 10 000 resamples, CPU time"
    about = took["seconds"] <= 1.25 * took["goal_s"]
    rows.append(_line("RG3", what, f"{took['seconds']:.2f} s", f"about {took['goal_s']:g} s", about))
    return markdown(SPEED_HEAD, rows, numbers=False)


def _synthdrive(report: Report) -> str:
    rows = [
        _at_least("", f"{size}, one camera, slowest scene", rate, report["goals"][size], unit=" frames/s")
        for size, rate in report["slowest_scene"].items()
    ]
    return markdown(SPEED_HEAD, rows, numbers=False) + "\n\nFrames per second of CPU time on one core."


def _network(report: Report) -> str:
    rows = []
    for run in report["forward"]:
        ceiling = f" (products alone: {run['ceiling']:.2f} x)"
        rows.append(_at_least("N1", f"forward, {run['workload']}", run["ratio"], run["goal"], ceiling))
        off = f"{run['difference']:.0e} (largest value {run['worst']:.0e})"
        rows.append(_line("", "its difference, relative", off, "<= 1e-6", run["difference"] <= 1e-6))
    counts = report["operations"]
    if counts is not None:
        ours, plain = counts["forms"]["ours"], counts["forms"]["published form"]
        what = f"device operations of a forward, {counts['workload']} (published form: {plain['operations']})"
        few = ours["operations"] <= counts["goal"]
        rows.append(_line("N2", what, str(ours["operations"]), f"<= {counts['goal']}", few))
        what = f"masks and biases made in it (published form: {plain['rebuilt']})"
        rows.append(_line("N2", what, str(ours["rebuilt"]), "0", ours["rebuilt"] == 0))
    for run in report["memory"]:
        value = f"{run['ratio']:.2f} ({run['mib']['ours']:.0f} of {run['mib']['published form']:.0f} MiB)"
        what = f"inference, peak above the weights, {run['workload']}: ours / published form"
        rows.append(_line("N5", what, value, "<= 1.0", run["reached"]))
    for run in report["arithmetic"]:
        plain = run["networks"]["plain"]
        what = f"{run['workload']}: {plain['gflop']:.3f} GFLOP, {plain['parameters']:,} parameters; as the formulas"
        rows.append(_line("N6", what, f"uncertainty head {100 * run['more']:+.3f} %", "<= 0.1 %", run["reached"]))
    for run in report["training"]:
        mib = run["mib"]
        value = f"{run['ratio']:.2f} x ({mib['ours']:.0f} of {mib['published form']:.0f} MiB)"
        rows.append(_line("", f"{run['workload']} (memory: gradients included)", value, "", None))
    parts = {
        "N1 of tiny07": any(run["workload"].startswith("tiny07") for run in report["forward"]),
        "N1 of large07": any(run["workload"].startswith("large07") for run in report["forward"]),
        "N2": counts is not None,
        "N5 of tiny07": any(run["workload"].startswith("tiny07") for run in report["memory"]),
        "N5 of large07": any(run["workload"].startswith("large07") for run in report["memory"]),
        "training steps": bool(report["training"]),
    }
    missing = ", ".join(name for name, there in parts.items() if not there)
    table = markdown(SPEED_HEAD, rows, numbers=False)
    return f"{table}\n\nNot in this report: {missing}." if missing else table


def _network_gpu(report: Report) -> str:
    gpu = report.get("gpu") or {"measured": False, "reason": "not measured"}
    if not gpu["measured"]:
        reason = str(gpu["reason"])
        return f"N3 (>= 1.3 x at equal precision, >= 3 x at best) and N4 (>= 0.30 of the roofline): {reason}."
    rows = []
    for variant in dict.fromkeys(row["variant"] for row in gpu["rows"]):
        found = gpu[variant]
        rows.append(_at_least("N3", f"{variant}, batch 1, float32", found["N3_equal"], 1.3))
        rows.append(_at_least("N3", f"{variant}, batch 1, best", found["N3_best"], 3.0))
        rows.append(_at_least("N4", f"{variant}, bf16, batch 8, share of the roofline", found["N4"], 0.30, unit=""))
    times = [
        [
            row["variant"], row["form"], row["precision"], str(row["batch"]), "yes" if row["flip"] else "",
            *(("", "", "") if row["ms"] is None else (f"{row['ms']:.2f}", f"{row['fps']:.1f}", f"{row['mib']:.0f}")),
        ]
        for row in gpu["rows"]
    ]  # fmt: skip
    head = ["network", "form", "precision", "batch", "flip", "ms", "frames/s", "MiB"]
    return f"{gpu['device']}.\n\n{markdown(SPEED_HEAD, rows, numbers=False)}\n\n{markdown(head, times)}"


def _adapters(report: Report) -> str:
    memory = [
        _line(
            "A1" if run["goal"] else "",
            f"{run['workload']}, {run['pass']}: memory / one score matrix ({run['score_matrix_mib']:.0f} MiB)",
            f"{run['ratio']:.3f} ({run['extra_mib']:.0f} MiB)",
            f"<= {run['goal']:g}" if run["goal"] else "",
            run["ratio"] <= run["goal"] if run["goal"] else None,
        )
        for run in report["memory"]
    ]
    times = [
        _line("", f"{name}: {run['workload']}, against the matrix written out (one head)", f"{ratio:.2f} x", "", None)
        for run in report["runs"]
        for name, ratio in run["ratios"].items()
    ]
    return markdown(SPEED_HEAD, [*memory, *times], numbers=False)


def _loader(report: Report) -> str:
    rows = [
        _at_least(key, row["what"], row["ratio"], row["goal"])
        if "goal" in row
        else _line("", row["what"], f"{row['ratio']:.2f} x", "", None)
        for key, row in report["ratios"].items()
    ]
    four, agree, count = report["L4"], report["agreement"], report["workload"]["n"]
    rows.append(_at_least("L4", "colours by one table, against the chain of steps", four["ratio"], four["goal"]))
    worst = four["max_difference"]
    rows.append(_line("", "its greatest difference", f"{worst:.0e}", "<= 1e-6", worst <= 1e-6))
    unit = 1000 * report["contestants"]["L, PNG"]["cpu_median_s"] / count
    jpeg = report["contestants"]["L, JPEG"]["cpu_median_s"] / report["contestants"]["L, PNG"]["cpu_median_s"]
    tail = (
        f"L took {unit:.1f} ms per sample, from JPEG {jpeg:.2f} of it. With geometry `pillow`, samples from files and "
        f"packs differ from L's by {agree['exact_max']:.0e} at most and ground truth not at all; with `opencv`, "
        f"normalised values differ by {agree['opencv_mean']:.3f} in the mean and "
        f"{100 * agree['opencv_truth_moved']:.2f} % of the ground-truth pixels."
    )
    return f"{markdown(SPEED_HEAD, rows, numbers=False)}\n\n{tail}"


def _machine(reports: dict[str, Report]) -> str:
    found = [r for name, r in reports.items() if name != "effects" and "versions" in r]
    if not found:
        return NOT_MEASURED
    names = ", ".join(f"{name} {version}" for name, version in found[0]["versions"].items())
    cores = next((r["cores"] for r in found if "cores" in r), None)
    return f"{f'{cores} cores; ' if cores else ''}{names}."


def _excerpt(reports: dict[str, Report]) -> str:
    """A few lines for the README."""
    ratios = reports["evaluation"]["ratios"]
    wanted = ("EV1", "EV2", "EV4a", "EV4b", "EV5b")
    rows = [(ratios[key]["what"], f"{ratios[key]['ratio']:.1f} x") for key in wanted if key in ratios]
    return markdown(("`adubench eval`, one process", "against plain evaluation"), rows)


def read_reports(results: Path) -> dict[str, Report]:
    return {p.stem: json.loads(p.read_text(encoding="utf-8")) for p in sorted(results.glob("*.json"))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    options = parser.parse_args()
    reports = read_reports(options.results)
    blocks = speed_blocks(reports)
    if "effects" in reports:
        blocks |= effect_blocks(reports["effects"])
    for path in [options.readme, *sorted(options.docs.glob("*.md"))]:
        if rewrite(path, blocks):
            print(f"filled {path}")


if __name__ == "__main__":
    main()
