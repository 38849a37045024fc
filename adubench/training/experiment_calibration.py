"""Calibration of a student's uncertainty in an experiment: against ground truth, and against its teacher.

The common factor tau for sigma is fitted on every second image and judged on the others, so that no image judges its
own fit.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import AdubenchError
from adubench.evaluators.uncertainty_kinds import canonical_kind

if TYPE_CHECKING:
    from adubench.evaluators.result import EvaluationResult

#: Name in tables -> name in the uncertainty section of a result (Laplace density: ADU-Depth's heads predict b).
NAMES = {
    "nll": "nll_laplace", "ece19": "ece19_laplace", "ence": "ence", "tau": "tau",
    "spearman": "spearman", "ause": "ause_rmse", "aurg": "aurg_rmse",
}  # fmt: skip

Score = Callable[[Path, Path], "EvaluationResult"]


def finite(values: dict[str, Any]) -> dict[str, float]:
    """Keep what is a finite number."""
    return {
        key: float(value)
        for key, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }


def uncertainty_scores(result: EvaluationResult, prefix: str) -> dict[str, float]:
    """Return the scores of a result's uncertainty under their names in tables, and all others under their own."""
    values = finite(result.uncertainty)
    named = {f"{prefix}:{name}": values[key] for name, key in NAMES.items() if key in values}
    return {f"{prefix}:{key}": value for key, value in values.items()} | named


def scores_after_tau(score: Score, predictions: Path, maps: Path, kind: str) -> tuple[dict[str, float], str]:
    """Fit tau on every second image and score the others after it.

    Args:
        score: evaluates a folder of predictions with its folder of uncertainty maps; the folders are incomplete.
        predictions: npy maps.
        maps: uncertainty maps of the same names.
        kind: their meaning.

    Returns:
        `tau_fit`, `ece19_after`, `nll_after`; and why there are none, "" if there are.
    """
    halves = predictions.with_name(f"{predictions.name}-halves")
    try:
        (first, first_maps), (second, second_maps) = split_halves(predictions, maps, halves)
        tau = float(score(first, first_maps).uncertainty.get("tau", math.nan))
        if not (math.isfinite(tau) and tau > 0):
            return {}, "the images of the fit have no error to fit a factor to"
        scale_sigma(second_maps, kind, tau)
        after = finite(score(second, second_maps).uncertainty)
    except AdubenchError as error:
        return {}, str(error)
    finally:
        shutil.rmtree(halves, ignore_errors=True)
    found = {f"{name}_after": after[NAMES[name]] for name in ("ece19", "nll", "ence") if NAMES[name] in after}
    return {"tau_fit": tau} | found, ""


def split_halves(predictions: Path, maps: Path, halves: Path) -> tuple[tuple[Path, Path], tuple[Path, Path]]:
    """Copy every second prediction and its map to one pair of folders, the others to another one."""
    shutil.rmtree(halves, ignore_errors=True)
    names = sorted(path.relative_to(predictions) for path in predictions.rglob("*.npy"))
    pairs = []
    for part in (0, 1):
        pair = halves / f"{part}" / "depth", halves / f"{part}" / "uncertainty"
        for source, target in zip((predictions, maps), pair, strict=True):
            target.mkdir(parents=True)
            for name in names[part::2]:
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, target / name)
        pairs.append(pair)
    return pairs[0], pairs[1]


def scale_sigma(maps: Path, kind: str, factor: float) -> None:
    """Multiply the sigma that the maps of a folder mean by a factor > 0."""
    for path in maps.rglob("*.npy"):
        np.save(path, scaled(np.load(path), kind, factor))


def scaled(values: NDArray[Any], kind: str, factor: float) -> NDArray[np.float32]:
    """Return outputs of a kind that mean `factor` times the sigma."""
    name = canonical_kind(kind)
    if name.startswith("log_"):
        return (values + (2 if name == "log_variance" else 1) * math.log(factor)).astype(np.float32)
    return (values * (factor**2 if name == "variance" else factor)).astype(np.float32)
