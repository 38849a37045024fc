"""One table over all families: every checkpoint of finished experiments under the same protocols, on the same images.

Each checkpoint is scored twice with `adubench eval`, with regions: with median scaling, and at its own scale (metric
networks as predicted, networks trained on stereo times 5.4). Results are kept and taken again while the weights are the
same. `adubench compare --method NAME=FILE,... --paired-seeds` does the rest; the page shows its numbers.

python -m benchmarks.families_table RUNS/ss RUNS/tie-kd RUNS/table4 --data-root SYNTH --evaluations EVALS
python -m benchmarks.families_table        # writes the page again from docs/results
"""

from __future__ import annotations

import benchmarks.harness  # noqa: F401  isort: skip  (limits threads, so it comes before numpy)

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

from adubench.io.atomic import write_text
from benchmarks.experiment_page import FEWEST_SEEDS, REGIONS, spread
from benchmarks.make_tables import markdown, rewrite

ROOT = Path(__file__).resolve().parents[1]
PAGE, RESULT = ROOT / "docs" / "methods.md", ROOT / "docs" / "results" / "families-synth.json"
METRICS = ("abs_rel", "sq_rel", "rmse", "silog", "d1")
TESTED = ("abs_rel", "silog", "d1")
MEDIAN, OWN = "median", "own"
#: Experiment and row -> (method, what it is compared with).
METHODS: dict[tuple[str, str], tuple[str, str | None]] = {
    ("table4", "Teacher"): ("ADU-Depth's teacher (two views)", None),
    ("table4", "Baseline"): ("NeWCRFs", None),
    ("table4", "Full"): ("ADU-Depth", "NeWCRFs"),
    ("self_supervised", "monodepth2"): ("Monodepth2", None),
    ("self_supervised", "monodepth2 + SUB-Depth"): ("Monodepth2 + SUB-Depth", "Monodepth2"),
    ("self_supervised", "hr-depth"): ("HR-Depth", None),
    ("self_supervised", "hr-depth + SUB-Depth"): ("HR-Depth + SUB-Depth", "HR-Depth"),
    ("self_supervised", "diffnet"): ("DIFFNet", None),
    ("self_supervised", "diffnet + SUB-Depth"): ("DIFFNet + SUB-Depth", "DIFFNet"),
    ("self_supervised", "hr-depth-lite"): ("HR-Depth-Lite", None),
    ("tie_kd_methods", "Baseline SI"): ("SI baseline", None),
    ("tie_kd_methods", "Res-KD SSIM + SI"): ("response KD (SSIM + SI)", "SI baseline"),
    ("tie_kd_methods", "TIE-KD"): ("TIE-KD", "SI baseline"),
}
Files = dict[str, dict[int, Path]]


# ---- from the folders ------------------------------------------------------------------------------------------------


def evaluate(
    folders: list[Path], place: Path, *, split: str, data_root: Path, partial: bool = False
) -> dict[str, Files]:
    """Score every finished run of a known method.

    Returns:
        Kind of scaling -> method -> seed -> result file.

    Raises:
        ValueError: a run that is not finished, unless `partial`.
    """
    found: dict[str, Files] = {MEDIAN: {}, OWN: {}}
    for folder in folders:
        index = json.loads((folder / "runs.json").read_text(encoding="utf-8"))
        for run in index["runs"]:
            name, _ = METHODS.get((index["experiment"], run["row"]), (None, None))
            if name is None:
                continue
            if run["state"] != "finished":
                if partial:
                    continue
                raise ValueError(f"{folder}: {run['id']} is not finished")
            for kind, files in found.items():
                output = place / index["experiment"] / f"{run['id']}-{kind}.json"
                _score(folder / run["checkpoint"], output, kind, split, data_root)
                files.setdefault(name, {})[run["seed"]] = output
    return found


def _score(checkpoint: Path, output: Path, kind: str, split: str, data_root: Path) -> None:
    if _is_result_of(output, checkpoint, split):
        return
    print(f"eval {checkpoint} ({kind})", flush=True)
    words = [str(checkpoint), "--split", split, "--data-root", str(data_root), "--regions=depth,edge"]
    words += ["--device", "cpu", "--label", output.stem, "-o", str(output)]
    _adubench("eval", *words, *(["--alignment", "median"] if kind == MEDIAN else []))


def _is_result_of(output: Path, checkpoint: Path, split: str) -> bool:
    try:
        stored = json.loads(output.read_text(encoding="utf-8"))
        known = stored["provenance"]["predictor"]["sha256"], stored["split"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return known == (hashlib.sha256(checkpoint.read_bytes()).hexdigest(), split)


def _adubench(command: str, *words: str) -> str:
    """Run a command of adubench in this process and return what it prints."""
    from click.testing import CliRunner

    from adubench.cli import cli

    done = CliRunner().invoke(cli, [command, *words], catch_exceptions=False, standalone_mode=False)
    return done.stdout


def compare(methods: Files, baseline: str, *, paired: bool) -> dict[str, Any]:
    """What `adubench compare` says about methods by their runs, seeds in order."""
    words = ["--baseline", baseline, "--format", "json", *(["--paired-seeds"] if paired else [])]
    for name, files in methods.items():
        words += ["--method", f"{name}={','.join(str(files[seed]) for seed in sorted(files))}"]
    for flag, values in (("--metric", METRICS), ("--region", ("all", *REGIONS))):
        words += [part for value in values for part in (flag, value)]
    return json.loads(_adubench("compare", *words))


def collect(files: dict[str, Files], split: str) -> dict[str, Any]:
    """Values of all methods per protocol, and every distilled method against its own baseline (median scaling)."""
    ordered = {kind: {name: of[name] for name, _ in METHODS.values() if name in of} for kind, of in files.items()}
    tables = []
    for kind in (MEDIAN, OWN):
        for protocol, group in _by_protocol(ordered[kind]).items():
            told = compare(group, next(iter(group)), paired=False) if len(group) > 1 else None
            if told is not None:
                tables.append({"protocol": protocol, "scaling": kind, "methods": told["methods"]})
    pairs = []
    for name, base in METHODS.values():
        median = ordered[MEDIAN]
        if base is None or name not in median or set(median[name]) != set(median.get(base, {})):
            continue
        told = compare({base: median[base], name: median[name]}, base, paired=True)
        seeds = len(median[name])
        pairs.append({"a": name, "b": base, "seeds": seeds, "regions": told["comparisons"][0]["regions"]})
    return {"split": split, "tables": tables, "pairs": pairs}


def _by_protocol(methods: Files) -> dict[str, Files]:
    groups: dict[str, Files] = {}
    for name, files in methods.items():
        first = json.loads(next(iter(files.values())).read_text(encoding="utf-8"))
        groups.setdefault(first["protocol"]["name"], {})[name] = files
    return groups


# ---- to the page -----------------------------------------------------------------------------------------------------


def blocks(document: dict[str, Any]) -> dict[str, str]:
    """Return key of the page -> table."""
    median = [table for table in document["tables"] if table["scaling"] == MEDIAN]
    own = [table for table in document["tables"] if table["scaling"] == OWN]
    return {
        "families": "\n\n".join(_values(table, document["split"]) for table in median),
        "families-own": "\n\n".join(_values(table, document["split"]) for table in own),
        "families-differences": _differences(document["pairs"]),
        "families-where": _where(document["pairs"]),
    }


def _values(table: dict[str, Any], split: str) -> str:
    rows = []
    for name, regions in table["methods"].items():
        values = regions["all"]
        cells = [spread(values[m]["seeds"]) for m in METRICS]
        far = spread(regions["depth2"]["abs_rel"]["seeds"]) if "depth2" in regions else "-"
        edges = spread(regions["boundary"]["abs_rel"]["seeds"]) if "boundary" in regions else "-"
        rows.append([name, str(len(values["abs_rel"]["seeds"])), *cells, far, edges])
    header = ["method", "seeds", *METRICS, "abs_rel, 40-60 m", "abs_rel, boundary"]
    return f"`{table['protocol']}`, split `{split}`:\n\n{markdown(header, rows)}"


def _differences(pairs: list[dict[str, Any]]) -> str:
    rows = []
    for pair in pairs:
        for metric in TESTED:
            d = pair["regions"]["all"][metric]
            units = "-" if d["in_spreads"] is None else f"{d['in_spreads']:+.1f}"
            words = d["verdict"].replace("a better", "helps").replace("b better", "harms")
            cells = [f"`{metric}`", f"{d['delta']:+.3f}", _interval(d), units, words]
            rows.append([f"{pair['a']} - {pair['b']}", *cells])
    table = markdown(["distilled - baseline", "metric", "difference", "95 % interval", "in seed sd", "verdict"], rows)
    few = any(pair["seeds"] < FEWEST_SEEDS for pair in pairs)
    return table + ("\n\nFewer than three seeds: this compares checkpoints, not methods." if few else "")


def _where(pairs: list[dict[str, Any]]) -> str:
    rows = []
    for pair in pairs:
        found = [pair["regions"].get(region, {}).get("abs_rel") for region in REGIONS]
        rows.append([f"{pair['a']} - {pair['b']}",
                     *("-" if d is None else f"{d['delta']:+.3f} {_interval(d)}" for d in found)])  # fmt: skip
    return markdown(["difference in `abs_rel`", *REGIONS.values()], rows)


def _interval(d: dict[str, Any]) -> str:
    return "-" if d["ci"] is None else f"[{d['ci'][0]:+.3f}, {d['ci'][1]:+.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*", help="of finished experiments")
    parser.add_argument("--data-root", type=Path, help="of the SynthDrive that all were trained on")
    parser.add_argument("--evaluations", type=Path, help="folder that keeps the results of eval")
    parser.add_argument("--split", default="synthdrive.test")
    parser.add_argument("--partial", action="store_true", help="leave out what is not finished")
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    if options.folders:
        if options.data_root is None or options.evaluations is None:
            parser.error("give --data-root and --evaluations")
        files = evaluate(
            options.folders, options.evaluations, split=options.split, data_root=options.data_root,
            partial=options.partial,
        )  # fmt: skip
        document = collect(files, options.split)
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
        write_text(options.result, text + "\n")
    if options.result.is_file():
        rewrite(options.page, blocks(json.loads(options.result.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
