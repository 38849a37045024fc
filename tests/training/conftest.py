"""Recipes that train a network of 0.3 M parameters on the shared SynthDrive tree in seconds."""

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
def maps(synth, tmp_path_factory):
    """A teacher's maps of all frames of the training drives, also of those without ground truth."""
    import numpy as np

    from adubench.datasets.splits import load_split
    from adubench.datasets.teacher_maps import TeacherRecord, frames_sha256, write_record, write_teacher_png

    root = tmp_path_factory.mktemp("maps")
    frames = load_split("synthdrive.train", synth).frames
    names = [frame.name for frame in frames]
    record = TeacherRecord("ramp", 80.0, "synthdrive.train", frames_sha256(names), len(names), "a" * 64, crop="none")
    depth = np.repeat(np.linspace(70, 3, 64, dtype=np.float32)[:, None], 128, axis=1)
    for frame in frames:
        date = frame.drive[:10]
        write_teacher_png(root, f"{date}/{frame.drive}_sync/image_02/data/{frame.index:010d}.png", depth, record)
    write_record(root, record)
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
