"""Figures about uncertainty: what is left when the least certain pixels go, and whether the claimed shares hold."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from adubench.reports.figures import GRID, INK, Figure, canvas, color_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure as Canvas

    from adubench.evaluators.result import EvaluationResult


def uncertainty_figures(results: Sequence[EvaluationResult]) -> list[Figure]:
    """Sparsification and reliability of every result that measured uncertainty."""
    figures = []
    for k, result in enumerate(results):
        curves = (result.uncertainty or {}).get("curves") or {}
        name = f"{k}"
        if "sparsification" in curves:
            figures.append(
                Figure(
                    f"sparsification-{name}",
                    f"Sparsification: {result.label}",
                    "Error of the pixels that are left when the most uncertain are removed. Oracle removes those with "
                    "the largest error; a useful map lies near it and far below random.",
                    "uncertainty",
                    partial(_sparsification, curves["sparsification"], k),
                )
            )
        if curves.get("calibration"):
            figures.append(
                Figure(
                    f"reliability-{name}",
                    f"Reliability: {result.label}",
                    "Share of pixels within the interval that the map claims for each level. On the diagonal the claim "
                    "holds; below it the map is too sure.",
                    "uncertainty",
                    partial(_reliability, curves["calibration"], k),
                )
            )
    return figures


def _sparsification(curve: dict[str, Any], position: int) -> Canvas:
    keys = [key for key in ("abs_rel", "rmse") if key in curve.get("model", {})]
    figure, axes = canvas(7.2, 2.9, columns=max(1, len(keys)))
    removed = 100 * np.asarray(curve["removed"], float)[:-1]  # at 100 % nothing is left to be wrong
    lines = (("oracle", INK, "--"), ("random", GRID, ":"), ("depth", GRID, "-."), ("model", color_of(position), "-"))
    for axis, key in zip(axes, keys, strict=False):
        for name, color, style in lines:
            if key in curve.get(name, {}):
                axis.plot(
                    removed, np.asarray(curve[name][key], float)[:-1], style, color=color, label=name, linewidth=1.5
                )
        axis.set_xlabel("pixels removed [%]")
        axis.set_ylabel(key + (" [m]" if key == "rmse" else ""))
        axis.set_ylim(bottom=0)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=4)
    return figure


def _reliability(curve: dict[str, Any], position: int) -> Canvas:
    figure, (axes,) = canvas(3.6, 3.2)
    levels = 100 * np.asarray(curve["levels"], float)
    axes.plot([0, 100], [0, 100], "--", color=GRID, linewidth=1)
    for name, style in (("gaussian", "-"), ("laplace", "-."), ("quantile", ":")):
        if name in curve:
            shares = 100 * np.asarray(curve[name], float)
            axes.plot(levels, shares, style, color=color_of(position), label=name, linewidth=1.5)
    axes.set_xlabel("claimed [%]")
    axes.set_ylabel("found [%]")
    axes.set_aspect("equal")
    axes.legend()
    return figure
