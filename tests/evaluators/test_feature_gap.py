from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from adubench.errors import DataError
from adubench.evaluators.cka import cka_linear, cka_minibatch, direct_gap
from adubench.evaluators.feature_gap import (
    closed_fraction,
    frechet,
    frechet_extrapolated,
    frechet_floor,
    frechet_from_moments,
    halves_floor,
    principal_axes,
    standardiser,
    token_moments,
)
from adubench.evaluators.mmd import FACTORS, median_sq_distance, mmd_permutation, mmd_poly3, mmd_rbf

FOLDER = Path(__file__).resolve().parents[1] / "data" / "feature_gap"
CASES = np.load(FOLDER / "cases.npz")
WANT = json.loads((FOLDER / "expected.json").read_text())
PAIRS = [(case, pair) for case, pairs in WANT.items() for pair in pairs if isinstance(pairs[pair], dict)]


def tokens(case, pair):
    teacher, student, adapted = (CASES[f"{case}/{who}"] for who in ("teacher", "student", "adapted"))
    half = len(teacher) // 2
    return {
        "student_vs_teacher": (student, teacher),
        "adapted_vs_teacher": (adapted, teacher),
        "teacher_half_vs_half": (teacher[:half], teacher[half : 2 * half]),
        "student_vs_itself": (student, student),
        "student_150pct_unequal_n": (np.concatenate([student, student[:half]]), teacher),
    }[pair]


@pytest.mark.parametrize(("case", "pair"), PAIRS)
def test_frechet(case, pair):
    x, y = tokens(case, pair)
    want = WANT[case][pair]
    found = frechet(x, y)
    for key in ("frechet_torchmetrics", "frechet_symmetric"):
        assert found.distance == pytest.approx(want[key], rel=1e-6, abs=1e-5)
    assert found.mean_term == pytest.approx(want["frechet_mean_term"], rel=1e-6, abs=1e-12)
    assert found.distance == found.mean_term + found.covariance_term
    cut = len(x) // 3
    first = token_moments(x[:cut])
    streamed = first + token_moments(x[cut:], first.centre)
    assert frechet_from_moments(streamed, token_moments(y)).distance == pytest.approx(
        found.distance, rel=1e-6, abs=1e-5
    )
    assert np.allclose(streamed.covariance, np.cov(x.astype(float).T), atol=1e-12)
    with pytest.raises(ValueError, match="centres"):
        first + token_moments(x[cut:] + 1)


@pytest.mark.parametrize(("case", "pair"), PAIRS)
def test_mmd(case, pair):
    x, y = tokens(case, pair)
    want = WANT[case][pair]
    scale = median_sq_distance(x, y)
    assert scale == pytest.approx(want["median_sq_distance"], rel=1e-12)
    checked = 0
    for key, value in want.items():
        if key.startswith("mmd2_rbf"):
            _, _, estimator, factor = key.split("_")
            factors = FACTORS if factor == "mean" else (float(factor[1:]),)
            assert mmd_rbf(x, y, scale=scale, factors=factors, estimator=estimator) == pytest.approx(value, abs=1e-10)
            checked += 1
    assert checked >= 12
    if want.get("mmd2_poly3_torchmetrics") is not None:
        assert mmd_poly3(x, y) == pytest.approx(want["mmd2_poly3_torchmetrics"], abs=1e-10)


@pytest.mark.parametrize(("case", "pair"), PAIRS)
def test_cka(case, pair):
    want = WANT[case][pair]
    if want.get("cka_linear_biased") is None:
        return
    x, y = tokens(case, pair)
    assert cka_linear(x, y) == pytest.approx(want["cka_linear_biased"], abs=1e-9)
    for key in ("cka_linear_unbiased_ckatorch", "cka_linear_unbiased_yy"):
        assert cka_linear(x, y, unbiased=True) == pytest.approx(want[key], abs=1e-9)
    if want.get("cka_linear_minibatch32") is not None:
        assert cka_minibatch(x, y) == pytest.approx(want["cka_linear_minibatch32"], abs=1e-9)


@pytest.mark.parametrize("case", WANT)
def test_floor(case):
    teacher = CASES[f"{case}/teacher"]
    want = WANT[case]["teacher_half_vs_half"]
    assert frechet_floor(teacher) == pytest.approx(want["frechet_symmetric"], rel=1e-6, abs=1e-5)
    floor = halves_floor(teacher, lambda x, y: mmd_rbf(x, y, scale=median_sq_distance(x, y)))
    assert floor == pytest.approx(want["mmd2_rbf_unbiased_mean"], abs=1e-10)


def test_identical_features():
    x = CASES["a/student"]
    assert frechet(x, x).distance == pytest.approx(0, abs=1e-5)
    assert mmd_rbf(x, x, scale=20.0, estimator="paired") == pytest.approx(0, abs=1e-12)
    assert mmd_rbf(x, x, scale=20.0, estimator="biased") == pytest.approx(0, abs=1e-12)
    assert mmd_rbf(x, x, scale=20.0) < 0  # matched rows in the cross term: why `paired` exists
    assert cka_linear(x, x) == pytest.approx(1)
    same = direct_gap(x, x)
    assert (same.mse, same.explained) == (0.0, 1.0)
    assert same.cosine == pytest.approx(1)


def test_cka_is_blind_to_rotation_and_scale():
    rng = np.random.default_rng(1)
    x, y = CASES["a/student"], CASES["a/teacher"]
    rotation = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    for unbiased in (False, True):
        value = cka_linear(x, y, unbiased=unbiased)
        assert cka_linear(x @ rotation * 7 + 3, y, unbiased=unbiased) == pytest.approx(value)
    assert frechet(x @ rotation, y @ rotation).distance == pytest.approx(frechet(x, y).distance)
    independent = rng.normal(size=(24, 32)), rng.normal(size=(24, 32))
    assert cka_linear(*independent) > 0.5
    assert abs(cka_linear(*independent, unbiased=True)) < 0.2


def test_minibatches_of_given_rows():
    x, y = CASES["a/student"], CASES["a/teacher"]
    batches = [np.arange(start, start + 32) for start in range(0, 256, 32)]
    assert cka_minibatch(x, y, batches=batches) == cka_minibatch(x, y)
    assert np.isnan(cka_minibatch(x, y, size=3))
    assert cka_minibatch(x, y, batches=[np.arange(256), np.arange(2)]) == cka_linear(x, y, unbiased=True)


def test_constant_adapter_is_seen_through():
    """Outputting the teacher's mean removes the mean term, and every other number shows it."""
    teacher, student = CASES["b/teacher"], CASES["b/student"]
    constant = np.broadcast_to(teacher.mean(axis=0, dtype=float), teacher.shape)
    assert frechet(constant, teacher).mean_term < 1e-12 < frechet(student, teacher).mean_term
    assert frechet(constant, teacher).covariance_term > 1
    assert direct_gap(teacher, constant).explained == pytest.approx(0, abs=1e-9)
    assert not cka_linear(constant, teacher) > 0.01  # 0, or undefined


def test_blocks_do_not_matter(monkeypatch):
    x, y = CASES["b/student"], CASES["b/teacher"]
    scale, value = median_sq_distance(x, y), mmd_rbf(x, y, scale=30.0, estimator="paired")
    monkeypatch.setattr("adubench.evaluators.mmd._BLOCK", 37)
    assert median_sq_distance(x, y) == pytest.approx(scale, rel=1e-12)
    assert mmd_rbf(x, y, scale=30.0, estimator="paired") == pytest.approx(value, abs=1e-12)


def image_tokens(rng, images=12, per_image=6, shift=0.0):
    common = np.repeat(rng.normal(size=(images, 4)), per_image, axis=0)
    return rng.normal(size=(images * per_image, 4)) + common + shift


def test_permutation_of_images():
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(12), 6)
    p_values = []
    for _ in range(30):
        x, y = image_tokens(rng), image_tokens(rng)
        test = mmd_permutation(x, y, image, image + 12, scale=8.0, generator=rng, relabellings=39)
        p_values.append(test.p)
    assert test.mmd2 == pytest.approx(mmd_rbf(x, y, scale=8.0), abs=1e-12)
    assert 0.3 < np.mean(p_values) < 0.7  # uniform under the null
    far = mmd_permutation(x, y + 3, image, image + 12, scale=8.0, generator=rng, relabellings=39)
    assert far.p == 1 / 40
    with pytest.raises(DataError, match="both sides"):
        mmd_permutation(x, y, image, image + 5, scale=8.0, generator=rng)


def test_extrapolation_removes_the_bias():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(800, 12)), rng.normal(size=(800, 12))
    assert abs(frechet_extrapolated(x, y, generator=rng)) < 0.35 * frechet(x, y).distance


def test_projection_and_standardising():
    teacher, student = CASES["b/teacher"], CASES["b/student"]
    axes = principal_axes(teacher, 5)
    assert axes.shape == (24, 5)
    assert np.allclose(axes.T @ axes, np.eye(5))
    spread = (teacher.astype(float) @ axes).var(axis=0)
    assert (np.diff(spread) <= 1e-9).all()
    assert spread[0] >= teacher.astype(float).var(axis=0).max()
    flat = teacher.copy()
    flat[:, 3] = 2
    ruler = standardiser(flat)
    assert ruler.n_constant == 1
    assert np.allclose(ruler(flat).std(axis=0), np.r_[np.ones(3), 0, np.ones(20)])
    assert np.isfinite(ruler(student)).all()


def test_closed_fraction():
    assert closed_fraction(10, 4, 2) == 0.75
    assert closed_fraction(10, 12, 2) == -0.25
    assert np.isnan(closed_fraction(2, 1, 2))


def test_bad_features():
    x = np.ones((10, 3))
    broken = x.copy()
    broken[4, 1] = np.nan
    with pytest.raises(DataError, match=r"1 of 10 tokens hold NaN.*row 4"):
        frechet(x, broken)
    with pytest.raises(DataError, match="3 and 2 channels"):
        mmd_rbf(x, x[:, :2], scale=1.0)
    with pytest.raises(DataError, match="same places"):
        cka_linear(x, x[:5])
    with pytest.raises(DataError, match="same places"):
        mmd_rbf(x, x[:5], scale=1.0, estimator="paired")
    with pytest.raises(DataError, match="at least 2"):
        frechet(x, x[:1])
    with pytest.raises(DataError, match="tokens by channels"):
        frechet(x[0], x)
    with pytest.raises(DataError, match="bandwidth"):
        mmd_rbf(x, x, scale=median_sq_distance(x, x))


def test_few_tokens():
    rng = np.random.default_rng(3)
    assert np.isnan(cka_linear(rng.normal(size=(3, 2)), rng.normal(size=(3, 2))))
    assert np.isnan(cka_linear(np.ones((9, 2)), rng.normal(size=(9, 2))))
    assert np.isnan(direct_gap(np.ones((9, 2)), rng.normal(size=(9, 2))).explained)
