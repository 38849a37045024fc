"""Networks kept on the way, and shares of the gradient: both leave the training as it is."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from adubench.training import run_folder  # noqa: E402
from adubench.training.run import train  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, synth):
    """Train a teacher of three steps."""
    from adubench.recipes.recipe import load_recipe
    from tests.training.conftest import QUICK

    (path,) = train(
        load_recipe("demo", QUICK), output=tmp_path_factory.mktemp("t"), data_root=synth, stages=["teacher"]
    )
    return path


def lines(folder):
    return [json.loads(line) for line in (folder / "student" / run_folder.LOG).read_text().splitlines()]


def test_milestones_and_shares_change_no_weight(recipe, synth, teacher, tmp_path):
    changes = ("checkpoint.milestones=[0, 0.34, 1]", "log.gradient_shares=true", "log.every=2")
    (plain,) = train(recipe(), output=tmp_path / "a", data_root=synth, teacher=teacher)
    (kept,) = train(recipe(*changes), output=tmp_path / "b", data_root=synth, teacher=teacher)
    one, two = load_file(plain), load_file(kept)
    assert all(torch.equal(one[name], two[name]) for name in one)
    found = sorted(path.name for path in (tmp_path / "b" / "student").glob("milestone-*"))
    expected = [p.name for step in (0, 1, 3) for p in run_folder.milestone_files(tmp_path, step)]
    assert found == sorted(expected)
    assert not list((tmp_path / "a" / "student").glob("milestone-*"))
    start, last = (run_folder.milestone_files(tmp_path / "b" / "student", step)[0] for step in (0, 3))
    assert all(torch.equal(two[name], value) for name, value in load_file(last).items())
    assert any(not torch.equal(two[name], value) for name, value in load_file(start).items())
    steps = [line for line in lines(tmp_path / "b") if line["event"] == "step"]
    shares = {k: v for k, v in steps[0].items() if k.startswith("gradient_share_")}
    assert set(shares) == {
        f"gradient_share_{t}" for t in ("base", "response", "feature_encoder", "feature_decoder", "focal")
    }
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["gradient_share_base"] > 0
    assert not any(k.startswith("gradient_share_") for line in lines(tmp_path / "a") for k in line)


def test_a_run_that_continues_keeps_its_milestones(recipe, synth, teacher, tmp_path, monkeypatch):
    from adubench.errors import DataError
    from adubench.training import loop

    changes = ("checkpoint.milestones=[0, 0.34]", "checkpoint.every=1")
    step = loop.Trainer._one_step

    def broken(self, model, optimizer, batch):
        if self.step == 2:
            raise DataError("the disk is gone.")
        return step(self, model, optimizer, batch)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "_one_step", broken)
        with pytest.raises(DataError, match="the disk is gone"):
            train(recipe(*changes), output=tmp_path, data_root=synth, teacher=teacher)
    network, _ = run_folder.milestone_files(tmp_path / "student", 1)
    before = network.read_bytes()
    train(recipe(*changes), output=tmp_path, data_root=synth, teacher=teacher, resume=True)
    assert network.read_bytes() == before
    assert all(path.exists() for path in run_folder.milestone_files(tmp_path / "student", 0))
