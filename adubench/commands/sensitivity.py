"""`adubench sensitivity`: which metric notices which fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

EPILOG = """
\b
Examples:
  adubench sensitivity --data-root SYNTHDRIVE
  adubench sensitivity --gt dense_maps/ --fault scale:1.02,1.1 --fault blur --format markdown
  adubench sensitivity --data-root SYNTHDRIVE --regions=depth,edge --json
"""


@click.command("sensitivity", epilog=EPILOG)
@click.option("--gt", type=click.Path(path_type=Path), help="Dense depth maps (metres, or 16-bit PNG times 256).")
@click.option("--data-root", type=click.Path(path_type=Path), help="A SynthDrive: the exact depth of its test drives.")
@click.option("--fault", "faults", multiple=True, metavar="NAME[:S,S]", help="Several times. Default: all, see --list.")
@click.option("--list", "as_list", is_flag=True, help="List the faults and stop.")
@click.option("--metric", "metrics", multiple=True, help="Metric key, several times.")
@click.option("--protocol", default="full-frame", show_default=True, help="Under which everything is scored.")
@click.option("--max-depth", type=float, default=80.0, show_default=True, help="Upper limit of the depth, metres.")
@click.option("--regions", is_flag=False, flag_value="depth,edge", metavar="[=LIST]", help="Also by region.")
@click.option("--limit", default=24, show_default=True, help="At most so many maps, evenly spread.")
@click.option("--seed", default=0, show_default=True, help="Of the faults that draw random numbers.")
@click.option("--format", "form", type=click.Choice(["rich", "markdown", "latex", "csv", "json"]), default="rich")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write to a file instead of stdout.")
def command(
    gt: Path | None,
    data_root: Path | None,
    faults: tuple[str, ...],
    as_list: bool,
    metrics: tuple[str, ...],
    regions: str | None,
    form: str,
    as_json: bool,
    output: Path | None,
    **rest: Any,
) -> None:
    """Make exact depth wrong in known ways and show which metrics, and which regions, notice.

    The answer is relative: 1 is the metric's own error under independent 10 % noise at every pixel.
    """
    if as_list:
        _list_faults()
        return
    from adubench.commands._options import progress_bar, refuse_input_as_output
    from adubench.evaluators.sensitivity import METRICS, sensitivity

    truth = _truth(gt, data_root)
    refuse_input_as_output(output, gt)
    with progress_bar("faults") as progress:
        found = sensitivity(
            truth, faults=faults, metrics=metrics or METRICS, regions=_request(regions), progress=progress, **rest
        )
    text = _render(found, "json" if as_json else form, output)
    if output is None:
        click.echo(text, nl=False)
        return
    from adubench.io.atomic import write_text

    write_text(output, text)
    click.echo(f"written: {output}", err=True)


def _truth(gt: Path | None, data_root: Path | None) -> Path | dict[str, Path]:
    import os

    from adubench.errors import UsageError

    if gt is not None:
        if data_root is not None:
            raise UsageError("--gt and --data-root: give one of them.")
        return gt
    root = data_root or (Path(value) if (value := os.environ.get("ADUBENCH_DATA_ROOT")) else None)
    if root is None:
        raise UsageError("nothing to make wrong: give --gt DIR (dense maps) or --data-root of a SynthDrive.")
    return _exact_depth(root)


def _exact_depth(root: Path) -> dict[str, Path]:
    """Find the exact depth of the left camera in the test drives of a SynthDrive."""
    from adubench.datasets.synthdrive.info import read_info
    from adubench.errors import DataError

    info = read_info(root)
    paths = {
        f"{drive}/{path.stem}": path
        for drive in info.splits["test"]
        for path in sorted(root.glob(f"**/{drive}*/dense_depth/image_02/*.png"))
    }
    if not paths:
        raise DataError(f"{root}: no dense_depth/image_02 in its test drives; make the data set in the kitti layout.")
    return paths


def _request(regions: str | None) -> Any:
    if regions is None or regions == "none":
        return None
    from adubench.evaluators.region_run import RegionRequest

    return RegionRequest(families=regions, cache="off")


def _render(found: Any, form: str, output: Path | None) -> str:
    import json

    from adubench.commands._options import render_tables
    from adubench.reports.sensitivity import sensitivity_tables, to_dict

    if form == "json":
        return json.dumps(to_dict(found), indent=1, allow_nan=False) + "\n"
    tables = sensitivity_tables(found)
    return render_tables(tables, form, output)


def _list_faults() -> None:
    from rich.table import Table

    from adubench.commands._options import stdout_console
    from adubench.evaluators.faults import FAULTS

    table = Table(title="faults", title_justify="left")
    for column in ("name", "what is done", "strengths", "unit"):
        table.add_column(column)
    for fault in FAULTS.values():
        table.add_row(fault.name, fault.about, ", ".join(f"{s:g}" for s in fault.strengths), fault.unit)
    stdout_console().print(table)
