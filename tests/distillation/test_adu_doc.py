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
