"""Uncertainty in experiments: halves, the common factor, and what scaling a map of each kind means."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from adubench.evaluators.calibration import LEVELS_19
from adubench.evaluators.eval_options import EvalOptions
from adubench.evaluators.evaluator import evaluate
from adubench.evaluators.uncertainty_kinds import convert
from adubench.evaluators.uncertainty_run import UncertaintyRequest
from adubench.training.experiment_calibration import scaled, scores_after_tau, split_halves, uncertainty_scores

SIZE = (40, 60)


def write_maps(folder: Path, images: int, factor: float) -> tuple[Path, Path, Path]:
    """Write truth, predictions with Laplace errors of b = 0.5, and ln sigma that is `factor` times too small."""
    rng = np.random.default_rng(0)
    places = [folder / name for name in ("gt", "pred", "maps")]
    for place in places:
        place.mkdir()
    for i in range(images):
        truth = rng.uniform(10, 40, SIZE).astype(np.float32)
        pred = (truth + rng.laplace(0, 0.5, SIZE)).astype(np.float32)
        sigma = np.full(SIZE, math.log(0.5 * math.sqrt(2) / factor), np.float32)
        for place, values in zip(places, (truth, pred, sigma), strict=True):
            np.save(place / f"{i:02d}.npy", values)
    return places[0], places[1], places[2]


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_a_sigma_that_is_wrong_by_a_factor_is_calibrated_after_it(tmp_path: Path, factor: float) -> None:
    gt, pred, maps = write_maps(tmp_path, 8, factor)

    def score(predictions: Path, uncertainty: Path):  # type: ignore[no-untyped-def]
        request = UncertaintyRequest(maps=uncertainty, kind="log_sigma", family="laplace")
        options = EvalOptions(uncertainty=request, allow_missing=True)
        (result,) = evaluate(predictions, gt=gt, protocol="full-frame", options=options)
        return result

    before = uncertainty_scores(score(pred, maps), "unc")
    numbers, reason = scores_after_tau(score, pred, maps, "log_sigma")
    assert reason == ""
    assert before["unc:tau"] == pytest.approx(factor, rel=0.03)
    assert numbers["tau_fit"] == pytest.approx(factor, rel=0.03)
    # Coverage of a Laplace density whose b is too small by `factor`: 1 - (1 - p)^(1 / factor).
    expected = np.abs(1 - (1 - LEVELS_19) ** (1 / factor) - LEVELS_19).mean()
    assert before["unc:ece19"] == pytest.approx(expected, abs=0.01)
    assert numbers["ece19_after"] < 0.01
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gt", "maps", "pred"]


def test_halves_share_no_image_and_lose_none(tmp_path: Path) -> None:
    _, pred, maps = write_maps(tmp_path, 5, 1.0)
    (first, first_maps), (second, second_maps) = split_halves(pred, maps, tmp_path / "halves")
    names = [sorted(path.name for path in folder.iterdir()) for folder in (first, second)]
    assert names == [["00.npy", "02.npy", "04.npy"], ["01.npy", "03.npy"]]
    assert names == [sorted(path.name for path in folder.iterdir()) for folder in (first_maps, second_maps)]


@pytest.mark.parametrize("kind", ["sigma", "variance", "b", "log_b", "log_sigma", "log_variance", "std", "log_var"])
def test_every_kind_is_scaled_as_sigma(kind: str) -> None:
    values = np.array([0.5, 1.0, 2.0], np.float32)
    before, after = convert(values, kind), convert(scaled(values, kind, 2.5), kind)
    assert after.sigma is not None
    assert before.sigma is not None
    np.testing.assert_allclose(after.sigma, 2.5 * before.sigma, rtol=1e-6)
