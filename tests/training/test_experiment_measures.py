"""Measures of experiments that need no network: curves, focal lengths, sets that stand for others, further tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adubench.recipes.experiments import TestSet as FurtherSet
from adubench.recipes.experiments import expand, load_experiment

pytest.importorskip("torch")

from adubench.datasets.synthdrive.writer import write_dataset
from adubench.training.experiment_details import details
from adubench.training.experiment_measures import Inputs, Measured, _curve, settling
from adubench.training.experiment_runs import Record
from adubench.training.experiment_transfer import synthetic_set, train_focal
from adubench.training.prediction_inputs import list_split


def inputs_of(name: str, folder: Path, *, data: Path | None = None, overrides: tuple[str, ...] = ()) -> Inputs:
    spec = expand(load_experiment(name)[0], "smoke", seeds=1, overrides=overrides).runs[0]
    return Inputs(spec, folder / "c.safetensors", None, folder, None, data, {}, "cpu", folder)


def test_a_curve_settles_where_it_stays_within_five_percent() -> None:
    points = [(10, 2.0), (20, 1.04), (30, 1.2), (40, 0.96), (50, 1.0)]
    steps, area = settling(points)
    assert steps == 40  # step 20 is close, but step 30 leaves again
    assert area == pytest.approx((1.52 + 1.12 + 1.08 + 0.98) / 4)
    assert settling([(10, 3.0), (20, 3.0)]) == (10, 3.0)
    assert settling(points[:1]) == (None, None)


def test_the_log_gives_scores_per_epoch_and_shares(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"event": "step", "step": 5, "epoch": 0.5, "p_d": 0.2, "gradient_share_focal": 0.1},
        {"event": "step", "step": 10, "epoch": 1.0, "p_d": 0.4, "gradient_share_focal": 0.3},
        {"event": "step", "step": 15, "epoch": 1.5, "p_d": 0.8, "gradient_share_focal": 0.2},
        {"event": "validation", "step": 10, "silog": 10.0},
        {"event": "validation", "step": 15, "silog": 9.0},
        {"event": "validation", "step": 20, "silog": 9.0},
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))  # beside the checkpoint
    found = Measured()
    _curve(inputs_of("E2", tmp_path), found)
    assert found.absent == {}
    assert found.numbers == {
        "curve:p_d_epoch_1": pytest.approx(0.3),
        "curve:p_d_epoch_2": 0.8,
        "curve:p_d_end": 0.8,
        "curve:focal_gradient_share": pytest.approx(0.2),
        "curve:focal_gradient_share_end": 0.2,
        "curve:steps_to_5_percent": 15.0,
        "curve:auc": pytest.approx(9.25),
        "curve:first": 10.0,
        "curve:last": 9.0,
    }


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Write a small SynthDrive in KITTI's layout, and the set that stands for DrivingStereo."""
    folder = tmp_path_factory.mktemp("roots")
    write_dataset(folder / "kitti", drives=2, frames=11, size=(64, 192))
    return folder / "kitti", synthetic_set(folder / "drivingstereo")


@pytest.mark.slow
def test_the_focal_length_of_training_follows_calibration_and_resizing(
    roots: tuple[Path, Path], tmp_path: Path
) -> None:
    test_set = FurtherSet(name="far", split="drivingstereo.test", focal=1004.0, train_focal=721.5)
    own = list_split("synthdrive.test", roots[0], stereo=False)[0].focal
    assert own is not None
    assert train_focal(inputs_of("E7", tmp_path, data=roots[0]), test_set) == own
    resized = inputs_of("E7", tmp_path, data=roots[0], overrides=("input.mode=resize", "input.width=96"))
    assert train_focal(resized, test_set) == pytest.approx(own / 2)


@pytest.mark.slow
def test_the_stand_in_has_the_test_set_and_four_weather_sets(roots: tuple[Path, Path]) -> None:
    means = {}
    for part in ("test", "weather.sunny", "weather.cloudy", "weather.foggy", "weather.rainy"):
        jobs = list_split(f"drivingstereo.{part}", roots[1], stereo=False)
        assert len(jobs) == 11
        assert all(job.focal is not None for job in jobs)
        with Image.open(jobs[0].image) as image:
            means[part] = float(np.asarray(image).mean())
    assert len({round(value) for value in means.values()}) == 5
    assert synthetic_set(roots[1]) == roots[1]  # a second run takes what is there


def test_levels_times_and_sets_have_tables_of_their_own() -> None:
    def record(name: str, seed: int, numbers: dict[str, float]) -> Record:
        return Record(f"{name}-s{seed}", name, "", seed, "student", "0", "finished", numbers)

    e6 = expand(load_experiment("E6")[0], "smoke", seeds=2)
    keys = ("gap@0:fd_before_encoder_0", "gap:fd_before_encoder_0")
    runs = [record("identity", s, dict(zip(keys, (3.0 + s, 1.0 + s), strict=True))) for s in (0, 1)]
    (gaps,) = details(e6, runs)
    assert [row[0] for row in gaps.rows] == ["identity, 0%, encoder 1/4", "identity, 100%, encoder 1/4"]
    assert [row[1][0] for row in gaps.rows] == [3.5, 1.5]
    e7 = expand(load_experiment("E7")[0], "smoke", seeds=1)
    (sets,) = details(e7, [record("Full", 0, {"abs_rel": 0.1, "transfer:foggy:focal:drop": 50.0})])
    assert [row[0] for row in sets.rows] == ["Full, in domain", "Full, foggy, focal"]
    assert sets.rows[1][1][-1] == 50.0
    e2 = expand(load_experiment("E2")[0], "smoke", seeds=1)
    (epochs,) = details(e2, [record("x", 0, {f"curve:p_d_epoch_{e}": e / 40 for e in range(1, 41)})])
    assert epochs.columns == tuple(f"epoch {e}" for e in (1, 7, 12, 18, 23, 29, 34, 40))
