"""The options of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adubench.evaluators.boundary_run import BoundaryRequest
    from adubench.evaluators.protocols import Protocol
    from adubench.evaluators.region_run import RegionRequest
    from adubench.evaluators.uncertainty_run import UncertaintyRequest

KINDS = ("depth", "scaled-disparity", "sigmoid-disparity", "pixel-disparity")


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """How to evaluate; every field is an option of `adubench eval`.

    Attributes:
        kind: what the predictions are, one of `KINDS`.
        png_scale: metres (or disparity) = PNG code / png_scale.
        alignment: overrides the protocol's alignment and changes its printed name.
        crop: likewise.
        cap: likewise, in metres.
        min_depth: likewise, in metres.
        max_depth: likewise, in metres.
        allow_missing: score the predictions there are and mark the result partial.
        allow_empty: images without valid pixels are no fault.
        compat: treat NaN as the reference implementation does.
        workers: processes; 0 takes every core.
        cache: folder for packed ground truth; None for the user's cache folder; "off" for none.
        label: how tables call the result; default the source's name.
        regions: sum over regions too.
        uncertainty: measure uncertainty maps too.
        boundaries: score object boundaries too.
        teacher_maps: where the depth maps of a teacher lie, to be compared with too.
        teacher_range: metres of code 65535 in 16-bit teacher maps without a record (TIE-KD's release: 80).
    """

    kind: str = "depth"
    png_scale: float = 256.0
    alignment: str | None = None
    crop: str | None = None
    cap: float | None = None
    min_depth: float | None = None
    max_depth: float | None = None
    allow_missing: bool = False
    allow_empty: bool = False
    compat: bool = False
    workers: int = 1
    cache: str | Path | None = None
    label: str | None = None
    regions: RegionRequest | None = None
    uncertainty: UncertaintyRequest | None = None
    boundaries: BoundaryRequest | None = None
    teacher_maps: Path | None = None
    teacher_range: float | None = None

    def applied_to(self, protocol: Protocol) -> Protocol:
        """Return a protocol with the overrides, which change its printed name."""
        return protocol.with_options(
            crop=self.crop,
            cap=self.cap,
            min_depth=self.min_depth,
            max_depth=self.max_depth,
            alignment=self.alignment,
        )
