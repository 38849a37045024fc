"""Learning rates against torch's own schedulers and the NeWCRFs formula."""

import pytest

torch = pytest.importorskip("torch")

from adubench.training.schedules import lr_factor  # noqa: E402


def test_polynomial_is_that_of_newcrfs(recipe):
    train = recipe("train.lr=2.0e-5", "train.schedule=poly").train
    end = 0.1 * train.lr
    for step in (0, 1, 500, 999):
        expected = (train.lr - end) * (1 - step / 1000) ** 0.9 + end
        assert train.lr * lr_factor(train, step, 1000, 100) == pytest.approx(expected, rel=1e-12)
    assert lr_factor(train, 0, 1000, 100) == 1
    own_end = recipe("train.lr=1.0e-3", "train.end_lr=0").train
    assert lr_factor(own_end, 1000, 1000, 100) == 0


def test_onecycle_is_torchs(recipe):
    train = recipe("train.schedule=onecycle", "train.lr=0.01").train
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=40)
    for step in range(40):
        assert train.lr * lr_factor(train, step, 40, 10) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        if step < 39:
            optimizer.step()
            theirs.step()


def test_steps_and_constant(recipe):
    train = recipe("train.schedule=step", "train.step_epochs=2").train
    assert [lr_factor(train, step, 100, 10) for step in (0, 19, 20, 39, 40)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    assert lr_factor(recipe("train.schedule=constant").train, 77, 100, 10) == 1


@pytest.mark.parametrize("schedule", ["poly", "step", "onecycle", "constant"])
def test_short_runs(recipe, schedule):
    train = recipe(f"train.schedule={schedule}").train
    for total in (1, 2, 3):
        assert all(0 < lr_factor(train, step, total, 1) <= 1 for step in range(total))
