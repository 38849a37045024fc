"""A tiny SynthDrive tree, and recipes that train a network of 0.3 M parameters on it in seconds."""

import pytest

QUICK = (
    "teacher.encoder=mini",
    "student.encoder=mini",
    "input.height=64",
    "input.width=96",
    "train.steps=3",
    "train.batch_size=2",
    "train.workers=0",
    "validate.split=null",
    "log.every=1",
)


@pytest.fixture(scope="session")
def synth(tmp_path_factory):
    """SynthDrive with 2 training drives of 3 usable frames, and a drive each to validate and to test."""
    from adubench.datasets.synthdrive.writer import write_dataset

    root = tmp_path_factory.mktemp("synth") / "data"
    write_dataset(root, drives=4, frames=13, size=(64, 128))
    return root


@pytest.fixture
def recipe():
    """Make the demo's recipe as small as it goes, with changes."""
    from adubench.recipes.recipe import load_recipe

    def make(*changes):
        return load_recipe("demo", [*QUICK, *changes])

    return make


@pytest.fixture
def one_thread():
    """Two test processes on two cores: more threads only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
