"""Table of docs/experiments.md: TIE-KD and its baselines on SynthDrive, from a finished experiment.

adubench experiment tie_kd_methods --scale synth --data-root SYNTH --set teacher_maps.path=MAPS -o RUNS
python -m benchmarks.tie_kd_results RUNS --teacher TEACHER_RESULT.json
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

from benchmarks.make_tables import markdown, rewrite

RESULTS = Path(__file__).parent / "results" / "tie_kd_methods.json"
PAGE = Path(__file__).parents[1] / "docs" / "experiments.md"
METRICS = ("abs_rel", "sq_rel", "rmse", "d1")
COMPARED = "abs_rel"


def collect(folder: Path, teacher: Path | None) -> dict[str, Any]:
    """Test scores of finished runs, and validation after the first epoch and at the end."""
    index = json.loads((folder / "runs.json").read_text(encoding="utf-8"))
    runs = []
    for entry in index["runs"]:
        if entry["state"] != "finished":
            continue
        place = folder / Path(entry["checkpoint"]).parent
        test = json.loads((folder / entry["results"]["test"]).read_text(encoding="utf-8"))
        events = [json.loads(line) for line in (place / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        curve = [event[COMPARED] for event in events if event["event"] == "validation"]
        runs.append(
            {
                "row": entry["row"],
                "seed": entry["seed"],
                "test": {name: test["summary"][name] for name in METRICS},
                "validation": {"first": curve[0], "last": curve[-1]},
            }
        )
    report: dict[str, Any] = {"scale": index["scale"], "runs": runs}
    if teacher is not None:
        summary = json.loads(teacher.read_text(encoding="utf-8"))["summary"]
        report["teacher"] = {name: summary[name] for name in METRICS}
    return report


def table(report: dict[str, Any]) -> dict[str, str]:
    """The marked block: one line per method, mean and standard deviation over seeds."""
    rows = []
    for name in dict.fromkeys(run["row"] for run in report["runs"]):
        own = [run for run in report["runs"] if run["row"] == name]
        course = (_over([run["validation"][at] for run in own]) for at in ("first", "last"))
        rows.append((name, str(len(own)), *course, *(_over([run["test"][m] for run in own]) for m in METRICS)))
    if "teacher" in report:
        rows.append(("the teacher (two views)", "1", "-", "-", *(f"{report['teacher'][m]:.3f}" for m in METRICS)))
    header = ("Method", "Seeds", f"validation {COMPARED}, first epoch", "last epoch", *(f"test {m}" for m in METRICS))
    return {"tie-kd-methods": markdown(header, rows)}


def _over(values: list[float]) -> str:
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return f"{finite[0]:.3f}" if finite else "-"
    return f"{statistics.mean(finite):.3f} ± {statistics.stdev(finite):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="of the experiment; without, only the page is written")
    parser.add_argument("--teacher", type=Path, help="result JSON of the teacher on the test split")
    options = parser.parse_args()
    if options.folder is not None:
        report = collect(options.folder, options.teacher)
        RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    rewrite(PAGE, table(json.loads(RESULTS.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
