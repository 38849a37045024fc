"""The golden images of tests/data/metrics, decoded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from adubench.io.maps import DepthMap, SparseDepth

FOLDER = Path(__file__).resolve().parents[1] / "data" / "metrics"
RESULTS = json.loads((FOLDER / "results.json").read_text())
CASES = tuple(RESULTS["cases"])
WINDOW = (352, 1216)


@dataclass(frozen=True)
class Case:
    name: str

    @cached_property
    def arrays(self):
        return dict(np.load(FOLDER / f"{self.name}.npz"))

    @cached_property
    def gt(self) -> SparseDepth:
        z = self.arrays
        h, w = (int(v) for v in z["shape"])
        dense = np.zeros(h * w, np.float32)
        dense[z["gt_index"]] = z["gt_value"]
        return SparseDepth.from_map(DepthMap(dense.reshape(h, w)))

    def decoded(self, key: str, scale: float) -> np.ndarray:
        """A stored map in float32 with its overrides; `key` as in the npz without `_u16`."""
        z = self.arrays
        out = z[f"{key}_u16"].astype(np.float32) / np.float32(scale)
        if f"{key}_override_index" in z:
            out.reshape(-1)[z[f"{key}_override_index"]] = z[f"{key}_override_value"]
        return out

    @property
    def pred(self) -> np.ndarray:
        return self.decoded("pred", 16)

    @property
    def disp(self) -> np.ndarray:
        return self.decoded("disp", 1024)

    def expected(self, key: str) -> dict:
        return RESULTS["cases"][self.name][key]


@cache
def case(name: str) -> Case:
    return Case(name)


def with_key(prefix: str) -> list[tuple[str, str]]:
    """All (case, protocol key) whose key starts so."""
    return [(c, k) for c, keys in RESULTS["cases"].items() for k in keys if k.startswith(prefix)]


def number(value) -> float:
    return float(value)  # "nan", "inf" and "-inf" are what the file writes


def assert_close(got: float, want, rel: float, what: str, absolute: float = 1e-12) -> None:
    want = number(want)
    if np.isnan(want):
        assert np.isnan(got), f"{what}: {got} instead of NaN"
        return
    if np.isinf(want):
        assert got == want, f"{what}: {got} instead of {want}"
        return
    assert abs(got - want) <= max(rel * abs(want), absolute), f"{what}: {got} instead of {want}"
