"""Boundary scores in an evaluation: from options to scores per frame, from those to the sections of a result."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adubench.errors import DataError, ProtocolError, UsageError, unknown_name
from adubench.evaluators import region_options
from adubench.evaluators.boundary_scores import (
    GROUPS,
    SCORES,
    FrameBoundaries,
    Options,
    default_groups,
    score_boundaries,
    summarise,
)
from adubench.evaluators.depth_edges import density
from adubench.evaluators.final_pixels import dense_prediction
from adubench.evaluators.region_params import EDGE_PRESETS, preset_for
from adubench.evaluators.regions import THINGS

if TYPE_CHECKING:
    from adubench.evaluators.final_pixels import FinalPixels
    from adubench.evaluators.predicted_values import Prediction
    from adubench.evaluators.protocols import Protocol
    from adubench.evaluators.region_reader import FrameReader
    from adubench.evaluators.result import EvaluationResult

# Group -> input that is not depth, in the words of `RegionInputs`.
_INPUTS = {"recall": "labels", "fscore": "intrinsics", "external": "external edges"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundaryRequest:
    """The options of `--boundary-metrics`, as typed; None leaves a default.

    Attributes:
        groups: list of groups, "default" or "all".
        edge_preset: "auto", "dense", "improved" or "raw".
        edge_gap: `GX,GY`.
        edge_kappa: slant factor or "none".
        intrinsics: `FX,FY,CX,CY`.
        labels: folder of label maps, whose things are the object masks.
        edges: folder of annotated edges.
        reference_quirks: no masks where the references have none.
    """

    groups: str = "default"
    edge_preset: str | None = None
    edge_gap: str | None = None
    edge_kappa: str | None = None
    intrinsics: str | None = None
    labels: Path | None = None
    edges: Path | None = None
    reference_quirks: bool = False

    def __post_init__(self) -> None:
        for word in self.words():
            if word not in GROUPS:
                raise unknown_name("boundary metric", word, (*GROUPS, "all"))
        if self.edge_preset not in (None, "auto", *EDGE_PRESETS):
            raise unknown_name("edge preset", str(self.edge_preset), (*EDGE_PRESETS, "auto"))

    def words(self) -> tuple[str, ...]:
        """The groups named one by one; empty for "default" and "all"."""
        if self.groups in ("default", "all"):
            return ()
        return tuple(dict.fromkeys(word.strip() for word in self.groups.split(",") if word.strip()))

    def needs(self) -> frozenset[str]:
        """Inputs besides depth that some group may need."""
        groups = self.words() or (tuple(GROUPS) if self.groups == "all" else ("recall", "external"))
        return frozenset(_INPUTS[group] for group in groups if group in _INPUTS)

    def settle(self, reader: FrameReader, keys: Sequence[Any]) -> tuple[str, Options]:
        """Find preset and groups on a data set.

        Returns:
            Name of the preset, and the options of the scores.

        Raises:
            UsageError: malformed options.
        """
        preset = self.edge_preset
        if preset in (None, "auto"):
            preset = preset_for(float(np.mean([density(reader.truth(key)) for key in keys])) if keys else 0.0)
        assert preset is not None
        groups = self.words()
        if not groups:
            usual = default_groups(preset, masks=self.labels is not None, edges=self.edges is not None)
            dense = [group for group, need in GROUPS.items() if need == "dense ground truth"]
            more = [*(dense if preset == "dense" else ()), "fscore"] if self.groups == "all" else []
            groups = tuple(group for group in GROUPS if group in (*usual, *more))
        gaps = region_options.parse_gap(self.edge_gap) if self.edge_gap is not None else EDGE_PRESETS[preset]
        kappa = region_options.parse_kappa(self.edge_kappa) if self.edge_kappa is not None else 0.5
        return preset, Options(groups, gaps, kappa, reference_quirks=self.reference_quirks)


@dataclass(frozen=True, slots=True)
class BoundaryScorer:
    """Scores the boundaries of a frame; picklable.

    Attributes:
        preset: kind of the ground truth.
        options: of the scores.
        reader: of ground truth, labels, edges and intrinsics.
    """

    preset: str
    options: Options
    reader: FrameReader

    def measure(
        self, protocol: Protocol, prediction: Prediction, final: FinalPixels, name: str, key: Any
    ) -> FrameBoundaries:
        """Score one frame under one protocol: on the whole frame, beyond crop and cap too.

        Raises:
            ProtocolError: predictions at ground-truth pixels only, which have no neighbours.
            DataError: broken or misfitting inputs.
        """
        if prediction.map.values.ndim != 2:
            raise ProtocolError(f"frame {name}: boundary metrics need dense predictions, these are values at pixels.")
        inputs = self.reader.inputs(key)
        pred, covered = dense_prediction(protocol, inputs.gt, prediction, final, frame=name)
        truth = inputs.gt.dense()
        truth[~(np.isfinite(truth) & covered)] = 0
        for what, array in (("label map", inputs.labels), ("edge map", inputs.external_edges)):
            if array is not None and array.shape != truth.shape:
                sizes = ["x".join(map(str, shape)) for shape in (array.shape, truth.shape)]
                raise DataError(f"frame {name}: the {what} is {sizes[0]}, the ground truth {sizes[1]}.")
        held = {"labels": inputs.labels, "intrinsics": inputs.K, "external edges": inputs.external_edges}
        groups = tuple(g for g in self.options.groups if g not in _INPUTS or held[_INPUTS[g]] is not None)
        return score_boundaries(
            truth,
            pred,
            dataclasses.replace(self.options, groups=groups),
            edges=inputs.external_edges if "external" in groups else None,
            mask=np.isin(inputs.labels, THINGS) if inputs.labels is not None and "recall" in groups else None,
            K=inputs.K if "fscore" in groups else None,
            frame=name,
        )


def add_boundaries(result: EvaluationResult, frames: Sequence[FrameBoundaries], scorer: BoundaryScorer) -> None:
    """Put the scores into a result: per-image columns, summary, and a section with what they depend on."""
    summary, images = summarise(frames)
    for key in SCORES:
        if any(key in frame.values for frame in frames):
            result.per_image[key] = [frame.values.get(key, math.nan) for frame in frames]
    result.boundaries = {
        "scores": summary,
        "n_images": images,
        "preset": scorer.preset,
        "gaps": list(scorer.options.gaps),
        "kappa": scorer.options.kappa,
        "reference_quirks": scorer.options.reference_quirks,
    }
    result.summary |= summary
    for group in scorer.options.groups:
        if not any(SCORES[key].group == group for key in summary):
            result.warnings.append(f"boundary metric '{group}' needs {GROUPS[group]}, which no image has; left out.")
        elif GROUPS[group] == "dense ground truth" and scorer.preset != "dense":
            result.warnings.append(
                f"boundary metric '{group}' is made for dense ground truth; this one is sparse, and every edge that it "
                "misses counts against the prediction."
            )


def check_request(request: BoundaryRequest) -> None:
    """Refuse groups whose input has to be named and is not.

    Raises:
        UsageError: naming the option that is missing.
    """
    for group, option, given in (
        ("recall", "--semantic", request.labels),
        ("external", "--ext-edges", request.edges),
    ):
        if group in request.words() and given is None:
            raise UsageError(f"--boundary-metrics={group} needs {GROUPS[group]}: give {option} DIR.")
