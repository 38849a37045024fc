"""Tables of docs/adu_depth.md that are computed from the package itself: `python -m benchmarks.adu_tables`."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import torch

from adubench.distillation.adu_config import DistillationConfig, paper_literal
from adubench.distillation.attention import attention_plan
from adubench.distillation.focal import focal_term
from benchmarks.make_tables import markdown, rewrite

PAGE = Path(__file__).resolve().parents[1] / "docs" / "adu_depth.md"
SIZE = (352, 1120)
STRIDES = (4, 8, 16, 32)
WIDTHS = {"tiny07": 96, "base07": 128, "large07": 192}
DECODER = (128, 256, 512, 1024)
MODES = ("full", "auto", "window")
MISMATCHES = (0.02, 0.05, 0.1, 0.5)
GAMMAS = (0.0, 0.5, 1.0, 2.0, 5.0)


def focal_table() -> str:
    """Value and slope of the focal term at alpha 1, per mismatch m = 1 - p_d and gamma."""
    rows = []
    for m in MISMATCHES:
        cells = [f"{m:g}"]
        for gamma in GAMMAS:
            x = torch.tensor(m, dtype=torch.float64, requires_grad=True)
            value = focal_term(x, gamma=gamma)
            value.backward()
            cells.append(f"{float(value.detach()):.2g} / {float(x.grad):.2g}")
        rows.append(cells)
    return markdown(["m", *(f"gamma {gamma:g}" for gamma in GAMMAS)], rows)


def attention_gflop(channels: int, stride: int, mode: str) -> tuple[float, float]:
    """GFLOP of one forward pass for one image: products with the keys (4 N M C), and projections (8 N C^2)."""
    plan = attention_plan(SIZE[0] // stride, SIZE[1] // stride, mode)
    products = 4 * plan.queries * plan.keys * channels
    return products / 1e9, 8 * plan.queries * channels**2 / 1e9


def cost_table() -> str:
    """Cost per level: score matrix if written out, products of each mode for encoder and decoder maps."""
    head = ["level", "map", "one score matrix", "keys (`auto`)"]
    head += [f"`{mode}`: encoder large07 / decoder" for mode in MODES] + ["projections"]
    rows = []
    for i, stride in enumerate(STRIDES):
        plan = attention_plan(SIZE[0] // stride, SIZE[1] // stride)
        channels = (WIDTHS["large07"] * 2**i, DECODER[i])
        matrix = plan.queries**2 * 4 / 1e6
        row = [f"1/{stride}", f"{SIZE[0] // stride} x {SIZE[1] // stride}", f"{matrix:,.1f} MB", f"{plan.keys:,}"]
        row += [" / ".join(f"{attention_gflop(c, stride, mode)[0]:.1f}" for c in channels) for mode in MODES]
        row.append(" / ".join(f"{attention_gflop(c, stride, 'full')[1]:.1f}" for c in channels))
        rows.append(row)
    return markdown(head, rows)


def sum_table() -> str:
    """GFLOP and parameters of all eight adapters per student."""
    rows = []
    for name, width in WIDTHS.items():
        levels = [(c, s) for i, s in enumerate(STRIDES) for c in (width * 2**i, DECODER[i])]
        parameters = sum(4 * c * c for c, _ in levels) / 1e6
        cells = [f"{sum(sum(attention_gflop(c, s, mode)) for c, s in levels):.0f}" for mode in MODES]
        rows.append([name, *cells, f"{parameters:.1f} M"])
    return markdown(["student", *(f"`{mode}` GFLOP" for mode in MODES), "adapter parameters"], rows)


def switch_table() -> str:
    """Every key of the `distill` section with its default, its other values, and the preset's where it differs."""
    rows = [
        [
            f"`distill.{key}`",
            _shown(default),
            ", ".join(other) or "numbers",
            "" if literal == default else _shown(literal),
        ]
        for (key, default, other), (_, literal, _) in zip(
            _flat(DistillationConfig()), _flat(paper_literal()), strict=True
        )
    ]
    return markdown(["key", "default", "other values", "`paper-literal`"], rows, numbers=False)


def _flat(config: Any, prefix: str = "") -> list[tuple[str, Any, list[str]]]:
    hints = get_type_hints(type(config))
    found = []
    for item in fields(config):
        value, name = getattr(config, item.name), f"{prefix}{item.name.rstrip('_')}"
        if is_dataclass(value):
            found += _flat(value, f"{name}.")
        elif name != "preset":
            found.append((name, value, [_shown(v) for v in _values(hints[item.name]) if v != value]))
    return found


def _values(hint: Any) -> list[Any]:
    if hint is bool:
        return [True, False]
    if get_origin(hint) is tuple:
        return [()]
    if int in get_args(hint):
        return [1]
    return list(get_args(hint))


def _shown(value: Any) -> str:
    return f"`{list(value) if isinstance(value, tuple) else value!s}`".replace("True", "true").replace("False", "false")


def blocks() -> dict[str, str]:
    return {
        "adu-focal": focal_table(),
        "adu-cost": cost_table(),
        "adu-sum": sum_table(),
        "adu-switches": switch_table(),
    }


if __name__ == "__main__":
    print("filled" if rewrite(PAGE, blocks()) else "nothing to change", PAGE)
