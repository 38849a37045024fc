"""One level of features in one row: how far the student is from its teacher, before and after adaptation.

Tokens of teacher T, student S and adapted student A are taken at the same places. Distances between distributions take
T from one half of the images and S or A from the other (`halves`), so that no image is on both sides; the floor is the
same distance between the teacher's own halves. CKA, mean squared error and cosine pair the rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import UsageError
from adubench.evaluators import feature_gap as fg
from adubench.evaluators.cka import cka_linear, direct_gap
from adubench.evaluators.mmd import median_sq_distance, mmd_permutation, mmd_rbf
from adubench.evaluators.statistics import draw_weights, label_clusters

Matrix = NDArray[np.float64]
AXES, TOKENS_PER_CHANNEL = 64, 10
INTERVAL_RESAMPLES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class GapOptions:
    """How levels are measured.

    Attributes:
        sampling: "halves" (T and S from disjoint images, unbiased MMD, with a test) or "paired" (the same places).
        standardise: "teacher" (per channel, by the teacher's sample) or "none".
        mmd_rows: tokens per side of the MMD.
        permutations: relabellings of the MMD's test; 0 for none.
        seed: of everything that is drawn.
    """

    sampling: str = "halves"
    standardise: str = "teacher"
    mmd_rows: int = 2048
    permutations: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for option, value, known in (
            ("--sampling", self.sampling, ("halves", "paired")),
            ("--standardise", self.standardise, ("teacher", "none")),
        ):
            if value not in known:
                raise UsageError(f"{option} {value}: expected {' or '.join(known)}.")
        if self.mmd_rows < 4 or self.permutations < 0:
            raise UsageError("--mmd-rows must be at least 4 and --perm at least 0.")


def level_gap(
    teacher: NDArray[Any],
    student: NDArray[Any],
    adapted: NDArray[Any] | None,
    images: Sequence[str],
    drives: Sequence[str],
    options: GapOptions,
    *,
    name: str = "features",
) -> dict[str, Any]:
    """Measure one level.

    Args:
        teacher: [n, d] tokens, grouped by image.
        student: [n, e] at the same places, before the adapter; with e != d only CKA exists.
        adapted: [n, d] after the adapter, or None.
        images: [n] image of each token.
        drives: [n] its drive.
        options: how.
        name: of the level, for messages.

    Returns:
        `n_tokens`, `channels`, `axes` (0: all channels), `constant_channels`; for S (`_before`) and A (`_after`):
        `fd`, `fd_mean`, `fd_cov`, `mmd`, `mmd_p`, `cka`, `cka_unbiased`, `mse`, `cosine`, `explained`; `fd_floor`,
        `mmd_floor`, `closed` and `closed_ci`. What does not exist is NaN.

    Raises:
        DataError: values that are not finite, naming the level and whose they are, or too few tokens.
    """
    t = fg.as_tokens(teacher, f"{name}, teacher")
    found = {"before": fg.as_tokens(student, f"{name}, student")}
    if adapted is not None:
        found["after"] = fg.as_tokens(adapted, f"{name}, adapted student")
    out: dict[str, Any] = {"n_tokens": len(t), "channels": t.shape[1], "axes": 0}
    for when, tokens in found.items():
        out[f"cka_{when}"] = cka_linear(t, tokens)
        out[f"cka_unbiased_{when}"] = cka_linear(t, tokens, unbiased=True) if len(t) >= 4 else math.nan
    scale = fg.standardiser(t)
    out["constant_channels"] = scale.n_constant
    if options.standardise == "teacher":
        same = {when: scale(tokens) for when, tokens in found.items() if tokens.shape[1] == t.shape[1]}
        t = scale(t)
    else:
        same = {when: tokens for when, tokens in found.items() if tokens.shape[1] == t.shape[1]}
    for when, tokens in same.items():
        direct = direct_gap(t, tokens)
        out |= {f"mse_{when}": direct.mse, f"cosine_{when}": direct.cosine, f"explained_{when}": direct.explained}
    half = _halves(images, drives)
    n = len(t) if options.sampling == "paired" else len(t) // 2
    project: Callable[[Matrix], Matrix] = lambda values: values  # noqa: E731
    if n < TOKENS_PER_CHANNEL * t.shape[1] and t.shape[1] > AXES:
        axes = fg.principal_axes(t, AXES)
        out["axes"] = axes.shape[1]
        project = lambda values: np.asarray(values @ axes)  # noqa: E731
    out |= _frechet(project(t), {when: project(v) for when, v in same.items()}, half, options)
    out |= _mmd(t, same, np.asarray(images), half, options)
    if {"before", "after"} <= same.keys():
        out["closed"] = fg.closed_fraction(out["fd_before"], out["fd_after"], out["fd_floor"])
        out["closed_ci"] = _closed_interval(t, same, half, drives, options)
    return out


def _halves(images: Sequence[str], drives: Sequence[str]) -> NDArray[np.bool_]:
    """Mark the tokens of the first half of each drive's images, so that both halves know every drive."""
    of_drive: dict[str, list[str]] = {}
    for image, drive in dict.fromkeys(zip(images, drives, strict=True)):
        of_drive.setdefault(drive, []).append(image)
    alone = [name for names in of_drive.values() if len(names) == 1 for name in names]
    first = {name for names in of_drive.values() for name in names[: len(names) // 2]} | set(alone[::2])
    return np.array([image in first for image in images])


def _frechet(t: Matrix, others: dict[str, Matrix], half: NDArray[np.bool_], options: GapOptions) -> dict[str, float]:
    out = {"fd_floor": math.nan}
    if 2 <= half.sum() <= len(half) - 2:
        out["fd_floor"] = fg.frechet(t[half], t[~half]).distance
    for when, tokens in others.items():
        if options.sampling == "paired":
            parts = [fg.frechet(t, tokens)]
        else:
            parts = [fg.frechet(t[half], tokens[~half]), fg.frechet(t[~half], tokens[half])]
        for key, field in (("fd", "distance"), ("fd_mean", "mean_term"), ("fd_cov", "covariance_term")):
            out[f"{key}_{when}"] = float(np.mean([getattr(part, field) for part in parts]))
    return out


def _mmd(
    t: Matrix, others: dict[str, Matrix], images: NDArray[Any], half: NDArray[np.bool_], options: GapOptions
) -> dict[str, float]:
    """Kernel distances with one bandwidth, that of T and S, and the test that relabels images."""
    if not others:
        return {}
    generator = np.random.default_rng(options.seed)
    out: dict[str, float] = {}
    if options.sampling == "paired":
        chosen = generator.choice(len(t), size=min(options.mmd_rows, len(t)), replace=False)
        width = median_sq_distance(t[chosen], others["before"][chosen])
        for when, tokens in others.items():
            out[f"mmd_{when}"] = mmd_rbf(t[chosen], tokens[chosen], scale=width, estimator="paired")
        return out
    sides = []
    for side in (half, ~half):
        rows = np.flatnonzero(side)
        sides.append(generator.choice(rows, size=min(options.mmd_rows, rows.size), replace=False))
    first, second = sides
    width = median_sq_distance(t[first], others["before"][second])
    out["mmd_floor"] = mmd_rbf(t[first], t[second], scale=width)
    for when, tokens in others.items():
        both = [mmd_rbf(t[a], tokens[b], scale=width) for a, b in ((first, second), (second, first))]
        out[f"mmd_{when}"] = float(np.mean(both))
        if options.permutations:
            test = mmd_permutation(
                t[first],
                tokens[second],
                images[first],
                images[second],
                scale=width,
                generator=np.random.default_rng(options.seed),
                relabellings=options.permutations,
            )
            out[f"mmd_p_{when}"] = test.p
    return out


def _closed_interval(
    t: Matrix, others: dict[str, Matrix], half: NDArray[np.bool_], drives: Sequence[str], options: GapOptions
) -> list[float]:
    """Interval (95 %) of the closed fraction of the Frechet distance: drives resampled, on at most 64 axes of T."""
    labels, names = label_clusters(list(drives))
    if len(names) < 2:
        return [math.nan, math.nan]
    if t.shape[1] > AXES:
        axes = fg.principal_axes(t, AXES)
        t, others = t @ axes, {when: tokens @ axes for when, tokens in others.items()}
    centre = t.mean(axis=0)
    sums = {
        (who, side): [_moments(tokens[(labels == drive) & (half == side)], centre) for drive in range(len(names))]
        for who, tokens in (("t", t), *others.items())
        for side in (True, False)
    }
    draws = []
    for block in draw_weights(len(names), INTERVAL_RESAMPLES, options.seed):
        for weights in block:
            total = {key: _weighted(parts, weights, centre) for key, parts in sums.items()}
            if min(total[key].count for key in total) < 2:
                continue
            gaps = [_gap(total, when, options) for when in ("before", "after")]
            floor = fg.frechet_from_moments(total["t", True], total["t", False]).distance
            draws.append(fg.closed_fraction(gaps[0], gaps[1], floor))
    good = np.array([d for d in draws if math.isfinite(d)])
    if good.size < 0.95 * INTERVAL_RESAMPLES:
        return [math.nan, math.nan]
    return [float(v) for v in np.percentile(good, [2.5, 97.5])]


def _gap(total: dict[tuple[str, bool], fg.TokenMoments], when: str, options: GapOptions) -> float:
    if options.sampling == "paired":
        teacher, other = (total[who, True] + total[who, False] for who in ("t", when))
        return fg.frechet_from_moments(teacher, other).distance
    crossed = [fg.frechet_from_moments(total["t", side], total[when, not side]).distance for side in (True, False)]
    return sum(crossed) / 2


def _moments(tokens: Matrix, centre: Matrix) -> fg.TokenMoments:
    if len(tokens) == 0:
        return fg.TokenMoments(0, np.zeros_like(centre), np.zeros((centre.size, centre.size)), centre)
    return fg.token_moments(tokens, centre)


def _weighted(parts: Sequence[fg.TokenMoments], weights: NDArray[Any], centre: Matrix) -> fg.TokenMoments:
    used = [(part, float(weight)) for part, weight in zip(parts, weights, strict=True) if weight]
    return fg.TokenMoments(
        round(sum(part.count * weight for part, weight in used)),
        np.sum([part.total * weight for part, weight in used], axis=0),
        np.sum([part.outer * weight for part, weight in used], axis=0),
        centre,
    )
