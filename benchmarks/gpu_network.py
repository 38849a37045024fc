"""NeWCRFs on a CUDA device: N3 (against the published form), N4 (share of the roofline), and a table of ways to run it.

Times are medians of device events after a warm-up, on rotating random inputs. Both ceilings are measured on the same
device: a large matrix product, and a large copy.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from benchmarks.bench_network import OURS, PLAIN, SIZE, depth, gflop, pair

WARMUP, TIMED = 10, 30
BATCHES = (1, 2, 4, 8, 16)
PRECISIONS = ("fp32", "tf32", "bf16")
EQUAL_GOAL, BEST_GOAL, ROOFLINE_GOAL = 1.3, 3.0, 0.30


def milliseconds(run: Callable[[int], Any]) -> dict[str, float]:
    """Median and spread of a function of the round's number."""
    for i in range(WARMUP):
        run(i)
    torch.cuda.synchronize()
    times = []
    for i in range(TIMED):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run(i)
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    low, _, high = statistics.quantiles(times, n=4)
    middle = statistics.median(times)
    return {"ms": middle, "iqr": (high - low) / middle}


def precision(name: str) -> Any:
    """Switch TF32 on or off, and return the context of the forward pass."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name == "tf32"
    return torch.autocast("cuda", torch.bfloat16) if name == "bf16" else nullcontext()


def forward(form: Any, batch: int, kind: str, *, flip: bool = False) -> dict[str, Any]:
    """Time and peak memory above the weights of one way to run a network."""
    inputs = [torch.randn(batch, 3, *SIZE, device="cuda") for _ in range(4)]

    def run(i: int) -> None:
        x = inputs[i % len(inputs)]
        with torch.inference_mode(), precision(kind):
            depth(form, x)
            if flip:
                depth(form, x.flip(-1))

    held = torch.cuda.memory_allocated()
    try:
        run(0)
        torch.cuda.reset_peak_memory_stats()
        found = milliseconds(run)
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return {"ms": None, "iqr": None, "fps": None, "mib": None}
    peak = (torch.cuda.max_memory_allocated() - held) / 2**20
    return {**found, "fps": 1000 * batch / found["ms"], "mib": peak}


def ceilings() -> dict[str, float]:
    """TFLOP/s of matrix products and TB/s of a copy (reads and writes counted)."""
    found = {}
    for kind in PRECISIONS:
        dtype = torch.bfloat16 if kind == "bf16" else torch.float32
        a, b = (torch.randn(8192, 8192, device="cuda", dtype=dtype) for _ in range(2))
        precision(kind)
        found[kind] = 2 * 8192**3 / milliseconds(lambda i, a=a, b=b: a @ b)["ms"] / 1e9
    source = torch.randn(2**28, device="cuda")
    target = torch.empty_like(source)
    found["copy_tb_s"] = 2 * source.nbytes / milliseconds(lambda i: target.copy_(source))["ms"] / 1e9
    return found


def traffic(variant: str) -> tuple[int, int]:
    """Elements of activations that fused layers move for one image, and of weights."""
    from adubench.models.cost import level_sizes, newcrfs_parameters
    from adubench.models.variants import variant_of

    shape, moved = variant_of(variant), 0
    levels = zip(
        level_sizes(*SIZE), shape.encoder_widths, shape.depths, shape.crf_widths, shape.value_widths, strict=True
    )
    for size, c, n, d, v in levels:
        moved += size.tokens * (22 * c * n + 42 * d + c + d + v + d)
    return moved, sum(newcrfs_parameters({"variant": variant}).values())


def compiled(network: Any) -> Any:
    """The network through torch.compile with captured graphs."""
    return torch.compile(network, mode="reduce-overhead", dynamic=False)


def measure(variants: list[str]) -> dict[str, Any]:
    """Everything, for the JSON report."""
    top = ceilings()
    report: dict[str, Any] = {"device": torch.cuda.get_device_name(), "ceilings": top, "rows": []}
    for variant in variants:
        forms = {name: form.cuda().eval() for name, form in pair(variant).items()}
        rows = [_row(variant, PLAIN, "fp32", 1, forward(forms[PLAIN], 1, "fp32"))]
        rows.append(_row(variant, PLAIN, "bf16", 1, forward(forms[PLAIN], 1, "bf16")))
        for kind in PRECISIONS:
            rows += [_row(variant, OURS, kind, batch, forward(forms[OURS], batch, kind)) for batch in BATCHES]
            rows.append(_row(variant, OURS, kind, 1, forward(forms[OURS], 1, kind, flip=True), flip=True))
        fast = compiled(forms[OURS])
        rows += [_row(variant, f"{OURS}, compiled", "bf16", batch, forward(fast, batch, "bf16")) for batch in (1, 8)]
        report["rows"] += rows
        report[variant] = {"accuracy": _accuracy(forms[OURS]), **_goals(rows, variant, top)}
        del forms, fast
        torch.compiler.reset()
        torch.cuda.empty_cache()
    return report


def _row(
    variant: str, form: str, kind: str, batch: int, found: dict[str, Any], *, flip: bool = False
) -> dict[str, Any]:
    return {"variant": variant, "form": form, "precision": kind, "batch": batch, "flip": flip, **found}


def _goals(rows: list[dict[str, Any]], variant: str, top: dict[str, float]) -> dict[str, Any]:
    def ms(form: str, kind: str, batch: int) -> float:
        return next(
            r["ms"] or float("inf")
            for r in rows
            if r["form"] == form and r["precision"] == kind and r["batch"] == batch and not r["flip"]
        )

    base = ms(PLAIN, "fp32", 1)
    best = min(r["ms"] for r in rows if r["batch"] == 1 and not r["flip"] and r["form"] != PLAIN and r["ms"])
    moved, weights = traffic(variant)
    floor = max(8 * gflop(variant) / top["bf16"], 2 * (8 * moved + weights) / top["copy_tb_s"] / 1e9)
    share = floor / min(ms(OURS, "bf16", 8), ms(f"{OURS}, compiled", "bf16", 8))
    return {
        "N3_equal": base / ms(OURS, "fp32", 1),
        "N3_best": base / best,
        "N4": share,
        "reached": base / ms(OURS, "fp32", 1) >= EQUAL_GOAL and base / best >= BEST_GOAL and share >= ROOFLINE_GOAL,
    }


def _accuracy(network: Any) -> dict[str, float]:
    """Relative L2 difference of depth from that of float32."""
    x = torch.randn(1, 3, *SIZE, device="cuda")
    found = {}
    with torch.inference_mode():
        for kind in PRECISIONS:
            with precision(kind):
                found[kind] = depth(network, x).double()
    exact = found["fp32"]
    return {kind: float((found[kind] - exact).norm() / exact.norm()) for kind in ("tf32", "bf16")}
