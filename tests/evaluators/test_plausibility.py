import numpy as np
import pytest

from adubench.evaluators.plausibility import sample_frame, scale_warnings

RNG = np.random.default_rng(0)
GT = RNG.uniform(2, 80, 400).astype(np.float32)


def _say(pred, aligned=False, kind="depth"):
    return " ".join(scale_warnings([sample_frame(GT, pred.astype(np.float32))], aligned=aligned, kind=kind))


def test_metric_predictions_are_silent():
    assert _say(GT * 1.1) == ""
    assert _say(GT / 1.2) == ""


@pytest.mark.parametrize(
    ("factor", "word"), [(100, "centimetres"), (1000, "millimetres"), (256, "not divided by 256"), (3, "not metric")]
)
def test_wrong_units_are_named(factor, word):
    assert word in _say(GT * factor)
    assert _say(GT * factor, aligned=True) == ""


def test_disparity_is_noticed_whatever_the_alignment():
    assert "--kind scaled-disparity" in _say(1 / GT, aligned=True)
    assert "look like depth" in _say(1 / GT, kind="scaled-disparity")


def test_nothing_to_say_about_nothing():
    assert _say(np.zeros_like(GT)) == ""
    assert _say(np.full_like(GT, np.nan)) == ""
    assert scale_warnings([], aligned=False, kind="depth") == []


def test_a_constant_prediction_has_no_rank_correlation():
    assert np.isnan(sample_frame(GT, np.full_like(GT, 10)).rank_correlation)
