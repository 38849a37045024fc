"""Which results may stand side by side, on which frames, and which images belong together.

Refusing is the default: a table of two protocols invites a conclusion that neither number supports.
"""

from __future__ import annotations

import csv
from numbers import Real
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from adubench.errors import ResultError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adubench.evaluators.result import EvaluationResult

_NOT_RULES = ("fingerprint", "name", "version", "title", "source", "images", "remark")
DEFAULT_BLOCK = 100

REMEDY = "Evaluate both alike, or use --force to see them in one table all the same."


def protocol_title(result: EvaluationResult) -> str:
    """Name and version of a result's protocol, as tables print it."""
    return protocol_title_of(result.protocol)


def protocol_title_of(protocol: dict[str, Any]) -> str:
    """Name and version of a stored protocol; mixed ones are named together."""
    if "mixed" in protocol:
        return " + ".join(dict.fromkeys(protocol_title_of(p) for p in protocol["mixed"].values()))
    return f"{protocol['name']} v{protocol.get('version', 1)}"


def shared_protocol(results: Sequence[EvaluationResult]) -> dict[str, Any]:
    """Return the one protocol of all results, or a record that says they are mixed and lists them by label."""
    if len({r.protocol["fingerprint"] for r in results}) == 1:
        return results[0].protocol
    return {"name": "mixed", "version": 0, "fingerprint": None, "mixed": {r.label: r.protocol for r in results}}


def protocol_differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """List the fields in which two stored protocols differ, as `field: x instead of y` (x of a, y of b)."""
    keys = [k for k in dict.fromkeys([*a, *b]) if k not in _NOT_RULES]
    found = [f"{k}: {_short(a.get(k))} instead of {_short(b.get(k))}" for k in keys if a.get(k) != b.get(k)]
    if a.get("version") != b.get("version"):
        found.append(f"version: {a.get('version')} instead of {b.get('version')}")
    return found


def _short(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(str(v) for v in value) + "]"
    return "not set" if value is None else str(value)


def check_comparable(results: Sequence[EvaluationResult], *, force: bool, remedy: str = REMEDY) -> list[str]:
    """Refuse results that must not be ranked against each other.

    Compared with the first result: protocol fingerprint, split, kind of ground truth (where their data fingerprints
    differ), parameters of the regions.

    Returns:
        What differs, one sentence each; empty unless `force`.

    Raises:
        ResultError: something differs and `force` is not set; the sentence names both results and what differs.
        UsageError: no results, or two results with one name.
    """
    if not results:
        raise UsageError("nothing to compare: give at least one result of adubench eval.")
    labels = [r.label for r in results]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise UsageError(
            f"two results are called '{twice[0]}': give them distinct labels (eval --label, or result.label)."
        )
    first, found = results[0], []
    for other in results[1:]:
        found += _differences(first, other)
    if found and not force:
        raise ResultError(f"{found[0]} {remedy}")
    return found


def _differences(first: EvaluationResult, other: EvaluationResult) -> list[str]:
    found = []
    if first.protocol["fingerprint"] != other.protocol["fingerprint"]:
        changes = protocol_differences(other.protocol, first.protocol)
        found.append(
            f"{other.label} was scored under {protocol_title(other)}, {first.label} under {protocol_title(first)}: "
            f"{'; '.join(changes) or 'their fingerprints differ'}."
        )
    if (first.split or None) != (other.split or None):
        splits = [f"split {r.split}" if r.split else "a folder of ground truth" for r in (other, first)]
        found.append(f"{other.label} was scored on {splits[0]}, {first.label} on {splits[1]}.")
    kinds = [r.provenance.get("ground_truth_kind") for r in (other, first)]
    prints = [r.provenance.get("data_fingerprint") for r in (other, first)]
    if None not in kinds and kinds[0] != kinds[1] and (None in prints or prints[0] != prints[1]):
        found.append(f"{other.label} was scored against ground truth '{kinds[0]}', {first.label} against '{kinds[1]}'.")
    tables = [r.moments.parameters if r.moments else None for r in (other, first)]
    if all(tables) and tables[0] != tables[1]:  # without regions on one side, `all` is all there is to compare
        digests = [str(table.get("digest", "unknown")) if table else "" for table in tables]
        found.append(f"{other.label} and {first.label} use other region parameters ({' and '.join(digests)}).")
    return found


def check_columns(results: Sequence[EvaluationResult]) -> None:
    """Check that per-image columns hold what their names say, as files may have been edited by hand.

    Raises:
        ResultError: a metric that is no number, or a frame that stands twice.
    """
    for result in results:
        frames = result.per_image["frame"]
        if len({str(frame) for frame in frames}) < len(frames):
            raise ResultError(f"{result.label}: per_image names a frame twice. Evaluate again.")
        for key, column in result.per_image.items():
            if key in ("frame", "drive"):
                continue
            for frame, value in zip(frames, column, strict=True):
                if isinstance(value, bool) or not isinstance(value, Real):
                    text = f"{result.label}: per_image '{key}' of {frame}: expected a number, got {value!r:.40}."
                    raise ResultError(text + " Evaluate again.")


def provenance_notes(results: Sequence[EvaluationResult]) -> list[str]:
    """Say which results were predicted in another way: that is no other protocol, but a reader must know it."""
    notes = []
    for key, words in (("flip", "flip averaging"), ("compat", "compatibility with the reference's NaN")):
        values = {r.label: r.provenance.get(key) for r in results}
        if len({str(v) for v in values.values()}) > 1:
            listed = ", ".join(f"{label}: {_short(value)}" for label, value in values.items())
            notes.append(f"{words} differs ({listed}).")
    for r in results:
        chosen_on = r.provenance.get("selection_split")
        if chosen_on and r.split and chosen_on == r.split:
            notes.append(
                f"{r.label} was chosen among checkpoints on {r.split}, the split it is scored on; that favours it."
            )
    return notes


def common_frames(results: Sequence[EvaluationResult]) -> tuple[tuple[str, ...], list[str]]:
    """Intersect the frames that have valid pixels, in the order of the first result.

    Returns:
        The common frames, and one sentence per result that has frames beyond them.

    Raises:
        ResultError: no frame is common to all results.
    """
    have = [_filled_frames(result) for result in results]
    shared = set(have[0]).intersection(*have[1:])
    frames = tuple(frame for frame in have[0] if frame in shared)
    if not frames:
        names = [
            f"{r.label} ({len(h)} images, first {h[0] if h else 'none'})" for r, h in zip(results, have, strict=True)
        ]
        raise ResultError(f"no image is common to {' and '.join(names)}. Compare results of the same split.")
    notes = []
    for result, own in zip(results, have, strict=True):
        extra = [frame for frame in own if frame not in shared]
        if extra:
            shown = ", ".join(extra[:3]) + (f" and {len(extra) - 3} more" if len(extra) > 3 else "")
            notes.append(
                f"unequal image sets: {result.label} has {len(extra)} images that others lack ({shown}); "
                f"the {len(frames)} common images are compared."
            )
    return frames, notes


def _filled_frames(result: EvaluationResult) -> list[str]:
    frames = result.per_image["frame"]
    pixels = result.per_image.get("n_pixels", [1] * len(frames))
    return [str(frame) for frame, n in zip(frames, pixels, strict=True) if n and n > 0]


def check_pixels(results: Sequence[EvaluationResult], frames: Sequence[str], *, force: bool) -> list[str]:
    """Refuse results whose numbers of valid pixels differ in a frame: their ground truth was another.

    Raises:
        ResultError: a frame differs and `force` is not set.
    """
    if any("n_pixels" not in r.per_image for r in results):
        return []
    counts = [dict(zip(map(str, r.per_image["frame"]), r.per_image["n_pixels"], strict=True)) for r in results]
    for result, own in zip(results[1:], counts[1:], strict=True):
        for frame in frames:
            if own[frame] != counts[0][frame]:
                text = (
                    f"{result.label} and {results[0].label} have {int(own[frame])} and {int(counts[0][frame])} valid "
                    f"pixels in {frame}: their ground truth or its treatment differs."
                )
                if not force:
                    raise ResultError(text + " Evaluate both alike, or use --force.")
                return [text]
    return []


def drives_of(result: EvaluationResult, frames: Sequence[str]) -> list[str]:
    """Name the drive of each frame, empty where the result does not know it."""
    column = result.per_image.get("drive")
    if column is None:
        return [""] * len(frames)
    table = {str(f): str(d or "") for f, d in zip(result.per_image["frame"], column, strict=True)}
    return [table[frame] for frame in frames]


def assign_clusters(frames: Sequence[str], drives: Sequence[str], rule: str = "auto") -> tuple[list[str], str]:
    """Name the cluster of each frame.

    Args:
        frames: N frame names.
        drives: N drive names, empty where unknown.
        rule: `auto` (drive, else directory), `drive`, `image`, `block:N` (runs of N consecutive frames of a drive), or
            a CSV file with the columns `frame` and `cluster`.

    Returns:
        N cluster names, and what a cluster is called in the footer.

    Raises:
        UsageError: an unknown rule.
        ResultError: drives are not known, or the file misses a frame.
    """
    if rule == "image":
        return list(frames), "images"
    if rule.endswith(".csv"):
        return _from_file(frames, Path(rule)), f"clusters of {Path(rule).name}"
    known = all(drives) and any(drive != "unknown" for drive in drives)
    if rule == "drive" and not known:
        raise ResultError("--cluster drive: these results do not name drives. Use --cluster image or a CSV file.")
    streets = list(drives) if known else [str(PurePosixPath(frame).parent) for frame in frames]
    if rule in ("auto", "drive"):
        return streets, "drives" if known else "directories"
    if rule == "block" or rule.startswith("block:"):
        size = _block_size(rule)
        return _blocks(frames, streets, size), f"blocks of {size} frames"
    raise UsageError(f"--cluster {rule}: expected auto, drive, image, block:N or a CSV file with frame,cluster.")


def _block_size(rule: str) -> int:
    text = rule.partition(":")[2] or str(DEFAULT_BLOCK)
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"--cluster {rule}: expected block:N with N >= 1.")
    return int(text)


def _blocks(frames: Sequence[str], streets: Sequence[str], size: int) -> list[str]:
    position: dict[str, int] = {}
    names = [""] * len(frames)
    for i in sorted(range(len(frames)), key=lambda i: (streets[i], frames[i])):
        count = position.get(streets[i], 0)
        names[i] = f"{streets[i]}#{count // size:05d}"
        position[streets[i]] = count + 1
    return names


def _from_file(frames: Sequence[str], path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ResultError(
            f"{path}: cannot be read ({error}). Expected a CSV file with columns frame,cluster."
        ) from None
    if not rows or not {"frame", "cluster"} <= set(rows[0]):
        raise ResultError(f"{path}: expected a CSV file with the columns frame and cluster.")
    table = {row["frame"]: row["cluster"] for row in rows}
    missing = [frame for frame in frames if not table.get(frame)]
    if missing:
        raise ResultError(f"{path}: {len(missing)} images have no cluster, first {missing[0]}. Add them.")
    return [table[frame] for frame in frames]
