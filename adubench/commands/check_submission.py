"""`adubench check-submission`: every problem of an archive at once, and the score the server would print."""

from __future__ import annotations

import click


@click.command(
    "check-submission",
    epilog="Example: adubench check-submission val.zip --kind completion --gt val_selection_cropped/groundtruth_depth",
)
@click.argument("package", type=click.Path())
@click.option("--gt", type=click.Path(), help="Folder of ground truth: also score like the server does.")
@click.option(
    "--kind",
    type=click.Choice(["prediction", "completion", "rehearsal", "rvc"]),
    default=None,
    help="What the server expects: prediction 500 maps (default), completion 1000 (also val_selection), rehearsal any.",
)
@click.option("--rehearsal", is_flag=True, help="Same as --kind rehearsal: any number and size of maps.")
@click.option("--strict", is_flag=True, help="Exit 1 on warnings too.")
@click.option(
    "--compat",
    type=click.Choice(["devkit"]),
    help="With --gt: take malformed maps as the public evaluator does (8-bit, colour), stop where it stops.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    package: str, gt: str | None, kind: str | None, rehearsal: bool, strict: bool, compat: str | None, as_json: bool
) -> int:
    """Check PACKAGE, a zip or a folder of depth PNGs, without unpacking it.

    Exit status: 0 no error, 1 at least one error (with --strict also warnings), 2 usage.
    """
    from adubench.commands._submission import echo_report, resolve_kind
    from adubench.errors import UsageError
    from adubench.submissions.validate import check_submission

    if compat and not gt:
        raise UsageError("--compat devkit needs --gt DIR: it says how to score.")
    report = check_submission(package, kind=resolve_kind(kind, rehearsal), gt=gt, strict=strict, compat=compat)
    echo_report(report, as_json=as_json, verb="checked")
    return 0 if report.ok else 1
