"""Put the table of a finished experiment into docs/experiments.md, and keep its numbers beside it.

The numbers (docs/results/NAME.json) come from the experiment's folder: `table.json` as the command wrote it, and the
regions of every run. The page shows nothing else; a test compares the two.

python -m benchmarks.experiment_page RUNS/table4 --name table4-synth --command "adubench experiment table4 ..."
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.make_tables import markdown, rewrite

ROOT = Path(__file__).resolve().parents[1]
PAGE, RESULTS = ROOT / "docs" / "experiments.md", ROOT / "docs" / "results"
SHOWN = ("sq_rel", "abs_rel", "rmse", "silog", "d1")
TESTED = ("sq_rel", "abs_rel", "silog", "d1")
REGIONS = {
    "depth0": "0-20 m",
    "depth1": "20-40 m",
    "depth2": "40-60 m",
    "depth3": "60-80 m",
    "boundary": "boundary, below 5 px",
    "interior": "interior, from 10 px",
}


def collect(folder: Path, command: str) -> dict[str, Any]:
    """Read what an experiment left behind.

    Args:
        folder: of the experiment, finished.
        command: that ran it.

    Raises:
        ValueError: a run is missing.
    """
    table = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    index = json.loads((folder / "runs.json").read_text(encoding="utf-8"))
    unfinished = [run["id"] for run in index["runs"] if run["state"] != "finished"]
    if unfinished:
        raise ValueError(f"not finished: {', '.join(unfinished)}")
    (comparison,) = table["comparisons"].values()
    regions: dict[str, dict[str, list[float]]] = {}
    runs = []
    for run in index["runs"]:
        record = json.loads((folder / "runs" / run["id"] / "record.json").read_text(encoding="utf-8"))
        numbers = record["numbers"]
        row = regions.setdefault(run["row"], {name: [] for name in REGIONS})
        for name, values in row.items():
            values.append(numbers[f"region:{name}:abs_rel"])
        kept = {"id": run["id"], "row": run["row"], "seed": run["seed"], "recipe": run["recipe_digest"]}
        runs.append(kept | {metric: numbers[metric] for metric in SHOWN})
    return {
        "command": command,
        "code": index["code"],
        "table": {"title": table["title"], "columns": table["columns"], "rows": table["rows"]},
        "baseline": comparison["baseline"],
        "differences": {
            pair["a"]: {metric: pair["regions"]["all"][metric] for metric in TESTED}
            for pair in comparison["comparisons"]
        },
        "regions": regions,
        "runs": runs,
    }


def blocks(name: str, document: dict[str, Any]) -> dict[str, str]:
    """Return key of the page -> table."""
    return {
        name: f"`{document['command']}`\n\n{_values(document)}",
        f"{name}-differences": _differences(document),
        f"{name}-regions": _regions(document),
    }


def _values(document: dict[str, Any]) -> str:
    places = {column["key"]: i for i, column in enumerate(document["table"]["columns"])}
    rows = []
    for row in document["table"]["rows"]:
        cells = [row["cells"][places[metric]] for metric in SHOWN]
        printed = row["published"].get("sq_rel")
        rows.append([row["name"], *(_spread(c["mean"], c["spread"]) for c in cells), f"{printed:g}" if printed else ""])
    return markdown(["row", *SHOWN, "sq_rel in the paper (KITTI)"], rows)


def _differences(document: dict[str, Any]) -> str:
    rows = []
    for name, metrics in document["differences"].items():
        for metric, d in metrics.items():
            low, high = d["ci"]
            spreads = f"{d['in_spreads']:+.1f}"
            rows.append(
                [name, f"`{metric}`", f"{d['delta']:+.3f}", f"[{low:+.3f}, {high:+.3f}]", spreads, d["verdict"]]
            )
    header = [f"row - {document['baseline']}", "metric", "difference", "95 % interval", "in seed sd", "verdict"]
    return markdown(header, rows)


def _regions(document: dict[str, Any]) -> str:
    rows = [
        [name, *(_spread(mean(values[key]), stdev(values[key])) for key in REGIONS)]
        for name, values in document["regions"].items()
    ]
    return markdown(["`abs_rel`", *REGIONS.values()], rows)


def _spread(value: float, spread: float) -> str:
    return f"{value:.3f} ± {spread:.3f}" if value < 10 else f"{value:.1f} ± {spread:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--command", required=True)
    options = parser.parse_args()
    document = collect(options.folder, options.command)
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(document, indent=1, ensure_ascii=False)
    (RESULTS / f"{options.name}.json").write_text(text + "\n", encoding="utf-8")
    rewrite(PAGE, blocks(options.name, document))


if __name__ == "__main__":
    main()
