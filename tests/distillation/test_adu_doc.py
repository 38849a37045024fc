"""The page on ADU-Depth holds what the package computes."""

from __future__ import annotations

import re

import pytest

torch = pytest.importorskip("torch")

from adubench.distillation.adapters import AdaptationSet  # noqa: E402
from benchmarks import adu_tables, make_tables  # noqa: E402

TEXT = adu_tables.PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("key", adu_tables.blocks())
def test_tables_are_computed(key):
    filled = make_tables.fill(TEXT, key, adu_tables.blocks()[key])
    assert filled == TEXT, f"{key} is out of date: run python -m benchmarks.adu_tables"


def test_parameters_of_the_table_are_those_of_the_modules():
    for name, width in adu_tables.WIDTHS.items():
        channels = ([width * 2**i for i in range(4)], adu_tables.DECODER)
        with torch.device("meta"):
            adapters = AdaptationSet(channels, channels)
        millions = sum(p.numel() for p in adapters.parameters()) / 1e6
        assert f"{millions:.1f} M" in next(x for x in adu_tables.sum_table().splitlines() if name in x)


@pytest.mark.parametrize("mode", adu_tables.MODES)
def test_costs_of_the_table_are_those_of_the_estimate(mode):
    """The estimate that training prints has its own copy of the rule: parts of `models` import nothing of ours."""
    from adubench.models.cost import adapter_flops, level_sizes

    for size, stride in zip(level_sizes(*adu_tables.SIZE), adu_tables.STRIDES, strict=True):
        counted = adapter_flops(size, 192, mode)
        found = adu_tables.attention_gflop(192, stride, mode)
        assert found == pytest.approx((counted["attention"] / 1e9, counted["projections"] / 1e9))


def test_the_example_runs():
    from adubench.models import zoo
    from tests.distillation.adu_cases import random_gt

    mini = {"family": "newcrfs", "variant": "mini"}
    student = zoo.build(mini | {"uncertainty": {"scaling": "affine", "s_min": -4.0, "s_max": 4.0}})
    teacher = zoo.build(mini | {"in_channels": 6}).eval()
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    left, right = torch.randn(2, 2, 3, 64, 96)
    names = {"torch": torch, "student": student, "teacher": teacher, "left": left, "right": right, "step": 0}
    exec(code, names | {"gt": random_gt(0)})
    assert all(p.grad is not None for p in student.parameters())
