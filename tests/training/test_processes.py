"""Two processes (gloo, CPU) train what one process trains with the same batch: losses, gradients, normalisation."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from adubench.errors import UsageError  # noqa: E402
from adubench.training.launch import check_processes, choose_precision  # noqa: E402
from adubench.training.micro_batches import micro_batches  # noqa: E402
from adubench.training.sync_batch_norm import GlobalBatchNorm2d, convert_batch_norm  # noqa: E402
from tests.training.conftest import QUICK  # noqa: E402

CHANGES = (
    "train.steps=3",
    "train.batch_size=4",
    "train.sync_batch_norm=true",
    "train.lr=1.0e-4",
    "teacher.drop_path=0",
    "student.drop_path=0",
)


def launch(code, *arguments, processes=2):
    """Run Python code in several processes that torchrun starts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    command += ["--master-addr=127.0.0.1", f"--master-port={port}", str(code), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


TRAIN = """
import sys
from pathlib import Path
from adubench.recipes.recipe import load_recipe
from adubench.training.run import train

if __name__ == "__main__":
    output, root, *changes = sys.argv[1:]
    train(load_recipe("demo", changes), output=Path(output), data_root=Path(root), device="cpu", resume=True)
"""


def losses(folder, stage):
    lines = [json.loads(line) for line in (folder / stage / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "p_d"} for line in lines if line["event"] == "step"]


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(synth, tmp_path):
    """Teacher and student with adapters; the third step has a smaller last batch of an epoch."""
    code = tmp_path / "go.py"
    code.write_text(TRAIN)
    for name, processes in (("one", 1), ("two", 2)):
        done = launch(code, tmp_path / name, synth, *QUICK, *CHANGES, processes=processes)
        assert done.returncode == 0, done.stderr[-3000:]
    for stage in ("teacher", "student"):
        one, two = losses(tmp_path / "one", stage), losses(tmp_path / "two", stage)
        assert len(one) == len(two) == 3
        for a, b in zip(one, two, strict=True):
            assert a["n_valid"] == b["n_valid"]
            for name in ("loss", "base", "response", "feature_encoder", "feature_decoder", "focal", "grad_norm"):
                if name in a:
                    # Sums in another order, and Adam's first steps, which enlarge every difference.
                    assert b[name] == pytest.approx(a[name], rel=2e-4, abs=1e-5), (stage, a["step"], name)


NORM = """
import sys
import torch
from torch import nn, distributed
from adubench.training.sync_batch_norm import convert_batch_norm

distributed.init_process_group("gloo")
rank = distributed.get_rank()
data = torch.load(sys.argv[1], weights_only=True)
norm = convert_batch_norm(nn.Sequential(nn.BatchNorm2d(3)))
norm.load_state_dict(data["state"])
x = data["x"][rank::2].clone().requires_grad_()
y = norm(x)
# DDP averages gradients: a loss that every process holds whole.
from adubench.training.distributed import all_sum
loss = all_sum((y * data["w"][rank::2]).sum())
loss.backward()
for p in norm.parameters():
    distributed.all_reduce(p.grad)
    p.grad /= 2
torch.save({"y": y.detach(), "dx": x.grad / 2, "grads": [p.grad for p in norm.parameters()],
            "state": norm.state_dict()}, sys.argv[2] + str(rank))
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_batch_norm_over_processes_is_that_of_the_whole_batch(tmp_path):
    torch.manual_seed(0)
    norm = nn.Sequential(nn.BatchNorm2d(3))
    data = {"state": norm.state_dict(), "x": torch.randn(5, 3, 4, 6) * 3 + 50, "w": torch.randn(5, 3, 4, 6)}
    data = {"state": {k: v.clone() for k, v in norm.state_dict().items()}} | {k: data[k] for k in "xw"}
    torch.save(data, tmp_path / "data")
    (tmp_path / "go.py").write_text(NORM)
    done = launch(tmp_path / "go.py", tmp_path / "data", tmp_path / "out")
    assert done.returncode == 0, done.stderr[-3000:]
    x = data["x"].clone().requires_grad_()
    y = norm(x)
    (y * data["w"]).sum().backward()
    for rank in range(2):
        out = torch.load(tmp_path / f"out{rank}", weights_only=True)
        torch.testing.assert_close(out["y"], y.detach()[rank::2], rtol=1e-5, atol=2e-5)
        torch.testing.assert_close(out["dx"], x.grad[rank::2], rtol=1e-4, atol=1e-5)
        for own, p in zip(out["grads"], norm.parameters(), strict=True):
            torch.testing.assert_close(own, p.grad, rtol=1e-4, atol=1e-4)
        for key, value in norm.state_dict().items():
            torch.testing.assert_close(out["state"][key], value, rtol=1e-5, atol=1e-5)


def test_global_batch_norm_of_one_process_is_torchs():
    torch.manual_seed(1)
    ours = convert_batch_norm(nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4)))
    theirs = nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4))
    theirs.load_state_dict(ours.state_dict())
    assert isinstance(ours[1], GlobalBatchNorm2d)
    x = torch.randn(3, 2, 5, 5)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("accumulate", [1, 2, 4])
@pytest.mark.parametrize("size", [3, 7, 12])
def test_micro_batches_cover_the_batch(world, accumulate, size):
    whole = np.arange(size)
    seen, weights = [], []
    for rank in range(world):
        share = whole[rank::world]
        parts = micro_batches({"x": share, "frames": list(share)}, size, accumulate, rank, world)
        weights.append([w for _, w in parts])
        assert all(len(part["x"]) == len(part["frames"]) > 0 for part, _ in parts)
        seen += [int(v) for part, _ in parts for v in part["x"]]
    assert sorted(seen) == list(range(size))
    assert all(w == weights[0] for w in weights)
    assert sum(weights[0]) == pytest.approx(1)


def test_precision_and_processes(recipe):
    train = recipe("train.batch_size=4", "train.accumulate=2").train
    assert choose_precision(train, torch.device("cpu")) == "no"
    assert choose_precision(recipe("train.precision=bf16").train, torch.device("cpu")) == "bf16"
    with pytest.raises(UsageError, match="fp16 needs CUDA"):
        choose_precision(recipe("train.precision=fp16").train, torch.device("cpu"))
    check_processes(train, 2)
    with pytest.raises(UsageError, match="less than 3 processes x 2 micro-batches"):
        check_processes(train, 3)
