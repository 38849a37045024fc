"""TIE-KD, its baselines and its teachers on a batch that is spread over processes: the loss of the whole batch."""

import json
import threading

import pytest

torch = pytest.importorskip("torch")

from adubench.distillation import response  # noqa: E402
from adubench.distillation.tie_kd import TieKDConfig, tie_kd_loss  # noqa: E402
from adubench.models.densedepth import bin_centres, bin_edges  # noqa: E402
from tests.training.test_processes import launch  # noqa: E402

CENTRES = bin_centres(bin_edges(9, 0.001, 80))


class Meeting:
    """Adds the tensors of two threads, as all_reduce does those of two processes; one graph holds both."""

    def __init__(self):
        self.barrier, self.left = threading.Barrier(2, timeout=60), {}

    def joined(self, who):
        def all_reduce(values):
            self.left[who] = values
            self.barrier.wait()
            total = self.left[0] + self.left[1]
            self.barrier.wait()
            return total

        return all_reduce

    def run(self, loss, parts):
        found = {}

        def work(who):
            found[who] = loss(*parts[who], self.joined(who))

        threads = [threading.Thread(target=work, args=(who,)) for who in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found[0], found[1]


def probabilities(depth):
    return torch.softmax(-((CENTRES[None, :, None, None] - depth) ** 2) / 400, dim=1)


def tie_kd(pred, teacher, mask, gt, add):
    probs = probabilities(pred)
    depth = (probs * CENTRES[None, :, None, None]).sum(1, keepdim=True)
    config = TieKDConfig(alpha=0.5, ignore_top_rows=2)
    return tie_kd_loss(depth, probs, CENTRES, teacher, config, mask=mask, all_reduce=add).total


def edges_of(pred):
    return pred[:, 0, 0].sort(dim=1).values


LOSSES = {
    "tie-kd": tie_kd,
    **{
        kind: lambda pred, teacher, mask, gt, add, kind=kind: response.response_kd_loss(
            kind, pred, teacher, mask=mask, all_reduce=add
        )
        for kind in response.RESPONSE_WEIGHTS
    },
    "sparse-si": lambda pred, teacher, mask, gt, add: response.si_loss(pred, gt, all_reduce=add),
    "warm-up": lambda pred, teacher, mask, gt, add: response.si_loss(pred, gt, step=0, warm_up=9, all_reduce=add),
    "adabins": lambda pred, teacher, mask, gt, add: response.adabins_silog(pred, gt, all_reduce=add),
    "chamfer": lambda pred, teacher, mask, gt, add: response.bin_chamfer(edges_of(pred), gt, all_reduce=add),
    "bts": lambda pred, teacher, mask, gt, add: response.bts_silog(pred, gt, all_reduce=add),
}


@pytest.mark.parametrize("name", LOSSES)
def test_parts_of_unequal_size_and_masks_have_the_loss_and_gradient_of_the_whole(name):
    generator = torch.Generator().manual_seed(3)
    teacher = 2 + 60 * torch.rand(3, 1, 16, 20, generator=generator)
    mask = torch.rand(3, 1, 16, 20, generator=generator) < torch.tensor([0.9, 0.5, 0.2])[:, None, None, None]
    gt = teacher * (torch.rand(3, 1, 16, 20, generator=generator) < 0.3)
    gt[2] = 0  # the second process has no ground truth at all
    pred = (teacher + 5 * torch.rand(3, 1, 16, 20, generator=generator)).requires_grad_()
    whole = LOSSES[name](pred, teacher, mask, gt, lambda values: values)
    (expected,) = torch.autograd.grad(whole, pred)
    data = (pred, teacher, mask, gt)
    parts = [tuple(value[:2] for value in data), tuple(value[2:] for value in data)]
    both = Meeting().run(LOSSES[name], parts)
    assert both[0].item() == pytest.approx(whole.item(), rel=1e-5)
    assert both[1].item() == both[0].item()
    (got,) = torch.autograd.grad(both[0], pred)
    assert torch.allclose(got, expected, rtol=1e-4, atol=1e-7)


TRAIN = """
import sys
from dataclasses import replace
from pathlib import Path
from adubench.models import densedepth
from adubench.recipes.recipe import load_recipe
from adubench.training.run import train

if __name__ == "__main__":
    densedepth.STUDENTS["resnet18"] = replace(densedepth.STUDENTS["resnet18"], widths=(128, 8, 8, 8, 8))
    output, root, *changes = sys.argv[1:]
    train(load_recipe("demo-tie-kd", changes), output=Path(output), data_root=Path(root), device="cpu")
"""
QUICK = ("input.height=32", "input.width=64", "model.n_bins=17", "train.batch_size=4", "validate.split=null",
         "log.every=1", "train.lr=1.0e-4", "train.steps=2", "train.sync_batch_norm=true", "train.workers=0",
         "augment.rotate=2.5")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [(), ("method=response-kd", "model.head=regression", "response_kd.loss=ssim+si"),
               ("method=sparse-si", "model.head=regression")]
)  # fmt: skip
def test_two_processes_have_the_losses_of_one(method, synth, maps, tmp_path):
    """Six frames in batches of four: the second step's batch is smaller."""
    code = tmp_path / "go.py"
    code.write_text(TRAIN)
    changes = (*QUICK, f"teacher_maps.path={maps}", *method)
    for name, processes in (("one", 1), ("two", 2)):
        done = launch(code, tmp_path / name, synth, *changes, processes=processes)
        assert done.returncode == 0, done.stderr[-3000:]
    logs = [(tmp_path / name / "student/log.jsonl").read_text().splitlines() for name in ("one", "two")]
    one, two = ([line for line in map(json.loads, lines) if line["event"] == "step"] for lines in logs)
    assert len(one) == len(two) == 2
    for a, b in zip(one, two, strict=True):
        for name in ("loss", "l_dpm", "l_depth", "n_valid", "grad_norm"):
            if name in a:
                assert b[name] == pytest.approx(a[name], rel=5e-4, abs=1e-5), (a["step"], name)
