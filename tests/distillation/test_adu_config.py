"""Settings: names and defaults of a recipe, errors that help, the preset."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from adubench.distillation.adu_config import (
    AdapterConfig,
    DistillationConfig,
    FeatureConfig,
    paper_literal,
)
from adubench.errors import UsageError
from adubench.recipes.schema import DistillSection


def test_defaults_are_those_of_a_recipe():
    assert DistillationConfig.from_mapping(DistillSection().model_dump(mode="json", by_alias=True)) == (
        DistillationConfig()
    )
    assert DistillationConfig.from_mapping(DistillSection().model_dump()) == DistillationConfig()


def test_published_weights():
    weights = DistillationConfig().lambda_
    assert (weights.umr, weights.umf, weights.focal) == (0.9, 0.6, 0.8)


def test_nested_values():
    config = DistillationConfig.from_mapping(
        {"adapter": {"heads": 1, "kind": "conv1x1"}, "lambda": {"focal": 0}, "features": {"decoder": []}}
    )
    assert config.adapter == AdapterConfig(heads=1, kind="conv1x1")
    assert config.lambda_.focal == 0
    assert config.features.decoder == ()
    assert config.features.encoder == (0, 1, 2, 3)


def test_preset_is_the_printed_form_and_explicit_values_stay():
    config = DistillationConfig.from_mapping({"preset": "paper-literal"})
    assert config.adapter == AdapterConfig(heads=1, scale="none", residual=False, zero_init=False, attention="full")
    assert config.feature == FeatureConfig(channel_reduction="sum")
    assert config.response.reduction == "mean"
    assert paper_literal() == config
    kept = DistillationConfig.from_mapping({"preset": "paper-literal", "adapter": {"attention": "window", "heads": 4}})
    assert (kept.adapter.attention, kept.adapter.heads, kept.adapter.scale) == ("window", 4, "none")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"adaptor": {}}, "unknown key of distill 'adaptor': did you mean 'adapter'"),
        ({"focal": {"gama": 2}}, "unknown key of distill.focal 'gama': did you mean 'gamma'"),
        ({"adapter": {"kind": "conv3x4"}}, "unknown value of distill.adapter.kind 'conv3x4': did you mean 'conv3x3'"),
        ({"adapter": {"heads": "many"}}, "unknown value of distill.adapter.heads 'many'"),
        ({"focal": {"gamma": "two"}}, "distill.focal.gamma must be a number, not 'two'"),
        ({"uem": {"enabled": 1}}, "distill.uem.enabled must be true or false, not 1"),
        ({"features": {"encoder": [4]}}, r"distill.features.encoder must be a list of levels from 0 to 3, not \[4\]"),
        ({"warmup_steps": -1}, "distill.warmup_steps must be a whole number, not -1"),
        ({"lambda": 3}, "distill.lambda must be a section of named values, not 3"),
        ({"lambda": {"umf": True}}, "distill.lambda.umf must be a number, not True"),
    ],
)
def test_errors_name_the_key(values, message):
    with pytest.raises(UsageError, match=message):
        DistillationConfig.from_mapping(values)


def test_warm_up():
    config = DistillationConfig(warmup_steps=10)
    assert [config.ramp(k) for k in (0, 5, 10, 99)] == [0, 0.5, 1, 1]
    assert DistillationConfig().ramp(0) == 1
