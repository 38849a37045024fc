"""Put the tables of a finished experiment into docs/experiments.md, and keep its numbers beside it.

The numbers (docs/results/NAME.json) come from the experiment's folder: `runs.json`, the results and the log of every
run. The page shows nothing else; a test compares the two. Differences are those of `adubench compare --paired-seeds`:
a row "X + METHOD" is compared with its own row "X", the others with the experiment's baseline.

python -m benchmarks.experiment_page RUNS/methods --name self-supervised-synth --command "adubench experiment ..."
python -m benchmarks.experiment_page RUNS/tie-kd --name tie-kd-synth --command "..." --teacher "the teacher"=T0.json
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from adubench.io.atomic import write_text
from benchmarks.make_tables import markdown, rewrite

ROOT = Path(__file__).resolve().parents[1]
PAGE, RESULTS = ROOT / "docs" / "experiments.md", ROOT / "docs" / "results"
SHOWN = ("sq_rel", "abs_rel", "rmse", "silog", "d1")
TESTED = ("sq_rel", "abs_rel", "silog", "d1")
CURVE = "abs_rel"
FEWEST_SEEDS = 3
REGIONS = {
    "depth0": "0-20 m",
    "depth1": "20-40 m",
    "depth2": "40-60 m",
    "depth3": "60-80 m",
    "boundary": "boundary, below 5 px",
    "interior": "interior, from 10 px",
}


# ---- from the folder -------------------------------------------------------------------------------------------------


def collect(folder: Path, command: str, teachers: dict[str, list[Path]], *, partial: bool = False) -> dict[str, Any]:
    """Read what an experiment left behind.

    Args:
        folder: of the experiment, finished.
        command: that ran it.
        teachers: line below the rows -> result files.
        partial: take the finished runs; for a look before the end.

    Raises:
        ValueError: a run is missing.
    """
    from adubench.recipes.experiments import load_experiment

    index = json.loads((folder / "runs.json").read_text(encoding="utf-8"))
    unfinished = [run["id"] for run in index["runs"] if run["state"] != "finished"]
    if unfinished and not partial:
        raise ValueError(f"not finished: {', '.join(unfinished)}")
    finished = [run for run in index["runs"] if run["state"] == "finished"]
    experiment = load_experiment(index["experiment"])[0]
    document = {
        "command": command,
        "code": index["code"],
        "scale": index["scale"],
        "question": index["question"],
        "baseline": index["baseline"],
        "published": {v.name: v.published for v in experiment.vary if v.published},
        "runs": [_run(folder, run) for run in finished],
        "differences": _compare(folder, index["baseline"], finished),
        "regions": _region_values(finished),
        "teachers": {name: [_test(path) for path in paths] for name, paths in teachers.items()},
    }
    return {key: value for key, value in document.items() if value not in ({}, [])}


def _run(folder: Path, run: dict[str, Any]) -> dict[str, Any]:
    kept = {"id": run["id"], "row": run["row"], "seed": run["seed"], "recipe": run["recipe_digest"]}
    kept |= {metric: run["numbers"][metric] for metric in SHOWN}
    return kept | {"validation": _curve(folder / run["log"])}


def _curve(log: Path) -> dict[str, float]:
    """Validation after the first epoch, at the end, and the best one; {} where nothing was validated."""
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    epochs = [event["step"] / event["epoch"] for event in events if event.get("epoch")]
    values = {event["step"]: event[CURVE] for event in events if event["event"] == "validation"}  # resumed: the last
    steps = sorted(values)
    if not steps or not epochs:
        return {}
    first = next((step for step in steps if step >= round(epochs[-1])), steps[-1])
    best = min(values.values())
    return {"first": values[first], "last": values[steps[-1]], "best": best, "epochs": steps[-1] / epochs[-1]}


def _test(path: Path) -> dict[str, float]:
    summary = json.loads(path.read_text(encoding="utf-8"))["summary"]
    return {metric: summary[metric] for metric in SHOWN}


def _region_values(runs: list[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    found: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        values = {name: run["numbers"].get(f"region:{name}:abs_rel") for name in REGIONS}
        if None in values.values():
            return {}
        row = found.setdefault(run["row"], {name: [] for name in REGIONS})
        for name, value in values.items():
            row[name].append(value)
    return found


def base_of(row: str, rows: list[str], baseline: str | None) -> str | None:
    """The row that another one is compared with."""
    own = row.split(" + ")[0]
    return own if own != row and own in rows else baseline


def _compare(folder: Path, baseline: str | None, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Row -> metric -> difference to its base, runs and drives drawn together; rows with other seeds are left out."""
    from adubench.evaluators.methods import compare_methods
    from adubench.evaluators.result import load_results

    rows = list(dict.fromkeys(run["row"] for run in runs))
    seeds = {row: sorted(run["seed"] for run in runs if run["row"] == row) for row in rows}
    found: dict[str, Any] = {}
    for row in rows:
        base = base_of(row, rows, baseline)
        if base is None or base == row or seeds.get(base) != seeds[row]:
            continue
        methods = {name: [] for name in (base, row)}
        for run in sorted(runs, key=lambda run: run["seed"]):
            if run["row"] in methods:
                (result,) = load_results(folder / run["results"]["test"])
                result.label = run["id"]
                methods[run["row"]].append(result)
        told = compare_methods(methods, baseline=base, metrics=list(TESTED), regions=["all"], paired=True).to_dict()
        found[row] = {"to": base} | told["comparisons"][0]["regions"]["all"]
    return found


# ---- to the page -----------------------------------------------------------------------------------------------------


def blocks(name: str, document: dict[str, Any]) -> dict[str, str]:
    """Return key of the page -> table."""
    out = {name: f"`{document['command']}`\n\n{_values(document)}"}
    if document.get("differences"):
        out[f"{name}-differences"] = _differences(document)
    if document.get("regions"):
        out[f"{name}-regions"] = _regions(document)
    return out


def _values(document: dict[str, Any]) -> str:
    runs, curves = document["runs"], any(run.get("validation") for run in document["runs"])
    published = document.get("published", {})
    metric = next((m for m in SHOWN if any(m in row for row in published.values())), None)
    header = ["row", *(["seeds", f"validation {CURVE}: first epoch -> last (best)"] if curves else ()), *SHOWN]
    header += [f"{metric} in the paper (KITTI)"] if metric else []
    rows = []
    for name in dict.fromkeys(run["row"] for run in runs):
        own = [run for run in runs if run["row"] == name]
        cells = [str(len(own)), _course([run["validation"] for run in own])] if curves else []
        cells += [spread([run.get(m) for run in own]) for m in SHOWN]
        if metric:
            printed = published.get(name, {}).get(metric)
            cells.append(f"{printed:g}" if printed else "")
        rows.append([name, *cells])
    for name, results in document.get("teachers", {}).items():
        cells = [str(len(results)), "-"] if curves else []
        rows.append([name, *cells, *(spread([r.get(m) for r in results]) for m in SHOWN), *([""] if metric else ())])
    return markdown(header, rows)


def _course(curves: list[dict[str, float]]) -> str:
    if not all(curves):
        return "-"
    first, last = (spread([curve[at] for curve in curves]) for at in ("first", "last"))
    best = [curve["best"] for curve in curves if "best" in curve]
    return f"{first} -> {last}" + (f" ({spread(best)})" if len(best) == len(curves) else "")


def _differences(document: dict[str, Any]) -> str:
    rows = []
    for name, metrics in document["differences"].items():
        for metric in TESTED:
            d = metrics[metric]
            ci = "-" if d["ci"] is None else f"[{d['ci'][0]:+.3f}, {d['ci'][1]:+.3f}]"
            units = "-" if d["in_spreads"] is None else f"{d['in_spreads']:+.1f}"
            words = d["verdict"].replace("a better", "better").replace("b better", "worse")
            rows.append([name, metrics["to"], f"`{metric}`", f"{d['delta']:+.3f}", ci, units, words])
    table = markdown(["row", "minus", "metric", "difference", "95 % interval", "in seed sd", "row is"], rows)
    few = len({run["seed"] for run in document["runs"]}) < FEWEST_SEEDS
    return table + ("\n\nFewer than three seeds: this compares checkpoints, not methods." if few else "")


def _regions(document: dict[str, Any]) -> str:
    rows = [[name, *(spread(values[key]) for key in REGIONS)] for name, values in document["regions"].items()]
    return markdown(["`abs_rel`", *REGIONS.values()], rows)


def spread(values: list[float | None]) -> str:
    """Mean ± standard deviation over seeds."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if not finite:
        return "-"
    digits = 3 if mean(finite) < 10 else 1
    text = f"{mean(finite):.{digits}f}"
    return f"{text} ± {stdev(finite):.{digits}f}" if len(finite) > 1 else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="of the experiment; without, the page is written again")
    parser.add_argument("--name", help="of the result and of its markers in the page")
    parser.add_argument("--command", help="that ran the experiment")
    parser.add_argument("--teacher", action="append", default=[], metavar="NAME=FILE,...", help="a line of its own")
    parser.add_argument("--partial", action="store_true", help="leave out what is not finished")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    if options.folder is not None:
        if not (options.name and options.command):
            parser.error("give --name and --command")
        teachers = {name: [Path(file) for file in files.split(",")]
                    for name, _, files in (text.partition("=") for text in options.teacher)}  # fmt: skip
        document = collect(options.folder, options.command, teachers, partial=options.partial)
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
        write_text(options.results / f"{options.name}.json", text + "\n")
    for path in sorted(options.results.glob("*.json")):
        if "runs" in (document := json.loads(path.read_text(encoding="utf-8"))):
            rewrite(options.page, blocks(path.stem, document))


if __name__ == "__main__":
    main()
